"""The connection table: what the kernel reports of connections becomes intervals of flows.

Does no I/O and has no clock. Each connection is reported when it ends (3 end of flow), while it is
active at most once per active timeout (2), once when it has been idle for the idle timeout (1), and
when the table has no room for it (5); the deltas of its records add up to its counters.

After a poll, and after the events that came meanwhile, `sweep` ends what the kernel lists no more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import any_of
from flowvis.conntrack.entries import DESTROY, DUMP, NEW, NO_TCP_STATE, Entries
from flowvis.conntrack.names import TCP_STATES, ConntrackStatus
from flowvis.counts import count, gauge
from flowvis.exporter.tables.default_zone import COMPLETED, DEFAULT_ZONE, DefaultZone
from flowvis.exporter.tables.ends import OVER, Ends
from flowvis.exporter.tables.enrich import Enricher
from flowvis.exporter.tables.gap import Gap
from flowvis.exporter.tables.reported import Reported
from flowvis.exporter.tables.rows import KEPT, counters_of, row_bytes
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.tables.timed import ASIDE_BYTES, UNREPORTED, Slots, TimedTable
from flowvis.exporter.tables.tuples import (
    KEY_SIZE,
    ConnectionTuples,
    identity,
    source_and_protocol,
    zones_of,
)
from flowvis.fields import EndReason
from flowvis.native import FlowIndex
from flowvis.runtime.dropped import EntryDropped
from flowvis.runtime.ledger import Ledger
from flowvis.steady import SteadyTime

MEMORY = 3  # connections remembered for each that may be live; one takes a third of the room
PASSING = 4096  # rows beside the bound, for connections of which only the end was observed

CONNECTION_BYTES = row_bytes(KEPT) + (1 + MEMORY) * (KEY_SIZE + ASIDE_BYTES)
"""What a connection can take at most, with what is remembered of those that were evicted."""

_TCP = 6
_ESTABLISHED = np.uint8(TCP_STATES.index("ESTABLISHED"))


@dataclass(slots=True)
class TableStats:
    """What the books do not tell."""

    evicted: int = count("Connections that left the table since it was full")
    forgotten: int = count("Evicted connections that may be reported twice: too many were evicted")
    vanished: int = count("Connections whose end was not observed: what they did last is missing")
    ended_unobserved: int = count(
        "Connections reported before that ended while no exporter ran, or after they were evicted: "
        "what they did since is missing"
    )
    unseen: int = count(
        "Connections that began and ended unseen as the kernel dropped events, at the most"
    )
    uncounted: int = gauge("Connections that have no counters: older than nf_conntrack_acct")


class ConnectionTable(TimedTable[TableStats]):
    """The live connections of one node, at most `max_connections`.

    Its books: `entries` of the kernel either are of a known connection (merged) or admit one;
    `connections` are held until they end.
    """

    survives = True

    def __init__(
        self,
        enricher: Enricher,
        scope: Scope,
        *,
        active_timeout_ms: int = 60_000,
        idle_timeout_ms: int = 15_000,
        max_connections: int = 262_144,
        events: bool = True,
        ledger: Ledger | None = None,
        default_zone: DefaultZone | None = None,
        steady: SteadyTime | None = None,
    ) -> None:
        """With `events` the kernel tells when connections end; else only polls show it.

        Times that come in and go out are the wall clock's; what is due goes by steady time.

        With `default_zone` the default zone's entries only complete connections of other zones.
        """
        capacity = max_connections + PASSING
        ledger = ledger or Ledger()
        self.entries = ledger.stage("entries")
        super().__init__(
            TableStats(),
            ledger.stage("connections", held=self.__len__, sources=(self.entries,)),
            key_size=KEY_SIZE,
            capacity=capacity,
            kept=KEPT,
            remembered=MEMORY * max_connections,
            active_timeout_ms=active_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
            steady=steady,
        )
        self.max_connections = max_connections
        self._enricher = enricher
        self._scope = scope
        self._default_zone = default_zone
        self._events = events
        self._gap = Gap()
        self._polled_at = 0
        self._ends = Ends(self._rows, capacity)
        self._seen = np.zeros(capacity, dtype=np.int64)  # the last poll that it was seen in
        self._counted = np.zeros(capacity, dtype=bool)  # whether the kernel gave its counters
        self._uncounted = np.zeros(capacity, dtype=bool)  # whether the kernel has no counters
        self._past = np.zeros(capacity, dtype=bool)  # older than we are, since when is not known
        self._completed = np.zeros(capacity, dtype=bool)  # whether `default_zone` completed it
        self._kernel_start = np.zeros(capacity, dtype=np.uint64)  # ns; 0 while unknown

    def poll(self, entries: Entries, now_ms: int) -> None:
        """Take in all connections that the kernel lists."""
        self._poll += 1
        self._polled_at = self._at = self._steady.at(now_ms)
        self.entries.received += len(entries)
        entries = self._of_own_zones(entries)
        if self._events:
            # Their end has been observed, or is about to be: here it would be a second connection.
            entries = self._keep(
                entries, entries.status & ConntrackStatus.DYING == 0, EntryDropped.DYING
            )
        entries = self._keep(entries, self._scope.covers(entries), EntryDropped.OUT_OF_SCOPE)
        keys = identity(entries)
        slots: Slots = self._index.find(keys)
        if self._events and (following := self._following(keys, slots, entries)).any():
            entries = self._keep(entries, ~following, EntryDropped.DYING)
            keys, slots = keys[~following], slots[~following]
        self._vanish_others(slots, entries)
        fresh = self._update_known(slots, entries, now_ms)
        if len(fresh):
            self._admit(keys.take(fresh, axis=0), entries.take(fresh), now_ms)
        rows = slice(self._top)
        self.stats.uncounted = int(np.count_nonzero(self._live[rows] & self._uncounted[rows]))

    def event(self, entries: Entries, now_ms: int) -> None:
        """Take in events, in the order that the kernel reported them."""
        self._at = self._steady.at(now_ms)
        self.entries.received += len(entries)
        entries = self._of_own_zones(entries)
        entries = self._keep(entries, self._scope.covers(entries), EntryDropped.OUT_OF_SCOPE)
        wanted = (entries.event == NEW) | (entries.event == DESTROY)
        for part in _one_of_each(self._keep(entries, wanted, EntryDropped.OTHER_EVENT)):
            self._begin(part.take(part.event == NEW), now_ms)
            ended = part.take(part.event == DESTROY)
            for start in range(0, len(ended), PASSING):
                self._end(ended.take(slice(start, start + PASSING)), now_ms)

    def lost(self, events: int) -> None:
        """Note events that the kernel dropped as nobody took them in time."""
        if events:
            self.entries.received += events
            self.entries.drop(EntryDropped.LOST, events)
            self._gap.lose(events, self._poll)

    def settle(self) -> int:
        """Count entries that were received and of which nothing came, as their handling failed."""
        left = self.entries.imbalance
        self.entries.drop(EntryDropped.FAILED, left)
        return left

    def sweep(self) -> None:
        """End what the last poll did not list; with events, what the last two did not.

        The end of a connection is reported before the kernel stops listing it, so this ends only
        those whose end was lost or is not reported for them.
        """
        oldest = self._poll - int(self._events)
        vanished = np.flatnonzero(self._live[: self._top] & (self._seen[: self._top] < oldest))
        self._vanish(vanished)
        self.miss(self._memory.forget_before(oldest))
        self.stats.unseen += self._gap.close(self._poll)
        if self._default_zone is not None:
            self._default_zone.forget_before(oldest)

    def narrow(self) -> None:
        """Let go of connections that the scope, which has changed, does not want any more.

        What is not reported of them yet is reported, as if they were cut off. One that is wanted
        again two polls later, and that the kernel still lists, is reported from its beginning.
        """
        kept = self._rows.kept
        wanted = self._scope.wants(
            kept["sourceIP"][: self._top], kept["protocolIdentifier"][: self._top]
        )
        self._end_with(np.flatnonzero(self._live[: self._top] & ~wanted), EndReason.FORCED)

    def closed_after(self, closed_s: Mapping[str, int]) -> None:
        """Know for how many seconds the kernel keeps connections after their end, by TCP state."""
        self._ends.closed_after(closed_s)

    def miss(self, reported: Reported) -> None:
        """Count connections that were reported before, and ended while nobody looked."""
        wanted = self._scope.wants(*source_and_protocol(reported.keys))  # else nobody wants to look
        if self._default_zone is not None:  # a predecessor may have been there before the other
            wanted &= zones_of(reported.keys) != DEFAULT_ZONE
        self.stats.ended_unobserved += int(np.count_nonzero(reported.missed & wanted))
        self._note_over(reported)

    def _of_own_zones(self, entries: Entries) -> Entries:
        """Go on with what is reported; the default zone's only say more of others."""
        if self._default_zone is None:
            return entries
        own = self._default_zone.split(entries, self._poll)
        self.entries.drop(EntryDropped.DEFAULT_ZONE, len(entries) - len(own))
        return own

    def _tuples(
        self, entries: Entries, now_ms: int, open_to: NDArray[np.bool_] | None = None
    ) -> tuple[ConnectionTuples, NDArray[np.bool_]]:
        """Put entries' tuples in order; say which the default zone completed, of `open_to`."""
        tuples = ConnectionTuples.of(entries, now_ms)
        if self._default_zone is None:
            return tuples, np.zeros(len(entries), dtype=bool)
        return self._default_zone.complete(tuples, entries, open_to)

    def _keep(self, entries: Entries, which: NDArray[np.bool_], reason: EntryDropped) -> Entries:
        """Go on with some of the entries; the others are counted."""
        if which.all():
            return entries
        self.entries.drop(reason, int(np.count_nonzero(~which)))
        return entries.take(which)

    def _find(self, entries: Entries) -> tuple[NDArray[np.uint8], Slots]:
        """Return the keys and slots of entries, -1 where the connection is not known.

        A known key with another start is another connection: the one before has ended unobserved.
        """
        keys = identity(entries)
        slots: Slots = self._index.find(keys)
        self._vanish_others(slots, entries)
        return keys, slots

    def _vanish_others(self, slots: Slots, entries: Entries) -> None:
        """End connections whose keys the entries have for others; slots of these become -1."""
        other = self._others(slots, entries)
        if other.any():
            gone = np.unique(slots[other])
            slots[np.isin(slots, gone)] = -1
            self._vanish(gone)

    def _others(self, slots: Slots, entries: Entries) -> NDArray[np.bool_]:
        """Which entries are of another connection than the known one of their key.

        By their starts; where none are told, by the one before that was over.
        """
        starts = self._kernel_start[slots]
        both = (slots >= 0) & (starts > 0) & (entries.start_ns > 0)
        others = both & (starts != entries.start_ns)
        if not entries.start_ns.all():
            others |= _open_since(entries) & (slots >= 0) & (starts == 0) & self._over(slots)
        return np.asarray(others)

    def _following(
        self, keys: NDArray[np.uint8], slots: Slots, entries: Entries
    ) -> NDArray[np.bool_]:
        """Which entries of a dump follow a connection of their key whose end may be on its way.

        The kernel may give a tuple its id again at once, so a dump is ahead of the two events: they
        end the one and begin the other. What the next poll still shows has lost them.
        """
        oldest = self._poll - 1
        following = self._others(slots, entries) & (self._seen[slots] >= oldest)
        unknown = np.flatnonzero(slots < 0)  # what is in the table is not remembered beside it
        starts = entries.start_ns[unknown]
        following[unknown] = self._memory.precedes(keys.take(unknown, axis=0), starts, oldest)
        return following

    def _give_way(self, entries: Entries) -> None:
        """Forget connections that a dump showed before the end of the one that had their key.

        Nothing is reported of them: the next event begins them, or the next poll shows them again.
        """
        slots: Slots = self._index.find(identity(entries))
        early = self._others(slots, entries) & (entries.start_ns < self._kernel_start[slots])
        early &= self._reported[slots] == UNREPORTED
        if early.any():
            self._free(np.unique(slots[early]))

    def _vanish(self, slots: Slots) -> None:
        """End connections of which no end was reported to us.

        Of those that were seen to be over, and where nothing is counted, nothing is missing.
        """
        missed = ~self._over(slots) & ~self._uncounted[slots]
        self.stats.vanished += int(np.count_nonzero(missed))
        self._gap.find(len(slots))
        self._end_with(slots, EndReason.END)

    def _begin(self, entries: Entries, now_ms: int) -> None:
        """Take in connections that have begun; they have counted nothing yet."""
        keys, slots = self._find(entries)
        known, fresh = _parted(slots)
        self._gap.find(-len(known))  # a dump was faster than their event
        self.entries.merged += len(known)
        self._admit(keys.take(fresh, axis=0), entries.take(fresh), now_ms)

    def _end(self, entries: Entries, now_ms: int) -> None:
        """Take in connections that have ended, with their last counters; at most PASSING."""
        if not len(entries):
            return
        self._give_way(entries)
        keys, slots = self._find(entries)
        fresh = self._update_known(slots, entries, now_ms)
        if len(fresh):
            slots[fresh] = self._admit(
                keys.take(fresh, axis=0), entries.take(fresh), now_ms, ended=True
            )
        self._end_with(slots[slots >= 0], EndReason.END)
        self._note_over(self._memory.forget(keys))

    def _admit(
        self, keys: NDArray[np.uint8], entries: Entries, now_ms: int, *, ended: bool = False
    ) -> Slots:
        """Open rows for connections that are wanted; return their slots, -1 where there is none.

        Those that have `ended` come after the others into room of their own, to leave it at once.
        """
        slots = np.full(len(entries), -1, dtype=np.int64)
        if not len(entries):
            return slots
        counters = counters_of(entries)
        reported = self._memory.recall(
            keys, entries.start_ns, counters, self._poll, anew=_open_since(entries)
        )
        # What was reported under one client's name is reported under it to its end.
        tuples, completed = self._tuples(
            entries, now_ms, (reported.reasons == UNREPORTED) | reported.completed
        )
        description = self._enricher.describe(tuples, self._rows.strings)
        quiet = (reported.reasons != UNREPORTED) & ~any_of(counters != reported.exported)
        # What is not counted says that it is over by its state alone.
        over = (entries.uncounted != 0) & OVER[entries.tcp_state]
        quiet &= ~(over | ended) | (reported.reasons == EndReason.END)
        failed = 0 if description.failed is None else int(np.count_nonzero(description.failed))
        others = int(np.count_nonzero(~description.wanted)) - failed
        self.entries.drop(EntryDropped.NOT_LOCAL, others)
        self.entries.drop(EntryDropped.FAILED, failed)
        self.entries.drop(
            EntryDropped.REPORTED_BEFORE, int(np.count_nonzero(description.wanted & quiet))
        )
        wanted = np.flatnonzero(description.wanted & ~quiet)
        room = self._make_room(len(wanted), self.max_connections + (PASSING if ended else 0))
        self.entries.drop(EntryDropped.TABLE_FULL, max(len(wanted) - room, 0))
        wanted = wanted[:room]
        slots[wanted], new = self._index.upsert(keys[wanted])
        self.entries.sent += int(np.count_nonzero(new))
        self.connections.received += int(np.count_nonzero(new))
        self.entries.merged += int(np.count_nonzero(~new))
        fields = {**tuples.fields(), **description.columns}
        opened = wanted[new]
        self._gap.find(int(np.count_nonzero(entries.event[opened] != NEW)))
        self._open(slots[opened])
        self._counted[slots[opened]] = self._past[slots[opened]] = False
        self._ends.begin(slots[opened], self._at)
        self._kernel_start[slots[opened]] = entries.start_ns[opened]
        self._rows.exported[slots[opened]] = reported.exported.take(opened, axis=0)
        self._reported[slots[opened]] = reported.reasons[opened]
        self._completed[slots[opened]] = completed[opened]
        fields["flowStartMilliseconds"] = np.where(
            reported.began > 0, reported.began, tuples.start_ms
        )
        # Where the clock was set back since, time goes on from there.
        fields["flowEndMilliseconds"] = np.maximum(reported.ends, fields["flowStartMilliseconds"])
        self._rows.write(slots[opened], {name: column[opened] for name, column in fields.items()})
        gone_on = reported.reasons[opened] != UNREPORTED
        self._memory.forget(keys[opened[gone_on]])
        # Another connection has the key of one that was reported: that one is over.
        self.miss(self._memory.forget(keys[opened[~gone_on]]))
        self._update(slots[wanted], entries.take(wanted), now_ms)
        self._report_past(slots[opened], entries.take(opened))
        # Of a predecessor that was killed: while the flow is known its totals make good what was
        # lost with it.
        cut = np.isin(reported.reasons[opened], (EndReason.ACTIVE, EndReason.IDLE))
        self._hasten(slots[opened[cut]])
        return slots

    def _report_past(self, slots: Slots, entries: Entries) -> None:
        """Let what connections did before anybody looked be of the moment of their first sight.

        Their start is not known, so no interval is: the first record ends when it begins, whenever
        it can be sent, and the next one counts from there. What nothing is counted of just begins.
        """
        unknown = (entries.start_ns == 0) & (entries.event == DUMP) & (entries.uncounted == 0)
        past = slots[unknown & (self._reported[slots] == UNREPORTED)]
        self._past[past] = True
        self._hasten(past)

    def _make_room(self, wanted: int, limit: int) -> int:
        """Evict what is idle longest until so many connections fit; return how many do.

        What has grown since the last poll began stays: else those that take turns would be reported
        at every poll.
        """
        free = limit - len(self._index)
        if wanted > free:
            rows = slice(self._top)
            settled = self._live[rows] & self._counted[rows]
            idle = np.flatnonzero(settled & (self._grown_at[rows] < self._polled_at))
            if len(idle) > wanted - free:
                order = np.argpartition(self._grown_at[idle], wanted - free)
                idle = idle[order[: wanted - free]]
            self.stats.evicted += len(idle)
            self._end_with(idle, EndReason.LACK_OF_RESOURCES)
            free += len(idle)
        return min(wanted, free)

    def _update_known(self, slots: Slots, entries: Entries, now_ms: int) -> Slots:
        """Take in what entries report of known connections; return the places of the others."""
        known, fresh = _parted(slots)
        self.entries.merged += len(known)
        reported = entries.take(known) if len(fresh) else entries
        self._learn(slots[known], reported, now_ms)
        self._update(slots[known], reported, now_ms)
        return fresh

    def _update(self, slots: Slots, entries: Entries, now_ms: int) -> None:
        """Write what entries report their connections, and set when these are due."""
        rows = self._rows
        self._seen[slots] = self._poll
        states = self._states(slots, entries)
        grown = rows.count(slots, counters_of(entries))
        grown |= rows.tcp_state[slots] != states
        grown |= ~self._counted[slots]
        self._counted[slots] |= entries.event != NEW
        grown &= entries.event != NEW
        rows.tcp_state[slots] = states
        self._uncounted[slots] = (entries.uncounted != 0) & (entries.event != NEW)
        over = OVER[states]
        self._ends.move(slots, entries, now_ms, self._at, over=over, grown=grown)
        past = slots[self._past[slots] & (self._reported[slots] == UNREPORTED)]
        rows.kept["flowStartMilliseconds"][past] = rows.kept["flowEndMilliseconds"][past]
        self._grow(slots[grown])
        self._hasten(slots[over & (grown | (self._reported[slots] != EndReason.END))])

    def _states(self, slots: Slots, entries: Entries) -> NDArray[np.uint8]:
        """Return the TCP states of entries; where the kernel reports none, what is known of them.

        A flowtable takes established connections only, and while it has one the kernel reports no
        state (ctnetlink_dump_info); older kernels report none of what has ended.
        """
        states = np.where(
            entries.tcp_state == NO_TCP_STATE, self._rows.tcp_state[slots], entries.tcp_state
        )
        offloaded = (entries.status & (ConntrackStatus.OFFLOAD | ConntrackStatus.HW_OFFLOAD)) != 0
        unknown = (states == NO_TCP_STATE) & (entries.protocol == _TCP) & offloaded
        return np.where(unknown, _ESTABLISHED, states)

    def _learn(self, slots: Slots, entries: Entries, now_ms: int) -> None:
        """Complete what was not known when connections began, while nothing is reported of them."""
        self._kernel_start[slots] = np.where(
            self._kernel_start[slots] > 0, self._kernel_start[slots], entries.start_ns
        )
        unreported = np.flatnonzero(self._reported[slots] == UNREPORTED)
        if not len(unreported):
            return
        tuples, completed = self._tuples(entries.take(unreported), now_ms)
        stamped = entries.start_ns[unreported] > 0
        starts, ends = (self._rows.kept[f"flow{end}Milliseconds"] for end in ("Start", "End"))
        known_since = slots[unreported[stamped]]
        starts[known_since] = tuples.start_ms[stamped]
        ends[known_since] = np.maximum(ends[known_since], starts[known_since])
        description = self._enricher.describe(tuples, self._rows.strings)
        known = dict(description.columns)
        # The default zone may have forgotten what it knew at first.
        better = completed | ~self._completed[slots[unreported]]
        if description.failed is not None:
            better &= ~description.failed
        if completed.any():
            known |= {name: tuples.fields()[name] for name in COMPLETED}
        at = slots[unreported[better]]
        self._rows.write(at, {name: column[better] for name, column in known.items()})
        self._completed[at] = completed[better]

    def _observed(self) -> Slots:
        """A connection that has begun and of which no poll reported is for our successor, whole:
        it knows its start."""
        return np.flatnonzero(self._live[: self._top] & self._counted[: self._top])

    def _over(self, slots: Slots) -> NDArray[np.bool_]:
        return OVER[self._rows.tcp_state[slots]]

    def _starts(self, slots: Slots) -> NDArray[np.uint64]:
        return self._kernel_start[slots]

    def _completed_of(self, slots: Slots) -> NDArray[np.bool_]:
        return self._completed[slots]

    def _end_with(self, slots: Slots, reason: int) -> None:
        """Make the last records of connections, and free their rows."""
        news = self._rows.unreported(slots) | (self._reported[slots] == UNREPORTED)
        if reason == EndReason.END:
            news |= self._reported[slots] != EndReason.END
        self._depart(slots, news, reason)


def _one_of_each(entries: Entries) -> Iterator[Entries]:
    """Cut events into parts in which nothing comes after the end of a connection of its key.

    The kernel may give an ended connection's id to the next one between the same ends.
    """
    while len(entries):
        slots, _ = FlowIndex(KEY_SIZE, len(entries)).upsert(identity(entries))
        places = np.arange(len(entries))
        end = np.full(len(entries), len(entries))
        ended = entries.event == DESTROY
        np.minimum.at(end, slots[ended], places[ended])
        later = places > end[slots]
        if not later.any():
            yield entries
            return
        yield entries.take(~later)
        entries = entries.take(later)


def _open_since(entries: Entries) -> NDArray[np.bool_]:
    """Which entries of a dump are open TCP connections, and nobody knows since when."""
    told = (entries.event == DUMP) & (entries.tcp_state != NO_TCP_STATE)
    return np.asarray(told & (entries.start_ns == 0) & ~OVER[entries.tcp_state])


def _parted(slots: Slots) -> tuple[Slots, Slots]:
    """Return the places of connections that are known, and of those that are not."""
    return np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
