"""Names of networks: what people call the addresses outside of the cluster.

They are configured, and applied when somebody asks: nothing is stored, so history has the names of
now. Each end of a record has the number of a name, 0 where it has none; of networks that lie within
each other the longest prefix counts. An end that is a Pod or a node has no name, whatever range
its address is in.

The number is found twice, as all that filters are made of: in a batch, and by SQL. SQL that every
server understands has no search in sorted ranges (18.16 has no `roundDown`), so there is a
look-up for each prefix length, and the result of the longest is the greatest. On an hour of
records that costs some ten nanoseconds a length and record, however many networks there are.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from flowvis.addresses import Network
from flowvis.batch import is_ipv4
from flowvis.inventory.networks import NONE, Networks

MAX_NAMES = 4096
MAX_SQL = 96 << 10
"""Bytes of SQL that all of them may take: they are a part of statements, which have bounds too."""
SPARE_ENTRIES = 1024
"""Prefixes that may be added to have fewer lengths; more where there are many anyway."""

NUMBERS = {"source": "sourceNetworkNumber", "destination": "destinationNetworkNumber"}
"""What SQL calls the number of the name of an end's network, by end."""
TEXTS = {"source": "sourceNetwork", "destination": "destinationNetwork"}
"""What SQL calls the name."""
END_OF = {column: end for columns in (NUMBERS, TEXTS) for end, column in columns.items()}
"""Which end either is of. They are columns of no table, and defined by `NetworkNames`."""

_HALF = 64
_WORD = re.compile(r"\w+")


class NetworkNames:
    """Named networks; never changed, so a number means the same for as long as one is held."""

    def __init__(self, named: Iterable[tuple[str, Iterable[Network]]] = ()) -> None:
        """Of a network that is given twice the first name counts."""
        self._numbers: dict[Network, int] = {}
        names = [""]
        for name, networks in named:
            names.append(name)
            for network in networks:
                self._numbers.setdefault(network, len(names) - 1)
        self.names = tuple(names)
        """By number; the first is that of none."""
        self._versions = [
            _Version([each for each in self._numbers if each.version == version], self._numbers)
            for version in (4, 6)
        ]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return len(self.names) > 1

    @cached_property
    def longest(self) -> Mapping[int, int]:
        """The longest prefix by IP version: what is stored by shorter ones cannot be named."""
        found = dict.fromkeys((4, 6), 0)
        for network in self._numbers:
            found[network.version] = max(found[network.version], network.prefixlen)
        return found

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the numbers of the names of an `(n, 16)` column of addresses."""
        ipv4 = is_ipv4(addresses)
        found = np.zeros(len(addresses), dtype=np.int64)
        for version, which in zip(self._versions, (ipv4, ~ipv4), strict=True):
            rows = np.flatnonzero(which)
            found[rows] = version.find(addresses[rows])
        found[~addresses.any(axis=1)] = 0  # no address
        return found

    def definitions(
        self, sql: str, given: Collection[str] = (), *, rolled: bool = False
    ) -> dict[str, str]:
        """Return what the columns of END_OF that an expression names are of `flow_records`.

        By name, each after those that it is made of, to be aliases in a WITH; but for those that
        are given. With `rolled` they are of roll-ups, which have addresses by shorter prefixes
        (`sourceNetworkBytes`): right as far as none is longer than these, see `longest`.
        """
        found: dict[str, str] = {}
        words = END_OF.keys() & set(_WORD.findall(sql))
        for end, number in NUMBERS.items():
            text = TEXTS[end]
            if words & {number, text} and number not in given:
                found |= self._arrays | {number: self._number_sql(end, rolled=rolled)}
            if text in words:
                found[text] = self._name_sql(number)
        return found

    @cached_property
    def size(self) -> int:
        """How many bytes of SQL they take."""
        texts = (
            *self._arrays.values(),
            self._number_sql("source", rolled=False),
            self._name_sql(""),
        )
        return sum(map(len, texts))

    @cached_property
    def _arrays(self) -> dict[str, str]:
        return {name: sql for version in self._versions for name, sql in version.arrays()}

    def _number_sql(self, end: str, *, rolled: bool) -> str:
        """Return the number of the name of an end's network, over stored columns."""
        if not self:
            return "toUInt32(0)"
        address = f"{end}NetworkBytes" if rolled else f"{end}IPBytes"
        without = [f"{address} = toFixedString('', 16)"]
        if not rolled:  # else it is without an address
            without += [f"{end}PodName != ''", f"{end}NodeName != ''"]
        low = f"reinterpretAsUInt64(reverse({address}))"
        high = f"reinterpretAsUInt64(reverse(substring({address}, 1, 8)))"
        four, six = self._versions
        return (
            f"if({' OR '.join(without)}, 0,"
            f" if(reinterpretAsUInt64({address}) = 0 AND bitShiftRight({low}, 32) = {0xFFFF},"
            f" {four.sql(f'bitShiftLeft({low}, 32)', '')}, {six.sql(high, low)}))"
        )

    def _name_sql(self, number: str) -> str:
        if not self:
            return "''"
        numbers = list(range(1, len(self.names)))
        return f"transform({number}, {_array(numbers)}, {list(self.names[1:])}, '')"


