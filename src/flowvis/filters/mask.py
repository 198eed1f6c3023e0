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
from flowvis.filters.lowering import lowered
from flowvis.filters.matching import test_of
from flowvis.filters.networks import END_OF, in_force
from flowvis.filters.predicates import (
    AddressIn,
    Every,
    Flag,
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
from flowvis.filters.spending import Spend, freely
from flowvis.filters.tree import Filter

Mask = NDArray[np.bool_]

_ORDERS: dict[Order, Callable[[Column, np.uint64], Mask]] = {
    Order.LESS: operator.lt,
    Order.AT_MOST: operator.le,
    Order.MORE: operator.gt,
    Order.AT_LEAST: operator.ge,
}


def mask(filter: Filter, batch: Batch, spend: Spend = freely) -> Mask:  # noqa: A002  what it is
    """Return which records of a batch a filter chooses: those that its condition chooses in SQL.

    A column that the batch does not have is as if it were 0, or empty, in all records.
    """
    return mask_of(lowered(filter), batch, spend)


def mask_of(predicate: Predicate, batch: Batch, spend: Spend = freely) -> Mask:
    """Return of which records of a batch a predicate is true."""
    match predicate:
        case Every(parts):
            masks = (mask_of(part, batch, spend) for part in parts)
            return reduce(np.logical_and, masks, np.ones(len(batch), np.bool_))
        case Some(parts):
            masks = (mask_of(part, batch, spend) for part in parts)
            return reduce(np.logical_or, masks, np.zeros(len(batch), np.bool_))
        case Negation(part):
            return ~mask_of(part, batch, spend)
        case Flag(means=means):
            return mask_of(means, batch, spend)
    return _leaf(predicate, batch, spend)


def _leaf(predicate: Predicate, batch: Batch, spend: Spend) -> Mask:
    match predicate:
        case TextIn(text=text) | TextMatch(text=text) | TextHas(text=text):
            return _passing(batch, text, test_of(predicate), spend)
        case NumberIn(number, values):
            return np.isin(numbers(batch, number), np.array(values, np.uint64))
        case NumberOrder(number, order, value):
            return np.asarray(_ORDERS[order](numbers(batch, number), np.uint64(value)))
        case AddressIn(name, addresses, ranges):
            return _addresses(column(batch, name), addresses, ranges)
    raise TypeError(f"{predicate!r}: not a predicate")


def column(batch: Batch, name: str) -> Column:
    """Return a column by its name in `flows`; zeros where the batch does not have it."""
    name = "clusterId" if name == "clusterUUID" else name
    if name in batch:
        return batch[name]
    field = BY_NAME.get(name)
    return np.zeros((len(batch), *field.kind.shape) if field else len(batch), np.uint8)


def numbers(batch: Batch, number: Number) -> Column:
    """Return a number of each record, as uint64."""
    values = [column(batch, name).astype(np.uint64, copy=False) for name in number.columns]
    return np.asarray(number.make(*values)) if number.make else values[0]


def texts(batch: Batch, text: Text) -> tuple[list[bytes], NDArray[np.intp]]:
    """Return what records have of a text: each combination of its columns, and whose is which."""
    if text.columns[0] in END_OF:
        return _networks(batch, END_OF[text.columns[0]])
    rows, places = _distinct([column(batch, name) for name in text.columns])
    value = batch.strings.value
    if text.make is None:
        return [value(code) for (code,) in rows], places
    return [text.make(*map(value, row)) for row in rows], places


def _networks(batch: Batch, end: str) -> tuple[list[bytes], NDArray[np.intp]]:
    """As `texts`, of the names of the networks of an end."""
    names = in_force()
    inside = (column(batch, f"{end}PodName") != 0) | (column(batch, f"{end}NodeName") != 0)
    numbers = np.where(inside, 0, names.find(column(batch, f"{end}IP")))
    used, places = np.unique(numbers, return_inverse=True)
    return [names.names[number].encode() for number in used.tolist()], places


def _passing(batch: Batch, text: Text, test: Callable[[bytes], bool], spend: Spend) -> Mask:
    values, places = texts(batch, text)

    def passes(value: bytes) -> bool:
        spend()
        return test(value)

    return np.array([passes(value) for value in values], dtype=np.bool_)[places]


def _distinct(columns: Sequence[Column]) -> tuple[list[list[int]], NDArray[np.intp]]:
    """Return the distinct rows of columns of codes, and of each record which of them it has."""
    first, *others = columns
    keys = first.astype(np.uint64)
    for place, codes in enumerate(others):
        if place:  # two codes fill a key: number these before the next one is added
            keys = np.unique(keys, return_inverse=True)[1].astype(np.uint64)
        keys = keys << np.uint64(32) | codes
    _, at, places = np.unique(keys, return_index=True, return_inverse=True)
    return np.stack([codes[at] for codes in columns], axis=1).tolist(), places


def _addresses(
    rows: Column, addresses: Sequence[bytes], ranges: Sequence[tuple[bytes, bytes]]
) -> Mask:
    """Compare addresses as two numbers of 64 bits, the first of which counts more."""
    words = np.ascontiguousarray(rows).view(">u8").astype(np.uint64)
    high, low = words[:, 0], words[:, 1]
    found = np.zeros(len(rows), np.bool_)
    for first, last in (*((each, each) for each in addresses), *ranges):
        (high_from, low_from), (high_to, low_to) = map(_words, (first, last))
        found |= ((high > high_from) | ((high == high_from) & (low >= low_from))) & (
            (high < high_to) | ((high == high_to) & (low <= low_to))
        )
    return found


def _words(address: bytes) -> tuple[np.uint64, np.uint64]:
    return np.uint64(int.from_bytes(address[:8])), np.uint64(int.from_bytes(address[8:]))
