"""What was reported of connections outside of the table: evicted, or our predecessor's.

The kernel goes on listing them, and clients that are denied go on trying. Without this memory the
next record would tell it all again, or of another connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import any_of, take
from flowvis.fields import EndReason
from flowvis.native import FlowIndex


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """Connections by key, and what was reported of them; columns of one length."""

    keys: NDArray[np.uint8]
    starts: NDArray[np.uint64]
    """The kernel's, in ns; 0 where it does not tell. Denied connections: in ms, of the first
    packet."""
    began: NDArray[np.uint64]
    """flowStartMilliseconds of the records."""
    ends: NDArray[np.uint64]
    """flowEndMilliseconds of the last record."""
    exported: NDArray[np.uint64]
    """The counters in the last record, `(n, counters)`."""
    reasons: NDArray[np.uint8]
    """flowEndReason of the last record; 0 where there is none."""
    completed: NDArray[np.bool_]
    """Whether records say what the default zone knew (see `default_zone`)."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """If they are over: of which of them nobody observed what they did last."""
        counted = any_of(self.exported != 0)  # else there is nothing to miss
        return np.asarray(counted & (self.reasons != EndReason.END))

    def take(self, which: NDArray[np.bool_]) -> "Reported":
        """Some of the connections."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Reported(*take(columns, which))

    def ended(self) -> "Reported":
        """The same connections, of which nothing is known any more: they are over."""
        return replace(self, reasons=np.zeros_like(self.reasons))


def joined(parts: Sequence[Reported]) -> Reported:
    """The rows of all parts, of which there is one at least."""
    if len(parts) == 1:
        return parts[0]
    return Reported(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Reported)
        )
    )


class Memory:
    """What was reported of up to `capacity` connections."""

    def __init__(self, key_size: int, capacity: int, counters: int) -> None:
        self._index = FlowIndex(key_size, capacity)
        rows = capacity + 1  # the last, at -1, says nothing: it is that of what is not known
        self._columns: dict[str, NDArray[Any]] = {
            "starts": np.zeros(rows, dtype=np.uint64),
            "began": np.zeros(rows, dtype=np.uint64),
            "ends": np.zeros(rows, dtype=np.uint64),
            "exported": np.zeros((rows, counters), dtype=np.uint64),
            "reasons": np.zeros(rows, dtype=np.uint8),
            "completed": np.zeros(rows, dtype=bool),
        }
        self._seen = np.zeros(rows, dtype=np.int64)  # the poll, from 1; 0 where free

    def __len__(self) -> int:
        return len(self._index)

    def remember(self, reported: Reported, poll: int) -> int:
        """Note what was reported of connections; return how many do not fit."""
        slots, _ = self._index.upsert(reported.keys)
        room = slots >= 0
        for name, column in self._columns.items():
            column[slots[room]] = getattr(reported, name)[room]
        self._seen[slots[room]] = poll
        return int(np.count_nonzero(~room))

    def recall(
        self,
        keys: NDArray[np.uint8],
        starts: NDArray[np.uint64],
        counters: NDArray[np.uint64],
        poll: int,
        *,
        anew: NDArray[np.bool_],
    ) -> Reported:
        """Return what was reported of each connection, all 0 of those that are not known.

        One with another start, or that has counted less than was reported, is another connection;
        so is one of those that are open, `anew` where the end of the one before was reported.
        """
        slots = self._index.find(keys)
        known = (slots >= 0) & (self._columns["starts"][slots] == starts)
        known &= ~any_of(counters < self._columns["exported"].take(slots, axis=0))
        known &= ~anew | (self._columns["reasons"][slots] != EndReason.END)
        self._seen[slots[known]] = poll
        return self._reported(keys, np.where(known, slots, -1))

    def precedes(
        self, keys: NDArray[np.uint8], starts: NDArray[np.uint64], poll: int
    ) -> NDArray[np.bool_]:
        """Which connections have the key of an earlier one, listed by that poll or later."""
        if not len(self._index):
            return np.zeros(len(keys), dtype=bool)
        slots = self._index.find(keys)
        before = self._columns["starts"][slots]
        earlier = (slots >= 0) & (before > 0) & (before < starts)
        return np.asarray(earlier & (self._seen[slots] >= poll))

    def look_up(self, keys: NDArray[np.uint8]) -> Reported:
        """Return what was reported of each by its key alone, all 0 of those not known."""
        return self._reported(keys, self._index.find(keys))

    def all(self) -> Reported:
        """Everything that is known."""
        slots = np.flatnonzero(self._seen)
        return self._reported(self._index.keys(slots), slots)

    def forget(self, keys: NDArray[np.uint8]) -> Reported:
        """Forget connections that are in the table again, or have ended; return what was known."""
        slots = self._index.find(keys)
        return self._remove(np.unique(slots[slots >= 0]))

    def forget_before(self, poll: int) -> Reported:
        """Forget connections that the kernel has not listed since a poll; return what was known."""
        if not len(self._index):  # as usual: it has three places for each connection
            return self._remove(np.empty(0, dtype=np.int64))
        return self._remove(np.flatnonzero((self._seen > 0) & (self._seen < poll)))

    def _remove(self, slots: NDArray[np.int64]) -> Reported:
        known = self._reported(self._index.keys(slots), slots)
        self._index.remove(slots)
        self._seen[slots] = 0
        return known

    def _reported(self, keys: NDArray[np.uint8], slots: NDArray[np.int64]) -> Reported:
        columns = take(self._columns.values(), slots)
        return Reported(keys, **dict(zip(self._columns, columns, strict=True)))
