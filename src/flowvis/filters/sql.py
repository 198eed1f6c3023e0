"""Filters as conditions of SQL. Values are parameters, which the store writes as literals."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from flowvis.batch import V4_MAPPED
from flowvis.clickhouse.schema.rolled_columns import NETWORK_BITS
from flowvis.fields import FlowType
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
    column_number,
    column_text,
)
from flowvis.filters.spending import Spend, freely
from flowvis.filters.tree import Filter

_AS_IT_IS = r"\z\C|"
"""Begins a pattern with what never matches: a byte after the end. ClickHouse looks for a part that
a pattern must have before it matches, and finds wrong ones (of `ü?` half of the character); where
there is an alternative it finds none."""

_NETWORK = column_text("network")
"""Stands for the name of either end's network."""

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
    only_networks: frozenset[str] = frozenset()
    """Those of the addresses of which it only tells the networks of ends outside of the cluster,
    so far as roll-ups have them."""


def condition(filter: Filter, spend: Spend = freely) -> Condition:  # noqa: A002  what it is
    """Return the condition of a filter."""
    writer = _Writer(in_force(), spend)
    text = writer.text(lowered(filter))
    columns = tuple(dict.fromkeys(writer.columns))
    only_networks = frozenset(writer.only_networks - writer.exact)
    return Condition(text, writer.parameters, columns, writer.networks, only_networks)


def address_column(name: str) -> str:
    """Return the name under which the 16 bytes of an address are stored."""
    return f"{name}Bytes"


class _Writer:
    """Collects parameters and columns while it writes."""

    def __init__(self, networks: NetworkNames, spend: Spend) -> None:
        self.networks = networks
        self._spend = spend
        self._fitting: dict[Predicate, tuple[int, ...]] = {}
        """The numbers of the names that a test, of whichever end, is true of."""
        self.parameters: dict[str, Parameter] = {}
        self.columns: list[str] = []
        self.only_networks: set[str] = set()
        """Addresses that are tested for being in networks, where their ends are outside."""
        self.exact: set[str] = set()
        """Addresses that are tested in another way, or whose ends may be inside."""
        self._outside: frozenset[str] = frozenset()
        """The addresses that are outside wherever what is being written matters."""

    def text(self, predicate: Predicate) -> str:
        match predicate:
            case Every(parts):
                return self._every(parts) if parts else "1"
            case Some(parts):
                return f"({' OR '.join(map(self.text, parts))})" if parts else "0"
            case Negation(part):
                return f"NOT {self.text(part)}"
            case Flag(column):
                self.columns.append(column)
                return f"({column} = 1)"
        return f"({self._leaf(predicate)})"

    def _every(self, parts: tuple[Predicate, ...]) -> str:
        """Write all of these: what one says of an end is so wherever the others matter."""
        before = self._outside
        self._outside = before | frozenset(_outside(parts))
        written = " AND ".join(map(self.text, parts))
        self._outside = before
        return f"({written})"

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
            return self._network(END_OF[text.columns[0]], predicate)
        self.columns += text.columns
        match predicate:
            case TextIn(values=values):
                return f"{text.sql} {self._one_of('String', values)}"
            case TextMatch(pattern=pattern):
                return f"match({text.sql}, {self._parameter('String', _AS_IT_IS + pattern)})"
            case TextHas(part=part):
                return f"positionCaseInsensitive({text.sql}, {self._parameter('String', part)}) > 0"

    def _network(self, end: str, predicate: TextIn | TextMatch | TextHas) -> str:
        """The names of which a test is true are known: so these are numbers in SQL."""
        of_any = replace(predicate, text=_NETWORK)
        if of_any not in self._fitting:
            self._fitting[of_any] = tuple(self._numbers(test_of(predicate)))
        passing = self._fitting[of_any]
        self.columns.append(NUMBERS[end])
        return f"{NUMBERS[end]} {self._one_of('UInt64', passing)}" if passing else "0"

    def _numbers(self, test: Callable[[bytes], bool]) -> Iterator[int]:
        for number, name in enumerate(self.networks.names):
            self._spend()
            if test(name.encode()):
                yield number

    def _addresses(
        self, column: str, addresses: tuple[bytes, ...], ranges: tuple[tuple[bytes, bytes], ...]
    ) -> Iterator[str]:
        self.columns.append(column)
        whole = not addresses and all(map(_whole, ranges))
        (self.only_networks if whole and column in self._outside else self.exact).add(column)
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


def _outside(parts: Iterable[Predicate]) -> Iterator[str]:
    """Go through the addresses that are outside of the cluster where all of these are true."""
    known = set(_facts(parts))
    for end, external in (
        ("source", FlowType.FROM_EXTERNAL),
        ("destination", FlowType.TO_EXTERNAL),
    ):
        nobodys = {TextIn(column_text(f"{end}{name}Name"), (b"",)) for name in ("Pod", "Node")}
        if NumberIn(column_number("flowType"), (external,)) in known or nobodys <= known:
            yield address_column(f"{end}IP")


def _facts(parts: Iterable[Predicate]) -> Iterator[Predicate]:
    """Go through what is true where all of these are."""
    for part in parts:
        if isinstance(part, Every):
            yield from _facts(part.parts)
        else:
            yield part


def _whole(addresses: tuple[bytes, bytes]) -> bool:
    """Whether a range has no part of a network without having all of it."""
    return all(
        end.endswith(octet * (16 - _kept(end)))
        for end, octet in zip(addresses, (b"\x00", b"\xff"), strict=True)
    )


def _kept(address: bytes) -> int:
    """Return how many octets of an address are its network's, in roll-ups."""
    mapped = address.startswith(V4_MAPPED)
    return (96 + NETWORK_BITS[4] if mapped else NETWORK_BITS[6]) // 8
