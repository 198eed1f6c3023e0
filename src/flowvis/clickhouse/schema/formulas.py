"""What the store does not keep because it follows from the rest, and how.

Most numbers of a flow record can be guessed from others: what one node counted is what both
counted, a rate is the delta over the interval. A derived column is stored as its residual, the
difference between value and prediction, which is nearly always 0 and compresses to nothing. All
arithmetic is modulo 2^64, so any value comes back exactly, guessed well or not.

Each prediction is written once and read twice: with numpy columns, when records are written, and
with `Sql`, when the view that undoes it is made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.fields import FIELDS, Field, Merge, Side

RATE_INTERVAL = "rateIntervalMilliseconds"
"""Stored, and of no field: the milliseconds that throughput was computed over."""

NODE_INTERVALS = {
    Side.SOURCE: "sourceRateIntervalResidual",
    Side.DESTINATION: "destinationRateIntervalResidual",
}
"""The same of the nodes' throughput: by how much theirs are less, 0 in records of
before. Nodes read their counters at moments of their own."""

INSERTED = "timeInserted"
BITS_PER_OCTET_MS = 8000  # octets in a millisecond -> bits in a second


class Operands(Protocol):
    """The columns of a formula by name, all UInt64."""

    def __getitem__(self, name: str, /) -> Any:
        """Return a column."""

    def only_if(self, name: str, value: Any) -> Any:
        """Return the value where a column is not 0, else 0."""


class Numeric(dict[str, Column]):
    """Operands that are columns of a batch, each converted once."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._masks: dict[str, Column] = {}

    def __missing__(self, name: str) -> Column:
        values = self[name] = self._columns[name].astype(np.uint64, copy=False)
        return values

    def only_if(self, name: str, value: Any) -> Any:
        """See `Operands`."""
        if name not in self._masks:
            self._masks[name] = np.uint64(0) - (self._columns[name] != 0)
        return value & self._masks[name]


class Sql:
    """A ClickHouse expression of type UInt64 that is built by the operators of numpy arrays."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _with(self, other: "Sql | int", form: str) -> "Sql":
        return Sql(form.format(self.text, other.text if isinstance(other, Sql) else other))

    def __add__(self, other: "Sql | int") -> "Sql":
        return self._with(other, "toUInt64({} + {})")

    def __sub__(self, other: "Sql | int") -> "Sql":
        return self._with(other, "toUInt64({} - {})")  # a difference of UInt64 is an Int64

    def __mul__(self, other: "Sql | int") -> "Sql":
        return self._with(other, "toUInt64({} * {})")


def over(dividend: Any, divisor: Any) -> Any:
    """Divide whole numbers, rounding down; 0 where the divisor is 0."""
    if isinstance(dividend, Sql):
        return Sql(
            f"if({divisor.text} = 0, toUInt64(0),"
            f" intDiv({dividend.text}, greatest({divisor.text}, 1)))"
        )
    quotient = dividend // np.maximum(divisor, np.uint64(1))
    quotient[divisor == 0] = 0
    return quotient


@dataclass(frozen=True, slots=True)
class Derived:
    """A column that is stored as its residual."""

    name: str
    predict: Callable[[Operands], Any]
    """Computes the prediction from operands by name, all UInt64."""
    below: bool
    """True where the value is mostly below its prediction: residual = prediction - value."""
    seconds: bool = False
    """A DateTime; its residual is a UInt32, and its arithmetic modulo 2^32."""

    @property
    def stored(self) -> str:
        """The name of the stored column."""
        return f"{self.name}Residual"

    def residual(self, values: Column, operands: Operands) -> Column:
        """Return what to store for the values."""
        predicted = self.predict(operands)
        rest = predicted - values if self.below else values - predicted
        return rest.astype(np.uint32) if self.seconds else np.asarray(rest)

    def sql(self) -> str:
        """Return the expression that gives the value back."""
        stored, names = Sql(self.stored), SqlNames()
        predicted = self.predict(names)
        value = predicted - stored if self.below else predicted + stored
        return f"toDateTime(toUInt32({value.text}))" if self.seconds else str(value.text)


def _is_quotient(values: Column, dividend: Column, divisor: Column) -> NDArray[np.bool_]:
    """Whether values are those of `over`; of large numbers, or 0, this may say no."""
    small = (values < _LARGE_QUOTIENT) & (divisor < _LARGE_DIVISOR)  # whose product is no number
    return np.asarray((dividend - values * divisor < divisor) & small)


_LARGE_QUOTIENT, _LARGE_DIVISOR = 1 << 40, 1 << 24  # a terabit a second, four hours


class SqlNames(dict[str, Sql]):
    """Operands for SQL: each column by its name."""

    def __missing__(self, name: str) -> Sql:
        return Sql(f"toUInt64({name})")

    def only_if(self, name: str, value: Any) -> Any:
        """See `Operands`."""
        return Sql(f"if({self[name].text} = 0, toUInt64(0), {value.text})")


def _directions(side: Side) -> tuple[tuple[str, str], ...]:
    """The octets of both directions, as a side counted them, and their throughput."""
    suffix = "" if side is Side.COMMON else f"From{side.value.capitalize()}Node"
    names = (("octetDeltaCount", "throughput"), ("reverseOctetDeltaCount", "reverseThroughput"))
    return tuple((counter + suffix, rate + suffix) for counter, rate in names)


def rates(operands: Numeric, lasted: Column | None) -> dict[str, Column]:
    """Return the stored columns of all throughput, with the intervals (ms) that explain it.

    One interval explains both directions of a side. The common one is what the record `lasted`
    where that is known and does: the end follows from it then. The nodes' are the common one where
    that does. `operands` get the intervals.
    """
    found: dict[str, Column] = {}
    common = operands[RATE_INTERVAL] = _rates_of(Side.COMMON, operands, lasted, found)
    for side, name in NODE_INTERVALS.items():
        operands[name] = common - _rates_of(side, operands, common, found)
    return found | {name: operands[name] for name in (RATE_INTERVAL, *NODE_INTERVALS.values())}


def _rates_of(
    side: Side, operands: Operands, known: Column | None, found: dict[str, Column]
) -> Column:
    """Find the stored columns of a side's throughput; return the interval that explains it.

    That is the `known` one where it does; else the busier direction tells it best. Where that is
    not the very interval that the aggregator used, it gives the same throughput.
    """
    ways = [
        (
            DERIVED[throughput],
            operands[counter] * np.uint64(BITS_PER_OCTET_MS),
            operands[throughput],
        )
        for counter, throughput in _directions(side)
    ]
    if known is None:
        rest = np.arange(len(ways[0][1]))
        interval = np.zeros(len(rest), np.uint64)
    else:
        explained = _is_quotient(ways[0][2], ways[0][1], known)
        explained &= _is_quotient(ways[1][2], ways[1][1], known)
        rest = np.flatnonzero(~explained)
        interval = known.copy()
    unexplained = [(rule, bits[rest], rate[rest]) for rule, bits, rate in ways]
    (_, bits, rate), (_, reply_bits, reply_rate) = unexplained
    told = interval[rest] = _of_the_busier(bits, rate, reply_bits, reply_rate)
    for rule, bits, rate in unexplained:
        residual = found[rule.stored] = np.zeros(len(interval), np.uint64)
        residual[rest] = rate - over(bits, told)
    return interval


def _of_the_busier(bits: Column, rate: Column, reply_bits: Column, reply_rate: Column) -> Column:
    ahead = bits >= reply_bits
    return np.asarray(over(np.where(ahead, bits, reply_bits), np.where(ahead, rate, reply_rate)))


def _derived(field: Field) -> Derived | None:
    """Return how a field is derived, or None where it is stored as it is."""
    make = _RULES.get((field.merge, field.side is Side.COMMON))
    if field.name == "monitoringIntervalStartMilliSeconds":
        make = _interval_start
    return make(field) if make else None


def _common(field: Field) -> str:
    return field.name.removesuffix(f"From{field.side.value.capitalize()}Node")


def _if_seen(field: Field, operands: Operands, value: Any) -> Any:
    """Return the value where the field's node reported at all."""
    return operands.only_if(f"flowEndSecondsFrom{field.side.value.capitalize()}Node", value)


