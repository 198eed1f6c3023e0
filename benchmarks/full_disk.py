"""A small disk under full load: what the monitor keeps, and that all of that is there.

A writer with an embedded store on a file system of its own (tmpfs; needs root) is given `--rate`
records a second (20,000) for so long (`--duration`, an hour), which the disk (`--disk`, 1Gi) does
not hold. At the end each second, minute and hour that is retained, by what the store says itself
(`Store.begins`), is compared with what was put in: `missing` and `doubled` are records that differ,
or sums of octets. `unnamed` are records that are neither there nor counted by the monitor or the
books. `kept_seconds` is the shortest span of records that was there once the disk had filled.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster_hour import records
from flowvis import checkpoint
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.monitor import MonitorSettings
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import StoreSettings
from flowvis.clickhouse.writer import Writer
from flowvis.runtime.ledger import Stage
from flowvis.runtime.memory import ByteSize

DURATION_S = 3600.0
RATE = 20_000.0
DISK = ByteSize(1 << 30)
MADE = 400_000
LOOK_S = 5.0
SETTLE_S = 120.0
MOUNTED = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'


def run(
    duration_s: float = DURATION_S, rate: float = RATE, disk: ByteSize = DISK
) -> dict[str, Any]:
    """Fill the disk in a process of its own, which alone sees it."""
    with tempfile.TemporaryDirectory(prefix="flowvis-") as directory:
        options = json.dumps({"path": directory, "duration_s": duration_s, "rate": rate})
        program = [sys.executable, "-m", "benchmarks.full_disk", options]
        mounted = ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", str(int(disk)), directory]
        done = subprocess.run([*mounted, *program], stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@dataclass
class _Truth:
    """What was put in, by second of `flowEndSeconds`: records and octets."""

    by_second: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, second: int, batch: Batch) -> None:
        """Note a batch, all of one second."""
        count, octets = self.by_second.get(second, (0, 0))
        more = int(batch["octetDeltaCount"].sum(dtype=np.uint64))
        self.by_second[second] = count + len(batch), octets + more

    def since(self, begin_s: int, step_s: int) -> dict[int, tuple[int, int]]:
        """Return the sums of whole steps that begin then or later."""
        sums: dict[int, tuple[int, int]] = {}
        for second, (count, octets) in self.by_second.items():
            step = second - second % step_s
            if step >= begin_s:
                counts, sizes = sums.get(step, (0, 0))
                sums[step] = counts + count, sizes + octets
        return sums


class _Filling:
    def __init__(self, path: Path, duration_s: float, rate: float) -> None:
        settings = StoreSettings(f"embedded://{path}/store", database="full", ttl_s=0)
        self.store = EmbeddedStore(settings, path / "store")
        self.stage = Stage("clickhouse")
        self.writer = Writer(self.store, self.stage, monitor=MonitorSettings())
        self.truth = _Truth()
        self.put = 0
        self.fullest = 0.0
        self.kept_s: list[int] = []
        self.problems: set[str] = set()
        self._duration_s, self._rate = duration_s, rate
        self._made, _ = records(MADE)
        self._next = 0

    async def run(self) -> dict[str, Any]:
        began, cpu_s = time.monotonic(), time.process_time()
        await self.writer.start()
        await self._load(began)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self.writer.held():  # noqa: ASYNC110  nothing tells of it
                    await asyncio.sleep(1)
        await self.writer.monitor.stop()
        await self.writer.roller.look(everything=True)
        cpu_s = time.process_time() - cpu_s
        compared = self._compared()
        await self.writer.stop()
        stats = self.writer.stats
        return {
            "records": self.put,
            "cpu_seconds": round(cpu_s, 1),
            "wall_seconds": round(time.monotonic() - began, 1),
            **compared,
            "dropped_records": stats.store.dropped_records,
            "newest_records": stats.store.newest_records,
            "unrolled_records": stats.store.unrolled_records,
            "drops": stats.store.dropped_partitions,
            "named": {str(reason): count for reason, count in self.stage.dropped.items()},
            "commits_failed": stats.failures,
            "monitor_failed": stats.store.failures,
            "kept_seconds": min(self.kept_s, default=None),
            "fullest": round(self.fullest, 3),
            "problems": sorted(self.problems),
        }

    async def _load(self, began: float) -> None:
        """Put what is due each quarter of a second; look now and then."""
        look_s = 0.0
        while (passed_s := time.monotonic() - began) < self._duration_s:
            if due := int(passed_s * self._rate) - self.put:
                self._put(due)
            if passed_s >= look_s:
                look_s = passed_s + LOOK_S
                self._look()
            await asyncio.sleep(0.25)

    def _put(self, count: int) -> None:
        while count > 0:
            batch = self._made.take(slice(self._next, self._next + count))
            self._next = (self._next + len(batch)) % MADE
            now_s = int(time.time())
            _move(batch, now_s)
            self.truth.add(now_s, batch)
            self.writer.put(batch)
            self.put += len(batch)
            count -= len(batch)

    def _look(self) -> None:
        stats = self.writer.stats.store
        if stats.disk_bytes:
            self.fullest = max(self.fullest, 1 - stats.disk_free_bytes / stats.disk_bytes)
        begins_s = self.store.begins.get(TABLE)
        if begins_s is not None and self.writer.stats.last_commit_ms:
            self.kept_s.append(self.writer.stats.last_commit_ms // 1000 - begins_s)
        for problem in (self.writer.problem, self.writer.monitor.problem):
            if problem:
                self.problems.add(problem)

    def _compared(self) -> dict[str, Any]:
        """Compare what is retained; what no table retains is counted as it went."""
        answer: dict[str, Any] = {"missing": {}, "doubled": {}, "compared": {}}
        tables = {TABLE: ("flowEndSeconds", "1", 1)}
        tables |= {rollup.name: ("time", "records", rollup.step_s) for rollup in ROLLUPS}
        for table, (time_name, counted, step_s) in tables.items():
            begin_s = self.store.begins.get(table, 0)
            expected = self.truth.since(begin_s, step_s)
            rows = self.store.query(
                f"SELECT toUInt32({time_name}) AS t, sum({counted}), sum(octetDeltaCount)"
                f" FROM {table} WHERE t >= {begin_s} GROUP BY t",
                max_rows=1 << 20,
            ).rows
            found = {int(t): (int(count), int(octets)) for t, count, octets in rows}
            answer["compared"][table] = sum(count for count, _ in expected.values())
            less = more = 0
            for step in expected.keys() | found.keys():
                (count, octets), (has, size) = expected.get(step, (0, 0)), found.get(step, (0, 0))
                less += max(count - has, int(octets > size))
                more += max(has - count, int(size > octets))
            answer["missing"][table], answer["doubled"][table] = less, more
        there = int(self.store.query(f"SELECT count() FROM {TABLE}").rows[0][0])
        gone = self.writer.stats.store.dropped_records + sum(self.stage.dropped.values())
        return answer | {"retained": there, "unnamed": self.put - there - gone}


def _move(batch: Batch, end_s: int) -> None:
    """Have the records end then, and all else as long before it as it was."""
    by_s = end_s - batch["flowEndSeconds"].astype(np.int64)
    for name in batch.columns:
        if name.startswith(("flowStartSeconds", "flowEndSeconds")):
            batch[name] = (batch[name] + by_s).astype(np.uint32)
    in_ms = ("monitoringIntervalStartMilliSeconds", *checkpoint.STARTS, *checkpoint.ENDS)
    for name in in_ms:
        batch[name] = (batch[name].astype(np.int64) + by_s * 1000).astype(np.uint64)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    filling = _Filling(Path(given["path"]), given["duration_s"], given["rate"])
    json.dump(asyncio.run(filling.run()), sys.stdout)
