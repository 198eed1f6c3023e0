"""The table of live flows: halves of connections in, one record per connection and interval out.

Does no I/O and has no clock. What a record adds to its flow is the merge leaf's business, which
connection it is of is `generations`'; this module says when flows are written and forgotten.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.arrivals import Arrivals
from flowvis.aggregator.correlation.checkpoint import Flows, checkpoints, newest
from flowvis.aggregator.correlation.generations import Generations
from flowvis.aggregator.correlation.key import OLDEST, generation
from flowvis.aggregator.correlation.layout import HELD, PROGRAM, ROW
from flowvis.aggregator.correlation.parked import MAX_BYTES, Inquiry, Parked
from flowvis.aggregator.correlation.rows import LiveRows, is_written
from flowvis.aggregator.correlation.set_back import AHEAD_MS
from flowvis.aggregator.correlation.stats import FlowStats
from flowvis.aggregator.correlation.texts import COMPACT_BYTES, Texts
from flowvis.aggregator.correlation.verdicts import forget_verdicts
from flowvis.aggregator.exporters import DOUBT, TOLD, Doubt
from flowvis.batch import SETTLED, Batch, Column
from flowvis.checkpoint import ENDS
from flowvis.fields import FIELDS, TEXT_FIELDS, Kind, Merge, Source, provides
from flowvis.ipfix.buffer import DOMAIN
from flowvis.native import Merger
from flowvis.native.contract.merge import Count, FlowState, Sides
from flowvis.steady import SteadyTime
from flowvis.strings import MAX_TABLE_BYTES, Strings

MAX_FLOWS = 1_000_000  # some 650 bytes each when used: what fits in 1 GB with everything else
SKEW_MS = 10_000  # nodes' clocks are apart by less

_TEXT = tuple(f.name for f in HELD if f.kind is Kind.TEXT)
_ADDED_TEXT = tuple(f.name for f in FIELDS if f.merge is Merge.ADDED and f.kind is Kind.TEXT)


def _unreported(error: Exception, _record: Batch) -> None:
    raise error


class FlowTable:
    """Correlates and aggregates; see `add`, `due`, `flush`.

    `correlation_wait_ms` is how long a half waits for the other one before it goes out alone. The
    default is the inactive timeout: so long the flow is remembered anyway, and the nodes may
    export at different intervals, or come back after a lost connection.

    A batch that comes out keeps the string table that it was made with. `strings` may be another
    table after `due`: decode into the current one.
    """

    def __init__(
        self,
        *,
        active_timeout_ms: int = 60_000,
        inactive_timeout_ms: int = 90_000,
        correlation_wait_ms: int | None = None,
        max_flows: int = MAX_FLOWS,
        compact_bytes: int = COMPACT_BYTES,
        text_bytes: int = MAX_TABLE_BYTES,
        parked_bytes: int = MAX_BYTES,
        steady: SteadyTime | None = None,
    ) -> None:
        """Times that come in and go out are the wall clock's; what is due goes by steady time.

        `text_bytes` bounds what all text may take, that of a fresh table beside the old included.
        """
        self.stats = FlowStats()
        self.report: Callable[[Exception, Batch], None] = _unreported
        """Gets each error over a record, and the record."""
        self._texts = Texts(text_bytes, compact_bytes)
        self._inactive_timeout_ms = inactive_timeout_ms
        self._steady = steady or SteadyTime()
        self._live = LiveRows(max_flows)
        self.parked = Parked(parked_bytes)
        self._live.forgot = self.parked.forget_rows
        self._generations = Generations(self._live)
        self._counts = np.zeros(len(Count), dtype=np.int64)
        self._active_ms = active_timeout_ms
        self._wait_ms = inactive_timeout_ms if correlation_wait_ms is None else correlation_wait_ms
        self._merger = self._new_merger()
        self._ahead_ms = 0  # no row has an end after it
        self._found: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # slots that were due

    def _new_merger(self) -> Merger:
        return Merger(PROGRAM, self._live.flows(), self._counts, self._active_ms, self._wait_ms)

    def __len__(self) -> int:
        return len(self._live)

    @property
    def strings(self) -> Strings:
        """The string table to decode into."""
        return self._texts.strings

    def own(self, owner: Callable[[int], Hashable]) -> None:
        """Know who is behind the numbers of exporters: who fills the table loses first."""
        self._live.owner = owner

    @property
    def forgets(self) -> bool:
        """Whether any flow has been forgotten: the store may know more of one than the table."""
        return self._live.forgets

    @property
    def late_ms(self) -> int:
        """How long an exporter may be silent before it may tell of what is forgotten here.

        Others report what they see within the active timeout, two thirds of this by default.
        """
        return self._inactive_timeout_ms // 4

    @property
    def row_bytes(self) -> int:
        """About what the flows take in memory, their text aside."""
        return self._live.memory_bytes

    @property
    def text_bytes(self) -> int:
        """About what their text takes, that of the table before included while it lives."""
        return self._texts.memory_bytes

    def add(self, batch: Batch, now_ms: int, cycle: int = 0) -> None:
        """Merge records, with the columns of the exporter's template, into their flows.

        `cycle` numbers what is added: it becomes the mark of what is written of it. Where there is
        a column DOUBT, a record of a connection without a row, of which something may have been
        written before, is parked until `answer`.

        An exception means that none was merged. A record whose own handling fails is left out,
        counted, and given to `report`.
        """
        later = self._add(_timed(batch.on(self.strings, TEXT_FIELDS), now_ms), now_ms, cycle)
        if later is None:
            return
        try:
            self._add(later, now_ms, cycle, put_off=False)
        except Exception as error:  # noqa: BLE001  the others are merged
            self._give_up(error, later)

    def _add(self, batch: Batch, now_ms: int, cycle: int, *, put_off: bool = True) -> Batch | None:
        """Merge or park records; return those that were put off, if any were and may be."""
        arrivals = Arrivals(batch, self._live, cycle)
        at_ms = self._steady.at(now_ms)
        self._live.begin(at_ms)
        self.parked.forget_answers(at_ms, self._inactive_timeout_ms)
        put_off &= DOUBT in batch
        if DOUBT not in batch and not self.parked.keys:
            return self._merge(batch, arrivals, now_ms)
        waits = self._to_park(arrivals, batch)
        if not waits.any():
            return self._merge(batch, arrivals, now_ms, put_off=put_off)
        rest = batch.take(~waits)
        later = None
        if len(rest):
            arrivals = Arrivals(rest, self._live, cycle)
            later = self._merge(rest, arrivals, now_ms, put_off=put_off)
        parked = batch.take(waits)
        self.parked.put(parked, cycle)
        self.stats.received += len(parked)
        self.stats.parked += len(parked)
        return later

    def answer(self, inquiry: Inquiry, stored: Flows, now_ms: int) -> None:
        """Go on from what was written of connections, and merge what waited for it.

        What was forgotten here since the question may be older in the answer than it was here.
        """
        outdated = self.parked.outdated(stored.keys)
        if outdated.any():
            stored = stored.take(np.flatnonzero(~outdated))
        at_ms = self._steady.at(now_ms)
        self.parked.forget_answers(at_ms, self._inactive_timeout_ms)
        self._restore(inquiry, stored, at_ms)
        for batch, cycle in self.parked.release(inquiry, self._live.without_room()):
            self._unpark(batch, cycle, now_ms)
        self._live.settle()

    def unpark(self, now_ms: int) -> None:
        """Merge all that waits for an answer without one."""
        for batch, cycle in self.parked.give_up():
            self._unpark(_without_doubt(batch), cycle, now_ms)

    def _unpark(self, batch: Batch, cycle: int, now_ms: int) -> None:
        """Merge what waited; of what is forgotten meanwhile it waits for another answer."""
        self.stats.received -= len(batch)
        self.stats.parked -= len(batch)
        try:
            self.add(batch, now_ms, cycle)
        except Exception as error:  # noqa: BLE001  what failed as a whole is left out
            self._give_up(error, batch)

    def _give_up(self, error: Exception, batch: Batch) -> None:
        self.report(error, batch)
        self.stats.received += len(batch)
        self.stats.failed += len(batch)

    def _to_park(self, arrivals: Arrivals, batch: Batch) -> NDArray[np.bool_]:
        """Which records of a batch wait for what the store knows, or for one that does."""
        if DOUBT in batch:
            doubts = arrivals.of_records(batch[DOUBT])
            forgotten = self._live.forgotten_ms, self._live.evicted_ms
            until_ms, evicted_ms = (self._steady.wall(at_ms) + SKEW_MS for at_ms in forgotten)
            which = arrivals.outlived(doubts, until_ms, evicted_ms)
            told = (doubts & (Doubt.REPEATED | Doubt.BEHIND)) != 0
            told[which] = True
            unsettled = (doubts & (Doubt.YOUNG | Doubt.REPEATED)) != 0
            if unsettled.any():
                repeated = (doubts & Doubt.REPEATED) != 0
                unsettled &= arrivals.go_on() | repeated
                unsettled[which] = True
                which = np.flatnonzero(unsettled)
            if len(which):
                self._ask(arrivals, which, told[which], doubts, batch)
        if not self.parked.keys:
            return np.zeros(len(batch), dtype=bool)
        return arrivals.of_batch(self.parked.waits(arrivals.keys))

    def _ask(
        self,
        arrivals: Arrivals,
        which: NDArray[np.int64],
        told: NDArray[np.bool_],
        doubts: Column,
        batch: Batch,
    ) -> None:
        """Let those of some records be asked for that have no row.

        Of those that others may have `told` of, also where the row is of another connection.
        """
        keys = arrivals.keys[which]
        slots = self._live.find_all(keys)
        other = (slots >= 0) & told
        other[other] = arrivals.of_others(self._live.rows, slots[other], which[other])
        wanted = (slots < 0) | other
        wanted[wanted] = ~self.parked.answered(keys[wanted])
        since_s = arrivals.ends_s
        if TOLD in batch:
            told_s = arrivals.of_records(batch[TOLD])
            since_s = np.where(told_s != 0, np.minimum(since_s, told_s), since_s)
        which = which[wanted]
        patient = bool((doubts[which] & (Doubt.YOUNG | Doubt.REPEATED)).any())
        repeated = (doubts[which] & Doubt.REPEATED) != 0
        self.parked.want(keys[wanted], since_s[which], repeated, patient=patient)

    def _restore(self, inquiry: Inquiry, stored: Flows, at_ms: int) -> None:
        """Make rows of the last connections of each tuple that were written of."""
        ends_ms = (int(stored.columns[name].max(initial=0)) for name in ENDS)
        self._ahead_ms = max(self._ahead_ms, *ends_ms)
        limit_ms = self._steady.wall(at_ms) + AHEAD_MS
        found = newest(stored, inquiry.keys, OLDEST + 1, limit_ms=limit_ms)
        # Of those for which there is room whole, so that some go on and make room for the others.
        fit = np.cumsum(np.count_nonzero(found >= 0, axis=1)) <= self._live.room
        self._live.refuse(stored.keys[found[~fit, 0]])
        found = found[fit]
        current = self._live.find_all(stored.keys[found[:, 0]])
        fresh = current < 0
        self._live.keep(current[~fresh])
        for number, column in enumerate(found[fresh].T):
            which = column[column >= 0]
            keys = generation(stored.keys[which], number)
            if number:  # by way of the current one they are found
                placed = self._live.find_all(stored.keys[which]) >= 0
                self._live.refuse(stored.keys[which[~placed]])
                keys, which = keys[placed], which[placed]
            self.stats.restored += self._live.restore(keys, stored, which, at_ms)
        several = fresh & (found[:, 1:] >= 0).any(axis=1)
        slots = self._live.find_all(stored.keys[found[several, 0]])
        self._live.state[slots[slots >= 0]] |= FlowState.PREVIOUS
        keys = stored.keys[found[fresh, 0]]
        slots = self._live.find_all(keys)
        self._generations.distinguish(keys[slots >= 0], slots[slots >= 0])
        for line in found[~fresh]:
            which = line[line >= 0]
            key = stored.keys[which[0]]
            self.stats.restored += self._generations.recall(key, stored, which, at_ms)

    def _merge(
        self, batch: Batch, arrivals: Arrivals, now_ms: int, *, put_off: bool = False
    ) -> Batch | None:
        """Merge records; return those that were put off, if any were and may be.

        These are of connections before one that takes the row of what was written of its tuple:
        perhaps of just what only the store knows from then on.
        """
        at_ms = self._steady.at(now_ms)
        try:
            arrivals.place(at_ms)
            self._know_refused(arrivals)
            limit_ms = now_ms + AHEAD_MS
            if self._ahead_ms > limit_ms:
                arrivals.follow_set_back(limit_ms)
            self._ahead_ms = max(self._ahead_ms, int(batch["flowEndMilliseconds"].max(initial=0)))
        except Exception:
            arrivals.leave()
            raise
        merger, interrupted = self._merger, False
        at = merger.merge(arrivals.records, at_ms)
        while at < len(arrivals):
            try:
                if arrivals.orient_from(at):
                    decided = -1
                else:
                    report = arrivals.report(at, merger.sides, further=merger.further)
                    slot = self._generations.slot(report, int(arrivals.slots[at]), at_ms)
                    if self._generations.overwrote:
                        self._generations.overwrote = False
                        interrupted |= put_off and arrivals.put_off(at)
                    arrivals.move(at, slot)
                    decided = at
            except Exception as error:  # noqa: BLE001  one record costs no other
                place = arrivals.give_up(at)
                decided = -1
                self.report(error, batch.take(slice(place, place + 1)))
            at = merger.merge(arrivals.records, at_ms, at, decided)
        if given_up := arrivals.given_up:
            arrivals.leave()
            self.stats.failed += given_up
        later = batch.take(arrivals.later) if interrupted else None
        self.stats.received += len(batch) - (0 if later is None else len(later))
        self.stats.full += arrivals.refused
        self.stats.reversed += arrivals.turned
        self._take_counts()
        return later

    def _know_refused(self, arrivals: Arrivals) -> None:
        """Keep the other halves of records that found no room apart from what did."""
        keys, slots = arrivals.keys, arrivals.slots
        none = slots < 0
        if none.any():
            sides = arrivals.sides_of_keys[none]
            self._generations.refuse(keys[none], arrivals.starts[none], sides)
        if not self._generations.refused:
            return
        new = np.flatnonzero(~none)
        new = new[(self._live.state[slots[new]] & FlowState.LIVE) == 0]
        self._generations.distinguish(keys[new], slots[new])

    def due(self, now_ms: int, limit: int | None = None) -> Batch:
        """Return what is to be written now, at most `limit` records; forget what is idle.

        A batch is a copy of its rows. With a million flows due at once, take them in parts: ask
        until nothing comes. The table is looked through for the first part; those that follow are
        of what was found then and is still due.
        """
        at_ms = self._steady.at(now_ms)
        if self._texts.compact(at_ms, self._text_columns):
            self.parked.move(self.strings)
            self.stats.compactions += 1
        self._live.relieve(at_ms)
        slots, gone = self._still_due(limit or 0, at_ms)
        if not len(slots):
            due, idle = self._due_and_idle(slice(self._live.used), at_ms)
            slots, gone = np.flatnonzero(due), np.flatnonzero(idle)
            slots, self._found = slots[:limit], slots[len(slots[:limit]) :]
        batch = self._write(slots, at_ms)
        self._expire(gone)
        return batch

    def _still_due(self, limit: int, at_ms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of what was found due before, up to `limit` that still are, and those that are idle.

        Only as many are looked at as that takes: most still are due, and there may be a million.
        """
        slots: list[NDArray[np.int64]] = [self._found[:0]]
        gone = [self._found[:0]]
        while limit > 0 and len(self._found):
            part, self._found = self._found[:limit], self._found[limit:]
            due, idle = self._due_and_idle(part, at_ms)
            slots.append(part[due])
            gone.append(part[idle])
            limit -= len(slots[-1])
        return np.concatenate(slots), np.concatenate(gone)

    def _due_and_idle(
        self, slots: NDArray[np.int64] | slice, at_ms: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which flows are to be written now, and to which nothing has come for so long."""
        live = self._live
        idle = live.seen[slots] <= at_ms - self._inactive_timeout_ms
        unwritten = (live.state[slots] & FlowState.UNWRITTEN) != 0
        return (live.due[slots] <= at_ms) | (idle & unwritten), idle

    def _expire(self, idle: NDArray[np.int64]) -> None:
        """Forget those of idle flows of which all is written."""
        gone = idle[is_written(self._live.state[idle])]
        self.stats.expired += self._live.outlive(gone)
        self._live.trim()

    def retime(
        self,
        now_ms: int,
        *,
        active_timeout_ms: int,
        inactive_timeout_ms: int,
        correlation_wait_ms: int | None = None,
    ) -> None:
        """Write by other timeouts; what waits already does so for as long as it would have."""
        at_ms = self._steady.at(now_ms)
        wait_ms = inactive_timeout_ms if correlation_wait_ms is None else correlation_wait_ms
        live, used = self._live, slice(self._live.used)
        waiting = ((live.state[used] & FlowState.UNWRITTEN) != 0) & (live.due[used] > at_ms)
        again = (live.state[used] & FlowState.WRITTEN) != 0
        live.due[used][waiting & again] += active_timeout_ms - self._active_ms
        live.due[used][waiting & ~again] += wait_ms - self._wait_ms
        self._inactive_timeout_ms = inactive_timeout_ms
        self._active_ms, self._wait_ms = active_timeout_ms, wait_ms
        self._merger = self._new_merger()

    def flush(self, now_ms: int, limit: int | None = None) -> Batch:
        """Return everything that waits to be written, at most `limit` records."""
        at_ms = self._steady.at(now_ms)
        unwritten = self._live.state[: self._live.used] & FlowState.UNWRITTEN
        return self._write(np.flatnonzero(unwritten)[:limit], at_ms)

    def flush_complete(self, now_ms: int, limit: int | None = None) -> Batch:
        """Return what waits to be written but for halves that wait for their other halves."""
        at_ms = self._steady.at(now_ms)
        state = self._live.state[: self._live.used]
        waits = _halved(state) & ~_both(state)
        which = np.flatnonzero(((state & FlowState.UNWRITTEN) != 0) & ~waits)
        return self._write(which[:limit], at_ms)

    def leave(self, keeps: Callable[[int], bool], now_ms: int) -> None:
        """Give up what the exporters whose number `keeps` send again: to whom comes next.

        Halves that wait for their other halves, and what is parked; of others that is merged.
        """
        live = self._live
        state = live.state[: live.used]
        waits = ((state & FlowState.UNWRITTEN) != 0) & _halved(state) & ~_both(state)
        slots = np.flatnonzero(waits)
        exporters = live.rows["exporters"][slots]
        numbers = np.unique(exporters)
        kept = numbers[[number == 0 or keeps(number) for number in numbers.tolist()]]
        alone = np.isin(exporters, kept).all(axis=1) & exporters.any(axis=1)
        live.forget(slots[alone])
        self.stats.held -= int(np.count_nonzero(alone))
        self.stats.left += int(np.count_nonzero(alone))
        for batch, cycle in self.parked.give_up():
            numbers = np.unique(batch[DOMAIN])
            kept = numbers[[keeps(number) for number in numbers.tolist()]]
            left = np.isin(batch[DOMAIN], kept)
            self.stats.parked -= int(np.count_nonzero(left))
            self.stats.left += int(np.count_nonzero(left))
            self._unpark(_without_doubt(batch.take(~left)), cycle, now_ms)

    @property
    def mark(self) -> int:
        """The oldest cycle of which something is to be written, or waits; SETTLED without any."""
        return min(self._live.oldest(), self.parked.mark)

    def next_deadline(self) -> int | None:
        """When `due` will have something to do, in ms of the wall clock; None without flows."""
        used = self._live.used
        if not used:
            return None
        idle = int(self._live.seen[:used].min()) + self._inactive_timeout_ms
        return self._steady.wall(min(int(self._live.due[:used].min()), idle))

    def uncounted(self) -> int:
        """How many live flows have no packets: their nodes' kernels do not count them."""
        used = slice(self._live.used)
        rows = self._live.rows[used]
        counted = (rows["packetTotalCount"] != 0) | (rows["reversePacketTotalCount"] != 0)
        return int(np.count_nonzero(((self._live.state[used] & FlowState.LIVE) != 0) & ~counted))

    def live(self) -> Batch:
        """Return a copy of the flows that the table has now; changes nothing."""
        return self._copy(self._live_slots(0, self._live.used))

    def live_parts(self, slots: int) -> Iterator[Batch]:
        """Go through copies of the flows that the table has, of at most so many slots each.

        What is there all the while is in one of them, whatever comes or goes between two.
        """
        for first in itertools.count(0, slots):
            if first >= self._live.used:
                return
            if len(found := self._live_slots(first, first + slots)):
                yield self._copy(found)

    def _live_slots(self, first: int, end: int) -> NDArray[np.int64]:
        state = self._live.state[first : min(end, self._live.used)]
        return first + np.flatnonzero(state & FlowState.LIVE)

    def _copy(self, slots: NDArray[np.int64]) -> Batch:
        """Copy flows into a batch."""
        return self._batch(self._rows(slots), self._live.state[slots])

    def _rows(self, slots: NDArray[np.int64]) -> NDArray[np.void]:
        return self._live.bytes[slots].view(ROW).reshape(len(slots))

    def _batch(self, rows: NDArray[np.void], state: NDArray[np.uint64]) -> Batch:
        columns = {field.name: rows[field.name] for field in HELD}
        columns |= {name: np.zeros(len(rows), dtype=np.uint32) for name in _ADDED_TEXT}
        columns |= {name: make(rows, state) for name, make in _MADE.items()}
        return Batch(columns, self.strings)

    def _write(self, slots: NDArray[np.int64], at_ms: int) -> Batch:
        """Copy flows into a batch and begin their next interval."""
        live = self._live
        copies, state, anew = self._merger.write(slots, at_ms)
        forget_verdicts(live, slots, state)
        rows = copies.view(ROW).reshape(len(slots))
        batch = self._batch(rows, state)
        batch.mark = int(live.cycle[slots].min(initial=SETTLED))
        alone = _halved(state) & ~_both(state)
        self.stats.written += len(slots)
        self.stats.held -= len(slots)
        self.stats.half_waits += int(np.count_nonzero(alone & ((state & FlowState.WRITTEN) == 0)))
        keys = live.keys(slots)
        batch.columns |= checkpoints(rows, anew, live.state[slots], keys, self.strings)
        once = slots[(state & FlowState.ONCE) != 0]
        if len(once):
            live.note_forgotten(once)
            live.forget(once)
        return batch

    def _text_columns(self) -> list[Column]:
        columns = [self._live.rows[name][: self._live.used] for name in _TEXT]
        return columns + self.parked.columns(TEXT_FIELDS)  # else each table that any is of stays

    def _take_counts(self) -> None:
        """Bring what the parts have counted together."""
        stats = self.stats
        stats.held += int(self._counts[Count.HELD])
        stats.merged += int(self._counts[Count.MERGED])
        stats.late += int(self._counts[Count.LATE])
        stats.repeated += int(self._counts[Count.REPEATED])
        stats.restarted += int(self._counts[Count.RESTARTED])
        stats.unchanged += int(self._counts[Count.UNCHANGED])
        stats.further += int(self._counts[Count.FURTHER])
        self._counts[:] = 0
        stats.held -= self._generations.joined
        stats.merged += self._generations.joined
        self._generations.joined = 0
        stats.reused = self._generations.reused
        stats.orphaned = self._generations.orphaned
        stats.evicted = self._live.evicted
        stats.refused_texts, stats.shortened_texts = self._texts.refused, self._texts.shortened


def _without_doubt(batch: Batch) -> Batch:
    """The same records, of whose connections nobody is asked."""
    columns = {name: c for name, c in batch.columns.items() if name not in {DOUBT, TOLD}}
    return Batch(columns, batch.strings, batch.mark)


def _timed(batch: Batch, now_ms: int) -> Batch:
    """Let records that do not say when their counters were read be of now."""
    ends = batch["flowEndMilliseconds"]
    silent = ends == 0
    if not silent.any():
        return batch
    millis = np.where(silent, np.uint64(now_ms), ends)
    seconds = np.where(silent, np.uint32(now_ms // 1000), batch["flowEndSeconds"])
    ends_of = {"flowEndMilliseconds": millis, "flowEndSeconds": seconds}
    return Batch({**batch.columns, **ends_of}, batch.strings, batch.mark)


def _both(state: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which flows have had records of both nodes."""
    return np.asarray((state >> FlowState.SIDES & Sides.BOTH) == Sides.BOTH)


def _halved(state: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which flows are of connections that two nodes have a half of."""
    return np.asarray((state & FlowState.SHARED) == 0)


def _interval_start(rows: NDArray[np.void], state: NDArray[np.uint64]) -> Column:
    written = (state & FlowState.WRITTEN) != 0
    return np.where(written, rows["intervalStart"], rows["flowStartMilliseconds"])


def _halves(rows: NDArray[np.void], state: NDArray[np.uint64]) -> Column:  # noqa: ARG001  as all
    return np.where(_halved(state) & _both(state), 2, 1).astype(np.uint8)


_MADE: dict[str, Callable[[NDArray[np.void], NDArray[np.uint64]], Column]] = {
    "monitoringIntervalStartMilliSeconds": _interval_start,
    "originalFlowsPresent": _halves,
}
provides(Source.FLOW, {field.name for field in HELD if field.source is Source.FLOW} | {*_MADE})
