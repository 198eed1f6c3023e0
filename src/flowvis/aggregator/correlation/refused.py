"""Connections that found no room, so that what else is told of them goes to no other connection.

Of a connection whose one half was refused the other may find room later. It would be taken for the
other half of whichever connection of the tuple is there. Bounded: when there are too many, all are
forgotten.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.native import FlowIndex
from flowvis.native.contract.halves import KEY_SIZE

MAX_KEYS = 1 << 14
OF_KEY = 8
"""How many refused connections of one tuple are known, the last ones."""


class Refused:
    """Starts of refused connections, and which of their endpoints told of them, by key."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._index = FlowIndex(KEY_SIZE, max_keys)
        self._starts = np.zeros((max_keys, OF_KEY), dtype=np.uint64)  # 0 where there is none
        self._sides = np.zeros((max_keys, OF_KEY), dtype=np.uint64)
        self._next = np.zeros(max_keys, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def note(
        self, keys: NDArray[np.uint8], starts: NDArray[np.uint64], sides: NDArray[np.uint8]
    ) -> None:
        """Note connections: key, start in ms, and which of the key's endpoints tell of it.

        The latter as bits of `Sides`.
        """
        slots = self._index.upsert(keys)[0]
        if (slots < 0).any():
            self._index.clear()
            self._starts[:] = 0
            most = slice(self._max_keys)
            keys, starts, sides = keys[most], starts[most], sides[most]
            slots = self._index.upsert(keys)[0]
        same = (self._starts[slots] == starts[:, None]) & (self._sides[slots] == sides[:, None])
        fresh = ~same.any(axis=1)
        if not fresh.any():
            return
        noted = np.stack([slots[fresh].astype(np.uint64), starts[fresh], sides[fresh]], axis=1)
        noted = np.unique(noted, axis=0)
        slots = noted[:, 0].astype(np.int64)
        firsts = np.flatnonzero(np.diff(slots, prepend=-1))
        counts = np.diff(firsts, append=len(slots))
        rank = np.arange(len(slots)) - np.repeat(firsts, counts)
        places = (self._next[slots] + rank) % OF_KEY
        self._starts[slots, places] = noted[:, 1]
        self._sides[slots, places] = noted[:, 2]
        self._next[slots[firsts]] += counts

    def known(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Of which keys any connection was refused."""
        return np.asarray(self._index.find(keys) >= 0)

    def of(self, key: NDArray[np.uint8]) -> list[tuple[int, int]]:
        """Return the refused connections of a key: start, and which endpoints tell of it."""
        if not len(self._index):
            return []
        slot = int(self._index.find(key.reshape(1, -1))[0])
        if slot < 0:
            return []
        pairs = zip(self._starts[slot].tolist(), self._sides[slot].tolist(), strict=True)
        return [(start, sides) for start, sides in pairs if start]
