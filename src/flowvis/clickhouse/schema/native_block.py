"""ClickHouse's Native format, written straight from numpy columns.

A block is: number of columns and of rows (varints), then for each column its name, its type and
its data. Numbers and FixedStrings are plain arrays; LowCardinality is a dictionary of the distinct
values and one index per row. The same bytes serve `INSERT ... FORMAT Native` and the data packets
of the native protocol, which from revision 54454 on has one more byte per column.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.native import distinct
from flowvis.strings import Strings

_DICTIONARY_VERSION = np.uint64(1).tobytes()  # SharedDictionariesWithAdditionalKeys
_ADDITIONAL_KEYS = 1 << 9  # the dictionary is in the block itself
_UPDATE_DICTIONARY = 1 << 10  # and replaces the one of the block before
_INDEX_TYPES: tuple[np.dtype[np.unsignedinteger], ...] = tuple(
    np.dtype(kind) for kind in (np.uint8, np.uint16, np.uint32)
)
TEXT_TYPE = "LowCardinality(String)"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of plain values: integers `(n,)`, or `(n, width)` uint8 for FixedString(width)."""

    name: str
    type: str
    values: Column

    @property
    def width(self) -> int:
        """How many bytes a value has."""
        return int(self.values[:1].nbytes) or self.values.dtype.itemsize

    def data(self, _text: "Texts") -> Iterator[bytes | memoryview]:
        """Yield the column's values as they are in memory (little-endian)."""
        yield _memory(self.values)


@dataclass(frozen=True, slots=True)
class Codes:
    """A LowCardinality(String) column of codes into a string table."""

    name: str
    codes: NDArray[np.uint32]
    type: str = TEXT_TYPE

    def data(self, text: "Texts") -> Iterator[bytes | memoryview]:
        """Yield the dictionary of the codes in use, then each row's place in it."""
        used, places = text.dictionary(self.codes)
        yield from _low_cardinality(len(used), text.blob(used), places)


@dataclass(frozen=True, slots=True)
class Constant:
    """A LowCardinality(String) column that has one value throughout."""

    name: str
    value: bytes
    rows: int
    type: str = TEXT_TYPE

    def data(self, _text: "Texts") -> Iterator[bytes | memoryview]:
        """Yield a dictionary of one value, and its place for each row."""
        dictionary = varint(len(self.value)) + self.value
        yield from _low_cardinality(1, dictionary, np.zeros(self.rows, np.uint32))


def _memory(values: Column) -> memoryview:
    """Return an array's bytes without copying them, where they lie together."""
    return np.ascontiguousarray(values).data.cast("B")


def _low_cardinality(
    size: int, dictionary: bytes, places: NDArray[np.uint32]
) -> Iterator[bytes | memoryview]:
    """Yield a dictionary and, with as few bytes as hold them, the places in it."""
    width = int(np.searchsorted([1 << 8, 1 << 16], size, side="left"))
    header = (_ADDITIONAL_KEYS | _UPDATE_DICTIONARY | width, size)
    yield _DICTIONARY_VERSION + np.array(header, np.uint64).tobytes()
    yield dictionary
    yield np.uint64(len(places)).tobytes()
    yield _memory(places.astype(_INDEX_TYPES[width], copy=False))


