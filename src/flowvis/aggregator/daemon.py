"""The flow-aggregator, put together: settings in, components out. Building it opens nothing."""

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict
from uuid import uuid4

from flowvis.aggregator import listening
from flowvis.aggregator.api.assembly import Api
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.paths import (
    antrea,
    completion,
    console,
    explain,
    fields,
    flows,
    graph,
    health,
    latest,
    live,
    nodes,
    policies,
    query,
    sql,
    status,
    stream,
)
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import Route
from flowvis.aggregator.api.stored_values import StoredValues
from flowvis.aggregator.api.values import KnownValues
from flowvis.aggregator.baseline import Baseline, Past, StoredPast
from flowvis.aggregator.book_entries import book_entries
from flowvis.aggregator.checkpoint_files import CheckpointFiles
from flowvis.aggregator.checkpoints import Checkpoints
from flowvis.aggregator.cluster import follow
from flowvis.aggregator.cluster_identity import ClusterIdentity
from flowvis.aggregator.collector import Collector
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.rows import ROW_BYTES
from flowvis.aggregator.correlator import Correlator, Destination
from flowvis.aggregator.current_store import CurrentStore
from flowvis.aggregator.destinations.clickhouse import lacks_spooled, rollups_of, room_of
from flowvis.aggregator.destinations.kind import Surroundings
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.aggregator.destinations.table import KINDS, DestinationSettings
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.explanations import Explanations
from flowvis.aggregator.last_words import LastWords
from flowvis.aggregator.lease import Candidate
from flowvis.aggregator.metrics import NAME, PREFIX, registry
from flowvis.aggregator.network_names import network_names
from flowvis.aggregator.nodes import Nodes
from flowvis.aggregator.quarantine import Quarantine
from flowvis.aggregator.replica import GivingBack, Replica, Taking
from flowvis.aggregator.settings import (
    AggregatorInventory,
    AggregatorSettings,
    CheckpointSettings,
)
from flowvis.aggregator.under_way import UnderWay
from flowvis.batch import Batch
from flowvis.clickhouse.history import BookHistory
from flowvis.filters import networks
from flowvis.inventory.index import Inventory
from flowvis.inventory.metrics import register
from flowvis.inventory.sources.files import InventoryFiles
from flowvis.inventory.sources.ranges import Ranges
from flowvis.inventory.sources.watch import Watchers
from flowvis.policies import Egresses, Policies
from flowvis.runtime.build import version_text
from flowvis.runtime.clock import monotonic_ms, now_ms
from flowvis.runtime.component import Component
from flowvis.runtime.configuration import Appliers, Configuration, ConfigurationCollector
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.logs import configure_as
from flowvis.runtime.memory import Budget, BudgetCollector, limit_of
from flowvis.runtime.metrics import StatsCollector
from flowvis.runtime.options import slots
from flowvis.runtime.readiness import Readiness
from flowvis.runtime.status import StatusServer
from flowvis.steady import SteadyTime
from flowvis.strings import MAX_TABLE_BYTES

log = logging.getLogger(__name__)

BY_THE_PODS = "the Pods themselves decide on flow types; ranges are only the fallback"
PROCESS_BYTES = 110 << 20  # measured: without flows, with an inventory of a thousand Pods
SHARES = {
    "flows": 0.45,
    "text": 0.15,
    "baseline": 0.03,
    "receiving": 0.06,
    "destinations": 0.28,
    "history": 0.03,
}
"""Parts of the memory that is given out."""
FAREWELL = 0.15  # of the grace period: for what is complete to be stored, and acknowledged
PART = 0.4  # of the grace period: for exporters to finish, and again for destinations


class Ways:
    """Where written records go: to the destinations that there are at the moment, and to memory."""

    def __init__(self, destinations: Outlets, history: LatestRecords) -> None:
        self._destinations, self._history = destinations, history

    def __iter__(self) -> Iterator[Destination]:
        """Go through them, the destinations first."""
        yield from self._destinations
        yield self._history


