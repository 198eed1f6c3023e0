"""From the kernel's real connections to a collector."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from exporter.collector import Collector, Row
from exporter.test_export import deltas
from flowvis.conntrack.entries import Entries
from flowvis.conntrack.sources import sockets
from flowvis.conntrack.sources.source import Conntrack
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.delivery.queue import Queue
from flowvis.errors import SystemRefused
from flowvis.exporter import watch
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.occupancy import Occupancy
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.watch import BUCKETS, KernelWatchStats, Watch
from flowvis.inventory.index import Inventory
from flowvis.ipfix.occupancy import Occupant
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from waiting import until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("tracked")]

UDP_HEADERS = 28


class Exporting:
    """The exporter's parts put together by hand."""

    def __init__(
        self, collector: Collector, *, poll_s: float, events: bool = True, buffer: int = 1 << 20
    ) -> None:
        self.ledger = Ledger()
        self.table = ConnectionTable(
            PlainHost(),
            Scope(("udp",), loopback=True),
            active_timeout_ms=300,
            events=events,
            ledger=self.ledger,
        )
        pending = Queue(self.ledger.stage("records"), 100_000, full=ExportDropped.PENDING_FULL)
        self.exporter = Exporter([self.table], pending, collector.address, None, domain=1)
        self.conntrack = Conntrack((0,), events=events, event_buffer_bytes=buffer)
        self.occupancy = Occupancy("node-1", Inventory())
        self.watch = Watch(
            self.conntrack,
            self.table,
            self.exporter,
            poll_interval_s=poll_s,
            events=events,
            occupancy=self.occupancy,
        )

    async def stop(self) -> None:
        await self.watch.stop()
        await self.exporter.stop()
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()


@asynccontextmanager
async def exporting(
    poll_s: float, *, events: bool = True, buffer: int = 1 << 20
) -> AsyncIterator[tuple[Exporting, Collector]]:
    async with Collector() as collector:
        node = Exporting(collector, poll_s=poll_s, events=events, buffer=buffer)
        await node.exporter.start()
        await node.watch.start()
        yield node, collector
        await node.stop()


