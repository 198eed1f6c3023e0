"""Commits flow records to a store in batches, without ever stalling who produces them.

    writer = Writer(store, ledger.stage("clickhouse"))
    await writer.start()      # the store need not be there yet
    writer.put(batch)         # on the event loop; never waits
    await writer.stop()       # commits what waits, within the grace period

Records wait in a bounded queue; when it is full the oldest go, counted. They are committed every
interval, or as soon as there are enough for a commit. A commit that fails is repeated with growing
pauses until it is known to have succeeded, under the same id, so that the store never has it twice.
All counting is done on the event loop; only the store's calls run in a thread. That thread reads
the batches' string tables, so whoever adds to a table must hold the GIL while doing so.

With a spool, what a store that is away for some seconds does not take goes to disk, and is durable
there. From then on everything passes the spool, in its order, until it is empty again.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from flowvis.backlog import UNBOUNDED, Backlog, size_of
from flowvis.batch import Batch, concat
from flowvis.clickhouse.history import BookHistory
from flowvis.clickhouse.monitor import NO_ROOM, Monitor, MonitorSettings, MonitorStats
from flowvis.clickhouse.rollups import Roller, RollupStats
from flowvis.clickhouse.schema.books import Page
from flowvis.clickhouse.schema.encode import MAX_BATCH_NUMBER, BatchId
from flowvis.clickhouse.schema.rollups import StoredBatch
from flowvis.clickhouse.schema.spooled import CorruptFile
from flowvis.clickhouse.spool import Entry, Spool, SpoolError, SpoolFull
from flowvis.clickhouse.store import Store
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
SPOOL_AFTER_S = 10.0  # without an answer of the store; commits take a second
SPOOL_LOOK_S = 1.0
SPOOL_RECORDS = 50_000  # of one file: a second's work
PRESSURE = 0.5  # of the queue: from here on a full spool gives up what is oldest
DEFECTS = 3  # attempts that may end in an error that no store gives; then the batch is dropped


@dataclass(slots=True)
class WriterStats:
    """What happened since the start."""

    commits: int = count("Commits that the store acknowledged")
    failures: int = count("Attempts that failed; each is repeated unless the data was rejected")
    commit_seconds: float = count("Seconds spent in commits that were acknowledged")
    last_commit_ms: int = gauge("When the last commit was acknowledged, in ms since the epoch")
    spooled: int = count("Records written to the spool")
    spooled_records: int = gauge("Records in the spool")
    spooled_bytes: int = gauge("Bytes of the files in the spool")
    spool_limit_bytes: int = gauge("Bytes that the spool may take; 0 where there is none")
    spool_corrupt: int = count("Files of the spool that were damaged")
    spool_failures: int = count("Times that the spool could not be written to")
    failing: str = ""
    """Why nothing can be committed at the moment; "" when all is well."""
    rollups: RollupStats = field(default_factory=RollupStats)
    store: MonitorStats = field(default_factory=MonitorStats)


@dataclass(slots=True)
class _Commit:
    """Batches on their way as one, under one id in all attempts."""

    batches: list[Batch]
    batch_id: BatchId
    attempts: int = 0
    entry: Entry | None = None
    """Where it is in the spool, if it is."""

    def __len__(self) -> int:
        return sum(map(len, self.batches))

    def joined(self) -> Batch:
        """Return all as one batch; later attempts find it done."""
        if len(self.batches) > 1:
            self.batches = [concat(self.batches)]
        return self.batches[0]

    def stored(self) -> StoredBatch:
        """Return what there is to be rolled up when the store has it."""
        ends = [batch["flowEndSeconds"] for batch in self.batches if len(batch)]
        first_s = min((int(times.min()) for times in ends), default=0)
        last_s = max((int(times.max()) for times in ends), default=0)
        return StoredBatch(self.batch_id, len(self), first_s, last_s)


@dataclass(frozen=True, slots=True)
class UncommittedRecords:
    """What one writer could not commit and another one may."""

    commit: _Commit | None
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
        spool_after_s: float = SPOOL_AFTER_S,
        monitor: MonitorSettings | None = None,
    ) -> None:
        """`stats` are those of the writer whose place this one takes, if any.

        Pages of `books` are stored beside the records as they are due, and a last one at the end.

        A quarter of `max_bytes` is for what is being committed, which is copied into one piece.
        """
        self.name = f"clickhouse {store.name}"
        self.required = required
        self.store = store
        self.stage = stage
        self.stats = stats or WriterStats()
        self._interval_s = commit_interval_s
        self._commit_records = commit_records
        self._grace_s = grace_s
        self._clock = clock
        self._identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._last = BatchId(self._identity, 0)
        self.roller = Roller(store, self._identity, stats=self.stats.rollups, clock=clock)
        self.monitor = Monitor(store, monitor, stats=self.stats.store, clock=clock)
        self._pending = Backlog(max_pending)
        self.bound(max_bytes)
        self._commit: _Commit | None = None
        self._own_spool = spool
        self._spool = spool
        self._spool_after_s = spool_after_s
        self._spooling: _Commit | None = None  # on its way to disk
        self._taking = asyncio.Lock()  # for who takes records out of the queue: they keep order
        self._inherited: set[Entry] = set()
        self._spool_problem = ""
        self._refused_bytes = 0  # of what did not fit in
        self._spool_thread: ThreadPoolExecutor | None = None
        self._spool_task: asyncio.Task[None] | None = None
        self._spool_over = asyncio.Event()
        self._unanswered_since_s: float | None = None
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
        return self._patience.problem or self.stats.failing or self._spool_problem

    @property
    def inherited(self) -> int:
        """Records in the spool that a process before has left: the store lacks them so far."""
        return sum(entry.records for entry in self._inherited)

    def held(self) -> int:
        """Records that wait, are being committed, or are in the spool."""
        return self._in_memory() + (self._spool.records if self._spool is not None else 0)

    def _in_memory(self) -> int:
        """Records that are lost if the process dies now."""
        return self._pending.records + sum(map(len, self._unsafe()))

    def _unsafe(self) -> list[_Commit]:
        """What was taken out of the queue and is not on disk."""
        commits = (self._commit, self._spooling)
        return [commit for commit in commits if commit is not None and commit.entry is None]

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return self._pending.bytes + self._committing_bytes()

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self._commit_bytes = max_bytes // 4
        self._pending.max_bytes = max_bytes - self._commit_bytes

    @property
    def details(self) -> dict[str, int]:
        """What is on disk, where there is a spool."""
        if self._spool is None:
            return {}
        return {"spooledRecords": self._spool.records, "spooledBytes": self._spool.bytes}

    @property
    def mark(self) -> int:
        """The oldest mark of what neither the store nor the spool has."""
        under_way = [batch.mark for commit in self._unsafe() for batch in commit.batches]
        return min((self._pending.mark, *under_way))

    def put(self, batch: Batch) -> None:
        """Take a batch; the oldest that wait are dropped when there are too many."""
        self.stage.received += len(batch)
        if self._stopping.is_set():
            self.stage.drop(OutgoingDropped.CLOSED, len(batch))
        elif len(batch):
            self._pending.put(batch)
            self._make_room()
            if self._has_enough():
                self._enough.set()

    def hurry(self) -> None:
        """Commit what waits now."""
        if self.held():
            self._enough.set()

    async def start(self) -> None:
        """Start committing; whether the store can be reached shows later."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clickhouse")
        if self._spool is not None:
            self._spool_thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
            await self._open_spool()
            self._spool_task = spawn(f"{self.name} spool", self._keep_spooled())
        self._task = spawn(self.name, self._run())
        await self.roller.start()
        await self.monitor.start()

    async def stop(self) -> None:
        """Commit what waits within the grace period, then close; the rest is dropped, counted."""
        self._begin_to_stop()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._grace_s)
            await end(self._task)
        await self._end_spooling()
        self.abandon()
        await self._close()

    async def retire(self, hurry: asyncio.Event) -> None:
        """Commit what waits within the grace period, or until `hurry`; close, keep the rest."""
        self._begin_to_stop()
        if self._task is not None:
            let_end(self._task)
            await ended(self._task, self._grace_s, hurry)
            await end(self._task)
        await self._end_spooling()
        self.stats.failing = ""
        await self._close()

    def remainder(self) -> UncommittedRecords:
        """Take out what was kept when it was retired."""
        commit = next(iter(self._unsafe()), None)
        left = UncommittedRecords(commit, self._pending.clear(), self._spool)
        self._commit = self._spool = None
        return left

    def succeed(self, remainder: UncommittedRecords) -> None:
        """Take over what another one has kept; before `start`.

        Its last commit goes on under its id: a store that has it after all does not take it again.
        What it has in a spool of another place, or where this one has none, is stored first.
        """
        self._commit = remainder.commit
        if remainder.spool is not None:
            own = self._own_spool
            if own is not None and own.directory == remainder.spool.directory:
                remainder.spool.max_bytes = own.max_bytes
                self._own_spool = remainder.spool
            self._spool = remainder.spool
            self._inherited = set(remainder.spool)
        self._pending.put_back(remainder.batches)
        self._make_room()

    def abandon(self) -> None:
        """Give up what waits, counted; what is in the spool stays there."""
        if lost := self._in_memory():
            log.error("%s: gave up %d records at shutdown", self.store.name, lost)
        self.stage.drop(OutgoingDropped.SHUTDOWN, self._in_memory())
        self._pending.clear()
        self._commit = None
        if self._spool is not None:
            if self._spool.records:
                text = "%s: %d records stay in %s for the next aggregator"
                log.info(text, self.store.name, self._spool.records, self._spool.directory)
            self.stage.drop(OutgoingDropped.LEFT, self._spool.records)
            self._spool.close()
            self._spool = None

    def _begin_to_stop(self) -> None:
        self._stopping.set()
        self._enough.set()

    async def _close(self) -> None:
        """Close the store, and let go of the thread."""
        await self.monitor.stop()
        await self.roller.stop()
        # From another thread, since ours may still be stuck in a commit: this ends it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self.store.close), CLOSE_S)
        for thread in (self._thread, self._spool_thread):
            if thread is not None:
                thread.shutdown(wait=False)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._in_memory() or not self._stopping.is_set():
            if self._ready and self._commit is None and not self._has_enough():
                await self._nap(self._enough, self._interval_s)
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
        if self._unanswered_since_s is None:
            self._unanswered_since_s = time.monotonic()
        try:
            if not self._ready:
                await self._migrate()
            async with self._taking:
                self._commit = self._commit or await self._next_from_spool() or self._next()
            if self._commit is not None:
                await self._store(self._commit)
            await self._keep_books()
        except StoreError as error:
            return self._failed(error)
        except Exception as error:
            log.exception("%s: a defect of ours", self.name)
            again = self._commit is None or self._commit.attempts < DEFECTS
            return self._failed(StoreError(f"{type(error).__name__}: {error}", retryable=again))
        self._unanswered_since_s = None
        return True

    async def _store(self, commit: _Commit) -> None:
        started = time.monotonic()
        commit.attempts += 1
        self.roller.begin(commit.stored())
        with self._patience.waiting(f"store {len(commit)} records"):
            await self._call(self._insert, commit, commit.attempts > 1)
        self.roller.stored()
        self.stage.sent += len(commit)
        await self._settle(commit)
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

    def _failed(self, error: StoreError) -> bool:
        """Count a failure; a batch that can never be stored is dropped."""
        self.stats.failures += 1
        if str(error) != self.stats.failing:
            log.error("cannot write to ClickHouse: %s", error)
        self.stats.failing = str(error)
        if error.code in NO_ROOM:
            self.monitor.hurry()
        if self._ready and self._commit is not None and not error.retryable:
            commit, self._commit = self._commit, None
            self.roller.forget()
            self.stage.drop(OutgoingDropped.REJECTED, len(commit))
            self._forget_spooled(commit)
            return True
        self._ready = False  # the server may be another one, or empty, when it is back
        return False

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

    def _insert(self, commit: _Commit, again: bool) -> None:
        self.store.insert(commit.joined(), commit.batch_id, again=again)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _next(self) -> _Commit | None:
        """Take what waits, up to the size of a commit."""
        return self._take(self._commit_records)

    def _take(self, records: int) -> _Commit | None:
        """Take batches that wait and share a string table, up to so many records."""
        pending = self._pending
        if not len(pending):
            return None
        taken = [pending.take(records)]
        room = records - len(taken[0])
        left = self._commit_bytes - size_of(taken[0])
        while len(pending) and (oldest := pending.oldest).strings is taken[0].strings:
            room -= len(oldest)
            left -= size_of(oldest)
            if room < 0 or left < 0:
                break
            taken.append(pending.take())
        return _Commit(taken, self._next_id())

    async def _next_from_spool(self) -> _Commit | None:
        """Read the oldest batch on disk; what is damaged is put aside, counted."""
        spool = self._spool
        while spool is not None and (entry := spool.oldest) is not None:
            try:
                batch, batch_id = await self._call(spool.read, entry)
            except CorruptFile as error:
                log.warning("%s: %s: %s", spool.directory, entry.name, error)
                self.stats.spool_corrupt += 1
                self._drop_spooled(spool, entry, OutgoingDropped.SPOOL_CORRUPT)
                await self._call(spool.put_aside, entry)
                continue
            if entry is spool.oldest:  # it may have been given up meanwhile
                return _Commit([batch], batch_id, 1, entry)
        return None

    async def _settle(self, commit: _Commit) -> None:
        """Forget a commit that the store has."""
        self._commit = None
        spool, entry = self._spool, commit.entry
        self._forget_spooled(commit)
        if spool is not None and entry is not None:
            await self._call(spool.delete, entry)

    def _forget_spooled(self, commit: _Commit) -> None:
        """Take a commit out of the spool, if it is there."""
        if self._spool is not None and commit.entry is not None:
            self._spool.forget(commit.entry)
            self._inherited.discard(commit.entry)
            self._measure_spool()

    def _drop_spooled(self, spool: Spool, entry: Entry, reason: OutgoingDropped) -> None:
        spool.forget(entry)
        self._inherited.discard(entry)
        self.stage.drop(reason, entry.records)
        self._measure_spool()

    def _measure_spool(self) -> None:
        spool = self._spool
        self.stats.spooled_records = spool.records if spool is not None else 0
        self.stats.spooled_bytes = spool.bytes if spool is not None else 0
        self.stats.spool_limit_bytes = spool.max_bytes if spool is not None else 0

    async def _open_spool(self) -> None:
        """Take the spool's directory, with what is in it."""
        spool = self._spool
        if spool is None or spool.is_open:
            self._measure_spool()
            return
        try:
            await self._on_disk(spool.open)
        except SpoolError as error:
            self._cannot_spool(error)
            return
        self._spool_problem = ""
        self._inherited = set(spool)
        self.stage.inherit(spool.records)
        self._measure_spool()

    async def _keep_spooled(self) -> None:
        """Bring to disk what the store does not take."""
        while not self._spool_over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SPOOL_LOOK_S):
                    await self._spool_over.wait()
            try:
                await self._follow_spool()
                if self._spools():
                    await self._spool_all()
                    self._spool_problem = ""
            except SpoolError as error:
                self._cannot_spool(error)
            except Exception:
                log.exception("%s: a defect of ours in spooling", self.name)

    async def _follow_spool(self) -> None:
        """Change to the spool that is configured once the one before is empty; open it."""
        spool = self._spool
        if spool is not None and spool is not self._own_spool and not len(spool):
            spool.close()
            self._spool = self._own_spool
        await self._open_spool()

    def _spools(self) -> bool:
        """Whether records go to disk."""
        spool = self._spool
        if spool is None or spool is not self._own_spool or not spool.is_open:
            return False
        since_s = self._unanswered_since_s
        after_s = 0.0 if self._stopping.is_set() else self._spool_after_s
        away = since_s is not None and time.monotonic() - since_s >= after_s
        return away or len(spool) > 0

    async def _spool_all(self) -> None:
        """Write what is being committed, which is the oldest, and then what waits."""
        if self._commit is not None and self._commit.entry is None:
            await self._to_disk(self._commit)
        while self._spools() and len(self._pending) and await self._has_room():
            async with self._taking:
                self._spooling = commit = self._take(SPOOL_RECORDS)
                try:
                    if commit is not None:
                        await self._to_disk(commit)
                finally:
                    self._spooling = None
                    if commit is not None and commit.entry is None:
                        self._pending.put_back(commit.batches)
                        self._make_room()

    async def _to_disk(self, commit: _Commit) -> None:
        """Write a commit; it is the spool's once it is there."""
        spool = self._spool
        if spool is None:
            return
        try:
            entry = await self._on_disk(self._write_to, spool, commit)
        except SpoolFull as full:
            self._refused_bytes = full.size
            return
        self._refused_bytes = 0
        if commit is not self._commit and commit is not self._spooling:
            await self._on_disk(spool.delete, entry)  # the store has answered meanwhile
            return
        commit.entry = entry
        spool.add(entry)
        self.stats.spooled += entry.records
        self._measure_spool()

    @staticmethod
    def _write_to(spool: Spool, commit: _Commit) -> Entry:
        return spool.write(commit.joined(), commit.batch_id)

    async def _has_room(self) -> bool:
        """Whether the spool takes more: what is oldest goes once memory is short as well."""
        spool, pending = self._spool, self._pending
        while spool is not None and not spool.has_room(self._refused_bytes):
            if max(pending.records / pending.max_records, pending.bytes / pending.max_bytes) < (
                PRESSURE
            ):
                return False
            busy = self._commit.entry if self._commit is not None else None
            entry = next((entry for entry in spool if entry != busy), None)
            if entry is None:
                return False
            self._drop_spooled(spool, entry, OutgoingDropped.SPOOL_FULL)
            await self._on_disk(spool.delete, entry)
        return spool is not None

    async def _end_spooling(self) -> None:
        """Bring to disk what the time to stop did not suffice for."""
        self._spool_over.set()
        if self._spool_task is not None:
            # What is being written is finished: nobody would know of that file.
            await asyncio.wait((self._spool_task,), timeout=CLOSE_S)
        stuck = self._spool_task is not None and not self._spool_task.done()
        await end(self._spool_task)
        self._spool_task = None
        if stuck or not self._in_memory() or self._spool is not self._own_spool:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                try:
                    await self._spool_all()
                except SpoolError as error:
                    self._cannot_spool(error)

    def _cannot_spool(self, error: SpoolError) -> None:
        self.stats.spool_failures += 1
        if str(error) != self._spool_problem:
            log.error("%s: cannot spool: %s", self.name, error)
        self._spool_problem = str(error)

    async def _on_disk(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._spool_thread, function, *arguments)

    def _next_id(self) -> BatchId:
        now_s = int(self._clock())
        last = self._last
        if now_s > last.inserted_s:
            self._last = BatchId(self._identity, now_s)
        elif last.number < MAX_BATCH_NUMBER:
            self._last = BatchId(self._identity, last.inserted_s, last.number + 1)
        else:  # the clock went back a long way
            self._last = BatchId(self._identity, last.inserted_s + 1)
        return self._last

    def _has_enough(self) -> bool:
        """Whether there is a whole commit."""
        if self._spool is not None and len(self._spool):
            return True
        pending = self._pending
        return pending.records >= self._commit_records or pending.bytes >= self._commit_bytes

    def _make_room(self) -> None:
        lost = self._pending.trim(bytes_beside=self._committing_bytes())
        self.stage.drop(OutgoingDropped.QUEUE_FULL, lost)

    def _committing_bytes(self) -> int:
        """About what the batches that were taken out of the queue take in memory."""
        newest = self._pending.newest
        taken = [one for one in (self._commit, self._spooling) if one is not None]
        tables = {commit.batches[0].strings for commit in taken}
        left_behind = tables - {newest.strings} if newest is not None else set()
        columns = sum(size_of(batch) for commit in taken for batch in commit.batches)
        return columns + sum(table.memory_bytes for table in left_behind)
