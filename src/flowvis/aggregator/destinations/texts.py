"""Columns of a batch as lists of text, which lines of files and messages are made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, address_text, whole_rows
from flowvis.fields import TEXT_FIELDS, Field, Kind, RuleAction

T = TypeVar("T")

Written = Callable[[str], str]
"""How one text is written: with quotes, or escaped."""

_ACTIONS = {
    RuleAction.NONE: "",
    RuleAction.ALLOW: "Allow",
    RuleAction.DROP: "Drop",
    RuleAction.REJECT: "Reject",
    RuleAction.UNENFORCED_DROP: "UnenforcedDrop",
    RuleAction.UNENFORCED_REJECT: "UnenforcedReject",
}
_POLICIES = {
    0: "",
    1: "K8sNetworkPolicy",
    2: "AntreaNetworkPolicy",
    3: "AntreaClusterNetworkPolicy",
    4: "K8sClusterNetworkPolicy",
}
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 58: "IPv6-ICMP", 132: "SCTP"}

NAMES: Mapping[str, Mapping[int, str]] = {
    "protocolIdentifier": _PROTOCOLS,
    **{f"{way}NetworkPolicyRuleAction": _ACTIONS for way in ("ingress", "egress")},
    **{f"{way}NetworkPolicyType": _POLICIES for way in ("ingress", "egress")},
}
"""What people read instead of the numbers of a field; other numbers stay as they are."""


def each(column: NDArray[Any], make: Callable[[NDArray[Any]], Iterable[T]]) -> list[T]:
    """Make the texts of what is different in a column, and return them for all of its rows."""
    different, places = np.unique(column, return_inverse=True)
    made = list(make(different))
    return [made[place] for place in places.tolist()]


def column_texts(
    batch: Batch, field: Field, written: Written, names: Mapping[int, str] | None = None
) -> list[str]:
    """One field of all records: numbers as digits, what is text or has a name as `written` says.

    An address that is not set is an empty text; a field that the batch lacks is 0 or empty.
    """
    if field.name not in batch:
        absent = written("") if field.kind in {Kind.TEXT, Kind.ADDRESS} else "0"
        return [absent] * len(batch)
    column = batch[field.name]
    if field.kind is Kind.TEXT:
        return each(column, lambda codes: map(written, batch.strings.texts(codes)))
    if field.kind is Kind.ADDRESS:
        return each(whole_rows(column), lambda rows: (written(address_text(r)) for r in _raw(rows)))
    if names is not None:
        return each(column, lambda numbers: (_name(n, names, written) for n in numbers.tolist()))
    return list(map(str, column.tolist()))


def split_by_text(batch: Batch, most_bytes: int) -> Iterator[Batch]:
    """Go through a batch in parts whose records have so many bytes of text, or one record more.

    A text is in memory once, whoever has it, but is written for each: in 16 KB, as an exporter may
    bring it, a few thousand records would fill the memory.
    """
    ends = np.cumsum(_text_bytes(batch))
    if not len(ends) or ends[-1] <= most_bytes:
        yield batch
        return
    firsts = np.flatnonzero(np.diff(ends // most_bytes, prepend=-1)).tolist()
    for first, end in pairwise([*firsts, len(batch)]):
        yield batch.take(slice(first, end))


def _text_bytes(batch: Batch) -> NDArray[np.int64]:
    """How many bytes of text each record has."""
    columns = [batch[name] for name in TEXT_FIELDS if name in batch]
    seen = np.zeros(len(batch.strings), dtype=bool)
    for column in columns:
        seen[column] = True
    used = np.flatnonzero(seen)
    lengths = np.zeros(len(seen), dtype=np.int64)
    lengths[used] = [len(batch.strings.value(code)) for code in used.tolist()]
    found = np.zeros(len(batch), dtype=np.int64)
    for column in columns:
        found += lengths[column]
    return found


def _raw(rows: NDArray[Any]) -> Iterator[bytes]:
    return (row.tobytes() for row in rows)


def _name(number: int, names: Mapping[int, str], written: Written) -> str:
    return written(names[number]) if number in names else str(number)
