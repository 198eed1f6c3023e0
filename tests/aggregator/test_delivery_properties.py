"""Nothing is lost and nothing counted twice, whatever dies and in whatever order.

A model of two nodes' exporters, aggregators that follow each other and one store. The parts are the
real ones: flow table, baseline, acknowledgements. What the model leaves out when it is told to
(`Without`) must be noticed.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flowvis import checkpoint
from flowvis.aggregator.acknowledgement import Acknowledgements
from flowvis.aggregator.correlation.checkpoint import NONE, RESTORED, Flows, flows
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.kept import (
    FRAME,
    HASH,
    KEPT,
    frame,
    kept,
    last_written,
    rows_of,
)
from flowvis.aggregator.correlation.parked import Inquiry
from flowvis.aggregator.exporters import Exporters
from flowvis.batch import SETTLED, Batch
from flowvis.fields import EndReason
from flowvis.transport.session import Peer

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, exported

Row = dict[str, Any]
KINDS = ("whole", "halves", "halves", "icmp")


class Without(Enum):
    """What the model leaves out of delivery, to see that it is missed."""

    COMMIT = auto()
    """Acknowledges what is not committed."""
    BASELINE = auto()
    """Asks the store for nothing."""
    RESEND = auto()
    """Forgets what was sent and not acknowledged."""


@dataclass
class Connection:
    """One connection, as the kernels of its nodes count it."""

    named: Row
    start: int
    nodes: tuple[int, ...]
    octets: int = 0
    reply: int = 0
    ended_ms: int = 0
    reported: Counter[int] = field(default_factory=Counter)
    """Octets that each node has reported."""
    reply_reported: Counter[int] = field(default_factory=Counter)
    over: set[int] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        return self.ended_ms > 0

    def end(self, now_ms: int) -> None:
        self.ended_ms = self.ended_ms or now_ms

    def record(self, node: int, now_ms: int) -> Row | None:
        """What a node has to report; None where nothing is new."""
        octets = self.octets - self.reported[node]
        reply = self.reply - self.reply_reported[node]
        ends = self.ended and node not in self.over
        first = self.reported[node] == self.reply_reported[node] == 0
        if not (octets or reply or ends) or (node in self.over) or (first and not self.octets):
            return None
        self.reported[node], self.reply_reported[node] = self.octets, self.reply
        if ends:
            self.over.add(node)
        half = INTRA_NODE
        if len(self.nodes) == 2:
            half = (SOURCE_HALF, DESTINATION_HALF)[self.nodes.index(node)]
        return half | self.named | {
            "flowStartMilliseconds": self.start + 3 * self.nodes.index(node),
            "flowEndMilliseconds": self.ended_ms if ends else now_ms,
            "flowEndReason": EndReason.END if ends else EndReason.ACTIVE,
            "octetTotalCount": self.octets,
            "octetDeltaCount": octets,
            "packetTotalCount": self.octets,
            "packetDeltaCount": octets,
            "reverseOctetTotalCount": self.reply,
            "reverseOctetDeltaCount": reply,
            "observationDomainId": 1 + node,
        }  # fmt: skip


@dataclass(eq=False)
class Exporter:
    """One node's: what it has made and the collector has not acknowledged."""

    node: int
    waiting: list[Row] = field(default_factory=list)
    sent: int = 0
    """So many of what waits have been sent in this session."""
    acknowledged: int = 0
    """In this session."""
    ever: int = 0
    """So many of what waits have been sent in any session."""
    again: int = 0
    """So many of the first of this session may have been received before."""

    def taken(self) -> int:
        return self.acknowledged + self.sent

    def acknowledge(self, count: int) -> None:
        assert self.acknowledged <= count <= self.taken()
        done = count - self.acknowledged
        del self.waiting[:done]
        self.sent -= done
        self.ever = max(self.ever - done, 0)
        self.acknowledged = count

    def reconnect(self, *, forgets: bool) -> None:
        if forgets:
            del self.waiting[: self.sent]
            self.sent = self.ever = 0
        self.again, self.sent, self.acknowledged = self.ever, 0, 0

    def take(self, count: int) -> tuple[list[Row], bool]:
        """The next records, and whether they may have been received before."""
        repeated = self.taken() < self.again
        records = self.waiting[self.sent : self.sent + count]
        self.sent += len(records)
        self.ever = max(self.ever, self.sent)
        return records, repeated


