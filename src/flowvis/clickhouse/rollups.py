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
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

from flowvis.clickhouse.expired import Expired, LosingStore
from flowvis.clickhouse.schema import outlived, repeated, whole_days
from flowvis.clickhouse.schema import rollups as schema
from flowvis.clickhouse.schema.claims import USED_S, claim_sql, claims_sql, read_claims
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.partitions import Lost
from flowvis.clickhouse.schema.rollups import ROLLUPS, Note, Roll, Rollup, StoredBatch
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.counts import count, gauge
from flowvis.errors import StoreError
from flowvis.runtime.clock import utc
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
STAGE = "clickhouse"  # of the ledger: what it sent is stored
FETCHED_S = 600.0  # replicas that are later than that by far are not asked
FETCHED_LOOKS = 3  # within which what was just stored is on all of them, as a rule
STORED_S = 120  # from a batch to the page of the books that says it is stored, as a rule

Execute = Callable[[str, Mapping[str, int | str]], Iterable[Sequence[Any]]]
"""Executes one statement with settings, on a connection of the roll-ups' own; StoreError."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When batches are rolled into one of the tables."""

    every_s: int
    """So often, unless there are enough before."""
    after_s: int
    """So long after the beginning of a step: what is of the step before is stored by then."""
    late_s: int
    """A batch with a record that is older is rolled at once: the more recent ones are settled."""
    left_s: int
    """What another writer has not rolled for so long, it never will."""


PACES: Mapping[str, Pace] = {
    schema.MINUTES.name: Pace(300, 0, 900, 900),
    schema.HOURS.name: Pace(3600, 120, 2 * 3600, 2 * 3600 + 600),
}