class Aggregator:
    """All parts of one aggregator; `components` in the order of their start.

    What brings records in starts last and stops first, so that a stop drains the way of the data.
    """

    def __init__(self, settings: AggregatorSettings) -> None:
        self.ledger = Ledger()
        self._settings = settings
        self._began = time.monotonic()
        self._inventory = Inventory(report=log.warning)
        self._policies = Policies(report=log.warning, known_from_ms=now_ms())
        self._egresses = Egresses()
        networks.enforce(network_names(settings.networks))
        self._identity = ClusterIdentity(self._inventory, settings.cluster_id)
        self._kubernetes = self._following(settings.inventory)
        self._ranges = Ranges(self._inventory, BY_THE_PODS)
        self._readiness = Readiness()
        self.budget = Budget(limit_of(settings.memory.limit), PROCESS_BYTES, SHARES)
        self.table = FlowTable(
            **_timeouts(settings),
            max_flows=_room(self.budget, settings.max_flows),
            text_bytes=min(self.budget["text"], 2 * MAX_TABLE_BYTES),
            parked_bytes=self.budget["baseline"],
            steady=SteadyTime(monotonic_ms),
        )
        self._history = LatestRecords(settings.record_buffer_size, self.budget["history"])
        collecting = self.ledger.stage("collector")
        correlating = self.ledger.stage("correlator", sources=[collecting])
        self._books = BookHistory(
            book_entries(
                self.ledger,
                lambda: self.nodes,
                time.monotonic,
                lambda: not self._readiness.problem(),
                self._settled,
            ),
            f"{socket.gethostname()}-{secrets.token_hex(4)}-books",
            now_ms() // 1000,
            self._identity.id,
        )
        self.destinations = Outlets(
            KINDS,
            self.ledger,
            correlating,
            Surroundings(
                settings.grace_period * PART,
                self.budget.limit.bytes,
                self._identity.observation_domain,
                self._books,
            ),
            self.budget["destinations"],
        )
        self.destinations.begin(settings)
        self._store = CurrentStore(self.destinations, self._books, now_ms, self._identity)
        self._answers = Answers(self._queries)
        self._questions = Questions(
            self._answers,
            self._store.compose,
            now_ms,
            self._store.uncommitted,
            self._store.stored,
            self._identity.id,
        )
        self._stored_values = StoredValues(
            self._answers, self._store.compose, now_ms, stored=self._store.stored
        )
        self._completer = Completer(
            self._inventory,
            self._identity.id,
            pod_labels=settings.record_contents.pod_labels,
            policies=self._policies,
            egresses=self._egresses,
        )
        self._completer.with_uids = settings.with_uids
        self.correlator = Correlator(
            self.table,
            self._completer,
            Ways(self.destinations, self._history),
            correlating,
            quarantine=Quarantine(settings.quarantine_directory),
            undelivered=lambda: self.destinations.mark,
            under_way=UnderWay(self.budget["baseline"]),
        )
        self._checkpoints = self._keeping(settings.checkpoint)
        self.collector = Collector(
            self.correlator,
            collecting,
            waiting_bytes=self.budget["receiving"] // 2,
            template_bytes=self.budget["receiving"] // 4,
            template_life_s=settings.listen.udp.template_lifetime,
        )
        self.collector.asks = lambda: self._past() is not None
        self.nodes = Nodes(self.collector, self._inventory)
        self.baseline = Baseline(self.correlator, self._past)
        self._last_words = LastWords(
            self.correlator, self.destinations, settings.grace_period * FAREWELL
        )
        self.server = listening.server(
            settings, self.collector, self.budget["receiving"], settings.grace_period * PART
        )
        self._certificates = listening.certificates(settings)
        self._replica = _replica(settings)
        self.api = Api(
            settings,
            self._routes(),
            self._end_readers,
            namespaces=self._namespaces,
            cluster=self._identity.id,
            exporters=listening.server_tls(settings),
            names=listening.server_names(settings),
        )
        self.configuration = Configuration(settings, self._appliers())
        self._measure()
        self.components = self._components()

    def _measure(self) -> None:
        """Have the budget say what its shares are used for."""
        for name, taken in (
            ("flows", lambda: self.table.row_bytes),
            ("text", lambda: self.table.text_bytes),
            ("baseline", self._baseline_bytes),
            ("receiving", self.collector.memory_bytes),
            ("destinations", self.destinations.held_bytes),
            ("history", lambda: self._history.bytes),
        ):
            self.budget.measure(name, taken)

    def _baseline_bytes(self) -> int:
        kept = self._checkpoints.memory_bytes if self._checkpoints is not None else 0
        return self.table.parked.bytes + kept

    def _components(self) -> list[Component]:
        settings = self._settings
        made = registry(
            self.ledger,
            server=self.server,
            collector=self.collector,
            table=self.table,
            inventory=self._inventory,
            destinations=self.destinations,
            ranges=self._ranges,
        )
        made.register(ConfigurationCollector(PREFIX, self.configuration))
        made.register(BudgetCollector(PREFIX, self.budget))
        made.register(StatsCollector(f"{PREFIX}_baseline", self.baseline.stats))
        if self._checkpoints is not None:
            made.register(StatsCollector(f"{PREFIX}_checkpoints", self._checkpoints.stats))
        made.register(StatsCollector(f"{PREFIX}_policies", self._policies.stats))
        made.register(StatsCollector(f"{PREFIX}_egresses", self._egresses.stats))
        ready = {"start": self._readiness.problem}
        if self._kubernetes is not None:
            register(made, PREFIX, self._kubernetes)
            ready["kubernetes"] = self._kubernetes.not_synced
        if self._certificates is not None:
            stats = StatsCollector(f"{PREFIX}_certificates", self._certificates.stats)
            made.register(stats)
        if self._replica is not None:
            made.register(StatsCollector(f"{PREFIX}_replica", self._replica.stats))
            ready["replica"] = self._replica.waiting
        self._status_server = StatusServer(
            made,
            host=settings.status.address,
            port=settings.status.port,
            ready=ready,
        )
        self.api.register(made, f"{PREFIX}_api")
        parts: list[Component | None] = [
            self._status_server,
            self._kubernetes or InventoryFiles(settings.inventory.files, *self._known()),
            self._ranges,
            GivingBack(self._replica) if self._replica is not None else None,
            self._checkpoints,
            self.destinations,
            *self.api.components,
            self.correlator,
            self.baseline,
            self.collector,
            self._certificates,
            Taking(self._replica) if self._replica is not None else None,
            self.server,
            self._last_words,
            self._readiness,
        ]
        return [part for part in parts if part is not None]

    def _routes(self) -> list[Route]:
        """What the API answers."""
        return [
            *health.routes(self._readiness.problem),
            *status.routes(self._status, self.ledger.as_dict),
            *latest.routes(self._history),
            *stream.routes(self._history),
            *live.routes(self._live),
            *sql.routes(self._store.query, self._answers),
            *query.routes(self._questions),
            *graph.routes(self._questions),
            *flows.routes(self._questions),
            *fields.routes(),
            *completion.routes(KnownValues(self._history, self._inventory, self._stored_values)),
            *antrea.routes(self._live, self._record_metrics),
            *nodes.routes(self.nodes.as_dicts),
            *explain.routes(
                Explanations(self._inventory, self._policies, self._kubernetes_problem),
                self._questions,
                now_ms,
            ),
            *policies.routes(self._questions, self._policies),
            *console.routes(),
        ]

    def _namespaces(self) -> list[str]:
        """All namespaces; Problem while they are not known yet."""
        if self._kubernetes is not None and (problem := self._kubernetes.not_synced("Namespace")):
            raise Problem("unavailable", f"namespaces are not known yet ({problem}): try again")
        return list(self._inventory.namespaces)

    async def _end_readers(self) -> None:
        """Bring followers and queries to their end, as the aggregator stops."""
        self._history.close()
        await self._stored_values.close()
        await self._answers.close()

    def _following(self, settings: AggregatorInventory) -> Watchers | None:
        if not settings.kubernetes.wanted(settings.files):
            return None
        return follow(settings.kubernetes, *self._known(), [self._identity.antrea.watched])

    def _known(self) -> tuple[Inventory, Policies, Egresses]:
        """What learns of the cluster's objects."""
        return self._inventory, self._policies, self._egresses

    def _appliers(self) -> Appliers[AggregatorSettings]:
        """What to do when a live option changes."""
        return {
            "activeFlowRecordTimeout": self._retime,
            "inactiveFlowRecordTimeout": self._retime,
            "correlationTimeout": self._retime,
            "recordContents": self._change_contents,
            **{slot.key: self._change_destinations for slot in slots(DestinationSettings)},
            "clusterID": self._change_destinations,
            "networks": self._name_networks,
            "listen.maxSessions": self._admit,
            "listen.maxSessionsPerAddress": self._admit,
            "log": configure_as,
        }

    async def _retime(self, settings: AggregatorSettings) -> None:
        self.table.retime(now_ms(), **_timeouts(settings))

    async def _change_contents(self, settings: AggregatorSettings) -> None:
        self._completer.pod_labels = settings.record_contents.pod_labels

    async def _change_destinations(self, settings: AggregatorSettings) -> None:
        """Change the cluster's id as well, before anything begins that is numbered by it."""
        before, self._identity.configured = self._identity.configured, settings.cluster_id
        try:
            await self.destinations.apply(settings)
        except BaseException:
            self._identity.configured = before
            raise
        self._completer.with_uids = settings.with_uids

    async def _name_networks(self, settings: AggregatorSettings) -> None:
        networks.enforce(network_names(settings.networks))

    async def _admit(self, settings: AggregatorSettings) -> None:
        listen = settings.listen
        self.server.admit(listen.max_sessions, listen.max_sessions_per_address)

    def _past(self) -> Past | None:
        """Who knows what was written before: the store, else the files of checkpoints."""
        store = self._store.get()
        if store is not None:
            return StoredPast(
                store,
                self.ledger.stages.get("clickhouse"),
                self.table,
                awaits=lambda: lacks_spooled(self.destinations.current("clickhouse")),
                clusters=self._identity.ids,
            )
        return self._checkpoints

    def _settled(self) -> Mapping[str, int]:
        """Until when roll-ups of the store that there is have all records, in ms."""
        return self._store.settled()

    def _keeping(self, chosen: CheckpointSettings) -> Checkpoints | None:
        if chosen.directory is None:
            return None
        checkpoints = Checkpoints(
            CheckpointFiles(chosen.directory, chosen.max_bytes),
            self.correlator.under_way,
            stored=lambda: self._store.get() is not None,
            undelivered=lambda: self.destinations.mark,
        )
        self.correlator.under_way.keeper = checkpoints
        return checkpoints

    def _queries(self) -> int:
        return self.configuration.in_force.click_house.queries.max_concurrent

    def _record_metrics(self) -> dict[str, Any]:
        """What Antrea's /recordmetrics has."""
        stages = self.ledger.stages
        return {
            "numRecordsExported": stages["correlator"].sent,
            "numRecordsReceived": stages["collector"].received,
            "numRecordsDropped": sum(loss.records for loss in self.ledger.losses.values()),
            "numFlows": len(self.table),
            "numConnToCollector": len(self.collector.sessions),
            "withClickHouseExporter": self.destinations.has("clickhouse"),
            "withS3Exporter": self.destinations.has("s3"),
            "withLogExporter": self.destinations.has("flow-log"),
            "withIPFIXExporter": self.destinations.has("ipfix"),
        }

    def _live(self) -> Iterator[Batch]:
        return self.correlator.open_flows(live.AT_ONCE)

    def _status(self) -> dict[str, Any]:
        """What `flowctl status` shows."""
        return {
            "version": version_text(NAME),
            "port": self.server.port,
            "statusPort": self._status_server.port,
            "apiPort": self.api.port,
            "ready": not self._readiness.problem(),
            "clusterId": self._identity.id(),
            "uptimeSeconds": round(time.monotonic() - self._began, 1),
            "flows": len(self.table),
            "uncountedFlows": self.table.uncounted(),
            "sessions": self.nodes.sessions(),
            "nodes": self.nodes.briefly(),
            "destinations": self.destinations.as_dicts(),
            "rollups": rollups_of(self.destinations.current("clickhouse")),
            "store": room_of(self.destinations.current("clickhouse")),
            "configuration": self.configuration.as_dict(),
            "kubernetes": self._kubernetes_problem(),
            "replica": self._replica.problem() if self._replica is not None else "",
            "ranges": self._ranges.problem(),
            "policies": self._policies.as_dict(),
            "baseline": {
                "waiting": self.table.parked.records,
                "problem": self.baseline.problem or self._checkpoint_problem(),
            },
            "memory": self.budget.as_dict(),
            "ledger": self.ledger.as_dict(),
            "losses": self.ledger.losses_as_dicts(time.monotonic()),
        }

    def _checkpoint_problem(self) -> str:
        return self._checkpoints.problem if self._checkpoints is not None else ""

    def _kubernetes_problem(self) -> str:
        return self._kubernetes.problem() if self._kubernetes is not None else ""


