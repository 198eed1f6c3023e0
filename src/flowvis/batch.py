"""The unit of work: a batch of flow records as columns.

A batch is a dict of numpy arrays of one length, one per field, plus the string table that its text
columns point into. Shapes by kind (see `flowvis.fields.Kind`): integers `(n,)` of their own width,
addresses `(n, 16)` uint8 in network order (IPv4 as ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2),
text `(n,)` uint32 codes. Arrays may be strided views; whoever needs contiguous memory makes it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowvis.strings import Strings

Column = NDArray[Any]

V4_MAPPED = bytes.fromhex("00000000000000000000ffff")
_MAPPED_WORD = np.frombuffer(V4_MAPPED, dtype=np.uint32)[2]
_UNSET_WORD = np.frombuffer(V4_MAPPED[8:] + bytes(4), dtype=np.uint64)[0]

SETTLED = (1 << 63) - 1
"""The mark of what nothing waits for: later than every cycle."""


class Batch:
    """Columns of one length over one string table.

    `mark` is the oldest cycle of the aggregator of which something is in it.
    """

    __slots__ = ("columns", "mark", "strings")

    def __init__(
        self, columns: Mapping[str, Column], strings: Strings, mark: int = SETTLED
    ) -> None:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        self.columns = dict(columns)
        self.strings = strings
        self.mark = mark

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __setitem__(self, name: str, column: Column) -> None:
        if self.columns and len(column) != len(self):
            raise ValueError(f"{name}: {len(column)} values for {len(self)} records")
        self.columns[name] = column

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def take(self, which: NDArray[Any] | slice) -> Self:
        """Copy the records at integer positions, under a boolean mask, or in a slice (a view)."""
        columns = dict(zip(self.columns, take(self.columns.values(), which), strict=True))
        return type(self)(columns, self.strings, self.mark)

    def select(self, names: Iterable[str]) -> Self:
        """The same records with only these columns."""
        return type(self)({name: self.columns[name] for name in names}, self.strings, self.mark)

    def texts(self, name: str) -> list[str]:
        """One text column as Python strings: for edges that write rows."""
        return self.strings.texts(self.columns[name])

    def on(self, strings: Strings, text: Iterable[str]) -> Self:
        """The same records with the `text` columns' codes moved onto another string table."""
        if strings is self.strings:
            return self
        columns = dict(self.columns)
        for name in text:
            if name in columns:
                columns[name] = move_codes(columns[name], self.strings, strings)
        return type(self)(columns, strings, self.mark)


def take(columns: Iterable[Column], which: NDArray[Any] | slice) -> Iterator[Column]:
    """Go through the same rows of many columns: at positions, under a boolean mask, or in a slice.

    A mask is turned into positions once, and rows are copied whole: numpy's own indexing copies
    addresses a byte at a time, which takes ten times as long. Of a strided view, which `take` would
    copy whole before, it is the better one.
    """
    if isinstance(which, slice):
        return (column[which] for column in columns)
    places = np.flatnonzero(which) if which.dtype == np.bool_ else which
    return (
        column.take(places, axis=0) if column.flags.c_contiguous else column[places]
        for column in columns
    )


def whole_rows(column: Column) -> Column:
    """The rows of a column as items: a view `(n,)`, by which numpy copies each at once.

    Assigned to rows by position, addresses cost a sixth of what they do byte by byte. A column that
    is not contiguous is copied first. The items cannot be compared.
    """
    if column.ndim == 1:
        return column
    rows = np.ascontiguousarray(column)
    return rows.view(f"V{rows.dtype.itemsize * rows.shape[1]}")[:, 0]


def only(column: Column, which: NDArray[np.bool_]) -> Column:
    """A copy of a column with its rows where `which` says, and 0 elsewhere."""
    rows = np.flatnonzero(which)
    if len(rows) == len(column):
        return column.copy()
    kept = np.zeros(column.shape, column.dtype)
    whole_rows(kept)[rows] = whole_rows(column)[rows]
    return kept


def any_of(columns: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows of a few columns have a True; along rows that short numpy is ten times slower."""
    return np.asarray(reduce(np.bitwise_or, columns.T))


def concat(batches: Sequence[Batch]) -> Batch:
    """Join batches of the same columns over one string table; the mark is the oldest of theirs."""
    first = batches[0]
    if any(batch.strings is not first.strings for batch in batches):
        raise ValueError("batches over different string tables: move them onto one first")
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in first.columns}
    return Batch(columns, first.strings, min(batch.mark for batch in batches))


def move_codes(codes: NDArray[Any], source: Strings, target: Strings) -> NDArray[np.uint32]:
    """Translate codes of one string table into another's, interning each distinct string once."""
    seen = np.zeros(len(source), dtype=bool)
    seen[codes] = True
    used = np.flatnonzero(seen)
    moved = np.zeros(len(source), dtype=np.uint32)
    moved[used] = target.carry(source, used)
    return np.asarray(moved[codes])


def _words(addresses: NDArray[np.uint8], dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """An `(n, 16)` address column as words: where it lies, if the bytes of each are together."""
    if addresses.strides[1] != 1:
        addresses = np.ascontiguousarray(addresses)
    return addresses.view(dtype)


def is_ipv4(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of an `(n, 16)` address column are IPv4-mapped."""
    high = _words(addresses, np.uint64)[:, 0]
    return np.asarray((high == 0) & (_words(addresses, np.uint32)[:, 2] == _MAPPED_WORD))


def same_addresses(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of two `(n, 16)` address columns are equal."""
    first, second = _words(one, np.uint64), _words(other, np.uint64)
    return np.asarray((first[:, 0] == second[:, 0]) & (first[:, 1] == second[:, 1]))


def is_zero(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of an `(n, 16)` address column are all 0."""
    words = _words(addresses, np.uint64)
    return np.asarray(words[:, 0] | words[:, 1] == 0)


def is_unset(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of an `(n, 16)` address column hold no address (:: or 0.0.0.0)."""
    words = _words(addresses, np.uint64)
    low = words[:, 1]
    return np.asarray((words[:, 0] == 0) & ((low == 0) | (low == _UNSET_WORD)))


def address_text(address: bytes) -> str:
    """One 16-byte address as people, and ClickHouse, write it; "" where there is none."""
    parsed = IPv4Address(address[12:]) if address.startswith(V4_MAPPED) else IPv6Address(address)
    if (
        parsed.version == 6 and 0xFFFF < int(parsed) <= 0xFFFFFFFF
    ):  # IPv4-compatible, RFC 4291 2.5.5.1
        return f"::{IPv4Address(address[12:])}"
    return str(parsed) if int(parsed) else ""


def address_bytes(text: str) -> bytes:
    """Return the 16 bytes of an IPv4 or IPv6 address in text form; ValueError names a bad one."""
    parsed = ip_address(text)
    return parsed.packed if parsed.version == 6 else V4_MAPPED + parsed.packed
