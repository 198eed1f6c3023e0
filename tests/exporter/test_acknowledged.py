"""An exporter and collectors that acknowledge: what is not acknowledged is sent again."""

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from flowvis.batch import Batch, address_text
from flowvis.exporter import export
from flowvis.fields import EXPORTED
from flowvis.ipfix.acknowledgement import PROTOCOL, frame
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.exporter_report import ExporterReport
from flowvis.ipfix.occupancy import Occupant
from flowvis.native import StringTable
from flowvis.native.contract.ipfix import HEADER
from flowvis.runtime.backoff import Backoff
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.tls import TlsFiles
from ports import free_port
from waiting import until

from .test_export import Node

Record = tuple[int, int]
"""Its connection's port and the bytes in all."""


class Certificate:
    """A client's files, which may be replaced."""

    def __init__(self, path: Path) -> None:
        self._path, self._ca = path, issue_ca("test")
        root, _ = self._ca.write(path, "ca")
        self.server = TlsFiles(root, *issue_server(self._ca, ["127.0.0.1"]).write(path, "server"))
        self.issue()
        self.client = TlsFiles(root, path / "client.crt", path / "client.key")

    def issue(self, *, ago: timedelta = timedelta()) -> None:
        """Write a new one, that is valid for an hour from then."""
        now = datetime.now(UTC) - ago
        issued = issue_client(self._ca, "node", now=now, validity=timedelta(hours=1))
        issued.write(self._path, "client")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, TlsFiles]:
    """A server's and a client's."""
    certificate = Certificate(tmp_path_factory.mktemp("pki"))
    return certificate.server, certificate.client


