"""The merge leaf in plain Python: records into the rows of live flows."""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.merge import (
    END_OF_FLOW,
    FROM_EXTERNAL,
    MAX_U64,
    Count,
    Counter,
    Flows,
    FlowState,
    Header,
    MergeOp,
    MergeStep,
    Program,
    Records,
    Sides,
    Tally,
    check_flows,
    check_records,
    same_start,
)


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
        entry.add_up(self._program.counters)
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
        self._adds = False
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

    def add_up(self, counters: Sequence[Counter]) -> None:
        """Note whether the record has deltas without totals, each of which is something new."""
        self._adds = any(not self.number(c.total) and self.number(c.delta) for c in counters)

    def is_late(self, side: int) -> bool:
        if self._adds:
            return False
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
            if not self.seen >> side & 1 or later or more or ends or self._adds:
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
        given = self.number(counter.total)
        own = self.number(counter.delta)
        own = min(own, given) if given else own
        common = before = self.get(counter.common.total)
        restarted = False
        rate = None
        for side in _each(news):
            tally = counter.sides[side]
            since = self.get(Header.END + 8 * side)
            total = given or own
            if self.seen >> side & 1:
                last = self.get(tally.last)
                total = given or min(last + own, MAX_U64)
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
        self._count_common(counter.common, (given or own, own), (before, common), news)
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
            self.put(Header.END + 8 * side, max(self.end, self.get(Header.END + 8 * side)))
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
