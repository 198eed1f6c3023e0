"""The aggregator's own metrics, beside the ledger's: `flowvis_aggregator_...`."""

from prometheus_client import CollectorRegistry

from flowvis.aggregator.collector import Collector
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.destinations.ipfix import IpfixDestination
from flowvis.aggregator.reporters import by_node
from flowvis.clickhouse.writer import Writer, WriterStats
from flowvis.delivery.outlet import Outlet
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources.ranges import Ranges
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import Reading, ReadingsCollector, StatsCollector, new_registry
from flowvis.transport.client import ClientStats
from flowvis.transport.server import Server

NAME = "flow-aggregator"
PREFIX = "flowvis_aggregator"


def registry(
    ledger: Ledger,
    *,
    server: Server,
    collector: Collector,
    table: FlowTable,
    inventory: Inventory,
    clickhouse: Outlet[Writer],
    ipfix: Outlet[IpfixDestination],
    ranges: Ranges,
) -> CollectorRegistry:
    """Return a registry that reads the parts' numbers when it is scraped."""
    made = new_registry(NAME, ledger)

    def writer_stats() -> WriterStats | None:
        return clickhouse.current.stats if clickhouse.current else None

    def client_stats() -> ClientStats | None:
        return ipfix.current.client.stats if ipfix.current else None

    readings: dict[str, Reading] = {
        "sessions": ("Exporters connected", lambda: len(collector.sessions)),
        "nodes_without_session": (
            "Nodes of the inventory that no exporter has a session from",
            lambda: sum(
                not each.sessions for each in by_node(collector.reporters(), inventory.nodes)
            ),
        ),
        "live_flows": ("Flows in the table", lambda: len(table)),
        "text_bytes": ("Distinct text held", lambda: table.strings.size_bytes),
        "inventory_objects": ("Pods, Services and Nodes", lambda: len(inventory)),
        "pod_addresses_outside_ranges": (
            "Addresses of Pods that are in no node's spec.podCIDRs",
            ranges.outside,
        ),
        "clickhouse_healthy": (
            "1 while ClickHouse can be written to",
            lambda: clickhouse.current.healthy if clickhouse.current else None,
        ),
        "flow_collector_connected": (
            "1 while a session with the external collector stands",
            lambda: ipfix.current.client.connected if ipfix.current else None,
        ),
    }
    made.register(StatsCollector(f"{PREFIX}_server", server.stats))
    made.register(StatsCollector(f"{PREFIX}_ipfix", collector.totals))
    made.register(StatsCollector(f"{PREFIX}_exporters", collector.exporters.stats))
    made.register(StatsCollector(f"{PREFIX}_correlator", table.stats))
    made.register(StatsCollector(f"{PREFIX}_clickhouse", writer_stats))
    made.register(StatsCollector(f"{PREFIX}_flow_collector", client_stats))
    made.register(StatsCollector(f"{PREFIX}_inventory", inventory.stats))
    made.register(ReadingsCollector(PREFIX, readings))
    return made
