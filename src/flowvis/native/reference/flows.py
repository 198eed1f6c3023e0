"""The flow leaf in plain Python: the index of keys."""

from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.flows import (
    check_columns,
    check_index,
    check_keys,
    width,
)


class FlowIndex:
    """Fixed-size byte keys -> slot numbers; the lowest free slot is always handed out first.

    `capacity` is how many keys may live at once. Keys are rows of `(n, key_size)` uint8 arrays.
    """

    def __init__(self, key_size: int, capacity: int) -> None:
        check_index(key_size, capacity)
        self._key_size = key_size
        self._capacity = capacity
        self.clear()

    def __len__(self) -> int:
        return len(self._slots)

    def upsert(self, keys: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Find or add each key; return its slot (-1 where full) and whether it is new."""
        slots = np.empty(len(keys), dtype=np.int64)
        new = np.zeros(len(keys), dtype=bool)
        for row, key in enumerate(self._rows(keys)):
            slot = self._slots.get(key)
            if slot is None:
                slot = self._add(key)
                new[row] = slot >= 0
            slots[row] = slot
        return slots, new

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the slot of each key, -1 where absent."""
        return np.array([self._slots.get(key, -1) for key in self._rows(keys)], dtype=np.int64)

    def remove(self, slots: NDArray[Any]) -> None:
        """Free slots; ValueError at the first that holds no key (those before it are freed)."""
        for slot in slots.tolist():
            key = self._keys.pop(slot, None)
            if key is None:
                raise ValueError(f"slot {slot} holds no key")
            del self._slots[key]
            heappush(self._free, slot)

    def keys(self, slots: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the keys of slots; ValueError at the first that holds none."""
        rows = []
        for slot in slots.tolist():
            if slot not in self._keys:
                raise ValueError(f"slot {slot} holds no key")
            rows.append(self._keys[slot])
        return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), self._key_size)

    def clear(self) -> None:
        """Forget all keys."""
        self._slots: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._free: list[int] = []
        self._next = 0

    def _add(self, key: bytes) -> int:
        if self._free:
            slot = heappop(self._free)
        elif self._next < self._capacity:
            slot = self._next
            self._next += 1
        else:
            return -1
        self._slots[key] = slot
        self._keys[slot] = key
        return slot

    def _rows(self, keys: NDArray[np.uint8]) -> list[bytes]:
        check_keys(keys, self._key_size)
        return [row.tobytes() for row in keys]


def pack_keys(*columns: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of several columns side by side, as they are in memory: (n, sum of widths)."""
    check_columns(columns)
    parts = [np.ascontiguousarray(column) for column in columns]
    rows = len(parts[0])
    return np.concatenate([part.view(np.uint8).reshape(rows, width(part)) for part in parts], 1)
