"""The string table that the texts of flows are in, left for a fresh one when most of it is dead."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.native import StringTable
from flowvis.strings import Strings

COMPACT_BYTES = 32 << 20  # a smaller string table is not worth the pause of moving to another
LEFT_MS = 1000  # until nobody decodes into a table that was left behind
PAUSE_MS = 10_000  # between two moves that make room for texts that were refused


class Texts:
    """The current string table, and for a while the one before it."""

    def __init__(self, most_bytes: int, compact_bytes: int) -> None:
        """`most_bytes` bounds what both tables take; one of fewer than `compact_bytes` is kept."""
        self._most_bytes = most_bytes // 2
        self._compact_bytes = min(compact_bytes, self._most_bytes // 4)
        self.strings: Strings = StringTable(self._most_bytes)
        self._left: Strings | None = None
        self._moved_bytes = 0
        """What the current table took when it was new."""
        self._moved_at_ms = 0
        self._refused = self._shortened = 0

    @property
    def _tables(self) -> tuple[Strings, ...]:
        return (self.strings,) if self._left is None else (self.strings, self._left)

    @property
    def memory_bytes(self) -> int:
        """About what the tables take."""
        return sum(table.memory_bytes for table in self._tables)

    @property
    def refused(self) -> int:
        """How many texts became empty so far; sessions may still fill the table before."""
        return self._refused + sum(table.refused for table in self._tables)

    @property
    def shortened(self) -> int:
        """How many texts of ours were cut so far."""
        return self._shortened + sum(table.shortened for table in self._tables)

    def compact(self, at_ms: int, columns_of: Callable[[], Sequence[NDArray[np.uint32]]]) -> bool:
        """Move to a fresh table when most of what is in this one may be dead; return whether.

        Also when texts were refused: what is in their way may be dead. Alive is what the columns
        refer to, which are changed in place. `at_ms` is of a steady clock.
        """
        old = self.strings
        if self._left is not None and at_ms - self._moved_at_ms >= LEFT_MS:
            self._forget_left()
        paused = at_ms - self._moved_at_ms >= PAUSE_MS
        large = old.memory_bytes >= max(self._compact_bytes, 2 * self._moved_bytes)
        if not large and not (old.refused and paused):
            return False
        columns = columns_of()
        used = np.zeros(len(old), dtype=bool)
        for column in columns:
            used[column] = True
        codes = np.flatnonzero(used)
        fresh = StringTable(self._most_bytes)
        moved = np.zeros(len(old), dtype=np.uint32)
        moved[codes] = fresh.carry(old, codes)
        scratch = np.empty(max(map(len, columns)), dtype=np.uint32)
        # From here on no memory is asked for: there is nothing that could fail halfway.
        for column in columns:
            into = scratch[: len(column)]
            np.take(moved, column, out=into, mode="clip")
            column[:] = into
        self._forget_left()
        self._left, self.strings = old, fresh
        self._moved_bytes = fresh.memory_bytes
        self._moved_at_ms = at_ms
        return True

    def _forget_left(self) -> None:
        if self._left is not None:
            self._refused += self._left.refused
            self._shortened += self._left.shortened
            self._left = None
