"""The aggregator's own metrics, beside the ledger's: `flowvis_aggregator_...`."""

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from flowvis.aggregator.collector import Collector
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.destinations.kind import Exposing
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.aggregator.reporters import NodeReports, by_node
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources.ranges import Ranges
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import (
    Reading,
    ReadingsCollector,
    StatsCollector,
    new_registry,
    stats_families,
)
from flowvis.transport.datagram_server import DatagramServer
from flowvis.transport.server import Server

NAME = "flow-aggregator"
PREFIX = "flowvis_aggregator"


def registry(
    ledger: Ledger,
    *,
    server: Server | DatagramServer,
    collector: Collector,
    table: FlowTable,
    inventory: Inventory,
    destinations: Outlets,
    ranges: Ranges,
) -> CollectorRegistry:
    """Return a registry that reads the parts' numbers when it is scraped."""
    made = new_registry(NAME, ledger)

    readings: dict[str, Reading] = {
        "sessions": ("Exporters connected", lambda: len(collector.sessions)),
        "nodes_without_session": (
            "Nodes of the inventory that no exporter has a session from",
            lambda: sum(
                not each.sessions for each in by_node(collector.reporters(), inventory.nodes)
            ),
        ),
        "certificate_end_timestamp_seconds": (
            "Until when the certificate that exporters are shown is valid",
            lambda: server.certificate_ends_s if isinstance(server, Server) else None,
        ),
        "live_flows": ("Flows in the table", lambda: len(table)),
        "text_bytes": ("Distinct text held", lambda: table.strings.size_bytes),
        "inventory_objects": ("Pods, Services and Nodes", lambda: len(inventory)),
        "pod_addresses_outside_ranges": (
            "Addresses of Pods that are in no node's spec.podCIDRs",
            ranges.outside,
        ),
    }
    made.register(StatsCollector(f"{PREFIX}_server", server.stats))
    made.register(StatsCollector(f"{PREFIX}_ipfix", collector.totals))
    made.register(StatsCollector(f"{PREFIX}_exporters", collector.exporters.stats))
    made.register(StatsCollector(f"{PREFIX}_correlator", table.stats))
    made.register(DestinationsCollector(PREFIX, destinations))
    made.register(StatsCollector(f"{PREFIX}_inventory", inventory.stats))
    made.register(ReadingsCollector(PREFIX, readings))
    made.register(
        NodesCollector(
            PREFIX,
            lambda: by_node(collector.reporters(), inventory.nodes),
            listed=lambda: frozenset(node.name for node in inventory.nodes.objects),
        )
    )
    return made


NodeReading = Callable[[NodeReports, float], float | None]
"""Reads a number of a node at a moment; None where it is not known."""

STATE_S = 300.0
"""For how long what an exporter says of its node's state is taken for so: it says it every 30 s."""


def lately(read: NodeReading) -> NodeReading:
    """Return what reads a number of a node that has been heard lately, and none of another."""

    def found(node: NodeReports, now_s: float) -> float | None:
        heard = node.last_s is not None and now_s - node.last_s <= STATE_S
        return read(node, now_s) if heard else None

    return found


NODE_STATE: dict[str, tuple[str, NodeReading]] = {
    "sessions": ("Sessions of the node that are open", lambda node, _: node.sessions),
    "silent_seconds": (
        "For how long nothing has come from the node; without a sample where nothing ever came",
        lambda node, now_s: None if node.last_s is None else max(now_s - node.last_s, 0.0),
    ),
    "clock_ahead_seconds": (
        "How far the node's clock is ahead of ours; below 0: it is behind",
        lately(lambda node, _: node.ahead_s),
    ),
    "missed": (
        "Connections of which the node's exporter, since it began, missed the end or all",
        lambda node, _: node.report.unobserved + node.report.unseen if node.report else None,
    ),
    "dropped": (
        "Records that the node's exporter made and gave up since it began",
        lambda node, _: node.report.dropped if node.report else None,
    ),
    "conntrack_entries": (
        "Connections that the node's kernel tracks, as its exporter says",
        lately(lambda node, _: node.report.tracked if node.report is not None else None),
    ),
    "conntrack_limit": (
        "Connections that the node's kernel can track, as its exporter says",
        lately(lambda node, _: node.report.capacity or None if node.report is not None else None),
    ),
}


