"""Which connection of a tuple a record is of: a tuple is used again and again.

The table keeps the current connection of a 5-tuple and some before it, since one node's records of
many may come before the other node's of the first: its session was away, or sends again. What is
older than all of them gets a row of its own that is written and forgotten.

Starts are compared with starts of the same node. Nodes' clocks differ, so a node's first record
goes to the connection whose start, as the other node knows it, is nearest, among those that it can
be of: a node's connections of one tuple begin one after the other.

A node whose conntrack is flushed begins an open connection anew, with another start and counters
from 0. It is no other connection as long as the other node's goes on: what overlaps by more than a
second is one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.checkpoint import Flows
from flowvis.aggregator.correlation.joined import join_rows
from flowvis.aggregator.correlation.key import OLDEST, PREVIOUS, earlier, generation
from flowvis.aggregator.correlation.layout import COUNTED, SIDES, last
from flowvis.aggregator.correlation.refused import Refused
from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.aggregator.correlation.verdicts import end_verdicts, is_denied, join_verdicts
from flowvis.fields import EndReason
from flowvis.native.contract.merge import APART_MS, OVERLAP_MS, FlowState, Sides, same_start

ENDED_MS = 20_000
"""By how much a connection that has ended overlaps with one that is the same: nodes' clocks may be
apart, and some exporters notice an end only as they poll."""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A record that may not be of the current connection of its tuple."""

    key: NDArray[np.uint8]
    start: int
    end: int
    ends: bool
    """It reports the end of the flow."""
    given: int
    """`Half` bits of the sides of the current connection whose starts are the exporter's own."""
    further: bool
    """Two other exporters report the current connection."""
    reversed: bool
    """Its source is the second endpoint of the key."""
    exporter: int
    """Where the exporter tells the sides, and not the record, who that is; else 0."""


@dataclass(frozen=True, slots=True, eq=False)
class _Connection:
    """What is known of the connection in a slot."""

    slot: int
    state: int
    side_starts: list[int]
    exporters: list[int]

    def starts(self, sides: int = Sides.BOTH) -> list[int]:
        """The starts of those of the sides (`Half` bits) that have reported."""
        seen = self.state >> FlowState.SIDES & sides
        return [start for side, start in enumerate(self.side_starts) if seen >> side & 1]

    def distance(self, start: int) -> int:
        """How far its start, as it is known best, is from another one."""
        return min(abs(other - start) for other in self.starts())

    def given(self, report: Report) -> int:
        """The sides that a record's exporter gave of it: others, perhaps, than of the current."""
        if report.exporter:
            same = [exporter == report.exporter for exporter in self.exporters]
            return Sides.SOURCE * same[0] | Sides.DESTINATION * same[1]
        turned = bool(self.state & FlowState.REVERSED) != report.reversed
        return _exchanged(report.given) if turned else report.given


