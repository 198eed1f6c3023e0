"""The netlink sockets: pyroute2 opens them and writes requests; what they bring is left as bytes.

pyroute2's own decoder makes an object of every attribute, some fifty times the CPU that the kernel
needs to dump an entry.
"""

import errno
import os
import socket
import struct
from typing import Protocol

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_CTNETLINK
from pyroute2.netlink.nfnetlink.nfctsocket import (
    IPCTNL_MSG_CT_GET,
    AsyncNFCTSocket,
    nfct_msg,
)

from flowvis.errors import SystemRefused
from flowvis.runtime.netlink import read_waiting, set_receive_bytes

DUMP_BYTES = 64 << 10
"""One receive; the kernel fills at most 32 KiB of it, and only if it is offered that much."""

DUMP_TIMEOUT_S = 30
"""A dump is made while we receive it: such a pause means that its end was lost."""

EVENT_BYTES = 256 << 10
"""Events taken at once, about a thousand: the event loop has others to serve."""

EVENT_ROOM = 8 << 10
"""More than any event takes: one entry, its labels and a security context."""

_SO_MEMINFO = 55  # asm-generic/socket.h; Python has no name for it
_SK_MEMINFO_DROPS = 8  # linux/sock_diag.h: the place of sk_drops among u32


class Decoder(Protocol):
    """What takes the bytes: `flowvis.native.EntryDecoder`."""

    def feed(self, data: memoryview, sequence: int | None = None) -> int | None:
        """Decode whole messages; the errno of the end, or None while more is to come."""


class DumpSocket:
    """Asks for the table; one dump at a time."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(DUMP_BYTES))
        self._sequence = 0
        self._closed = False
        self._socket = _open_dump()

    def close(self) -> None:
        """Close the socket; a dump under way in another thread fails and opens no new one."""
        self._closed = True
        self._socket.close()

    def dump(self, decoder: Decoder, zone: int | None = None) -> None:
        """Feed all entries of both families; of one zone only, where the kernel heeds that."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        ended = None
        try:
            self._socket.send(_dump_request(self._sequence, zone))
            while ended is None:
                size = self._socket.recv_into(self._buffer)
                ended = decoder.feed(self._buffer[:size], self._sequence)
        except OSError as error:
            raise refused("connections cannot be read", error.errno or 0) from error
        finally:
            if ended is None:  # the rest of an unfinished dump would stand in the way of the next
                self._socket.close()
                if not self._closed:
                    self._socket = _open_dump()
        if ended:
            raise refused("connections cannot be read", ended)


class EventSocket:
    """Hears of connections that begin and end, as the kernel tells it."""

    def __init__(self, groups: tuple[int, ...], receive_bytes: int) -> None:
        self._buffer = memoryview(bytearray(EVENT_BYTES))
        self._drops = 0
        self._socket = _open(receive_bytes)
        set_receive_bytes(self._socket, receive_bytes)
        try:
            self._socket.bind((0, sum(1 << group - 1 for group in groups)))
        except OSError as error:
            self._socket.close()
            raise refused("events of connections cannot be observed", error.errno or 0) from error
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._socket.fileno()

    def dropped(self) -> int:
        """How many events the kernel could not queue since the last look; 0 before Linux 4.12."""
        try:
            reported = self._socket.getsockopt(
                socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_SK_MEMINFO_DROPS + 1)
            )
        except OSError:
            return 0
        drops: int = struct.unpack("@9I", reported)[_SK_MEMINFO_DROPS]
        before, self._drops = self._drops, drops
        return (drops - before) & 0xFFFFFFFF

    def read(self, decoder: Decoder) -> tuple[int, bool]:
        """Feed what has arrived, up to EVENT_BYTES.

        Returns how often the kernel had to drop events, and whether more may be there.
        """
        filled, overruns = read_waiting(self._socket, self._buffer, EVENT_ROOM)
        decoder.feed(self._buffer[:filled])
        return overruns, filled + EVENT_ROOM > len(self._buffer)


def refused(what: str, error: int) -> SystemRefused:
    """What the kernel's refusal means for who runs us."""
    remedy = {
        errno.EPERM: "run as root or with CAP_NET_ADMIN in the namespace's user namespace",
        errno.EPROTONOSUPPORT: "run `modprobe nf_conntrack_netlink`",
        errno.EOPNOTSUPP: "run `modprobe nf_conntrack_netlink`",
        errno.EINVAL: "run `modprobe nf_conntrack_netlink`",
    }.get(error, "the next attempt may do better")
    return SystemRefused(f"{what}: {os.strerror(error)}: {remedy}")


def _open(receive_bytes: int) -> socket.socket:
    try:
        opened: socket.socket = AsyncNFCTSocket(rcvbuf=receive_bytes).setup_socket()
    except OSError as error:
        raise refused("no netlink socket", error.errno or 0) from error
    return opened


def _open_dump() -> socket.socket:
    opened = _open(1 << 20)
    pause = struct.pack("@ll", DUMP_TIMEOUT_S, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
    return opened


def _dump_request(sequence: int, zone: int | None) -> bytes:
    message = nfct_msg.create_from(zone=zone)
    message["nfgen_family"] = socket.AF_UNSPEC
    message["header"] = {
        "type": NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET,
        "flags": NLM_F_REQUEST | NLM_F_DUMP,
        "sequence_number": sequence,
        "pid": 0,
    }
    message.encode()
    return bytes(message.data)
