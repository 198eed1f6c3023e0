"""A real exporter that is killed at any moment, and what the one that follows makes of it."""

import asyncio
import random
import socket
import time
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import pytest

from cli.test_exporter import until_answered
from exporter.collector import Collector
from exporter.test_acknowledged import Collector as Acknowledging
from exporter.test_acknowledged import Session, files
from exporter.test_export import deltas
from exporter.test_live import Start, start, traffic
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.fields import EXPORTED
from flowvis.ipfix.file import read_file
from flowvis.native import StringTable
from flowvis.transport.tls import TlsFiles
from waiting import until

__all__ = ["files", "start"]

Interval = tuple[int, int, int]
"""A connection's port, and the totals that a record of it counts from and to."""

UNSEEN_S = 4.0  # a connection that is over so long before a kill has been reported
pytestmark = pytest.mark.kernel


class Passers:
    """Connections of some datagrams, that are over soon after."""

    def __init__(self) -> None:
        self.octets: Counter[int] = Counter()
        self._port = 10_000  # each has one of its own: the kernel gives some again
        for name in ("udp_timeout", "udp_timeout_stream"):
            (ROOT / f"nf_conntrack_{name}").write_text("1")

    def pass_by(self, count: int, datagrams: int = 1) -> list[int]:
        """Return their ports."""
        ports = []
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                self._port += 1
                client.bind(("127.0.0.1", self._port))
                for _ in range(datagrams):
                    client.sendto(bytes(72), ("127.0.0.1", 9))
                ports.append(self._port)
                self.octets[self._port] = 100 * datagrams
        return ports


def kept(directory: Path) -> int:
    """How many bytes records on disk report."""
    found = 0
    for path in directory.glob("*.records/*.ipfix"):
        batch = read_file(path.read_bytes(), EXPORTED, StringTable()).batch
        found += int(batch["octetDeltaCount"].sum())
    return found


async def test_what_it_had_not_sent_is_sent_by_the_next_one(start: Start) -> None:
    """The kernel has forgotten these connections, and only the killed exporters knew of them."""
    passers, waits = Passers(), {"activeFlowExportTimeout": "1h", "idleFlowExportTimeout": "1h"}
    async with Collector() as collector:
        exporter = start(collector, others={"gracePeriod": "1s"}, **waits)
        await until(lambda: collector.sessions == 1)
        await collector.go_away()
        for number in range(1, 3):
            passers.pass_by(7, datagrams=number)
            await until(lambda: kept(exporter.path) == passers.octets.total())
            exporter.kill()
            await asyncio.to_thread(until_answered, exporter.status, "readyz")
        await collector.come()
        await until(lambda: deltas(collector.rows).total() >= passers.octets.total())
        await exporter.stop()
        assert deltas(collector.rows) == passers.octets
        assert kept(exporter.path) == 0


async def test_an_orderly_stop_leaves_what_the_collector_did_not_take(start: Start) -> None:
    passers, waits = Passers(), {"activeFlowExportTimeout": "1h", "idleFlowExportTimeout": "1h"}
    async with Collector() as collector:
        exporter = start(collector, others={"gracePeriod": "1s"}, **waits)
        await until(lambda: collector.sessions == 1)
        await collector.go_away()
        passers.pass_by(5)
        await until(lambda: kept(exporter.path) == 500)
        log = await exporter.stop()
        assert "5 records that were not acknowledged are left to the next exporter" in log
        assert "are lost" not in log
        exporter.kill()
        await collector.come()
        await until(lambda: deltas(collector.rows).total() >= passers.octets.total())
        await exporter.stop()
        assert deltas(collector.rows) == passers.octets


class Intervals(Session):
    """Keeps of each record its connection, and from which total to which it counts."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer)
        self.domain = 0
        self.intervals: list[Interval] = []

    def take(self, data: bytes) -> None:
        self.domain = self.domain or int.from_bytes(data[12:16])  # of the first message's header
        self.decoder.receive(data)
        batch = self.buffer.batch()
        names = ("sourceTransportPort", "octetTotalCount", "octetDeltaCount")
        for port, total, delta in zip(*(batch[name].tolist() for name in names), strict=True):
            self.records.append((port, total))
            self.intervals.append((port, total - delta, total))
        self.buffer.clear()


class Store(Acknowledging):
    """Commits late; what it has not committed is lost when it crashes."""

    session_type = Intervals

    def __init__(self, tls: TlsFiles) -> None:
        super().__init__(tls)
        self.committed: set[Interval] = set()

    def commit(self, most: int = 1 << 30) -> None:
        for session in self._open.values():
            assert isinstance(session, Intervals)
            end = min(len(session.intervals), session.durable + most)
            self.committed |= set(session.intervals[session.durable : end])
            session.acknowledge(end)

    def totals(self) -> Counter[int]:
        """How far what is committed of each connection goes without a gap."""
        reached: Counter[int] = Counter()
        for port, before, after in sorted(self.committed):
            if before <= reached[port]:
                reached[port] = max(reached[port], after)
        return reached


@pytest.mark.parametrize("seed", [4739])
async def test_kills_of_both_at_any_moment(
    start: Start, files: tuple[TlsFiles, TlsFiles], seed: int
) -> None:
    """What the kernel counted is what is committed, of all that an exporter could see end."""
    choose = random.Random(seed)
    passers, since, gaps = Passers(), dict[int, float](), list[tuple[float, float]]()
    store = Store(files[0])
    await store.come()
    ca, certificate, key = (str(path) for path in astuple(files[1])[:3])
    others = {"tls": {"ca": ca, "certificate": certificate, "key": key}}
    exporter = start(store, others=others)
    await asyncio.to_thread(until_answered, exporter.status, "readyz")
    exported = 0

    def go_on() -> None:
        nonlocal exported
        exporter.send()
        exported += 100
        for port in passers.pass_by(choose.randrange(4)):
            since[port] = time.monotonic()

    for number in range(4):
        until_s = time.monotonic() + choose.uniform(3.5, 4.5)
        while time.monotonic() < until_s:
            go_on()
            await asyncio.sleep(0.03)
            if choose.random() < 0.05:
                store.commit(choose.randrange(1, 60))
        if number % 2:
            killed = time.monotonic()
            exporter.kill()
            ready = asyncio.to_thread(until_answered, exporter.status, "readyz")
            exported += await traffic(exporter, ready)
            gaps.append((killed - UNSEEN_S, time.monotonic()))
        else:
            await store.crash()
            await store.come()

    for client, port in zip(exporter.clients, exporter.ports(), strict=True):
        assert client.getsockname()[1] == port
        passers.octets[port] = exported
    unseen = {port for port, at in since.items() if any(begin <= at <= end for begin, end in gaps)}
    expected = {port: octets for port, octets in passers.octets.items() if port not in unseen}
    assert len(expected) > 50  # on a busy machine most end while no exporter runs

    def complete() -> bool:
        store.commit()
        return expected.items() <= store.totals().items()

    await until(complete, "all that was counted")
    assert all(store.totals()[port] in {0, 100} for port in unseen)
    await exporter.stop()
    store.commit()
    await store.go_away()
