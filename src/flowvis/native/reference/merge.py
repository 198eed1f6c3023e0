"""The merge leaf in plain Python: records into the rows of live flows. Contract and oracle.

A row is bytes: a header (see `Header`), then what the program says. The program comes from the
fields table; nothing here knows a field by name. Rows are zero when their flow begins.
"""

import sys
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
    """Bits of a live flow's state; SOURCE and DESTINATION are `Half`'s, shifted by SIDES."""

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


class Merger:
    """Merges records into rows, in order, until one may belong to another connection."""

    def __init__(
        self,
        program: Program,
        flows: Flows,
        counts: NDArray[np.int64],
        active_timeout_ms: int,
        correlation_wait_ms: int,
    ) -> None:
        check_flows(program, flows)
        self._program = program
        self._flows = flows
        self._counts = counts
        self._active_timeout_ms = active_timeout_ms
        self._correlation_wait_ms = correlation_wait_ms

    def merge(self, records: Records, now_ms: int, first: int = 0, resolved: int = -1) -> int:
        """Merge from `first`; return the first record that needs a decision, or their number.

        A decision is needed if the record's start is not the flow's, or could be that of an
        earlier connection. The record at `resolved` goes into its slot as it is. Slots below 0
        are passed over.
        """
        check_records(self._program, self._flows, records)
        for at in range(first, len(records.slots)):
            slot = int(records.slots[at])
            if slot < 0:
                continue
            entry = _Entry(self._flows, slot, records, at)
            sides = entry.sides(decided=at == resolved)
            if sides < 0:
                return at
            self._one(entry, sides, now_ms)
        return len(records.slots)

    def _one(self, entry: "_Entry", sides: int, now_ms: int) -> None:
        self._flows.seen[entry.slot] = now_ms
        lasts = [[c.sides[side].last for c in self._program.counters] for side in (0, 1)]
        totals = [entry.number(c.total) for c in self._program.counters]
        news = entry.news(sides, lasts, totals)
        if not news:
            late = any(entry.is_late(side) for side in _each(sides))
            self._counts[Count.LATE if late else Count.REPEATED] += 1
            return
        entry.correlate(sides)
        restarted = [entry.count(counter, news) for counter in self._program.counters]
        self._counts[Count.RESTARTED] += any(restarted)
        for step in self._program.steps:
            if step.sides & news:
                entry.apply(step)
        entry.note(news)
        self._schedule(entry, now_ms)

    def _schedule(self, entry: "_Entry", now_ms: int) -> None:
        """Say when the flow is to be written, now that it has something to write."""
        state, slot = entry.state, entry.slot
        complete = not state & FlowState.CORRELATE or entry.seen == Sides.BOTH
        ended = state >> FlowState.ENDS & 3 == Sides.BOTH
        if state & FlowState.ONCE or (complete and (ended or not state & FlowState.COMPLETE)):
            due = now_ms
        elif state & FlowState.WRITTEN:
            due = entry.get(Header.WRITTEN_AT) + self._active_timeout_ms
        else:
            due = now_ms + self._correlation_wait_ms
        self._counts[Count.MERGED if state & FlowState.UNWRITTEN else Count.HELD] += 1
        self._flows.due[slot] = min(int(self._flows.due[slot]), due)
        self._flows.state[slot] = state | FlowState.LIVE | FlowState.UNWRITTEN


