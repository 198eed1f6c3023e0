"""The relay does to real connections what it is asked to."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from flowvis.lab.relay import PLAIN, Behaviour, Relay
from waiting import until

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

MUCH = bytes(range(256)) * 4_000


@dataclass
class Far:
    """A server that answers each byte with two, and what it got on each connection."""

    port: int
    got: list[bytearray] = field(default_factory=list)
    ended: int = 0


@asynccontextmanager
async def far_end() -> AsyncIterator[Far]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = bytearray()
        far.got.append(got)
        try:
            while data := await reader.read(1 << 16):
                got += data
                writer.write(data * 2)
        except ConnectionError:
            pass
        far.ended += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    far = Far(server.sockets[0].getsockname()[1])
    async with server:
        yield far


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, Far, Connect]]:
    async with far_end() as far:

        def connecting() -> socket.socket:
            made = socket.socket()
            made.setblocking(False)
            made.connect_ex(("127.0.0.1", far.port))
            return made

        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        relay = Relay(listener, connecting)
        await relay.start()
        try:
            yield relay, far, lambda: asyncio.open_connection("127.0.0.1", port)
        finally:
            await relay.stop()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, in whatever way."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            got += data
    return got


async def test_what_is_passed_on_is_whole_in_both_directions() -> None:
    async with relayed() as (_, far, connect):
        reader, writer = await connect()
        writer.write(MUCH)
        writer.write_eof()
        assert len(await reader.read()) == 2 * len(MUCH)
        assert far.got == [MUCH]
        writer.close()


async def test_it_refuses_and_then_does_not() -> None:
    async with relayed() as (relay, far, connect):
        relay.behaviour = Behaviour(refuses=True)
        reader, writer = await connect()
        assert not await rest(reader)
        writer.close()
        assert not far.got
        relay.behaviour = PLAIN
        reader, writer = await connect()
        writer.write(b"on")
        assert await reader.readexactly(4) == b"onon"
        writer.close()


async def test_one_that_does_not_read_takes_no_more_than_buffers_hold() -> None:
    async with relayed() as (relay, far, connect):
        relay.behaviour = Behaviour(reads=False)
        reader, writer = await connect()
        writer.write(MUCH)
        await asyncio.sleep(0)
        assert not far.got
        relay.behaviour = PLAIN
        assert len(await reader.readexactly(2 * len(MUCH))) == 2 * len(MUCH)
        writer.close()


@pytest.mark.parametrize("cut_after", [0, 1, 70_000])
async def test_a_connection_is_reset_in_the_middle(cut_after: int) -> None:
    async with relayed() as (relay, far, connect):
        relay.behaviour = Behaviour(cut_after=cut_after)
        reader, writer = await connect()
        writer.write(MUCH)
        assert len(await rest(reader)) <= 2 * cut_after
        await until(lambda: far.ended)
        assert len(far.got[0]) <= cut_after
        writer.close()


async def test_what_a_reset_connection_had_sent_arrives_after_the_next_began() -> None:
    async with relayed() as (relay, far, connect):
        relay.behaviour = Behaviour(delay_s=5.0)
        _, first = await connect()
        first.write(b"late")
        await until(lambda: len(far.got) == 1)
        for _ in range(10):  # the loop looks as often: it is read, and not yet passed on
            await asyncio.sleep(0.05)
        relay.cut()
        relay.behaviour = PLAIN
        reader, second = await connect()
        second.write(b"early")
        assert await reader.readexactly(10) == b"earlyearly"
        assert far.got == [b"", b"early"]
        await until(lambda: far.got == [b"late", b"early"], "what was on its way")
        await until(lambda: far.ended == 1)
        second.close()


async def test_what_stands_still_goes_on() -> None:
    async with relayed() as (relay, far, connect):
        reader, writer = await connect()
        writer.write(b"a")
        assert await reader.readexactly(2) == b"aa"
        relay.behaviour = Behaviour(passes=False)
        writer.write(b"b")
        await asyncio.sleep(0.1)
        assert far.got == [b"a"]
        relay.behaviour = PLAIN
        assert await reader.readexactly(2) == b"bb"
        writer.close()
