"""A small disk under full load: what the monitor keeps, and that all of that is there.

A writer with an embedded store on a file system of its own (tmpfs; needs root) is given `--rate`
records a second (20,000) for so long (`--duration`, an hour), which the disk (`--disk`, 1Gi) does
not hold. At the end each second, minute and hour that is retained, by what the store says itself
(`Store.begins`), is compared with what was put in: `missing` are records that are not there beyond
those that books or monitor name (what the writer's queue dropped, what no roll-up got), `doubled`
those that are there more than once, or sums of octets that differ. `unnamed` are records that are
neither there nor counted by either. `kept_seconds` is the shortest span of records that was there
once the disk had filled. A disk that does not hold some minutes loses most by the queue.

With `--through aggregator` the writer is that of a flow-aggregator, which exporters send to over
mutual TLS (`benchmarks.full_disk_whole`). `said` is then how many records went as its status, its
metrics, its log and the notes in the store have it, while it still ran.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import full_disk_whole
from benchmarks.cluster_hour import records
from benchmarks.retained import Truth, compared, move
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.monitor import MonitorSettings
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
    duration_s: float = DURATION_S,
    rate: float = RATE,
    disk: ByteSize = DISK,
    through: str = "writer",
) -> dict[str, Any]:
    """Fill the disk in a process of its own, which alone sees it."""
    with tempfile.TemporaryDirectory(prefix="flowvis-") as directory:
        given = {"path": directory, "duration_s": duration_s, "rate": rate, "through": through}
        options = json.dumps(given)
        program = [sys.executable, "-m", "benchmarks.full_disk", options]
        mounted = ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", str(int(disk)), directory]
        done = subprocess.run([*mounted, *program], stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class _Filling:
    def __init__(self, path: Path, duration_s: float, rate: float) -> None:
        settings = StoreSettings(f"embedded://{path}/store", database="full", ttl_s=0)
        self.store = EmbeddedStore(settings, path / "store")
        self.stage = Stage("clickhouse")
        self.writer = Writer(self.store, self.stage, monitor=MonitorSettings())
        self.truth = Truth()
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
        stats = self.writer.stats
        found = compared(
            self.store,
            self.truth,
            named=sum(self.stage.dropped.values()),
            dropped=stats.store.dropped_records,
            unrolled=stats.store.unrolled_records,
        )
        await self.writer.stop()
        return {
            "records": self.put,
            "cpu_seconds": round(cpu_s, 1),
            "wall_seconds": round(time.monotonic() - began, 1),
            **found,
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
            move(batch, now_s)
            octets = int(batch["octetDeltaCount"].sum(dtype=np.uint64))
            self.truth.add(now_s, len(batch), octets)
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


def main(path: str, duration_s: float, rate: float, through: str) -> dict[str, Any]:
    """Fill the disk that is mounted at `path`."""
    if through == "aggregator":
        return full_disk_whole.fill(Path(path), duration_s, rate)
    return asyncio.run(_Filling(Path(path), duration_s, rate).run())


if __name__ == "__main__":
    json.dump(main(**json.loads(sys.argv[1])), sys.stdout)
