"""Packets of capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng)."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from flowvis.errors import SettingsError

MOST_BYTES = 1 << 20  # of a packet or a block: captures of jumbo frames and offloads have 256 KiB
MOST_INTERFACES = 4096

_PCAP = {  # the first four bytes: byte order, nanoseconds of a unit of time
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 3, 6
_RESOLUTION, _OFFSET = 9, 14  # options of an interface: if_tsresol, if_tsoffset


class Bytes(Protocol):
    """What a file is read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What was captured at a moment; `data` is of the link that `link` numbers (LINKTYPE_...)."""

    time_ns: int
    link: int
    data: bytes


def read_packets(file: Bytes, name: str) -> Iterator[Packet]:
    """Yield a file's packets in its order; SettingsError where it is none, or is damaged.

    A file that ends within a packet, as of a capture that was killed, ends before it.
    """
    beginning = file.read(4)
    if beginning in _PCAP:
        yield from _pcap(file, name, *_PCAP[beginning])
    elif beginning == _PCAPNG:
        yield from _pcapng(file, name)
    else:
        raise SettingsError([f"{name}: is no packet capture: need pcap or pcapng, uncompressed"])


def _pcap(file: Bytes, name: str, order: str, unit_ns: int) -> Iterator[Packet]:
    head = file.read(20)
    if len(head) < 20:
        return
    link = struct.unpack(f"{order}I", head[16:])[0] & 0xFFFF
    record = struct.Struct(f"{order}IIII")
    while len(head := file.read(record.size)) == record.size:
        seconds, fraction, captured, _ = record.unpack(head)
        _check(captured, name)
        data = file.read(captured)
        if len(data) < captured:
            return
        yield Packet(seconds * 10**9 + fraction * unit_ns, link, data)


@dataclass(frozen=True, slots=True)
class _Interface:
    link: int
    nanoseconds: Callable[[int], int]


def _pcapng(file: Bytes, name: str) -> Iterator[Packet]:
    order = "<"
    interfaces: list[_Interface] = []
    last_ns = 0
    head = _PCAPNG + file.read(4)
    while len(head) == 8:
        if head[:4] == _PCAPNG:  # it reads alike in both orders, and says which one counts
            magic = file.read(4)
            order = ">" if magic == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces = []
            kind, size, had = _SECTION, struct.unpack(f"{order}I", head[4:])[0], 12
        else:
            (kind, size), had = struct.unpack(f"{order}II", head), 8
        if size < 12:
            raise SettingsError([f"{name}: is damaged: a block of {size} bytes"])
        _check(size, name)
        body = file.read(size - had)
        if len(body) < size - had:
            return
        body = body[:-4]  # the size again
        if kind == _INTERFACE:
            interfaces.append(_interface(body, order))
            _check(len(interfaces), name, MOST_INTERFACES, "interfaces")
        elif kind == _ENHANCED and len(body) >= 20:
            number, high, low, captured = struct.unpack_from(f"{order}IIII", body)
            if number < len(interfaces) and captured <= len(body) - 20:
                interface = interfaces[number]
                last_ns = interface.nanoseconds(high << 32 | low)
                yield Packet(last_ns, interface.link, body[20 : 20 + captured])
        elif kind == _SIMPLE and interfaces and len(body) >= 4:
            length = struct.unpack_from(f"{order}I", body)[0]
            yield Packet(last_ns, interfaces[0].link, body[4 : 4 + length])
        head = file.read(8)


def _interface(body: bytes, order: str) -> _Interface:
    link = struct.unpack_from(f"{order}H", body)[0] if len(body) >= 2 else 0
    resolution, offset_s, at = 6, 0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == _RESOLUTION and len(value) == 1:
            resolution = value[0]
        elif code == _OFFSET and len(value) == 8:
            offset_s = struct.unpack(f"{order}q", value)[0]
        at += 4 + length + -length % 4
    per_second = 1 << (resolution & 0x7F) if resolution & 0x80 else 10 ** (resolution & 0x7F)

    def nanoseconds(units: int) -> int:
        return offset_s * 10**9 + units * 10**9 // per_second

    return _Interface(link, nanoseconds)


def _check(size: int, name: str, most: int = MOST_BYTES, what: str = "bytes in one piece") -> None:
    if size > most:
        raise SettingsError([f"{name}: is damaged, or too large: {size} {what}; at most {most}"])
