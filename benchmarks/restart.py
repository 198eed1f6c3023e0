"""An aggregator that begins anew, with a million live connections in the store.

The next record of each comes, as from exporters that keep what is not acknowledged. `seconds` is
the wall time until all are merged into rows that were made of what the store has; `cpu_seconds` is
that of our process, the embedded engine's included.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import EPOCH_MS, INTERVAL_MS, Traffic
from flowvis.aggregator.correlation.checkpoint import flows
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.exporters import DOUBT, Doubt
from flowvis.batch import Batch
from flowvis.checkpoint import tuple_hashes
from flowvis.clickhouse.schema.checkpoints import Wanted, restore
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import Store, StoreSettings, open_store

FLOWS = 1_000_000
COPIES = 40  # of one set of records, each under other addresses
AT_ONCE = 250_000  # records of a commit
HANDED = 8192  # records that the collector hands on


def run() -> dict[str, Any]:
    """Write a million flows, forget them, and go on with each."""
    with tempfile.TemporaryDirectory() as name:
        url = f"embedded://{Path(name) / 'store'}"
        store = open_store(StoreSettings(url, database="restart", ttl_s=0))
        store.migrate()
        traffic = Traffic(FLOWS // COPIES, strings=FlowTable().strings)
        _write(store, traffic.interval(0).batch)
        result = _restart(store, traffic.interval(1).batch)
        store.close()
    return result


def _copies(batch: Batch) -> Any:
    """Yield the records of each copy, in columns of its own."""
    for copy in range(COPIES):
        columns = {name: column.copy() for name, column in batch.columns.items()}
        for end in ("sourceIP", "destinationIP"):
            columns[end][:, 12] = 10 + copy
        yield Batch(columns, batch.strings)


def _write(store: Store, batch: Batch) -> None:
    table = FlowTable(max_flows=FLOWS)
    for copy in _copies(batch):
        table.add(copy, EPOCH_MS)
    inserted_s = EPOCH_MS // 1000
    while len(written := table.due(EPOCH_MS, AT_ONCE)):
        inserted_s += 1
        store.insert(written, BatchId("before", inserted_s))
    assert table.stats.written == FLOWS, table.stats


def _restart(store: Store, batch: Batch) -> dict[str, Any]:
    table = FlowTable(max_flows=FLOWS)
    now_ms, questions, asked_s = EPOCH_MS + INTERVAL_MS, 0, 0.0
    began, cpu = time.perf_counter(), time.process_time()
    for copy in _copies(batch):
        copy[DOUBT] = np.full(len(copy), Doubt.YOUNG, dtype=np.uint8)
        for first in range(0, len(copy), HANDED):
            table.add(copy.take(slice(first, first + HANDED)), now_ms)
        if table.parked.full or table.stats.received == COPIES * len(batch):
            inquiry = table.parked.inquiry(now_ms // 1000)
            assert inquiry is not None
            asking = time.perf_counter()
            answer = store.checkpoints(Wanted(tuple_hashes(inquiry.keys), inquiry.since_s))
            stored = flows(restore(answer))
            asked_s += time.perf_counter() - asking
            questions += 1
            table.answer(inquiry, stored, now_ms)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    assert table.stats.restored == len(table) == FLOWS, table.stats
    assert not table.parked.records
    return {
        "records": table.stats.received,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(seconds, 3),
        "seconds": round(seconds, 2),
        "seconds_asking": round(asked_s, 2),
        "questions": questions,
        "flows": FLOWS,
        "store": "chdb, in this process",
    }