class _Version:
    """The networks of one IP version: numbers by prefix, for each length that occurs."""

    def __init__(self, networks: Sequence[Network], numbers: Mapping[Network, int]) -> None:
        self._index = Networks(networks)
        self._number_of = np.array([*(numbers[each] for each in networks), 0])  # the last: NONE
        self._count = 1 + max(numbers.values(), default=0)
        by_length: dict[int, dict[int, int]] = {}
        for network in networks:
            prefix = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            by_length.setdefault(network.prefixlen, {})[prefix] = numbers[network]
        self._by_length = _fewer_lengths(by_length)
        self._version = networks[0].version if networks else 0

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the numbers of addresses of this version."""
        assert NONE == -1  # noqa: S101  the last number
        return np.asarray(self._number_of[self._index.find(addresses)])

    def arrays(self) -> Iterator[tuple[str, str]]:
        """Go through the arrays that `sql` names, with their names."""
        for rank, (length, numbers) in enumerate(self._by_length.items()):
            values = [rank * self._count + number for number in numbers.values()]
            yield self._name("Values", length), _array(values)
            if length <= _HALF:
                yield self._name("Keys", length), _array(numbers)
                continue
            highs, lows = self._halves(length)
            yield self._name("Highs", length), _array(highs)
            yield self._name("Lows", length), _array(lows)
            shift = length - _HALF
            keys = [
                highs[prefix >> shift] << 16 | lows[prefix & ((1 << shift) - 1)]
                for prefix in numbers
            ]
            yield self._name("Keys", length), _array(keys)

    def sql(self, high: str, low: str) -> str:
        """Return the number of an address, of which these are the halves (UInt64).

        An IPv4 address is the first half of one.
        """
        terms = [self._term(length, high, low) for length in self._by_length]
        if not terms:
            return "0"
        found = terms[0]
        for term in terms[1:]:
            found = f"greatest({found}, {term})"
        return f"modulo({found}, {self._count})"

    def _term(self, length: int, high: str, low: str) -> str:
        values = self._name("Values", length)
        if not length:
            return f"arrayElement({values}, 1)"
        keys = self._name("Keys", length)
        if length <= _HALF:
            return f"transform({_shifted(high, length)}, {keys}, {values}, 0)"
        # Two halves of 64 bits are no key of `transform`; the places that they have in lists are.
        highs, lows = self._halves(length)
        one = _place(high, self._name("Highs", length), len(highs))
        other = _place(_shifted(low, length - _HALF), self._name("Lows", length), len(lows))
        return f"transform({one} * 65536 + {other}, {keys}, {values}, 0)"

    def _halves(self, length: int) -> tuple[dict[int, int], dict[int, int]]:
        """Return the places, from 1, of the distinct halves of the prefixes of a length."""
        shift = length - _HALF
        prefixes = self._by_length[length]
        highs = dict.fromkeys(prefix >> shift for prefix in prefixes)
        lows = dict.fromkeys(prefix & ((1 << shift) - 1) for prefix in prefixes)
        return _placed(highs), _placed(lows)

    def _name(self, what: str, length: int) -> str:
        return f"networkV{self._version}L{length}{what}"


def _fewer_lengths(by_length: Mapping[int, Mapping[int, int]]) -> dict[int, dict[int, int]]:
    """Return the same by fewer lengths, in order.

    A prefix is the same as all prefixes of a greater length that begin with it, but for those that
    are there themselves. A length less is a look-up less for each record; what it takes is room in
    the statement, so the lengths that cost least are joined while there is some (controlled prefix
    expansion: Srinivasan and Varghese, "Fast address lookups using controlled prefix expansion",
    1999).
    """
    levels = {length: dict(by_length[length]) for length in sorted(by_length)}
    entries = sum(map(len, levels.values()))
    room = max(SPARE_ENTRIES, entries // 4)
    while True:
        costs = [
            (len(levels[short]) * ((1 << long - short) - 1), short, long)
            for short, long in pairwise(levels)
            if (short <= _HALF) == (long <= _HALF)
        ]
        cost, short, long = min(costs, default=(room + 1, 0, 0))
        if cost > room:
            return levels
        room -= cost
        ends = range(1 << long - short)
        joined = {
            prefix << long - short | end: number
            for prefix, number in levels.pop(short).items()
            for end in ends
        }
        levels[long] = joined | levels[long]


def _placed(values: Iterable[int]) -> dict[int, int]:
    return {value: place for place, value in enumerate(values, 1)}


def _place(value: str, array: str, count: int) -> str:
    places = _array(range(1, count + 1))
    return f"toUInt64(transform({value}, {array}, {places}, 0))"


def _shifted(half: str, length: int) -> str:
    return half if length == _HALF else f"bitShiftRight({half}, {_HALF - length})"


def _array(values: Iterable[int]) -> str:
    return f"[{','.join(map(str, values))}]"


class _InForce:
    """Those that the process has been told of: what a name means is the same for all who ask."""

    names = NetworkNames()


def in_force() -> NetworkNames:
    """Return the names of now; who asks more than once holds on to them."""
    return _InForce.names


def enforce(names: NetworkNames) -> None:
    """Have these be the names from now on."""
    _InForce.names = names
