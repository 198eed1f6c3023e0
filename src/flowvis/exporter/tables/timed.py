"""What is reported in time: rows that grow, and that are due at their timeouts.

The tables of connections and of denied ones are made of this; no I/O, no clock. A row is reported
while it grows at most once per active timeout (flowEndReason 2), once when it has not grown for the
idle timeout (1), and when it leaves. What was reported is noted as its records are taken, so that
whoever follows goes on from there.
"""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, concat
from flowvis.exporter.tables.reported import Memory, Reported, joined
from flowvis.exporter.tables.rows import TOTALS, Rows, row_bytes
from flowvis.fields import EndReason
from flowvis.native import FlowIndex
from flowvis.runtime.ledger import Stage
from flowvis.steady import SteadyTime

Slots = NDArray[np.int64]

NEVER = int(np.iinfo(np.int64).max)
MANY = 1 << 62
UNREPORTED = 0  # where a flowEndReason will be: no record has been made
ASIDE_BYTES = 120  # beside a key: index, times and flags, of a row or of what is remembered

_NO_SLOTS = np.empty(0, dtype=np.int64)


class LeaverStats(Protocol):
    """What is counted of those that leave."""

    evicted: int
    forgotten: int


Stats = TypeVar("Stats", bound=LeaverStats)


class TimedTable(Generic[Stats]):
    """Rows by key; a subclass says what makes them grow, and what ends them.

    `connections` are its books: they are held until they leave.
    """

    survives = False
    """Whether the source keeps the connections, so that a successor reports them."""

    def __init__(
        self,
        stats: Stats,
        connections: Stage,
        *,
        key_size: int,
        capacity: int,
        kept: Sequence[str],
        remembered: int,
        active_timeout_ms: int,
        idle_timeout_ms: int,
        steady: SteadyTime | None = None,
    ) -> None:
        """At most `capacity` rows; of as many as are `remembered` it knows what was reported."""
        self.stats = stats
        self.connections = connections
        self._row_bytes = row_bytes(kept) + key_size + ASIDE_BYTES
        self._remembered_bytes = key_size + ASIDE_BYTES
        self._steady = steady or SteadyTime()
        self._at = 0  # the steady time of the last look at the table
        self._active_ms = active_timeout_ms
        self._idle_ms = idle_timeout_ms
        self._index = FlowIndex(key_size, capacity)
        self._rows = Rows(capacity, kept)
        self._memory = Memory(key_size, remembered, len(TOTALS))
        self._poll = 1  # when what is remembered was seen
        self._keeper: Callable[[Batch, Reported], None] | None = None
        self._departed: list[Batch] = []
        self._waiting = 0  # records of those that departed
        self._noted: list[Reported] = []
        self._nothing = self._rows.records(_NO_SLOTS, _NO_SLOTS)
        self._top = 0  # no row from here on has ever been used
        self._live = np.zeros(capacity, dtype=bool)
        self._grown_at = np.zeros(capacity, dtype=np.int64)
        self._active_at = np.zeros(capacity, dtype=np.int64)
        self._deadline = np.full(capacity, NEVER, dtype=np.int64)
        self._asleep = np.zeros(capacity, dtype=bool)  # nothing is to be reported until it grows
        self._reported = np.zeros(capacity, dtype=np.uint8)  # flowEndReason of the last record

    def __len__(self) -> int:
        return len(self._index)

    @property
    def memory_bytes(self) -> int:
        """About what connections, those that are remembered included, and their text take."""
        aside = len(self._memory) * self._remembered_bytes
        return self._top * self._row_bytes + aside + self._rows.strings.memory_bytes

    def due(self, now_ms: int, *, live: int = MANY) -> Batch:
        """Return the records of all that departed and of up to `live` live ones that are due.

        Columns: the exporter's template. Live ones beyond that stay due.
        """
        self._at = self._steady.at(now_ms)
        batch = self._taken(self._expire(live))
        self._rows.compact(lambda: np.flatnonzero(self._live[: self._top]))
        return batch

    def flush(self, *, live: int = MANY) -> Batch:
        """Return what is not reported yet, of up to `live` live connections, as if cut off now.

        What is over already has ended, and is reported so, though its source still shows it.
        Nothing is left when it returns nothing.
        """
        slots = self._observed()
        over = self._over(slots)
        news = self._rows.unreported(slots) | (self._reported[slots] == UNREPORTED)
        news |= over & (self._reported[slots] != EndReason.END)
        unreported = slots[news][:live]
        reasons = np.where(over, EndReason.END, EndReason.FORCED)[news][:live]
        self._asleep[unreported] = True
        self._deadline[unreported] = NEVER
        return self._taken(self._records(unreported, reasons))

    def retime(self, active_timeout_ms: int, idle_timeout_ms: int) -> None:
        """Report by other timeouts, of those that are known as well."""
        rows = slice(self._top)
        self._active_at[rows] += active_timeout_ms - self._active_ms
        self._active_ms, self._idle_ms = active_timeout_ms, idle_timeout_ms
        slots = np.flatnonzero(self._live[rows] & ~self._asleep[rows])
        self._time(slots[~self._over(slots)])

    def reported(self) -> Reported:
        """What was reported of all that may go on: for our successor."""
        rows = slice(self._top)
        slots = np.flatnonzero(self._live[rows] & (self._reported[rows] != UNREPORTED))
        return joined([self._reported_of(slots), self._memory.all()])

    def take_over(self, reported: Reported) -> None:
        """Know what our predecessor reported, so that it is not reported again."""
        self.stats.forgotten += self._memory.remember(reported, self._poll + 1)

    def miss(self, reported: Reported) -> None:
        """Count what ended unobserved, of what our predecessor reported: all of it is over."""

    def keep_to(self, keep: Callable[[Batch, Reported], None]) -> None:
        """Let records be kept from now on as they are taken, before anybody can send them.

        With them comes what is reported then; a reason of 0 says that a connection is no more.
        """
        self._keeper = keep

    def next_deadline(self) -> int | None:
        """When something will be due, by the wall clock as it goes; None while nothing will."""
        if self._departed:
            return 0
        earliest = int(self._deadline[: self._top].min(initial=NEVER))
        return None if earliest == NEVER else self._steady.wall(earliest)

    def _observed(self) -> Slots:
        """The live rows of which something was observed."""
        return np.flatnonzero(self._live[: self._top])

    def _over(self, slots: Slots) -> NDArray[np.bool_]:
        """Which connections are over, as far as their source shows."""
        return np.zeros(len(slots), dtype=bool)

    def _starts(self, slots: Slots) -> NDArray[np.uint64]:
        """What tells connections of one key apart: see `Reported.starts`."""
        raise NotImplementedError

    def _completed_of(self, slots: Slots) -> NDArray[np.bool_]:
        """See `Reported.completed`."""
        return np.zeros(len(slots), dtype=bool)

    def _sleep_until(self, slots: Slots) -> Slots:
        """Until when connections are known that do not grow any more."""
        return np.full(len(slots), NEVER)

    def _wake_up(self, slots: Slots) -> None:
        """Let go of connections whose sleep is over."""
        raise NotImplementedError

    def _open(self, slots: Slots) -> None:
        """Make empty rows, of those that are observed for the first time."""
        self._top = max(self._top, int(slots.max(initial=-1)) + 1)
        self._rows.clear(slots)
        self._live[slots] = True
        self._asleep[slots] = True
        self._reported[slots] = UNREPORTED
        self._grown_at[slots] = self._at

    def _grow(self, slots: Slots) -> None:
        """Let connections that have grown be due at their timeouts."""
        asleep = slots[self._asleep[slots]]
        self._active_at[asleep] = self._at + self._active_ms
        self._asleep[slots] = False
        self._grown_at[slots] = self._at
        self._time(slots)

    def _hasten(self, slots: Slots) -> None:
        """Let connections be due now."""
        self._asleep[slots] = False
        self._deadline[slots] = self._at

    def _time(self, slots: Slots) -> None:
        self._deadline[slots] = np.minimum(
            self._active_at[slots], self._grown_at[slots] + self._idle_ms
        )

    def _expire(self, limit: int) -> Batch:
        """Make the records of live connections that are due."""
        slots = np.flatnonzero(self._deadline[: self._top] <= self._at)[:limit]
        if not len(slots):
            return self._none()
        if (asleep := self._asleep[slots]).any():
            self._wake_up(slots[asleep])
            slots = slots[~asleep]
        over = self._over(slots)
        idle = self._grown_at[slots] + self._idle_ms <= self._at
        reasons = np.select([over, idle], [EndReason.END, EndReason.IDLE], EndReason.ACTIVE)
        self._active_at[slots] = self._at + self._active_ms
        self._time(slots)
        asleep = slots[over | idle]
        self._asleep[asleep] = True
        self._deadline[asleep] = self._sleep_until(asleep)
        news = self._rows.unreported(slots) | (reasons != EndReason.ACTIVE)
        return self._records(slots[news], reasons[news])

    def _depart(self, slots: Slots, news: NDArray[np.bool_], reason: int) -> None:
        """Let go of connections, with a last record of those that have `news`."""
        if not len(slots):
            return
        known = slots[self._reported[slots] != UNREPORTED]
        over = reason == EndReason.END
        if over and len(known):
            self._note_over(self._reported_of(known))
        self._departed.append(self._records(slots[news], reason, noted=not over))
        self._waiting += int(np.count_nonzero(news))
        if not over:
            self._remember(slots)
        self._free(slots)

    def _note_over(self, reported: Reported) -> None:
        """Have a successor know that connections are over: it is not to miss them."""
        if self._keeper is not None and len(reported):
            self._noted.append(reported.ended())

    def _remember(self, slots: Slots) -> None:
        """Remember what was reported of connections that leave and may come again."""
        self.stats.forgotten += self._memory.remember(self._reported_of(slots), self._poll)

    def _free(self, slots: Slots) -> None:
        """Free the rows of connections."""
        self._index.remove(slots)
        self._live[slots] = False
        self._deadline[slots] = NEVER
        self.connections.sent += len(slots)

    def _records(self, slots: Slots, reasons: int | Slots, *, noted: bool = True) -> Batch:
        self._reported[slots] = reasons
        records = self._rows.records(slots, self._reported[slots])
        if noted and self._keeper is not None and len(slots):
            self._noted.append(self._reported_of(slots))
        return records

    def _reported_of(self, slots: Slots) -> Reported:
        """What the records of connections reported last."""
        return Reported(
            self._index.keys(slots),
            self._starts(slots),
            self._rows.kept["flowStartMilliseconds"][slots],
            self._rows.kept["flowEndMilliseconds"][slots],
            self._rows.exported.take(slots, axis=0),
            self._reported[slots],
            self._completed_of(slots),
        )

    def _taken(self, made: Batch) -> Batch:
        """Return these records after those of who departed, when they are kept."""
        filled = [batch for batch in (*self._departed, made) if len(batch)]
        batch = concat(filled) if filled else self._none()
        self._departed, self._waiting = [], 0
        if self._keeper is not None and (filled or self._noted):
            noted, self._noted = self._noted, []
            self._keeper(batch, joined(noted) if noted else self._reported_of(_NO_SLOTS))
        return batch

    def _none(self) -> Batch:
        """No records: made once for each string table, since that is what is asked for most."""
        if self._nothing.strings is not self._rows.strings:
            self._nothing = self._rows.records(_NO_SLOTS, _NO_SLOTS)
        return self._nothing