class _Entry:
    """One record and the row that it goes into."""

    def __init__(self, flows: Flows, slot: int, records: Records, at: int) -> None:
        self.slot = slot
        self.state = int(flows.state[slot])
        self.start = int(records.starts[at])
        self.end = int(records.ends[at])
        self._row = flows.rows[slot]
        self._values = [column[at].tobytes() for column in records.columns]
        self._half = int(records.sides[at])
        self._reason = int(records.reasons[at])
        self._before = self.seen
        self._latest = all(self.end >= self.get(Header.END + 8 * side) for side in (0, 1))

    @property
    def seen(self) -> int:
        """The sides that have reported."""
        return self.state >> FlowState.SIDES & Sides.BOTH

    def get(self, offset: int) -> int:
        return int.from_bytes(self._row[offset : offset + 8].tobytes(), sys.byteorder)

    def put(self, offset: int, value: int) -> None:
        if offset >= 0:
            self._store(offset, min(value, MAX_U64).to_bytes(8, sys.byteorder))

    def number(self, column: int) -> int:
        return int.from_bytes(self._values[column], sys.byteorder)

    def sides(self, *, decided: bool) -> int:
        """The sides that the record speaks for; -1 if it may be of another connection."""
        mask = self._half & Sides.BOTH
        known = mask & self.seen
        same = 0
        for side in _each(known):
            if same_start(self.get(Header.START + 8 * side), self.start):
                same |= 1 << side
        foreign = known and not same
        unsure = not known and self.state & FlowState.PREVIOUS
        if (foreign or unsure) and not decided:
            return -1
        return mask & (same | ~self.seen) or mask

    def is_late(self, side: int) -> bool:
        return bool(self.seen >> side & 1) and self.end < self.get(Header.END + 8 * side)

    def news(self, sides: int, lasts: list[list[int]], totals: list[int]) -> int:
        """Those of the sides that the record tells anything new about."""
        news = 0
        for side in _each(sides):
            if self.is_late(side):
                continue
            more = any(t > self.get(last) for last, t in zip(lasts[side], totals, strict=True))
            later = self.end > self.get(Header.END + 8 * side)
            ends = self._reason == END_OF_FLOW and not self.state >> FlowState.ENDS >> side & 1
            if not self.seen >> side & 1 or later or more or ends:
                news |= 1 << side
        return news

    def correlate(self, sides: int) -> None:
        """A half in a flow that seemed to have none: the other half is still to come."""
        if not self._half & Sides.CORRELATE:
            return
        if self.state & FlowState.LIVE and not self.state & FlowState.CORRELATE:
            self.state &= ~((Sides.BOTH & ~sides) << FlowState.SIDES)
            self.state &= ~((Sides.BOTH & ~sides) << FlowState.ENDS)
        self.state |= FlowState.CORRELATE

    def count(self, counter: Counter, news: int) -> bool:
        """Bring one counter up to date; return whether it had started again from zero."""
        total = self.number(counter.total)
        own = min(self.number(counter.delta), total)
        common = before = self.get(counter.common.total)
        restarted = False
        rate = None
        for side in _each(news):
            tally = counter.sides[side]
            since = self.get(Header.END + 8 * side)
            if self.seen >> side & 1:
                last = self.get(tally.last)
                restarted |= total < last and self.end > since
                gain = total - last if total >= last else total if self.end > since else 0
                moved = gain
                side_total = self.get(tally.total) + gain
                if total >= last or self.end > since:
                    self.put(tally.last, total)
            else:
                since, gain, moved = self.start, own, total
                side_total = max(self.get(tally.total), total)
                self.put(tally.last, total)
            self.put(tally.total, side_total)
            self.put(tally.delta, self.get(tally.delta) + gain)
            common = max(common, self.get(tally.total))
            if self.end > since:
                rate = moved * 8000 // (self.end - since)
                self.put(tally.rate, rate)
        if rate is not None and self._latest:
            self.put(counter.common.rate, rate)
        self._count_common(counter.common, (total, own), (before, common), news)
        return restarted

    def _count_common(
        self, tally: Tally, record: tuple[int, int], common: tuple[int, int], news: int
    ) -> None:
        """Bring the common delta up to date; `record` is total and delta, `common` old and new.

        What the halves reported before this table was, perhaps to its predecessor, is the larger of
        their totals then: each total less its first delta.
        """
        (before, total), delta = common, self.get(tally.delta)
        if not self._before:
            delta = record[1]
        elif news & ~self.seen and not self.state & FlowState.WRITTEN:
            reported = max(before - delta, record[0] - record[1])
            delta = max(total - reported, 0)
        else:
            delta += total - before
        self.put(tally.delta, delta)
        self.put(tally.total, total)

    def apply(self, step: MergeStep) -> None:
        value = self._values[step.column]
        held = self._row[step.offset : step.offset + step.size].tobytes()
        if self._replaces(step.op, value, held):
            self._store(step.offset, value)

    def _replaces(self, op: MergeOp, value: bytes, held: bytes) -> bool:
        new, old = (int.from_bytes(part, sys.byteorder) for part in (value, held))
        rules = {
            MergeOp.KEY: not self._before or bool(self._half & Sides.CLIENT),
            MergeOp.EARLIEST: new != 0 and (old == 0 or new < old),
            MergeOp.GREATEST: new > old,
            MergeOp.REASON: self._latest and old != END_OF_FLOW,
            MergeOp.LATEST: self._latest and new != 0,
            MergeOp.FILL: new != 0,
            MergeOp.FILL_ADDRESS: not is_unset(value),
            MergeOp.FLOW_TYPE: new != 0 and old != FROM_EXTERNAL,
        }
        return rules[op]

    def note(self, news: int) -> None:
        """Remember where the sides are now."""
        for side in _each(news):
            if not self.seen >> side & 1:
                self.put(Header.START + 8 * side, self.start)
            self.put(Header.END + 8 * side, self.end)
            if self._reason == END_OF_FLOW:
                self.state |= 1 << FlowState.ENDS << side
        self.state |= news << FlowState.SIDES

    def _store(self, offset: int, value: bytes) -> None:
        self._row[offset : offset + len(value)] = np.frombuffer(value, dtype=np.uint8)


def is_unset(address: bytes) -> bool:
    """Whether 16 bytes are :: or ::ffff:0.0.0.0."""
    return not any(address[:10] + address[12:]) and address[10:12] in {b"\0\0", b"\xff\xff"}


def _each(sides: int) -> list[int]:
    return [side for side in (0, 1) if sides >> side & 1]


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