class NodesCollector(MetricsCollector):
    """What came from each node, how much of it its exporters know to be durable, and its state."""

    def __init__(
        self,
        prefix: str,
        nodes: Callable[[], Sequence[NodeReports]],
        clock: Callable[[], float] = time.monotonic,
        listed: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`clock` is that of the nodes' `last_s`; `listed` names the cluster's nodes."""
        self._prefix, self._nodes, self._clock = f"{prefix}_node", nodes, clock
        self._listed = listed
        self._were_listed: frozenset[str] = frozenset()

    def collect(self) -> Iterable[Metric]:
        """Yield a family for each number, with the node as label."""
        nodes = self._present()
        labels = ["node"]
        received = CounterMetricFamily(
            f"{self._prefix}_received", "Records that came from the node", labels=labels
        )
        again = CounterMetricFamily(
            f"{self._prefix}_sent_again", "Of these, such as may have come before", labels=labels
        )
        acknowledged = CounterMetricFamily(
            f"{self._prefix}_acknowledged",
            "Of these, such as its exporters know to be durable, where they want to",
            labels=labels,
        )
        waiting = GaugeMetricFamily(
            f"{self._prefix}_waiting",
            "Records of the node that are not durable yet, and that its exporters keep",
            labels=labels,
        )
        for node in nodes:
            received.add_metric([node.name], node.records)
            if node.acknowledged is not None:
                again.add_metric([node.name], node.sent_again)
                acknowledged.add_metric([node.name], node.acknowledged)
                waiting.add_metric([node.name], node.waiting)
        yield from (received, again, acknowledged, waiting)
        yield from self._state(nodes)

    def _present(self) -> list[NodeReports]:
        """Return the nodes without those that the cluster had, has no more, and hears no more of.

        A node that was taken out of service is not one that is silent.
        """
        found, listed = self._nodes(), self._listed()
        left = self._were_listed - listed
        present = [node for node in found if node.sessions or node.name not in left]
        self._were_listed = (self._were_listed | listed) & {node.name for node in found}
        return present

    def _state(self, found: Sequence[NodeReports]) -> Iterable[Metric]:
        """Yield gauges of how each node is; a node has no sample of what is not known of it."""
        now_s = self._clock()
        for name, (text, read) in NODE_STATE.items():
            family = GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=["node"])
            for node in found:
                value = read(node, now_s)
                if value is not None:
                    family.add_metric([node.name], value)
            yield family


class DestinationsCollector(MetricsCollector):
    """What the destinations count; where a kind may have several, by destination."""

    def __init__(self, prefix: str, destinations: Outlets) -> None:
        self._prefix, self._destinations = prefix, destinations

    def collect(self) -> Iterable[Metric]:
        """Yield each kind's own families, then how far behind each destination is."""
        names = ["destination"]
        healthy, behind_s, behind = (
            GaugeMetricFamily(f"{self._prefix}_destination_{what}", text, labels=names)
            for what, text in (
                ("healthy", "1 while records can be delivered"),
                (
                    "behind_seconds",
                    "For how long the oldest record has waited, not counting its wait for others",
                ),
                ("behind_records", "Records that are not delivered"),
            )
        )
        for kind in self._destinations.kinds:
            outlets = self._destinations.of(kind)
            present = {page: one.current for page, one in outlets.items() if one.current}
            prefix = f"{self._prefix}_{kind.metrics or kind.name}"
            labels = names if kind.several else []
            yield from stats_families(
                prefix,
                labels,
                [([page] if labels else [], one.stats) for page, one in present.items()],
            )
            if kind.healthy is not None and present:
                name, text = kind.healthy
                family = GaugeMetricFamily(f"{self._prefix}_{name}", text, labels=labels)
                for page, one in present.items():
                    family.add_metric([page] if labels else [], not one.problem)
                yield family
            for page, one in present.items():
                healthy.add_metric([page], not one.problem)
                behind_s.add_metric([page], outlets[page].behind_s)
                behind.add_metric([page], outlets[page].held())
                if isinstance(one, Exposing):
                    yield from one.families()
        yield from (healthy, behind_s, behind)
