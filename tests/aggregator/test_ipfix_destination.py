import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from exporter.test_fickle_collectors import (
    Manner,
    after_the_templates,
    at_the_first_record,
    fickle,
)
from flowvis.aggregator.destinations import sending
from flowvis.aggregator.destinations.ipfix import AT_ONCE_BYTES, IpfixDestination, _Session
from flowvis.batch import Batch
from flowvis.delivery.queue import Queue
from flowvis.fields import AGGREGATED, TEXT_FIELDS
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.exporter import PROBE, ExporterSession
from flowvis.ipfix.receivers import parse_release, understood
from flowvis.native import StringTable
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.transport import client
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.client import Client
from flowvis.transport.connection import Connection
from flowvis.transport.server import Peer, Server
from flowvis.transport.tls import TlsFiles
from ports import free_port
from waiting import PATIENCE_S, until

from .records import numbered, records


class Collector:
    """An IPFIX collector of somebody else's: one buffer for all sessions."""

    def __init__(self, tls: TlsFiles | None = None) -> None:
        self.buffer = RecordBuffer(AGGREGATED, StringTable())
        self.sessions: list[CollectorSession] = []
        self._tls = tls
        self._server: Server | None = None
        self.port = free_port()

    async def start(self) -> None:
        """Listen; at the same port again where it was stopped before."""
        self._server = Server(self._open, host="127.0.0.1", port=self.port, tls=self._tls)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    def _open(self, peer: Peer) -> "Handler":
        self.sessions.append(CollectorSession(str(peer), self.buffer))
        return Handler(self.sessions[-1])

    async def has(self, count: int) -> None:
        await until(lambda: len(self.buffer) == count)

    def numbers(self) -> list[int]:
        numbers: list[int] = self.buffer.batch()["octetTotalCount"].tolist()
        return numbers


class Handler:
    def __init__(self, session: CollectorSession) -> None:
        self._session = session

    proven = pending = fruitless = False
    pause_s = 0.0

    def data_received(self, data: memoryview) -> float:
        self._session.receive(data)
        return 0.0

    def go_on(self) -> float:
        return 0.0

    def eof(self) -> None:
        self._session.eof()

    def closed(self) -> None:
        pass


def destination(
    collector: Collector, tls: TlsFiles | None = None, capacity: int = 10_000, grace_s: float = 5
) -> IpfixDestination:
    address = CollectorAddress("127.0.0.1", collector.port, "tls" if tls else "tcp")
    client = Client(address, tls, probe=PROBE, backoff=Backoff(0.02, 0.1))
    stage = Stage("ipfix")
    return IpfixDestination(
        client, stage, domain=lambda: 7, capacity=capacity, max_message=1400, grace_s=grace_s
    )


@contextlib.asynccontextmanager
async def started(sink: IpfixDestination) -> AsyncIterator[IpfixDestination]:
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


def put(sink: IpfixDestination, batch: Batch) -> None:
    sink.put(batch)
    assert sink.queue.stage.imbalance == 0


async def test_records_arrive_as_they_are(tmp_path: Path) -> None:
    ca = issue_ca()
    ca.write(tmp_path, "ca")
    issue_server(ca, ["127.0.0.1"]).write(tmp_path, "server")
    issue_client(ca, "aggregator").write(tmp_path, "client")
    for tls in (False, True):
        files = [
            TlsFiles(tmp_path / "ca.crt", tmp_path / f"{end}.crt", tmp_path / f"{end}.key")
            if tls
            else None
            for end in ("server", "client")
        ]
        collector = Collector(files[0])
        await collector.start()
        batch = records(
            {
                "sourceIP": "10.0.0.1",
                "destinationIP": "10.0.0.2",
                "sourcePodName": "größe",
                "octetTotalCount": 2**64 - 1,
                "throughputFromDestinationNode": 12345,
                "clusterId": "east",
                "sourcePodLabels": '{"app":"' + "x" * 300 + '"}',
            },
            {"sourceIP": "fd00::1", "destinationIP": "fd00::2", "flowEndSecondsFromSourceNode": 9},
        )
        async with started(destination(collector, files[1])) as sink:
            put(sink, batch)
            await collector.has(2)
        await collector.stop()
        assert (sink.queue.stage.sent, len(sink.queue)) == (2, 0)
        found = collector.buffer.batch()
        for field in AGGREGATED:
            if field.name in {"destinationClusterIP", "destinationServiceIP", "proxySnatIP"}:
                continue  # unset ones come back in the record's own family
            same = found.on(batch.strings, [field.name]) if field.kind.name == "TEXT" else found
            assert (same[field.name] == batch[field.name]).all(), field.name


