"""Records as dicts of plain values, to and from batches."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flowvis.batch import Batch, address_bytes, address_text
from flowvis.fields import EXPORTED, Field, Kind
from flowvis.strings import Strings

Record = Mapping[str, int | str]


def batch_of(
    records: Sequence[Record], strings: Strings, fields: Iterable[Field] = EXPORTED
) -> Batch:
    """Columns of records; what a record does not name is 0, empty or no address."""
    columns: dict[str, Any] = {}
    for field in fields:
        if field.kind is Kind.TEXT:
            columns[field.name] = strings.encode(str(r.get(field.name, "")) for r in records)
        elif field.kind is Kind.ADDRESS:
            raw = b"".join(address_bytes(str(r.get(field.name) or "::")) for r in records)
            columns[field.name] = np.frombuffer(raw, np.uint8).reshape(-1, 16)
        else:
            values = [r.get(field.name, 0) for r in records]
            columns[field.name] = np.array(values, field.kind.dtype)
    return Batch(columns, strings)


def records_of(batch: Batch, fields: Iterable[Field] = EXPORTED) -> list[dict[str, int | str]]:
    """The records, without what is 0, empty or no address."""
    columns: dict[str, list[Any]] = {}
    for field in fields:
        if field.kind is Kind.TEXT:
            columns[field.name] = batch.texts(field.name)
        elif field.kind is Kind.ADDRESS:
            columns[field.name] = [address_text(row.tobytes()) for row in batch[field.name]]
        else:
            columns[field.name] = batch[field.name].tolist()
    return [
        {name: values[row] for name, values in columns.items() if values[row]}
        for row in range(len(batch))
    ]
