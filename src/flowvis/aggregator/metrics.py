"""The aggregator's own metrics, beside the ledger's: `flowvis_aggregator_...`."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from flowvis.aggregator.collector import Collector
from flowvis.aggregator.flows import FlowTable
from flowvis.aggregator.ipfix_destination import IpfixDestination
from flowvis.clickhouse.writer import Writer
from flowvis.inventory.index import Inventory
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import ReadingsCollector, StatsCollector, new_registry
from flowvis.transport.server import Server

NAME = "flow-aggregator"
PREFIX = "flowvis_aggregator"

Readings = dict[str, tuple[str, Callable[[], float]]]


def registry(
    ledger: Ledger,
    *,
    server: Server,
    collector: Collector,
    table: FlowTable,
    inventory: Inventory,
    writer: Writer | None,
    ipfix: IpfixDestination | None,
) -> CollectorRegistry:
    """Return a registry that reads the parts' numbers when it is scraped."""
    made = new_registry(NAME, ledger)
    readings: Readings = {
        "sessions": ("Exporters connected", lambda: len(collector.sessions)),
        "live_flows": ("Flows in the table", lambda: len(table)),
        "text_bytes": ("Distinct text held", lambda: table.strings.size_bytes),
        "inventory_objects": ("Pods, Services and Nodes", lambda: len(inventory)),
    }
    made.register(StatsCollector(f"{PREFIX}_server", server.stats))
    made.register(StatsCollector(f"{PREFIX}_ipfix", collector.totals))
    made.register(StatsCollector(f"{PREFIX}_correlator", table.stats))
    if writer is not None:
        made.register(StatsCollector(f"{PREFIX}_clickhouse", writer.stats))
        text = "1 while ClickHouse can be written to"
        readings["clickhouse_healthy"] = (text, lambda: writer.healthy)
    if ipfix is not None:
        made.register(StatsCollector(f"{PREFIX}_flow_collector", ipfix.client.stats))
        text = "1 while a session with the external collector stands"
        readings["flow_collector_connected"] = (text, lambda: ipfix.client.connected)
    made.register(ReadingsCollector(PREFIX, readings))
    return made
