"""Flow records into ClickHouse: our CPU per record, and what a record takes on disk.

The CPU is that of this process while it inserts into Debian's clickhouse-server over the native
protocol with LZ4, acknowledged. The size is that of an hour's million records in the modern engine,
committed every eight seconds as the aggregator does, after merging.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clickhouse_server import clickhouse_server
from benchmarks.cluster_hour import records
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.clickhouse.writer import COMMIT_INTERVAL_S, COMMIT_RECORDS

RECORDS = 1_000_000
COMMITS = 8


def run() -> dict[str, Any]:
    """Measure both, and what the engine takes when it runs within our process."""
    batch, inserted_s = records(RECORDS)
    with tempfile.TemporaryDirectory() as name:
        size = _size(Path(name) / "embedded", batch, inserted_s)
        with clickhouse_server(Path(name) / "server") as port:
            speed = _speed(f"tcp://127.0.0.1:{port}", batch)
        embedded = _speed(f"embedded://{name}/embedded", batch)
    return {
        **speed,
        "bytes_per_record": size,
        "embedded_records_per_cpu_second": round(embedded["records"] / embedded["cpu_seconds"]),
        "store": "clickhouse-server 18.16, native protocol, LZ4; size: chdb",
    }


def _speed(url: str, batch: Batch) -> dict[str, Any]:
    """Insert commits of the usual size; the first one, which warms up, does not count."""
    store = open_store(StoreSettings(url, database="speed", ttl_s=0))
    store.migrate()
    commits = [
        batch.take(slice(start, start + COMMIT_RECORDS))
        for start in range(0, len(batch), COMMIT_RECORDS)
    ]
    store.insert(commits[0], BatchId("warm", 1_790_000_000))
    cpu, wall = time.process_time(), time.monotonic()
    inserted = 0
    for number in range(COMMITS):
        commit = commits[number % len(commits)]
        store.insert(commit, BatchId("benchmark", 1_790_000_000 + number))
        inserted += len(commit)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    store.close()
    return {
        "records": inserted,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
    }


def _size(path: Path, batch: Batch, inserted_s: np.ndarray[Any, np.dtype[np.uint32]]) -> float:
    """Commit an hour of records as they came, merge, and return the bytes on disk per record."""
    store = EmbeddedStore(StoreSettings(f"embedded://{path}", database="size", ttl_s=0), path)
    store.migrate()
    period = int(COMMIT_INTERVAL_S)
    commits = np.unique(inserted_s // period, return_index=True)
    for commit, part in zip(
        commits[0], np.split(np.arange(len(batch)), commits[1][1:]), strict=True
    ):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        store.insert(batch.take(rows), BatchId("benchmark", int(commit + 1) * period))
    store.optimize()
    answer = store.query(
        "SELECT sum(bytes_on_disk), sum(rows) FROM system.parts"
        f" WHERE database = 'size' AND table = '{schema.TABLE}' AND active"
    )
    size, rows_stored = map(int, answer.rows[0])
    assert rows_stored == len(batch)
    store.close()
    return round(size / rows_stored, 2)