class StoredRecords:
    """What is committed, and the last of each connection."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def checkpoints(self, _inquiry: Inquiry) -> Flows:
        """Everything: a store whose filter lets all pass."""
        if not self.batches:
            return NONE
        names = [*RESTORED, *checkpoint.COLUMNS]
        parts = {name: [self._column(batch, name) for batch in self.batches] for name in names}
        return flows({name: np.concatenate(part) for name, part in parts.items()})

    @staticmethod
    def _column(batch: Batch, name: str) -> Any:
        if name != checkpoint.BASES:
            return batch[name]
        texts = [bytes.fromhex(text).ljust(64, b"\0") for text in batch.texts(name)]
        return np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(batch), 64)

    def sums(self, name: str) -> Counter[tuple[int, int]]:
        """What records add up to, by connection."""
        found: Counter[tuple[int, int]] = Counter()
        for batch in self.batches:
            ports = batch["sourceTransportPort"].tolist()
            starts = batch["flowStartSeconds"].tolist()
            for port, start, value in zip(ports, starts, batch[name].tolist(), strict=True):
                found[port, start] += value
        return found


class KeptRecords(StoredRecords):
    """What a file has of them."""

    def checkpoints(self, inquiry: Inquiry) -> Flows:
        frames = [frame(kept(batch)) for batch in self.batches]
        rows = [rows_of(data[: FRAME.size], data[FRAME.size :]) for data in frames]
        found = np.concatenate([np.zeros(0, KEPT), *(part for part in rows if part is not None)])
        return last_written(found[np.isin(found[HASH], checkpoint.tuple_hashes(inquiry.keys))])


class Aggregator:
    """One process: what is gone when it is killed."""

    def __init__(self, flows: int) -> None:
        self.table = FlowTable(max_flows=flows)
        self.exporters = Exporters()
        self.pending: list[Batch] = []
        self.acknowledgements = Acknowledgements(joined_ms=0)
        self.cycle = 0
        self.asked: Inquiry | None = None

    def begin(self, exporter: Exporter, now_ms: int) -> None:
        """Have a session of an exporter that keeps what is not durable."""
        self._number(exporter)
        self.exporters.begin(self._number(exporter), now_ms / 1000).keeps = True

    def _number(self, exporter: Exporter) -> int:
        return self.exporters.number(Peer(f"192.0.2.{1 + exporter.node}", 4739), 0)

    def add(
        self, exporter: Exporter, rows: list[Row], now_ms: int, *, repeated: bool, asks: bool
    ) -> None:
        self.cycle += 1
        batch = exported(self.table.strings, *rows)
        if asks:
            number = self._number(exporter)
            self.exporters.source(number).may_repeat = repeated
            batch.columns |= self.exporters.doubts(
                np.full(len(rows), number, dtype=np.uint32),
                batch["flowEndMilliseconds"],
                now_s=now_ms / 1000,
                now_ms=now_ms,
                late_ms=self.table.late_ms,
            )
        self.table.add(batch, now_ms, self.cycle)
        self.acknowledgements.note(self.cycle, [exporter], now_ms)

    def write(self, batch: Batch) -> None:
        if len(batch):
            self.pending.append(batch)

    @property
    def watermark(self) -> int:
        return min((self.table.mark, *(batch.mark for batch in self.pending)), default=SETTLED)

    @property
    def knows_what_it_wrote(self) -> bool:
        """Whether the store may be asked: what was written and forgotten is there."""
        return not (self.pending and self.table.forgets)


class Delivery(RuleBasedStateMachine):
    """Everything that may happen; `without`: what the model leaves out."""

    without: frozenset[Without] = frozenset()
    flows = 64
    rounds = 8
    """Until all that is there is delivered, once there are no more faults."""
    past: type[StoredRecords] = StoredRecords

    @initialize(kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=3))
    def begin(self, kinds: list[str]) -> None:
        self.now_ms = START_MS
        self.connections: list[Connection] = []
        self.exporters = [Exporter(node) for node in (0, 1)]
        self.begin_aggregator(self.flows)
        self.store = self.past()
        self.named = 0  # records that the books of those who are gone name as lost
        for kind in kinds:
            self.connect(kind)

    def begin_aggregator(self, flows: int) -> None:
        self.aggregator = Aggregator(flows)
        for exporter in self.exporters:
            self.aggregator.begin(exporter, self.now_ms)

    def connect(self, kind: str) -> None:
        number = len(self.connections)
        nodes = (0, 1) if kind == "halves" else (0,)
        named: Row = {"sourceTransportPort": 1000 + number}
        if kind == "icmp":  # which only its identifier tells from others
            named |= {"protocolIdentifier": 1, "destinationTransportPort": 0}
            named |= {"flowId": 8 << 24 | number}
        self.connections.append(Connection(named, self.now_ms, nodes))

    @rule(which=st.integers(0, 2))
    def connect_again(self, which: int) -> None:
        """End a connection, and use its tuple again."""
        old = self.connections[which]
        if len(self.connections) < 5 and not old.ended:
            old.end(self.now_ms)
            self.now_ms += 2000
            self.connections.append(Connection(old.named, self.now_ms, old.nodes))

    @rule(
        which=st.integers(0, 2),
        octets=st.integers(1, 9),
        reply=st.integers(0, 9),
        nodes=st.sampled_from([(0,), (1,), (0, 1)]),
        send=st.booleans(),
    )
    def traffic(
        self, which: int, octets: int, reply: int, nodes: tuple[int, ...], send: bool
    ) -> None:
        """Packets, of which some nodes report at once."""
        current = [c for c in self.connections if c.named == self.connections[which].named][-1]
        if not current.ended:
            current.octets += octets
            current.reply += reply
        for node in nodes:
            self.report(node)
            if send:
                self.send(node, 9)

    @rule(which=st.integers(0, 4))
    def disconnect(self, which: int) -> None:
        if which < len(self.connections):
            self.connections[which].end(self.now_ms)

    def report(self, node: int) -> None:
        self.now_ms += 7
        for connection in self.connections:
            if node in connection.nodes:
                record = connection.record(node, self.now_ms)
                if record:
                    self.exporters[node].waiting.append(record)

    @rule(node=st.sampled_from([0, 1]), count=st.integers(1, 5))
    def send(self, node: int, count: int) -> None:
        exporter = self.exporters[node]
        rows, repeated = exporter.take(count)
        if rows:
            asks = Without.BASELINE not in self.without
            self.aggregator.add(exporter, rows, self.now_ms, repeated=repeated, asks=asks)
            if Without.COMMIT in self.without:
                self.aggregator.acknowledgements.settle(SETTLED)

    @rule(ms=st.sampled_from([1, 1000, 61_000, 100_000, 400_000]))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @rule(ms=st.sampled_from([0, 61_000, 91_000]))
    def write(self, ms: int = 0) -> None:
        self.pass_time(ms)
        self.aggregator.write(self.aggregator.table.due(self.now_ms))

    @rule(answers=st.sampled_from([True, True, False]))
    def commit(self, answers: bool) -> None:
        """The oldest batch becomes durable; the writer may not live to hear it."""
        if self.aggregator.pending:
            self.store.batches.append(self.aggregator.pending[0])
            if answers:
                self.aggregator.pending.pop(0)
            else:
                self.kill_aggregator()

    @rule()
    def acknowledge(self) -> None:
        self.aggregator.acknowledgements.settle(self.aggregator.watermark)

    @rule()
    def ask(self) -> None:
        aggregator = self.aggregator
        if aggregator.asked is None:
            aggregator.asked = aggregator.table.parked.inquiry(self.now_ms // 1000)

    @rule()
    def answer(self) -> None:
        aggregator = self.aggregator
        if aggregator.asked is not None and aggregator.knows_what_it_wrote:
            stored = self.store.checkpoints(aggregator.asked)
            aggregator.table.answer(aggregator.asked, stored, self.now_ms)
            aggregator.asked = None

    @rule()
    def kill_aggregator(self) -> None:
        self.named += self.aggregator.table.stats.full
        self.begin_aggregator(self.flows)
        for node in (0, 1):
            self.cut(node)

    @rule(node=st.sampled_from([0, 1]))
    def cut(self, node: int) -> None:
        """The session ends, or the exporter is killed: what it keeps is in its file."""
        exporter = self.exporters[node]
        self.aggregator.acknowledgements.forget(exporter)
        exporter.reconnect(forgets=Without.RESEND in self.without)
        self.aggregator.begin(exporter, self.now_ms)

    @rule()
    def stop_aggregator(self) -> None:
        """An orderly stop: all that is complete is written and committed, then acknowledged."""
        aggregator = self.aggregator
        aggregator.write(aggregator.table.flush_complete(self.now_ms))
        self.store.batches += aggregator.pending
        aggregator.pending.clear()
        aggregator.acknowledgements.settle(aggregator.watermark)
        self.kill_aggregator()

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        self._compare(exactly=False)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for connection in self.connections:
            connection.end(self.now_ms)
        for node in (0, 1):
            self.report(node)
        for _ in range(self.rounds):
            for exporter in self.exporters:
                while exporter.sent < len(exporter.waiting):
                    self.send(exporter.node, 3)
            self.ask()
            self.write()
            while self.aggregator.pending:
                self.commit(answers=True)
            self.answer()
            self.now_ms += 100_000
        self.acknowledge()
        assert self.aggregator.table.stats.imbalance == 0
        assert not any(exporter.waiting for exporter in self.exporters)
        self.named += self.aggregator.table.stats.full
        self._compare(exactly=not self.named)

    def _compare(self, *, exactly: bool) -> None:
        for name in ("octetDeltaCount", "reverseOctetDeltaCount"):
            for suffix in ("", "FromSourceNode", "FromDestinationNode"):
                sums = self.store.sums(name + suffix)
                for connection in self.connections:
                    truth = connection.reply if name.startswith("reverse") else connection.octets
                    found = sums.pop(self._names(connection), 0)
                    assert found == truth if exactly else found <= truth, (
                        name + suffix,
                        self._names(connection),
                        found,
                        truth,
                    )
                assert not any(sums.values())

    @staticmethod
    def _names(connection: Connection) -> tuple[int, int]:
        return connection.named["sourceTransportPort"], connection.start // 1000


def tried(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_nothing_is_lost_and_nothing_counted_twice() -> None:
    run_state_machine_as_test(Delivery, settings=tried(60))


@pytest.mark.parametrize("without", Without)
def test_what_is_left_out_is_missed(without: Without) -> None:
    class Incomplete(Delivery):
        pass

    Incomplete.without = frozenset({without})
    quickly = tried(200, derandomize=True, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Incomplete, settings=quickly)


class WithoutStore(Delivery):
    """A file of checkpoints instead of a store."""

    past = KeptRecords


def test_a_file_of_checkpoints_does_as_well() -> None:
    run_state_machine_as_test(WithoutStore, settings=tried(30))


def test_a_connection_that_was_forgotten_goes_on_from_its_last_record() -> None:
    """Its records are numbered anew, and begin earlier when the other half comes."""
    machine = Delivery()
    machine.begin(["halves"] * 3)
    machine.pass_time(400_000)  # sessions are not young any more
    machine.traffic(which=2, octets=6, reply=7, nodes=(1,), send=True)
    machine.now_ms += 91_000
    machine.write()  # as a half, and it is forgotten
    machine.commit(answers=True)
    assert not len(machine.aggregator.table)
    machine.traffic(which=2, octets=8, reply=7, nodes=(1, 0), send=True)
    machine.now_ms += 61_000
    machine.write()
    machine.commit(answers=False)
    machine.nothing_is_stored_twice()
    machine.teardown()


class Crowded(Delivery):
    """Fewer rows than connections: what finds no room is named, and nothing is counted twice."""

    flows = 2


def test_a_full_table_counts_nothing_twice() -> None:
    run_state_machine_as_test(Crowded, settings=tried(60))


def test_more_connections_come_again_than_there_is_room_for() -> None:
    machine = Crowded()
    machine.begin(["whole"] * 9)
    machine.begin_aggregator(64)
    for connection in machine.connections:
        connection.octets = 5
    machine.report(0)
    machine.send(0, 9)
    machine.write()
    machine.commit(answers=False)  # and nobody hears of it
    machine.teardown()
    assert not machine.named
