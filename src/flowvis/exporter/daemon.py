"""The flow-exporter, put together: settings in, components out. Building it opens nothing."""

import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowvis.conntrack.sources.openvswitch import OpenVSwitch
from flowvis.conntrack.sources.protocol import Source
from flowvis.conntrack.sources.source import Conntrack
from flowvis.delivery.queue import Queue
from flowvis.denials.prefixes import Prefixes
from flowvis.denials.sources.follow import Follower
from flowvis.denials.sources.log import PacketLog
from flowvis.errors import SettingsError
from flowvis.exporter import metrics
from flowvis.exporter.denied_watch import Binding, DeniedWatch
from flowvis.exporter.export import Exporter
from flowvis.exporter.gateway import GatewayWatch, has_interface
from flowvis.exporter.own_addresses import OwnAddresses
from flowvis.exporter.session_file import SessionFile
from flowvis.exporter.settings import ConntrackSettings, ConntrackSource, ExporterSettings
from flowvis.exporter.state import StateFile
from flowvis.exporter.tables.connections import CONNECTION_BYTES, ConnectionTable
from flowvis.exporter.tables.default_zone import DEFAULT_ZONE, DefaultZone
from flowvis.exporter.tables.denied import DENIED_BYTES, DeniedTable
from flowvis.exporter.tables.enrich import Careful, ClusterNode, Enricher, PlainHost
from flowvis.exporter.tables.occupancy import Occupancy
from flowvis.exporter.tables.own_sessions import OwnSessions
from flowvis.exporter.tables.scope import ANTREA_ZONES, Scope
from flowvis.exporter.unacknowledged import Unacknowledged
from flowvis.exporter.watch import Watch
from flowvis.fields import EXPORTED
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources.files import InventoryFiles
from flowvis.inventory.sources.ranges import Ranges
from flowvis.ipfix.exporter import host_domain_id, observation_domain_id
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.occupancy import Occupant
from flowvis.ipfix.receivers import understood
from flowvis.runtime.clock import monotonic_ms
from flowvis.runtime.component import Component
from flowvis.runtime.configuration import Appliers, Configuration, ConfigurationCollector
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.logs import LimitedLog, configure_as
from flowvis.runtime.machine import machine_id
from flowvis.runtime.memory import Budget, BudgetCollector, limit_of
from flowvis.runtime.metrics import StatsCollector, new_registry
from flowvis.runtime.readiness import Readiness
from flowvis.runtime.status import Check, StatusServer
from flowvis.steady import SteadyTime
from flowvis.transport.client import by_name
from flowvis.transport.tls import TlsFiles

if TYPE_CHECKING:
    from flowvis.exporter.cluster import Cluster

log = logging.getLogger(__name__)

NAME = "flow-exporter"
PROCESS_BYTES = 64 << 20  # measured: with an API server of a thousand nodes
SHARES = {"connections": 0.72, "denied": 0.13, "pending": 0.15}
"""Parts of the memory that is given out."""
DRAIN = 0.8  # of the grace period: the last poll comes before
LAST_POLL = 0.5  # of it at most; usually it takes some hundredths of a second

OF_OTHER_NODES = (
    "other nodes' Pods look like hosts outside of the cluster; flow-aggregator corrects that, for "
    "other collectors set inventory.podCIDRs to the CNI's pools"
)
ANTREA_GATEWAY = "antrea-gw0"


