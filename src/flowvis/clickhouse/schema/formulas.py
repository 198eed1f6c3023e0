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
from typing import Any

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
before."""

INSERTED = "timeInserted"
BITS_PER_OCTET_MS = 8000  # octets in a millisecond -> bits in a second

Operands = Mapping[str, Any]


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


def only_if(condition: Any, value: Any) -> Any:
    """Return the value where the condition is not 0, else 0."""
    if isinstance(value, Sql):
        return Sql(f"if({condition.text} = 0, toUInt64(0), {value.text})")
    return np.where(condition != 0, value, np.uint64(0))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Derived):
    """A throughput, which is nearly always what is predicted: then nothing is divided."""

    operands: Callable[[Operands], tuple[Any, Any]]
    """Whose quotient is predicted: bits and an interval."""

    def residual(self, values: Column, operands: Operands) -> Column:
        """Return what to store for the values."""
        bits, interval = self.operands(operands)
        rest = np.flatnonzero(~_is_quotient(values, bits, interval))
        found = np.zeros(len(values), dtype=np.uint64)
        found[rest] = values[rest] - over(bits[rest], interval[rest])
        return found


def _is_quotient(values: Column, dividend: Column, divisor: Column) -> NDArray[np.bool_]:
    """Whether values are those of `over`; of large numbers, or 0, this may say no."""
    small = (values < _LARGE_QUOTIENT) & (divisor < _LARGE_DIVISOR)  # whose product is no number
    return np.asarray((dividend - values * divisor < divisor) & small)


_LARGE_QUOTIENT, _LARGE_DIVISOR = 1 << 40, 1 << 24  # a terabit a second, four hours


class SqlNames(dict[str, Sql]):
    """Operands for SQL: each column by its name."""

    def __missing__(self, name: str) -> Sql:
        return Sql(f"toUInt64({name})")


def _directions(side: Side) -> tuple[tuple[str, str], ...]:
    """The octets of both directions, as a side counted them, and their throughput."""
    suffix = "" if side is Side.COMMON else f"From{side.value.capitalize()}Node"
    names = (("octetDeltaCount", "throughput"), ("reverseOctetDeltaCount", "reverseThroughput"))
    return tuple((counter + suffix, rate + suffix) for counter, rate in names)


def rate_interval(operands: Operands, lasted: Column | None = None) -> Column:
    """Return an interval (ms) that explains the throughput of both directions.

    What the record `lasted`, in ms, where that is known and explains it: the end follows from it
    then.
    """
    return _explaining(operands, Side.COMMON, lasted)


def node_interval(operands: Operands, side: Side) -> Column:
    """Return by how much the interval of a node's throughput is less than RATE_INTERVAL.

    Nodes read their counters at moments of their own. One interval explains both directions.
    """
    common = operands[RATE_INTERVAL]
    return np.asarray(common - _explaining(operands, side, common))


def _explaining(operands: Operands, side: Side, known: Column | None) -> Column:
    """Return the `known` interval where it explains the throughput of a side, or one that does.

    The busier direction tells it best. Where it is not the very interval that the aggregator used,
    it gives the same throughput.
    """
    (bits, rate), (reply_bits, reply_rate) = (
        (operands[counter] * np.uint64(BITS_PER_OCTET_MS), operands[throughput])
        for counter, throughput in _directions(side)
    )
    if known is None:
        return _of_the_busier(bits, rate, reply_bits, reply_rate)
    explained = _is_quotient(rate, bits, known) & _is_quotient(reply_rate, reply_bits, known)
    rest = np.flatnonzero(~explained)
    found = known.copy()
    found[rest] = _of_the_busier(bits[rest], rate[rest], reply_bits[rest], reply_rate[rest])
    return found


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


def _seen(field: Field, operands: Operands) -> Any:
    """Whether the field's node reported at all."""
    return operands[f"flowEndSecondsFrom{field.side.value.capitalize()}Node"]


def _total(field: Field) -> Derived:
    """A total is the delta and what was before, which is 0 in a connection's first record."""
    delta = field.name.replace("Total", "Delta")
    return Derived(field.name, lambda of: of[delta], below=False)


def _node_total(field: Field) -> Derived:
    """The common total is the larger of the nodes' totals."""
    total = _common(field)
    return Derived(field.name, lambda of: only_if(_seen(field, of), of[total]), below=True)


def _node_delta(field: Field) -> Derived:
    """A node's delta is its total less what was before, which is about what was before for both."""
    total, common = str(field.counter), _common(field)
    common_total = common.replace("Delta", "Total")
    return Derived(
        field.name,
        lambda of: of[total] - only_if(_seen(field, of), of[common_total] - of[common]),
        below=False,
    )


def _rate(field: Field) -> Derived:
    """A rate is what the octets of the same side grew by over the side's interval."""
    delta, apart = str(field.counter).replace("Total", "Delta"), NODE_INTERVALS.get(field.side)

    def operands(of: Operands) -> tuple[Any, Any]:
        interval = of[RATE_INTERVAL] - of[apart] if apart else of[RATE_INTERVAL]
        return of[delta] * BITS_PER_OCTET_MS, interval

    return Rate(field.name, lambda of: over(*operands(of)), below=False, operands=operands)


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
