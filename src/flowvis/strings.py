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


def check_room(length: int, held: int, max_bytes: int) -> None:
    """Raise LimitExceeded unless `length` more bytes fit."""
    if length > MAX_STRING_BYTES:
        raise LimitExceeded(
            "string-length", f"a string of {length} bytes; at most {MAX_STRING_BYTES}"
        )
    if held + length > max_bytes:
        raise LimitExceeded("string-table", f"string table full at {held} bytes")