class FlowExporter:
    """All parts of one exporter; `components` in the order of their start.

    What watches the kernel starts last and stops first, so that a stop sends what it found last.
    Only the log of denied packets is bound before all else, as nothing but that tells of them.
    It is ready after all of that.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        exported = settings.flow_exporter
        ovs = settings.conntrack.source is ConntrackSource.OVS
        events = settings.conntrack.events and not ovs
        antrea = has_interface(ANTREA_GATEWAY)
        self.node_name = settings.node_name or socket.gethostname()
        self.ledger = Ledger()
        self._log = LimitedLog(log, burst=1)
        self.inventory = Inventory(pod_networks=settings.inventory.pod_networks, report=log.warning)
        self.cluster = self._cluster(settings)
        self.kubernetes = self.cluster.watchers if self.cluster is not None else None
        self.own_addresses = OwnAddresses()
        enricher = self._enricher(settings)
        self.occupancy: Occupancy | None = None
        if self._in_cluster(settings):
            self.occupancy = Occupancy(self.node_name, self.inventory, self.own_addresses)
        own = OwnSessions()
        scope = Scope(
            exported.protocol_filter,
            loopback=settings.conntrack.loopback,
            antrea=antrea,
            own=None if settings.conntrack.own_sessions else own,
        )
        self.gateway: GatewayWatch | None = None
        if not (antrea or settings.conntrack.zones):
            self.gateway = GatewayWatch(ANTREA_GATEWAY)
            if ovs:  # whose CNI has zones of its own, as a rule
                log.warning(
                    "conntrack.source is ovs, there is no %s and no zone is named: zone %d alone is"
                    " read. Connections in others are not seen: name those of your CNI in"
                    " conntrack.zones (`ovs-appctl dpctl/dump-conntrack` shows them)",
                    ANTREA_GATEWAY, DEFAULT_ZONE,
                )  # fmt: skip
        zones = settings.conntrack.zones or (ANTREA_ZONES if antrea else (DEFAULT_ZONE,))
        self.default_zone = DefaultZone() if antrea and DEFAULT_ZONE not in zones else None
        self.budget = Budget(limit_of(settings.memory.limit), PROCESS_BYTES, SHARES)
        self.table = ConnectionTable(
            enricher,
            scope,
            active_timeout_ms=exported.active_ms,
            idle_timeout_ms=exported.idle_ms,
            max_connections=self._room(
                "connections", CONNECTION_BYTES, exported.max_connections, "maxConnections"
            ),
            events=events,
            ledger=self.ledger,
            default_zone=self.default_zone,
            steady=SteadyTime(monotonic_ms),
        )
        self.pending = Queue(
            self.ledger.stage("records"),
            exported.pending_records,
            self.budget["pending"],
            full=ExportDropped.PENDING_FULL,
        )
        denied = settings.denied.wanted
        denied_table = self._denied_table(settings, enricher, scope) if denied else None
        domain = self._domain(settings)
        self.unacknowledged: Unacknowledged | None = None
        self.sessions: SessionFile | None = None
        if settings.state.enable:
            self.sessions = SessionFile(settings.state.directory, self.node_name, own)
            self.unacknowledged = Unacknowledged(
                settings.state.directory,
                self.node_name,
                self.pending,
                domain=domain,
                max_bytes=settings.state.max_bytes,
            )
        self.exporter = Exporter(
            [self.table] if denied_table is None else [self.table, denied_table],
            self.pending,
            exported.flow_collector_addr,
            self._tls_files(settings),
            hosts=self.cluster.collector.hosts if self.cluster is not None else by_name,
            domain=domain,
            server_name=settings.tls.server_name,
            fields=understood(EXPORTED, exported.antrea_version),
            on_attempt=own.add if self.sessions is None else self.sessions.add,
            drain_s=settings.grace_period * DRAIN,
            template_refresh_s=round(exported.template_refresh_timeout),
            kept=self.unacknowledged,
            report=self._report,
            occupancy=self._occupants if self.occupancy is not None else None,
        )
        also = () if self.default_zone is None else (DEFAULT_ZONE,)
        self.conntrack = _source(settings.conntrack, (*zones, *also), events=events)
        self.watch = Watch(
            self.conntrack,
            self.table,
            self.exporter,
            poll_interval_s=exported.flow_poll_interval,
            events=events,
            occupancy=self.occupancy,
            stop_s=settings.grace_period * LAST_POLL,
        )
        self.denied = None
        if denied_table is not None:
            self.denied = self._denied_watch(settings, denied_table)
        self._scope = scope
        self._readiness = Readiness()
        self._files = InventoryFiles(settings.inventory.files, self.inventory)
        self.configuration = Configuration(settings, self._appliers())
        self._measure()
        self.components = self._components(settings)

    def _measure(self) -> None:
        """Have the budget say what its shares are used for."""
        self.budget.measure("connections", lambda: self.table.memory_bytes)
        self.budget.measure("pending", lambda: self.pending.bytes)
        if (denied := self.denied) is not None:
            self.budget.measure("denied", lambda: denied.table.memory_bytes)

    def _room(self, share: str, row_bytes: int, wanted: int, option: str) -> int:
        """Return how many connections there may be; the log says if fewer than configured."""
        rows = self.budget.rows(share, row_bytes, wanted)
        if rows < wanted:
            limit = self.budget.limit
            log.warning(
                "%s is %d, but memory for them is %d MiB of %d MiB (%s): at most %d",
                option, wanted, self.budget[share] >> 20, limit.bytes >> 20, limit.source, rows,
            )  # fmt: skip
        return rows

    def _appliers(self) -> Appliers[ExporterSettings]:
        """What to do when a live option changes."""
        return {
            "flowExporter.flowCollectorAddr": self._redirect,
            "flowExporter.antreaVersion": self._redirect,
            "flowExporter.flowPollInterval": self._retime,
            "flowExporter.activeFlowExportTimeout": self._retime,
            "flowExporter.idleFlowExportTimeout": self._retime,
            "flowExporter.protocolFilter": self._choose_protocols,
            "denied.prefixes": self._judge_denied,
            "denied.maxPacketsPerSecond": self._limit_denied,
            "tls.serverName": self._redirect,
            "inventory.podCIDRs": self._know_pod_networks,
            "log": configure_as,
        }

    async def _redirect(self, settings: ExporterSettings) -> None:
        self.exporter.redirect(
            settings.flow_exporter.flow_collector_addr,
            self._tls_files(settings),
            server_name=settings.tls.server_name,
            fields=understood(EXPORTED, settings.flow_exporter.antrea_version),
        )

    async def _retime(self, settings: ExporterSettings) -> None:
        exported = settings.flow_exporter
        self.table.retime(exported.active_ms, exported.idle_ms)
        if self.denied is not None:
            self.denied.table.retime(exported.active_ms, exported.idle_ms)
        self.watch.poll_every(exported.flow_poll_interval)
        self.exporter.collect(self.table)

    async def _choose_protocols(self, settings: ExporterSettings) -> None:
        self._scope.choose(settings.flow_exporter.protocol_filter)
        self.table.narrow()
        self.exporter.collect(self.table)

    async def _judge_denied(self, settings: ExporterSettings) -> None:
        if self.denied is not None:
            self.denied.judge_by(Prefixes(settings.denied.prefixes))

    async def _limit_denied(self, settings: ExporterSettings) -> None:
        if self.denied is not None:
            self.denied.table.limit(settings.denied.max_packets_per_second)

    async def _know_pod_networks(self, settings: ExporterSettings) -> None:
        self.inventory.set_pod_networks(settings.inventory.pod_networks)

    def _enricher(self, settings: ExporterSettings) -> Enricher:
        if self._in_cluster(settings):
            node = ClusterNode(self.node_name, self.inventory, self.own_addresses)
            return Careful(node, self._say_left_out)
        return PlainHost()

    def _report(self) -> ExporterReport:
        """What is counted here, for the collector's status."""
        table, kernel = self.table.stats, self.watch.stats
        return ExporterReport(
            tracked=kernel.held,
            capacity=kernel.maximum,
            unobserved=table.vanished + table.ended_unobserved,
            unseen=table.unseen,
            dropped=sum(self.pending.stage.dropped.values()),
        )

    def _occupants(self) -> Sequence[Occupant]:
        """Who fills the node's table, for the collector's status."""
        return () if self.occupancy is None else self.occupancy.occupants

    def _say_left_out(self, error: Exception, count: int) -> None:
        """Say of connections of which nothing could be found out; polls try them again."""
        name = type(error).__name__
        text = "a defect of ours over what is known of Pods: %s: %s; %d connections are left out"
        self._log.log(logging.ERROR, name, text, name, error, count, error=error)

    def _in_cluster(self, settings: ExporterSettings) -> bool:
        """A node is in a cluster if it is told what is in the cluster."""
        return bool(settings.inventory.files) or self.kubernetes is not None

    def _domain(self, settings: ExporterSettings) -> int:
        """The observation domain: in a cluster Antrea's, by the node's name, which it has alone."""
        if self._in_cluster(settings):
            return observation_domain_id(self.node_name)
        return host_domain_id(self.node_name, machine_id())

    def _cluster(self, settings: ExporterSettings) -> "Cluster | None":
        files = settings.inventory.files
        if settings.inventory.kubernetes.wanted(files, settings.tls.objects):
            # HTTP costs 8 MB: only where it is used.
            from flowvis.exporter.cluster import Cluster

            return Cluster(settings, self.node_name, self.inventory)
        if settings.tls.objects:
            problem = (
                "needs the API server: set inventory.kubernetes.enable, without inventory.files; "
                "or name files in tls.ca, tls.certificate and tls.key"
            )
            raise SettingsError([f"{settings.tls.objects}: {problem}"])
        return None

    def _tls_files(self, settings: ExporterSettings) -> TlsFiles | None:
        if settings.flow_exporter.flow_collector_addr.protocol != "tls":
            return None
        return self.cluster.tls if self.cluster is not None else settings.tls.files

    def _denied_table(
        self, settings: ExporterSettings, enricher: Enricher, scope: Scope
    ) -> DeniedTable:
        denied = settings.denied
        return DeniedTable(
            enricher,
            scope,
            active_timeout_ms=settings.flow_exporter.active_ms,
            idle_timeout_ms=settings.flow_exporter.idle_ms,
            max_connections=self._room(
                "denied", DENIED_BYTES, denied.max_connections, "denied.maxConnections"
            ),
            max_packets_per_second=denied.max_packets_per_second,
            ledger=self.ledger,
            steady=SteadyTime(monotonic_ms),
        )

    def _denied_watch(self, settings: ExporterSettings, table: DeniedTable) -> DeniedWatch:
        denied, prefixes = settings.denied, Prefixes(settings.denied.prefixes)
        return DeniedWatch(
            table,
            self.exporter,
            [PacketLog(group, prefixes) for group in denied.nflog_groups],
            Follower(denied.audit_log) if denied.audit_log is not None else None,
            unanswered_s=self.conntrack.unanswered_s,
        )

    def _components(self, settings: ExporterSettings) -> list[Component]:
        registry = new_registry(NAME, self.ledger)
        registry.register(ConfigurationCollector(metrics.PREFIX, self.configuration))
        registry.register(BudgetCollector(metrics.PREFIX, self.budget))
        denied = self.denied
        metrics.register(
            registry,
            self.conntrack,
            self.table,
            self.watch,
            self.exporter,
            denied=denied.table if denied is not None else None,
            exports=settings.flow_exporter.enable,
        )
        if denied is not None:
            metrics.register_denied(registry, denied.table, denied)
        if self.occupancy is not None:
            registry.register(metrics.Occupants(self.occupancy))
        metrics.register_inventory(registry, self._files)
        if self.default_zone is not None:
            registry.register(
                StatsCollector(f"{metrics.PREFIX}_default_zone", self.default_zone.stats)
            )
        if self.kubernetes is not None:
            from flowvis.inventory.metrics import register

            register(registry, metrics.PREFIX, self.kubernetes)
        status = StatusServer(
            registry,
            host=settings.status.address,
            port=settings.status.port,
            ready=self._checks(settings),
        )
        if not settings.flow_exporter.enable:
            return [status, self._readiness]
        parts: list[Component] = [status]
        if denied is not None:
            parts.append(Binding(denied))
        parts.append(self.kubernetes or self._files)
        if self._in_cluster(settings):
            parts += [self.own_addresses, Ranges(self.inventory, OF_OTHER_NODES)]
        if self.sessions is not None:
            parts.append(self.sessions)
        if self.unacknowledged is not None:
            keep, directory = self.unacknowledged.keep, settings.state.directory
            states = [StateFile(directory, self.node_name, self.table, keep=keep)]
            if denied is not None:
                table = denied.table
                states.append(StateFile(directory, self.node_name, table, "denied", keep=keep))
            metrics.register_state(registry, states, self.unacknowledged)
            parts += [self.unacknowledged, *states]
        parts += [self.exporter, self.watch, *filter(None, [self.gateway])]
        if denied is not None:
            parts.append(denied)
        return [*parts, self._readiness]

    def _checks(self, settings: ExporterSettings) -> dict[str, Check]:
        """What has to be well for the exporter to be ready: of what it starts."""
        checks: dict[str, Check] = {"start": self._readiness.problem}
        if settings.flow_exporter.enable:
            checks["watch"] = self._not_watching
            if self.kubernetes is not None:
                checks["kubernetes"] = self.kubernetes.not_synced
        return checks

    def _not_watching(self) -> str:
        """Why the node's connections are not seen; "" when they are."""
        return "" if self.watch.stats.polls else "no poll has succeeded"


def _source(settings: ConntrackSettings, zones: tuple[int, ...], *, events: bool) -> Source:
    if settings.source is ConntrackSource.OVS:
        return OpenVSwitch(zones, run=settings.ovs.run, datapath=settings.ovs.datapath)
    return Conntrack(zones, events=events)
