"""The addresses of this node's interfaces, as the kernel lists them (rtnetlink(7)).

The node's object in the API has one or two of them. A node has more: the gateway of its Pods, be it
the first address of their network or any other, tunnels' ends, a DNS cache's.
"""

import logging
import os
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.inventory.networks import NONE, Lookup, address_column

log = logging.getLogger(__name__)

MAX_ADDRESSES = 1 << 16  # kube-proxy in mode ipvs gives the node an address for each Service
READ_BYTES = 64 << 10
ANSWER_S = 5.0  # the kernel answers at once
AGAIN_S = 5.0  # after a list that failed, as a kernel is short of memory for a while only

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_MESSAGE = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NLMSG_ERROR, _NLMSG_DONE, _RTM_NEWADDR, _RTM_GETADDR = 2, 3, 20, 22
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR


class OwnAddresses:
    """Component: the addresses of our network namespace, while it runs; follows their changes."""

    name = "own-addresses"

    def __init__(self) -> None:
        self._news: socket.socket | None = None
        self._known = Lookup(address_column([]), [])
        self._again_s = float("inf")
        """When to ask again, by the monotonic clock."""

    async def start(self) -> None:
        """Ask for changes from now on, and for what there is."""
        try:
            self._news = _open(_GROUPS)
        except OSError as error:
            _warn(error)
        else:
            self._news.setblocking(False)
            self._read()

    async def stop(self) -> None:
        """Follow changes no more."""
        if self._news is not None:
            self._news.close()
            self._news = None

    def contain(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which rows of an `(n, 16)` address column are this node's; none where none is known."""
        if self._news is not None and (_has_news(self._news) or time.monotonic() >= self._again_s):
            self._read()
        return np.asarray(self._known.find(addresses) != NONE)

    def _read(self) -> None:
        try:
            found = list(dict.fromkeys(_listed()))[:MAX_ADDRESSES]
        except OSError as error:
            self._again_s = time.monotonic() + AGAIN_S
            _warn(error)
        else:
            self._again_s = float("inf")
            self._known = Lookup(address_column(found), range(len(found)))


def _warn(error: OSError) -> None:
    log.warning(
        "this node's own addresses cannot be listed: %s: its processes are recognised by the "
        "addresses in its Node object only",
        error.strerror or type(error).__name__,
    )


def _has_news(changes: socket.socket) -> bool:
    """Whether the kernel has reported changes since the last look."""
    reported = False
    try:
        while changes.recv(READ_BYTES):
            reported = True
    except BlockingIOError:
        return reported
    except OSError:  # ENOBUFS: there were more than it keeps for us
        return True
    return reported


def _open(groups: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


def _listed() -> Iterator[bytes]:
    """Go through all addresses of all interfaces, 16 bytes each, but for loopback's."""
    size = _HEADER.size + _MESSAGE.size
    request = _HEADER.pack(size, _RTM_GETADDR, _DUMP, 1, 0) + bytes(_MESSAGE.size)
    with _open() as asking:
        asking.settimeout(ANSWER_S)
        asking.send(request)
        while True:
            data = asking.recv(READ_BYTES)
            for kind, body in _messages(data):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, os.strerror(number))
                if kind == _RTM_NEWADDR and (address := _address(body)) is not None:
                    yield address


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _address(body: bytes) -> bytes | None:
    """Return the address that a message is about; None: of loopback, or of no IP."""
    family = body[0]
    found: dict[int, bytes] = {}
    at = _MESSAGE.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    # Of a point-to-point link IFA_ADDRESS is the peer's.
    address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    if family == socket.AF_INET and len(address) == 4:
        return None if address[0] == 127 else V4_MAPPED + address
    if family == socket.AF_INET6 and len(address) == 16:
        return None if address == bytes(15) + b"\1" else address
    return None
