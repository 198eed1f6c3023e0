"""Brings to disk what a store does not take, and gives it out again, in its order.

What a store that is away for some seconds has not taken goes to the spool, and is durable there.
From then on everything passes the spool until it is empty again. A disk that hangs keeps nothing
from a store that is back: that gets from memory what is being written. Without a spool, nothing
happens here.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from flowvis.clickhouse.commits import Commit, Uncommitted
from flowvis.clickhouse.schema.spooled import CorruptFile
from flowvis.clickhouse.spool import (
    CORRUPT,
    REJECTED,
    Entry,
    Spool,
    SpoolError,
    SpoolFull,
    SpoolTaken,
)
from flowvis.counts import count, gauge
from flowvis.delivery.patience import Patience
from flowvis.runtime.component import end, spawn
from flowvis.runtime.directory import Handover
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

log = logging.getLogger(__name__)

AFTER_S = 10.0  # without an answer of the store; commits take a second
LOOK_S = 1.0
LONGEST_LOOK_S = 15.0
"""From one attempt to the next on a disk that takes nothing: each makes the whole file, for which a
large commit takes a second of CPU."""
FILE_RECORDS = 50_000  # a second's work
PRESSURE = 0.5  # of the queue: from here on a full spool gives up what is oldest
CLOSE_S = 2.0
HANGS_S = 5.0
"""From when on a file that is being written is not waited for."""


@dataclass(slots=True)
class SpoolStats:
    """What happened to a spool since the start."""

    spooled: int = count("Records written to the spool")
    spooled_records: int = gauge("Records in the spool")
    spooled_bytes: int = gauge("Bytes of the files in the spool")
    spool_limit_bytes: int = gauge("Bytes that the spool may take; 0 where there is none")
    spool_corrupt: int = count("Files of the spool that were damaged")
    spool_failures: int = count("Times that the spool could not be written to")


class Spooling:
    """A component between the records of one writer and its spool, if it has one.

    The writer says when it has `asked` the store, and when that has `answered`.
    """

    def __init__(
        self,
        name: str,
        spool: Spool | None,
        uncommitted: Uncommitted,
        stats: SpoolStats,
        *,
        after_s: float = AFTER_S,
    ) -> None:
        self.name = name
        self.spool = spool
        """The one that is used: until it is empty, that of the writer before."""
        self.inherited: set[Entry] = set()
        """What a process before has left."""
        self.problem = ""
        """Why nothing can be written to it at the moment; "" when all is well."""
        self._own = spool
        self._uncommitted = uncommitted
        self._stage: Stage = uncommitted.stage
        self._stats = stats
        self._after_s = after_s
        self._unanswered_since_s: float | None = None
        self._refused_bytes = 0  # of what did not fit in
        self._taken = False  # by another process, when it was looked at last
        self._handover = Handover()
        self._thread: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self._patience = Patience(f"{name} spool")
        self._through = asyncio.Event()
        """Nothing that was taken out is being written."""
        self._over = asyncio.Event()

    def __len__(self) -> int:
        """How many batches are on disk."""
        return len(self.spool) if self.spool is not None else 0

    @property
    def records(self) -> int:
        """Records on disk."""
        return self.spool.records if self.spool is not None else 0

    @property
    def details(self) -> dict[str, int]:
        """What is on disk, where there is a spool."""
        if self.spool is None:
            return {}
        return {"spooledRecords": self.spool.records, "spooledBytes": self.spool.bytes}

    @property
    def is_awaited(self) -> bool:
        """Whether an aggregator before this one has the directory, and may still write there."""
        return self._taken and self._handover.goes_on()

    def asked(self) -> None:
        """Note that the store is to take something."""
        if self._unanswered_since_s is None:
            self._unanswered_since_s = time.monotonic()

    def answered(self) -> None:
        """Note that the store has taken it."""
        self._unanswered_since_s = None

    def hurry(self) -> None:
        """Wait for no answer from now on."""
        self._after_s = 0.0

    async def start(self) -> None:
        """Take the spool's directory, with what is in it, and begin."""
        if self.spool is None:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        await self._open()
        self._task = spawn(f"{self.name} spool", self._run())

    async def stop(self) -> None:
        """Bring to disk what the time to stop did not suffice for."""
        self._over.set()
        if self._task is not None:
            # What is being written is finished: nobody would know of that file.
            await asyncio.wait((self._task,), timeout=CLOSE_S)
        stuck = self._task is not None and not self._task.done()
        await end(self._task)
        self._task = None
        if not stuck and self._uncommitted.records and self.spool is self._own:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    try:
                        await self._spool_all()
                    except SpoolError as error:
                        self._failed(error)

    def let_go(self) -> None:
        """End the thread, once it is through."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def release(self) -> Spool | None:
        """Hand the spool over, with what is in it."""
        spool, self.spool = self.spool, None
        return spool

    def take_over(self, spool: Spool) -> None:
        """Give out what is in the spool of the writer before first; before `start`."""
        own = self._own
        if own is not None and own.directory == spool.directory:
            spool.max_bytes = own.max_bytes
            self._own = spool
        self.spool = spool
        self.inherited = set(spool)

    def abandon(self) -> None:
        """Leave what there is to the next process."""
        spool = self.release()
        if spool is None:
            return
        if spool.records:
            text = "%s: %d records stay in %s for the next aggregator"
            log.info(text, self.name, spool.records, spool.directory)
        self._stage.drop(OutgoingDropped.LEFT, spool.records)
        spool.close()

    async def oldest(self, call: Callable[..., Any]) -> Commit | None:
        """Take out what is to be stored next, from disk or memory; None where there is nothing.

        `call` has files read in the thread of who stores them. SpoolError where that cannot be now.
        """
        uncommitted = self._uncommitted
        while (found := await self._next(call)) is None:
            commit = uncommitted.spooling
            if commit is None:
                return uncommitted.take()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANGS_S):
                    await self._through.wait()
            if commit is uncommitted.spooling:  # its file goes if it is there at last
                uncommitted.spooling = None
                return commit
        return found

    async def _next(self, call: Callable[..., Any]) -> Commit | None:
        """Read the oldest batch on disk; what is damaged is put aside, counted."""
        spool = self.spool
        while spool is not None and (entry := spool.oldest) is not None:
            try:
                batch, batch_id = await call(spool.read, entry)
            except CorruptFile as error:
                if entry is not spool.oldest:  # it was given up meanwhile, and counted
                    continue
                log.warning("%s: %s: %s", spool.directory, entry.name, error)
                self._stats.spool_corrupt += 1
                self._drop(spool, entry, OutgoingDropped.SPOOL_CORRUPT)
                await call(spool.put_aside, entry, CORRUPT)
                continue
            if entry is spool.oldest:  # it may have been given up meanwhile
                return Commit([batch], batch_id, 1, entry)
        return None

    async def delete(self, commit: Commit, call: Callable[..., Any]) -> None:
        """Take out a commit that the store has, if it is here."""
        if (spool := self.spool) is not None and (entry := commit.entry) is not None:
            self._forget(spool, entry)
            await call(spool.delete, entry)

    async def put_aside(self, commit: Commit, call: Callable[..., Any]) -> None:
        """Take out a commit that the store will never have, if it is here: it is tried no more."""
        if (spool := self.spool) is not None and (entry := commit.entry) is not None:
            self._forget(spool, entry)
            await call(spool.put_aside, entry, REJECTED)

    def _drop(self, spool: Spool, entry: Entry, reason: OutgoingDropped) -> None:
        self._stage.drop(reason, entry.records)
        self._forget(spool, entry)

    def _forget(self, spool: Spool, entry: Entry) -> None:
        spool.forget(entry)
        self.inherited.discard(entry)
        self._measure()

    def _measure(self) -> None:
        spool, stats = self.spool, self._stats
        stats.spooled_records = spool.records if spool is not None else 0
        stats.spooled_bytes = spool.bytes if spool is not None else 0
        stats.spool_limit_bytes = spool.max_bytes if spool is not None else 0

    async def _open(self) -> None:
        """Take the spool's directory, with what is in it."""
        spool = self.spool
        if spool is None or spool.is_open:
            self._measure()
            return
        try:
            await self._on_disk(spool.open)
        except SpoolError as error:
            self._taken = isinstance(error, SpoolTaken)
            self._failed(error)
            return
        self.problem, self._taken = "", False
        self.inherited = set(spool)
        self._stage.inherit(spool.records)
        self._measure()

    async def _run(self) -> None:
        look_s = LOOK_S
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await self._over.wait()
            look_s, before_s = LOOK_S, look_s
            try:
                await self._follow()
                if self._is_needed():
                    await self._spool_all()
                if self.spool is None or self.spool.is_open:
                    self.problem = ""
            except SpoolError as error:
                self._failed(error)
                look_s = min(2 * before_s, LONGEST_LOOK_S)
            except Exception:
                log.exception("%s: a defect of ours in spooling", self.name)

    async def _follow(self) -> None:
        """Change to the spool that is configured once the one before is empty; open it."""
        spool = self.spool
        if spool is not None and spool is not self._own and not len(spool):
            spool.close()
            self.spool = self._own
        await self._open()

    def _is_needed(self) -> bool:
        """Whether records go to disk."""
        spool = self.spool
        if spool is None or spool is not self._own or not spool.is_open:
            return False
        since_s = self._unanswered_since_s
        away = since_s is not None and time.monotonic() - since_s >= self._after_s
        return away or len(spool) > 0

    async def _spool_all(self) -> None:
        """Write what is being committed, which is the oldest, and then what waits."""
        uncommitted = self._uncommitted
        if uncommitted.current is not None and uncommitted.current.entry is None:
            await self._write(uncommitted.current)
        while self._is_needed() and uncommitted.waiting and await self._has_room():
            uncommitted.spooling = commit = uncommitted.take(FILE_RECORDS)
            if commit is None:
                return
            self._through.clear()
            try:
                await self._write(commit)
            finally:
                self._through.set()
                if commit is uncommitted.spooling:
                    uncommitted.spooling = None
                    if commit.entry is None:
                        uncommitted.put_back(commit.batches)
            if commit.entry is None and not self._refused_bytes:
                return  # it is larger than the whole spool

    async def _write(self, commit: Commit) -> None:
        """Write a commit; it is the spool's once it is there."""
        spool, uncommitted = self.spool, self._uncommitted
        if spool is None:
            return
        try:
            entry = await self._written(spool, commit)
        except SpoolFull as full:
            # Nothing is given up for what would not fit into the empty spool.
            self._refused_bytes = full.size if full.size <= spool.max_bytes else 0
            return
        self._refused_bytes = 0
        if commit is not uncommitted.current and commit is not uncommitted.spooling:
            await self._on_disk(spool.delete, entry)  # the store has answered meanwhile
            return
        commit.entry = entry
        spool.add(entry)
        self._stats.spooled += entry.records
        self._measure()

    async def _written(self, spool: Spool, commit: Commit) -> Entry:
        """Write a file; one that is there when nobody waits any more goes: its records are here."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        writing = self._thread.submit(_write, spool, commit)
        try:
            with self._patience.waiting(f"write {len(commit)} records to {spool.directory}"):
                return await asyncio.wrap_future(writing)
        except asyncio.CancelledError:
            writing.add_done_callback(partial(_delete, spool))
            raise

    async def _has_room(self) -> bool:
        """Whether the spool takes more: what is oldest goes once memory is short as well."""
        spool, uncommitted = self.spool, self._uncommitted
        while spool is not None and not spool.has_room(self._refused_bytes):
            if uncommitted.filled < PRESSURE:
                return False
            current = uncommitted.current
            busy = current.entry if current is not None else None
            entry = next((entry for entry in spool if entry != busy), None)
            if entry is None:
                return False
            self._drop(spool, entry, OutgoingDropped.SPOOL_FULL)
            await self._on_disk(spool.delete, entry)
        return spool is not None

    def _failed(self, error: SpoolError) -> None:
        self._stats.spool_failures += 1
        if str(error) != self.problem:
            log.error("%s: cannot spool: %s", self.name, error)
        self.problem = str(error)

    async def _on_disk(self, function: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)


def _write(spool: Spool, commit: Commit) -> Entry:
    return spool.write(commit.joined(), commit.batch_id)


def _delete(spool: Spool, written: Future[Entry]) -> None:
    if not written.cancelled() and written.exception() is None:
        spool.delete(written.result())
