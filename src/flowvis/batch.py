"""The unit of work: a batch of flow records as columns.

A batch is a dict of numpy arrays of one length, one per field, plus the string table that its text
columns point into. Shapes by kind (see `flowvis.fields.Kind`): integers `(n,)` of their own width,
addresses `(n, 16)` uint8 in network order (IPv4 as ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2),
text `(n,)` uint32 codes. Arrays may be strided views; whoever needs contiguous memory makes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowvis.strings import Strings

Column = NDArray[Any]

V4_MAPPED = bytes.fromhex("00000000000000000000ffff")


class Batch:
    """Columns of one length over one string table."""

    __slots__ = ("columns", "strings")

    def __init__(self, columns: Mapping[str, Column], strings: Strings) -> None:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        self.columns = dict(columns)
        self.strings = strings

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
        return type(self)(
            {name: column[which] for name, column in self.columns.items()}, self.strings
        )

    def select(self, names: Iterable[str]) -> Self:
        """The same records with only these columns."""
        return type(self)({name: self.columns[name] for name in names}, self.strings)

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
        return type(self)(columns, strings)


def concat(batches: Sequence[Batch]) -> Batch:
    """Join batches that have the same columns and share one string table."""
    first = batches[0]
    if any(batch.strings is not first.strings for batch in batches):
        raise ValueError("batches over different string tables: move them onto one first")
    columns = {name: np.concatenate([batch[name] for batch in batches]) for name in first.columns}
    return Batch(columns, first.strings)


def move_codes(codes: NDArray[Any], source: Strings, target: Strings) -> NDArray[np.uint32]:
    """Translate codes of one string table into another's, interning each distinct string once."""
    seen = np.zeros(len(source), dtype=bool)
    seen[codes] = True
    used = np.flatnonzero(seen)
    moved = np.zeros(len(source), dtype=np.uint32)
    moved[used] = target.carry(source, used)
    return np.asarray(moved[codes])


def is_ipv4(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of an `(n, 16)` address column are IPv4-mapped."""
    prefix = np.frombuffer(V4_MAPPED, dtype=np.uint8)
    return np.asarray((addresses[:, :12] == prefix).all(axis=1))


def is_unset(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows of an `(n, 16)` address column hold no address (:: or 0.0.0.0)."""
    words = np.ascontiguousarray(addresses).view(">u8")
    mapped = int.from_bytes(V4_MAPPED[8:] + bytes(4))
    low = words[:, 1]
    return np.asarray((words[:, 0] == 0) & ((low == 0) | (low == mapped)))


def address_text(address: bytes) -> str:
    """One 16-byte address as people write it; "" where there is none."""
    parsed = IPv4Address(address[12:]) if address.startswith(V4_MAPPED) else IPv6Address(address)
    return str(parsed) if int(parsed) else ""


def address_bytes(text: str) -> bytes:
    """Return the 16 bytes of an IPv4 or IPv6 address in text form; ValueError names a bad one."""
    parsed = ip_address(text)
    return parsed.packed if parsed.version == 6 else V4_MAPPED + parsed.packed
