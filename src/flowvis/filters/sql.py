"""Filters as conditions of SQL. Values are parameters, which the store writes as literals."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flowvis.filters.lowering import lowered
from flowvis.filters.matching import test_of
from flowvis.filters.networks import END_OF, NUMBERS, NetworkNames, in_force
from flowvis.filters.predicates import (
    AddressIn,
    Every,
    Flag,
    Negation,
    NumberIn,
    NumberOrder,
    Predicate,
    Some,
    Text,
    TextHas,
    TextIn,
    TextMatch,
)
from flowvis.filters.tree import Filter

_AS_IT_IS = r"\z\C|"
"""Begins a pattern with what never matches: a byte after the end. ClickHouse looks for a part that
a pattern must have before it matches, and finds wrong ones (of `ü?` half of the character); where
there is an alternative it finds none."""

Parameter = str | bytes | int | tuple[bytes, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """What stands behind WHERE, or in an aggregate with -If."""

    text: str
    """An expression of type UInt8 with placeholders as `{p0:String}`."""
    parameters: Mapping[str, Parameter]
    """Their values."""
    columns: tuple[str, ...]
    """What it reads: columns of `flows`; of an address `sourceIPBytes`, as it is stored; of the
    name of a network `sourceNetworkNumber`, which `networks` define."""
    networks: NetworkNames
    """The names that it was made with."""


def condition(filter: Filter) -> Condition:  # noqa: A002  what it is
    """Return the condition of a filter."""
    writer = _Writer(in_force())
    text = writer.text(lowered(filter))
    columns = tuple(dict.fromkeys(writer.columns))
    return Condition(text, writer.parameters, columns, writer.networks)


def address_column(name: str) -> str:
    """Return the name under which the 16 bytes of an address are stored."""
    return f"{name}Bytes"


class _Writer:
    """Collects parameters and columns while it writes."""

    def __init__(self, networks: NetworkNames) -> None:
        self.networks = networks
        self.parameters: dict[str, Parameter] = {}
        self.columns: list[str] = []

    def text(self, predicate: Predicate) -> str:
        match predicate:
            case Every(parts):
                return f"({' AND '.join(map(self.text, parts))})" if parts else "1"
            case Some(parts):
                return f"({' OR '.join(map(self.text, parts))})" if parts else "0"
            case Negation(part):
                return f"NOT {self.text(part)}"
            case Flag(column):
                self.columns.append(column)
                return f"({column} = 1)"
        return f"({self._leaf(predicate)})"

    def _leaf(self, predicate: Predicate) -> str:
        match predicate:
            case TextIn(text=text) | TextMatch(text=text) | TextHas(text=text):
                return self._text(predicate, text)
            case NumberIn(number, numbers):
                self.columns += number.columns
                return f"{number.sql} {self._one_of('UInt64', numbers)}"
            case NumberOrder(number, order, value):
                self.columns += number.columns
                return f"{number.sql} {order.value} {self._parameter('UInt64', value)}"
            case AddressIn(column, addresses, ranges):
                return " OR ".join(self._addresses(address_column(column), addresses, ranges))
        raise TypeError(f"{predicate!r}: not a predicate")

    def _text(self, predicate: TextIn | TextMatch | TextHas, text: Text) -> str:
        if text.columns[0] in END_OF:
            return self._network(END_OF[text.columns[0]], test_of(predicate))
        self.columns += text.columns
        match predicate:
            case TextIn(values=values):
                return f"{text.sql} {self._one_of('String', values)}"
            case TextMatch(pattern=pattern):
                return f"match({text.sql}, {self._parameter('String', _AS_IT_IS + pattern)})"
            case TextHas(part=part):
                return f"positionCaseInsensitive({text.sql}, {self._parameter('String', part)}) > 0"

    def _network(self, end: str, test: Callable[[bytes], bool]) -> str:
        """The names of which a test is true are known: so these are numbers in SQL."""
        names = self.networks.names
        passing = tuple(number for number, name in enumerate(names) if test(name.encode()))
        self.columns.append(NUMBERS[end])
        return f"{NUMBERS[end]} {self._one_of('UInt64', passing)}" if passing else "0"

    def _addresses(
        self, column: str, addresses: tuple[bytes, ...], ranges: tuple[tuple[bytes, bytes], ...]
    ) -> Iterator[str]:
        self.columns.append(column)
        if addresses:
            yield f"{column} {self._one_of('FixedString(16)', addresses)}"
        for low, high in ranges:
            first, last = (self._parameter("FixedString(16)", each) for each in (low, high))
            yield f"({column} >= {first} AND {column} <= {last})"
        if not addresses and not ranges:
            yield "0"

    def _one_of(self, kind: str, values: tuple[bytes, ...] | tuple[int, ...]) -> str:
        if len(values) == 1:
            return f"= {self._parameter(kind, values[0])}"
        return f"IN {self._parameter(f'Array({kind})', values)}"

    def _parameter(self, kind: str, value: Parameter) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:{kind}}}"
