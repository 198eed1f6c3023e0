"""Listening sockets for both families, and room for the sessions that come through them."""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flowvis.errors import SystemRefused

log = logging.getLogger(__name__)

BACKLOG = 1024  # a whole cluster that reconnects at once; the kernel's somaxconn is below
SPARE_DESCRIPTORS = 768  # for what no setting tells the number of: probes, queues of UDP, files
ACCEPTS = 8  # per wake-up, half a millisecond: a storm of connects does not stop the records
ACCEPT_PAUSE_S = 1.0  # when the process is out of file descriptors

_MISSING = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_HINTS = {
    errno.EADDRINUSE: "; does another program listen there?",
    errno.EADDRNOTAVAIL: "; is it an address of this machine?",
    errno.EACCES: "; a port below 1024 needs CAP_NET_BIND_SERVICE",
}

Place = tuple[Any, ...]
"""What sockets are bound to: address and port, of IPv6 flow and scope as well."""

Opened = TypeVar("Opened")


class Acceptor:
    """Takes connections from listening sockets, a few in a turn of the loop."""

    def __init__(
        self,
        admit: Callable[[socket.socket, str, int], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """`admit` gets each connection with its peer's address and port ("" and 0: a UNIX socket).

        `failed` gets what the system says when there are no more descriptors; it goes on later.
        """
        self._admit, self._failed = admit, failed
        self._listeners: list[socket.socket] = []

    @property
    def port(self) -> int | None:
        """The port that it listens on, None while there is none."""
        return int(self._listeners[0].getsockname()[1]) if self._listeners else None

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to accept, in the running loop."""
        self._listeners = list(listeners)
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def close(self, *, take: bool = False) -> None:
        """Close the listeners; with `take`, those who wait are taken before."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for _ in range(BACKLOG // ACCEPTS if take else 0):
                self._accept(listener)
            loop.remove_reader(listener)
            listener.close()
        self._listeners = []

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listener, error)
                return
            sock.setblocking(False)
            host, port = address[:2] if isinstance(address, tuple) else ("", 0)
            self._admit(sock, host.removeprefix("::ffff:"), port)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Accept nothing for a while: without descriptors the listener would spin."""
        self._failed(error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(ACCEPT_PAUSE_S, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)


def listen(host: str, port: int) -> list[socket.socket]:
    """Open listening sockets; `::` takes both families where there is IPv6."""
    return open_at(host, port, socket.SOCK_STREAM, _listener, lambda opened: opened)


def open_at(
    host: str,
    port: int,
    kind: socket.SocketKind,
    open_one: Callable[[int, Place], Opened],
    socket_of: Callable[[Opened], socket.socket],
) -> list[Opened]:
    """Open what is bound to each address of a host, all at one port; SystemRefused if not.

    Of a name's addresses those that this machine does not have (::1 where IPv6 is off) are left
    out, if it has another one.
    """
    opened: list[Opened] = []
    missing: OSError | None = None
    try:
        for family, place in _places(host, kind):
            at = port or (socket_of(opened[0]).getsockname()[1] if opened else 0)
            try:
                opened.append(open_one(family, (place[0], at, *place[2:])))
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                missing = error
        if missing is not None and not opened:
            raise missing
    except OSError as error:
        for each in opened:
            socket_of(each).close()
        number = error.errno or 0
        why = os.strerror(number) + _HINTS.get(number, "")
        where = f"{host!r} port {port}{'/udp' * (kind is socket.SOCK_DGRAM)}"
        raise SystemRefused(f"cannot listen on {where}: {why}") from error
    return opened


def _places(host: str, kind: socket.SocketKind) -> list[tuple[int, Place]]:
    """Return the addresses of a host, each once, as sockets take them."""
    if host in {"", "*", "::"}:  # all of this machine's addresses
        host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104
    try:
        found = socket.getaddrinfo(host, 0, type=kind, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise SystemRefused(f"listen address {host!r}: {error.strerror}") from error
    except UnicodeError:
        raise SystemRefused(f"listen address {host!r}: no name or address") from None
    return list(dict.fromkeys((family, place) for family, _, _, _, place in found))


def _listener(family: int, place: Place) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place[0] != "::"))
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def raise_descriptor_limit(sessions: int, guests: int = 0) -> int:
    """Allow the process the descriptors that its sessions need, as far as the system lets it.

    `guests`: connections that others take in. Return for how many sessions there is room: the rest
    of the process needs some as well, and gets half of what there is where that is less.
    """
    spare = SPARE_DESCRIPTORS + guests
    wanted = sessions + spare
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sessions
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    room = max(most - spare, most // 2)
    if most < wanted:
        short = f"{room} sessions only" if room < sessions else "fewer connections than are allowed"
        log.warning("room for %s: raise the limit of open files to %d", short, wanted)
    return min(room, sessions)
