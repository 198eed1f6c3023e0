"""Keeps a store within its disk, or a size of its own: the oldest goes before nothing fits in.

Every interval, more often where the disk fills fast, the monitor asks the engine how full the disk
is and what the store takes; on a cluster all servers, of which the fullest decides. Above the
threshold whole partitions go (`room.choose`), after that it waits for some rounds, as
the engine takes a while to give their files back. What goes is noted in the store before, so that
answers know of it from then on, is counted, and is told in the log. Of several aggregators that
write to one store all may make room: the same goes, and who sees that another has just dropped
something waits as if it had been itself.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from flowvis.clickhouse import room
from flowvis.clickhouse.growth import Fill, Inserted
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.room import Excess, Limits
from flowvis.clickhouse.schema.dropped import Lost, Outcome
from flowvis.clickhouse.schema.partitions import WATCHED, Partition, Server
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rolls import SCAN_BATCHES, StoredBatch
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.stored_partitions import REFUSED, Dropped, StoredPartitions
from flowvis.counts import count, gauge
from flowvis.errors import StoreError
from flowvis.runtime.clock import utc
from flowvis.runtime.component import end, spawn
from flowvis.runtime.durations import format_duration

log = logging.getLogger(__name__)

LOOK_S = 1.0  # until the store is there
LAST_S = 5.0  # for what is under way at the end
REFUSED_S = 3600.0  # until what the server refused to drop is tried again
SAME_S = 2.0  # two moments of whole seconds, and of two clocks, that are one


@dataclass(slots=True)
class MonitorStats:
    """What happened since the start."""

    bytes: int = gauge("Bytes that flows, roll-ups and books take in the store")
    short_bytes: int = gauge("Bytes that have to go and cannot, so that writing will end")
    disk_free_bytes: int = gauge("Free bytes of the fullest disk of the store; 0: not known")
    disk_bytes: int = gauge("Bytes of the fullest disk of the store; 0: not known")
    dropped_partitions: int = count("Partitions dropped, as there was no room")
    dropped_records: int = count("Flow records in dropped partitions")
    dropped_bytes: int = count("Bytes of dropped partitions")
    newest_records: int = count(
        "Dropped flow records of the newest hour, as the disk does not hold an hour"
    )
    unrolled_records: int = count("Dropped flow records that no roll-up has, or not both")
    failures: int = count("Looks that failed; each is repeated")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How the store is watched."""

    enable: bool = True
    limits: Limits = field(default_factory=Limits)
    interval_s: float = 60.0
    skip_rounds: int = 3
    """Looks after a drop at which nothing is dropped: the engine gives files back by and by."""


