"""A store of a week: a day of records, 24 million of them, and the roll-ups of seven days.

The store is embedded: a million records of an hour each (see `cluster_hour`), merged, a hundredth
of the connections denied, and the books of each minute. Four hours are made up, and repeated with
other times. The roll-ups of the last day are of these records; those of the days before are the
same with other times, as of records that are gone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.cluster_hour import EPOCH_MS, HOUR_MS, cluster, records
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rollups import HOURS as BY_HOUR
from flowvis.clickhouse.schema.rollups import (
    INSERTED_DAY,
    MINUTES,
    ROLLUPS,
    TIME,
    Roll,
    StoredBatch,
)
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.fields import RuleAction
from flowvis.questions.planner import Span, Stored

HOURS, RECORDS, MADE_HOURS, DAYS = 24, 1_000_000, 4, 7
COMMIT = 250_000
BEGIN_MS = EPOCH_MS - (DAYS - 1) * 24 * HOUR_MS
"""Of what was rolled up; records begin with EPOCH_MS."""
END_MS = EPOCH_MS + HOURS * HOUR_MS
_SETTLED_S = {MINUTES.name: 120, BY_HOUR.name: 3600}
"""How long before the end roll-ups are settled, as while records come."""
STORED = Stored(
    END_MS // 1000,
    EPOCH_MS // 1000,
    {name: Span(END_MS // 1000 - ago, BEGIN_MS // 1000) for name, ago in _SETTLED_S.items()},
)
"""What the store has then."""


def fill(store: EmbeddedStore, begin_ms: int = EPOCH_MS) -> None:
    """Fill an empty store with records that begin with a whole hour."""
    store.migrate()
    world = cluster(np.random.default_rng(1))
    for made in range(MADE_HOURS):
        batch, inserted_s = records(RECORDS, 100 + made, hour=made, world=world)
        _deny(batch)
        _shift(batch, inserted_s, begin_ms - EPOCH_MS)
        for hour in range(made, HOURS, MADE_HOURS):
            if hour > made:
                _shift(batch, inserted_s, MADE_HOURS * HOUR_MS)
            for first in range(0, RECORDS, COMMIT):
                part = batch.take(slice(first, first + COMMIT))
                _insert(store, part, BatchId("benchmark", int(inserted_s[first]), made))
    for minute in range(1, HOURS * 60 + 1):
        end_s = begin_ms // 1000 + minute * 60
        store.keep(Page(BatchId("benchmark-books", end_s), 60, _BOOKS))
    store.optimize()
    with store.session() as session:
        for day in range(1, DAYS):
            for statement in _repeated(day, begin_ms // 1000):
                session.query(statement)
    store.optimize()


def _repeated(days: int, begin_s: int) -> Iterator[str]:
    """Yield the statements that repeat the last day of roll-ups and books so many days before."""
    time = f"{TIME} - {days * 86_400} AS {TIME}"
    day = f"{INSERTED_DAY} - {days} AS {INSERTED_DAY}"
    last = f"WHERE {TIME} > toDateTime({begin_s - 3600})"
    changes = {rollup.name: f"{time}, {day}" for rollup in ROLLUPS} | {BOOKS: time}
    for name, changed in changes.items():
        repeated = f"(SELECT * FROM {name} {last})"  # there `time` is what it was
        yield f"INSERT INTO {name} SELECT * REPLACE({changed}) FROM {repeated}"


def _insert(store: EmbeddedStore, batch: Batch, batch_id: BatchId) -> None:
    """Store a batch, and roll it up."""
    store.insert(batch, batch_id)
    ends = batch["flowEndSeconds"]
    stored = StoredBatch(batch_id, len(batch), int(ends.min()), int(ends.max()))
    assert store.rollups is not None
    for rollup in ROLLUPS:
        store.rollups.roll(Roll(rollup, str(batch_id), (stored,)))


_BOOKS = [
    BookEntry(stage, what, 16_000)
    for stage in ("collector", "correlator", "clickhouse")
    for what in (What.RECEIVED, What.SENT)
] + [BookEntry("exporter", What.RECEIVED, 320, node=f"node-{n:02d}") for n in range(50)]


def _deny(batch: Batch) -> None:
    """Have a policy deny a hundredth of the connections."""
    denied = (batch["sourceTransportPort"] % 97 == 0) & (batch["destinationPodName"] != 0)
    stem = "ingressNetworkPolicy"
    for name, value in (
        ("RuleAction", RuleAction.DROP),
        ("Type", 1),
        ("Name", batch.strings.intern(b"default-deny")),
    ):
        batch[f"{stem}{name}"][denied] = value
    batch[f"{stem}Namespace"][denied] = batch["destinationPodNamespace"][denied]


def _shift(batch: Batch, inserted_s: np.ndarray[Any, Any], by_ms: int) -> None:
    """Move records in time, to either side; columns are without signs, and go round."""
    inserted_s += by_ms // 1000
    for name in batch.columns:
        if name.startswith(("flowStartSeconds", "flowEndSeconds")):
            batch[name] += np.uint32(by_ms // 1000 % (1 << 32))
    batch["monitoringIntervalStartMilliSeconds"] += np.uint64(by_ms % (1 << 64))
