"""Commits flow records to a store in batches, without ever stalling who produces them.

    writer = Writer(store, ledger.stage("clickhouse"))
    await writer.start()      # the store need not be there yet
    writer.put(batch)         # on the event loop; never waits
    await writer.stop()       # commits what waits, within the grace period

Records wait in memory (`commits`), and on disk where there is a spool (`spooling`). They are
committed every interval, or as soon as there are enough for a commit. A commit that fails is
repeated with growing pauses until it is known to have succeeded, under the same id, so that the
store never has it twice. All counting is done on the event loop; only the store's calls run in a
thread. That thread reads the batches' string tables, so whoever adds to a table must hold the GIL
while doing so.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from flowvis.backlog import UNBOUNDED
from flowvis.batch import Batch
from flowvis.clickhouse.commits import BatchIds, Commit, Uncommitted
from flowvis.clickhouse.history import BookHistory
from flowvis.clickhouse.monitor import Monitor, MonitorSettings, MonitorStats
from flowvis.clickhouse.roller import Roller, RollupStats
from flowvis.clickhouse.schema.books import Page
from flowvis.clickhouse.spool import Spool, SpoolError
from flowvis.clickhouse.spooling import AFTER_S, Spooling, SpoolStats
from flowvis.clickhouse.store import Store
from flowvis.clickhouse.stored_partitions import lacks_room
from flowvis.counts import count, gauge
from flowvis.delivery.patience import Patience
from flowvis.errors import StoreError
from flowvis.runtime.component import end, ended, let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

log = logging.getLogger(__name__)

COMMIT_INTERVAL_S = 8.0  # Antrea's default
COMMIT_RECORDS = 250_000  # about 100 MB as columns: one part on the server, soon enough encoded
MAX_PENDING = 1 << 19  # records, as Antrea: some 200 MB of columns
GRACE_S = 10.0
CLOSE_S = 2.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
DEFECTS = 3  # attempts that may end in an error that no store gives; then the batch is dropped


@dataclass(slots=True)
class WriterStats(SpoolStats):
    """What happened since the start."""

    commits: int = count("Commits that the store acknowledged")
    failures: int = count("Attempts that failed; each is repeated unless the data was rejected")
    commit_seconds: float = count("Seconds spent in commits that were acknowledged")
    last_commit_ms: int = gauge("When the last commit was acknowledged, in ms since the epoch")
    failing: str = ""
    """Why nothing can be committed at the moment; "" when all is well."""
    rollups: RollupStats = field(default_factory=RollupStats)
    store: MonitorStats = field(default_factory=MonitorStats)


@dataclass(frozen=True, slots=True)
class UncommittedRecords:
    """What one writer could not commit and another one may."""

    commit: Commit | None
    """One that was tried; its outcome may be unknown."""
    batches: list[Batch]
    spool: Spool | None = None
    """What is on disk, and in the books already."""


class Writer:
    """A component that writes what is put to a store; its books are `stage`."""

    def __init__(
        self,
        store: Store,
        stage: Stage,
        *,
        commit_interval_s: float = COMMIT_INTERVAL_S,
        commit_records: int = COMMIT_RECORDS,
        max_pending: int = MAX_PENDING,
        max_bytes: int = UNBOUNDED,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.time,
        stats: WriterStats | None = None,
        books: BookHistory | None = None,
        required: bool = True,
        spool: Spool | None = None,
        spool_after_s: float = AFTER_S,
        monitor: MonitorSettings | None = None,
    ) -> None:
        """`stats` are those of the writer whose place this one takes, if any.

        Pages of `books` are stored beside the records as they are due, and a last one at the end.
        """
        self.name = f"clickhouse {store.name}"
        self.required = required
        self.store = store
        self.stage = stage
        self.stats = stats or WriterStats()
        self.waits_s = commit_interval_s
        self._grace_s = grace_s
        self._clock = clock
        ids = BatchIds(clock)
        self.roller = Roller(store, ids.writer, stats=self.stats.rollups, clock=clock)
        self.monitor = Monitor(store, monitor, stats=self.stats.store, clock=clock)
        self.uncommitted = Uncommitted(
            stage,
            ids,
            max_records=max_pending,
            max_bytes=max_bytes,
            commit_records=commit_records,
        )
        self._spooling = Spooling(
            self.name, spool, self.uncommitted, self.stats, after_s=spool_after_s
        )
        self._books = books
        self._ready = False
        self._patience = Patience(self.name)
        self._enough = asyncio.Event()
        self._stopping = asyncio.Event()
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        stage.held = self.held

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to reach the store succeeded."""
        return self._ready and not self.problem

    @property
    def problem(self) -> str:
        """Why nothing can be committed at the moment; "" when all is well."""
        return self._patience.problem or self.stats.failing or self._spooling.problem

    @property
    def inherited(self) -> int:
        """Records in the spool that a process before has left: the store lacks them so far."""
        return sum(entry.records for entry in self._spooling.inherited)

    @property
    def awaits_spool(self) -> bool:
        """Whether another process, which has the spool, may leave something in it soon."""
        return self._spooling.is_awaited

    def held(self) -> int:
        """Records that wait, are being committed, or are in the spool."""
        return self.uncommitted.records + self._spooling.records

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return self.uncommitted.bytes

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self.uncommitted.bound(max_bytes)

    @property
    def details(self) -> dict[str, int]:
        """What is on disk, where there is a spool."""
        return self._spooling.details

    @property
    def mark(self) -> int:
        """The oldest mark of what neither the store nor the spool has."""
        return self.uncommitted.mark

    def put(self, batch: Batch) -> None:
        """Take a batch; the oldest that wait are dropped when there are too many."""
        self.stage.received += len(batch)
        if self._stopping.is_set():
            self.stage.drop(OutgoingDropped.CLOSED, len(batch))
        elif len(batch):
            self.uncommitted.put(batch)
            if self._has_enough():
                self._enough.set()

    def hurry(self) -> None:
        """Commit what waits now."""
        if self.held():
            self._enough.set()

    async def start(self) -> None:
        """Start committing; whether the store can be reached shows later."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clickhouse")
        await self._spooling.start()
        self._task = spawn(self.name, self._run())
        await self.roller.start()
        await self.monitor.start()

    async def stop(self) -> None:
        """Commit what waits within the grace period, then close; the rest is dropped, counted."""
        self._begin_to_stop()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._grace_s)
            await end(self._task)
        await self._spooling.stop()
        self.abandon()
        await self._close()

    async def retire(self, hurry: asyncio.Event) -> None:
        """Commit what waits within the grace period, or until `hurry`; close, keep the rest."""
        self._begin_to_stop()
        if self._task is not None:
            let_end(self._task)
            await ended(self._task, self._grace_s, hurry)
            await end(self._task)
        await self._spooling.stop()
        self.stats.failing = ""
        await self._close()

    def remainder(self) -> UncommittedRecords:
        """Take out what was kept when it was retired."""
        return UncommittedRecords(*self.uncommitted.release(), self._spooling.release())

    def succeed(self, remainder: UncommittedRecords) -> None:
        """Take over what another one has kept; before `start`.

        Its last commit goes on under its id: a store that has it after all does not take it again.
        What it has in a spool of another place, or where this one has none, is stored first.
        """
        self.uncommitted.current = remainder.commit
        if remainder.spool is not None:
            self._spooling.take_over(remainder.spool)
        self.uncommitted.put_back(remainder.batches)

    def abandon(self) -> None:
        """Give up what waits, counted; what is in the spool stays there."""
        if lost := self.uncommitted.abandon():
            log.error("%s: gave up %d records at shutdown", self.store.name, lost)
        self._spooling.abandon()

    def _begin_to_stop(self) -> None:
        self._stopping.set()
        self._spooling.hurry()
        self._enough.set()

    async def _close(self) -> None:
        """Close the store, and let go of the thread."""
        await self.monitor.stop()
        await self.roller.stop()
        # From another thread, since ours may still be stuck in a commit: this ends it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self.store.close), CLOSE_S)
        self._spooling.let_go()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self.uncommitted.records or not self._stopping.is_set():
            if self._ready and self.uncommitted.current is None and not self._has_enough():
                await self._nap(self._enough, self.waits_s)
            if await self._attempt():
                pause_s = FIRST_PAUSE_S
            elif self._stopping.is_set():
                await asyncio.sleep(FIRST_PAUSE_S)
            else:
                spread = random.uniform(0.5, 1.0)  # noqa: S311  so that not all retry at once
                await self._nap(self._stopping, pause_s * spread)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        if self._ready:
            await self._attempt()  # the last page of the books

    async def _nap(self, until: asyncio.Event, seconds: float) -> None:
        """Wait that long, or until the event, which stopping always is."""
        if not self._stopping.is_set():
            until.clear()
            # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await until.wait()

    async def _attempt(self) -> bool:
        """Commit one batch, and the books; False when the store failed, for another attempt."""
        uncommitted = self.uncommitted
        self._spooling.asked()
        try:
            if not self._ready:
                await self._migrate()
            if uncommitted.current is None:
                uncommitted.current = await self._spooling.oldest(self._from_disk)
            if uncommitted.current is not None:
                await self._store(uncommitted.current)
            await self._keep_books()
        except StoreError as error:
            return await self._failed(error)
        except SpoolError as error:
            self._note_failure(f"what is spooled waits: {error}")
            return False
        except Exception as error:
            log.exception("%s: a defect of ours", self.name)
            commit = uncommitted.current
            if commit is not None and self._ready:
                commit.defects += 1
            again = commit is None or commit.defects < DEFECTS
            defect = StoreError(f"{type(error).__name__}: {error}", retryable=again)
            return await self._failed(defect)
        self._spooling.answered()
        return True

    async def _store(self, commit: Commit) -> None:
        started = time.monotonic()
        commit.attempts += 1
        self.roller.begin(commit.stored())
        with self._patience.waiting(f"store {len(commit)} records"):
            await self._call(self._insert, commit, commit.attempts > 1)
        self.roller.stored()
        self.stage.sent += len(commit)
        self.uncommitted.current = None
        await self._spooling.delete(commit, self._call)
        self.stats.commits += 1
        took_s = time.monotonic() - started
        log.debug("committed %d records in %.3f s", len(commit), took_s)
        self.stats.commit_seconds += took_s
        self.stats.last_commit_ms = int(self._clock() * 1000)
        self.stats.failing = ""

    async def _keep_books(self) -> None:
        """Store the page of the books that is due; what the store refuses goes into the next."""
        if self._books is None:
            return
        page = self._books.page(int(self._clock()), last=self._stopping.is_set())
        if page is None:
            return
        try:
            with self._patience.waiting("store a page of the books"):
                await self._call(self._keep, page, self._books.repeated)
        except StoreError as error:
            if not error.retryable:
                self._books.refused(page)
            raise
        except Exception:
            self._books.refused(page)
            raise
        self._books.acknowledged(page)
        self.stats.failing = ""

    def _keep(self, page: Page, again: bool) -> None:
        self.store.keep(page, again=again)

    async def _failed(self, error: StoreError) -> bool:
        """Count a failure; a batch that can never be stored is dropped."""
        self._note_failure(str(error))
        if lacks_room(error):
            self.monitor.hurry()
        commit = self.uncommitted.current
        if self._ready and commit is not None and not error.retryable:
            self.uncommitted.current = None
            self.roller.forget()
            self.stage.drop(OutgoingDropped.REJECTED, len(commit))
            await self._spooling.put_aside(commit, self._call)
            return True
        self._ready = False  # the server may be another one, or empty, when it is back
        return False

    def _note_failure(self, text: str) -> None:
        self.stats.failures += 1
        if text != self.stats.failing:
            log.error("cannot write to ClickHouse: %s", text)
        self.stats.failing = text

    async def _migrate(self) -> None:
        with self._patience.waiting("bring its tables up to date"):
            left_out = await self._call(self.store.migrate)
        self._ready = True
        self.roller.renew()
        if self.stats.failing or not self.stats.commits:
            log.info("writing to ClickHouse at %s", self.store.name)
            for line in left_out:
                log.warning("%s", line)
        self.stats.failing = ""

    def _insert(self, commit: Commit, again: bool) -> None:
        self.store.insert(commit.joined(), commit.batch_id, again=again)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _from_disk(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._patience.waiting("give back what it has on disk"):
            return await self._call(function, *arguments)

    def _has_enough(self) -> bool:
        """Whether there is a whole commit."""
        return len(self._spooling) > 0 or self.uncommitted.has_enough
