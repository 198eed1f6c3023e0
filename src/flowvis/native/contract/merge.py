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
IDLE = 1
INTER_NODE, TO_EXTERNAL, FROM_EXTERNAL = 2, 3, 4  # flowType
MAX_U64 = (1 << 64) - 1

OVERLAP_MS = 1000
"""How long connections of one tuple must have been open at once to be of two kernels for sure, as
none has both. Some exporters know whole seconds only."""

APART_MS = 10_000
"""How much later than another the start of what may be the same connection is, at most: a host's
clock that was set back between two connections makes them overlap by more."""


class Sides:
    """Bits that say what a record is: whose view it gives, and whether it is all there is."""

    SOURCE = 1
    DESTINATION = 2
    BOTH = 3
    CLIENT = 4
    """The tuple names the client better than the other half's does."""
    CORRELATE = 8
    """Another node has the other half."""
    SERVER = 16
    """The tuple names the server better than the other half's does."""
    LEANS = 5
    """Shift of the side, 0 if unknown, that a record of BOTH gives if another gives the other."""
    AGAIN = 128
    """The record before it once more, as the other node counted it: it goes into the same slot, and
    is no other record in the books."""


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
    """An earlier connection of the same 5-tuple is in the table as well, or found no room in it."""
    ENDS = 8
    SOURCE_ENDED = 256
    DESTINATION_ENDED = 512
    ONCE = 1024
    """Forgotten as soon as it is written."""
    REVERSED = 2048
    """The row's source is the second endpoint of the key."""
    SHARED = 4096
    """One exporter gives both sides, as no other has reported the connection."""
    LEANS = 13
    """Shift of `Half`'s side that this exporter's records lean to."""
    OVER = 32768
    """The last record that was written reported an end: of the flow, or idle."""


class Count(IntEnum):
    """Places in the array of counts."""

    HELD = 0
    MERGED = 1
    LATE = 2
    REPEATED = 3
    RESTARTED = 4
    UNCHANGED = 5
    FURTHER = 6


_TAKEN = (Count.HELD, Count.MERGED)


class Header:
    """Offsets in a row: two starts and two ends in ms, of (source, destination); last write, and
    where the interval began that is being counted; the exporters (u32) that give these sides, 0
    where that is not known; how many records were written (u32)."""

    START = 0
    END = 16
    WRITTEN_AT = 32
    INTERVAL_START = 40
    EXPORTERS = 48
    WRITTEN = 56
    SIZE = 64


class MergeOp(IntEnum):
    """What a step does with a record's value and the row's."""

    KEY = 0
    """Copy at the beginning."""
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
    """Copy what is not 0; FROM_EXTERNAL stays, and INTER_NODE is not replaced by TO_EXTERNAL."""
    SOURCE_KEY = 8
    """Copy at the beginning, and from a half that names the client."""
    DESTINATION_KEY = 9
    """Copy at the beginning, and from a half that names the server."""


SIZES: dict[MergeOp, tuple[int, ...]] = {
    MergeOp.KEY: (1, 2, 4, 8, 16),
    MergeOp.SOURCE_KEY: (1, 2, 4, 8, 16),
    MergeOp.DESTINATION_KEY: (1, 2, 4, 8, 16),
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
    end: int
    """Offset of the flow's end, in ms (u64)."""
    reason: int
    """Offset of the reason of that end (u8)."""
    interval: tuple[int, int]
    """From which byte to which one a row is zero again when it was written."""


@dataclass(frozen=True)
class Flows:
    """The live flows: arrays of one length, one place per slot."""

    rows: NDArray[np.uint8]  # (n, row_size)
    state: NDArray[np.uint64]
    due: NDArray[np.int64]  # ms: when to write; NEVER without anything to write
    seen: NDArray[np.int64]  # ms: when a record came last
    cycle: NDArray[np.int64]  # of the oldest record that is to be written, where there is any


@dataclass(frozen=True)
class Records:
    """What comes in: the program's columns, and what was found out about each record."""

    columns: Sequence[NDArray[Any]]
    starts: NDArray[np.uint64]  # ms
    ends: NDArray[np.uint64]  # ms
    reasons: NDArray[np.uint8]
    sides: NDArray[np.uint8]
    slots: NDArray[np.int64]
    exporters: NDArray[np.uint32]
    """0: not known."""
    reversed: NDArray[np.bool_]
    """Whether the record's source is the second endpoint of its key."""
    cycle: int = 0
    """The cycle in which they came."""


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
    first, last = program.interval
    places += [(program.end, 8), (program.reason, 1), (first, last - first)]
    if any(offset < Header.SIZE or offset + size > program.row_size for offset, size in places):
        raise ValueError("a step reaches outside of its row")


def check_flows(program: Program, flows: Flows) -> None:
    """Raise ValueError unless the program is sound and the arrays fit it and each other."""
    check_program(program)
    expected = (len(flows.rows), program.row_size)
    if flows.rows.shape != expected or not flows.rows.flags.c_contiguous:
        raise ValueError(f"rows of shape {flows.rows.shape}: need {expected}, contiguous")
    arrays = (flows.state, flows.due, flows.seen, flows.cycle)
    if {len(array) for array in arrays} != {len(flows.rows)}:
        raise ValueError("arrays of flows differ in length")


def check_slots(flows: Flows, slots: NDArray[np.int64]) -> None:
    """Raise ValueError unless all slots are of the flows."""
    least, most = int(slots.min(initial=0)), int(slots.max(initial=-1))
    if least < 0 or most >= len(flows.rows):
        raise ValueError(f"slots from {least} to {most}: there are {len(flows.rows)}")


def check_records(program: Program, flows: Flows, records: Records) -> None:
    """Raise ValueError unless the columns are what the program was made for."""
    n = len(records.slots)
    if [column.nbytes for column in records.columns] != [n * width for width in program.widths]:
        raise ValueError(f"columns: need {n} values of {program.widths} bytes")
    found = (records.starts, records.ends, records.reasons, records.sides)
    columns = (*records.columns, *found, records.exporters, records.reversed)
    if {len(column) for column in columns} != {n}:
        raise ValueError("columns differ in length")
    if n and int(records.slots.max()) >= len(flows.rows):
        raise ValueError(f"slot {int(records.slots.max())}: there are {len(flows.rows)}")
