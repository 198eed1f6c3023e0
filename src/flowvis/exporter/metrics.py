"""The exporter's metrics: Antrea's agent names, and our own for every part."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flowvis.conntrack.sources.protocol import Source
from flowvis.exporter.denied_watch import DeniedWatch
from flowvis.exporter.export import Exporter
from flowvis.exporter.state import StateFile
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.occupancy import Occupancy
from flowvis.exporter.unacknowledged import Unacknowledged
from flowvis.exporter.watch import BUCKETS, KernelWatchStats, Watch
from flowvis.inventory.sources.files import InventoryFiles
from flowvis.runtime.metrics import ReadingsCollector, StatsCollector

PREFIX = "flowvis_exporter"


class PollTimes(Collector):
    """The histogram of poll times."""

    def __init__(self, stats: KernelWatchStats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """Yield the one histogram."""
        buckets, count = [], 0
        for bound, polls in zip((*BUCKETS, "+Inf"), self._stats.polls_within, strict=True):
            count += polls
            buckets.append((str(bound), count))
        yield HistogramMetricFamily(
            "antrea_agent_conntrack_poll_cycle_duration_seconds",
            "Time of a poll of the kernel's connections",
            buckets=buckets,
            sum_value=self._stats.poll_seconds,
        )


class Occupants(Collector):
    """Who fills the node's connection table: the largest by name, the rest as one."""

    def __init__(self, occupancy: Occupancy) -> None:
        self._occupancy = occupancy

    def collect(self) -> Iterable[Metric]:
        """Yield both gauges."""
        labels = ["workload_namespace", "kind", "workload", "end"]  # namespace: the exporter's own
        entries = GaugeMetricFamily(
            f"{PREFIX}_occupant_entries",
            "Entries of the connection table in the last poll, by the workload of this node that "
            "opened them (end source), else that was called (end destination)",
            labels=labels,
        )
        unanswered = GaugeMetricFamily(
            f"{PREFIX}_occupant_unanswered_entries",
            "Of these, such as no packet has come back for",
            labels=labels,
        )
        for each in self._occupancy.occupants:
            values = [each.namespace, each.kind, each.workload, each.end]
            entries.add_metric(values, each.entries)
            unanswered.add_metric(values, each.unanswered)
        return entries, unanswered


def register(
    registry: CollectorRegistry,
    conntrack: Source,
    table: ConnectionTable,
    watch: Watch,
    exporter: Exporter,
    *,
    denied: DeniedTable | None = None,
    exports: bool = True,
) -> None:
    """Expose the parts' numbers.

    One who does not export wants no session with the collector, so there is none to lack.
    """
    client = exporter.client
    antrea = {
        "conntrack_total_connection_count": (
            "Connections that the kernel tracks, of all zones, at the last poll",
            lambda: watch.stats.held,
        ),
        "conntrack_antrea_connection_count": (
            "Connections that are tracked",
            lambda: len(table),
        ),
        "denied_connection_count": (
            "Denied connections that are tracked; 0 where nothing reports them",
            lambda: len(denied) if denied is not None else 0,
        ),
        "conntrack_max_connection_count": (
            "Connections that the kernel can track",
            lambda: watch.stats.maximum,
        ),
        "flow_collector_reconnection_count": (
            "Sessions with the collector, the first included",
            lambda: client.stats.sessions,
        ),
    }
    registry.register(ReadingsCollector("antrea_agent", antrea))
    registry.register(PollTimes(watch.stats))
    registry.register(StatsCollector(f"{PREFIX}_conntrack", conntrack.stats))
    registry.register(StatsCollector(f"{PREFIX}_table", table.stats))
    registry.register(StatsCollector(f"{PREFIX}_client", client.stats))
    own = {
        "poll_failures": (
            "Polls that the kernel refused since the start",
            lambda: watch.stats.failures,
        ),
        "table_capacity_connections": (
            "Connections that can be tracked",
            lambda: table.max_connections,
        ),
        "client_connected": (
            "1 while a session with the collector stands; none where nothing is to be exported",
            lambda: int(client.connected) if exports else None,
        ),
        "certificate_end_timestamp_seconds": (
            "Until when the certificate that the collector is shown is valid",
            lambda: client.certificate_ends_s,
        ),
    }
    registry.register(ReadingsCollector(PREFIX, own))
    queue = exporter.queue
    registry.register(StatsCollector(f"{PREFIX}_delivery", queue.stats))
    delivery = {
        "waiting": ("Records that wait to be sent", lambda: queue.waiting + queue.taken),
        "unacknowledged": (
            "Records sent and not yet acknowledged; kept, to be sent again if need be",
            lambda: queue.unacknowledged,
        ),
        "collector_acknowledges": (
            "1 where the collector of the last session acknowledges what is stored",
            lambda: int(client.acknowledges),
        ),
    }
    registry.register(ReadingsCollector(f"{PREFIX}_delivery", delivery))


def register_denied(registry: CollectorRegistry, table: DeniedTable, watch: DeniedWatch) -> None:
    """Expose the numbers of denied connections."""
    prefix = f"{PREFIX}_denied"
    registry.register(StatsCollector(f"{prefix}_table", table.stats))
    registry.register(StatsCollector(f"{prefix}_log", watch.logged))
    registry.register(StatsCollector(f"{prefix}_watch", watch.stats))
    if watch.follower is not None:
        registry.register(StatsCollector(f"{prefix}_audit_log", watch.audit.stats))
        registry.register(StatsCollector(f"{prefix}_audit_log_file", watch.follower.stats))


def register_state(
    registry: CollectorRegistry, states: Sequence[StateFile], unacknowledged: Unacknowledged
) -> None:
    """Expose how the state files and those of records fare."""
    registry.register(StatsCollector(f"{PREFIX}_unacknowledged", unacknowledged.stats))
    for state, kind in zip(states, ("", "denied_"), strict=False):
        registry.register(StatsCollector(f"{PREFIX}_{kind}state", state.journal.stats))


def register_inventory(registry: CollectorRegistry, files: InventoryFiles) -> None:
    """Expose the inventory's numbers."""
    own = {
        "objects": ("Pods, Services and Nodes that are known", lambda: len(files.inventory)),
        "reloads": ("Changed files that were taken", lambda: files.reloads),
        "failures": ("Changed files that could not be read", lambda: files.failures),
        "refused_addresses": (
            "Pod addresses that were too many to be indexed",
            lambda: files.inventory.pods.refused,
        ),
    }
    registry.register(StatsCollector(f"{PREFIX}_inventory", files.inventory.stats))
    registry.register(ReadingsCollector(f"{PREFIX}_inventory", own))
