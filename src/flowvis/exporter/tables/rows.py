"""The connections' columns by slot, and flow records made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column, any_of, move_codes, take, whole_rows
from flowvis.conntrack.entries import NO_TCP_STATE, Entries
from flowvis.conntrack.names import TCP_STATES
from flowvis.fields import BY_NAME, EXPORTED, Kind, Source, provides
from flowvis.native import StringTable
from flowvis.strings import Strings

TOTALS = {
    "packetTotalCount": "packets",
    "octetTotalCount": "octets",
    "reversePacketTotalCount": "reverse_packets",
    "reverseOctetTotalCount": "reverse_octets",
}
"""Fields of the counters, in the order of their columns here, and the entries' columns of them."""

KEPT = tuple(
    field.name for field in EXPORTED if field.source in {Source.TUPLES, Source.NODE, Source.TABLE}
)
"""Fields that a connection keeps as they go into its records."""

provides(Source.TABLE, {"flowEndMilliseconds"})
provides(Source.COUNTERS, {f.name for f in EXPORTED if f.name in TOTALS or f.counter in TOTALS})

_PLACE = {name: place for place, name in enumerate(TOTALS)}
_FRESH_STRINGS = 4096  # codes that a table may have before it is worth a look what is dead in it


def row_bytes(kept: Sequence[str]) -> int:
    """What a row of these fields takes, with its counters."""
    sizes = [np.dtype((BY_NAME[n].kind.dtype, BY_NAME[n].kind.shape)).itemsize for n in kept]
    return sum(sizes) + 2 * 8 * len(TOTALS) + 1


class Rows:
    """Columns of `capacity` rows; memory that no row has touched is not resident."""

    def __init__(self, capacity: int, kept: Sequence[str] = KEPT) -> None:
        self.kept: dict[str, Column] = {
            name: np.zeros((capacity, *BY_NAME[name].kind.shape), BY_NAME[name].kind.dtype)
            for name in kept
        }
        self.totals = np.zeros((capacity, len(TOTALS)), dtype=np.uint64)
        self.exported = np.zeros((capacity, len(TOTALS)), dtype=np.uint64)
        """The totals that went into the last record; below zero, modulo 2**64, after a restart of
        the kernel's counters, so that the difference to the totals stays what is to be reported."""
        self.tcp_state = np.full(capacity, NO_TCP_STATE, dtype=np.uint8)
        self._totals, self._exported = whole_rows(self.totals), whole_rows(self.exported)
        self._kept = {name: whole_rows(column) for name, column in self.kept.items()}
        self.strings: Strings = StringTable()
        self._compact_at = _FRESH_STRINGS

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Make rows empty."""
        for column in (*self._kept.values(), self._totals, self._exported):
            column[slots] = np.zeros(1, column.dtype)
        self.tcp_state[slots] = NO_TCP_STATE

    def write(self, slots: NDArray[np.int64], columns: Mapping[str, Column]) -> None:
        """Set fields of rows; text as codes of `strings`."""
        for name, column in columns.items():
            self._kept[name][slots] = whole_rows(column)

    def count(self, slots: NDArray[np.int64], counters: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Set the counters of rows as the kernel reported them; return which rows have grown.

        Where a counter is below the last one, all have begun anew, as a kernel zeroes them at once:
        what they had is not lost from the deltas. No counter at all is none that was reported: what
        is tracked has had a packet.
        """
        before = self.totals.take(slots, axis=0)
        reported = any_of(counters != 0)
        if not reported.all():
            counters = np.where(reported[:, None], counters, before)
        restarted = counters < before
        if restarted.any():
            exported = self.exported.take(slots, axis=0)
            anew = any_of(restarted)[:, None]
            self.exported[slots] = np.where(anew, exported - before, exported)
        self._totals[slots] = whole_rows(counters)
        return any_of(counters != before)

    def unreported(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows have counted something that is in no record yet."""
        return any_of(self.totals.take(slots, axis=0) != self.exported.take(slots, axis=0))

    def records(self, slots: NDArray[np.int64], reasons: Column) -> Batch:
        """Make a record of each row, and note that it was made."""
        totals = self.totals.take(slots, axis=0)
        deltas = totals - self.exported.take(slots, axis=0)
        self._exported[slots] = whole_rows(totals)
        columns = dict(zip(self.kept, take(self.kept.values(), slots), strict=True))
        for field in EXPORTED:
            if field.name in TOTALS:
                columns[field.name] = totals[:, _PLACE[field.name]]
            elif field.source is Source.COUNTERS:
                columns[field.name] = deltas[:, _PLACE[field.counter or ""]]
            elif field.name not in columns:  # the aggregator's to give, or to come below
                columns[field.name] = np.zeros((len(slots), *field.kind.shape), field.kind.dtype)
        states = self._state_codes()[self.tcp_state[slots]]
        made = _Made(columns, np.asarray(reasons, dtype=np.uint8), states)
        columns |= {name: make(made) for name, make in _MADE.items()}
        return Batch({field.name: columns[field.name] for field in EXPORTED}, self.strings)

    def compact(self, used: Callable[[], NDArray[np.int64]]) -> None:
        """Start a fresh string table, if the old one has much that no row in use refers to."""
        if len(self.strings) < self._compact_at:
            return
        slots, fresh = used(), StringTable()
        for name, column in self.kept.items():
            if BY_NAME[name].kind is Kind.TEXT:
                column[slots] = move_codes(column[slots], self.strings, fresh)
        self.strings = fresh
        self._compact_at = 2 * len(fresh) + _FRESH_STRINGS

    def _state_codes(self) -> NDArray[np.uint32]:
        """The codes of TCP states' names by number; what is no state has no name."""
        codes = np.zeros(NO_TCP_STATE + 1, dtype=np.uint32)
        codes[: len(TCP_STATES)] = self.strings.encode(TCP_STATES)
        return codes


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """What fields that are made with the record are made of."""

    columns: Mapping[str, Column]
    reasons: NDArray[np.uint8]
    tcp_states: NDArray[np.uint32]

    def seconds(self, moment: str) -> NDArray[np.uint32]:
        """A time in whole seconds."""
        return (self.columns[f"{moment}Milliseconds"] // 1000).astype(np.uint32)


_MADE: dict[str, Callable[[_Made], Column]] = {
    "flowStartSeconds": lambda made: made.seconds("flowStart"),
    "flowEndSeconds": lambda made: made.seconds("flowEnd"),
    "flowEndReason": lambda made: made.reasons,
    "destinationClusterIP": lambda made: made.columns["destinationServiceIP"],
    "tcpState": lambda made: made.tcp_states,
}
provides(Source.RECORD, _MADE)


def counters_of(entries: Entries) -> NDArray[np.uint64]:
    """The four counters of entries, `(n, 4)`."""
    return np.stack([getattr(entries, name) for name in TOTALS.values()], axis=1)
