"""Connects to the first of a host's addresses that answers (Happy Eyeballs, RFC 8305).

Addresses are tried in turn of their families, each a moment after the one before or as soon as that
has failed; the first that connects wins. A filtered family costs a moment and not a timeout.
"""

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.addresses import may_be_resolved
from flowvis.runtime.causes import cause_of

DELAY_S = 0.25  # RFC 8305 section 8: Connection Attempt Delay


@dataclass(frozen=True, slots=True)
class Place:
    """One address and port, as the socket module has them."""

    family: int
    where: tuple[Any, ...]

    def __str__(self) -> str:
        return str(self.where[0])


Attempted = Callable[[tuple[str, int], tuple[str, int], int], None]
"""Called for each attempt, before anything of it is on the wire's way back, with its local and
remote address and port, and the number of the protocol."""

_PROTOCOLS = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}


async def resolve(host: str, port: int) -> list[Place]:
    """Return where a name or address leads, in the order of RFC 6724; OSError if nowhere."""
    loop = asyncio.get_running_loop()
    if not may_be_resolved(host):
        raise socket.gaierror(socket.EAI_NONAME, "no name")
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Place(family, where) for family, _, _, _, where in found]


class Race:
    """Places to connect to, until one is good for what comes after connecting."""

    def __init__(
        self,
        places: Sequence[Place],
        longest_s: float,
        on_attempt: Attempted | None = None,
        kind: socket.SocketKind = socket.SOCK_STREAM,
    ) -> None:
        self.problems: list[str] = []
        """A text for each place that did not connect."""
        self._left = _in_turn(places)
        self._longest_s = longest_s
        self._on_attempt = on_attempt
        self._kind = kind

    async def winner(self) -> tuple[socket.socket, Place] | None:
        """Return the next place that connects, which then has had its turn; None if none does."""
        waiting, running = list(self._left), dict[asyncio.Task[socket.socket], Place]()
        try:
            while waiting or running:
                if waiting:
                    place = waiting.pop(0)
                    running[asyncio.create_task(self._connect(place))] = place
                done, _ = await asyncio.wait(
                    running,
                    timeout=DELAY_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    place = running.pop(task)
                    self._left.remove(place)
                    error = task.exception()
                    if error is None:
                        return await _alone(task.result(), running), place
                    self.problems.append(f"{place}: {self._cause(error)}")
            return None
        finally:
            await _abandon(running)

    async def _connect(self, place: Place) -> socket.socket:
        sock = socket.socket(place.family, self._kind)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(self._longest_s):
                await self._begin(sock, place)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _begin(self, sock: socket.socket, place: Place) -> None:
        """Connect, and report the attempt as soon as the kernel has given it a local port.

        Event loops may do other things first, and the kernel's events of it would come before.
        """
        problem = sock.connect_ex(place.where)
        if self._on_attempt is not None:
            protocol = _PROTOCOLS[self._kind]
            self._on_attempt(sock.getsockname()[:2], place.where[:2], protocol)
        if problem == errno.EINPROGRESS:
            await _writable(sock)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))

    def _cause(self, error: BaseException) -> str:
        if not isinstance(error, OSError):
            raise error
        return cause_of(error, self._longest_s)


async def _writable(sock: socket.socket) -> None:
    """Return when a socket that is connecting has succeeded or failed."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def _in_turn(places: Sequence[Place]) -> list[Place]:
    """Return the places, each once, with the families in turn, the first place's first."""
    families: dict[int, list[Place]] = {}
    for place in dict.fromkeys(places):
        families.setdefault(place.family, []).append(place)
    rounds = itertools.zip_longest(*families.values())
    return [place for each in rounds for place in each if place is not None]


async def _alone(
    winner: socket.socket, running: dict[asyncio.Task[socket.socket], Place]
) -> socket.socket:
    """Return a connected socket once nobody runs any more; closed where that is cut short."""
    try:
        await _abandon(running)
    except BaseException:
        winner.close()
        raise
    return winner


async def _abandon(running: dict[asyncio.Task[socket.socket], Place]) -> None:
    """End attempts, and close what connected meanwhile; whoever waits here can be cancelled."""
    for task in running:
        task.cancel()
        task.add_done_callback(_close)
    if running:
        await asyncio.wait(running)
    running.clear()


def _close(attempt: "asyncio.Task[socket.socket]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
