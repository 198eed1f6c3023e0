"""The string table in plain Python: a dict and some lists."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.strings import (
    MAX_TABLE_BYTES,
    MAX_TEXT_BYTES,
    RESERVED,
    STRING_BYTES,
    assured,
    check_bound,
    shortened,
    utf8,
)


class StringTable:
    """Texts by their codes; see `flowvis.strings.Strings`."""

    def __init__(self, max_bytes: int = MAX_TABLE_BYTES) -> None:
        check_bound(max_bytes)
        self.payer = 0
        self.refused = 0
        self.shortened = 0
        self._max_bytes = max_bytes
        self._codes: dict[bytes, int] = {b"": 0}
        self._values: list[bytes] = [b""]
        self.payers = [0]
        self._charges: Counter[int] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """Bytes of text held."""
        return self._size

    @property
    def memory_bytes(self) -> int:
        """About what the table takes in memory, at most its bound."""
        return self._size + STRING_BYTES * (len(self._values) - 1)

    @property
    def max_bytes(self) -> int:
        """The bound of `memory_bytes`."""
        return self._max_bytes

    def charged(self, payer: int) -> int:
        """Return what of `memory_bytes` one payer has brought."""
        return self._charges[payer]

    def intern(self, value: bytes) -> int:
        """Return the code of a byte string, 0 where it is refused."""
        if len(value) > MAX_TEXT_BYTES:
            value = shortened(value, MAX_TEXT_BYTES)
            self.shortened += 1
        code = self._codes.get(value)
        if code is not None:
            return code
        if not self._may_bring(len(value) + STRING_BYTES):
            self.refused += 1
            return 0
        return self._insert(value, self.payer)

    def encode(self, texts: Iterable[str]) -> NDArray[np.uint32]:
        """Intern many texts (as UTF-8) and return their codes."""
        return np.array([self.intern(utf8(text)) for text in texts], dtype=np.uint32)

    def carry(self, source: Any, codes: NDArray[Any]) -> NDArray[np.uint32]:
        """Intern strings of another table, for who paid for them there; return their codes."""
        return np.array(
            [self._carried(source.value(code), source.payers[code]) for code in codes.tolist()],
            dtype=np.uint32,
        )

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

    def _carried(self, value: bytes, payer: int) -> int:
        code = self._codes.get(value)
        if code is not None:
            return code
        if self.memory_bytes + len(value) + STRING_BYTES > self._max_bytes:
            self.refused += 1
            return 0
        return self._insert(value, payer)

    def _may_bring(self, cost: int) -> bool:
        """Whether there is room, and the payer has not brought more than its share."""
        free = self._max_bytes - self.memory_bytes
        if cost > free:
            return False
        if not self.payer:
            return True
        share = max(free - self._max_bytes // RESERVED, assured(self._max_bytes))
        return self._charges[self.payer] + cost <= share

    def _insert(self, value: bytes, payer: int) -> int:
        code = self._codes[value] = len(self._values)
        self._values.append(value)
        self.payers.append(payer)
        self._charges[payer] += len(value) + STRING_BYTES
        self._size += len(value)
        return code
