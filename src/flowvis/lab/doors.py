"""Doors of a lab to its machine: the API for a browser, the control socket for flowctl.

A socket belongs to the network that it was opened in, whoever accepts from it. So the command
opens both outside, and the lab, which inherits them, passes on what comes.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from flowvis.aggregator.api import control
from flowvis.errors import SystemRefused
from flowvis.lab.configuration import API_PORT

PIECE_BYTES = 1 << 16

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Stream]]


@dataclass(frozen=True)
class Doors:
    """File descriptors of listening sockets, and where they are; -1 where there is none."""

    api: int = -1
    api_port: int = 0
    control: int = -1
    refused: str = ""
    """Why there is no control socket."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the lab is to inherit."""
        return tuple(number for number in (self.api, self.control) if number >= 0)


@contextmanager
def opened(env: Mapping[str, str] = os.environ) -> Iterator[Doors]:
    """Open the doors; nothing of them is left at the end."""
    path = control.control_path(None, env)
    had_directory = path.parent.exists()
    with _api_listener() as api:
        port = api.getsockname()[1]
        try:
            listener = control.bind(path)
        except SystemRefused as error:
            yield Doors(api.fileno(), port, refused=str(error))
            return
        try:
            with listener:
                listener.listen()
                yield Doors(api.fileno(), port, listener.fileno())
        finally:
            path.unlink(missing_ok=True)
            if not had_directory:
                with suppress(OSError):  # not empty: somebody else uses it by now
                    path.parent.rmdir()


def _api_listener() -> socket.socket:
    for port in (API_PORT, 0):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise SystemRefused("no TCP port of 127.0.0.1 can be opened")


class Doorway:
    """One door from the inside: passes each connection on to what it leads to."""

    def __init__(self, descriptor: int, connect: Connect) -> None:
        self._listener = socket.socket(fileno=descriptor)
        self._connect = connect
        self._server: asyncio.Server | None = None
        # The loop knows a stream's reader weakly: of two that only wait for each other the
        # garbage collector would take all, when one side has sent its last.
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to accept."""
        start = (
            asyncio.start_unix_server
            if self._listener.family is socket.AF_UNIX
            else asyncio.start_server
        )
        self._server = await start(self._accept, sock=self._listener)

    async def close(self) -> None:
        """Accept no more, and cut off what still passes."""
        if self._server is not None:
            self._server.close()
        passing = list(self._passing)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await self._connect()
        except OSError:  # the aggregator is away
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, inner_writer))
                both.create_task(_copy(inner_reader, writer))
        except* OSError:
            pass
        finally:
            writer.close()
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end, which is passed on as well."""
    while data := await reader.read(PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
