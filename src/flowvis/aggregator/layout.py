"""The row of a live flow, and the program that merges records into it: both from the fields table.

Rows, not columns: a record touches one random flow and most of its fields. As a row that is a
dozen adjacent cache lines, as columns it would be sixty misses.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowvis.fields import EXPORTED, FIELDS, Field, Kind, Merge, Side
from flowvis.native.merge_reference import Counter, Half, Op, Program, Step, Tally

HEADER = (
    ("sideStart", np.dtype((np.uint64, (2,)))),
    ("sideEnd", np.dtype((np.uint64, (2,)))),
    ("writtenAt", np.dtype(np.int64)),
    ("intervalStart", np.dtype(np.uint64)),
)
"""What the merge keeps beside the record: ms per (source, destination), of the last write, and
where the interval began that is being counted."""

_OPS = {
    Merge.KEY: Op.KEY,
    Merge.START: Op.EARLIEST,
    Merge.END: Op.GREATEST,
    Merge.REASON: Op.REASON,
    Merge.LATEST: Op.LATEST,
    Merge.FILL: Op.FILL,
    Merge.FLOW_TYPE: Op.FLOW_TYPE,
}
_INTERVAL = (Merge.DELTA, Merge.RATE)  # zero again when written; together at the end of the row
_SIDES = (Side.SOURCE, Side.DESTINATION)
_BITS = {Side.COMMON: Half.BOTH, Side.SOURCE: Half.SOURCE, Side.DESTINATION: Half.DESTINATION}

HELD: tuple[Field, ...] = tuple(
    sorted(
        (field for field in FIELDS if field.merge is not Merge.ADDED),
        key=lambda field: (field.merge in _INTERVAL, -field.kind.dtype.itemsize),
    )
)
"""The fields that a row holds, in its order."""


def _base(field: Field) -> str:
    """The exporter's name of what an aggregated field counts or times: without its node."""
    return field.name.removesuffix(f"From{field.side.value.capitalize()}Node")


_COUNTED = tuple(f.name for f in FIELDS if f.merge is Merge.TOTAL and f.side is Side.COMMON)


def _row() -> np.dtype[np.void]:
    """The row's type; whole words, so that every number in it stays aligned."""
    lasts = [(last(name, side), np.dtype(np.uint64)) for name in _COUNTED for side in _SIDES]
    types = [*HEADER, *lasts]
    offset = sum(dtype.itemsize for _, dtype in types)
    held = [(f.name, np.dtype((f.kind.dtype, f.kind.shape))) for f in HELD]
    numbers = [f.merge in _INTERVAL for f in HELD].index(True)
    for name, dtype in held[:numbers]:
        types.append((name, dtype))
        offset += dtype.itemsize
    padding = -offset % 8
    if padding:
        types.append(("padding", np.dtype((np.void, padding))))
    return np.dtype(types + held[numbers:])


def last(counter: str, side: Side) -> str:
    """The name, in the row, of a counter as one side last reported it."""
    return f"{counter}/{side.value}"


ROW = _row()
COLUMNS: tuple[Field, ...] = EXPORTED
"""The columns that the program reads."""


def _offset(name: str) -> int:
    fields: Mapping[str, Any] = ROW.fields or {}
    return int(fields[name][1])


def _tally(counter: str, side: Side) -> Tally:
    """Where one side's, or the common, tallies of a counter are."""
    total = next(
        f for f in FIELDS if f.merge is Merge.TOTAL and f.side is side and _base(f) == counter
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
        if field.kind is Kind.ADDRESS and op is Op.FILL:
            op = Op.FILL_ADDRESS
        size = ROW[field.name].itemsize
        column = place[_base(field)]
        steps.append(Step(op, column, _offset(field.name), size, _BITS[field.side]))
    counters = [
        Counter(
            place[name],
            place[next(f.name for f in FIELDS if f.counter == name and f.merge is Merge.DELTA)],
            _tally(name, Side.COMMON),
            (_tally(name, Side.SOURCE), _tally(name, Side.DESTINATION)),
        )
        for name in _COUNTED
    ]
    widths = tuple(np.dtype((f.kind.dtype, f.kind.shape)).itemsize for f in COLUMNS)
    return Program(ROW.itemsize, widths, tuple(steps), tuple(counters))


PROGRAM = _program()

INTERVAL_OFFSET = min(_offset(field.name) for field in HELD if field.merge in _INTERVAL)
"""Where the part of the row begins that is zero again when it was written."""
