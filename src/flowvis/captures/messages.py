"""The IPFIX messages in a capture, session by session, in the order in which they were complete.

Over UDP a message is in its datagram; over TCP segments are put in their order first. What is no
IPFIX is left out, and counted by what it looks like. So are copies of a datagram: a capture on all
interfaces has one of each that it went through.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from flowvis.captures.files import Packet
from flowvis.captures.packets import UDP, Endpoints, Segment, Segments
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, SET, VERSION

MOST_MESSAGE = 65_535
MOST_STREAMS = 65_536
MOST_HELD = 256 << 20  # bytes of all streams: more, and the one that is silent longest is over
MOST_AHEAD = 4 << 20  # bytes of a stream that are kept while some before them are missing

COPY_NS = 10**9  # within which the same datagram is a copy; its time is in each message, in seconds
MOST_LATELY = 1 << 16  # datagrams of that time that are known

_BEGINNING = HEADER.size + SET.size  # bytes that tell whether a message begins
_EMPTY = struct.pack("!HH", VERSION, HEADER.size)  # a message without sets

TLS, GAPS, NETFLOW, COPIES = "tls", "gaps", "netflow", "copies"
"""Why something was left out."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One message, when it was complete, and of whose session it is."""

    time_ns: int
    endpoints: Endpoints
    data: bytes


class Messages:
    """Finds messages. `left_out` has what was not, by why: datagrams, or streams."""

    def __init__(self, port: int | None = None) -> None:
        """Look at what goes to this port only; by default at all."""
        self.left_out: Counter[str] = Counter()
        self._port = port
        self._segments = Segments()
        self._streams: OrderedDict[Endpoints, _Stream] = OrderedDict()
        """The one that is silent longest first."""
        self._held = 0
        self._lately: OrderedDict[int, int] = OrderedDict()
        """By hashes of datagrams, the oldest first: when they were captured."""

    @property
    def truncated(self) -> int:
        """Packets that were not captured whole."""
        return self._segments.truncated

    @property
    def unread(self) -> Counter[int]:
        """Packets of links that cannot be read, by their LINKTYPE_...."""
        return self._segments.unread

    def of(self, packets: Iterable[Packet]) -> Iterator[Captured]:
        """Yield the messages of packets."""
        time_ns = 0
        for packet in packets:
            time_ns = packet.time_ns
            for segment in self._segments.of(packet):
                if self._port in {None, segment.endpoints.destination_port}:
                    yield from self._of(segment)
        while self._streams:
            yield from self._end(next(iter(self._streams)), time_ns)

    def _of(self, segment: Segment) -> Iterator[Captured]:
        if segment.endpoints.protocol == UDP:
            found = whole(segment.data)
            if found is not None and self._is_copy(segment):
                self.left_out[COPIES] += 1
            elif found is not None:
                yield Captured(segment.time_ns, segment.endpoints, found)
            elif segment.data[:2] in {b"\0\x05", b"\0\x09"} and len(segment.data) >= 20:
                self.left_out[NETFLOW] += 1
            return
        stream = self._streams.get(segment.endpoints)
        if stream is not None and segment.syn and stream.started:
            yield from self._end(segment.endpoints, segment.time_ns)
            stream = None
        if stream is None:
            stream = self._streams[segment.endpoints] = _Stream()
        self._streams.move_to_end(segment.endpoints)
        before, held = stream.encrypted, stream.held
        for message in stream.take(segment):
            yield Captured(segment.time_ns, segment.endpoints, message)
        self._held += stream.held - held
        self._leave_out(TLS, stream.encrypted and not before)
        while len(self._streams) > MOST_STREAMS or self._held > MOST_HELD:
            yield from self._end(next(iter(self._streams)), segment.time_ns)

    def _is_copy(self, segment: Segment) -> bool:
        """Whether the same was captured a moment ago, between the same ends."""
        key = hash((segment.endpoints, segment.data))
        before_ns = self._lately.get(key)
        if before_ns is not None and abs(segment.time_ns - before_ns) < COPY_NS:
            return True
        self._lately[key] = segment.time_ns
        self._lately.move_to_end(key)
        if len(self._lately) > MOST_LATELY:
            self._lately.popitem(last=False)
        return False

    def _end(self, endpoints: Endpoints, time_ns: int) -> Iterator[Captured]:
        """Yield what a stream still has; what it lacks does not come any more."""
        stream = self._streams.pop(endpoints)
        self._held -= stream.held
        for message in stream.rest():
            yield Captured(time_ns, endpoints, message)
        self._leave_out(GAPS, stream.broken)

    def _leave_out(self, why: str, really: bool) -> None:
        if really:
            self.left_out[why] += 1


