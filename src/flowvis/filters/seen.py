"""Which values the records of a batch have under a name, and how many have each.

The same as a store says of a name's `expression`, put into groups and counted.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, address_text
from flowvis.filters.attributes import (
    Address,
    Amount,
    Attribute,
    Choice,
    Verdict,
    WhereSet,
    Words,
    YesNo,
)
from flowvis.filters.mask import column, mask_of, numbers, texts
from flowvis.filters.tree import Value
from flowvis.filters.vocabulary import Name


def seen(name: Name, batch: Batch) -> Counter[str]:
    """Return the values that records have, the empty one included, as people write them.

    A name of either end has those of both; a quantity has none, as nobody chooses among its values.
    """
    found: Counter[str] = Counter()
    for attribute in name.attributes:
        for value, count in _values(attribute, batch):
            found[value] += count
    return +found


def seen_label_keys(batch: Batch, *columns: str) -> Counter[str]:
    """Return the keys of the labels that records have in these columns."""
    found: Counter[str] = Counter()
    for name in columns:
        codes, counts = np.unique(column(batch, name), return_counts=True)
        for text, count in zip(batch.strings.texts(codes), counts.tolist(), strict=True):
            for key in labels(text):
                found[key] += count
    return found


def labels(text: str) -> Mapping[str, Any]:
    """Return labels by key as they are stored; none where the text is no JSON object."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _values(attribute: Attribute, batch: Batch) -> Iterator[tuple[str, int]]:
    match attribute:
        case WhereSet(inner=inner):
            yield from (item for item in _values(inner, batch) if item[0] not in {"", "0"})
        case Words(text=text):
            values, places = texts(batch, text)
            counts = np.bincount(places, minlength=len(values)).tolist()
            for value, count in zip(values, counts, strict=True):
                yield value.decode(errors="replace"), count
        case Verdict(single=words) | YesNo(known=words):
            for word in words:
                yield word, int(mask_of(attribute.equal(Value(word)), batch).sum())
        case Choice(number=number):
            for one, count in _counted(numbers(batch, number)):
                yield attribute.name_of(one), count
        case Amount(number=number, expression=str()):
            for one, count in _counted(numbers(batch, number)):
                yield str(one), count
        case Address(columns=(name,)):
            rows = np.ascontiguousarray(column(batch, name)).view("V16")[:, 0]
            addresses, counts = np.unique(rows, return_counts=True)
            for address, count in zip(addresses, counts.tolist(), strict=True):
                yield address_text(address.tobytes()), count


def _counted(values: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    found, counts = np.unique(values, return_counts=True)
    return zip(found.tolist(), counts.tolist(), strict=True)
