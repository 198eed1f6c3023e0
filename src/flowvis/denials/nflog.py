"""Packets that the kernel logs (linux/netfilter/nfnetlink_log.h): netlink bytes to columns.

Does no I/O and has no clock. Messages are walked all at once, one attribute of each at a time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.counts import count
from flowvis.denials.attributes import attributes, gather, number
from flowvis.denials.calls import called_by
from flowvis.denials.headers import HEAD_BYTES, read_headers
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import MAX_PREFIX_BYTES, DenialVerdict, Prefixes
from flowvis.native import FlowIndex

MAX_PREFIXES = 8192
"""Distinct prefixes that are remembered with their verdicts; at more, all are read again. A rule
has one, and a node has some hundreds of rules that deny. More than one `decode` may bring."""

MAX_MESSAGES = 4096  # decoded at once; the rest of the bytes next
CLOCK_SKEW_MS = 60_000  # a time further off than that is not the wall clock's

PACKET = 4 << 8  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET

_TIMESTAMP, _PAYLOAD, _PREFIX, _SEQUENCE, _CONNECTION = 3, 9, 10, 12, 18
_WANTED = (_TIMESTAMP, _PAYLOAD, _PREFIX, _SEQUENCE, _CONNECTION)
_HEADER_BYTES = 16  # struct nlmsghdr
_ATTRIBUTES_AT = 20  # struct nlmsghdr and struct nfgenmsg

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class LogStats:
    """What one group of the kernel's packet log reported."""

    packets: int = count("Packets that the kernel logged, those that did not reach us included")
    lost: int = count("Packets that the kernel logged and could not deliver, as we were slow")
    malformed: int = count("Logged packets whose message or headers could not be read")
    overruns: int = count("Times that the kernel had no room for logged packets")


class LogDecoder:
    """The messages of one group, in their order."""

    def __init__(self, prefixes: Prefixes) -> None:
        self.stats = LogStats()
        self._prefixes = prefixes
        self._next = 0
        self._index = FlowIndex(MAX_PREFIX_BYTES, MAX_PREFIXES)
        self._verdicts: list[DenialVerdict | None] = []

    def judge_by(self, prefixes: Prefixes) -> None:
        """Tell by other prefixes what denied a packet."""
        self._prefixes = prefixes
        self._index.clear()
        self._verdicts = []

    def restart(self) -> None:
        """Begin anew: the kernel counts from 0 again."""
        self._next = 0

    def decode(self, data: bytes | memoryview, now_ms: int) -> Packets:
        """Decode whole messages; what is none, and what is beyond the last whole one, is left."""
        starts, ends = _messages(data)
        parts = [
            self._decode(data, starts[at : at + MAX_MESSAGES], ends[at : at + MAX_MESSAGES], now_ms)
            for at in range(0, max(len(starts), 1), MAX_MESSAGES)
        ]
        return parts[0] if len(parts) == 1 else joined(parts)

    def _decode(self, data: bytes | memoryview, starts: Ints, ends: Ints, now_ms: int) -> Packets:
        raw = np.frombuffer(data, dtype=np.uint8)
        at, size = attributes(raw, starts + _ATTRIBUTES_AT, ends, _WANTED)
        self._count(len(starts), number(raw, at[_SEQUENCE], size[_SEQUENCE], 4))
        sizes = np.minimum(size[_PAYLOAD], HEAD_BYTES)
        headers = read_headers(gather(raw, at[_PAYLOAD], sizes, HEAD_BYTES), sizes)
        seconds = number(raw, at[_TIMESTAMP], size[_TIMESTAMP], 8)
        micros = number(raw, at[_TIMESTAMP] + 8, size[_TIMESTAMP] - 8, 8)
        stamps = seconds * 1000 + micros // 1000
        near = (seconds > 0) & (abs(stamps - now_ms) <= CLOCK_SKEW_MS)
        called, called_port = called_by(raw, at[_CONNECTION], size[_CONNECTION], headers)
        packets = Packets(
            headers.source,
            headers.destination,
            headers.source_port,
            headers.destination_port,
            headers.protocol,
            np.ones(len(starts), dtype=np.uint64),
            headers.octets,
            called,
            called_port,
            np.where(near, stamps, now_ms).astype(np.uint64),
            headers.flow_id,
            self._judge(raw, at[_PREFIX], size[_PREFIX]),
            self._verdicts,
        )
        self.stats.malformed += int(np.count_nonzero(~headers.whole))
        return packets if headers.whole.all() else packets.take(headers.whole)

    def _count(self, messages: int, numbers: Ints) -> None:
        """Count what has come, and by its numbers what has not; -1 is no number."""
        self.stats.packets += messages
        numbers = numbers[numbers >= 0]
        if not len(numbers):
            return
        missing = np.diff(numbers, prepend=self._next - 1) - 1 & 0xFFFFFFFF
        lost = int(missing[missing < 1 << 31].sum())  # else the numbers began anew
        self.stats.lost += lost
        self.stats.packets += lost
        self._next = (int(numbers[-1]) + 1) & 0xFFFFFFFF

    def _judge(self, raw: Bytes, at: Ints, size: Ints) -> Ints:
        """Return the places of the messages' verdicts."""
        keys = gather(raw, at, np.minimum(size, MAX_PREFIX_BYTES), MAX_PREFIX_BYTES)
        slots, new = self._index.upsert(keys)
        if (slots < 0).any():
            self._index.clear()
            self._verdicts = []
            slots, new = self._index.upsert(keys)
        self._verdicts.extend(self._prefixes.verdict(key.tobytes()) for key in keys[new])
        return np.asarray(slots)


def joined(parts: list[Packets]) -> Packets:
    """Packets of several decodes in one."""
    verdicts: list[DenialVerdict | None] = []
    places = []
    for part in parts:
        places.append(part.verdict + len(verdicts))
        verdicts.extend(part.verdicts)
    names = Packets.__dataclass_fields__.keys() - {"verdict", "verdicts"}
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Packets(**columns, verdict=np.concatenate(places), verdicts=verdicts)


def _messages(data: bytes | memoryview) -> tuple[Ints, Ints]:
    """Return where the logged packets' messages start and end; those are within the data."""
    starts, lengths = [], []
    at, size = 0, len(data)
    # struct nlmsghdr: the length in 32 bits, the type in 16; messages begin at multiples of 4.
    words = memoryview(data)[: size & ~3].cast("I")
    halves = words.cast("B").cast("H")
    while at + _HEADER_BYTES <= size:
        length = words[at >> 2]
        if length < _HEADER_BYTES or at + length > size:
            break
        if halves[(at >> 1) + 2] == PACKET and length >= _ATTRIBUTES_AT:
            starts.append(at)
            lengths.append(length)
        at += (length + 3) & ~3
    begin = np.array(starts, dtype=np.int64)
    return begin, begin + np.array(lengths, dtype=np.int64)
