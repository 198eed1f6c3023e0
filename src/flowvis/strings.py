"""String tables: text as 32-bit codes, so that columns of names are columns of numbers.

A table only grows; code 0 is the empty string. Nothing ever moves or leaves, so a batch in a queue
keeps its meaning. Tables are bounded in another way: their owner starts a fresh one and moves its
live codes over (`carry`) when too much in the old one is dead; the old one goes with the last
batch that refers to it.

A table never fails over what it is given: a text that is too long is shortened, and one that there
is no room for is refused, which makes it empty; both are counted. Who brings a text pays for it.
Whatever one payer has brought, it gets no more than is left for all others, as buffers of switches
are shared (Choudhury and Hahne, "Dynamic queue length thresholds", 1998): alone it can have half of
a table, and an eighth stays free for what the payers without much, and we ourselves, bring.
"""

import json
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_TEXT_BYTES = 16384
"""Bytes of one text, shortened beyond; names have 253 at most, a Pod's labels rarely 2,000."""
MAX_TABLE_BYTES = 1 << 30
"""What a table may take in memory where nobody says otherwise: some five million Pod names."""
STRING_BYTES = 64
"""What a string takes at most beside its text: its end, hash, payer, and place in the index."""
LARGEST_TABLE = STRING_BYTES << 28
"""16 GiB: codes and the places of the index have 32 bits."""
RESERVED = 8
"""The part of a table, one in so many, that is kept for those who have brought little."""
ASSURED_BYTES = 128 << 10
"""What each payer may always bring while the table is not full: the names of a node's Pods."""
MAX_PAYERS = 1 << 16
"""Payers are numbered from 1; 0 stands for ourselves."""


class Strings(Protocol):
    """What every string table can do, compiled or not."""

    payer: int
    """Who pays for what is interned next; 0: ourselves."""
    refused: int
    """Texts that became empty, as there was no room for them."""
    shortened: int
    """Texts that were longer than MAX_TEXT_BYTES."""

    def __len__(self) -> int:
        """How many codes there are, the empty string included."""

    @property
    def size_bytes(self) -> int:
        """Bytes of text held."""

    @property
    def memory_bytes(self) -> int:
        """About what the table takes in memory, at most its bound."""

    @property
    def max_bytes(self) -> int:
        """The bound of `memory_bytes`."""

    def charged(self, payer: int) -> int:
        """Return what of `memory_bytes` one payer has brought."""

    def intern(self, value: bytes) -> int:
        """Return the code of a byte string, 0 where it is refused."""

    def encode(self, texts: Iterable[str]) -> NDArray[np.uint32]:
        """Intern many texts (as UTF-8) and return their codes."""

    def carry(self, source: Any, codes: NDArray[Any]) -> NDArray[np.uint32]:
        """Intern strings of another table of the same leaf, for who paid for them there.

        Returns their codes here. Shares do not count: what was let in once stays.
        """

    def value(self, code: int) -> bytes:
        """Return the bytes of one code; IndexError if there is no such code."""

    def texts(self, codes: NDArray[Any]) -> list[str]:
        """Return the texts of many codes; bytes that are not UTF-8 become U+FFFD."""

    def packed(self) -> tuple[bytes, NDArray[np.uint64]]:
        """Return all text end to end, and the n + 1 offsets at which each code starts and ends."""


def check_bound(max_bytes: int) -> None:
    """Raise ValueError unless a table can have this bound."""
    if not 0 < max_bytes <= LARGEST_TABLE:
        raise ValueError(f"a string table of {max_bytes} bytes: at most {LARGEST_TABLE}")


def assured(max_bytes: int) -> int:
    """Return what each payer of a table with this bound may always bring."""
    return min(ASSURED_BYTES, max_bytes // 64)


def utf8(text: object) -> bytes:
    """Return a text as UTF-8; half of a surrogate pair, which JSON can have, becomes `?`."""
    return str(text).encode(errors="replace")


def shortened(value: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes of a text, cut between two characters.

    What is a JSON object stays one: it keeps the first of its members that fit.
    """
    if len(value) <= limit:
        return value
    if value.startswith(b"{") and value.endswith(b"}"):
        try:
            members = json.loads(value)
        except (ValueError, RecursionError):
            pass
        else:
            return utf8(shortened_object(members, limit)) if limit > 1 else b""
    while limit and value[limit] & 0xC0 == 0x80:  # inside of a UTF-8 sequence
        limit -= 1
    return value[:limit]


def shortened_object(members: dict[str, Any], limit: int) -> str:
    """Write those of an object's members that fit into `limit` bytes of JSON, in their order."""
    parts: list[str] = []
    left = limit - 2
    for key, value in members.items():
        part = json.dumps({key: value}, separators=(",", ":"))[1:-1]
        left -= len(part) + bool(parts)
        if left < 0:
            break
        parts.append(part)
    return "{" + ",".join(parts) + "}"
