"""The row of a live flow, and the program that merges records into it: both from the fields table.

Rows, not columns: a record touches one random flow and most of its fields. As a row that is a
dozen adjacent cache lines, as columns it would be sixty misses.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowvis.fields import EXPORTED, FIELDS, Field, Kind, Merge, Side
from flowvis.native.contract.merge import Counter, MergeOp, MergeStep, Program, Sides, Tally

CACHE_LINE = 64

HEADER = (
    ("sideStart", np.dtype((np.uint64, (2,)))),
    ("sideEnd", np.dtype((np.uint64, (2,)))),
    ("writtenAt", np.dtype(np.int64)),
    ("intervalStart", np.dtype(np.uint64)),
    ("exporters", np.dtype((np.uint32, (2,)))),
    ("written", np.dtype(np.uint32)),
    ("aligned", np.dtype(np.uint32)),
)
"""What the merge keeps beside the record: ms per (source, destination), of the last write, and
where the interval began that is being counted; which exporter gives each side; how many records
were written."""

_OPS = {
    Merge.KEY: MergeOp.KEY,
    Merge.START: MergeOp.EARLIEST,
    Merge.END: MergeOp.GREATEST,
    Merge.REASON: MergeOp.REASON,
    Merge.LATEST: MergeOp.LATEST,
    Merge.FILL: MergeOp.FILL,
    Merge.FLOW_TYPE: MergeOp.FLOW_TYPE,
}
_KEYS = {Side.SOURCE: MergeOp.SOURCE_KEY, Side.DESTINATION: MergeOp.DESTINATION_KEY}
SIDES = (Side.SOURCE, Side.DESTINATION)
_BITS = {Side.COMMON: Sides.BOTH, Side.SOURCE: Sides.SOURCE, Side.DESTINATION: Sides.DESTINATION}


def base(field: Field) -> str:
    """The exporter's name of what an aggregated field counts or times: without its node."""
    return field.name.removesuffix(f"From{field.side.value.capitalize()}Node")


COUNTED = tuple(f.name for f in FIELDS if f.merge is Merge.TOTAL and f.side is Side.COMMON)
_INTERVAL = (Merge.DELTA, Merge.RATE)  # zero again when written: one block of the row


def _fields(*merges: Merge, side: Side | None = None) -> list[Field]:
    """The fields with these merges, of one side or of all."""
    return [f for f in FIELDS if f.merge in merges and side in {None, f.side}]


def _order() -> list[str | Field]:
    """The row after its header: names of last counters, and fields.

    What each record changes comes first, what is one side's together: a half then leaves most of
    the row as it is, and less goes back to memory. The large come before the small.
    """
    common, source, destination = Side.COMMON, Side.SOURCE, Side.DESTINATION
    counted: list[str | Field] = [
        *(last(name, source) for name in COUNTED),
        *_fields(Merge.TOTAL, side=source),
        *_fields(Merge.TOTAL, side=common),
        *_fields(Merge.TOTAL, side=destination),
        *(last(name, destination) for name in COUNTED),
    ]
    times = sorted(_fields(Merge.START, Merge.END), key=_size, reverse=True)
    words = [field for field in times if _size(field) == 8]
    interval = [f for side in (source, common, destination) for f in _fields(*_INTERVAL, side=side)]
    changing = {f.name for f in (*times, *interval, *_fields(Merge.TOTAL))}
    rest = [f for f in FIELDS if f.merge is not Merge.ADDED and f.name not in changing]
    rest.sort(key=lambda field: field.kind.dtype.itemsize, reverse=True)
    return [*counted, *words, *interval, *times[len(words) :], *rest]


def _size(field: Field) -> int:
    return _type(field).itemsize


def _type(field: Field) -> np.dtype[Any]:
    return np.dtype((field.kind.dtype, field.kind.shape))


def _row() -> np.dtype[np.void]:
    """The row's type, as long as whole cache lines."""
    types = [*HEADER]
    for item in _order():
        if isinstance(item, str):
            types.append((item, np.dtype(np.uint64)))
        else:
            types.append((item.name, _type(item)))
    padding = -np.dtype(types).itemsize % CACHE_LINE
    return np.dtype([*types, ("padding", np.dtype((np.void, padding)))])


def last(counter: str, side: Side) -> str:
    """The name, in the row, of a counter as one side last reported it."""
    return f"{counter}/{side.value}"


ROW = _row()
HELD: tuple[Field, ...] = tuple(f for f in FIELDS if f.name in (ROW.names or ()))
"""The fields that a row holds."""

COLUMNS: tuple[Field, ...] = EXPORTED
"""The columns that the program reads."""


def _offset(name: str) -> int:
    fields: Mapping[str, Any] = ROW.fields or {}
    return int(fields[name][1])


def _tally(counter: str, side: Side) -> Tally:
    """Where one side's, or the common, tallies of a counter are."""
    total = next(
        f for f in FIELDS if f.merge is Merge.TOTAL and f.side is side and base(f) == counter
    )
    of_total = {f.merge: f for f in FIELDS if f.counter == total.name}
    rate = of_total.get(Merge.RATE)
    return Tally(
        total=_offset(total.name),
        delta=_offset(of_total[Merge.DELTA].name),
        rate=_offset(rate.name) if rate else -1,
        last=_offset(last(counter, side)) if side is not Side.COMMON else -1,
    )


def _program() -> Program:
    """Compile the fields table."""
    place = {field.name: at for at, field in enumerate(COLUMNS)}
    steps = []
    for field in HELD:
        op = _OPS.get(field.merge)
        if op is None:
            continue
        if op is MergeOp.KEY:
            op = next((_KEYS[side] for side in SIDES if field.name.startswith(side.value)), op)
        if field.kind is Kind.ADDRESS and op is MergeOp.FILL:
            op = MergeOp.FILL_ADDRESS
        size = ROW[field.name].itemsize
        column = place[base(field)]
        steps.append(MergeStep(op, column, _offset(field.name), size, _BITS[field.side]))
    counters = [
        Counter(
            place[name],
            place[next(f.name for f in FIELDS if f.counter == name and f.merge is Merge.DELTA)],
            _tally(name, Side.COMMON),
            (_tally(name, Side.SOURCE), _tally(name, Side.DESTINATION)),
        )
        for name in COUNTED
    ]
    widths = tuple(_size(field) for field in COLUMNS)
    of_interval = [_offset(field.name) for field in _fields(*_INTERVAL)]
    return Program(
        ROW.itemsize,
        widths,
        tuple(steps),
        tuple(counters),
        end=_offset("flowEndMilliseconds"),
        reason=_offset("flowEndReason"),
        interval=(min(of_interval), max(of_interval) + 8),
    )


PROGRAM = _program()
