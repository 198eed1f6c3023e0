"""Who reports: numbers for exporters, by which the table of flows tells them apart.

An observation domain's number is unique within its exporter only (RFC 7011 section 3.1), and two
hosts of one name have the same: an exporter is the address that it connects from, the name in its
certificate, and the domain. Its port is not part of it, so it stays the same over a lost session.
Of what an aggregator relays it is the one that the record came from (`original`).

A number is made of what the exporter is, so it is the same in the next process: the store has the
numbers of those who gave each side of a flow.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.counts import count, gauge
from flowvis.runtime.places import Places
from flowvis.transport.session import Peer

MAX_EXPORTERS = 1 << 16  # some 500 bytes each; a node is one, whatever it restarts

BASELINE_FOR_S = 300.0
"""How long after the begin of a session another aggregator may have written of what comes; and how
long after a silence an exporter may still tell of what passed before or during it."""

DOUBT = "doubt"
"""The column of a batch with bits of `Doubt`; there is none where no exporter keeps records."""

TOLD = "told"
"""The column beside it where any is behind: until when, in seconds, its exporter had told all that
it knew; 0 where that is not known."""


class Doubt:
    """Bits of a record: why the store may know more of its connection than we."""

    YOUNG = 1
    """Its session is young: another aggregator may have had the one before."""
    REPEATED = 2
    """It may have been received before."""
    BEHIND = 4
    """It comes late, or its exporter was silent: what the other node told of the same packets may
    be written and forgotten."""
    KEPT = 8
    """Its exporter keeps it until it is durable, so it may wait here."""


_LAST = (1 << 32) - 1


class _Numbers:
    """Numbers by exporter; without room the address with most of them loses its oldest."""

    def __init__(self, capacity: int) -> None:
        self._places: Places[tuple[Any, ...]] = Places(capacity)
        self._numbers: dict[tuple[Any, ...], int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def items(self) -> Iterable[tuple[tuple[Any, ...], int]]:
        """All that there are."""
        return self._numbers.items()

    def find(self, exporter: tuple[Any, ...], address: str) -> int | None:
        """Return an exporter's number, if it has one; it is the youngest of its address again."""
        number = self._numbers.get(exporter)
        if number is not None:
            self._places.discard(exporter)
            self._places.add(address, exporter)
        return number

    def make_room(self, address: str) -> int | None:
        """Return the number that is forgotten for one more of an address; None: there is room."""
        if not self._places.full:
            return None
        oldest = self._places.to_give_way(address)
        self._places.discard(oldest)
        return self._numbers.pop(oldest)

    def add(self, exporter: tuple[Any, ...], address: str, number: int) -> None:
        """Take one in."""
        self._places.add(address, exporter)
        self._numbers[exporter] = number


@dataclass(slots=True)
class Source:
    """What is known of the session that an exporter's records come in, the last of several."""

    address: str = ""
    """Where it comes from; "" where that is forgotten."""
    began_s: float = float("-inf")
    """When it began, by the monotonic clock."""
    keeps: bool = False
    """Whether it keeps records until it hears that they are durable."""
    may_repeat: bool = False
    """Whether the records that are handed on now may have been received before."""
    heard_s: float = float("-inf")
    """When the last records came, by the monotonic clock."""
    late_s: float = float("-inf")
    """When it last came back from a silence."""
    told_s: int = 0
    """When that silence began, by the wall clock; 0: before it was known here."""

    def hear(self, now_s: float, now_ms: int, late_ms: int) -> None:
        """Note that records have come."""
        silent_s = now_s - self.heard_s
        if 1000 * silent_s > late_ms:
            self.late_s = now_s
            self.told_s = 0 if silent_s == float("inf") else int(now_ms / 1000 - silent_s)
        self.heard_s = now_s

    def doubt(self, now_s: float) -> int:
        """Return what is doubtful about what comes now, of one that keeps it."""
        young = now_s - self.began_s < BASELINE_FOR_S
        behind = now_s - self.late_s < BASELINE_FOR_S
        doubts = Doubt.KEPT | Doubt.YOUNG * young | Doubt.BEHIND * behind
        return doubts | Doubt.REPEATED * self.may_repeat


UNKNOWN = Source()


@dataclass(slots=True)
class ExporterStats:
    """How many there are."""

    known: int = gauge("Exporters told apart: address, certificate and observation domain")
    forgotten: int = count("Exporters forgotten as there were too many: they are new ones later")


