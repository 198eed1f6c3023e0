"""Filters as trees, which never change. `str` of one is a text that is parsed to the same tree.

A text of many parts is flat: no `And` is a part of an `And`, no `Or` of an `Or`; each has two parts
at least. `all_of` and `any_of` see to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from flowvis.filters.tokens import quote, quoted


class Operator(Enum):
    """How a name and its values are compared."""

    IS = "="
    IS_NOT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    MATCHES = "~"
    MATCHES_NOT = "!~"
    IN = "in"
    NOT_IN = "not in"
    EMPTY = "is empty"
    NOT_EMPTY = "is not empty"

    @property
    def positive(self) -> "Operator":
        """The operator that this one denies, else itself."""
        return _DENIED.get(self, self)


_DENIED = {
    Operator.IS_NOT: Operator.IS,
    Operator.MATCHES_NOT: Operator.MATCHES,
    Operator.NOT_IN: Operator.IN,
    Operator.NOT_EMPTY: Operator.EMPTY,
}


@dataclass(frozen=True, slots=True)
class Value:
    """What a name is compared with."""

    text: str
    glob: bool = False
    """Whether `*` in it stands for any characters; never so where it was quoted."""

    def __str__(self) -> str:
        return self.text if self.glob else quote(self.text)


@dataclass(frozen=True, slots=True)
class Filter:
    """What chooses records."""

    def __and__(self, other: "Filter") -> "Filter":
        return all_of((self, other))

    def __or__(self, other: "Filter") -> "Filter":
        return any_of((self, other))


@dataclass(frozen=True, slots=True)
class And(Filter):
    """What all parts choose; of no parts everything."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " and ".join(
            f"({part})" if isinstance(part, Or) else str(part) for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """What any part chooses."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """What the part does not choose."""

    part: Filter

    def __str__(self) -> str:
        inner = f"({self.part})" if isinstance(self.part, And | Or) else str(self.part)
        return f"not {inner}"


@dataclass(frozen=True, slots=True)
class Comparison(Filter):
    """A name, compared with values: one, or as many as there are for `in`, or none."""

    name: str
    """As the vocabulary spells it."""
    operator: Operator
    values: tuple[Value, ...] = ()

    def __str__(self) -> str:
        head = f"{self.name} {self.operator.value}"
        if self.operator in {Operator.IN, Operator.NOT_IN}:
            return f"{head} ({', '.join(map(str, self.values))})"
        return " ".join([head, *map(str, self.values)])


@dataclass(frozen=True, slots=True)
class Search(Filter):
    """What has a text in the name of something, or the address that the text is."""

    text: str

    def __str__(self) -> str:
        return quoted(self.text)


EVERYTHING: Filter = And(())
"""The filter of an empty text."""


def all_of(parts: Iterable[Filter]) -> Filter:
    """Return what all of these choose; everything where there are none."""
    flat: list[Filter] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And) else (part,))
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def any_of(parts: Iterable[Filter]) -> Filter:
    """Return what any of these chooses; ValueError where there are none, as nothing has no text."""
    flat: list[Filter] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Or) else (part,))
    if not flat:
        raise ValueError("a filter that chooses nothing cannot be written")
    if EVERYTHING in flat:
        return EVERYTHING
    return flat[0] if len(flat) == 1 else Or(tuple(flat))
