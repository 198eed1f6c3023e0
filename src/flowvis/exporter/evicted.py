"""What was told of connections that the table had no room for any more.

The kernel goes on listing them. Without this memory their next record would tell it all again.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.native import FlowIndex


class Evicted:
    """Up to `capacity` connections by key, each with the counters in its last record."""

    def __init__(self, key_size: int, capacity: int, counters: int) -> None:
        self._index = FlowIndex(key_size, capacity)
        self._exported = np.zeros((capacity, counters), dtype=np.uint64)
        self._seen = np.zeros(capacity, dtype=np.int64)  # the poll, from 1; 0 where free

    def __len__(self) -> int:
        return len(self._index)

    def remember(self, keys: NDArray[np.uint8], exported: NDArray[np.uint64], poll: int) -> int:
        """Note what was told of connections that leave the table; return how many do not fit."""
        slots, _ = self._index.upsert(keys)
        room = slots >= 0
        self._exported[slots[room]] = exported[room]
        self._seen[slots[room]] = poll
        return int(np.count_nonzero(~room))

    def recall(
        self, keys: NDArray[np.uint8], poll: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """Return which connections are known here, and what was told of them (else 0)."""
        slots = self._index.find(keys)
        known = slots >= 0
        exported = np.zeros((len(keys), self._exported.shape[1]), dtype=np.uint64)
        exported[known] = self._exported[slots[known]]
        self._seen[slots[known]] = poll
        return known, exported

    def forget(self, keys: NDArray[np.uint8]) -> None:
        """Forget connections that are in the table again, or have ended."""
        slots = self._index.find(keys)
        self._remove(np.unique(slots[slots >= 0]))

    def forget_before(self, poll: int) -> None:
        """Forget connections that the kernel has not listed since a poll."""
        if len(self._index):
            self._remove(np.flatnonzero((self._seen > 0) & (self._seen < poll)))

    def _remove(self, slots: NDArray[np.int64]) -> None:
        self._index.remove(slots)
        self._seen[slots] = 0
