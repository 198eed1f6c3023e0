"""Records as messages of Protocol Buffers (proto3), and the schema that readers take.

A field's number is made of its information element's, which never changes, so a reader with an
older schema understands newer records: IANA's have the element's own, reverse ones (RFC 5103) 1000
more, Antrea's 1500 more. Fields without an element have the numbers of `_OTHERS`. As proto3 has it,
what is 0 or empty is not written.
"""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from flowvis.aggregator.destinations.file_lines import WHOLE
from flowvis.aggregator.destinations.texts import each
from flowvis.batch import Batch, address_text, whole_rows
from flowvis.elements import ANTREA, IANA, REGISTRY, REVERSE
from flowvis.fields import Field, Kind

_BASES = {IANA: (0, 1000), REVERSE: (1000, 1500), ANTREA: (1500, 1900)}
"""From which number on the elements of an enterprise are, and where the next ones begin."""
_OTHERS_FROM = 1900
_OTHERS = (
    "sourceWorkloadKind", "sourceWorkloadName",
    "destinationWorkloadKind", "destinationWorkloadName",
    "sourceZone", "sourceRegion", "destinationZone", "destinationRegion",
)  # fmt: skip
"""Fields without an element: add new ones at the end, and never remove one."""

_VARINT, _BYTES = 0, 2  # wire types
_TYPES = {
    Kind.TEXT: "string",
    Kind.ADDRESS: "string",
    Kind.U64: "uint64",
    Kind.MILLISECONDS: "uint64",
}


def number(field: Field) -> int:
    """Return the number of a field in messages; ValueError for one that has none yet."""
    if field.name in _OTHERS:
        return _OTHERS_FROM + _OTHERS.index(field.name)
    if not field.elements:
        raise ValueError(f"{field.name} has no information element: add it at the end of _OTHERS")
    element = REGISTRY.named(field.elements[0])
    base, end = _BASES[element.enterprise]
    if base + element.id >= end:
        raise ValueError(f"{field.name}: there are no numbers for element {element.id}")
    return base + element.id


def schema(fields: Sequence[Field] = WHOLE) -> str:
    """Return the message's schema, as protoc reads it: a comment and a line for each field."""
    lines = []
    for field in sorted(fields, key=number):
        about = textwrap.wrap(field.doc, 94, initial_indent="  // ", subsequent_indent="  // ")
        lines += [*about, f"  {_TYPES.get(field.kind, 'uint32')} {field.name} = {number(field)};"]
    return "\n".join(("message FlowRecord {", *lines, "}", ""))


class Messages:
    """Makes a message of each record of a batch; addresses are text, times numbers, as in JSON."""

    def __init__(self, fields: Sequence[Field] = WHOLE) -> None:
        """Fields come in the order of their numbers, which readers like best."""
        self._fields = sorted(fields, key=number)

    def __call__(self, batch: Batch) -> list[bytes]:
        """Return the messages, in the order of the records."""
        return list(self.each(batch))

    def each(self, batch: Batch) -> Iterator[bytes]:
        """Make the messages one after the other."""
        columns = [_column(batch, field) for field in self._fields if field.name in batch]
        return (b"".join(parts) for parts in zip(*columns, strict=True))


def _column(batch: Batch, field: Field) -> list[bytes]:
    """One field of all records, each with its tag; empty where it is 0 or empty."""
    column = batch[field.name]
    if field.kind is Kind.TEXT:
        return each(column, _texts(field, batch.strings.texts))
    if field.kind is Kind.ADDRESS:
        return each(whole_rows(column), _texts(field, _addresses))
    tag = _varint(number(field) << 3 | _VARINT)
    return each(column, lambda found: (tag + _varint(n) if n else b"" for n in found.tolist()))


def _texts(
    field: Field, texts: Callable[[NDArray[Any]], Iterable[str]]
) -> Callable[[NDArray[Any]], Iterable[bytes]]:
    tag = _varint(number(field) << 3 | _BYTES)

    def written(found: NDArray[Any]) -> Iterable[bytes]:
        for text in texts(found):
            value = text.encode()
            yield tag + _varint(len(value)) + value if value else b""

    return written


def _addresses(rows: NDArray[Any]) -> Iterable[str]:
    return (address_text(row.tobytes()) for row in rows)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the least first; all but the last have the eighth."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
