"""Rolls: which batches of records become rows of which roll-up, and what is noted of that.

Records become rows batch by batch. A *roll* is the INSERT SELECT of some batches into one roll-up,
under a token that makes its repetition harmless. It does no grouping: a record becomes a row of
which the engine, as it sorts them, makes one for each key (`optimize_on_insert`). That is a quarter
of what GROUP BY costs, whose keys would be texts. Which batches are of a roll is stored before it
(`flow_rolled`), so that whoever goes on after a kill repeats the very same one; and that it is
there is stored after it. So each batch is in each roll-up once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flowvis.clickhouse.schema.books import What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.rollups import ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import (
    BATCH_NUMBER,
    BOOKS,
    INSERTED_SQL,
    TABLE,
    WRITER,
    definitions,
)

ROLLED = "flow_rolled"
"""Which batches are in which roll-up."""
ROLL_RECORDS = 150_000
"""Of one roll, unless one batch has more: what the engine has in memory at once, 300 bytes each by
minute and 800 by hour, whose states are made before equal rows become one."""
ROLL_BATCHES = 500
"""Of one roll: its statement names them."""


def create_rolled(layout: TableLayout) -> str:
    """Write the CREATE TABLE of what was rolled: a row when a roll begins, one when it is done."""
    columns = (
        "intoTable LowCardinality(String), roll String, writer LowCardinality(String),"
        " insertedSeconds UInt32, batchNumber UInt16, done UInt8, changed DateTime"
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{ROLLED}{layout.everywhere} ({columns})"
        f" ENGINE = {layout.shared_merge_tree(ROLLED)}"
        " PARTITION BY toYYYYMM(toDateTime(insertedSeconds))"
        " ORDER BY (intoTable, insertedSeconds, writer, batchNumber, done)"
    )


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch of records that the store has, or will have."""

    batch_id: BatchId
    records: int
    first_s: int
    """The first of its records' flowEndSeconds."""
    last_s: int


@dataclass(frozen=True, slots=True)
class Roll:
    """Batches that become rows of a roll-up in one INSERT."""

    rollup: Rollup
    name: str
    """The same in every attempt."""
    batches: tuple[StoredBatch, ...]

    @property
    def records(self) -> int:
        """How many records it is of."""
        return sum(batch.records for batch in self.batches)

    @property
    def token(self) -> str:
        """By which the engine knows its repetition."""
        return f"{self.rollup.name}-{self.name}"


def roll_name(writer: str, number: int) -> str:
    """Return the name of a writer's roll, from which `Note.writer` has the writer."""
    return f"{writer}-{number}"


WHOLE_BLOCK: Mapping[str, int] = {
    "max_threads": 1,
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 1 << 40,
    "min_insert_block_size_bytes": 0,
    "optimize_on_insert": 1,
    "async_insert": 0,
}
"""Settings of a roll: its rows are one block, hence one part, which is there or is not."""


def roll_sql(layout: TableLayout, roll: Roll) -> str:
    """Write the INSERT SELECT of a roll, which has a batch at least."""
    columns = roll.rollup.columns
    values = ", ".join(column.sql for column in columns)
    where = _chosen(roll.batches)
    made_of = ", ".join(f"{sql} AS {name}" for name, sql in definitions(values).items())
    given = f"WITH {made_of} " if made_of else ""
    return (
        f"INSERT INTO {layout.database}.{roll.rollup.name}"
        f" ({', '.join(column.name for column in columns)})"
        f" {given}SELECT {values} FROM {layout.database}.{TABLE} WHERE {where}"
    )