class MonitoredStore(Protocol):
    """What of a store is needed here."""

    ttls: Mapping[str, int]
    begins: dict[str, int]
    lost: Sequence[Lost]

    @property
    def partitions(self) -> StoredPartitions | None:
        """Its partitions; None before they are there, and where they cannot be watched."""

    @property
    def rollups(self) -> RollupTables | None:
        """Its roll-ups, if there are any."""

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has."""


class Monitor:
    """A component beside a writer; all calls but `start` and `stop` are of the event loop."""

    def __init__(
        self,
        store: MonitoredStore,
        settings: MonitorSettings | None = None,
        *,
        stats: MonitorStats | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stats = stats or MonitorStats()
        self.problem = ""
        """Why there is, or soon will be, no room; "" when all is well."""
        self._store = store
        self._settings = settings or MonitorSettings()
        self._clock = clock
        self._skip = 0
        self._full = False
        """The store has said that nothing fits in."""
        self._last_drop_s: float | None = None
        """When the last drop that is known was noted, by our clock."""
        self._unnoted: list[tuple[Partition, Outcome]] = []
        """What became of partitions, and could not be noted yet."""
        self._refused: dict[tuple[str, str], tuple[float, str]] = {}
        """What the server refuses to drop: when it said so (monotonic), and how."""
        self._crowded_s: float | None = None
        """When something of the newest hour went last."""
        self._seen: Sequence[Server] = ()
        self._fill = Fill()
        self._inserted = Inserted()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Begin to watch, as soon as the store has its tables."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="monitor")
        self._task = spawn("monitor", self._run())

    async def stop(self) -> None:
        """End; a drop that is under way ends by itself."""
        await end(self._task)
        self._task = None
        if self._thread is not None:
            thread, self._thread = self._thread, None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await asyncio.to_thread(thread.shutdown, cancel_futures=True)

    def hurry(self) -> None:
        """The store has no room for what is to be written: look now."""
        self._full = True
        self._hurry.set()

    async def _run(self) -> None:
        settings = self._settings
        round_s = -settings.interval_s
        while True:
            pause_s = LOOK_S
            self._hurry.clear()
            if self._store.partitions is not None:
                now_s = time.monotonic()
                early = now_s - round_s < settings.interval_s
                round_s = round_s if early else now_s
                try:
                    await self.look(early=early)
                except StoreError as error:
                    self._failed(str(error))
                except Exception as error:
                    log.exception("monitor: a defect of ours")
                    self._failed(f"{type(error).__name__}: {error}")
                left_s = max(round_s + settings.interval_s - time.monotonic(), LOOK_S)
                pause_s = self._fill.pause_s(left_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hurry.wait()

    def _failed(self, text: str) -> None:
        self.stats.failures += 1
        self._say(f"cannot see or make room: {text}")

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("store: %s", problem)
        self.problem = problem

    async def look(self, *, early: bool = False) -> None:
        """See what there is, and drop what is too much; one that is early is no round."""
        stored = self._store.partitions
        if stored is None:
            return
        await self._note_later(stored)
        known = self._store.lost
        servers, dropped, lost, ttls = await self._call(_found, stored)
        self._follow_ttls(ttls)
        for table, each in dropped.items():  # another aggregator may make room as well
            self._store.begins[table] = max(self._store.begins.get(table, 0), each.before_s)
        if self._store.lost is known:  # else the roller found more meanwhile: at the next look
            gone = (each for each, outcome in self._unnoted if outcome is Outcome.WENT)
            self._store.lost = [*lost, *chain.from_iterable(map(_lost, gone))]
        self._follow_drops(dropped)
        self._measure(servers)
        tried_s = time.monotonic() - REFUSED_S
        self._refused = {one: said for one, said in self._refused.items() if said[0] > tried_s}
        excesses = self._excesses(servers)
        urgent = any(each.urgent for each in excesses)
        if self._skip > 0 and not urgent:
            self._skip -= not early
            return
        worst = max(excesses, key=lambda each: (each.bytes, each.foreign), default=Excess())
        if not worst.why or not self._settings.enable:
            self._short(0, "")
        elif not worst.bytes:
            self._short(0, worst.why)
        else:
            await self._drop(stored, servers, excesses)

    def _excesses(self, servers: Sequence[Server]) -> list[Excess]:
        """Return what is too much on each server."""
        limits, dropped = self._settings.limits, self._skip > 0
        full, self._full = self._full, False
        found = []
        for server in servers:
            one = room.excess(
                limits, server.bytes, server.disks, server.replaced, full=full, dropped=dropped
            )
            found.append(replace(one, why=server.said(one.why)) if one.why else one)
        return found

    def _follow_drops(self, dropped: Mapping[str, Dropped]) -> None:
        """Wait after a drop of another aggregator, or of the process before, as after our own."""
        if not dropped:
            return
        ago_s = min(each.ago_s for each in dropped.values())
        at_s = time.monotonic() - ago_s
        settings = self._settings
        before_s, self._last_drop_s = self._last_drop_s, at_s
        if before_s is not None and at_s < before_s + SAME_S:
            return
        if ago_s < settings.skip_rounds * settings.interval_s:
            self._skip = max(self._skip, settings.skip_rounds)

    def _follow_ttls(self, ttls: Mapping[str, int]) -> None:
        """Have answers know how long tables keep rows, which another aggregator may change."""
        begins = self._store.begins
        for table, kept_s in ttls.items():
            before_s = self._store.ttls.get(table, kept_s)
            if kept_s == before_s:
                continue
            log.warning(
                "store: %s keeps rows for %s now, and not for %s: another aggregator, which has"
                " other options, said so",
                table, _lasting(kept_s), _lasting(before_s),
            )  # fmt: skip
            if before_s and not 0 < kept_s < before_s:  # what is older is gone
                begins[table] = max(begins.get(table, 0), int(self._clock()) - before_s)
        self._store.ttls = ttls

    async def _drop(
        self, stored: StoredPartitions, servers: Sequence[Server], excesses: Sequence[Excess]
    ) -> None:
        batches: list[StoredBatch] = []
        now_s = int(self._clock())
        if (rollups := self._store.rollups) is not None:
            begins = self._store.kept.rollups_begin_s(now_s)
            batches = await self._call(rollups.batches, 0, begins)
        there = room.whole(servers)
        for each in room.with_unrolled(there.values(), batches, SCAN_BATCHES):
            there[each.known] = each
        chosen: dict[Partition, str] = {}
        short: dict[str, int] = {}
        for server, found in zip(servers, excesses, strict=True):
            own = [
                replace(each, unrolled=there[each.known].unrolled)
                for each in server.partitions
                if each.known not in self._refused
            ]
            ours = room.choose(own, found.bytes, now_s)
            chosen |= {there[each.known]: found.why for each in ours}
            left = found.bytes - sum(each.bytes for each in ours)
            if left > 0 and found.urgent:
                whole = {each.known for each in chosen}  # their parts go with them
                pieces = [
                    each
                    for each in await self._call(stored.pieces)
                    if each.within not in whole and each.known not in self._refused
                ]
                pieces = list(room.with_unrolled(pieces, batches, SCAN_BATCHES))
                newest = room.choose_newest(pieces, left, now_s)
                chosen |= dict.fromkeys(newest, found.why)
                left -= sum(each.bytes for each in newest)
            if left > 0:
                short[found.why] = left
        went = [each for each, why in chosen.items() if await self._give_up(stored, each, why)]
        if went:
            self._skip = self._settings.skip_rounds
        if any(each.part for each in went):
            self._crowded_s = now_s
        left = max(short.values(), default=0)
        why = next((each for each in short if short[each] == left), "")
        refused = next((text for _, text in self._refused.values()), "")
        rest = refused or "all else is of the newest hour or day"
        text = f"{why}: {left} bytes too many, and {rest}"
        self._short(left, text if left else "")

    def _short(self, left: int, problem: str) -> None:
        """Tell how much should go and cannot, and why that is."""
        self.stats.short_bytes = left
        if not problem:
            problem = next((text for _, text in self._refused.values()), "")
        crowded_s = self._crowded_s
        if not problem and crowded_s is not None and self._clock() - crowded_s < room.NEWEST_S:
            problem = (
                "the disk does not hold the newest hour, of which the oldest went: enlarge it,"
                " or have less recorded"
            )
        self._say(problem)

    async def _give_up(self, stored: StoredPartitions, each: Partition, why: str) -> bool:
        """Drop one; whether it went. Whatever happens meanwhile, answers know that it may be gone.

        Parts of one table follow each other in time: what is left is whole from the last one on.
        """
        store, begins = self._store, self._store.begins
        before_s, before = begins.get(each.table), store.lost
        begins[each.table] = max(before_s or 0, each.end_s)
        store.lost = told = [*before, *_lost(each)]
        try:
            await self._call(stored.note, each, Outcome.GOES)
            self._last_drop_s = time.monotonic()
        except StoreError as error:  # on a full disk not even that may fit in
            log.warning("store: cannot note what is dropped, will do so after it: %s", error)
        try:
            went = await self._call(stored.drop, each)
        except StoreError as error:
            if error.code not in REFUSED:
                raise
            del begins[each.table]  # all of it is there
            if before_s is not None:
                begins[each.table] = before_s
            store.lost = before if store.lost is told else store.lost
            went, text = False, f"cannot drop {each.table} from {utc(each.begin_s)}: {error}"
            self._refused[each.known] = time.monotonic(), text
        self._unnoted.append((each, Outcome.WENT if went else Outcome.STAYS))
        await self._note_later(stored)
        if not went:
            return False  # what it was merged into is found at the next look, and what else may go
        stats = self.stats
        stats.dropped_partitions += 1
        stats.dropped_bytes += each.bytes
        stats.dropped_records += each.rows if each.table == TABLE else 0
        stats.newest_records += each.rows if each.table == TABLE and each.part else 0
        stats.unrolled_records += each.unrolled
        newest = ", of the newest hour, which the disk does not hold" if each.part else ""
        lost = f", {each.unrolled} of them lost: no roll-up has them" if each.unrolled else ""
        log.warning(
            "store: %s: dropped %s from %s to %s: %d rows, %d bytes%s%s", why, each.table,
            utc(each.begin_s), utc(each.end_s), each.rows, each.bytes, newest, lost,
        )  # fmt: skip
        return True

    async def _note_later(self, stored: StoredPartitions) -> None:
        """Note what became of partitions, as far as the store takes it."""
        while self._unnoted:
            each, outcome = self._unnoted[0]
            try:
                await self._call(stored.note, each, outcome)
            except StoreError:  # at the next look; the log has it
                return
            del self._unnoted[0]
            if outcome is Outcome.WENT:
                self._last_drop_s = time.monotonic()

    def _measure(self, servers: Sequence[Server]) -> None:
        self._seen = servers
        there = room.whole(servers)
        self._inserted.see(there, time.monotonic())
        self.stats.bytes = sum(each.bytes for each in there.values())
        disks = [disk for server in servers for disk in server.disks]
        fullest = max(disks, key=lambda disk: disk.used / max(disk.total, 1), default=None)
        if fullest is not None:
            self.stats.disk_free_bytes, self.stats.disk_bytes = fullest.free, fullest.total
            self._fill.see(fullest.free, time.monotonic())

    def as_dict(self) -> dict[str, Any]:
        """What `flowctl status` shows; nothing before the first look."""
        tables = list(_tables(room.whole(self._seen).values()))
        if not tables:
            return {}
        stats = self.stats
        return {
            "problem": self.problem,
            "disks": [
                {
                    "name": server.said(disk.name),
                    "freeBytes": disk.free,
                    "totalBytes": disk.total,
                }
                for server in self._seen
                for disk in server.disks
            ],
            "tables": tables,
            "insertRate": self._inserted.as_dict(),
            "droppedRecords": stats.dropped_records,
            "droppedBytes": stats.dropped_bytes,
            "unrolledRecords": stats.unrolled_records,
        }

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _lost(partition: Partition) -> list[Lost]:
    """Return what roll-ups lack once a partition is gone, if anything."""
    one = partition
    return [Lost(one.begin_s, one.end_s, one.unrolled)] if one.unrolled else []


def _found(
    stored: StoredPartitions,
) -> tuple[list[Server], dict[str, Dropped], list[Lost], dict[str, int]]:
    """Return what there is, and then what went, so that none of what is missing is unknown."""
    return stored.servers(), stored.dropped(), stored.lost(), stored.ttls()


def _lasting(kept_s: int) -> str:
    return format_duration(kept_s) if kept_s else "ever"


def _tables(there: Iterable[Partition]) -> Iterable[dict[str, Any]]:
    """Sum up by table; the span is that of its partitions."""
    by_table: dict[str, list[Partition]] = {}
    for each in there:
        by_table.setdefault(each.table, []).append(each)
    for name in WATCHED:
        if ours := by_table.get(name):
            yield {
                "name": name,
                "rows": sum(each.rows for each in ours),
                "bytes": sum(each.bytes for each in ours),
                "fromMs": min(each.begin_s for each in ours) * 1000,
                "toMs": max(each.end_s for each in ours) * 1000,
            }
