"""String tables: text as 32-bit codes, so that columns of names are columns of numbers.

A table only grows; code 0 is the empty string. Nothing ever moves or leaves, so a batch in a queue
keeps its meaning. Tables are bounded in another way: their owner starts a fresh one and moves its
live codes over (`Batch.on`) when too much in the old one is dead; the old one goes with the last
batch that refers to it.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.errors import LimitExceeded

MAX_STRING_BYTES = 65535  # what IPFIX can carry in one field (RFC 7011 section 7)
MAX_TABLE_BYTES = 1 << 30  # 1 GiB of distinct text: some ten million Pod names


class Strings(Protocol):
    """What every string table can do, compiled or not."""

    def __len__(self) -> int:
        """How many codes there are, the empty string included."""

    @property
    def size_bytes(self) -> int:
        """Bytes of text held."""

    def intern(self, value: bytes) -> int:
        """Return the code of a byte string; LimitExceeded when over a cap."""

    def encode(self, texts: Iterable[str]) -> NDArray[np.uint32]:
        """Intern many texts (as UTF-8) and return their codes."""

    def value(self, code: int) -> bytes:
        """Return the bytes of one code; IndexError if there is no such code."""

    def texts(self, codes: NDArray[Any]) -> list[str]:
        """Return the texts of many codes; bytes that are not UTF-8 become U+FFFD."""

    def packed(self) -> tuple[bytes, NDArray[np.uint64]]:
        """Return all text end to end, and the n + 1 offsets at which each code starts and ends."""


class StringTable:
    """The reference: a dict and a list."""

    def __init__(self, max_bytes: int = MAX_TABLE_BYTES) -> None:
        self._codes: dict[bytes, int] = {b"": 0}
        self._values: list[bytes] = [b""]
        self._size = 0
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """Bytes of text held."""
        return self._size

    def intern(self, value: bytes) -> int:
        """Return the code of a byte string; LimitExceeded when over a cap."""
        code = self._codes.get(value)
        if code is not None:
            return code
        check_room(len(value), self._size, self._max_bytes)
        code = self._codes[value] = len(self._values)
        self._values.append(value)
        self._size += len(value)
        return code

    def encode(self, texts: Iterable[str]) -> NDArray[np.uint32]:
        """Intern many texts (as UTF-8) and return their codes."""
        return np.array([self.intern(text.encode()) for text in texts], dtype=np.uint32)

    def value(self, code: int) -> bytes:
        """Return the bytes of one code; IndexError if there is no such code."""
        if code < 0:
            raise IndexError(code)
        return self._values[code]

    def texts(self, codes: NDArray[Any]) -> list[str]:
        """Return the texts of many codes; bytes that are not UTF-8 become U+FFFD."""
        return [self._values[code].decode(errors="replace") for code in codes.tolist()]

    def packed(self) -> tuple[bytes, NDArray[np.uint64]]:
        """Return all text end to end, and the n + 1 offsets at which each code starts and ends."""
        offsets = np.zeros(len(self._values) + 1, dtype=np.uint64)
        np.cumsum([len(value) for value in self._values], out=offsets[1:])
        return b"".join(self._values), offsets


def check_room(length: int, held: int, max_bytes: int) -> None:
    """Raise LimitExceeded unless `length` more bytes fit."""
    if length > MAX_STRING_BYTES:
        raise LimitExceeded(
            "string-length", f"a string of {length} bytes; at most {MAX_STRING_BYTES}"
        )
    if held + length > max_bytes:
        raise LimitExceeded("string-table", f"string table full at {held} bytes")
