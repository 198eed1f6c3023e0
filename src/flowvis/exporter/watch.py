"""From the kernel to the table: polls, and the events between them."""

import asyncio
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.sources.protocol import Source
from flowvis.errors import SystemRefused
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.occupancy import Occupancy
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

EVENT_PAUSE_S = 0.1  # in which events gather: what is done for each batch costs half a millisecond
EVENT_READS = 64  # one after the other, of 256 KiB: more than the kernel keeps for us
HELD_EVENTS = 65_536  # 11 MB; read while the kernel is asked for its table
RESYNC_S = 1.0  # at least between two polls, however often events are lost
OCCUPANCY_POLLS = 2  # of which one is a look who fills the table, too: 0.2 us an entry

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of poll times in seconds; Antrea's."""


@dataclass(slots=True)
class KernelWatchStats:
    """What polls found and took."""

    polls: int = 0
    failures: int = 0
    """Polls that the kernel refused."""
    listed: int = 0
    """Entries in the last poll, of the zones that are polled."""
    held: int = 0
    """What the kernel's table holds, of all zones."""
    maximum: int = 0
    """What the kernel's table can hold."""
    poll_seconds: float = 0.0
    polls_within: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """Polls by the first of BUCKETS that they fit in; the last: longer ones."""

    def took(self, seconds: float) -> None:
        """Note how long a poll took."""
        self.polls += 1
        self.poll_seconds += seconds
        self.polls_within[bisect_left(BUCKETS, seconds)] += 1


