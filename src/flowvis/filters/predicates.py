"""What both compilers have to be able to do: few simple tests, of which every filter is made.

Each expression is written twice, as SQL and as a function of the columns' values; that the two are
the same is what the property test in `tests/filters` is about. Columns have the names that `flows`
shows; an address is tested by its 16 bytes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a record has, or that is made of some of its texts."""

    columns: tuple[str, ...]
    sql: str
    make: Callable[..., bytes] | None = None
    """Makes it of the columns' bytes; None where it is the one column itself."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number (UInt64) that a record has, or that is computed of some."""

    columns: tuple[str, ...]
    sql: str
    make: Callable[..., Any] | None = None
    """Computes it of the columns as uint64; None where it is the one column itself."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """What is true or false of each record."""


@dataclass(frozen=True, slots=True)
class Every(Predicate):
    """All of these; true where there are none."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Some(Predicate):
    """Any of these; false where there are none."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Negation(Predicate):
    """Not this."""

    part: Predicate


@dataclass(frozen=True, slots=True)
class TextIn(Predicate):
    """The text is one of these, byte for byte."""

    text: Text
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TextMatch(Predicate):
    """The regular expression matches some part of the text (RE2's, `.` matches newlines too)."""

    text: Text
    pattern: str


@dataclass(frozen=True, slots=True)
class TextHas(Predicate):
    """The text has this in it, whichever case its ASCII letters are in."""

    text: Text
    part: bytes


class Order(Enum):
    """How two numbers are compared."""

    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class NumberIn(Predicate):
    """The number is one of these."""

    number: Number
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NumberOrder(Predicate):
    """How the number compares with another."""

    number: Number
    order: Order
    value: int


@dataclass(frozen=True, slots=True)
class AddressIn(Predicate):
    """The address is one of these, or in one of the ranges (both ends included)."""

    column: str
    addresses: tuple[bytes, ...]
    ranges: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Flag(Predicate):
    """What the store keeps as a byte, 1 where this is true."""

    column: str
    means: Predicate


def some(parts: Iterable[Predicate]) -> Predicate:
    """Return the same as `Some`, with sets of values of one expression joined."""
    texts: dict[Text, list[bytes]] = {}
    numbers: dict[Number, list[int]] = {}
    addresses: dict[str, list[AddressIn]] = {}
    others: list[Predicate] = []
    for part in parts:
        match part:
            case TextIn(text, values):
                texts.setdefault(text, []).extend(values)
            case NumberIn(number, counts):
                numbers.setdefault(number, []).extend(counts)
            case AddressIn(column):
                addresses.setdefault(column, []).append(part)
            case _:
                others.append(part)
    made = (
        *(TextIn(text, _distinct(values)) for text, values in texts.items()),
        *(NumberIn(number, _distinct(counts)) for number, counts in numbers.items()),
        *(_joined_addresses(column, found) for column, found in addresses.items()),
        *others,
    )
    return made[0] if len(made) == 1 else Some(made)


def _joined_addresses(column: str, parts: Sequence[AddressIn]) -> AddressIn:
    return AddressIn(
        column,
        _distinct(address for part in parts for address in part.addresses),
        _distinct(ends for part in parts for ends in part.ranges),
    )


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def column_text(name: str) -> Text:
    """Return the text of a column."""
    return Text((name,), name)


def column_number(name: str) -> Number:
    """Return the number of a column."""
    return Number((name,), name)


def first_of(*names: str) -> Text:
    """Return the first of some columns that is not empty."""
    *others, last = names
    sql = last
    for name in reversed(others):
        sql = f"if({name} != '', {name}, {sql})"
    return Text(names, sql, lambda *values: next(filter(None, values), b""))


def joined(namespace: str, name: Text) -> Text:
    """Return `namespace/name`, the name alone where there is no namespace; empty without a name."""

    def make(space: bytes, *values: bytes) -> bytes:
        text = name.make(*values) if name.make else values[0]
        return space + b"/" + text if space and text else text

    sql = (
        f"if({namespace} = '' OR {name.sql} = '', {name.sql}, concat({namespace}, '/', {name.sql}))"
    )
    return Text((namespace, *name.columns), sql, make)


def total(*names: str) -> Number:
    """Return the sum of two counters, modulo 2^64 as they are."""
    first, second = names
    return Number(names, f"toUInt64({first} + {second})", lambda one, other: one + other)


def milliseconds(column: str) -> Number:
    """Return a time that is stored in seconds."""
    return Number(
        (column,), f"toUInt64(toUInt32({column})) * 1000", lambda seconds: seconds * np.uint64(1000)
    )


def lasted(start: str, end: str) -> Number:
    """Return the milliseconds between two times in seconds; 0 where the end is before the start."""
    first, last = f"toUInt64(toUInt32({start}))", f"toUInt64(toUInt32({end}))"
    return Number(
        (start, end),
        f"if({last} > {first}, toUInt64({last} - {first}) * 1000, toUInt64(0))",
        lambda one, other: np.where(other > one, (other - one) * np.uint64(1000), np.uint64(0)),
    )
