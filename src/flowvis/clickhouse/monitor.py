"""Keeps a store within its disk, or a size of its own: the oldest goes before nothing fits in.

Every interval the monitor asks the engine how full the disk is and what the store takes. Above the
threshold whole partitions go (`schema.partitions.choose`), after that it waits for some rounds, as
the engine takes a while to give their files back. What goes is noted in the store before, so that
answers know of it from then on, is counted, and is told in the log.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowvis.clickhouse.rollups import Execute, RollupTables
from flowvis.clickhouse.schema import partitions as schema
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.partitions import Disk, Excess, Limits, Partition
from flowvis.clickhouse.schema.rollups import SCAN_BATCHES
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.counts import count, gauge
from flowvis.errors import StoreError
from flowvis.runtime.component import end, spawn

log = logging.getLogger(__name__)

LOOK_S = 1.0  # until the store is there
LAST_S = 5.0  # for what is under way at the end


class StoredPartitions:
    """The partitions of a store. Methods block; errors are StoreErrors."""

    def __init__(self, execute: Execute, database: str, *, has_disks: bool) -> None:
        """`has_disks`: the engine tells how full its disks are."""
        self.has_disks = has_disks
        self._execute = execute
        self._database = database

    def partitions(self) -> list[Partition]:
        """Return what there is."""
        return list(
            schema.read_partitions(self._execute(schema.partitions_sql(self._database), {}))
        )

    def disks(self) -> list[Disk]:
        """Return the disks that parts of the store are on; none where the engine does not tell."""
        if not self.has_disks:
            return []
        return list(schema.read_disks(self._execute(schema.disks_sql(self._database), {})))

    def note(self, partition: Partition) -> None:
        """Note that a partition goes."""
        self._execute(schema.create_dropped(self._database), {})
        self._execute(schema.note_sql(self._database, partition), {})

    def drop(self, partition: Partition) -> None:
        """Drop a partition."""
        self._execute(schema.drop_sql(self._database, partition), {})

    def begins(self) -> dict[str, int]:
        """Return, by table of which something went, the moment (s) before which that is."""
        there = self._execute(
            "SELECT count() FROM system.tables WHERE"
            f" database = '{self._database}' AND name = '{schema.DROPPED}'",
            {},
        )
        if not any(int(row[0]) for row in there):
            return {}
        rows = self._execute(schema.begins_sql(self._database), {})
        return {str(table): int(begin) for table, begin in rows}


def stored_partitions(execute: Execute, database: str, features: Features) -> StoredPartitions:
    """Return those of an engine that can do so much."""
    return StoredPartitions(execute, database, has_disks=features.disks)


@dataclass(slots=True)
class MonitorStats:
    """What happened since the start."""

    bytes: int = gauge("Bytes that flows, roll-ups and books take in the store")
    disk_free_bytes: int = gauge("Free bytes of the fullest disk of the store; 0: not known")
    disk_bytes: int = gauge("Bytes of the fullest disk of the store; 0: not known")
    dropped_partitions: int = count("Partitions dropped, as there was no room")
    dropped_records: int = count("Flow records in dropped partitions")
    dropped_bytes: int = count("Bytes of dropped partitions")
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

    begins: dict[str, int]

    @property
    def partitions(self) -> StoredPartitions | None:
        """Its partitions; None before they are there, and where they cannot be watched."""

    @property
    def rollups(self) -> RollupTables | None:
        """Its roll-ups, if there are any."""


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
        self._tables: list[dict[str, Any]] = []
        self._disks: Sequence[Disk] = ()
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

    async def _run(self) -> None:
        while True:
            there = self._store.partitions is not None
            if there:
                try:
                    await self.look()
                except StoreError as error:
                    self._failed(str(error))
                except Exception as error:
                    log.exception("monitor: a defect of ours")
                    self._failed(f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._settings.interval_s if there else LOOK_S)

    def _failed(self, text: str) -> None:
        self.stats.failures += 1
        self._say(f"cannot see or make room: {text}")

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("store: %s", problem)
        self.problem = problem

    async def look(self) -> None:
        """See what there is, and drop what is too much."""
        stored = self._store.partitions
        if stored is None:
            return
        there, disks, begins = await self._call(_found, stored)
        for table, begin_s in begins.items():  # another aggregator may make room as well
            self._store.begins[table] = max(self._store.begins.get(table, 0), begin_s)
        self._measure(there, disks)
        limits = self._settings.limits
        found = schema.excess(limits, sum(each.bytes for each in there), disks)
        if self._skip > 0:
            self._skip -= 1
            return
        if not found.why or not self._settings.enable:
            self._say("")
        elif found.foreign:
            self._say(found.why)
        else:
            await self._drop(stored, there, found)

    async def _drop(
        self, stored: StoredPartitions, there: Sequence[Partition], found: Excess
    ) -> None:
        if (rollups := self._store.rollups) is not None:
            batches = await self._call(rollups.batches, 0)
            there = list(schema.with_unrolled(there, batches, SCAN_BATCHES))
        chosen = schema.choose(there, found.bytes, int(self._clock()))
        for each in chosen:
            await self._give_up(stored, each, found.why)
        if chosen:
            self._skip = self._settings.skip_rounds
        left = found.bytes - sum(each.bytes for each in chosen)
        text = f"{found.why}: {left} bytes too many, and all else is of the newest hour or day"
        self._say(text if left > 0 else "")

    async def _give_up(self, stored: StoredPartitions, each: Partition, why: str) -> None:
        """Drop one; whatever happens meanwhile, answers know that it may be gone."""
        begins = self._store.begins
        begins[each.table] = max(begins.get(each.table, 0), each.end_s)
        noted = True
        try:
            await self._call(stored.note, each)
        except StoreError as error:  # on a full disk not even that may fit in
            noted = False
            log.warning("store: cannot note what is dropped, will do so after it: %s", error)
        await self._call(stored.drop, each)
        if not noted:
            with contextlib.suppress(StoreError):  # the log has it
                await self._call(stored.note, each)
        stats = self.stats
        stats.dropped_partitions += 1
        stats.dropped_bytes += each.bytes
        stats.dropped_records += each.rows if each.table == TABLE else 0
        stats.unrolled_records += each.unrolled
        lost = f", {each.unrolled} of them lost: no roll-up has them" if each.unrolled else ""
        log.warning(
            "store: %s: dropped %s from %s to %s: %d rows, %d bytes%s",
            why, each.table, _said(each.begin_s), _said(each.end_s), each.rows, each.bytes, lost,
        )  # fmt: skip

    def _measure(self, there: Sequence[Partition], disks: Sequence[Disk]) -> None:
        self.stats.bytes = sum(each.bytes for each in there)
        fullest = max(disks, key=lambda disk: disk.used / max(disk.total, 1), default=None)
        if fullest is not None:
            self.stats.disk_free_bytes, self.stats.disk_bytes = fullest.free, fullest.total
        self._disks = disks
        self._tables = list(_tables(there))

    def as_dict(self) -> dict[str, Any]:
        """What `flowctl status` shows; nothing before the first look."""
        if not self._tables:
            return {}
        stats = self.stats
        return {
            "problem": self.problem,
            "disks": [
                {"name": disk.name, "freeBytes": disk.free, "totalBytes": disk.total}
                for disk in self._disks
            ],
            "tables": self._tables,
            "droppedRecords": stats.dropped_records,
            "droppedBytes": stats.dropped_bytes,
            "unrolledRecords": stats.unrolled_records,
        }

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _found(stored: StoredPartitions) -> tuple[list[Partition], list[Disk], dict[str, int]]:
    return stored.partitions(), stored.disks(), stored.begins()


def _tables(there: Iterable[Partition]) -> Iterable[dict[str, Any]]:
    """Sum up by table; the span is that of its partitions."""
    by_table: dict[str, list[Partition]] = {}
    for each in there:
        by_table.setdefault(each.table, []).append(each)
    for name in schema.WATCHED:
        if ours := by_table.get(name):
            yield {
                "name": name,
                "rows": sum(each.rows for each in ours),
                "bytes": sum(each.bytes for each in ours),
                "fromMs": min(each.begin_s for each in ours) * 1000,
                "toMs": max(each.end_s for each in ours) * 1000,
            }


def _said(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