def _chosen(batches: Sequence[StoredBatch]) -> str:
    """Return the condition of the batches' records, which reads few parts."""
    first_s = min(batch.first_s for batch in batches)
    last_s = max(batch.last_s for batch in batches)
    inserted = [batch.batch_id.inserted_s for batch in batches]
    by_writer: dict[str, list[str]] = {}
    for batch in batches:
        known = batch.batch_id
        by_writer.setdefault(known.writer, []).append(f"({known.inserted_s}, {known.number})")
    ids = " OR ".join(
        f"({WRITER} = {literal(writer)}"
        f" AND (toUInt32({INSERTED_SQL}), {BATCH_NUMBER}) IN ({', '.join(numbers)}))"
        for writer, numbers in by_writer.items()
    )
    return (
        f"flowEndSeconds BETWEEN toDateTime({first_s}) AND toDateTime({last_s})"
        f" AND toDate({INSERTED_SQL}) BETWEEN toDate(toDateTime({min(inserted)}))"
        f" AND toDate(toDateTime({max(inserted)})) AND ({ids})"
    )


def note_sql(layout: TableLayout, roll: Roll, *, done: bool) -> str:
    """Write the INSERT that notes a roll: that it begins, or that it is done."""
    batches = ", ".join(batch.batch_id.sql for batch in roll.batches)
    return (
        f"INSERT INTO {layout.database}.{ROLLED}"
        f" SELECT '{roll.rollup.name}', {literal(roll.name)}, id.1, id.2, id.3, {int(done)}, now()"
        f" FROM (SELECT arrayJoin([{batches}]) AS id)"
    )


SCAN_BATCHES = 50_000
"""Of one answer of `batches_sql`: what an aggregator remembers of them takes some 20 MB."""


_EVER: Mapping[str, int] = {}
"""Of when roll-ups begin: they keep all."""


def _rolled_ids(layout: TableLayout, begins: Mapping[str, int] = _EVER) -> str:
    """Write the SELECT of the batches that are in all roll-ups, as (second, hash of the rest).

    What was committed before a roll-up `begins` (s, by its name) need not be in it.
    """
    there = " AND ".join(
        f"(countIf(intoTable = '{rollup.name}') != 0"
        f" OR insertedSeconds < {begins.get(rollup.name, 0)})"
        for rollup in ROLLUPS
    )
    return (
        f"SELECT insertedSeconds, cityHash64(writer, batchNumber) AS known"
        f" FROM {layout.database}.{ROLLED} WHERE done = 1 GROUP BY insertedSeconds, known"
        f" HAVING {there}"
    )


def batches_sql(layout: TableLayout, since_s: int, begins: Mapping[str, int]) -> str:
    """Ask for the oldest batches of records that are not in all roll-ups; see `read_batches`.

    What was committed before a roll-up `begins` (s, by its name) is never in it, and not missed.
    """
    inserted = f"toUInt32({INSERTED_SQL})"
    since_s = max(since_s, min(begins.get(rollup.name, 0) for rollup in ROLLUPS))
    rolled = _rolled_ids(layout, begins)
    return (
        f"SELECT {WRITER}, {inserted} AS seconds, {BATCH_NUMBER}, count(),"
        " toUInt32(min(flowEndSeconds)), toUInt32(max(flowEndSeconds))"
        f" FROM {layout.database}.{TABLE} WHERE {inserted} >= {since_s}"
        f" AND toDate({INSERTED_SQL}) >= toDate(toDateTime({since_s}))"
        f" AND ({inserted}, cityHash64({WRITER}, {BATCH_NUMBER})) NOT IN ({rolled})"
        f" GROUP BY {WRITER}, seconds, {BATCH_NUMBER} ORDER BY seconds, {WRITER}, {BATCH_NUMBER}"
        f" LIMIT {SCAN_BATCHES}"
    )


def read_batches(rows: Iterable[Sequence[object]]) -> Iterator[StoredBatch]:
    """Yield what `batches_sql` found."""
    for writer, inserted_s, number, records, first_s, last_s in rows:
        batch_id = BatchId(str(writer), _int(inserted_s), _int(number))
        yield StoredBatch(batch_id, _int(records), _int(first_s), _int(last_s))


def rolled_until_sql(layout: TableLayout) -> str:
    """Ask when the last batch was committed (s) that is in all roll-ups; 0: none is."""
    return f"SELECT max(insertedSeconds) FROM ({_rolled_ids(layout)})"


