import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from exporter.collector import Collector, DatagramCollector, Row
from exporter.kernel_entries import SECOND, Connection, entries
from flowvis.conntrack.entries import DESTROY
from flowvis.delivery.queue import Queue
from flowvis.exporter import export
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.unacknowledged import Unacknowledged
from flowvis.fields import EXPORTED
from flowvis.ipfix.receivers import parse_release, understood
from flowvis.runtime.clock import now_ms
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from flowvis.transport.address import CollectorAddress
from flowvis.transport.tls import TlsFiles
from waiting import until

MS = SECOND // 1000


OLD = understood(EXPORTED, parse_release("2.2"))


class Node:
    """An exporter whose kernel is the test."""

    def __init__(
        self,
        address: CollectorAddress,
        *,
        pending: int = 100_000,
        active_ms: int = 60_000,
        tls: TlsFiles | None = None,
        **more: Any,
    ) -> None:
        self.ledger = Ledger()
        self.table = ConnectionTable(
            PlainHost(), Scope(), active_timeout_ms=active_ms, ledger=self.ledger
        )
        self.pending = Queue(self.ledger.stage("records"), pending, full=ExportDropped.PENDING_FULL)
        self.exporter = Exporter(
            [self.table], self.pending, address, tls, domain=7, drain_s=4.0, **more
        )
        self.began_ms = now_ms()

    def connection(self, number: int, **more: object) -> Connection:
        source = "fd00::1" if number % 3 == 0 else "10.0.0.1"
        destination = "fd00::2" if number % 3 == 0 else "10.0.0.2"
        return Connection(
            source, destination, number & 0xFFFF, 80, 17, id=number,
            start_ns=self.began_ms * MS, tcp_state=None,
        ).at(**more)  # fmt: skip

    def end(self, *numbers: int) -> None:
        """Let connections of 100 bytes have come and gone."""
        rows = [
            self.connection(n).at(1, 100, 0, 0, event=DESTROY, stop_ns=now_ms() * MS)
            for n in numbers
        ]
        self.table.event(entries(*rows), now_ms())
        self.exporter.collect(self.table)

    def list(self, numbers: range, octets: int) -> None:
        """Let connections live, with so many bytes counted until now."""
        rows = [self.connection(n).at(octets // 100, octets, 0, 0) for n in numbers]
        self.table.poll(entries(*rows), now_ms())

    def balanced(self) -> None:
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()

    @property
    def sent(self) -> int:
        return self.pending.stage.sent


def deltas(rows: Iterable[Row]) -> Counter[int]:
    """The octets by source port."""
    total: Counter[int] = Counter()
    for row in rows:
        total[row["sourceTransportPort"]] += row["octetDeltaCount"]
    return total


async def test_records_arrive_whole() -> None:
    async with Collector() as collector:
        node = Node(collector.address)
        await node.exporter.start()
        node.end(3, 4)
        await until(lambda: len(collector.rows) == 2)
        assert collector.templates == 2
        four, six = collector.rows
        assert (four["sourceIP"], four["sourceTransportPort"]) == ("10.0.0.1", 4)
        assert (six["sourceIP"], six["octetTotalCount"], six["flowEndReason"]) == (
            "fd00::1",
            100,
            3,
        )
        assert four["flowStartMilliseconds"] == node.began_ms
        await node.exporter.stop()
        node.balanced()
        assert node.sent == 2


async def test_over_udp_templates_come_again_where_there_is_nothing_to_tell() -> None:
    """By them a collector knows that a node is quiet, and its exporter not gone."""
    async with DatagramCollector() as collector:
        node = Node(collector.address, template_refresh_s=1)
        await node.exporter.start()
        await until(lambda: collector.refreshed >= 4)  # two templates, each twice
        assert collector.sessions == 1
        assert not collector.rows
        node.end(3, 4)
        await until(lambda: len(collector.rows) == 2)
        await node.exporter.stop()
        node.balanced()


async def test_live_connections_are_sent_when_due() -> None:
    async with Collector() as collector:
        node = Node(collector.address, active_ms=200)
        await node.exporter.start()
        node.list(range(1, 4), 100)
        await until(lambda: len(collector.rows) == 3)
        node.list(range(1, 4), 500)
        node.exporter.collect(node.table)
        await until(lambda: len(collector.rows) == 6)
        assert set(deltas(collector.rows).values()) == {500}
        await node.exporter.stop()
        assert node.sent == 6


async def test_what_ends_while_the_collector_is_away_waits_for_it() -> None:
    collector = Collector()
    node = Node(collector.address, active_ms=100)
    await node.exporter.start()
    node.list(range(100, 103), 100)
    for number in range(10):
        node.end(number)
    await asyncio.sleep(0.3)  # three active timeouts: they are not made up for later
    node.list(range(100, 103), 400)
    assert len(node.pending) == 10
    async with collector:
        await until(lambda: len(collector.rows) == 13)
        assert deltas(collector.rows) == dict.fromkeys(range(10), 100) | dict.fromkeys(
            range(100, 103), 400
        )
        await node.exporter.stop()
    node.balanced()


async def test_only_so_much_waits() -> None:
    collector = Collector()
    node = Node(collector.address, pending=50)
    await node.exporter.start()
    for number in range(80):
        node.end(number)
    node.balanced()
    async with collector:
        await until(lambda: len(collector.rows) == 50)
        assert sorted(deltas(collector.rows)) == list(range(30, 80))
        await node.exporter.stop()
    assert node.pending.stage.dropped == {"pending-full": 30}


async def test_collectors_come_and_go_and_nothing_is_lost_or_repeated() -> None:
    choose = random.Random(4739)
    collector = Collector()
    await collector.come()
    node = Node(collector.address, active_ms=50)
    await node.exporter.start()
    octets = 0
    for round_ in range(12):
        for step in range(choose.randrange(1, 6)):
            node.end(*range(1000 + 100 * round_ + 10 * step, 1010 + 100 * round_ + 10 * step))
            octets += 100
            node.list(range(1, 40), octets)
            await asyncio.sleep(choose.random() / 20)
        await collector.go_away()
        if choose.random() < 0.5:
            node.end(20_000 + round_)
        await collector.come()
    await until(lambda: node.exporter.client.connected)
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()
    assert len(collector.rows) == node.sent
    assert collector.gaps == 0
    found = deltas(collector.rows)
    assert all(found[number] == octets for number in range(1, 40))
    assert all(found[number] == 100 for number in found if number >= 1000)
    assert len(found) == node.table.connections.received


async def test_what_a_crashed_collector_cannot_have_read_is_sent_again() -> None:
    collector = Collector()
    collector.reading.clear()
    await collector.come()
    node = Node(collector.address)
    await node.exporter.start()
    await until(lambda: node.exporter.client.connected)
    numbers = range(1, 20_001)
    for first in range(0, 20_000, 4000):
        node.end(*numbers[first : first + 4000])
    await asyncio.sleep(0.2)  # until all buffers are full
    assert len(node.pending) > 0
    await collector.crash()
    await until(lambda: not node.exporter.client.connected)
    attempts = node.exporter.client.stats.attempts
    await until(lambda: node.exporter.client.stats.attempts > attempts)  # what had left is settled
    before = node.sent
    await collector.come()
    await until(lambda: not len(node.pending))
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()
    assert before > 0
    assert len(collector.rows) == 20_000 - before
    assert set(Counter(row["sourceTransportPort"] for row in collector.rows).values()) == {1}


async def test_a_stop_tells_all_that_lives() -> None:
    async with Collector() as collector:
        node = Node(collector.address)
        await node.exporter.start()
        await until(lambda: node.exporter.client.connected)
        node.list(range(1, 101), 700)
        node.end(500)
        await node.exporter.stop()
        assert deltas(collector.rows) == dict.fromkeys(range(1, 101), 700) | {500: 100}
        assert {row["flowEndReason"] for row in collector.rows} == {3, 4}
        node.balanced()


async def test_a_stop_tells_more_than_one_batch() -> None:
    async with Collector() as collector:
        node = Node(collector.address)
        await node.exporter.start()
        await until(lambda: node.exporter.client.connected)
        node.list(range(1, export.LIVE_ROWS * 2), 700)
        await node.exporter.stop()
        assert len(collector.rows) == export.LIVE_ROWS * 2 - 1


async def test_a_stop_while_the_collector_is_away_counts_what_is_lost() -> None:
    collector = Collector()
    node = Node(collector.address)
    await node.exporter.start()
    node.list(range(1, 6), 700)
    node.end(500)
    await node.exporter.stop()
    assert node.pending.stage.dropped == {"stopped": 6}
    node.balanced()


async def test_a_stop_does_not_wait_for_the_next_attempt() -> None:
    collector = Collector()
    node = Node(collector.address)
    await node.exporter.start()
    node.end(1)
    # The next attempt is a while off then.
    await until(lambda: node.exporter.client.stats.attempts >= 3)
    async with collector:
        await node.exporter.stop()
        assert len(collector.rows) == 1


@pytest.mark.slow
async def test_a_collector_that_stalls_while_we_stop() -> None:
    collector = Collector()
    collector.reading.clear()
    await collector.come()
    node = Node(collector.address)
    await node.exporter.start()
    await until(lambda: node.exporter.client.connected)
    for first in range(0, 40_000, 4000):
        node.end(*range(first, first + 4000))
    began = asyncio.get_running_loop().time()
    await node.exporter.stop()
    assert asyncio.get_running_loop().time() - began < 5
    assert set(node.pending.stage.dropped) <= {"stopped", "cut-off"}
    assert node.pending.stage.dropped["stopped"] > 0
    node.balanced()
    await collector.crash()


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [False, True])
async def test_what_a_stalled_collector_has_when_we_stop_is_sent_and_only_the_rest_is_not(
    tmp_path: Path, keeps: bool
) -> None:
    """What of the records under way it has is neither lost nor left to the next exporter."""
    collector = Collector()
    collector.reading.clear()
    await collector.come()
    node = Node(collector.address)
    unacknowledged = Unacknowledged(tmp_path, "node", node.pending, domain=7, max_bytes=32 << 20)
    if keeps:
        await unacknowledged.start()
        node.exporter = Exporter(
            [node.table], node.pending, collector.address, None, domain=7, drain_s=4.0,
            kept=unacknowledged,
        )  # fmt: skip
        node.table.keep_to(lambda batch, _: unacknowledged.keep(batch))
    await node.exporter.start()
    await until(lambda: node.exporter.client.connected)
    for first in range(0, 40_000, 4000):
        node.end(*range(first, first + 4000))
    await node.exporter.stop()
    left = len(node.pending)
    node.balanced()
    collector.reading.set()
    await until(lambda: not collector.active)
    assert 0 < len(collector.rows) == node.sent
    assert left == (40_000 - node.sent if keeps else 0)
    assert node.pending.stage.dropped == ({} if keeps else {"stopped": 40_000 - node.sent})
    await unacknowledged.stop()
    await collector.go_away()


async def test_a_collector_of_an_older_release_gets_the_elements_that_it_knows() -> None:
    async with Collector() as collector:
        node = Node(collector.address)
        await node.exporter.start()
        node.end(4)
        await until(lambda: len(collector.rows) == 1)
        node.exporter.redirect(collector.address, None, fields=OLD)
        node.end(5)
        await until(lambda: len(collector.rows) == 2)
        await node.exporter.stop()
        node.balanced()
    assert [row["flowStartMilliseconds"] % 1000 == 0 for row in collector.rows] == [
        node.began_ms % 1000 == 0,
        True,
    ]
    assert collector.fields == [len(EXPORTED)] * 2 + [len(OLD)] * 2
