"""The string table in plain Python: a dict and a list."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.strings import MAX_TABLE_BYTES, check_room


class StringTable:
    """Texts by their codes; see `flowvis.strings.Strings`."""

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
