"""A table with fewer rows than there are connections: what it cannot keep it names.

Random histories of tuples that are used again and again, seen by two nodes, with a store behind.
"""

from collections import Counter
from random import Random

import pytest

from flowvis.batch import SETTLED

from .exported import START_MS
from .test_delivery_properties import Aggregator, Connection, Exporter, Row, StoredRecords

ROWS = 16
HISTORIES = 1042, 1125, 1147, 1187, 1371, 1463, 1468, 1494
"""Seeds of histories that once counted something twice, each in its way."""
NAMES = "octetDeltaCount", "reverseOctetDeltaCount"
SUFFIXES = "", "FromSourceNode", "FromDestinationNode"


class History:
    """Two nodes' exporters, one aggregator with a small table, and its store."""

    def __init__(self, seed: int, rows: int = ROWS) -> None:
        self.random = Random(seed)
        self.now_ms = START_MS
        self.exporters = [Exporter(node) for node in (0, 1)]
        self.store = StoredRecords()
        self.aggregator = Aggregator(rows)
        for exporter in self.exporters:
            self.aggregator.begin(exporter, self.now_ms)
        if self.random.random() < 0.7:
            self.now_ms += 400_000  # sessions are not young any more
        self.tuples = self.random.randint(4, 20)
        self.connections: list[Connection] = []
        self.quiet = self.random.choice([1, 50, 2000])

    def run(self, steps: int) -> None:
        often = self.random.choice([2, 5, 10])
        actions = [self.begin_one] * often + [self.count] * 4 + [self.report] * 4 + [self.send] * 6
        actions += [self.write] * 3 + [self.commit] * 3 + [self.answer] * 4 + [self.acknowledge]
        actions += [self.end_one] * 2 + [self.pass_time]
        if self.random.random() < 0.3:
            actions += [self.cut]
        for _ in range(steps):
            self.now_ms += self.random.randint(1, 300)
            self.random.choice(actions)()
        self.finish()

    def begin_one(self) -> None:
        number = self.random.randrange(self.tuples)
        named: Row = {"sourceTransportPort": 1000 + number}
        former = [one for one in self.connections if one.named == named]
        if former and self.now_ms - former[-1].start < 2500:
            return
        for one in former:
            one.end(self.now_ms)
        nodes = (
            self.random.choice([(0, 1), (0, 1), (0, 1), (0,)]) if not former else former[0].nodes
        )
        self.connections.append(Connection(named, self.now_ms, nodes, octets=1))

    def end_one(self) -> None:
        if self.connections:
            self.random.choice(self.connections).end(self.now_ms)

    def count(self) -> None:
        for one in self.connections[-self.tuples :]:
            if not one.ended and self.random.random() < 0.5:
                one.octets += self.random.randint(1, 9)
                one.reply += self.random.randint(0, 9)

    def report(self) -> None:
        node = self.random.randrange(2)
        for one in self.connections:
            record = one.record(node, self.now_ms) if node in one.nodes else None
            if record:
                self.exporters[node].waiting.append(record)

    def send(self, node: int | None = None) -> None:
        exporter = self.exporters[self.random.randrange(2) if node is None else node]
        rows, repeated = exporter.take(self.random.randint(1, 12))
        if rows:
            self.aggregator.add(exporter, rows, self.now_ms, repeated=repeated, asks=True)
            assert self.aggregator.table.stats.imbalance == 0

    def write(self) -> None:
        self.aggregator.write(self.aggregator.table.due(self.now_ms))

    def commit(self) -> None:
        self.store.batches += self.aggregator.pending
        self.aggregator.pending.clear()
        self.nothing_is_stored_twice()

    def answer(self) -> None:
        aggregator = self.aggregator
        if aggregator.asked is None:
            aggregator.asked = aggregator.table.parked.inquiry(self.now_ms // 1000)
        elif aggregator.knows_what_it_wrote:
            stored = self.store.checkpoints(aggregator.asked)
            aggregator.table.answer(aggregator.asked, stored, self.now_ms)
            aggregator.asked = None
            assert aggregator.table.stats.imbalance == 0

    def acknowledge(self) -> None:
        self.aggregator.acknowledgements.settle(self.aggregator.watermark)

    def cut(self) -> None:
        exporter = self.random.choice(self.exporters)
        self.aggregator.acknowledgements.forget(exporter)
        exporter.reconnect(forgets=False)
        self.aggregator.begin(exporter, self.now_ms)

    def pass_time(self) -> None:
        self.now_ms += self.random.choice([1000, self.quiet * 10, self.quiet * 30])

    def finish(self) -> None:
        for one in self.connections:
            one.end(self.now_ms)
        for node in (0, 1):
            for one in self.connections:
                record = one.record(node, self.now_ms) if node in one.nodes else None
                if record:
                    self.exporters[node].waiting.append(record)
        for _ in range(60):
            for exporter in self.exporters:
                self.send(exporter.node)
            self.write()
            self.commit()
            self.answer()
            self.now_ms += 3000
        self.now_ms += 100_000
        for _ in range(3):
            self.write()
            self.commit()
            self.answer()
            self.answer()
        self.acknowledge()
        assert not any(exporter.waiting for exporter in self.exporters)
        assert self.aggregator.watermark == SETTLED
        self.short = self._compare()
        assert len(self.short) <= self.aggregator.table.stats.full, self.short

    def nothing_is_stored_twice(self) -> None:
        self._compare()

    def _compare(self) -> Counter[tuple[int, int]]:
        short: Counter[tuple[int, int]] = Counter()
        for name in NAMES:
            for suffix in SUFFIXES:
                sums = self._sums(name + suffix)
                for one in self.connections:
                    truth = one.reply if name.startswith("reverse") else one.octets
                    which = one.named["sourceTransportPort"], one.start
                    found = sums.pop(which, 0)
                    assert found <= truth, (name + suffix, which, found, truth)
                    if len(one.nodes) == 2 or suffix == "":
                        short[which] += truth - found
                assert not any(sums.values()), (name + suffix, sums)
        return +short

    def _sums(self, name: str) -> Counter[tuple[int, int]]:
        """What is stored, by connection; each node is 3 ms later than the one before."""
        found: Counter[tuple[int, int]] = Counter()
        known = {(one.named["sourceTransportPort"], one.start) for one in self.connections}
        for batch in self.store.batches:
            columns = (batch[of] for of in ("sourceTransportPort", "flowStartMilliseconds", name))
            for port, start, value in zip(*(column.tolist() for column in columns), strict=True):
                found[port, start if (port, start) in known else start - 3] += value
        return found


@pytest.mark.parametrize("seed", HISTORIES)
def test_what_a_table_is_too_small_for_is_named_and_nothing_counts_twice(seed: int) -> None:
    History(seed).run(200)
