"""What the roll-ups take beside the records: bytes on disk, and CPU of the store.

An hour of a cluster (a million records, 50 nodes) is committed to the embedded engine every eight
seconds, and rolled up as the aggregator does; then all is merged. The same records of 500 nodes,
20,000 Pods tell what it is at worst: hardly any two of them agree in a minute. The CPU is that of
the whole process within the calls; merges in between are in it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster_hour import LARGE, Scale, cluster, records
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.rollups import PACES
from flowvis.clickhouse.schema import rollups
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rollups import ROLLUPS, Roll, StoredBatch
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import StoreSettings
from flowvis.clickhouse.writer import COMMIT_INTERVAL_S

RECORDS = 1_000_000
COLUMNS = 6
"""So many columns of each table are told, those that take most."""


def run() -> dict[str, Any]:
    """Measure both clusters."""
    small = _measure(Scale(), int(COMMIT_INTERVAL_S))
    large = _measure(LARGE, 60)
    return {**small, "large": {name: large[name] for name in large if name.endswith("_record")}}


def _measure(scale: Scale, period_s: int) -> dict[str, Any]:
    batch, inserted_s = records(RECORDS, world=cluster(np.random.default_rng(1), scale))
    cpu = dict.fromkeys((TABLE, *(rollup.name for rollup in ROLLUPS)), 0.0)
    began = time.monotonic()
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
                before = time.process_time()
                waits = waiting[rollup.name]
                waits.append(stored)
                _roll(store, rollup, waits, last=batch_id.inserted_s > last_s)
                cpu[rollup.name] += time.process_time() - before
        answer = _sizes(store)
        store.close()
    rolled = sum(seconds for table, seconds in cpu.items() if table != TABLE)
    return {
        "records": len(batch),
        "cpu_seconds": round(sum(cpu.values()), 3),
        "wall_seconds": round(time.monotonic() - began, 3),
        "rollup_cpu_share": round(rolled / cpu[TABLE], 3),
        **answer,
    }


def _roll(
    store: EmbeddedStore, rollup: rollups.Rollup, waits: list[StoredBatch], *, last: bool
) -> None:
    """Roll what waits if it is time, as `Roller` does."""
    span_s = waits[-1].batch_id.inserted_s - waits[0].batch_id.inserted_s
    enough = sum(one.records for one in waits) >= rollups.ROLL_RECORDS
    tables = store.rollups
    if tables is None or not (enough or last or span_s >= PACES[rollup.name].every_s):
        return
    roll = Roll(rollup, str(waits[0].batch_id), tuple(waits))
    tables.note(roll, done=False)
    tables.roll(roll)
    tables.note(roll, done=True)
    waits.clear()


def _sizes(store: EmbeddedStore) -> dict[str, Any]:
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
        answer[f"{table}_rows_per_record"] = round(int(rows) / RECORDS, 3)
        answer[f"{table}_bytes_per_record"] = round(int(octets) / RECORDS, 2)
        answer[f"{table}_columns"] = {
            str(name): round(int(size) / RECORDS, 2) for name, size in columns
        }
    answer["rollup_bytes_per_record"] = round(
        sum(answer[f"{rollup.name}_bytes_per_record"] for rollup in ROLLUPS), 2
    )
    return answer
