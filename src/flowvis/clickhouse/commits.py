"""Records that a store does not have so far: what waits, and what was taken out to be committed.

    uncommitted = Uncommitted(stage, BatchIds(), max_records=..., commit_records=...)
    uncommitted.put(batch)                       # the oldest that wait go, counted, when it is full
    uncommitted.current = uncommitted.take()     # a commit, under the id of all its attempts

What is on its way to disk, and comes back from there, is a commit as well (`spooling`).
"""

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from flowvis.backlog import UNBOUNDED, Backlog, size_of
from flowvis.batch import Batch, concat
from flowvis.clickhouse.schema.encode import MAX_BATCH_NUMBER, BatchId
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.spool import Entry
from flowvis.delivery.queue import SMALL
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.strings import Strings


@dataclass(slots=True)
class Commit:
    """Batches on their way as one, under one id in all attempts."""

    batches: list[Batch]
    batch_id: BatchId
    attempts: int = 0
    entry: Entry | None = None
    """Where it is in the spool, if it is."""
    defects: int = 0
    """How many attempts ended in an error that no store gives."""

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


SET_BACK_S = 60
"""A clock that is behind by more was set: what is committed has its time from then on."""


class BatchIds:
    """The ids of one writer's batches: none comes twice, whatever the clock does.

    After a clock was set back its seconds come again, under numbers that no batch had before.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells seconds since the epoch."""
        self.writer = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._clock = clock
        self._last = BatchId(self.writer, 0)
        self._first = self._most = 0  # of the numbers since it was set back, and of all

    def next(self) -> BatchId:
        """Return the id of another batch."""
        now_s = int(self._clock())
        last, at_s, number = self._last, now_s, self._first
        if now_s <= last.inserted_s:
            if last.inserted_s - now_s > SET_BACK_S and self._most < MAX_BATCH_NUMBER:
                number = self._first = self._most + 1
            elif last.number < MAX_BATCH_NUMBER:
                at_s, number = last.inserted_s, last.number + 1
            else:
                at_s = last.inserted_s + 1
        self._most = max(self._most, number)
        self._last = BatchId(self.writer, at_s, number)
        return self._last


class Uncommitted:
    """What one writer has in memory, bounded in records and bytes; its books are `stage`."""

    def __init__(
        self,
        stage: Stage,
        ids: BatchIds,
        *,
        max_records: int,
        max_bytes: int = UNBOUNDED,
        commit_records: int,
    ) -> None:
        """A quarter of `max_bytes` is for what is being committed, which is copied into one piece.

        A commit has `commit_records` at the most, and half of `max_records`: who waits for more
        would lose what a store that is well was about to take.
        """
        self.stage = stage
        self.commit_records = min(commit_records, max(max_records // 2, 1))
        self.current: Commit | None = None
        """What is being committed; it may be in the spool as well."""
        self.spooling: Commit | None = None
        """What was taken out to go to disk, and is not there."""
        self._ids = ids
        self._waiting = Backlog(max_records, join=SMALL)
        self.bound(max_bytes)

    @property
    def records(self) -> int:
        """Records that are lost if the process dies now."""
        return self._waiting.records + sum(map(len, self._taken()))

    @property
    def waiting(self) -> int:
        """Records that nobody took out."""
        return self._waiting.records

    @property
    def bytes(self) -> int:
        """About what all of it takes in memory."""
        return self._waiting.bytes + self._taken_bytes()

    @property
    def mark(self) -> int:
        """The oldest mark of what neither the store nor the spool has; SETTLED without any."""
        taken = [batch.mark for commit in self._taken() for batch in commit.batches]
        return min((self._waiting.mark, *taken))

    @property
    def filled(self) -> float:
        """How much of its room what waits takes, from 0 to 1."""
        waiting = self._waiting
        size = waiting.bytes_beside(self._oldest_table())
        return max(waiting.records / waiting.max_records, size / waiting.max_bytes)

    @property
    def has_enough(self) -> bool:
        """Whether a whole commit waits."""
        waiting = self._waiting
        return waiting.records >= self.commit_records or waiting.bytes >= self._commit_bytes

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self._commit_bytes = max_bytes // 4
        self._waiting.max_bytes = max_bytes - self._commit_bytes

    def put(self, batch: Batch) -> None:
        """Add a batch; the oldest that wait are dropped when there are too many."""
        self._waiting.put(batch)
        self._make_room()

    def take(self, records: int | None = None) -> Commit | None:
        """Take batches that wait and share a string table, up to so many records or a commit's."""
        records = records or self.commit_records
        waiting = self._waiting
        if not len(waiting):
            return None
        taken = [waiting.take(records)]
        room = records - len(taken[0])
        left = self._commit_bytes - size_of(taken[0])
        while len(waiting) and (oldest := waiting.oldest).strings is taken[0].strings:
            room -= len(oldest)
            left -= size_of(oldest)
            if room < 0 or left < 0:
                break
            taken.append(waiting.take())
        return Commit(taken, self._ids.next())

    def put_back(self, batches: list[Batch]) -> None:
        """Have batches wait again, before all others."""
        self._waiting.put_back(batches)
        self._make_room()

    def release(self) -> tuple[Commit | None, list[Batch]]:
        """Let go of everything: a commit that was tried, and what waits."""
        commit = next(iter(self._taken()), None)
        self.current = None
        return commit, self._waiting.clear()

    def abandon(self) -> int:
        """Give up everything, counted; return how many records that were."""
        lost = self.records
        self.stage.drop(OutgoingDropped.SHUTDOWN, lost)
        self.release()
        return lost

    def _taken(self) -> list[Commit]:
        """What was taken out and is not on disk."""
        commits = (self.current, self.spooling)
        return [commit for commit in commits if commit is not None and commit.entry is None]

    def _make_room(self) -> None:
        """Drop what is too much; the oldest's string table, which is large at times, costs none."""
        beside = self._taken_bytes(self._oldest_table())
        lost = self._waiting.trim(bytes_beside=beside, apart=self._oldest_table)
        self.stage.drop(OutgoingDropped.QUEUE_FULL, lost)

    def _oldest_table(self) -> Strings | None:
        """That of what was taken out first, or waits for longest."""
        for commit in (self.current, self.spooling):
            if commit is not None:
                return commit.batches[0].strings
        return self._waiting.oldest.strings if len(self._waiting) else None

    def _taken_bytes(self, apart: Strings | None = None) -> int:
        """About what the batches that were taken out take in memory, one string table apart."""
        newest = self._waiting.newest
        taken = [one for one in (self.current, self.spooling) if one is not None]
        tables = {commit.batches[0].strings for commit in taken} - {apart}
        left_behind = tables - {newest.strings} if newest is not None else set()
        columns = sum(size_of(batch) for commit in taken for batch in commit.batches)
        return columns + sum(table.memory_bytes for table in left_behind)