class Traffic:
    """UDP datagrams over loopback, each client port a connection."""

    def __init__(self) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.server.bind(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.expected: dict[int, int] = {}

    def send(self, connections: range, payload: int) -> None:
        while len(self.clients) < connections.stop:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.bind(("127.0.0.1", 0))
            self.clients.append(client)
        for number in connections:
            client = self.clients[number]
            client.sendto(bytes(payload), self.server.getsockname())
            port = client.getsockname()[1]
            self.expected[port] = self.expected.get(port, 0) + payload + UDP_HEADERS

    def rows(self, collector: Collector) -> list[Row]:
        """Its records. Not the one datagram by which the exporter finds out whether the kernel
        tracks connections: a client may get the port that it had."""
        port = self.server.getsockname()[1]
        return [row for row in collector.rows if row["destinationTransportPort"] == port]

    def close(self) -> None:
        for one in (*self.clients, self.server):
            one.close()


def make_in_zone(zone: int, port: int) -> None:
    made = f"conntrack -I -s 10.1.1.1 -d 10.1.1.2 -p udp --sport {port} --dport 9 -t 60 -w {zone}"
    subprocess.run(made.split(), check=True, capture_output=True)


def end_connection(port: int) -> None:
    ended = f"conntrack -D -p udp --sport {port}"
    subprocess.run(ended.split(), check=True, capture_output=True)


async def test_a_table_is_as_full_as_all_zones_make_it() -> None:
    """Also by connections that are not polled, as those of a switch's own zones."""
    for port in range(1, 31):
        make_in_zone(7, port)
    async with exporting(0.05) as (node, _):
        await until(lambda: node.watch.stats.polls > 1)
        stats = node.watch.stats
        assert stats.listed < 30 <= stats.held < stats.maximum


def forget_all() -> None:
    """Let the kernel end all UDP connections."""
    subprocess.run(["conntrack", "-D", "-p", "udp"], check=True, capture_output=True)


def counted(collector: Collector, traffic: Traffic) -> dict[int, int]:
    return dict(deltas(traffic.rows(collector)))


@pytest.fixture
def traffic() -> Iterator[Traffic]:
    made = Traffic()
    yield made
    made.close()


async def test_connections_shorter_than_the_poll_interval(traffic: Traffic) -> None:
    async with exporting(poll_s=60.0) as (node, collector):
        traffic.send(range(30), 100)
        traffic.send(range(10), 50)
        forget_all()
        await until(lambda: counted(collector, traffic) == traffic.expected)
        assert {row["flowEndReason"] for row in collector.rows} == {3}
        assert node.watch.stats.polls == 1


async def test_connections_that_go_on(traffic: Traffic) -> None:
    async with exporting(poll_s=0.1) as (_, collector):
        for _ in range(10):
            traffic.send(range(5), 100)
            await asyncio.sleep(0.1)
        await until(lambda: counted(collector, traffic) == traffic.expected)
        rows = traffic.rows(collector)
        assert len(rows) > 5
        starts = {row["sourceTransportPort"]: row["flowStartMilliseconds"] for row in rows}
        assert all(starts[r["sourceTransportPort"]] == r["flowStartMilliseconds"] for r in rows)


async def test_a_stop_tells_what_was_counted_until_then(traffic: Traffic) -> None:
    async with exporting(poll_s=60.0) as (node, collector):
        await until(lambda: node.exporter.client.connected)
        traffic.send(range(5), 100)
    assert counted(collector, traffic) == traffic.expected
    assert {row["flowEndReason"] for row in collector.rows} == {4}


async def test_without_events(traffic: Traffic) -> None:
    async with exporting(poll_s=0.1, events=False) as (node, collector):
        traffic.send(range(5), 100)
        await until(lambda: counted(collector, traffic) == traffic.expected)
        forget_all()
        await until(lambda: node.table.stats.vanished >= 5)
    assert counted(collector, traffic) == traffic.expected


async def test_events_behind_many_of_other_zones_are_heard(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are taken at once: of what has begun and ended since, nothing else tells."""
    monkeypatch.setattr(sockets, "EVENT_BYTES", sockets.EVENT_ROOM)  # one at a time
    async with exporting(3600.0) as (node, collector):
        for port in range(1, 9):
            make_in_zone(7, port)
        traffic.send(range(3), 100)
        for port in traffic.expected:
            end_connection(port)
    assert deltas(traffic.rows(collector)) == traffic.expected
    assert node.watch.stats.polls == 2  # when it began and when it was stopped


async def test_events_that_never_pause_hold_up_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy node there is one more whenever one looks."""
    async with exporting(poll_s=0.05) as (node, _):
        read, ports = node.conntrack.read_events, iter(range(1, 1 << 16))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, monkeypatch.context() as m:

            def one_more() -> Entries:
                client.sendto(b"", ("127.0.0.1", next(ports)))
                return read()

            m.setattr(node.conntrack, "read_events", one_more)
            polls = node.watch.stats.polls
            await until(lambda: node.watch.stats.polls >= polls + 5)
    assert node.conntrack.stats.events >= 5


@pytest.mark.parametrize("room", [1 << 16, 7])
async def test_events_are_read_while_the_kernel_lists_its_table(
    room: int, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps few for who does not read; they are taken in after what it listed."""
    monkeypatch.setattr(watch, "HELD_EVENTS", room)
    async with exporting(poll_s=3600.0) as (node, collector):
        listed, go_on = threading.Event(), threading.Event()
        whole, stats, known = node.conntrack.poll, node.conntrack.stats, len(node.table)

        def slow() -> Entries:
            monkeypatch.setattr(node.conntrack, "poll", whole)
            entries = whole()
            listed.set()
            go_on.wait()
            return entries

        monkeypatch.setattr(node.conntrack, "poll", slow)
        node.watch.poll_every(3600.0)
        await until(listed.is_set)
        before = stats.events

        def heard(events: int) -> bool:
            return stats.events - before >= events

        try:
            for number in range(5):
                traffic.send(range(number, number + 1), 100)
                port = traffic.clients[number].getsockname()[1]
                await asyncio.to_thread(end_connection, port)
                await until(partial(heard, min(2 * number + 2, room)))
            assert len(node.table) == known
        finally:
            go_on.set()
        await until(lambda: counted(collector, traffic) == traffic.expected)
        assert (stats.lost_events, node.table.stats.vanished) == (0, 0)
        assert {row["flowEndReason"] for row in traffic.rows(collector)} == {3}


async def test_lost_events_are_made_up_for_by_a_poll(
    traffic: Traffic, caplog: pytest.LogCaptureFixture
) -> None:
    async with exporting(poll_s=60.0, buffer=4096) as (node, collector):
        traffic.send(range(500), 100)
        await until(lambda: node.conntrack.stats.overruns > 0)
        await until(lambda: node.watch.stats.polls >= 2)
        assert node.watch.stats.polls == 2
        await until(lambda: counted(collector, traffic) == traffic.expected)
        forget_all()
        await until(lambda: node.watch.stats.polls >= 3, "a poll after more lost events")
        assert caplog.text.count("the kernel dropped events") == 1  # a minute
    assert counted(collector, traffic) == traffic.expected


async def test_what_lost_events_hid_has_a_number(
    traffic: Traffic,
) -> None:
    """Many connections begin and end while nobody reads: of most of them no event is left."""
    async with exporting(poll_s=0.1, buffer=4096) as (node, _):
        async with node.watch._lock:  # nobody reads meanwhile
            for _ in range(5):
                traffic.send(range(100), 10)
                forget_all()
        await until(lambda: node.table.stats.unseen > 0)
        assert node.conntrack.stats.lost_events == node.table.entries.dropped["lost"] > 800
        stats = node.table.stats
        assert 500 - node.table.connections.received <= stats.unseen
        assert stats.unseen <= 510 - node.table.connections.received
    traffic.expected.clear()


async def test_a_poll_that_was_cut_short_ends_nothing_and_is_repeated(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exporting(poll_s=60.0, events=False) as (node, collector):
        traffic.send(range(5), 100)
        whole = node.conntrack.poll

        def cut_short() -> Entries:
            node.conntrack.stats.interrupted += 1
            monkeypatch.undo()
            return whole().take(slice(0, 0))

        node.watch._poll_again()
        await until(lambda: len(node.table) >= 5)
        monkeypatch.setattr(node.conntrack, "poll", cut_short)
        node.watch._poll_again()
        await until(lambda: node.watch.stats.polls == 4)
        assert node.table.stats.vanished == 0
    assert counted(collector, traffic) == traffic.expected


async def test_a_poll_that_the_kernel_refuses_is_not_the_end(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with exporting(poll_s=0.05) as (node, collector):
        with monkeypatch.context() as patch:
            patch.setattr(node.conntrack, "poll", _refuse)
            await until(lambda: node.watch.stats.failures >= 3)
        traffic.send(range(3), 100)
        await until(lambda: counted(collector, traffic) == traffic.expected)
    assert caplog.text.count("connections not polled: no") == 1  # a minute


def _refuse() -> None:
    raise SystemRefused("no")


def test_poll_times_go_into_buckets() -> None:
    stats = KernelWatchStats()
    for seconds in (0.001, 0.01, 0.011, 99.0):
        stats.took(seconds)
    assert stats.polls == 4
    assert stats.polls_within[:2] == [2, 1]
    assert stats.polls_within[len(BUCKETS)] == 1


async def test_connections_from_before_the_kernel_counted_are_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (ROOT / "nf_conntrack_acct").write_text("0")
    traffic = Traffic()
    traffic.send(range(3), 100)
    async with exporting(0.05) as (node, collector):
        traffic.send(range(3, 5), 100)
        await until(lambda: node.watch.stats.polls > 3 and len(node.table) == 5)
        assert node.table.stats.uncounted == 3
        traffic.send(range(3), 100)  # it does not begin to count now
        polls = node.watch.stats.polls
        await until(lambda: node.watch.stats.polls > polls + 3)
        assert node.table.stats.uncounted == 3
    assert sorted(row["packetTotalCount"] for row in latest(collector).values()) == [0, 0, 0, 1, 1]
    assert (
        caplog.text.count("3 connections began before net.netfilter.nf_conntrack_acct was 1") == 1
    )
    traffic.close()


@pytest.mark.parametrize("name", ["nf_conntrack_acct", "nf_conntrack_events"])
async def test_the_kernel_tells_all_again_that_was_turned_off_under_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    traffic = Traffic()
    async with exporting(0.05) as (node, collector):
        (ROOT / name).write_text("0")
        await until(lambda: (ROOT / name).read_text().strip() == "1")
        node.watch.poll_every(3600.0)  # what begins and ends from here on is seen by events alone
        polls = node.watch.stats.polls
        await until(lambda: node.watch.stats.polls > polls)
        traffic.send(range(2), 333)
        await asyncio.to_thread(
            subprocess.run, ["conntrack", "-F"], check=True, capture_output=True
        )
        await until(lambda: len(traffic.rows(collector)) == 2)
    assert [row["octetTotalCount"] for row in traffic.rows(collector)] == [333 + UDP_HEADERS] * 2
    assert caplog.text.count(f"{name} was turned off while we ran") == 1
    traffic.close()


def latest(collector: Collector) -> dict[int, dict[str, Any]]:
    """The last record of each connection, by the client's port."""
    return {row["sourceTransportPort"]: row for row in collector.rows}


async def test_a_poll_and_events_that_fail_cost_themselves_only(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with exporting(poll_s=0.1) as (node, collector):
        failed: list[int] = []

        def defect(entries: Entries, now_ms: int) -> None:
            failed.append(len(entries))
            node.table.entries.received += len(entries)
            raise RuntimeError(f"a defect of a test at {now_ms}")

        with monkeypatch.context() as patched:
            patched.setattr(node.table, "poll", defect)
            patched.setattr(node.table, "event", defect)
            traffic.send(range(5), 100)
            await until(lambda: len(failed) > 3)
        polls = node.watch.stats.polls
        await until(lambda: node.watch.stats.polls > polls)
        assert node.table.entries.dropped["failed"] == sum(failed)
        forget_all()
        await until(lambda: counted(collector, traffic) == traffic.expected)
    assert "a defect of ours over the kernel's connections: RuntimeError" in caplog.text


async def test_who_fills_the_table_is_looked_at_now_and_then(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All entries of the poll count, also such as are out of scope; what fails costs the look."""
    async with exporting(poll_s=0.05) as (node, collector):
        traffic.send(range(20), 100)

        def numbers() -> tuple[str, int, int]:
            (one,) = node.occupancy.occupants or (Occupant("", "", "", False, 0, 0),)
            return one.workload, one.entries, one.unanswered

        await until(lambda: numbers()[1:] >= (20, 20))
        assert numbers()[0] == "(external)"
        with monkeypatch.context() as patched:
            patched.setattr(node.occupancy, "_of_node", None)
            await until(lambda: "over who fills the connection table: TypeError" in caplog.text)
            polls = node.watch.stats.polls
            await until(lambda: node.watch.stats.polls > polls + 1)
        forget_all()

        def wrong() -> dict[int, tuple[int, int]]:
            found = counted(collector, traffic)
            return {
                p: (found.get(p, 0), n) for p, n in traffic.expected.items() if found.get(p) != n
            }

        await until(lambda: not wrong(), state=lambda: (wrong(), node.ledger.as_dict()))
        await until(lambda: numbers()[1] < 20)


async def test_a_tuple_that_is_used_again_at_once_counts_once(traffic: Traffic) -> None:
    """The kernel gives its id again, too, and polls are ahead of the events."""
    async with exporting(poll_s=0.01) as (node, collector):
        for _ in range(100):
            traffic.send(range(5), 100)
            await asyncio.sleep(0.005)
            await asyncio.to_thread(forget_all)
        await until(lambda: counted(collector, traffic) == traffic.expected)
        assert node.table.stats.vanished == 0