class Texts:
    """The string table of one block, with scratch memory that its columns share."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._scratch = np.zeros(len(strings), np.uint32)

    def dictionary(self, codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], ...]:
        """Return the distinct codes, and for each row the position of its code."""
        first = codes[0]
        if (codes == first).all():
            return np.array([first], np.uint32), np.zeros(len(codes), np.uint32)
        return distinct(codes, self._scratch)

    def blob(self, codes: NDArray[Any]) -> bytes:
        """Return the strings of `codes`, each behind its length."""
        parts = []
        for code in codes.tolist():
            value = self._strings.value(code)
            parts.append(varint(len(value)) + value)
        return b"".join(parts)


def varint(number: int) -> bytes:
    """Encode an unsigned number as ClickHouse does: seven bits a byte, lowest first (LEB128)."""
    if number < 0x80:
        return _SMALL[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = [bytes([number]) for number in range(0x80)]


@dataclass(frozen=True, slots=True)
class Block:
    """The columns of one INSERT, all of the same length, and the string table of their codes."""

    columns: Sequence[Numbers | Codes | Constant]
    rows: int
    strings: Strings

    def parts(self, *, custom_serialization: bool = False) -> Iterator[bytes | memoryview]:
        """Yield the block's bytes piece by piece; the flag is the byte of revision 54454."""
        pieces = self.pieces(custom_serialization=custom_serialization)
        return (piece for piece, _ in pieces)

    def pieces(
        self, *, custom_serialization: bool = False
    ) -> Iterator[tuple[bytes | memoryview, int]]:
        """Yield the same with the width of the values in each piece's column; 0: not numbers."""
        text = Texts(self.strings)
        yield varint(len(self.columns)) + varint(self.rows), 0
        for column in self.columns:
            width = column.width if isinstance(column, Numbers) else 0
            name, kind = column.name.encode(), column.type.encode()
            head = varint(len(name)) + name + varint(len(kind)) + kind
            yield head + b"\0" if custom_serialization else head, width
            for piece in column.data(text):
                yield piece, width


class MalformedBlock(ValueError):
    """Bytes that are no block."""


class BlockReader:
    """Reads back what `Block` writes: its columns one by one, in their order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        """Whether all was read."""
        return self._at == len(self._data)

    def shape(self) -> tuple[int, int]:
        """How many columns and rows there are."""
        return self._varint(), self._varint()

    def column(self) -> tuple[str, str]:
        """The name and the type of the next column."""
        return self._text().decode(), self._text().decode()

    def numbers(self, kind: str, rows: int) -> Column:
        """Plain values: see `Numbers`."""
        match = re.fullmatch(r"UInt(8|16|32|64)|FixedString\(([1-9][0-9]{0,3})\)", kind)
        if match is None:
            raise MalformedBlock(f"a column of {kind!r}")
        if match[2]:
            width = int(match[2])
            return self._array(np.dtype(np.uint8), rows * width).reshape(rows, width)
        return self._array(np.dtype(f"u{int(match[1]) // 8}"), rows)

    def codes(self, rows: int, strings: Strings) -> NDArray[np.uint32]:
        """Texts, as codes of a string table that takes them in."""
        _, header, size = self._array(np.dtype(np.uint64), 3).tolist()
        width = header & 0xFF
        if width >= len(_INDEX_TYPES) or size > len(self._data):
            raise MalformedBlock(f"a dictionary of {size} texts, and places of kind {width}")
        known = np.array([strings.intern(self._text()) for _ in range(size)], np.uint32)
        (count,) = self._array(np.dtype(np.uint64), 1).tolist()
        if count != rows:
            raise MalformedBlock(f"{count} places for {rows} rows")
        places = self._array(_INDEX_TYPES[width], rows)
        if rows and int(places.max()) >= size:
            raise MalformedBlock("a place beyond its dictionary")
        return np.asarray(known[places])

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
            if shift > 63:
                raise MalformedBlock("a number of more than 64 bits")

    def _text(self) -> bytes:
        return self._take(self._varint())

    def _array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise MalformedBlock(f"{size} bytes expected, {len(piece)} left")
        self._at += size
        return piece


def number_blocks(data: bytes) -> Iterator[list[Column]]:
    """Yield the columns of each of several blocks that have plain values alone."""
    reader = BlockReader(data)
    while not reader.over:
        columns, rows = reader.shape()
        yield [reader.numbers(reader.column()[1], rows) for _ in range(columns)]


FRAME_BYTES = 1 << 20  # what ClickHouse itself compresses at a time


def frames(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Join the pieces of a block to pieces of FRAME_BYTES, the last one shorter."""
    pending = bytearray()
    for part in parts:
        view, start = memoryview(part), 0
        while len(pending) + len(view) - start >= FRAME_BYTES:
            stop = start + FRAME_BYTES - len(pending)
            pending += view[start:stop]
            yield bytes(pending)
            pending.clear()
            start = stop
        pending += view[start:]
    if pending:
        yield bytes(pending)