class RollupTables:
    """The roll-ups of a store. Methods block; errors are StoreErrors."""

    def __init__(
        self,
        execute: Execute,
        layout: TableLayout,
        *,
        alone: bool,
        options: Mapping[str, int | str] | None = None,
        late_projections: bool = False,
    ) -> None:
        """`alone`: nobody else can write to the store. `options` are those of an INSERT there.

        `late_projections`: a part has none before its first merge.
        """
        self.alone = alone
        self.replicated = bool(layout.cluster)
        """Who is asked may lack what was just stored."""
        self._execute = execute
        self._layout = layout
        self._options = options or {}
        self._late_projections = late_projections

    def batches(self, since_s: int, begins: Mapping[str, int]) -> list[StoredBatch]:
        """Return the batches of records that were inserted since then, oldest first.

        Those that a roll-up lacks; before it `begins` (s, by its name) it is to have none.
        """
        sql = schema.batches_sql(self._layout, since_s, begins)
        return list(schema.read_batches(self._execute(sql, {})))

    def rolled(self, since_s: int) -> list[Note]:
        """Return what is noted of them."""
        return list(schema.read_rolled(self._execute(schema.rolled_sql(self._layout, since_s), {})))

    def now_s(self) -> int:
        """Return what the store's clock says."""
        ((now_s,),) = self._execute("SELECT toUInt32(now())", {})
        return int(now_s)

    def strangers_at_s(self, writer: str, since_s: int, until_s: int) -> int:
        """Return when somebody else committed last, in a span, what was rolled; 0: nobody did."""
        sql = schema.strangers_sql(self._layout, writer, since_s, until_s)
        ((at_s,),) = self._execute(sql, {})
        return int(at_s)

    def taken(self, roll: Roll) -> dict[BatchId, bool]:
        """Return which batches are noted of other rolls into its table, and whether that is done.

        Those of the roll are among them.
        """
        return schema.read_taken(self._execute(schema.taken_sql(self._layout, roll), {}))

    def claim(self, rollup: Rollup, claimant: str, batches: Sequence[BatchId]) -> None:
        """Say that batches are going to be rolled by somebody, unless another one was first."""
        self._execute(claim_sql(self._layout, rollup, claimant, batches), self._options)

    def claimants(self, rollup: Rollup, batches: Sequence[BatchId]) -> dict[BatchId, str]:
        """Return who was first, of batches of the same moments as well."""
        return read_claims(self._execute(claims_sql(self._layout, rollup, batches), {}))

    def committed(self, before_s: int) -> Lost | None:
        """Return what the books have of after all that was rolled, and before a moment (s)."""
        ((until_s,),) = self._execute(schema.rolled_until_sql(self._layout), {})
        from_s = int(until_s) + STORED_S if int(until_s) else 0
        sql = schema.committed_sql(self._layout, STAGE, from_s, before_s)
        ((records, begin_s, end_s),) = self._execute(sql, {})
        if not int(records):
            return None
        return Lost(int(begin_s), int(end_s), int(records), expired=True)

    def there(self, from_s: int, to_s: int) -> dict[BatchId, int]:
        """Return how many records there are of each batch that was inserted in a span (s)."""
        return schema.read_there(self._execute(schema.there_sql(self._layout, from_s, to_s), {}))

    def forget(self, now_s: float) -> list[str]:
        """Drop notes of months that no record is of any more; return which, as YYYYMM."""
        layout = self._layout
        ((oldest,),) = self._execute(outlived.oldest_day_sql(layout), {})
        months = [str(month) for (month,) in self._execute(outlived.months_sql(layout), {})]
        gone = list(outlived.outlived(months, str(oldest), now_s))
        for month in gone:
            self._execute(outlived.drop_sql(layout, month), {})
        return gone

    def make_alike(self) -> list[str]:
        """Have days that are over become one part, where they would not; return which."""
        if not self._late_projections:
            return []
        days = [str(day) for (day,) in self._execute(whole_days.unlike_sql(self._layout), {})]
        for day in days:
            self._execute(whole_days.alike_sql(self._layout, day), {})
        return days

    def note(self, roll: Roll, *, done: bool) -> None:
        """Note that a roll begins or is done."""
        self._execute(schema.note_sql(self._layout, roll, done=done), self._options)

    def roll(self, roll: Roll) -> None:
        """Roll; nothing happens if this roll was stored before."""
        self._roll(roll, roll.token)

    def roll_anew(self, roll: Roll) -> None:
        """Roll what is known not to be there, though the engine may take it for a repetition."""
        self._roll(roll, f"{roll.token}-{secrets.token_hex(4)}")

    def lacks(self, roll: Roll) -> bool:
        """Whether there is nothing of a roll that was acknowledged; False if nobody can say."""
        before, after = (
            self._sums(repeated.rolled_sums_sql(self._layout, roll, with_it=with_it))
            for with_it in (False, True)
        )
        return before != after and self.sums(roll.rollup.name, *repeated.span_of(roll)) == before

    def _roll(self, roll: Roll, token: str) -> None:
        options = {**schema.WHOLE_BLOCK, "insert_deduplication_token": token, **self._options}
        self._execute(schema.roll_sql(self._layout, roll), options)

    def sums(self, table: str, from_s: int, to_s: int) -> tuple[int, ...]:
        """Return the sums of a span of records, or of a roll-up, in the order of `SUMS`."""
        return self._sums(schema.sums_sql(self._layout, table, from_s, to_s))

    def _sums(self, sql: str) -> tuple[int, ...]:
        found = next(iter(self._execute(sql, {})), ())
        return tuple(int(value) for value in found)


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


@dataclass(frozen=True, slots=True)
class Difference:
    """A number that records and a roll-up do not agree in."""

    rollup: str
    from_s: int
    to_s: int
    measure: str
    records: int
    rolled: int

    def __str__(self) -> str:
        return (
            f"{self.rollup} has {self.measure} {self.rolled} of"
            f" {utc(self.from_s)} to"
            f" {time.strftime('%H:%M:%SZ', time.gmtime(self.to_s))}, records have {self.records}"
        )


def differences(tables: RollupTables, from_s: int, to_s: int) -> list[Difference]:
    """Compare the sums of a settled span of whole hours, or minutes, with those of its records."""
    expected = tables.sums(TABLE, from_s, to_s)
    found = []
    for rollup in ROLLUPS:
        if rollup.start_s(from_s) != from_s or rollup.start_s(to_s) != to_s:
            continue
        rolled = tables.sums(rollup.name, from_s, to_s)
        for column, right, has in zip(schema.SUMS, expected, rolled, strict=True):
            if right != has:
                found.append(Difference(rollup.name, from_s, to_s, column.name, right, has))
    return found