async def test_a_busy_loop_does_not_keep_records_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each turn of the loop all sessions may have brought more than is taken here."""
    collector = Collector()
    await collector.start()
    with monkeypatch.context() as patched:
        patched.setattr(client, "PROOF_S", 0.01)
        async with started(destination(collector)) as sink:
            put(sink, numbered(0, 1))
            await until(lambda: sink.queue.stage.sent == 1)
            for first in range(1, 8001, 2000):
                put(sink, numbered(first, 2000))
            turns = 0
            while sink.queue.waiting:
                await asyncio.sleep(0)
                turns += 1
            await collector.has(8001)
    await collector.stop()
    assert turns <= 20, turns


async def test_a_collector_that_comes_back_gets_each_record_once() -> None:
    collector = Collector()
    await collector.start()

    async def sessions(count: int) -> None:
        await until(lambda: len(collector.sessions) >= count)

    async with started(destination(collector)) as sink:
        total = 0
        for rounds in range(4):
            for _ in range(20):
                put(sink, numbered(total, 50))
                total += 50
                await asyncio.sleep(0)
            await sessions(rounds + 1)
            await collector.stop()
            put(sink, numbered(total, 50))
            total += 50
            await collector.start()
        await until(lambda: len(sink.queue) == 0)
    await collector.stop()
    assert sorted(collector.numbers()) == list(range(total))
    assert sum(session.stats.lost_records for session in collector.sessions) == 0
    assert sink.queue.stage.sent == total
    assert sink.queue.stage.imbalance == 0


async def test_records_that_cannot_be_encoded_are_given_up_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowvis.aggregator.destinations.sending.PAUSE_S", 0.01)
    collector = Collector()
    await collector.start()
    async with started(destination(collector)) as sink:
        put(sink, numbered(0, 5))
        bad = numbered(5, 7)
        bad.columns["octetTotalCount"] = bad["octetTotalCount"].astype(np.float64)
        put(sink, bad)
        put(sink, numbered(12, 3))
        await until(lambda: len(sink.queue) == 0)
    await collector.stop()
    assert collector.numbers() == [*range(5), *range(12, 15)]
    assert sink.queue.stage.dropped == {OutgoingDropped.FAILED: 7}
    assert (sink.queue.stage.sent, sink.queue.stage.imbalance) == (8, 0)


async def test_what_was_kept_for_other_elements_is_sent_with_the_new_ones() -> None:
    collector = Collector()
    await collector.start()
    client = Client(CollectorAddress("127.0.0.1", collector.port, "tcp"))
    fields = understood(AGGREGATED, parse_release("1.5"))
    stage = Stage("ipfix")
    old = Queue(stage, 100)
    old.put(numbered(0, 9))
    old.take(4)  # of which nothing left
    new = IpfixDestination(client, stage, domain=lambda: 7, capacity=100, fields=fields)
    new.succeed(old.release())
    async with started(new):
        await until(lambda: len(new.queue) == 0)
    await collector.stop()
    assert collector.numbers() == list(range(9))
    assert (stage.sent, stage.dropped, stage.imbalance) == (9, {}, 0)


@pytest.mark.parametrize("manner", [after_the_templates, at_the_first_record])
async def test_nothing_is_sent_to_a_collector_that_accepts_and_closes(
    manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PROOF_S", 1.0)  # in which a busy machine closes as well
    collector = Collector()
    await collector.start()
    await collector.stop()
    async with started(destination(collector)) as sink:
        async with fickle(collector.port, manner) as began:
            put(sink, numbered(0, 9))
            await until(lambda: len(began) == 3)
            assert (sink.queue.stage.sent, len(sink.queue)) == (0, 9)
        await collector.start()
        await until(lambda: sink.queue.stage.sent == 9)
    await collector.stop()
    assert collector.numbers() == list(range(9))
    assert sink.queue.stage.imbalance == 0


async def test_a_defect_before_records_go_again_costs_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowvis.aggregator.destinations.sending.PAUSE_S", 0.01)
    collector = Collector()
    await collector.start()
    await collector.stop()
    asked = []

    async def hosts(address: CollectorAddress) -> list[str]:
        asked.append(address)
        if len(asked) == 2:
            raise RuntimeError("a defect")
        return ["127.0.0.1"]

    sink = destination(collector)
    sink.client._hosts = hosts
    async with fickle(collector.port, at_the_first_record) as began:
        put(sink, numbered(0, 9))
        await sink.start()
        await until(lambda: len(began) == 1)
        await until(lambda: len(asked) >= 2)
    await collector.start()
    await until(lambda: len(sink.queue) == 0)
    await sink.stop()
    await collector.stop()
    assert collector.numbers() == list(range(9))
    assert (sink.queue.stage.dropped, sink.queue.stage.imbalance) == ({}, 0)


async def test_while_the_collector_is_away_the_newest_records_wait() -> None:
    collector = Collector()
    await collector.start()
    await collector.stop()
    async with started(destination(collector, capacity=100)) as sink:
        for first in range(0, 500, 50):
            put(sink, numbered(first, 50))
        await until(lambda: sink.client.stats.attempts)
        assert sink.queue.stage.dropped == {OutgoingDropped.QUEUE_FULL: 400}
        await collector.start()
        await until(lambda: len(sink.queue) == 0)
    await collector.stop()
    assert collector.numbers() == list(range(400, 500))


async def test_what_cannot_be_sent_at_the_end_is_counted() -> None:
    collector = Collector()
    await collector.start()
    await collector.stop()
    sink = destination(collector, grace_s=0.2)
    await sink.start()
    put(sink, numbered(0, 5))
    await until(lambda: sink.client.stats.attempts)
    await sink.stop()
    assert sink.queue.stage.dropped == {OutgoingDropped.SHUTDOWN: 5}
    assert sink.queue.stage.imbalance == 0


async def test_an_idle_stop_does_not_wait_for_the_collector() -> None:
    collector = Collector()
    await collector.start()
    await collector.stop()
    sink = destination(collector, grace_s=3600)
    await sink.start()
    await asyncio.wait_for(sink.stop(), PATIENCE_S)


@pytest.mark.parametrize(("grace_s", "closing_s"), [(0.25, 0.125), (3600, 2)])
async def test_a_collector_that_does_not_close_is_waited_for_within_the_grace_period(
    monkeypatch: pytest.MonkeyPatch, grace_s: float, closing_s: float
) -> None:
    waits: list[float] = []

    async def finish(self: Connection, drain_s: float) -> bool:
        waits.append(drain_s)
        return False

    async def ended(task: object, within_s: float, unless: object) -> None:
        waits.append(within_s)

    monkeypatch.setattr(Connection, "finish", finish)
    monkeypatch.setattr(sending, "ended", ended)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        collector = Collector()
        collector.port = deaf.getsockname()[1]
        sink = destination(collector, grace_s=grace_s)
        await sink.start()
        await until(lambda: sink.client.connected)
        await sink.stop()
        assert waits == [closing_s]
        sink = destination(collector, grace_s=grace_s)
        await sink.start()
        await until(lambda: sink.client.connected)
        sink.put(numbered(1, 100))
        await sink.stop()
    assert waits[1] == grace_s - closing_s


async def test_a_collector_that_does_not_read_delays_nobody() -> None:
    stuck = socket.create_server(("127.0.0.1", 0))  # the kernel answers, and nobody reads
    collector = Collector()
    collector.port = stuck.getsockname()[1]
    sink = destination(collector, capacity=2_000, grace_s=0.1)
    await sink.start()
    batch = records(*({"sourceIP": "10.0.0.1", "sourcePodLabels": "x" * 900} for _ in range(200)))
    for _ in range(400):
        put(sink, batch)
        await asyncio.sleep(0)
    stage = sink.queue.stage
    assert stage.dropped[OutgoingDropped.QUEUE_FULL] > 0
    assert len(sink.queue) <= 2_000
    await sink.stop()
    assert stage.imbalance == 0
    assert stage.received == 400 * 200
    stuck.close()


async def test_a_record_that_fits_no_message_is_shortened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector = Collector()
    await collector.start()
    async with started(destination(collector)) as sink:
        long = {"sourceIP": "10.0.0.1", "sourcePodLabels": "x" * 2000}
        put(sink, records(long, {"sourceIP": "10.0.0.1", "octetTotalCount": 3}))
        await until(lambda: len(sink.queue) == 0)
    await collector.stop()
    assert collector.numbers() == [0, 3]
    assert sink.queue.stage.dropped == {}
    assert "1 records have shortened texts" in caplog.text


async def test_an_idle_session_that_is_lost_is_replaced() -> None:
    collector = Collector()
    await collector.start()
    async with started(destination(collector)) as sink:
        await until(lambda: len(collector.sessions) == 1)
        await collector.stop()
        assert not sink.client.connected
        await collector.start()
        await until(lambda: len(collector.sessions) == 2)
        await until(lambda: collector.sessions[1].stats.templates == 2)
    await collector.stop()


def test_messages_of_long_texts_are_made_a_few_at_a_time() -> None:
    """A text is in memory once, whoever has it; a message is of one record then."""
    stage = Stage("x")
    queue = Queue(stage, 10_000)
    batch = numbered(0, 2000)
    text = batch.strings.intern(b"x" * 16_000)
    for name in TEXT_FIELDS:
        if name in batch:
            batch[name] = np.full(len(batch), text, dtype=np.uint32)
    queue.put(batch)
    session = ExporterSession(1, AGGREGATED)
    encoder = _Session(session, lambda: 1, lambda *_: None)
    calls = 0
    while queue.waiting or encoder.left:
        messages = encoder.next_messages(queue)
        assert sum(map(len, messages)) < AT_ONCE_BYTES + 65535
        queue.sent(queue.taken - encoder.left)
        calls += 1
    assert calls > 10
    assert (session.stats.records, session.stats.shortened, stage.sent) == (2000, 2000, 2000)
