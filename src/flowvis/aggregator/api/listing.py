"""Records as rows of Python values, for the edges that people and JSON look at."""

from collections.abc import Iterator
from typing import Any

from flowvis.batch import Batch, address_text
from flowvis.fields import BY_NAME, Kind


def rows(batch: Batch) -> Iterator[dict[str, Any]]:
    """Go through the records as dicts by field name; addresses and text as strings."""
    names = [name for name in batch.columns if name in BY_NAME]
    columns = [_values(batch, name) for name in names]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _values(batch: Batch, name: str) -> list[Any]:
    kind = BY_NAME[name].kind
    if kind is Kind.TEXT:
        return batch.texts(name)
    if kind is Kind.ADDRESS:
        return [address_text(row.tobytes()) for row in batch[name]]
    values: list[Any] = batch[name].tolist()
    return values
