"""The merge leaf in plain Python: records into the rows of live flows."""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.merge import (
    _TAKEN,
    APART_MS,
    END_OF_FLOW,
    FROM_EXTERNAL,
    IDLE,
    INTER_NODE,
    MAX_U64,
    NEVER,
    OVERLAP_MS,
    TO_EXTERNAL,
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
    check_slots,
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
        self._outcome = Count.HELD
        self._cycle = 0
        self.sides = 0
        """Of the record that needs a decision: the sides whose starts are its exporter's own."""
        self.further = False
        """Whether two other exporters give the sides of the flow that it would go into."""

    def merge(self, records: Records, now_ms: int, first: int = 0, resolved: int = -1) -> int:
        """Merge from `first`; return the first record that needs a decision, or their number.

        A decision is needed if the record's source is the flow's destination; if its start is not
        the flow's, or could be that of an earlier connection. The record at `resolved` goes into
        its slot as it is. Slots below 0 are passed over.
        """
        check_records(self._program, self._flows, records)
        self._cycle = records.cycle
        for at in range(first, len(records.slots)):
            slot = int(records.slots[at])
            if slot < 0:
                continue
            entry = _Entry(self._flows, slot, records, at)
            sides = entry.sides(decided=at == resolved or entry.again)
            if sides < 0:
                self.sides, self.further = entry.own_sides, not entry.given
                return at
            self._book(entry, self._one(entry, sides, now_ms))
        return len(records.slots)

    def write(
        self, slots: NDArray[np.int64], now_ms: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.bool_]]:
        """Begin the next interval of flows; return their rows and states as they were before.

        And which of them have a side whose counters began anew: its totals are not what it
        reported last.
        """
        check_slots(self._flows, slots)
        flows, program = self._flows, self._program
        rows, states = flows.rows[slots], flows.state[slots]
        anew = np.array([self._began_anew(row) for row in rows], dtype=bool)
        for slot, state in zip(slots.tolist(), states.tolist(), strict=True):
            row = flows.rows[slot]
            row[slice(*program.interval)] = 0
            row[Header.WRITTEN_AT :][:8].view(np.int64)[0] = now_ms
            row[Header.INTERVAL_START :][:8] = row[program.end :][:8]
            row[Header.WRITTEN :][:4].view(np.uint32)[:] += np.uint32(1)
            flows.state[slot] = _written_state(state, int(row[program.reason]))
            flows.due[slot] = NEVER
        return rows, states, anew

    def _began_anew(self, row: NDArray[np.uint8]) -> bool:
        tallies = [tally for counter in self._program.counters for tally in counter.sides]
        return any(
            row[tally.total :][:8].tobytes() != row[tally.last :][:8].tobytes() for tally in tallies
        )

    def _book(self, entry: "_Entry", outcome: Count) -> None:
        """Count what became of a record; of one that came as two, what became of both."""
        if entry.again:
            if outcome not in _TAKEN or self._outcome in _TAKEN:
                return
            self._counts[self._outcome] -= 1
        self._counts[outcome] += 1
        self._outcome = outcome

    def _one(self, entry: "_Entry", sides: int, now_ms: int) -> Count:
        self._flows.seen[entry.slot] = now_ms
        if not sides:
            self._counts[Count.FURTHER] += 1
            raised = [entry.raise_common(counter) for counter in self._program.counters]
            return self._schedule(entry, now_ms) if any(raised) else Count.REPEATED
        lasts = [[c.sides[side].last for c in self._program.counters] for side in (0, 1)]
        totals = [entry.number(c.total) for c in self._program.counters]
        entry.add_up(self._program.counters)
        news = entry.news(sides, lasts, totals)
        if not news:
            late = any(entry.is_late(side) for side in _each(sides))
            return Count.LATE if late else Count.REPEATED
        entry.share(sides, self._program.counters)
        anew = entry.anew(news, self._program.counters)
        grown = [entry.count(counter, news, anew) for counter in self._program.counters]
        self._counts[Count.RESTARTED] += anew != 0
        for step in self._program.steps:
            if step.sides & news:
                entry.apply(step)
        entry.note(news)
        if entry.adds_nothing(grown=any(grown)):
            self._flows.state[entry.slot] = entry.state
            return Count.UNCHANGED
        return self._schedule(entry, now_ms)

    def _schedule(self, entry: "_Entry", now_ms: int) -> Count:
        """Say when the flow is to be written, now that it has something to write."""
        state, slot = entry.state, entry.slot
        ended = state >> FlowState.ENDS & 3 == Sides.BOTH
        if state & FlowState.ONCE or (entry.complete and (ended or not state & FlowState.COMPLETE)):
            due = now_ms
        elif state & FlowState.WRITTEN:
            due = entry.get(Header.WRITTEN_AT) + self._active_timeout_ms
        else:
            due = now_ms + self._correlation_wait_ms
        self._flows.due[slot] = min(int(self._flows.due[slot]), due)
        if not state & FlowState.UNWRITTEN:
            self._flows.cycle[slot] = self._cycle
        self._flows.state[slot] = state | FlowState.LIVE | FlowState.UNWRITTEN
        return Count.MERGED if state & FlowState.UNWRITTEN else Count.HELD


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
        self._exporter = int(records.exporters[at])
        self._reversed = bool(records.reversed[at])
        self._adds = False
        self.given = self._fresh = 0
        self._latest = all(self.end >= self.get(Header.END + 8 * side) for side in (0, 1))

    @property
    def seen(self) -> int:
        """The sides that have reported."""
        return self.state >> FlowState.SIDES & Sides.BOTH & ~self._fresh

    @property
    def again(self) -> bool:
        """Whether it is the record before it once more."""
        return bool(self._half & Sides.AGAIN)

    @property
    def own_sides(self) -> int:
        """The sides that the record's exporter gives, and that no other one gave until now."""
        return self.given & ~self._fresh

    @property
    def complete(self) -> bool:
        """Whether no half is missing."""
        return not self.state & FlowState.CORRELATE or self.seen == Sides.BOTH

    def get(self, offset: int) -> int:
        return int.from_bytes(self._row[offset : offset + 8].tobytes(), sys.byteorder)

    def put(self, offset: int, value: int) -> None:
        if offset >= 0:
            self._store(offset, min(value, MAX_U64).to_bytes(8, sys.byteorder))

    def number(self, column: int) -> int:
        return int.from_bytes(self._values[column], sys.byteorder)

    def sides(self, *, decided: bool) -> int:
        """The sides that the record gives; -1 if it may be of another connection.

        0: two other exporters report the connection already.
        """
        self.given, self._fresh = self._party()
        self._before = self.seen
        same, known = 0, self.given & self.seen
        for side in _each(known):
            if same_start(self.get(Header.START + 8 * side), self.start):
                same |= 1 << side
        if not decided:
            live = self.state & FlowState.LIVE
            turned = live and bool(self.state & FlowState.REVERSED) != self._reversed
            foreign = known and not same
            unsure = not known and self.state & FlowState.PREVIOUS
            if turned or foreign or unsure or (not self.given and self._later()):
                return -1
        return self.given & (same | ~self.seen) or self.given

    def _later(self) -> bool:
        """Whether the connection began when the flow was over as far as is known."""
        ends = [self.get(Header.END + 8 * side) for side in (0, 1)]
        return self.start > max(ends) + OVERLAP_MS

    def _party(self) -> tuple[int, int]:
        """Return the sides that the record's exporter gives, and which of them is new to it.

        The first exporter of a connection stands for both sides unless its records are halves.
        When another one reports it too, each has a side: that which its records lean to, else the
        first the source's. Any further ones have none.
        """
        mask = self._half & Sides.BOTH
        if not self.state & FlowState.LIVE:
            return mask, 0
        if self.state & FlowState.SHARED:
            side = self._side_of_another()
            return (side, side) if side else (mask, 0)
        return self._one_of_two() if mask == Sides.BOTH else mask, 0

    def _one_of_two(self) -> int:
        """The sides that the exporter of a whole record gives where two exporters have one each."""
        lean = self._half >> Sides.LEANS & Sides.BOTH
        if not self._exporter:
            return lean or Sides.BOTH
        exporters = [self._exporter_of(side) for side in (0, 1)]
        own = sum(1 << side for side in (0, 1) if exporters[side] == self._exporter)
        if own == Sides.BOTH:  # two hosts that nothing but the start tells apart
            starts = [self.get(Header.START + 8 * side) for side in (0, 1)]
            known = sum(1 << side for side in (0, 1) if same_start(starts[side], self.start))
            overlaps = any(self._overlaps(side) for side in (0, 1))
            own = known if known in {1, 2} else 0 if overlaps else Sides.BOTH
        elif not own and lean and not exporters[lean - 1]:
            own = lean
        return own

    def _side_of_another(self) -> int:
        """The side that the record's exporter gets from the one of both; 0: it is that one."""
        mask = self._half & Sides.BOTH
        first, given = self._exporter_of(0), self._exporter
        leaning = self.state >> FlowState.LEANS & Sides.BOTH
        if mask != Sides.BOTH:  # the other half of what leans the other way, or of another node
            known = bool(first and given)
            another = leaning != mask and (first != given if known else leaning != 0)
            return mask if another else 0
        lean = self._half >> Sides.LEANS & Sides.BOTH
        if first and given:
            another = first != given or self._overlaps(0)
        else:
            another = bool(lean and leaning) and lean != leaning
        if not another:
            return 0
        return leaning ^ Sides.BOTH if leaning else lean or Sides.DESTINATION

    def _overlaps(self, side: int) -> bool:
        """Whether the record's connection cannot be another one of the kernel that has a side's."""
        start, end = (self.get(place + 8 * side) for place in (Header.START, Header.END))
        ended = self.state >> FlowState.ENDS >> side & 1 or self._reason == END_OF_FLOW
        return bool(
            not ended
            and not same_start(start, self.start)
            and abs(start - self.start) <= APART_MS
            and min(end, self.end) > max(start, self.start) + OVERLAP_MS
        )

    def _exporter_of(self, side: int) -> int:
        place = Header.EXPORTERS + 4 * side
        return int.from_bytes(self._row[place : place + 4].tobytes(), sys.byteorder)

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

    def share(self, sides: int, counters: Sequence[Counter]) -> None:
        """Note who gives which side of the flow."""
        exporter = self._exporter.to_bytes(4, sys.byteorder)
        if not self.state & FlowState.LIVE:
            self.state |= FlowState.REVERSED * self._reversed
            if sides == Sides.BOTH:
                self.state |= FlowState.SHARED
        elif self._fresh:
            self.state &= ~(
                self._fresh << FlowState.SIDES | self._fresh << FlowState.ENDS | FlowState.SHARED
            )
            side = self._fresh - 1
            for counter in counters:  # they were the other exporter's
                tally = counter.sides[side]
                for place in (tally.total, tally.delta, tally.rate, tally.last):
                    self.put(place, 0)
            self._store(Header.EXPORTERS + 4 * side, exporter)
            self._fresh = 0
        elif self.state & FlowState.SHARED and sides != Sides.BOTH:
            # A half in a flow that seemed to have none: the other half is still to come.
            other = Sides.BOTH & ~sides
            self.state &= ~(other << FlowState.SIDES | other << FlowState.ENDS | FlowState.SHARED)
            self._store(Header.EXPORTERS + 4 * (other - 1), bytes(4))
        if self.state & FlowState.SHARED:
            self.state |= (self._half >> Sides.LEANS & Sides.BOTH) << FlowState.LEANS
        for side in _each(sides):
            if not self._exporter_of(side):
                self._store(Header.EXPORTERS + 4 * side, exporter)
        if self._half & Sides.CORRELATE:
            self.state |= FlowState.CORRELATE

    def raise_common(self, counter: Counter) -> bool:
        """Add what a further exporter saw and the others did not; return whether it did.

        By no more than its own delta: it may know of more that was before this table. Deltas alone
        do not tell what of it the others saw.
        """
        total, tally = self.number(counter.total), counter.common
        common = self.get(tally.total)
        gain = min(total - common, self.number(counter.delta)) if total > common else 0
        self.put(tally.total, common + gain)
        self.put(tally.delta, self.get(tally.delta) + gain)
        return gain > 0

    def adds_nothing(self, *, grown: bool) -> bool:
        """Whether what was written says all of it, but for an end that was reported before."""
        state = self.state
        waits = state & FlowState.UNWRITTEN or not state & FlowState.WRITTEN
        completes = self.complete and not state & FlowState.COMPLETE
        ends = self._reason in {END_OF_FLOW, IDLE} and not state & FlowState.OVER
        return not (grown or waits or completes or ends)

    def anew(self, news: int, counters: Sequence[Counter]) -> int:
        """Those of the sides whose counters began anew, as a total is less than it was.

        A kernel zeroes all counters of a connection at once.
        """
        return sum(
            1 << side
            for side in _each(news & self.seen)
            if self.end > self.get(Header.END + 8 * side)
            and any(0 < self.number(c.total) < self.get(c.sides[side].last) for c in counters)
        )

    def count(self, counter: Counter, news: int, anew: int) -> bool:
        """Bring one counter up to date; return whether it has grown."""
        given = self.number(counter.total)
        own = self.number(counter.delta)
        own = min(own, given) if given else own
        common = before = self.get(counter.common.total)
        grown = False
        rate = None
        whole = self._reason == END_OF_FLOW and own == (given or own) and not self.seen & news
        whole &= not self.seen & ~(self.state >> FlowState.ENDS)
        for side in _each(news):
            tally = counter.sides[side]
            since = self.get(Header.END + 8 * side)
            total = given or own
            if self.seen >> side & 1:
                last = self.get(tally.last)
                if anew >> side & 1:
                    last = 0
                else:
                    total = max(given, last) if given else min(last + own, MAX_U64)
                gain = moved = total - last
                side_total = self.get(tally.total) + gain
                self.put(tally.last, total)
            else:
                # Where an interval began that is not the first one, nobody has reported.
                since = self.end if 0 < own < total else self.start
                gain, moved = own, total
                side_total = max(self.get(tally.total), total)
                self.put(tally.last, total)
            self.put(tally.total, side_total)
            self.put(tally.delta, self.get(tally.delta) + gain)
            grown |= gain > 0
            common = max(common, self.get(tally.total))
            if self.end > since:
                rate = moved * 8000 // (self.end - since)
                self.put(tally.rate, rate)
        if rate is not None and whole:
            self.put(counter.common.rate, max(rate, self.get(counter.common.rate)))
        elif rate is not None and self._latest:
            self.put(counter.common.rate, rate)
        self._count_common(counter.common, (given or own, own), (before, common), news)
        return grown or common > before

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
        first = not self._before
        rules = {
            MergeOp.KEY: first,
            MergeOp.SOURCE_KEY: first or bool(self._half & Sides.CLIENT),
            MergeOp.DESTINATION_KEY: first or bool(self._half & Sides.SERVER),
            MergeOp.EARLIEST: new != 0 and (old == 0 or new < old),
            MergeOp.GREATEST: new > old,
            MergeOp.REASON: self._latest and old != END_OF_FLOW,
            MergeOp.LATEST: self._latest and new != 0,
            MergeOp.FILL: new != 0,
            MergeOp.FILL_ADDRESS: not is_unset(value),
            MergeOp.FLOW_TYPE: new != 0
            and old != FROM_EXTERNAL
            and (old, new) != (INTER_NODE, TO_EXTERNAL),
        }
        return rules[op]

    def note(self, news: int) -> None:
        """Remember where the sides are now."""
        for side in _each(news):
            end = self.end
            if not self.seen >> side & 1:
                self.put(Header.START + 8 * side, self.start)
            else:  # deltas alone may come late
                end = max(end, self.get(Header.END + 8 * side))
            self.put(Header.END + 8 * side, end)
            if self._reason == END_OF_FLOW:
                self.state |= 1 << FlowState.ENDS << side
        self.state |= news << FlowState.SIDES

    def _store(self, offset: int, value: bytes) -> None:
        self._row[offset : offset + len(value)] = np.frombuffer(value, dtype=np.uint8)


def _written_state(state: int, reason: int) -> int:
    """The state of a flow once it is written."""
    alone = not state & FlowState.SHARED and state >> FlowState.SIDES & Sides.BOTH != Sides.BOTH
    state = state & ~(FlowState.UNWRITTEN | FlowState.OVER) | FlowState.WRITTEN
    state |= 0 if alone else FlowState.COMPLETE
    return state | FlowState.OVER if reason in {END_OF_FLOW, IDLE} else state


def is_unset(address: bytes) -> bool:
    """Whether 16 bytes are :: or ::ffff:0.0.0.0."""
    return not any(address[:10] + address[12:]) and address[10:12] in {b"\0\0", b"\xff\xff"}


def _each(sides: int) -> list[int]:
    return [side for side in (0, 1) if sides >> side & 1]
