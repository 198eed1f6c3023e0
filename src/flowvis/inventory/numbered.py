"""Texts that many objects share, by number: a look-up for each record, and no Python."""

import numpy as np
from numpy.typing import NDArray

from flowvis.strings import Strings

Texts = tuple[str, ...]


class NumberedTexts:
    """Numbers for tuples of texts of one length, until `clear`; 0 is that of `nothing`."""

    def __init__(self, nothing: Texts) -> None:
        self._nothing = nothing
        self.clear()

    def __len__(self) -> int:
        return len(self._distinct)

    def clear(self) -> None:
        """Forget all: numbers given so far mean nothing any more."""
        self._distinct = [self._nothing]
        self._numbers = {self._nothing: 0}
        self._strings: Strings | None = None

    def number(self, texts: Texts) -> int:
        """Return the number of a tuple of texts."""
        number = self._numbers.setdefault(texts, len(self._distinct))
        if number == len(self._distinct):
            self._distinct.append(texts)
        return number

    def codes(self, numbers: NDArray[np.int32], strings: Strings) -> list[NDArray[np.uint32]]:
        """Return a column of codes for each place in the tuples; text is put into a table once."""
        if strings is not self._strings:
            width = len(self._nothing)
            self._strings, self._codes = strings, np.zeros((width, 0), dtype=np.uint32)
        fresh = self._distinct[self._codes.shape[1] :]
        if fresh:
            more = [strings.encode(texts) for texts in zip(*fresh, strict=True)]
            self._codes = np.concatenate([self._codes, np.stack(more)], axis=1)
        return [codes[numbers] for codes in self._codes]