class RollupStore(LosingStore, Protocol):
    """What of a store is needed here."""

    settled: dict[str, int]

    @property
    def rollups(self) -> RollupTables | None:
        """Its roll-ups; None before they are there, and where there can be none."""


class _Queue:
    """What is to be rolled into one table."""

    def __init__(self, rollup: Rollup, pace: Pace) -> None:
        self.rollup = rollup
        self.pace = pace
        self.waiting: dict[BatchId, StoredBatch] = {}
        self.others: list[StoredBatch] = []
        """Batches of other writers, which are theirs to roll."""
        self.begun: list[Roll] = []
        """Rolls that were tried, or noted by a process before: to be repeated as they were."""
        self.new: set[str] = set()
        """Names of those among them that nothing was noted of yet."""
        self.claimed: AbstractSet[BatchId] = frozenset()
        """Batches that others may roll as well, and that we have the first claim of."""
        self.claimed_at_s = 0.0
        """When we claimed them, by the monotonic clock."""
        self.last_step = 0

    @property
    def records(self) -> int:
        """How many records are to be rolled."""
        begun = sum(roll.records for roll in self.begun)
        return begun + sum(batch.records for batch in self.waiting.values())

    @property
    def unrolled(self) -> Iterator[StoredBatch]:
        """The batches that are to be rolled."""
        yield from self.waiting.values()
        for roll in self.begun:
            yield from roll.batches

    def lacks_from_s(self) -> int | None:
        """Return the earliest flowEndSeconds of a record that the table lacks."""
        return min((batch.first_s for batch in (*self.unrolled, *self.others)), default=None)

    def step(self, now_s: int) -> int:
        """Return the number of the interval between rolls."""
        return (now_s - self.pace.after_s) // self.pace.every_s

    def take(self, now_s: int, *, everything: bool) -> Sequence[StoredBatch]:
        """Return the batches of the next roll, none if it is not time."""
        late = [b for b in self.waiting.values() if b.first_s < now_s - self.pace.late_s]
        due = everything or self.step(now_s) != self.last_step
        enough = sum(batch.records for batch in self.waiting.values()) >= schema.ROLL_RECORDS
        candidates = list(self.waiting.values()) if due or enough else late
        taken: list[StoredBatch] = []
        records = 0
        for batch in candidates:
            records += batch.records
            if (taken and records > schema.ROLL_RECORDS) or len(taken) == schema.ROLL_BATCHES:
                return taken
            taken.append(batch)
        if due:
            self.last_step = self.step(now_s)
        return taken


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
        self._queues = [_Queue(rollup, PACES[rollup.name]) for rollup in ROLLUPS]
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
                if not everything and queue.records > schema.ROLL_RECORDS:
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

    def _next(self, queue: _Queue, *, everything: bool) -> Roll | None:
        """Return the roll that is to be tried now."""
        if not queue.begun:
            batches = queue.take(int(self._clock()), everything=everything)
            if not batches:
                return None
            self._numbers += 1
            name = schema.roll_name(self._writer, self._numbers)
            roll = Roll(queue.rollup, name, (*batches,))
            queue.begun.append(roll)
            queue.new.add(roll.name)
            for batch in batches:
                del queue.waiting[batch.batch_id]
        return queue.begun[0]

    async def _roll(self, tables: RollupTables, queue: _Queue, roll: Roll) -> None:
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

    async def _left(self, tables: RollupTables, queue: _Queue, roll: Roll) -> Roll:
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

    async def _claim(self, tables: RollupTables, queue: _Queue, roll: Roll) -> AbstractSet[BatchId]:
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
        self._more = len(batches) >= schema.SCAN_BATCHES
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
        queue: _Queue,
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
        to_s = schema.HOURS.start_s(min(settled.values()) // 1000)
        span = to_s - schema.HOURS.step_s, to_s
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

    def _say(self, queue: _Queue) -> None:
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
