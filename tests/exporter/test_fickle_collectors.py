"""Collectors that accept sessions and do not keep them: given nothing, and not stormed."""

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from exporter.collector import Collector
from exporter.test_export import Node
from waiting import until

Manner = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def after_a_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(16)  # and leaves the rest unread


async def after_the_templates(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(2):
        await message(reader)


async def at_the_first_record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while int.from_bytes((await message(reader))[16:18]) < 256:
        pass


async def by_a_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await after_the_templates(reader, writer)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(16)
    return header + await reader.readexactly(int.from_bytes(header[2:4]) - 16)


@contextlib.asynccontextmanager
async def fickle(port: int, manner: Manner) -> AsyncIterator[list[float]]:
    """Listen, end each session in that manner; when sessions began."""
    began: list[float] = []

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.append(asyncio.get_running_loop().time())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await manner(reader, writer)
        writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", port)
    try:
        yield began
    finally:
        server.close()


@pytest.fixture(autouse=True)
def patient_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for a busy machine to close, or to stop, within it."""
    monkeypatch.setattr("flowvis.transport.client.PROOF_S", 1.0)


@pytest.mark.parametrize(
    "manner", [at_once, after_a_header, after_the_templates, at_the_first_record, by_a_reset]
)
async def test_nothing_is_sent_to_a_collector_that_accepts_and_closes(
    manner: Manner, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    node = Node(collector.address)
    async with fickle(collector.port, manner) as began:
        await node.exporter.start()
        node.end(*range(1, 8))  # of both families
        await until(lambda: len(began) == 3)
        pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
        assert pauses[0] > 0.2
        assert pauses[1] > 0.4  # half of twice the first wait, at least
        assert (node.sent, len(node.pending)) == (0, 7)
        node.balanced()
    assert [record for record in caplog.records if "the session lasted" in record.message]
    async with collector:
        await until(lambda: node.sent == 7)
        await node.exporter.stop()
    assert sorted(row["sourceTransportPort"] for row in collector.rows) == list(range(1, 8))
    node.balanced()


async def test_a_collector_that_stops_while_a_session_is_new_has_read_all() -> None:
    """It half-closes and reads on: what it read is not sent again."""
    collector = Collector()
    await collector.come()
    node = Node(collector.address)
    await node.exporter.start()

    async def rows(count: int) -> None:
        await until(lambda: len(collector.rows) == count)

    for number in range(1, 5):
        node.end(number)
        await rows(number)
        await collector.go_away()  # within the time that records are on trial
        await collector.come()
    await node.exporter.stop()
    await collector.go_away()
    assert [row["sourceTransportPort"] for row in collector.rows] == [1, 2, 3, 4]
    assert collector.gaps == 0
    assert node.sent == 4
    node.balanced()