class Session:
    """What came in one session."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.buffer = RecordBuffer(EXPORTED, StringTable())
        self.decoder = CollectorSession("exporter", self.buffer)
        self.records: list[Record] = []
        self.durable = 0
        self.domain = 7
        tls = writer.get_extra_info("ssl_object")
        self.acknowledges = tls.selected_alpn_protocol() == PROTOCOL

    def take(self, data: bytes) -> None:
        self.decoder.receive(data)
        batch = self.buffer.batch()
        assert set(map(address_text, map(bytes, batch["sourceIP"]))) <= {"10.0.0.1", "fd00::1"}
        ports, octets = (
            batch[name].tolist() for name in ("sourceTransportPort", "octetTotalCount")
        )
        self.records += zip(ports, octets, strict=True)
        self.buffer.clear()

    def acknowledge(self, count: int) -> None:
        self.durable = count
        self.writer.write(frame(self.domain, count))


class Collector:
    """Acknowledges what it has committed, when it is asked to; loses the rest when it crashes."""

    session_type = Session

    def __init__(self, tls: TlsFiles, *, acknowledges: bool = True) -> None:
        self.sessions: list[Session] = []
        self.stored: list[Record] = []
        self._context = tls.server_context()
        self._open: dict[asyncio.Task[None], Session] = {}
        self._server: asyncio.Server | None = None
        self.port = free_port()
        self.acknowledges(acknowledges)

    def acknowledges(self, yes: bool) -> None:
        self._context.set_alpn_protocols([PROTOCOL] if yes else ["h2"])

    @property
    def address(self) -> CollectorAddress:
        return CollectorAddress("127.0.0.1", self.port)

    @property
    def records(self) -> list[Record]:
        return [record for session in self.sessions for record in session.records]

    async def __aenter__(self) -> Self:
        await self.come()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    async def come(self) -> None:
        self._server = await asyncio.start_server(
            self._session, "127.0.0.1", self.port, ssl=self._context, reuse_address=True
        )

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        session = self._open[task] = self.session_type(writer)
        self.sessions.append(session)
        try:
            while data := await reader.read(1 << 16):
                session.take(data)
        except OSError:
            pass
        finally:
            del self._open[task]
            writer.close()

    def commit(self, most: int = 1 << 30) -> None:
        """Store what sessions have sent, some of it, and say so."""
        for session in self._open.values():
            end = min(len(session.records), session.durable + most)
            self.stored += session.records[session.durable : end]
            session.acknowledge(end)

    async def crash(self) -> None:
        """End without a word; what is not stored is lost."""
        assert self._server is not None
        self._server.close()
        for session in self._open.values():
            session.writer.transport.abort()
        if self._open:
            await asyncio.wait(self._open)

    async def go_away(self) -> None:
        """Close all sessions in good order."""
        assert self._server is not None
        self._server.close()
        for session in self._open.values():
            session.writer.close()
        if self._open:
            await asyncio.wait(self._open)


def node_of(collector: Collector, files: tuple[TlsFiles, TlsFiles], **more: Any) -> Node:
    return Node(collector.address, tls=files[1], **more)


def unacknowledged(node: Node) -> tuple[int, int]:
    return node.pending.unacknowledged, len(node.pending)


async def all_is_acknowledged(node: Node, collector: Collector) -> None:
    """Commit until the exporter holds nothing any more."""

    def empty() -> bool:
        collector.commit()
        return not len(node.pending)

    await until(empty)


async def test_what_is_sent_is_held_until_it_is_acknowledged(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    async with Collector(files[0]) as collector:
        node = node_of(collector, files)
        await node.exporter.start()
        node.end(3, 4, 5)
        await until(lambda: len(collector.records) == 3)
        await until(lambda: unacknowledged(node) == (3, 3))
        assert node.sent == 0
        collector.commit(2)
        await until(lambda: unacknowledged(node) == (1, 1))
        collector.commit()
        await until(lambda: unacknowledged(node) == (0, 0))
        assert (node.sent, node.pending.stats.sent_again) == (3, 0)
        node.balanced()
        await node.exporter.stop()
        assert collector.sessions[0].decoder.stats.sent_again == 0
        assert collector.sessions[0].decoder.stats.lost_records == 0


async def test_a_collector_that_acknowledges_is_told_what_is_counted(
    files: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "REPORT_S", 0.05)
    counted = [ExporterReport(1, 2, 0, 0, 0)]
    web = Occupant("shop", "Deployment", "web", opened=True, entries=1, unanswered=0)
    occupants: list[tuple[Occupant, ...]] = [(web,)]
    async with Collector(files[0]) as collector:
        node = node_of(collector, files, report=lambda: counted[0], occupancy=lambda: occupants[0])
        await node.exporter.start()
        await until(lambda: collector.sessions and collector.sessions[0].decoder.report)
        node.end(3)
        assert collector.sessions[0].decoder.report == counted[0]
        assert collector.sessions[0].decoder.occupancy == occupants[0]
        counted[0], occupants[0] = ExporterReport(3, 4, 5, 6, 7), (web, web)

        def told() -> bool:
            node.exporter.look()
            return collector.sessions[0].decoder.report == counted[0]

        await until(told)
        assert collector.sessions[0].decoder.occupancy == occupants[0]
        await until(lambda: len(collector.records) == 1)
        await all_is_acknowledged(node, collector)
        assert collector.sessions[0].decoder.stats.malformed == {}
        collector.acknowledges(False)
        await collector.go_away()
        await collector.come()
        node.end(4)
        await until(lambda: len(collector.records) == 2)
        assert collector.sessions[1].decoder.stats.templates == 2
        assert collector.sessions[1].decoder.report is None
        assert collector.sessions[1].decoder.occupancy is None
        await node.exporter.stop()


async def test_what_was_not_acknowledged_comes_again_and_is_said_to(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    collector = Collector(files[0])
    await collector.come()
    node = node_of(collector, files)
    await node.exporter.start()
    node.end(*range(1, 11))
    await until(lambda: len(collector.records) == 10)
    collector.commit(4)
    await until(lambda: node.pending.unacknowledged == 6)
    first = collector.records[4:]
    await collector.crash()
    node.end(*range(11, 14))
    await collector.come()
    await until(lambda: len(collector.sessions) == 2)
    second = collector.sessions[1]
    await until(lambda: len(second.records) == 9)
    assert second.records[:6] == first  # in the order in which they were sent
    assert second.decoder.stats.sent_again == 6
    assert node.pending.stats.sent_again == 6
    await all_is_acknowledged(node, collector)
    assert sorted(collector.stored) == [(number, 100) for number in range(1, 14)]
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()


async def test_who_goes_away_again_and_again_is_not_kept_waiting(
    files: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where records became durable in its sessions; after those in vain waits grow."""
    async with Collector(files[0]) as collector:
        node = node_of(collector, files)
        waits: list[float] = []

        class Noted(Backoff):
            def wait_s(self) -> float:
                waits.append(super().wait_s())
                return waits[-1]

        with monkeypatch.context() as patch:
            patch.setattr(node.exporter.client, "_backoff", Noted(first_s=0.1))
            await node.exporter.start()
            sessions = collector.sessions
            for number in range(1, 8):
                node.end(number)
                await until(lambda: len(collector.sessions[-1:]) and collector.sessions[-1].records)
                if number <= 4:
                    await all_is_acknowledged(node, collector)
                await collector.go_away()
                await collector.come()
                await until(partial(lambda more: len(sessions) > more, number))
            assert max(waits[:4]) <= 0.2  # one attempt may have been too early
            assert max(waits[4:]) > 0.2
            await node.exporter.stop()


