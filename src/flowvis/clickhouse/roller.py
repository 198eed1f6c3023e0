"""Rolls the batches that a store has into its roll-ups, each once.

A batch that was committed waits until there are enough for a roll, or the minute (the hour) is
over. A roll that fails is repeated as it was until it is known to have succeeded; after a kill the
next process finds in the store what was begun, and what was not. A store that was made before there
were roll-ups is the same: batches that nobody rolled.

Nothing of it delays a commit: rolls have a connection and a thread of their own. What is not rolled
yet is known by `Store.settled`, so that who asks reads records for it.

Records that go by their age before they are rolled, as rolling failed or lags behind, are missing
from the roll-ups for good (`expired`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

from flowvis.clickhouse.expired import Expired, LosingStore
from flowvis.clickhouse.roll_queue import PACES, RollQueue
from flowvis.clickhouse.rollup_tables import Difference, RollupTables, differences
from flowvis.clickhouse.schema import rolls
from flowvis.clickhouse.schema.claims import USED_S
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import Note, Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, ROLLUPS
from flowvis.counts import count, gauge
from flowvis.errors import StoreError
from flowvis.runtime.component import end, spawn

log = logging.getLogger(__name__)

LOOK_S = 1.0
LAST_S = 5.0  # for what is left at the end
LONGEST_PAUSE_S = 30.0
SCAN_S = 300.0  # between looks at what other writers have left, of a store that others write to
SCAN_BACK_S = 4 * 3600
WHOLE_S = 86_400.0  # between looks at all of it: what was in a spool for longer may be left as well
ALIVE_S = 600  # who committed within so long, and rolled that, will again
AHEAD_S = 86_400  # of the store's clock: what is further was committed by one that was wrong
PROGRESS_S = 30.0
FORGET_S = 86_400.0  # between looks for notes that nobody needs any more
DAYS_S = 3600.0  # between looks for days that do not become one part
NOTED_S = 60.0  # clocks that differ, and a note on its way
CLAIM_S = 2.0  # until claims of the same second are there; more where they come by replication
REPLICATED_CLAIM_S = 5.0
CLAIMED_BATCHES = 2000  # at once, as that is what takes the time
FETCHED_S = 600.0  # replicas that are later than that by far are not asked
FETCHED_LOOKS = 3  # within which what was just stored is on all of them, as a rule


@dataclass(slots=True)
class RollupStats:
    """What happened since the start."""

    rolls: int = count("Rolls that the store acknowledged")
    records: int = count("Records that were rolled up, once for each of the two tables")
    failures: int = count("Rolls that failed; each is repeated")
    seconds: float = count("Seconds spent in rolls that were acknowledged")
    waiting_records: int = gauge("Stored records that the roll-up by minute lacks")
    minutes_behind_seconds: int = gauge("How far back flow_minutes lacks records")
    hours_behind_seconds: int = gauge("How far back flow_hours lacks records")
    differences: int = count("Hours of which the sums of records and a roll-up differed")
    expired_records: int = count("Records that went by their age before both roll-ups had them")
    failing: str = ""
    """Why nothing can be rolled at the moment; "" when all is well."""


class RollupStore(LosingStore, Protocol):
    """What of a store is needed here."""

    settled: dict[str, int]

    @property
    def rollups(self) -> RollupTables | None:
        """Its roll-ups; None before they are there, and where there can be none."""


class Roller:
    """A component beside a writer; all calls but `start` and `stop` are of the event loop."""

    def __init__(
        self,
        store: RollupStore,
        writer: str,
        *,
        stats: RollupStats | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stats = stats or RollupStats()
        self._store = store
        self._writer = writer
        self._clock = clock
        self._queues = [RollQueue(rollup, PACES[rollup.name]) for rollup in ROLLUPS]
        self._under_way: StoredBatch | None = None
        self._just_stored: dict[BatchId, float] = {}
        """When batches of ours were stored, by the monotonic clock: of the last ones, in order."""
        self._numbers = 0
        self._scan_at_s: float | None = None
        """When the store is looked through for what nobody has rolled; None: at once, wholly."""
        self._whole_at_s = 0.0
        """When it was looked through wholly, by the monotonic clock."""
        self._more = False
        """Whether there were more batches than were looked at."""
        self._others_at_s = 0
        """When another writer committed last, as far as that is known."""
        self._scanned_s = 0
        """When the store was looked through last."""
        self._wrong_s = 0
        """What was committed after it is of a clock that was wrong, on a store of several."""
        self._pause_s = 0.0
        self._said_s = 0.0
        self._tidied: dict[str, float] = {}
        """When each of `_tidy` was done last, by the monotonic clock."""
        self._expired = Expired(store, self.stats, self._call, clock)
        self._compared: tuple[int, int] | None = None
        """The span whose sums were last compared with those of its records."""
        self._differences: list[Difference] = []
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._wake = asyncio.Event()

    def begin(self, batch: StoredBatch) -> None:
        """A batch is about to be inserted: until it is rolled, it is what roll-ups lack."""
        before = self._under_way
        if before is not None and before.batch_id != batch.batch_id:
            self._scan_at_s = None  # the store may have it after all
        self._under_way = batch
        for queue in self._queues:
            name = queue.rollup.name
            if name in self._store.settled:
                lacks_ms = queue.rollup.start_s(batch.first_s) * 1000
                self._store.settled[name] = min(self._store.settled[name], lacks_ms)

    def stored(self) -> None:
        """The store has the batch that was begun."""
        batch, self._under_way = self._under_way, None
        if batch is None or self._store.rollups is None:
            return
        if self._store.rollups.replicated:
            now_s, just = time.monotonic(), self._just_stored
            just[batch.batch_id] = now_s
            while just[oldest := next(iter(just))] <= now_s - FETCHED_S:
                del just[oldest]
        for queue in self._queues:
            queue.waiting[batch.batch_id] = batch

    def forget(self) -> None:
        """The batch that was begun will never be stored."""
        self._under_way = None

    def renew(self) -> None:
        """The store may be another one: what it has is looked for anew."""
        self._store.settled.clear()
        for queue in self._queues:
            queue.waiting.clear()
            queue.others.clear()
            queue.begun.clear()
            queue.new.clear()
        self._expired.clear()
        self._scan_at_s = None

    async def start(self) -> None:
        """Begin to roll, as soon as the store has roll-ups."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollups")
        self._task = spawn("rollups", self._run())

    async def stop(self) -> None:
        """Roll what waits, within seconds; the next process rolls the rest."""
        await end(self._task)
        self._task = None
        if self._thread is None:
            return
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(LAST_S):
                await self.look(everything=True)
        self._thread.shutdown(wait=False)
        self._thread = None
        self._store.settled.clear()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(max(LOOK_S, self._pause_s))
            try:
                await self.look()
                self._pause_s = 0.0
                self.stats.failing = ""
            except StoreError as error:
                self._failed(str(error))
            except Exception as error:
                log.exception("rollups: a defect of ours")
                self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, text: str) -> None:
        self.stats.failures += 1
        if text != self.stats.failing:
            log.error("cannot roll up records: %s", text)
        self.stats.failing = text
        self._pause_s = min(max(self._pause_s * 2, LOOK_S), LONGEST_PAUSE_S)
        self._measure()

    async def look(self, *, everything: bool = False) -> None:
        """Roll what is due, piece by piece: or all that the store has."""
        tables = self._store.rollups
        if tables is None:
            return
        if self._scan_at_s is None or self._is_due(self._scan_at_s, tables):
            await self._scan(tables)
        unrolled = (batch for queue in self._queues for batch in queue.unrolled)
        for known in await self._expired.look(tables, unrolled):
            for queue in self._queues:  # what was begun is repeated as it was
                queue.waiting.pop(known, None)
        for queue in self._queues:
            while roll := self._next(queue, everything=everything or self._more):
                started = time.monotonic()
                await self._roll(tables, queue, roll)
                self._settle()
                if not everything and queue.records > rolls.ROLL_RECORDS:
                    self._say(queue)
                    await asyncio.sleep(time.monotonic() - started)  # others use the store as well
        if self._more:
            self._scan_at_s, self._more = None, False
        self._settle()
        await self._compare(tables)
        await self._tidy(tables)

    async def _tidy(self, tables: RollupTables) -> None:
        """Do what is to be done now and then; it is no matter if it is not."""
        now_s = time.monotonic()
        tidies: tuple[tuple[float, Callable[[], list[str]], str, str], ...] = (
            (FORGET_S, partial(tables.forget, self._clock()),
             "drop notes of records that are gone", "dropped the notes of records that are gone"),
            (DAYS_S, tables.make_alike,
             "have days become one part", "projections for what days lack of them"),
        )  # fmt: skip
        for every_s, tidy, what, did in tidies:
            if now_s - self._tidied.get(what, -every_s) < every_s:
                continue
            self._tidied[what] = now_s
            try:
                done: list[str] = await self._call(tidy)
            except StoreError as error:
                log.warning("roll-ups: cannot %s: %s", what, error)
                continue
            if done:
                log.info("roll-ups: %s: %s", did, ", ".join(done))

    def _is_due(self, moment_s: float, tables: RollupTables) -> bool:
        """Whether a look is due at a moment; where the clock was set back it is, at once."""
        left_s = moment_s - self._clock()
        return left_s <= 0 or (left_s > SCAN_S and not tables.alone)

    def _next(self, queue: RollQueue, *, everything: bool) -> Roll | None:
        """Return the roll that is to be tried now."""
        if not queue.begun:
            batches = queue.take(int(self._clock()), everything=everything)
            if not batches:
                return None
            self._numbers += 1
            name = rolls.roll_name(self._writer, self._numbers)
            roll = Roll(queue.rollup, name, (*batches,))
            queue.begun.append(roll)
            queue.new.add(roll.name)
            for batch in batches:
                del queue.waiting[batch.batch_id]
        return queue.begun[0]

    async def _roll(self, tables: RollupTables, queue: RollQueue, roll: Roll) -> None:
        started = time.monotonic()
        await self._see_all(tables, roll)
        repeats = roll.name not in queue.new
        if not repeats:
            roll = await self._left(tables, queue, roll)
            queue.new.discard(roll.name)
            if not roll.batches:
                return
        await self._call(_roll, tables, roll)
        if repeats and not tables.replicated and await self._call(tables.lacks, roll):
            log.warning("%s: %d records were taken for rolled", queue.rollup.name, roll.records)
            await self._call(tables.roll_anew, roll)
        gone = await self._expired.of_roll(tables, roll.batches)
        await self._call(partial(tables.note, roll, done=True))
        with contextlib.suppress(ValueError):  # the store is looked at anew
            queue.begun.remove(roll)
        self.stats.rolls += 1
        self.stats.records += roll.records - gone
        self.stats.seconds += time.monotonic() - started

    async def _see_all(self, tables: RollupTables, roll: Roll) -> None:
        """Make sure that who is asked has all of what we have just stored; else StoreError.

        A roll would not notice, and what it lacks would be missing from then on.
        """
        since_s = time.monotonic() - FETCHED_S
        last = {known for known, at_s in self._just_stored.items() if at_s > since_s}
        ours = [batch for batch in roll.batches if batch.batch_id in last]
        aged = self._expired.aged(ours)
        if not (fresh := [batch for batch in ours if batch.batch_id not in aged]):
            return
        moments = [batch.batch_id.inserted_s for batch in fresh]
        span = min(moments), max(moments) + 1
        for _ in range(FETCHED_LOOKS):
            there: dict[BatchId, int] = await self._call(tables.there, *span)
            lacking = sum(batch.records > there.get(batch.batch_id, 0) for batch in fresh)
            if not lacking:
                return
            await asyncio.sleep(LOOK_S)
        text = f"replicas have not yet all records of {lacking} batches that were just stored"
        raise StoreError(text, retryable=True)

    async def _left(self, tables: RollupTables, queue: RollQueue, roll: Roll) -> Roll:
        """Return what of a new roll nobody else has begun, and leave the rest to whoever has.

        What waits for long, as nothing can be rolled for a while, is what another one takes: what
        is ours as what is not. So who comes to it first has noted that, and does it alone; and of
        those who come at once it is who was first to claim it.
        """
        left_s = int(self._clock()) - queue.pace.left_s
        ids = [batch.batch_id for batch in roll.batches]
        if tables.alone or all(
            known.writer == self._writer and left_s + NOTED_S < known.inserted_s <= self._wrong_s
            for known in ids
        ):
            return roll
        lost = await self._claim(tables, queue, roll)
        taken = await self._call(tables.taken, roll)
        unnoted = [batch for batch in roll.batches if batch.batch_id not in taken]
        rest = tuple(batch for batch in unnoted if batch.batch_id not in lost)
        queue.others += [batch for batch in unnoted if batch.batch_id in lost]  # until it is noted
        if others := [b for b in roll.batches if taken.get(b.batch_id) is False]:
            queue.others += others
            self._scan_at_s = None  # a roll is taken over wholly, if ever
        left = replace(roll, batches=rest)
        with contextlib.suppress(ValueError):  # the store is looked at anew
            place = queue.begun.index(roll)
            queue.begun[place : place + 1] = [left] if rest else []
        return left

    async def _claim(
        self, tables: RollupTables, queue: RollQueue, roll: Roll
    ) -> AbstractSet[BatchId]:
        """Claim what is to be rolled, and return what of it another one has the first claim of."""
        wanted = {batch.batch_id for batch in roll.batches}
        if queue.claimed_at_s > time.monotonic() - USED_S and wanted <= queue.claimed:
            return frozenset()
        more = islice(queue.waiting, max(CLAIMED_BATCHES - len(wanted), 0))
        ids = list(dict.fromkeys([*wanted, *more]))
        claimed_at_s = time.monotonic()
        await self._call(tables.claim, queue.rollup, self._writer, ids)
        await asyncio.sleep(REPLICATED_CLAIM_S if tables.replicated else CLAIM_S)
        first: dict[BatchId, str] = await self._call(tables.claimants, queue.rollup, ids)
        queue.claimed = {known for known in ids if first.get(known) == self._writer}
        queue.claimed_at_s = claimed_at_s
        return wanted - queue.claimed

    async def _scan(self, tables: RollupTables) -> None:
        """Look for what was not rolled: by a process before, by others, before there were any."""
        whole = self._scan_at_s is None or time.monotonic() - self._whole_at_s >= WHOLE_S
        now_s = int(self._clock())
        # All that is there, also what may go by its age at any moment; or what is new, and what
        # another one has begun, however old: should he be dead, nobody else would find that.
        others = (batch.batch_id.inserted_s for queue in self._queues for batch in queue.others)
        since_s = 0 if whole else min([now_s - SCAN_BACK_S, *others])
        self._scan_at_s = self._clock() + SCAN_S if not tables.alone else float("inf")
        try:
            begins = self._store.kept.rollups_begin_s(now_s)
            batches, notes = await self._call(_found, tables, since_s, begins)
            others_at_s = 0
            if not tables.alone:
                self._wrong_s = await self._call(tables.now_s) + AHEAD_S
                others_at_s = await self._call(
                    tables.strangers_at_s, self._writer, now_s - ALIVE_S, self._wrong_s
                )
        except StoreError:
            if whole:
                self._scan_at_s = None
            raise
        self._whole_at_s = time.monotonic() if whole else self._whole_at_s
        self._more = len(batches) >= rolls.SCAN_BATCHES
        found = (batch.batch_id for batch in batches)
        strangers = [
            known.inserted_s
            for known in found
            if known.writer != self._writer and known.inserted_s <= self._wrong_s
        ]
        self._others_at_s = 0 if tables.alone else max([others_at_s, *strangers])
        self._scanned_s = now_s
        if whole:
            first_s = min((each.batch_id.inserted_s for each in batches), default=now_s)
            await self._expired.unseen(tables, first_s)
        for queue in self._queues:
            self._adopt(queue, batches, notes, now_s, alone=tables.alone)
            if whole and queue.records:
                text = "%s: %d records of %d batches are to be rolled up"
                log.info(text, queue.rollup.name, queue.records, len(queue.waiting))

    def _adopt(
        self,
        queue: RollQueue,
        batches: Sequence[StoredBatch],
        notes: Sequence[Note],
        now_s: int,
        *,
        alone: bool,
    ) -> None:
        """Put what was found and is not rolled to what is to be."""
        kept_s = self._store.kept.of(queue.rollup)
        left_s = now_s - queue.pace.left_s
        noted = {note.batch_id: note for note in notes if note.rollup == queue.rollup.name}
        ours = {batch.batch_id for roll in queue.begun for batch in roll.batches}
        if self._under_way is not None:
            ours.add(self._under_way.batch_id)
        begun: dict[str, list[StoredBatch]] = {}
        queue.others.clear()
        for batch in batches:
            known, note = batch.batch_id, noted.get(batch.batch_id)
            if known in ours or (note is None and known in queue.waiting):
                continue
            queue.waiting.pop(known, None)  # another one has begun it, or done
            if note is not None and note.done:
                continue
            if kept_s and known.inserted_s < now_s - kept_s:
                continue
            touched_s = note.changed_s if note is not None else known.inserted_s
            owner = note.writer if note is not None else known.writer
            if not alone and owner != self._writer and left_s < touched_s <= self._wrong_s:
                queue.others.append(batch)
            elif note is not None:
                begun.setdefault(note.roll, []).append(batch)
            else:
                queue.waiting[known] = batch
        queue.begun += [Roll(queue.rollup, name, (*rest,)) for name, rest in begun.items()]

    async def _compare(self, tables: RollupTables) -> None:
        """Compare the last hour that is settled, once, with its records."""
        settled = self._store.settled
        if len(settled) < len(ROLLUPS):
            return
        to_s = HOURS.start_s(min(settled.values()) // 1000)
        span = to_s - HOURS.step_s, to_s
        kept_s = self._store.kept.records_s
        if span == self._compared or (kept_s and span[0] < int(self._clock()) - kept_s):
            return
        found = await self._call(differences, tables, *span)
        if found and (min(settled.values(), default=0) // 1000 < to_s or self._changed(span)):
            return  # records of it came meanwhile: another time
        if found:
            found = await self._call(differences, tables, *span)
        self._compared, self._differences = span, found
        self.stats.differences += bool(found)
        for difference in found:
            log.error("roll-ups differ from the records: %s", difference)

    def _changed(self, span: tuple[int, int]) -> bool:
        """Whether there is something of a span that is not rolled."""
        waiting = [batch for queue in self._queues for batch in queue.waiting.values()]
        waiting += [self._under_way] if self._under_way is not None else []
        return any(batch.first_s < span[1] for batch in waiting)

    def as_dict(self) -> dict[str, Any]:
        """What `flowctl status` shows; nothing where there are no roll-ups."""
        if self._store.rollups is None:
            return {}
        self._measure()
        stats = self.stats
        return {
            "waitingRecords": stats.waiting_records,
            "minutesBehindSeconds": stats.minutes_behind_seconds,
            "hoursBehindSeconds": stats.hours_behind_seconds,
            "expiredRecords": stats.expired_records,
            "problem": stats.failing,
            "compared": [moment * 1000 for moment in self._compared or ()],
            "differences": [str(difference) for difference in self._differences],
        }

    def _settle(self) -> None:
        """Tell who asks from when on records have to be read."""
        now_s = int(self._clock())
        if self._scan_at_s is None or self._more:
            return  # nobody knows what is there
        for queue in self._queues:
            under_way_s = self._under_way.first_s if self._under_way is not None else None
            lacks_s = [now_s, queue.lacks_from_s(), under_way_s]
            if self._others_at_s > now_s - SCAN_BACK_S:  # what they commit now is not known here
                lacks_s.append(now_s - queue.pace.left_s)
            elif self._store.rollups is not None and not self._store.rollups.alone:
                lacks_s.append(self._scanned_s)  # nor that they have begun since
            first_s = min(moment for moment in lacks_s if moment is not None)
            self._store.settled[queue.rollup.name] = queue.rollup.start_s(first_s) * 1000
        self._measure()

    def _measure(self) -> None:
        now_ms = int(self._clock()) * 1000
        minutes, hours = (
            max(now_ms - self._store.settled.get(queue.rollup.name, now_ms), 0) // 1000
            for queue in self._queues
        )
        self.stats.minutes_behind_seconds, self.stats.hours_behind_seconds = minutes, hours
        self.stats.waiting_records = self._queues[0].records

    def _say(self, queue: RollQueue) -> None:
        if time.monotonic() - self._said_s >= PROGRESS_S:
            self._said_s = time.monotonic()
            log.info("%s: %d records are to be rolled up", queue.rollup.name, queue.records)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _roll(tables: RollupTables, roll: Roll) -> None:
    tables.note(roll, done=False)
    tables.roll(roll)


def _found(
    tables: RollupTables, since_s: int, begins: Mapping[str, int]
) -> tuple[list[StoredBatch], list[Note]]:
    """Return the batches and then their notes, so that no note is older than its batch."""
    batches = tables.batches(since_s, begins)
    first_s = min((each.batch_id.inserted_s for each in batches), default=since_s)
    return batches, tables.rolled(max(since_s, first_s))
