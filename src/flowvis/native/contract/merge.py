"""The contract of the merge leaf: what a row is, what a program says, what comes in.

A row is bytes: a header (see `Header`), then what the program says. The program comes from the
fields table; nothing here knows a field by name. Rows are zero when their flow begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEVER = (1 << 63) - 1
"""`due` of a flow that has nothing to write."""

END_OF_FLOW = 3  # flowEndReason (IANA element 136)
FROM_EXTERNAL = 4  # flowType
MAX_U64 = (1 << 64) - 1


class Sides:
    """Bits that say what a record is: whose view it gives, and whether it is all there is."""

    SOURCE = 1
    DESTINATION = 2
    BOTH = 3
    CLIENT = 4
    """The 5-tuple names the client better than the other half's does."""
    CORRELATE = 8
    """Another node has the other half."""


class FlowState:
    """Bits of a live flow's state; SOURCE and DESTINATION as in `Sides`, shifted."""

    LIVE = 1
    SIDES = 1
    SOURCE = 2
    DESTINATION = 4
    CORRELATE = 8
    UNWRITTEN = 16
    WRITTEN = 32
    """Written at least once."""
    COMPLETE = 64
    """Written at least once with all its halves."""
    PREVIOUS = 128
    """An earlier connection of the same 5-tuple is in the table as well."""
    ENDS = 8
    SOURCE_ENDED = 256
    DESTINATION_ENDED = 512
    ONCE = 1024
    """Forgotten as soon as it is written."""


class Count(IntEnum):
    """Places in the array of counts."""

    HELD = 0
    MERGED = 1
    LATE = 2
    REPEATED = 3
    RESTARTED = 4


class Header:
    """Offsets in a row: two starts and two ends in ms, of (source, destination); last write."""

    START = 0
    END = 16
    WRITTEN_AT = 32
    SIZE = 40


class MergeOp(IntEnum):
    """What a step does with a record's value and the row's."""

    KEY = 0
    """Copy at the beginning, and from a half that names the client."""
    EARLIEST = 1
    """The smaller; 0 is unset."""
    GREATEST = 2
    REASON = 3
    """From the record with the latest end; END_OF_FLOW stays."""
    LATEST = 4
    """From the record with the latest end, if it is not 0."""
    FILL = 5
    """Copy what is not 0."""
    FILL_ADDRESS = 6
    """Copy what is neither :: nor 0.0.0.0."""
    FLOW_TYPE = 7
    """Copy what is not 0; FROM_EXTERNAL stays."""


SIZES: dict[MergeOp, tuple[int, ...]] = {
    MergeOp.KEY: (1, 2, 4, 8, 16),
    MergeOp.FILL_ADDRESS: (16,),
    MergeOp.REASON: (1,),
    MergeOp.FLOW_TYPE: (1,),
}
"""Bytes of the values that an operation takes; the others take numbers of 1, 2, 4 or 8."""


@dataclass(frozen=True)
class MergeStep:
    """One column into one field of the row, for records that give one of the `sides`."""

    op: MergeOp
    column: int
    offset: int
    size: int
    sides: int = Sides.BOTH


@dataclass(frozen=True)
class Tally:
    """Offsets of one counter's u64 fields for one side or in common; `rate` -1: has none."""

    total: int
    delta: int
    rate: int = -1
    last: int = -1
    """The counter as that side last reported it; -1 in common."""


@dataclass(frozen=True)
class Counter:
    """One counter: its columns, and where its tallies are."""

    total: int
    delta: int
    common: Tally
    sides: tuple[Tally, Tally]


@dataclass(frozen=True)
class Program:
    """All that is done with a record. `widths`: bytes per value of each column."""

    row_size: int
    widths: tuple[int, ...]
    steps: tuple[MergeStep, ...]
    counters: tuple[Counter, ...]


@dataclass(frozen=True)
class Flows:
    """The live flows: arrays of one length, one place per slot."""

    rows: NDArray[np.uint8]  # (n, row_size)
    state: NDArray[np.uint64]
    due: NDArray[np.int64]  # ms: when to write; NEVER without anything to write
    seen: NDArray[np.int64]  # ms: when a record came last


@dataclass(frozen=True)
class Records:
    """What comes in: the program's columns, and what was found out about each record."""

    columns: Sequence[NDArray[Any]]
    starts: NDArray[np.uint64]  # ms
    ends: NDArray[np.uint64]  # ms
    reasons: NDArray[np.uint8]
    sides: NDArray[np.uint8]
    slots: NDArray[np.int64]


def same_start(known: int, start: int) -> bool:
    """Whether two starts in ms are of one connection: some exporters know whole seconds only."""
    if known == start or not known or not start:
        return True
    return (known % 1000 == 0 or start % 1000 == 0) and abs(known - start) < 1000


def check_program(program: Program) -> None:
    """Raise ValueError unless every step fits its column and stays within the row."""
    for step in program.steps:
        sizes = SIZES.get(step.op, (1, 2, 4, 8))
        if step.size not in sizes or program.widths[step.column] != step.size:
            raise ValueError(f"{step}: sizes are {sizes}, as wide as the column")
    places = [(step.offset, step.size) for step in program.steps]
    for counter in program.counters:
        if not program.widths[counter.total] == program.widths[counter.delta] == 8:
            raise ValueError(f"{counter}: columns are not 8 bytes wide")
        for tally in (counter.common, *counter.sides):
            numbers = (tally.total, tally.delta, tally.rate, tally.last)
            places += [(offset, 8) for offset in numbers if offset >= 0]
    if any(offset < Header.SIZE or offset + size > program.row_size for offset, size in places):
        raise ValueError("a step reaches outside of its row")


def check_flows(program: Program, flows: Flows) -> None:
    """Raise ValueError unless the program is sound and the arrays fit it and each other."""
    check_program(program)
    expected = (len(flows.rows), program.row_size)
    if flows.rows.shape != expected or not flows.rows.flags.c_contiguous:
        raise ValueError(f"rows of shape {flows.rows.shape}: need {expected}, contiguous")
    if {len(flows.state), len(flows.due), len(flows.seen)} != {len(flows.rows)}:
        raise ValueError("arrays of flows differ in length")


def check_records(program: Program, flows: Flows, records: Records) -> None:
    """Raise ValueError unless the columns are what the program was made for."""
    n = len(records.slots)
    if [column.nbytes for column in records.columns] != [n * width for width in program.widths]:
        raise ValueError(f"columns: need {n} values of {program.widths} bytes")
    others = (records.starts, records.ends, records.reasons, records.sides)
    if {len(column) for column in (*records.columns, *others)} != {n}:
        raise ValueError("columns differ in length")
    if n and int(records.slots.max()) >= len(flows.rows):
        raise ValueError(f"slot {int(records.slots.max())}: there are {len(flows.rows)}")