@pytest.mark.parametrize("seed", [1, 4739])
async def test_crashes_at_any_moment_lose_nothing(
    files: tuple[TlsFiles, TlsFiles], seed: int
) -> None:
    """What comes a second time is among the records that the session said may do so."""
    choose = random.Random(seed)
    collector = Collector(files[0])
    await collector.come()
    node = node_of(collector, files)
    await node.exporter.start()
    last = 0
    for _ in range(12):
        for _ in range(choose.randrange(4)):
            size = choose.randrange(1, 400)
            node.end(*range(last + 1, last + 1 + size))
            last += size
            await asyncio.sleep(choose.random() / 100)
            if choose.random() < 0.5:
                collector.commit(choose.randrange(1, 500))
        if choose.random() < 0.3:
            await collector.go_away()
        else:
            await collector.crash()
        await collector.come()
    await until(lambda: node.exporter.client.connected)
    await all_is_acknowledged(node, collector)
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()
    assert node.pending.stage.dropped == {}
    assert {port for port, _ in collector.stored} == set(range(1, last + 1))
    before: set[Record] = set()
    for session in collector.sessions:
        assert before.isdisjoint(session.records[session.decoder.stats.sent_again :])
        before |= set(session.records)
    assert max(Counter(collector.stored).values()) <= 2 + len(collector.sessions)


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_full_queue_forgets_what_was_sent(
    files: tuple[TlsFiles, TlsFiles], crashes: bool
) -> None:
    """It is a loss when nobody says any more that it is durable."""
    collector = Collector(files[0])
    await collector.come()
    node = node_of(collector, files, pending=50)
    await node.exporter.start()
    for first in (1, 31, 61):
        node.end(*range(first, first + 30))
        await until(lambda first=first: len(collector.records) == first + 29)  # type: ignore[misc]
    assert (len(node.pending), node.pending.stage.held()) == (50, 90)
    node.balanced()
    if crashes:
        await collector.crash()
        await until(lambda: node.pending.stage.dropped == {"unconfirmed": 40})
        await collector.come()
        await until(lambda: len(collector.sessions) == 2)
    await all_is_acknowledged(node, collector)
    assert node.pending.stage.dropped == ({"unconfirmed": 40} if crashes else {})
    assert node.sent == (50 if crashes else 90)
    node.balanced()
    await node.exporter.stop()
    await collector.go_away()


