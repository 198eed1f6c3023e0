"""A store of a week: a day of records, 24 million of them, and the roll-ups of seven days.

The store is embedded: a million records of an hour each (see `cluster_hour`), a hundredth of the
connections denied, and the books of each minute. Four hours are made up, and rolled as the
aggregator does; the other hours of the day are the same with other times. So are the roll-ups of
the days before, as of records that are gone: all hours, and the minutes that the week begins with,
as only the edges of a week are read by minute. Parts are as large as after the engine's merges: by
hour one for each day that is over.

Filling takes minutes, so a directory keeps it: with `--store` it is filled once, for all benchmarks
that ask it, until what is filled or the schema changes.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster_hour import EPOCH_MS, HOUR_MS, cluster, records
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.query import QueryLimits
from flowvis.clickhouse.schema import rollups, tables
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolled_columns import INSERTED_DAY, TIME
from flowvis.clickhouse.schema.rolls import Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS as BY_HOUR
from flowvis.clickhouse.schema.rollups import MINUTES, ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.clickhouse.schema.whole_days import alike_sql
from flowvis.clickhouse.store import QuerySettings, StoreSettings
from flowvis.fields import RuleAction
from flowvis.questions.planner import Span, Stored

HOURS, RECORDS, MADE_HOURS, DAYS = 24, 1_000_000, 4, 7
FILLING = 4
"""Goes up when what is filled changes."""
DATABASE = "week"
THREADS = 2
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
EDGE_HOURS = 2
"""Of minutes that a week begins with."""
ROLLED_DAYS = {MINUTES.name: 1 + EDGE_HOURS / 24, BY_HOUR.name: DAYS}
"""Of how many days the store has a roll-up."""
PART_ROWS = 2_000_000
"""Of a roll-up, that become a part."""
MARK = "week.json"


@contextmanager
def opened(directory: str = "") -> Iterator[EmbeddedStore]:
    """Give the store that a directory has, filled if it is empty; "": one that goes afterwards."""
    if directory:
        yield from _opened(Path(directory))
    else:
        with tempfile.TemporaryDirectory() as name:
            yield from _opened(Path(name))


def _opened(directory: Path) -> Iterator[EmbeddedStore]:
    filled, path = check(directory), directory / "store"
    queries = QuerySettings(limits=QueryLimits(memory_bytes=2 << 30, threads=THREADS))
    settings = StoreSettings(
        f"embedded://{path}", database=DATABASE, ttl_s=0, minutes_ttl_s=0, hours_ttl_s=0,
        queries=queries,
    )  # fmt: skip
    store = EmbeddedStore(settings, path)
    try:
        store.migrate()
        if not filled:
            fill(store)
            (directory / MARK).write_text(json.dumps(made_of()))
        yield store
    finally:
        store.close()


def check(directory: Path) -> bool:
    """Return whether a directory has a filled store; it ends where it has something else."""
    mark = directory / MARK
    if mark.exists():
        if json.loads(mark.read_text()) != made_of():
            raise SystemExit(f"{directory} was filled by another version: remove it")
        return True
    if directory.exists() and any(directory.iterdir()):
        raise SystemExit(f"{directory} has something else, or was not filled to the end: remove it")
    return False


def made_of() -> dict[str, Any]:
    """Return what tells whether a directory has what is filled here, in tables as of now."""
    features = Features(
        "", codecs=True, ttl=True, deduplication=True, asynchronous=True,
        experimental_low_cardinality=False, divides=True, projections=True, merges_projections=True,
    )  # fmt: skip
    layout = TableLayout(DATABASE)
    statements = [
        tables.create_table(layout, features, 0),
        *(rollups.create(layout, features, rollup, 0) for rollup in ROLLUPS),
    ]
    schema = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    return {"filling": FILLING, "schema": schema}


def fill(store: EmbeddedStore) -> None:
    """Fill an empty store."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    world = cluster(np.random.default_rng(1))
    for made in range(MADE_HOURS):
        batch, inserted_s = records(RECORDS, 100 + made, hour=made, world=world)
        _deny(batch)
        for hour in range(made, HOURS, MADE_HOURS):
            if hour > made:
                _shift(batch, inserted_s, MADE_HOURS * HOUR_MS)
            batch_id = BatchId("benchmark", int(inserted_s[0]), made)
            _insert(store, batch, batch_id, rolled=hour == made)
            say(f"hour {hour} of {HOURS}")
    hour_s, day_s, begin_s = 3600, 86_400, EPOCH_MS // 1000
    with store.session() as session:  # what is copied has been merged, where it comes by and by
        session.query(
            f"ALTER TABLE {BY_HOUR.name} MODIFY SETTING materialize_projections_on_insert = 1"
        )
    for rollup in ROLLUPS:
        for hours in range(HOURS - MADE_HOURS, 0, -MADE_HOURS):
            _repeat(store, rollup, begin_s, MADE_HOURS, hours * hour_s)
        say(f"a day of {rollup.name}")
    _keep_books(store)
    _repeat(store, MINUTES, begin_s, EDGE_HOURS, -(DAYS - 1) * day_s)
    for day in range(DAYS - 1, 0, -1):
        _repeat(store, BY_HOUR, begin_s, HOURS, -day * day_s)
        say(f"{BY_HOUR.name} {day} days before")
    _end_days(store)
    say("a part of each day")


