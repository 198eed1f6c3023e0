"""Filters as masks over batches: what of the records that pass by somebody wants to see.

Texts are tested once for each that is different in a batch, so no Python object is made per record.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column
from flowvis.fields import BY_NAME
from flowvis.filters.literals import compiled
from flowvis.filters.lowering import lowered
from flowvis.filters.predicates import (
    AddressIn,
    Every,
    Negation,
    Number,
    NumberIn,
    NumberOrder,
    Order,
    Predicate,
    Some,
    Text,
    TextHas,
    TextIn,
    TextMatch,
)
from flowvis.filters.tree import Filter

Mask = NDArray[np.bool_]

_ORDERS: dict[Order, Callable[[Column, np.uint64], Mask]] = {
    Order.LESS: operator.lt,
    Order.AT_MOST: operator.le,
    Order.MORE: operator.gt,
    Order.AT_LEAST: operator.ge,
}


def mask(filter: Filter, batch: Batch) -> Mask:  # noqa: A002  what it is
    """Return which records of a batch a filter chooses: those that its condition chooses in SQL.

    A column that the batch does not have is as if it were 0, or empty, in all records.
    """
    return _mask(lowered(filter), batch)


def _mask(predicate: Predicate, batch: Batch) -> Mask:
    match predicate:
        case Every(parts):
            masks = (_mask(part, batch) for part in parts)
            return reduce(np.logical_and, masks, np.ones(len(batch), np.bool_))
        case Some(parts):
            masks = (_mask(part, batch) for part in parts)
            return reduce(np.logical_or, masks, np.zeros(len(batch), np.bool_))
        case Negation(part):
            return ~_mask(part, batch)
    return _leaf(predicate, batch)


def _leaf(predicate: Predicate, batch: Batch) -> Mask:
    match predicate:
        case TextIn(text, values):
            return _texts(batch, text, frozenset(values).__contains__)
        case TextMatch(text, pattern):
            search = compiled(pattern).search
            return _texts(batch, text, lambda value: search(value) is not None)
        case TextHas(text, part):
            wanted = part.lower()
            return _texts(batch, text, lambda value: wanted in value.lower())
        case NumberIn(number, numbers):
            return np.isin(_numbers(batch, number), np.array(numbers, np.uint64))
        case NumberOrder(number, order, value):
            return np.asarray(_ORDERS[order](_numbers(batch, number), np.uint64(value)))
        case AddressIn(column, addresses, ranges):
            return _addresses(_column(batch, column), addresses, ranges)
    raise TypeError(f"{predicate!r}: not a predicate")


def _column(batch: Batch, name: str) -> Column:
    """Return a column by its name in `flows`."""
    name = "clusterId" if name == "clusterUUID" else name
    if name in batch:
        return batch[name]
    field = BY_NAME.get(name)
    return np.zeros((len(batch), *field.kind.shape) if field else len(batch), np.uint8)


def _numbers(batch: Batch, number: Number) -> Column:
    values = [_column(batch, name).astype(np.uint64, copy=False) for name in number.columns]
    return np.asarray(number.make(*values)) if number.make else values[0]


def _texts(batch: Batch, text: Text, test: Callable[[bytes], bool]) -> Mask:
    """Test each distinct combination of the texts' codes once."""
    codes, places = _distinct([_column(batch, name) for name in text.columns])
    value = batch.strings.value
    if text.make is None:
        passed = [test(value(code)) for (code,) in codes]
    else:
        passed = [test(text.make(*map(value, row))) for row in codes]
    return np.array(passed, dtype=np.bool_)[places]


def _distinct(columns: Sequence[Column]) -> tuple[list[list[int]], NDArray[np.intp]]:
    """Return the distinct rows of columns of codes, and of each record which of them it has."""
    if len(columns) == 1:
        found, places = np.unique(columns[0], return_inverse=True)
        return [[code] for code in found.tolist()], places
    rows, places = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return rows.tolist(), places.reshape(-1)


def _addresses(
    column: Column, addresses: Sequence[bytes], ranges: Sequence[tuple[bytes, bytes]]
) -> Mask:
    """Compare addresses as two numbers of 64 bits, the first of which counts more."""
    words = np.ascontiguousarray(column).view(">u8").astype(np.uint64)
    high, low = words[:, 0], words[:, 1]
    found = np.zeros(len(column), np.bool_)
    for first, last in (*((each, each) for each in addresses), *ranges):
        (high_from, low_from), (high_to, low_to) = map(_words, (first, last))
        found |= ((high > high_from) | ((high == high_from) & (low >= low_from))) & (
            (high < high_to) | ((high == high_to) & (low <= low_to))
        )
    return found


def _words(address: bytes) -> tuple[np.uint64, np.uint64]:
    return np.uint64(int.from_bytes(address[:8])), np.uint64(int.from_bytes(address[8:]))