class Watch:
    """Component: keeps the table as the kernel says.

    Events that come during a poll are applied after it, as the poll may show a connection that has
    ended meanwhile; they are read at once, as the kernel keeps a second of a busy node's at most
    and the dump of a large table takes as long. A connection's end is reported before the kernel
    stops listing it; so what is missing after those events was not reported.
    """

    name = "watch"

    def __init__(
        self,
        conntrack: Source,
        table: ConnectionTable,
        exporter: Exporter,
        *,
        poll_interval_s: float,
        events: bool,
        occupancy: Occupancy | None = None,
        stop_s: float = 5.0,
    ) -> None:
        """Poll at this interval; at a stop, at most `stop_s` are for the last poll."""
        self.stats = KernelWatchStats()
        self._occupancy = occupancy
        self._conntrack = conntrack
        self._table = table
        self._exporter = exporter
        self._interval_s = poll_interval_s
        self._events = events
        self._stop_s = stop_s
        self._lock = asyncio.Lock()
        self._said_uncounted = False
        self._log = LimitedLog(log, burst=1)
        self._held: deque[Entries] = deque()  # events that were read during a poll
        self._lost = False  # something that the kernel reported: poll again
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the kernel's tables and poll once; SystemRefused says what is missing."""
        try:
            await asyncio.to_thread(self._conntrack.open)
            for problem in self._conntrack.prepare():
                log.warning("%s", problem)
            await self._poll()
        except BaseException:
            self._conntrack.close()  # what waits for it in a thread is to end as well
            raise
        self._tasks.append(spawn("polls", self._keep_polling()))
        if self._events:
            self._tasks.append(spawn("events", self._listen()))

    def poll_every(self, interval_s: float) -> None:
        """Poll at another interval, the first time now."""
        self._interval_s = interval_s
        self._hurry.set()

    async def stop(self) -> None:
        """Poll a last time, so that the table has the latest counters, as far as time allows.

        What waits to be sent needs time as well, whatever a switch does that does not answer.
        """
        try:
            async with asyncio.timeout(self._stop_s):
                async with self._lock:  # no poll is under way in its thread
                    await self._end_tasks()
                await self._poll()
        except TimeoutError:
            log.warning(
                "connections not polled a last time, as there is no answer in %g s: what they "
                "counted since the poll before is in no record",
                self._stop_s,
            )
            await self._end_tasks()
            while self._held:
                self._take(self._table.event, self._held.popleft())
        self._conntrack.close()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            await end(task)

    async def _keep_polling(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + self._interval_s
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._hurry.wait()
                if self._lost:
                    text = "the kernel dropped events or cut a poll short: polling again"
                    self._log.log(logging.WARNING, "conntrack", text)
                    await asyncio.sleep(RESYNC_S)
                due = clock() + self._interval_s
            except TimeoutError:
                # A poll that took longer than the interval makes the next one late, not double.
                due = max(due + self._interval_s, clock())
            await self._poll()

    async def _poll(self) -> None:
        async with self._lock:
            self._lost = False
            self._hurry.clear()
            interrupted = self._conntrack.stats.interrupted
            began = time.monotonic()
            try:
                entries, held, maximum = await self._listed()
            except SystemRefused as refusal:
                self.stats.failures += 1
                text = "connections not polled: %s"
                self._log.log(logging.ERROR, "conntrack", text, refusal)
                await self._drain()
                return
            self.stats.listed = len(entries)
            self.stats.held, self.stats.maximum = held, maximum
            self._look_who(entries)
            self._say_turned_off()
            self._table.closed_after(self._conntrack.closed_s())
            taken = self._take(self._table.poll, entries)
            await self._drain()
            if not taken:
                return  # what it did not come to is not gone: the next poll shows it
            self._say_uncounted()
            if self._conntrack.stats.interrupted == interrupted:
                self._table.sweep()
            else:
                self._poll_again()  # what was not listed may be there
            self.stats.took(time.monotonic() - began)
            self._exporter.collect(self._table)

    async def _listed(self) -> tuple[Entries, int, int]:
        """Return what `_list` does; events that come meanwhile are read, to be taken in later."""
        listing = asyncio.ensure_future(asyncio.to_thread(self._list))
        try:
            while not listing.done():
                await asyncio.wait((listing,), timeout=EVENT_PAUSE_S if self._events else None)
                if self._events and not listing.done():
                    await self._hold()
            return await listing
        finally:
            listing.cancel()

    async def _hold(self) -> None:
        """Read the events that have arrived until now, as many as there is room for."""
        for _ in range(EVENT_READS):
            if sum(map(len, self._held)) >= HELD_EVENTS:
                return
            if len(events := self._read()):
                self._held.append(events)
            if not self._conntrack.unread:
                return
            await asyncio.sleep(0)

    def _list(self) -> tuple[Entries, int, int]:
        """List the connections; return them, and how many the table holds and can hold. Blocks."""
        return self._conntrack.poll(), self._conntrack.count(), self._conntrack.maximum()

    def _look_who(self, entries: Entries) -> None:
        """Find who fills the table; what fails in it costs nothing else."""
        if self._occupancy is None or self.stats.polls % OCCUPANCY_POLLS:
            return
        try:
            self._occupancy.look(entries, now_ms())
        except Exception as error:  # noqa: BLE001  whatever it is, the next poll is another try
            name = type(error).__name__
            text = "a defect of ours over who fills the connection table: %s: %s"
            self._log.log(logging.ERROR, f"occupancy {name}", text, name, error, error=error)

    def _say_turned_off(self) -> None:
        """Have the kernel tell all again that somebody turned off, and say so."""
        for line in self._conntrack.turned_off():
            self._log.log(logging.WARNING, line, "%s", line)

    def _say_uncounted(self) -> None:
        """Say once what has no counters, and what helps."""
        uncounted = self._table.stats.uncounted
        if uncounted and self._conntrack.counts and not self._said_uncounted:
            log.warning(
                "%d connections began before net.netfilter.nf_conntrack_acct was 1: the kernel "
                "counts nothing of them, so their records have 0 packets and bytes to their end: "
                "open them anew (restart their clients), and set it when the node boots (sysctl.d)",
                uncounted,
            )
            self._said_uncounted = True

    async def _listen(self) -> None:
        """Take in events as they come, some at a time."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        descriptor = self._conntrack.event_fileno()
        try:
            while True:
                readable.clear()
                loop.add_reader(descriptor, readable.set)
                await readable.wait()
                loop.remove_reader(descriptor)
                async with self._lock:
                    await self._drain()
                    self._exporter.collect(self._table)
                await asyncio.sleep(EVENT_PAUSE_S)
        finally:
            loop.remove_reader(descriptor)

    async def _drain(self) -> None:
        """Take in all events that have arrived until now, also behind many of other zones.

        Not those that come meanwhile: on a busy node there is always one more.
        """
        while self._held:
            await self._take_in(self._held.popleft())
        for _ in range(EVENT_READS if self._events else 0):
            await self._take_in(self._read())
            if not self._conntrack.unread:
                return

    async def _take_in(self, events: Entries) -> None:
        if len(events):
            self._take(self._table.event, events)
            self._exporter.collect(self._table)
        await asyncio.sleep(0)

    def _take(self, take: Callable[[Entries, int], None], entries: Entries) -> bool:
        """Let the table take entries in; whether that went well. It costs no more than these."""
        try:
            take(entries, now_ms())
        except Exception as error:  # noqa: BLE001  whatever it is, the next poll shows all again
            left = self._table.settle()
            name = type(error).__name__
            text = "a defect of ours over the kernel's connections: %s: %s; %d of %d are left out"
            parts = (name, error, left, len(entries))
            self._log.log(logging.ERROR, name, text, *parts, error=error)
            return False
        return True

    def _read(self) -> Entries:
        lost = self._conntrack.stats.lost_events
        entries = self._conntrack.read_events()
        self._table.lost(self._conntrack.stats.lost_events - lost)
        if self._conntrack.needs_resync:
            self._poll_again()
        return entries

    def _poll_again(self) -> None:
        self._lost = True
        self._hurry.set()
