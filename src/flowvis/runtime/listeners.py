"""Listening sockets for both families, and room for the sessions that come through them."""

import logging
import os
import resource
import socket

from flowvis.errors import SystemRefused

log = logging.getLogger(__name__)

BACKLOG = 1024  # a whole cluster that reconnects at once; the kernel's somaxconn is below
SPARE_DESCRIPTORS = 256  # for all that is not a session


def listen(host: str, port: int) -> list[socket.socket]:
    """Open listening sockets; `::` takes both families where there is IPv6."""
    if host in {"", "::"} and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104  all of this machine's addresses, as `::` would
    try:
        found = socket.getaddrinfo(
            host or "::", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise SystemRefused(f"listen address {host!r}: {error.strerror}") from error
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in found:
            listeners.append(_listener(family, (address[0], port or _port_of(listeners))))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise SystemRefused(
            f"cannot listen on {host!r} port {port}: {os.strerror(error.errno or 0)}; "
            "is another collector there?"
        ) from error
    return listeners


def _port_of(listeners: list[socket.socket]) -> int:
    return int(listeners[0].getsockname()[1]) if listeners else 0


def _listener(family: int, address: tuple[str | int, int]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def raise_descriptor_limit(sessions: int) -> int:
    """Allow the process the descriptors that its sessions need, as far as the system lets it.

    Return for how many sessions there is room: the rest of the process needs some as well.
    """
    wanted = sessions + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return sessions
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    room = max(most - SPARE_DESCRIPTORS, 1)
    if most < wanted:
        log.warning("room for %d sessions only: raise the limit of open files", room)
    return min(room, sessions)