def _total(field: Field) -> Derived:
    """A total is the delta and what was before, which is 0 in a connection's first record."""
    delta = field.name.replace("Total", "Delta")
    return Derived(field.name, lambda of: of[delta], below=False)


def _node_total(field: Field) -> Derived:
    """The common total is the larger of the nodes' totals."""
    total = _common(field)
    return Derived(field.name, lambda of: _if_seen(field, of, of[total]), below=True)


def _node_delta(field: Field) -> Derived:
    """A node's delta is its total less what was before, which is about what was before for both."""
    total, common = str(field.counter), _common(field)
    common_total = common.replace("Delta", "Total")
    return Derived(
        field.name,
        lambda of: of[total] - _if_seen(field, of, of[common_total] - of[common]),
        below=False,
    )


def _rate(field: Field) -> Derived:
    """A rate is what the octets of the same side grew by over the side's interval; see `rates`."""
    delta, apart = str(field.counter).replace("Total", "Delta"), NODE_INTERVALS.get(field.side)

    def predict(of: Operands) -> Any:
        interval = of[RATE_INTERVAL] - of[apart] if apart else of[RATE_INTERVAL]
        return over(of[delta] * BITS_PER_OCTET_MS, interval)

    return Derived(field.name, predict, below=False)


def _node_end(field: Field) -> Derived:
    """The common end is the later of the nodes' ends."""
    return Derived(field.name, lambda of: of["flowEndSeconds"], below=True, seconds=True)


def _interval_start(field: Field) -> Derived:
    return Derived(
        field.name, lambda of: of["flowEndSeconds"] * 1000 - of[RATE_INTERVAL], below=True
    )


_RULES: dict[tuple[Merge, bool], Callable[[Field], Derived]] = {
    (Merge.TOTAL, True): _total,
    (Merge.TOTAL, False): _node_total,
    (Merge.DELTA, False): _node_delta,
    (Merge.RATE, True): _rate,
    (Merge.RATE, False): _rate,
    (Merge.END, False): _node_end,
}

DERIVED: dict[str, Derived] = {
    rule.name: rule for field in FIELDS if field.stored and (rule := _derived(field))
}
DERIVED[INSERTED] = Derived(INSERTED, lambda of: of["flowEndSeconds"], below=False, seconds=True)