def _room(budget: Budget, wanted: int) -> int:
    """Return how many flows there may be; the log says if these are fewer than is configured."""
    flows = budget.rows("flows", ROW_BYTES, wanted)
    if flows < wanted:
        log.warning(
            "maxFlows is %d, but memory for flows is %d MiB of %d MiB (%s): at most %d flows",
            wanted, budget["flows"] >> 20, budget.limit.bytes >> 20, budget.limit.source, flows,
        )  # fmt: skip
    return flows


def _replica(settings: AggregatorSettings) -> Replica | None:
    chosen, kubernetes = settings.lease, settings.inventory.kubernetes
    if not chosen.wanted(kubernetes.wanted(settings.inventory.files), os.environ):
        return None
    us = Candidate(
        os.environ.get("POD_NAME") or f"{socket.gethostname()}_{uuid4()}",
        chosen.name or settings.certificates.service,
        settings.certificates.names(os.environ).namespace,
        chosen.duration,
    )
    return Replica(kubernetes.access, us)


class _Timeouts(TypedDict):
    """The flow table's."""

    active_timeout_ms: int
    inactive_timeout_ms: int
    correlation_wait_ms: int | None


def _timeouts(settings: AggregatorSettings) -> _Timeouts:
    wait_s = settings.correlation_timeout
    return {
        "active_timeout_ms": round(settings.active_flow_record_timeout * 1000),
        "inactive_timeout_ms": round(settings.inactive_flow_record_timeout * 1000),
        "correlation_wait_ms": None if wait_s is None else round(wait_s * 1000),
    }
