"""Datagrams from a listening socket, many in one call of the kernel (recvmmsg).

The kernel says with them how many it had to drop before, as its buffer was full (SO_RXQ_OVFL).
"""

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from flowvis.runtime.listeners import Place, open_at

BATCH = 32  # datagrams in one call
LARGEST = 65_535  # bytes of one: the kernel writes what there is, and no page of the rest
SO_RCVBUFFORCE, SO_RXQ_OVFL = 33, 40  # asm-generic/socket.h

_LIBC = ctypes.CDLL(None, use_errno=True)
_EMPTY = {errno.EAGAIN, errno.EINTR}
_CMSG_HEAD = ctypes.sizeof(ctypes.c_size_t) + 8  # struct cmsghdr: length, level, type
_CONTROL = _CMSG_HEAD + 8  # and a 32-bit number, aligned
_NAMES = {socket.AF_INET: 16, socket.AF_INET6: 28}  # bytes of struct sockaddr_in and _in6


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))  # struct iovec


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came, and from where: a struct sockaddr, by whose bytes senders are told apart."""

    sender: bytes
    data: bytes


class _Room:
    """Where the kernel puts datagrams, their senders and what it says of them."""

    def __init__(self, family: int) -> None:
        self._name_bytes = _NAMES[socket.AddressFamily(family)]
        self._data = (ctypes.c_char * (BATCH * LARGEST))()
        self._view = memoryview(self._data).cast("B")
        self._names = (ctypes.c_char * (BATCH * self._name_bytes))()
        self._controls = (ctypes.c_char * (BATCH * _CONTROL))()
        self._vectors = (_Vector * BATCH)()
        self._messages = (_Message * BATCH)()
        for at in range(BATCH):
            self._vectors[at] = _Vector(ctypes.addressof(self._data) + at * LARGEST, LARGEST)
            self._messages[at].header = _Header(
                ctypes.addressof(self._names) + at * self._name_bytes,
                self._name_bytes,
                ctypes.pointer(self._vectors[at]),
                1,
                ctypes.addressof(self._controls) + at * _CONTROL,
                _CONTROL,
            )
        self._fresh = bytes(self._messages)  # the kernel writes lengths and flags into them

    def read(self, descriptor: int) -> list[Datagram]:
        """Return what has come, at most `BATCH`; nothing when there is nothing."""
        ctypes.memmove(self._messages, self._fresh, len(self._fresh))
        count = _LIBC.recvmmsg(descriptor, self._messages, BATCH, 0, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in _EMPTY:
                return []
            raise OSError(number, os.strerror(number))
        names, size = self._names.raw, self._name_bytes
        return [
            Datagram(
                names[at * size : (at + 1) * size],
                bytes(self._view[at * LARGEST : at * LARGEST + self._messages[at].length]),
            )
            for at in range(count)
        ]

    def dropped(self, at: int) -> int | None:
        """The kernel's count of dropped datagrams that came with one; None: it is not told."""
        if self._messages[at].header.control_length < _CMSG_HEAD + 4:
            return None
        (dropped,) = struct.unpack_from("=I", self._controls, at * _CONTROL + _CMSG_HEAD)
        return int(dropped)


class DatagramSocket:
    """A bound socket that reads without waiting."""

    def __init__(
        self,
        family: int,
        address: Place,
        buffer_bytes: int,
        room: _Room | None = None,
    ) -> None:
        """With the `room` of another socket it is bound beside that one, where both allow it."""
        self.dropped = 0
        """Datagrams that the kernel has dropped so far, as of the last one that was read."""
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._share(yes=room is not None)
            self.buffer_bytes = self._prepare(address, buffer_bytes)
        except OSError:
            self.sock.close()
            raise
        self._room = room or _Room(family)
        self._last_dropped = 0  # as the kernel counts, in 32 bits

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        return int(self.sock.getsockname()[1])

    @property
    def open(self) -> bool:
        """Whether it was not closed."""
        return self.sock.fileno() >= 0

    def beside(self, sender: bytes, buffer_bytes: int) -> "DatagramSocket":
        """Open a socket at the same port for what one sender sends; OSError if that cannot be.

        It has a queue of its own: the kernel gives a datagram to the socket that is connected with
        its sender before any other. What others send may get into it until then, so all that is
        read says whose it is. Nobody else can be bound to the port except in that moment.
        """
        self._share(yes=True)
        try:
            place = self.sock.getsockname()
            opened = DatagramSocket(self.sock.family, place, buffer_bytes, self._room)
        finally:
            self._share(yes=False)
        try:
            opened.sock.connect(_place(sender))
        except OSError:
            opened.close()
            raise
        return opened

    def read(self) -> list[Datagram]:
        """Return what has come, at most `BATCH`; nothing when there is nothing."""
        found = self._room.read(self.sock.fileno())
        if found and (dropped := self._room.dropped(len(found) - 1)) is not None:
            self.dropped += (dropped - self._last_dropped) & 0xFFFFFFFF
            self._last_dropped = dropped
        return found

    def _share(self, *, yes: bool) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, yes)

    def close(self) -> None:
        """Close it; what has come and was not read is gone."""
        self.sock.close()

    def _prepare(self, address: Place, buffer_bytes: int) -> int:
        """Bind; return how many bytes of datagrams and what they take the kernel holds."""
        sock = self.sock
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes // 2)
        except PermissionError:  # then as far as net.core.rmem_max goes
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes // 2)
        sock.bind(address)
        sock.setblocking(False)
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def sender_of(name: bytes) -> tuple[str, int]:
    """Return the address and port in a struct sockaddr; IPv4 as such, also where IPv6 takes it."""
    port = int.from_bytes(name[2:4])
    if len(name) == _NAMES[socket.AF_INET]:
        return str(ipaddress.IPv4Address(name[4:8])), port
    address = ipaddress.IPv6Address(name[8:24])
    scope = int.from_bytes(name[24:28], "little" if _LITTLE else "big")
    return str(address.ipv4_mapped or (f"{address}%{scope}" if scope else address)), port


def _place(name: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """What Python's sockets take for a struct sockaddr."""
    port = int.from_bytes(name[2:4])
    if len(name) == _NAMES[socket.AF_INET]:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    scope = int.from_bytes(name[24:28], "little" if _LITTLE else "big")
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, 0, scope


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def open_datagram_sockets(host: str, port: int, buffer_bytes: int) -> list[DatagramSocket]:
    """Open bound sockets; `::` takes both families where there is IPv6. SystemRefused if not."""
    return open_at(
        host,
        port,
        socket.SOCK_DGRAM,
        lambda family, place: DatagramSocket(family, place, buffer_bytes),
        lambda opened: opened.sock,
    )
