"""What the roll-ups take beside the records: bytes on disk, and CPU of the store.

Bytes: an hour of a cluster (a million records, 50 nodes) is committed to the embedded engine and
rolled up as the aggregator does; then all is merged. As many records of 500 nodes and 20,000 Pods
tell what it is at worst: hardly any two of them agree in a minute. CPU: of the process within the
calls, of ten minutes' records that are committed every eight seconds. The engine merges beside
them: what it has begun is waited for before a roll and after it, so that it counts for the table
that it is of.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster_hour import LARGE, Scale, cluster, records
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.roll_queue import PACES
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import ROLL_RECORDS, Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import StoreSettings
from flowvis.clickhouse.writer import COMMIT_INTERVAL_S

RECORDS = 1_000_000
CPU_S = 600
SIZE_COMMIT_S = 60
COLUMNS = 6
"""So many columns of each table are told, those that take most."""


def run() -> dict[str, Any]:
    """Measure all of it."""
    batch, inserted_s = _made(Scale())
    middle = len(batch) // 2
    part = slice(middle, int(np.searchsorted(inserted_s, inserted_s[middle] + CPU_S)))
    cpu, _ = _measure(batch.take(part), inserted_s[part], int(COMMIT_INTERVAL_S))
    _, sizes = _measure(batch, inserted_s, SIZE_COMMIT_S)
    _, large = _measure(*_made(LARGE), SIZE_COMMIT_S)
    rolled = sum(seconds for table, seconds in cpu.items() if table != TABLE)
    return {
        "records": part.stop - part.start,
        "cpu_seconds": round(sum(cpu.values()), 3),
        "wall_seconds": round(sum(cpu.values()), 3),
        "rollup_cpu_share": round(rolled / cpu[TABLE], 3),
        **sizes,
        "large": {name: number for name, number in large.items() if name.endswith("_record")},
    }


def _made(scale: Scale) -> tuple[Batch, np.ndarray[Any, np.dtype[np.uint32]]]:
    return records(RECORDS, world=cluster(np.random.default_rng(1), scale))


def _measure(
    batch: Batch, inserted_s: np.ndarray[Any, np.dtype[np.uint32]], period_s: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Commit and roll up; return the CPU seconds of each table, and what they take."""
    cpu = dict.fromkeys((TABLE, *(rollup.name for rollup in ROLLUPS)), 0.0)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "store"
        settings = StoreSettings(
            f"embedded://{path}", database="rolled", ttl_s=0, minutes_ttl_s=0, hours_ttl_s=0
        )
        store = EmbeddedStore(settings, path)
        store.migrate()
        waiting: dict[str, list[StoredBatch]] = {rollup.name: [] for rollup in ROLLUPS}
        last_s = int(inserted_s[-1])
        commits = np.unique(inserted_s // period_s, return_index=True)
        parts = np.split(np.arange(len(batch)), commits[1][1:])
        for number, part in zip(commits[0], parts, strict=True):
            commit = batch.take(slice(int(part[0]), int(part[-1]) + 1))
            batch_id = BatchId("benchmark", int(number + 1) * period_s)
            before = time.process_time()
            store.insert(commit, batch_id)
            cpu[TABLE] += time.process_time() - before
            ends = commit["flowEndSeconds"]
            stored = StoredBatch(batch_id, len(commit), int(ends.min()), int(ends.max()))
            for rollup in ROLLUPS:
                waits = waiting[rollup.name]
                waits.append(stored)
                if not _is_time(rollup, waits, last=batch_id.inserted_s > last_s):
                    continue
                before = time.process_time()
                _merged(store)
                began = time.process_time()
                _roll(store, rollup, waits)
                _merged(store)
                cpu[TABLE] += began - before
                cpu[rollup.name] += time.process_time() - began
        sizes = _sizes(store, len(batch))
        store.close()
    return cpu, sizes


def _is_time(rollup: Rollup, waits: list[StoredBatch], *, last: bool) -> bool:
    """Return whether what waits is rolled, as `Roller` decides it."""
    span_s = waits[-1].batch_id.inserted_s - waits[0].batch_id.inserted_s
    enough = sum(one.records for one in waits) >= ROLL_RECORDS
    return enough or last or span_s >= PACES[rollup.name].every_s


def _merged(store: EmbeddedStore) -> None:
    """Wait until the engine merges nothing."""
    while store.query("SELECT count() FROM system.merges").rows[0][0]:
        time.sleep(0.05)


def _roll(store: EmbeddedStore, rollup: Rollup, waits: list[StoredBatch]) -> None:
    """Roll what waits, as `Roller` does."""
    tables = store.rollups
    assert tables is not None
    roll = Roll(rollup, str(waits[0].batch_id), tuple(waits))
    tables.note(roll, done=False)
    tables.roll(roll)
    tables.note(roll, done=True)
    waits.clear()


def _sizes(store: EmbeddedStore, count: int) -> dict[str, Any]:
    """Merge all, and return what each table takes for each record."""
    answer: dict[str, Any] = {}
    store.optimize()
    for table in (TABLE, *(rollup.name for rollup in ROLLUPS)):
        ((rows, octets),) = store.query(
            "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active"
            f" AND database = 'rolled' AND table = '{table}'"
        ).rows
        columns = store.query(
            "SELECT name, data_compressed_bytes FROM system.columns WHERE database = 'rolled'"
            f" AND table = '{table}' ORDER BY data_compressed_bytes DESC LIMIT {COLUMNS}"
        ).rows
        answer[f"{table}_rows_per_record"] = round(int(rows) / count, 3)
        answer[f"{table}_bytes_per_record"] = round(int(octets) / count, 2)
        answer[f"{table}_columns"] = {
            str(name): round(int(size) / count, 2) for name, size in columns
        }
    answer["rollup_bytes_per_record"] = round(
        sum(answer[f"{rollup.name}_bytes_per_record"] for rollup in ROLLUPS), 2
    )
    return answer
