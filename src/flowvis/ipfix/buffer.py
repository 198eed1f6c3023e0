"""Columns that sessions decode into."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch
from flowvis.fields import Field
from flowvis.ipfix.plan import ColumnLayout, Plans
from flowvis.native import RecordTarget
from flowvis.strings import Strings

DOMAIN = "observationDomainId"
"""The column, uint32, that says which exporter a record is of: the number that the session's owner
gave to its observation domain, by default the domain's own; 0 is nobody's in particular."""

INITIAL_ROWS = 4096
KEPT_ROWS = 1 << 17  # after a burst larger than this the memory goes back


class RecordBuffer:
    """Growable columns for records with these fields, shared by sessions.

    With `most` it is full at so many records, until `clear`; else what it holds is bounded by what
    its owner lets come in between two calls of that.
    """

    def __init__(self, fields: Sequence[Field], strings: Strings, most: int | None = None) -> None:
        self._payer = 0
        self.layout = ColumnLayout(fields)
        self.plans = Plans(self.layout)
        self._most = most
        self._strings = strings
        self._columns = self._allocate(min(INITIAL_ROWS, most or INITIAL_ROWS))
        self._bind(0)

    def __len__(self) -> int:
        return self.target.rows

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return self._most is not None and self.target.rows >= self._most

    @property
    def strings(self) -> Strings:
        """The table of the text columns; another may be set while the buffer is empty."""
        return self._strings

    @strings.setter
    def strings(self, strings: Strings) -> None:
        if len(self):
            raise ValueError(f"{len(self)} records refer to the present table: clear first")
        if strings is not self._strings:
            self._strings.payer = 0
            self._strings = strings
            strings.payer = self._payer
            self._bind(0)

    @property
    def payer(self) -> int:
        """Who pays for the text that comes in, whichever table it goes to."""
        return self._payer

    @payer.setter
    def payer(self, payer: int) -> None:
        self._payer = self._strings.payer = payer

    def batch(self) -> Batch:
        """The records so far, as views that `clear` makes invalid."""
        rows = len(self)
        return Batch({name: column[:rows] for name, column in self._columns.items()}, self._strings)

    @property
    def memory_bytes(self) -> int:
        """What its columns take."""
        return sum(column.nbytes for column in self._columns.values())

    def clear(self) -> None:
        """Forget the records."""
        self.target.rows = 0
        if self.target.capacity > KEPT_ROWS:
            self._columns = self._allocate(INITIAL_ROWS)
            self._bind(0)

    def grow(self) -> None:
        """Make room for twice as many records."""
        rows = len(self)
        capacity = 2 * self.target.capacity
        larger = self._allocate(capacity if self._most is None else min(capacity, self._most))
        for name, column in self._columns.items():
            larger[name][:rows] = column[:rows]
        self._columns = larger
        self._bind(rows)

    def _allocate(self, rows: int) -> dict[str, NDArray[Any]]:
        columns: dict[str, NDArray[Any]] = {
            field.name: np.zeros((rows, *field.kind.shape), field.kind.dtype)
            for field in self.layout.fields
        }
        columns[DOMAIN] = np.zeros(rows, np.uint32)
        return columns

    def _bind(self, rows: int) -> None:
        self.target: RecordTarget = RecordTarget([*self._columns.values()], self._strings)
        self.target.rows = rows