def committed_sql(layout: TableLayout, stage: str, from_s: int, to_s: int) -> str:
    """Ask how many records the books say were stored within a span, from when, and until when."""
    return (
        "SELECT sum(records), min(toUInt32(time) - seconds), toUInt32(max(time))"
        f" FROM {layout.database}.{BOOKS} WHERE stage = '{stage}' AND what = '{What.SENT}'"
        f" AND records != 0 AND toUInt32(time) - seconds >= {from_s} AND toUInt32(time) <= {to_s}"
    )


def there_sql(layout: TableLayout, from_s: int, to_s: int) -> str:
    """Ask how many records there are of each batch that was committed in a span; see `read_there`.

    Seconds, the last of which is not of it.
    """
    inserted = f"toUInt32({INSERTED_SQL})"
    return (
        f"SELECT {WRITER}, {inserted} AS seconds, {BATCH_NUMBER}, count()"
        f" FROM {layout.database}.{TABLE} WHERE {inserted} >= {from_s} AND {inserted} < {to_s}"
        f" AND toDate({INSERTED_SQL}) BETWEEN toDate(toDateTime({from_s}))"
        f" AND toDate(toDateTime({to_s})) GROUP BY {WRITER}, seconds, {BATCH_NUMBER}"
    )


def read_there(rows: Iterable[Sequence[object]]) -> dict[BatchId, int]:
    """Return what `there_sql` found."""
    return {
        BatchId(str(writer), _int(inserted_s), _int(number)): _int(records)
        for writer, inserted_s, number, records in rows
    }


def rolled_sql(layout: TableLayout, since_s: int) -> str:
    """Ask what is noted of batches that are in some roll-up only; see `read_rolled`."""
    return (
        "SELECT intoTable, writer, insertedSeconds, batchNumber, argMax(roll, done), max(done),"
        f" toUInt32(max(changed)) FROM {layout.database}.{ROLLED}"
        f" WHERE insertedSeconds >= {since_s}"
        f" AND (insertedSeconds, cityHash64(writer, batchNumber)) NOT IN ({_rolled_ids(layout)})"
        " GROUP BY intoTable, writer, insertedSeconds, batchNumber"
    )


def strangers_sql(layout: TableLayout, writer: str, since_s: int, until_s: int) -> str:
    """Ask when somebody else committed last (s), in a span, what was rolled; 0: nobody did."""
    return (
        f"SELECT max(insertedSeconds) FROM {layout.database}.{ROLLED}"
        f" WHERE insertedSeconds BETWEEN {since_s} AND {until_s} AND writer != {literal(writer)}"
    )


def taken_sql(layout: TableLayout, roll: Roll) -> str:
    """Ask which batches of a roll are noted of others, and whether that is done; see `read_taken`.

    Of all batches of its moments.
    """
    moments = ", ".join(sorted({str(batch.batch_id.inserted_s) for batch in roll.batches}))
    return (
        f"SELECT writer, insertedSeconds, batchNumber, max(done) FROM {layout.database}.{ROLLED}"
        f" WHERE intoTable = '{roll.rollup.name}' AND insertedSeconds IN ({moments})"
        f" AND roll != {literal(roll.name)} GROUP BY writer, insertedSeconds, batchNumber"
    )


def read_taken(rows: Iterable[Sequence[object]]) -> dict[BatchId, bool]:
    """Return what `taken_sql` found."""
    return {
        BatchId(str(writer), _int(inserted_s), _int(number)): bool(_int(done))
        for writer, inserted_s, number, done in rows
    }


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted of a batch and a roll-up."""

    rollup: str
    batch_id: BatchId
    roll: str
    done: bool
    changed_s: int

    @property
    def writer(self) -> str:
        """Whose roll it is, which has all of its batches or none: in part it would be another."""
        return self.roll.rpartition("-")[0]


def read_rolled(rows: Iterable[Sequence[object]]) -> Iterator[Note]:
    """Yield what `rolled_sql` found."""
    for rollup, writer, inserted_s, number, roll, done, changed_s in rows:
        batch_id = BatchId(str(writer), _int(inserted_s), _int(number))
        yield Note(str(rollup), batch_id, str(roll), bool(_int(done)), _int(changed_s))


def _int(value: object) -> int:
    return int(str(value))
