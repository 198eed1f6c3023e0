"""From a captured frame to what TCP and UDP carry: link, IP, fragments."""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from flowvis.captures.files import Packet

TCP, UDP = 6, 17
MOST_FRAGMENTED = 256  # datagrams whose other fragments are waited for
MOST_DATAGRAM = 65_535
WAITED_NS = 60 * 10**9  # for a datagram's other fragments: then its number is another one's

_RAW, _LOOP, _SLL2 = {12, 14, 101, 228, 229}, {0, 108}, 276
"""LINKTYPE_...: what a capture on an interface of these kinds has."""
_TAGGED = {1: 12, 113: 14}
"""Ethernet and SLL: where the EtherType is, or tags of VLANs before it."""
_KNOWN = {*_RAW, *_LOOP, _SLL2, *_TAGGED}
_IPV4, _IPV6, _VLANS = 0x0800, 0x86DD, {0x8100, 0x88A8, 0x9100}
_IPV4_HEADER = struct.Struct("!BxHHHxBxx4s4s").unpack_from
_IPV6_HEADER = struct.Struct("!4xHBx16s16s").unpack_from
_FRAGMENT, _EXTENSIONS = 44, {0, 43, 60, 135}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Who sends to whom."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int

    def __str__(self) -> str:
        source, destination = (f"[{a}]" if ":" in a else a for a in (self.source, self.destination))
        return f"{source}:{self.source_port} > {destination}:{self.destination_port}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A datagram of UDP, or a segment of TCP with its sequence number and flags."""

    time_ns: int
    endpoints: Endpoints
    data: bytes
    sequence: int = 0
    syn: bool = False


class Segments:
    """Finds segments in packets; IP fragments are put together."""

    def __init__(self) -> None:
        self._time_ns = 0
        self.truncated = 0
        """Packets that were not captured whole: of these the rest is missing."""
        self.unread: Counter[int] = Counter()
        """Packets of links of which we know no header, by their LINKTYPE_...."""
        self._fragments: OrderedDict[tuple[bytes, bytes, int, int], _Datagram] = OrderedDict()

    def of(self, packet: Packet) -> Iterator[Segment]:
        """Yield the segment of a packet, if it has one, or is the last fragment of one."""
        if packet.link not in _KNOWN:
            self.unread[packet.link] += 1
            return
        found = _network(packet)
        if found is None:
            return
        kind, data = found
        self._time_ns = packet.time_ns
        try:
            parts = self._ipv4(data) if kind == _IPV4 else self._ipv6(data)
            if parts is not None:
                yield from _segment(packet.time_ns, *parts)
        except (struct.error, IndexError):
            self.truncated += 1

    def _ipv4(self, data: bytes) -> tuple[int, bytes, bytes, bytes] | None:
        first, total, identification, flags, protocol, source, destination = _IPV4_HEADER(data)
        size = (first & 15) * 4
        if size < 20:  # it is damaged
            return None
        if not total:
            total = len(data)  # offload: the interface would have cut it
        payload = data[size:total]
        self.truncated += len(data) < total
        offset, more = (flags & 0x1FFF) * 8, bool(flags & 0x2000)
        if offset or more:
            key = (source, destination, protocol, identification)
            whole = self._fragment(key, offset, payload, more=more)
            if whole is None:
                return None
            payload = whole
        return protocol, source, destination, payload

    def _ipv6(self, data: bytes) -> tuple[int, bytes, bytes, bytes] | None:
        length, protocol, source, destination = _IPV6_HEADER(data)
        at = 40
        end = 40 + length if length else len(data)
        self.truncated += len(data) < end
        while protocol in _EXTENSIONS:
            protocol, at = data[at], at + 8 + data[at + 1] * 8
        payload = data[at:end]
        if protocol == _FRAGMENT:
            protocol, offset, identification = struct.unpack_from("!BxHI", payload)
            key = (source, destination, protocol, identification)
            whole = self._fragment(key, offset & ~7, payload[8:], more=bool(offset & 1))
            if whole is None:
                return None
            payload = whole
        return protocol, source, destination, payload

    def _fragment(
        self, key: tuple[bytes, bytes, int, int], offset: int, data: bytes, *, more: bool
    ) -> bytes | None:
        """Keep a fragment; return the whole when all are there."""
        datagram = self._fragments.get(key)
        if datagram is None or self._time_ns - datagram.began_ns > WAITED_NS:
            datagram = self._fragments[key] = _Datagram(self._time_ns)
        datagram.put(offset, data, more=more)
        if len(self._fragments) > MOST_FRAGMENTED:
            self._fragments.popitem(last=False)
        whole = datagram.whole()
        if whole is not None:
            del self._fragments[key]
        return whole


@dataclass(slots=True)
class _Datagram:
    """Fragments of a datagram, by their offsets."""

    began_ns: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)
    held: int = 0
    """Bytes of these; it is looked for the whole only when it may be there."""
    end: int | None = None

    def put(self, offset: int, data: bytes, *, more: bool) -> None:
        self.held += len(data) - len(self.pieces.get(offset, b""))
        self.pieces[offset] = data
        if not more:
            self.end = offset + len(data)

    def whole(self) -> bytes | None:
        """Return the datagram; None while some of it is missing."""
        if self.end is None or self.held < self.end:
            return None
        parts, at = [], 0
        while at < min(self.end, MOST_DATAGRAM) and (part := self.pieces.get(at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts) if at >= self.end else None


def _network(packet: Packet) -> tuple[int, bytes] | None:
    """Return the kind of network protocol (an EtherType) and its packet; None for others."""
    data, link = packet.data, packet.link
    if link in _TAGGED:
        at = _TAGGED[link]
        while int.from_bytes(data[at : at + 2]) in _VLANS:
            at += 4
        kind, at = int.from_bytes(data[at : at + 2]), at + 2
    elif link == _SLL2:
        kind, at = int.from_bytes(data[:2]), 20
    else:
        at = 4 if link in _LOOP else 0
        kind = {4: _IPV4, 6: _IPV6}.get(data[at] >> 4 if len(data) > at else 0, 0)
    return (kind, data[at:]) if kind in {_IPV4, _IPV6} else None


def _segment(
    time_ns: int, protocol: int, source: bytes, destination: bytes, payload: bytes
) -> Iterator[Segment]:
    if protocol not in {TCP, UDP}:
        return
    source_port, destination_port = struct.unpack_from("!HH", payload)
    ends = Endpoints(
        protocol,
        str(ip_address(source)),
        source_port,
        str(ip_address(destination)),
        destination_port,
    )
    if protocol == UDP:
        length = int.from_bytes(payload[4:6]) or len(payload)
        yield Segment(time_ns, ends, payload[8:length])
        return
    (sequence,) = struct.unpack_from("!I", payload, 4)
    size, flags = (payload[12] >> 4) * 4, payload[13]
    yield Segment(time_ns, ends, payload[size:], sequence, bool(flags & 2))