class Generations:
    """Decides where records go that may not be of the current connection."""

    def __init__(self, live: LiveRows) -> None:
        self.reused = 0
        self.joined = 0
        """How often two flows that waited to be written turned out to be one."""
        self.orphaned = 0
        self.overwrote = False
        """Whether a row has taken the place of one that is written, since somebody looked."""
        self._live = live
        self._last = OLDEST
        self._refused = Refused()

    @property
    def refused(self) -> int:
        """Of how many tuples it is known that connections found no room."""
        return len(self._refused)

    def refuse(
        self, keys: NDArray[np.uint8], starts: NDArray[np.uint64], sides: NDArray[np.uint8]
    ) -> None:
        """Note connections for which there is no room; as `Refused.note`."""
        self._refused.note(keys, starts, sides)

    def distinguish(self, keys: NDArray[np.uint8], slots: NDArray[np.int64]) -> None:
        """Have records for new or restored rows be decided, if any of their tuple was refused."""
        if len(self._refused):
            self._live.state[slots[self._refused.known(keys)]] |= FlowState.PREVIOUS

    def slot(self, report: Report, current: int, now_ms: int) -> int:
        """Return the slot that a record goes into; -1 if there is no room for it."""
        slot = self._slot(report, current, now_ms)
        if slot < 0:
            sides = np.array([_of_key(report.given, report.reversed)], dtype=np.uint8)
            starts = np.array([report.start], dtype=np.uint64)
            self._refused.note(report.key.reshape(1, -1), starts, sides)
            self._live.state[current] |= FlowState.PREVIOUS
        return slot

    def _slot(self, report: Report, current: int, now_ms: int) -> int:
        if not self._live.state[current] & FlowState.LIVE:
            return current
        key, start = report.key, report.start
        previous = self._live.find(generation(key, PREVIOUS))
        (now,) = self._read([current])
        known = now.starts(report.given)
        # A further exporter's connection is a later one if it began when the current had ended.
        ended = report.further and start > max(self._live.rows["sideEnd"][current].tolist())
        if ended or (known and start > max(known)):
            if not ended and self._goes_on(current, report):
                return current
            return self._succeed(key, current, previous, now_ms)
        slot = self._older(report, now, previous)
        if slot >= 0:
            return slot
        if not known and start > max(now.starts()):
            return self._succeed(key, current, previous, now_ms)
        return self._earlier(key, current)

    def recall(
        self, key: NDArray[np.uint8], stored: Flows, which: NDArray[np.int64], at_ms: int
    ) -> int:
        """Make rows of connections that were written of before the current one; return how many.

        Those that have one keep it.
        """
        live, made = self._live, 0
        current = live.find(key)
        known = [current, live.find(generation(key, PREVIOUS)), *self._kept(key)]
        there = self._read([slot for slot in known if slot >= 0])
        starts = {start for one in there for start in one.starts()}
        free = self._free(key)
        for at, began in zip(which.tolist(), stored.starts(which).tolist(), strict=True):
            if starts.isdisjoint(start for start in began if start):
                number = next(free, None)
                if number is None:
                    break
                place = generation(key, number).reshape(1, -1)
                made += live.restore(place, stored, np.array([at]), at_ms)
        if made:
            live.state[current] |= FlowState.PREVIOUS
        return made

    def _older(self, report: Report, current: _Connection, previous: int) -> int:
        """The slot of a record of a connection that is known; -1 if it is of none of them."""
        key, start = report.key, report.start
        known = current.starts(report.given)
        begun = min(current.starts(), default=report.end + 1)
        overlap_ms = report.end - begun if not known else 0
        goes_on = overlap_ms > (ENDED_MS if report.ends else OVERLAP_MS)
        let_through = not known and overlap_ms >= 0 and previous >= 0
        let_through = let_through and is_denied(self._live, previous, Sides.BOTH)
        possible = [] if known else [current]
        earlier_ones = self._before(key, previous)
        for before in earlier_ones:
            starts = before.starts(before.given(report))
            if any(same_start(other, start) for other in starts):
                goes_on |= let_through
                return self._joined(before, earlier_ones, current) if goes_on else before.slot
            if starts and start > max(starts):
                break
            if starts:  # its node's connection before that one
                possible.clear()
            else:
                possible.append(before)
        refused = self._refused.of(key)
        possible = [one for one in possible if not self._parted(one, report, refused)]
        nearest = min(possible, key=lambda one: one.distance(start), default=None)
        if nearest is None:
            return -1
        goes_on = let_through or (goes_on and overlap_ms > APART_MS)  # as clocks may be apart
        return self._joined(nearest, earlier_ones, current) if goes_on else nearest.slot

    @staticmethod
    def _parted(one: _Connection, report: Report, refused: list[tuple[int, int]]) -> bool:
        """Whether a record is no half of a connection, as a refused one is nearer.

        To the record, as its other half; or to that connection, as another one of the same node.
        """
        apart = one.distance(report.start)
        given = _of_key(report.given, report.reversed)
        for start, sides in refused:
            if start == report.start and sides & given:
                continue
            if sides & ~given and abs(start - report.start) < apart:
                return True
            if sides & given and one.distance(start) < apart:
                return True
        return False

    def _before(self, key: NDArray[np.uint8], previous: int) -> list[_Connection]:
        """The connections before the current one, the latest first."""
        kept = [previous, *self._kept(key)] if previous >= 0 else self._kept(key)
        found = [(one.starts(), one) for one in self._read(kept)]
        told = [(min(starts), one) for starts, one in found if starts]
        return [one for _, one in sorted(told, key=lambda each: -each[0])]

    def _read(self, slots: list[int]) -> list[_Connection]:
        """What is known of the connections in some slots: of all at once, as there may be 31."""
        rows = self._live.rows
        columns = self._live.state, rows["sideStart"], rows["exporters"]
        values = (column[slots].tolist() for column in columns)
        return [_Connection(*each) for each in zip(slots, *values, strict=True)]

    def _kept(self, key: NDArray[np.uint8]) -> list[int]:
        """The slots of the connections before the previous one."""
        found = self._live.find_all(_earlier_keys(key)[PREVIOUS:]).tolist()
        return [slot for slot in found if slot >= 0]

    def _goes_on(self, current: int, report: Report) -> bool:
        """Whether a later start is that of the same connection in a conntrack that was flushed.

        It is if the other node has seen the connection go on after it: while one node has a tuple
        in use no other connection has it. What was denied before can be let through, and be over,
        within a moment.
        """
        live, rows = self._live, self._live.rows
        others = int(live.state[current]) >> FlowState.SIDES & Sides.BOTH & ~report.given
        ended = int(live.state[current]) >> FlowState.ENDS & Sides.BOTH
        ends = {side: int(rows["sideEnd"][current][side]) for side in _each(others)}
        goes_on = any(
            end > report.start + (ENDED_MS if ended >> side & 1 else OVERLAP_MS)
            for side, end in ends.items()
        )
        if is_denied(live, current, report.given):
            goes_on |= max(ends.values(), default=0) >= report.start
        if report.given == Sides.BOTH or not goes_on:
            return False
        for side in _each(report.given):
            rows["sideStart"][current, side] = report.start
            for counter in COUNTED:  # from 0 again
                rows[last(counter, SIDES[side])][current] = 0
        end_verdicts(live, current, _each(report.given))
        live.state[current] &= ~np.uint64(report.given << FlowState.ENDS)
        self._take_back_end(current, EndReason.ACTIVE)
        return True

    def _take_back_end(self, slot: int, reason: int) -> None:
        """Give a flow another reason for its last record where no node says any more that it ended.

        A kernel that is flushed ends the connection, and the exporter says so.
        """
        ended = int(self._live.state[slot]) >> FlowState.ENDS & Sides.BOTH
        reasons = self._live.rows["flowEndReason"]
        if not ended and reasons[slot] == EndReason.END:
            reasons[slot] = reason

    def _joined(
        self, first: _Connection, earlier_ones: Sequence[_Connection], current: _Connection
    ) -> int:
        """Make one of the current connection and those before it, back to the first of them.

        Return its slot: the other node's connection goes on in the current one.
        """
        if first is not current:
            for before in earlier_ones[: earlier_ones.index(first) + 1]:
                if not self._join(before.slot, current.slot):
                    break
        return current.slot

    def _join(self, previous: int, current: int) -> bool:
        """Make one of the previous connection and the current one, where that may be.

        Only the node that began anew had told of the current one. So its counters go on from 0, and
        what both rows have counted is counted: one node may have told what the other had not yet.
        """
        live = self._live
        first, later = (int(live.state[slot]) for slot in (previous, current))
        sides = later >> FlowState.SIDES & Sides.BOTH
        alike = not ((first ^ later) & FlowState.REVERSED or (first | later) & FlowState.SHARED)
        if not alike or sides & ~(first >> FlowState.SIDES):  # what began before is still to come
            return False
        join_verdicts(live, previous, live.rows[current], _each(sides))
        join_rows(live.rows[previous], live.rows[current], _each(sides))
        first = int(live.state[previous])
        ends = sides << FlowState.ENDS
        state = first & ~ends | later & (ends | FlowState.UNWRITTEN)
        waiting = [live.cycle[slot] for slot in (previous, current) if _unwritten(live, slot)]
        self.joined += len(waiting) == 2
        cycle = min(waiting, default=0)
        due, seen = min(live.due[[previous, current]]), max(live.seen[[previous, current]])
        reason = int(live.rows["flowEndReason"][current])
        live.move(previous, current)
        live.forget(np.array([previous]))
        live.state[current], live.due[current] = state | FlowState.PREVIOUS, due
        live.seen[current], live.cycle[current] = seen, cycle
        self._take_back_end(current, reason)
        return True

    def _succeed(self, key: NDArray[np.uint8], current: int, previous: int, now_ms: int) -> int:
        """Make the current connection the previous one, and its slot that of a new one."""
        live = self._live
        if previous >= 0:
            older = self._keep(key, now_ms)
            if older >= 0:
                live.move(previous, older)
            elif live.state[previous] & FlowState.UNWRITTEN:
                return -1
            else:
                self._overwrite(previous)
        else:
            previous = self._place(key, PREVIOUS)
        if previous >= 0:
            live.move(current, previous)
            if not _waits(int(live.state[previous])):
                live.due[previous] = min(int(live.due[previous]), now_ms)
        elif live.state[current] & FlowState.UNWRITTEN:
            return -1
        else:
            self._overwrite(current)
        live.blank(current)
        live.state[current] = FlowState.PREVIOUS
        self.reused += 1
        return current

    def _overwrite(self, slot: int) -> None:
        """Note that only the store knows from now on what is written of a row."""
        self._live.note_forgotten(np.array([slot]), early=True)
        self.overwrote = True

    def _keep(self, key: NDArray[np.uint8], now_ms: int) -> int:
        """A slot for one more connection before the previous one; -1 if there is no room for it.

        Where there are too many, what is written of them goes first; else the oldest is written
        now, as it is.
        """
        live = self._live
        number = next(self._free(key, PREVIOUS + 1), None)
        if number is not None:
            return self._place(key, number)
        oldest_last = [one.slot for one in self._before(key, -1)]
        written = [slot for slot in oldest_last if not live.state[slot] & FlowState.UNWRITTEN]
        if written:
            self._overwrite(written[-1])
            live.blank(written[-1])
            return written[-1]
        orphan = self._place(key, self._next())
        if orphan < 0:
            return -1
        live.move(oldest_last[-1], orphan)
        live.state[orphan] |= FlowState.ONCE
        live.due[orphan] = now_ms
        return oldest_last[-1]

    def _earlier(self, key: NDArray[np.uint8], current: int) -> int:
        """A slot for a connection before the current one, unknown so far."""
        number = next(self._free(key), None)
        if number is None:
            return self._orphan(key)
        slot = self._place(key, number)
        if slot >= 0:
            self._live.state[current] |= FlowState.PREVIOUS
            self.orphaned += 1
        return slot

    def _orphan(self, key: NDArray[np.uint8]) -> int:
        """A slot for one record of a connection that is older than all that there is room for."""
        slot = self._place(key, self._next())
        if slot >= 0:
            self._live.state[slot] = FlowState.ONCE
            self.orphaned += 1
        return slot

    def _free(self, key: NDArray[np.uint8], first: int = PREVIOUS) -> Iterator[int]:
        """Numbers from `first` on that no connection before the current one has."""
        free = self._live.find_all(_earlier_keys(key)) < 0
        return (number for number in range(first, OLDEST + 1) if free[number - PREVIOUS])

    def _place(self, key: NDArray[np.uint8], number: int) -> int:
        # Without making room: that could take the slots of the records beside this one.
        return self._live.place_one(generation(key, number))

    def _next(self) -> int:
        """A generation that no live key has: they live for seconds, and 2^32 take longer."""
        self._last = max(self._last + 1 & 0xFFFFFFFF, OLDEST + 1)
        return self._last


def _waits(state: int) -> bool:
    """Whether a flow has nothing to write, or waits for its other half."""
    if not state & FlowState.UNWRITTEN:
        return True
    both = state >> FlowState.SIDES & Sides.BOTH == Sides.BOTH
    return bool(state & FlowState.CORRELATE) and not both


def _unwritten(live: LiveRows, slot: int) -> bool:
    return bool(live.state[slot] & FlowState.UNWRITTEN)


def _each(sides: int) -> list[int]:
    return [side for side in (0, 1) if sides >> side & 1]


def _of_key(sides: int, turned: bool) -> int:
    """The sides of a record by the order of its key's endpoints."""
    return _exchanged(sides) if turned else sides


def _exchanged(sides: int) -> int:
    """The sides of the same record with client and server exchanged."""
    return (sides & Sides.SOURCE and Sides.DESTINATION) | (
        sides & Sides.DESTINATION and Sides.SOURCE
    )


def _earlier_keys(key: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The keys of the connections before the current one, by number from PREVIOUS on."""
    return np.asarray(earlier(key.reshape(1, -1))[0])
