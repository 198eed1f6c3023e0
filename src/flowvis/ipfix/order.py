"""Which records are missing where messages may overtake each other, come twice, or never (UDP).

A sequence number that is not the one due means nothing yet. What it leaves out is missing until it
comes late, and lost when it has not come for a while; only then is it counted. Pure: time is an
argument.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from flowvis.native.contract.ipfix import MAX_DOMAINS

LATE_S = 2.0  # networks reorder within milliseconds
MOST_MISSING = 64  # pieces of a domain that are waited for; at more the oldest are lost
LONG_S = 60.0  # without a number of the old sequence: another one is the exporter's by then
NEW_BEGINNING = 1 << 16  # records that no message is late by: an exporter has begun anew
MOST_LOST = 1 << 24  # records between two messages; at more they are of different sequences


@dataclass(slots=True)
class _Piece:
    """Sequence numbers that have not come: from `first` to before `end`."""

    first: int
    end: int
    since_s: float

    @property
    def size(self) -> int:
        return (self.end - self.first) & 0xFFFFFFFF

    def holds(self, number: int) -> bool:
        return (number - self.first) & 0xFFFFFFFF < self.size

    def without(self, first: int, end: int) -> "Iterator[_Piece]":
        """Yield what is left of it without these numbers."""
        begin, stop = max(_ahead(first, self.first), 0), min(_ahead(end, self.first), self.size)
        if begin >= stop:
            yield self
            return
        if begin > 0:
            yield _Piece(self.first, (self.first + begin) & 0xFFFFFFFF, self.since_s)
        if stop < self.size:
            yield _Piece((self.first + stop) & 0xFFFFFFFF, self.end, self.since_s)


@dataclass(slots=True)
class _Sequence:
    """What is known of one sequence."""

    start: int
    """Where what came last, without a gap so far, began."""
    highest: int
    """The number after the highest that came."""
    since_s: float
    missing: list[_Piece] = field(default_factory=list)
    lost: int = 0
    """Records that are lost, and that `settle` has not returned yet."""

    def came(self, end: int) -> int:
        """Note that all from `start` to before `end` came; return how many were missing."""
        before = sum(piece.size for piece in self.missing)
        self.missing = [left for piece in self.missing for left in piece.without(self.start, end)]
        if _ahead(end, self.highest) > 0:
            self.highest = end
        return before - sum(piece.size for piece in self.missing)

    def goes_on(self, number: int, now_s: float) -> bool:
        """Note where it goes on, if that is after its highest number or in what is missing."""
        self.start = number
        ahead = _ahead(number, self.highest)
        if 0 < ahead <= MOST_LOST:
            self.missing.append(_Piece(self.highest, number, now_s))
            self.give_up(self.missing[:-MOST_MISSING])
            self.highest = number
        return 0 <= ahead <= MOST_LOST or any(piece.holds(number) for piece in self.missing)

    def give_up(self, pieces: list[_Piece]) -> None:
        """Count pieces as lost."""
        self.lost += sum(piece.size for piece in pieces)
        self.missing = [piece for piece in self.missing if piece not in pieces]


@dataclass(slots=True)
class _Domain:
    """The sequence of an observation domain, and what may be a new one.

    Numbers that were there before are of messages that came twice, or of an exporter that has begun
    anew at the port that it had: then the old sequence does not go on.
    """

    sequence: _Sequence
    other: _Sequence | None = None

    def jump(self, due: int, number: int, now_s: float) -> int:
        """As `Reordering.jump`; return how many records came late."""
        late = self.sequence.came(due)
        if self.other is not None:
            self.other.came(due)
        if self.sequence.goes_on(number, now_s):
            self.other = None
        elif _apart(number, self.sequence.highest) > NEW_BEGINNING:
            self.begin_anew(_Sequence(number, number, now_s))
        elif self.other is None or not self.other.goes_on(number, now_s):
            self.other = _Sequence(number, number, now_s)
        elif now_s - self.other.since_s >= LATE_S:
            self.begin_anew(self.other)
        return late

    def begin_anew(self, other: _Sequence) -> None:
        """Go on with another sequence."""
        self.sequence.give_up(self.sequence.missing)
        other.lost += self.sequence.lost
        self.sequence, self.other = other, None

    def settle(self, now_s: float, patience_s: float) -> int:
        """Return how many records are lost."""
        if self.other is not None and now_s - self.other.since_s >= LONG_S:
            self.begin_anew(self.other)
        sequence = self.sequence
        old = [piece for piece in sequence.missing if now_s - piece.since_s >= patience_s]
        sequence.give_up([piece for piece in old if not piece.holds(sequence.start)])
        lost, sequence.lost = sequence.lost, 0
        return lost


class Reordering:
    """The sequences of one session, of the first `MAX_DOMAINS` observation domains with a gap."""

    def __init__(self) -> None:
        self.late = 0
        """Records that came after later ones."""
        self._domains: dict[int, _Domain] = {}
        self._waiting: set[int] = set()

    def __len__(self) -> int:
        """How many domains there are."""
        return len(self._domains)

    @property
    def waiting(self) -> bool:
        """Whether something is missing or lost, so that there is something to settle."""
        return bool(self._waiting)

    def jump(self, domain: int, due: int, number: int, now_s: float) -> None:
        """Note that a message has another sequence number than the one that was due."""
        known = self._domains.get(domain)
        if known is None:
            if len(self._domains) >= MAX_DOMAINS:
                return  # the decoder forgets domains, and a peer names as many as it likes
            known = self._domains[domain] = _Domain(_Sequence(due, due, now_s))
        self.late += known.jump(due, number, now_s)
        self._waiting.add(domain)

    def settle(self, now_s: float, patience_s: float = LATE_S) -> dict[int, int]:
        """Return how many records are lost, by domain, that were not returned before.

        How far what comes late reaches shows with the next message only: a piece in which it began
        is left until then.
        """
        lost: dict[int, int] = {}
        for domain in list(self._waiting):
            known = self._domains[domain]
            if count := known.settle(now_s, patience_s):
                lost[domain] = count
            if not known.sequence.missing and known.other is None:
                self._waiting.discard(domain)
        return lost


def _ahead(number: int, of: int) -> int:
    """How far a sequence number is ahead of another one, negative where it is behind."""
    return ((number - of + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def _apart(one: int, other: int) -> int:
    return abs(_ahead(one, other))