def _repeat(store: EmbeddedStore, rollup: Rollup, begin_s: int, hours: int, by_s: int) -> None:
    """Put the roll-up of so many hours there again, moved in time.

    What is moved farthest goes first, so that nothing is repeated twice: some records of the last
    hour end in the next one.
    """
    moved = f"{TIME} + {by_s}"
    changed = f"{moved} AS {TIME}, toDate({moved}) AS {INSERTED_DAY}"
    names = ", ".join(column.name for column in rollup.columns)
    from_s, to_s = begin_s - 3600, begin_s + (hours + 1) * 3600
    with store.session() as session:
        session.query(
            f"INSERT INTO {rollup.name} ({names}) SELECT {names} FROM"
            f" (SELECT * REPLACE({changed}) FROM (SELECT * FROM {rollup.name}"
            f" WHERE {TIME} >= toDateTime({from_s}) AND {TIME} < toDateTime({to_s})))"
            " SETTINGS max_threads = 2, max_insert_threads = 1,"
            f" min_insert_block_size_rows = {PART_ROWS}, min_insert_block_size_bytes = 0"
        )


def _end_days(store: EmbeddedStore) -> None:
    """Have each day but the last become one part, as it does in time; what is left stays so."""
    layout = TableLayout(DATABASE)
    with store.session() as session:
        found = session.query(
            "SELECT DISTINCT partition_id FROM system.parts WHERE active"
            f" AND database = '{DATABASE}' AND table = '{BY_HOUR.name}' ORDER BY partition_id"
        )
        for day in str(found).replace('"', "").split()[:-1]:
            session.query(f"{alike_sql(layout, day)} SETTINGS mutations_sync = 1")
            session.query(f"OPTIMIZE TABLE {BY_HOUR.name} PARTITION ID '{day}' FINAL")
        session.query(
            f"ALTER TABLE {BY_HOUR.name} MODIFY SETTING min_age_to_force_merge_seconds = 0"
        )


def _insert(store: EmbeddedStore, batch: Batch, batch_id: BatchId, *, rolled: bool) -> None:
    """Store a batch, which makes one part, and roll it up."""
    store.insert(batch, batch_id)
    if not rolled:
        return
    ends = batch["flowEndSeconds"]
    stored = StoredBatch(batch_id, len(batch), int(ends.min()), int(ends.max()))
    assert store.rollups is not None
    for rollup in ROLLUPS:
        store.rollups.roll(Roll(rollup, str(batch_id), (stored,)))


def _keep_books(store: EmbeddedStore) -> None:
    """Store the books of each minute of the week."""
    entries = [
        BookEntry(stage, what, 16_000)
        for stage in ("collector", "correlator", "clickhouse")
        for what in (What.RECEIVED, What.SENT)
    ] + [BookEntry("exporter", What.RECEIVED, 320, node=f"node-{n:02d}") for n in range(50)]
    first = Page(BatchId("benchmark-books", BEGIN_MS // 1000 + 60), 60, entries)
    store.keep(first)
    with store.session() as session:
        session.query(
            f"INSERT INTO {BOOKS} SELECT * REPLACE(time + 60 * minute AS time) FROM {BOOKS}"
            f" ARRAY JOIN range(1, {DAYS * 24 * 60}) AS minute"
        )
    end_s = END_MS // 1000
    settled = [BookEntry(name, What.SETTLED, end_s - ago_s) for name, ago_s in _SETTLED_S.items()]
    store.keep(Page(BatchId("benchmark-settled", end_s), 60, settled))


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