def whole(data: bytes) -> bytes | None:
    """Return what is one message or several, None if it is not."""
    at = 0
    while len(data) - at >= HEADER.size:
        version, length = struct.unpack_from("!HH", data, at)
        if version != VERSION or not HEADER.size <= length <= len(data) - at:
            return None
        at += length
    return data if at == len(data) > 0 else None


@dataclass(slots=True)
class _Stream:
    """One direction of a TCP connection."""

    next: int | None = None
    """The place of the first byte that has not come; None: none came. Of places the last 32 bits
    are sequence numbers; they do not wrap."""
    started: bool = False
    encrypted: bool = False
    broken: bool = False
    """Whether messages are missing: their bytes were not captured."""
    other: bool = False
    """Whether it is no IPFIX."""
    buffer: bytearray = field(default_factory=bytearray)
    looked: int = 1
    """Where in the buffer the next message may begin, if none does at its front."""
    ahead: dict[int, bytes] = field(default_factory=dict)
    """Pieces by their places."""
    order: list[int] = field(default_factory=list)
    """A heap of these places."""
    waiting: int = 0
    """Bytes in `ahead`."""

    @property
    def held(self) -> int:
        """Bytes that are no messages yet."""
        return len(self.buffer) + self.waiting

    def take(self, segment: Segment) -> Iterator[bytes]:
        """Take a segment in; yield the messages that are whole then."""
        sequence = (segment.sequence + segment.syn) & 0xFFFFFFFF
        if self.next is None or (segment.syn and not self.started):
            self.next = sequence  # a connection that came to nothing may have been there before
        if not segment.data or self.encrypted or self.other:
            return
        self.started = True
        self._put(self.next + _ahead(sequence, self.next), segment.data)
        if self.waiting > MOST_AHEAD:
            self._skip()
        yield from self._messages()

    def rest(self) -> Iterator[bytes]:
        """Yield what comes after bytes that never came."""
        while self.ahead:
            self._skip()
            yield from self._messages()
        self.broken |= _begins(self.buffer)

    def _put(self, at: int, data: bytes) -> None:
        """Put bytes where they belong; what came before is left out."""
        if at > self._place:
            known = len(self.ahead.get(at, b""))
            if not known:
                heappush(self.order, at)
            if known < len(data):
                self.ahead[at] = data
                self.waiting += len(data) - known
            return
        self._append(at, data)
        while self.order and self.order[0] <= self._place:
            self._append(*self._first())

    @property
    def _place(self) -> int:
        return self.next or 0

    def _first(self) -> tuple[int, bytes]:
        """Take the first piece of those that are ahead."""
        at = heappop(self.order)
        data = self.ahead.pop(at)
        self.waiting -= len(data)
        return at, data

    def _append(self, at: int, data: bytes) -> None:
        fresh = data[self._place - at :]
        self.buffer += fresh
        self.next = self._place + len(fresh)

    def _skip(self) -> None:
        """Go on after bytes that do not come any more, at the next message that begins a piece."""
        self.broken = True
        self.looked = 1
        self.buffer.clear()
        self.next, data = self._first()
        self._put(self.next, data)

    def _messages(self) -> Iterator[bytes]:
        buffer = self.buffer
        while len(buffer) >= _BEGINNING:
            if buffer[:4] == _EMPTY:
                del buffer[: HEADER.size]
                continue
            if not _begins(buffer):
                if self._resume():
                    continue
                return
            length = int.from_bytes(buffer[2:4])
            if len(buffer) < length:
                return
            yield bytes(buffer[:length])
            del buffer[:length]

    def _resume(self) -> bool:
        """Look for the next message where none begins; whether there may be one."""
        if not self.broken and bytes(self.buffer[:2]) == b"\x16\x03":  # a handshake of TLS
            self.encrypted = True
        else:
            end = len(self.buffer) - _BEGINNING + 1
            at = next((at for at in range(self.looked, end) if _begins(self.buffer, at)), 0)
            self.looked = 1 if at else max(end, 1)
            if at:  # it was under way when the capture began
                self.broken = True
                del self.buffer[:at]
                return True
            if len(self.buffer) < 2 * MOST_MESSAGE:
                return False
            self.other = True
        self.buffer.clear()
        self.ahead.clear()
        self.order.clear()
        self.waiting = 0
        return False


def _begins(data: bytearray, at: int = 0) -> bool:
    """Whether a message may begin here: a header, and a set that fits into the message."""
    if len(data) - at < _BEGINNING:
        return False
    version, length = struct.unpack_from("!HH", data, at)
    kind, size = SET.unpack_from(data, at + HEADER.size)
    if version != VERSION or length < _BEGINNING:
        return False
    fits = SET.size <= size <= length - HEADER.size
    return bool(fits and (kind in {2, 3} or kind >= FIRST_DATA_SET))


def _ahead(number: int, of: int) -> int:
    return ((number - of + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