class Exporters:
    """Numbers of at most `capacity` exporters, none 0.

    Of those behind others there are as many more: who relays many costs nobody else a number. Of
    either the address with most gives way, with those that came first: who names many domains costs
    nobody at another address a number.
    """

    def __init__(self, capacity: int = MAX_EXPORTERS) -> None:
        self.stats = ExporterStats()
        self._own = _Numbers(capacity)
        self._relayed = _Numbers(capacity)
        self._sources: dict[int, Source] = {}

    def number(self, peer: Peer, domain: int) -> int:
        """Return the number of the exporter of an observation domain, new or known."""
        return self._number(self._own, (peer.address, peer.subject, domain))

    def begin(self, number: int, now_s: float) -> Source:
        """Note that a session of an exporter has begun; return what is known of it."""
        source = self._sources[number]
        source.began_s = now_s
        return source

    def source(self, number: int) -> Source:
        """Return what is known of an exporter's session; of one relayed, of who relays it."""
        return self._sources.get(number, UNKNOWN)

    def keeps(self, number: int) -> bool:
        """Whether an exporter sends again what it does not hear to be durable."""
        return self.source(number).keeps

    def doubts(
        self,
        numbers: NDArray[np.uint32],
        ends_ms: NDArray[np.uint64],
        *,
        now_s: float,
        now_ms: int,
        late_ms: int,
    ) -> dict[str, Column]:
        """Return DOUBT and TOLD of records that came now, by the numbers of their exporters.

        `ends_ms`: when their counters were read; `now_ms` is the same time as `now_s`, by the wall
        clock. Who tells nothing for `late_ms`, or what was read before that, is behind.
        """
        runs = np.flatnonzero(np.diff(numbers, prepend=~numbers[:1]))
        heads = numbers[runs].tolist()
        # What waits here for a store that is away would be lost by exporters that keep nothing.
        sources = {n: source for n in set(heads) if (source := self.source(n)).keeps}
        if not sources:
            return {}
        for source in sources.values():
            source.hear(now_s, now_ms, late_ms)
        found = {number: source.doubt(now_s) for number, source in sources.items()}
        lengths = np.diff(runs, append=len(numbers))
        bits = np.repeat(np.array([found.get(n, 0) for n in heads], dtype=np.uint8), lengths)
        late = ends_ms < np.uint64(max(now_ms - late_ms, 0))
        bits[late & (bits != 0)] |= Doubt.BEHIND
        told = {n: sources[n].told_s for n, doubt in found.items() if doubt & Doubt.BEHIND}
        if not any(told.values()):
            return {DOUBT: bits}
        of_heads = np.array([told.get(n, 0) for n in heads], dtype=np.uint32)
        return {DOUBT: bits, TOLD: np.repeat(of_heads, lengths)}

    def original(self, relay: int, address: bytes, domain: int) -> int:
        """Return the number of an exporter behind another one, whose number is `relay`."""
        return self._number(self._relayed, (relay, address, domain))

    def named(self, number: int) -> str:
        """Say who an exporter is, for people; a look through all of them."""
        for (address, subject, domain), known in self._own.items():
            if known == number:
                return f"{subject}@{address} domain {domain}"
        for (relay, _, domain), known in self._relayed.items():
            if known == number:
                return f"domain {domain} behind {self.named(relay)}"
        return f"exporter {number}"

    def address(self, number: int) -> str:
        """Return the address that an exporter's records come from; "" where it is forgotten."""
        return self.source(number).address

    def _number(self, numbers: _Numbers, exporter: tuple[Any, ...]) -> int:
        from_ = exporter[0]
        own = numbers is self._own
        address = from_ if own else self.address(from_)
        number = numbers.find(exporter, address)
        if number is not None:
            return number
        forgotten = numbers.make_room(address)
        if forgotten is not None:
            self._sources.pop(forgotten, None)
            self.stats.forgotten += 1
        number = self._free(exporter)
        numbers.add(exporter, address, number)
        self._sources[number] = Source(from_) if own else self.source(from_)
        self.stats.known = len(self._own) + len(self._relayed)
        return number

    def _free(self, exporter: tuple[Any, ...]) -> int:
        """The number that an exporter has in every process, as long as no other has it here."""
        digest = hashlib.blake2b(repr(exporter).encode(), digest_size=4).digest()
        number = int.from_bytes(digest, "little") or _LAST
        while number in self._sources:
            number = number % _LAST + 1
        return number
