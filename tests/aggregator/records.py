"""Batches of aggregated records for the tests: all columns, zero but for what is given."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowvis.batch import Batch, address_bytes
from flowvis.fields import AGGREGATED, BY_NAME, Field, Kind
from flowvis.native import StringTable
from flowvis.strings import Strings

FIELDS: tuple[Field, ...] = (
    *AGGREGATED,
    BY_NAME["monitoringIntervalStartMilliSeconds"],
    BY_NAME["originalFlowsPresent"],
)


def records(
    *rows: dict[str, Any], strings: Strings | None = None, fields: Sequence[Field] = FIELDS
) -> Batch:
    """Zero but for what each dict gives by field name; addresses and text as strings."""
    table = strings if strings is not None else StringTable()
    columns = {}
    for field in fields:
        kind = field.kind
        column = np.zeros((len(rows), *kind.shape), kind.dtype)
        for at, row in enumerate(rows):
            value = row.get(field.name)
            if value is None:
                continue
            if kind is Kind.ADDRESS:
                column[at] = np.frombuffer(address_bytes(value), np.uint8)
            else:
                column[at] = table.intern(value.encode()) if kind is Kind.TEXT else value
        columns[field.name] = column
    return Batch(columns, table)


def numbered(first: int, count: int) -> Batch:
    """Records that can be told apart by their octetTotalCount."""
    return records(*({"octetTotalCount": number} for number in range(first, first + count)))
