"""Which of several one is, for many rows at once: lists of handles, walked along together."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column

END = -1

Walk = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Rows that have one more handle, and that handle of each."""


class Candidates:
    """Lists of handles; each is known by its first place until it is dropped."""

    def __init__(self) -> None:
        self._handles, self._next = np.zeros((2, 64), dtype=np.int64)
        self._free: list[int] = []
        self._used = 0

    def put(self, handles: Iterable[int]) -> int:
        """Keep a list; return its first place, END of an empty one."""
        first = END
        for handle in reversed(list(handles)):
            place = self._place()
            self._handles[place], self._next[place] = handle, first
            first = place
        return first

    def drop(self, first: int) -> None:
        """Forget a list."""
        while first != END:
            self._free.append(first)
            first = int(self._next[first])

    def of(self, first: int) -> list[int]:
        """Return a list."""
        handles = []
        while first != END:
            handles.append(int(self._handles[first]))
            first = int(self._next[first])
        return handles

    def walk(self, firsts: NDArray[np.int64]) -> Walk:
        """Go along the lists that rows have, by their first places."""
        rows = np.flatnonzero(firsts != END)
        places = firsts[rows]
        while len(rows):
            yield rows, self._handles[places]
            places = self._next[places]
            more = places != END
            rows, places = rows[more], places[more]

    def _place(self) -> int:
        if self._free:
            return self._free.pop()
        self._used += 1
        self._handles = grown(self._handles, self._used - 1, 0)
        self._next = grown(self._next, self._used - 1, END)
        return self._used - 1


def grown(column: Column, place: int, empty: int) -> Column:
    """Return a column that has a place, itself or a longer copy."""
    if place < len(column):
        return column
    more = np.full(2 * place, empty, dtype=column.dtype)
    more[: len(column)] = column
    return more