async def test_a_collector_that_acknowledges_nothing_is_not_given_it_twice(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    """A rolling update goes both ways: an aggregator of before would count twice."""
    collector = Collector(files[0])
    await collector.come()
    node = node_of(collector, files)
    await node.exporter.start()
    node.end(*range(1, 11))
    await until(lambda: len(collector.records) == 10)
    collector.commit(4)
    await until(lambda: node.pending.unacknowledged == 6)
    await collector.crash()
    node.end(11, 12)
    collector.acknowledges(False)
    await collector.come()
    await until(lambda: len(collector.records) == 12)
    assert node.pending.stage.dropped == {"unconfirmed": 6}
    await until(lambda: node.sent == 6)
    assert collector.sessions[1].decoder.stats.templates == 2
    await collector.crash()
    node.end(13)
    collector.acknowledges(True)
    await collector.come()
    await until(lambda: len(collector.records) == 13)
    assert collector.sessions[2].decoder.stats.sent_again == 0
    await all_is_acknowledged(node, collector)
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()


async def test_what_the_collector_has_read_at_a_stop_is_sent(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    async with Collector(files[0]) as collector:
        node = node_of(collector, files)
        await node.exporter.start()
        node.end(*range(1, 6))
        await until(lambda: len(collector.records) == 5)
        await node.exporter.stop()
    assert (node.sent, node.pending.stage.dropped) == (5, {})
    node.balanced()


async def test_what_nobody_has_confirmed_at_a_stop_is_named(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    collector = Collector(files[0])
    await collector.come()
    node = node_of(collector, files)
    await node.exporter.start()
    node.end(*range(1, 6))
    await until(lambda: len(collector.records) == 5)
    await collector.crash()
    node.end(7)
    await node.exporter.stop()
    assert node.pending.stage.dropped == {"unconfirmed": 5, "stopped": 1}
    node.balanced()


@pytest.mark.parametrize("count", [4, 2**64 - 1])
async def test_a_collector_that_acknowledges_what_was_not_sent_is_left(
    files: tuple[TlsFiles, TlsFiles], count: int
) -> None:
    async with Collector(files[0]) as collector:
        node = node_of(collector, files)
        await node.exporter.start()
        node.end(3, 4, 5)
        await until(lambda: len(collector.records) == 3)
        collector.sessions[0].acknowledge(count)
        await until(lambda: len(collector.sessions) == 2)
        await until(lambda: len(collector.sessions[1].records) == 3)
        assert node.exporter.client.stats.lost == {"acknowledgement": 1}
        assert collector.sessions[1].records == collector.sessions[0].records
        node.balanced()
        await node.exporter.stop()


async def test_another_collector_gets_what_the_one_before_did_not_acknowledge(
    files: tuple[TlsFiles, TlsFiles],
) -> None:
    async with Collector(files[0]) as one, Collector(files[0]) as other:
        node = node_of(one, files)
        await node.exporter.start()
        node.end(3, 4, 5)
        await until(lambda: len(one.records) == 3)
        one.commit(1)
        await until(lambda: node.pending.unacknowledged == 2)
        node.exporter.redirect(other.address, files[1])
        await until(lambda: len(other.records) == 2)
        assert other.records == one.records[1:]
        assert other.sessions[0].decoder.stats.sent_again == 2
        await all_is_acknowledged(node, other)
        await node.exporter.stop()
        node.balanced()


async def test_a_certificate_that_expires_keeps_records_until_there_is_another(
    tmp_path: Path,
) -> None:
    """A session stands over it; the next one wants a valid one, and has what was not durable."""
    certificate = Certificate(tmp_path)
    collector = Collector(certificate.server)
    await collector.come()
    node = Node(collector.address, tls=certificate.client)
    await node.exporter.start()
    node.end(*range(1, 6))
    await until(lambda: len(collector.records) == 5)
    certificate.issue(ago=timedelta(hours=2))
    node.end(6)
    await until(lambda: len(collector.records) == 6)
    collector.commit(2)
    await until(lambda: node.pending.unacknowledged == 4)
    await collector.crash()
    await collector.come()
    attempts = node.exporter.client.stats.attempts
    await until(lambda: node.exporter.client.stats.attempts >= attempts + 2)
    node.end(7)
    assert (len(collector.sessions), len(node.pending)) == (1, 5)
    certificate.issue()
    await until(lambda: len(collector.sessions) == 2)
    await all_is_acknowledged(node, collector)
    assert sorted(collector.stored) == [(number, 100) for number in range(1, 8)]
    assert node.pending.stage.dropped == {}
    await node.exporter.stop()
    await collector.go_away()
    node.balanced()


async def test_who_offers_nothing_gets_ipfix_and_not_a_byte_more(
    files: tuple[TlsFiles, TlsFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an exporter without acknowledgements sends it: templates, then records."""
    got = bytearray()

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.read())
        writer.close()

    context = files[0].server_context()
    context.set_alpn_protocols(["h2"])
    listener = await asyncio.start_server(read, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    node = Node(CollectorAddress("127.0.0.1", port), tls=files[1])
    batches: list[Batch] = []
    put = node.pending.put

    def noted(batch: Batch) -> None:
        batches.append(batch)
        put(batch)

    with monkeypatch.context() as patched:
        patched.setattr(node.pending, "put", noted)
        await node.exporter.start()
        await until(lambda: node.exporter.client.connected)
        node.end(*range(1, 6))
        await until(lambda: node.sent == 5)
        await node.exporter.stop()
    listener.close()
    await until(lambda: got)
    session = ExporterSession(7, EXPORTED)
    plain = session.templates(0)
    for batch in batches:
        plain += session.encode(batch, 0)
    assert without_times(bytes(got)) == b"".join(plain)


def without_times(stream: bytes) -> bytes:
    """IPFIX messages as if they had been exported in 1970."""
    messages = []
    while stream:
        version, length, _, sequence, domain = HEADER.unpack_from(stream)
        header = HEADER.pack(version, length, 0, sequence, domain)
        messages.append(header + stream[HEADER.size : length])
        stream = stream[length:]
    return b"".join(messages)
