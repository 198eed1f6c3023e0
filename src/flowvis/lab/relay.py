"""A TCP relay that does to connections what networks and middleboxes do: the lab's liar."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

CHUNK = 1 << 16
AHEAD = 64
"""Chunks on their way in one direction; what a path with a delay has in flight."""

REST_S = 0.05  # until a change of behaviour is noticed


@dataclass(frozen=True)
class Behaviour:
    """How a relay treats its connections from now on."""

    refuses: bool = False
    """Accepts and closes."""
    reads: bool = True
    """False: accepts, and never reads."""
    passes: bool = True
    """False: nothing moves, in either direction."""
    delay_s: float = 0.0
    """In each direction."""
    cut_after: int | None = None
    """Resets a connection when the client has sent so many bytes."""
    one_sided: bool = False
    """What is reset is the client's side only: what it had sent arrives later."""


PLAIN = Behaviour()


class _CutError(OSError):
    """The relay has reset a connection, and lets go of the other side of it."""


class Relay:
    """Relays connections from a listening socket to where `connect` leads."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        """`connect` returns a socket that is connected, or being connected, without blocking."""
        self.behaviour = PLAIN
        self.relayed = 0
        """Connections that reached the other end."""
        self._listener, self._connect = listener, connect
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._accepted, sock=self._listener)

    async def stop(self) -> None:
        """Accept none any more, and reset those that there are."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection, on the client's side at once."""
        for client in list(self._clients):
            _reset(client)

    async def _accepted(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a stream's callback is one
        self._running.add(task)
        self._clients.add(client)
        writers = [client]
        try:
            if not self.behaviour.refuses:
                await self._until(lambda: self.behaviour.reads)
                answers, server = await asyncio.open_connection(sock=await self._reached())
                writers.append(server)
                self.relayed += 1
                await self._both(reader, client, answers, server)
                for writer in writers:  # what is on its way arrives
                    writer.close()
                    await writer.wait_closed()
        except (OSError, asyncio.CancelledError):  # the relay stops
            pass
        finally:
            self._running.discard(task)
            self._clients.discard(client)
            for writer in writers:
                _reset(writer)

    async def _reached(self) -> socket.socket:
        """Return a connected socket to the other end."""
        made = self._connect()
        try:
            await self._until_writable(made)
        except BaseException:
            made.close()
            raise
        return made

    @staticmethod
    async def _until_writable(made: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(made, _done, ready)
        try:
            await ready
        finally:
            loop.remove_writer(made)
        if code := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, "the other end")

    async def _both(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        there = asyncio.create_task(self._way(reader, server, client))
        back = asyncio.create_task(self._way(answers, client))
        try:
            await there  # the client, or what is left of what it had sent, decides
            await back
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _way(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        """Pass on one direction until its end; `client` where it is the one that may be cut."""
        moving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD)
        deliver = asyncio.create_task(self._deliver(moving, sink))
        loop = asyncio.get_running_loop()
        sent = 0
        try:
            with contextlib.suppress(ConnectionError):  # as a client that closes
                while data := await source.read(CHUNK):
                    behaviour = self.behaviour
                    room = len(data)
                    if client is not None and behaviour.cut_after is not None:
                        room = max(0, min(room, behaviour.cut_after - sent))
                    sent += room
                    await moving.put((loop.time() + behaviour.delay_s, data[:room]))
                    if room < len(data) and client is not None:
                        _reset(client)
                        if not behaviour.one_sided:
                            raise _CutError
                        break
            await moving.put((loop.time() + self.behaviour.delay_s, b""))
            await deliver
        finally:
            deliver.cancel()

    async def _deliver(
        self, moving: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await moving.get()
            await asyncio.sleep(due - loop.time())
            await self._until(lambda: self.behaviour.passes)
            if not data:
                if sink.can_write_eof():
                    sink.write_eof()
                return
            sink.write(data)
            await sink.drain()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  behaviours change seldom, and from outside
            await asyncio.sleep(REST_S)


def _done(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a broken network does; what was not sent is gone."""
    made: socket.socket | None = writer.get_extra_info("socket")
    if made is not None and made.fileno() >= 0:
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
