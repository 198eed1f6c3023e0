"""The roll-ups `flow_minutes` and `flow_hours`: sums of records by who, what and when.

A row has the sums of the records that agree in all dimensions and in the minute or hour of their
`flowEndSeconds`, which is its `time`. Minutes have what adds up; hours also the peak and the
distinct ends, which cost most and are asked of long spans. A dimension has the name, type and
meaning that it has in `flow_records`, so conditions over it are the same.

Records become rows batch by batch. A *roll* is the INSERT SELECT of some batches into one roll-up,
under a token that makes its repetition harmless. It does no grouping: a record becomes a row of
which the engine, as it sorts them, makes one for each key (`optimize_on_insert`). That is a quarter
of what GROUP BY costs, whose keys would be texts. Which batches are of a roll is stored before it
(`flow_rolled`), so that whoever goes on after a kill repeats the very same one; and that it is
there is stored after it. So each batch is in each roll-up once.

Partitions are days of insertion, as hours of it are those of the records: whatever times exporters
claim, a batch is of one partition, and each table loses whole days.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flowvis.clickhouse.schema.books import What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.ends import (
    ENDS,
    NAMED_BY_POD,
    NUMBERS,
    end_number_sql,
    kept_sql,
    kind_sql,
    node_sql,
)
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.tables import (
    BATCH_NUMBER,
    BEGAN_DENIED_SQL,
    BOOKS,
    COLUMNS,
    ENDED_SQL,
    FIRST_RECORD,
    INSERTED_SQL,
    MISSED_SQL,
    TABLE,
    WRITER,
    definitions,
    end_sql,
    kept,
)

ROLLED = "flow_rolled"
"""Which batches are in which roll-up."""
TIME = "time"
INSERTED_DAY = "inserted"

ROLL_RECORDS = 150_000
"""Of one roll, unless one batch has more: what the engine has in memory at once, 300 bytes each by
minute and 800 by hour, whose states are made before equal rows become one."""
ROLL_BATCHES = 500
"""Of one roll: its statement names them."""


_REPEATED = "ZSTD(7)"
"""Of dimensions: in the order of the rows they are repetitions, of which higher levels find more
at no cost that could be measured; of sums they find none."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a roll-up."""

    name: str
    type: str
    sql: str
    """Of a record, over the columns of `flows`."""
    meaning: str
    codec: str = _REPEATED
    """As the server shows it."""
    dividing: str = ""
    """The codec where the server knows GCD; "": the same."""
    default: str = ""
    """What it is of rows from before it was there; "": nothing."""

    def codec_of(self, features: Features) -> str:
        """The compression codecs that it has on a server."""
        return self.dividing if self.dividing and features.divides else self.codec

    def ddl(self, features: Features) -> str:
        """The column in CREATE TABLE, ADD COLUMN and MODIFY COLUMN."""
        default = f" DEFAULT {self.default}" if self.default else ""
        return f"{self.name} {self.type}{default} CODEC({self.codec_of(features)})"


def outside_sql(end: str) -> str:
    """Return whether an end (source, destination) is outside of the cluster, so far as is known."""
    return f"{end}PodName = '' AND {end}NodeName = ''"


NETWORK_BITS = {4: 24, 6: 48}
"""Of an address outside: what is kept of it, by version."""
_MAPPED = "unhex('00000000000000000000FFFF')"


def network_sql(end: str) -> str:
    """Return the network of an end that is outside, 16 bytes: /24 (mapped) or /48; else zeros."""
    address = f"{end}IPBytes"
    v4, v6 = 12 + NETWORK_BITS[4] // 8, NETWORK_BITS[6] // 8
    octets = f"if(substring({address}, 1, 12) = {_MAPPED}, {v4}, {v6})"
    return f"toFixedString(if({outside_sql(end)}, substring({address}, 1, {octets}), ''), 16)"


def _dimension(name: str) -> Column:
    stored = next(column for column in COLUMNS if column.name == name)
    return Column(name, stored.type, name, stored.field.doc if stored.field else "")


def _network(end: str) -> Column:
    meaning = f"Network of the {end} where that is outside of the cluster (/24, /48); else zeros"
    return Column(f"{end}NetworkBytes", "FixedString(16)", network_sql(end), meaning)


_POLICIES = tuple(
    f"{way}NetworkPolicy{what}"
    for way in ("ingress", "egress")
    for what in ("Name", "Namespace", "RuleName", "RuleAction", "Type")
)

# In the order in which rows are sorted: what decides most of the rest comes first.
_NAMES = (
    "sourcePodNamespace", "sourceWorkloadName", "sourcePodName", "sourceNodeName",
    "destinationPodNamespace", "destinationWorkloadName", "destinationPodName",
    "destinationNodeName", "destinationTransportPort", "protocolIdentifier",
    "destinationServicePortName", "destinationServicePort", "sourceWorkloadKind",
    "destinationWorkloadKind", "flowType", "clusterUUID",
    *_POLICIES,
    "egressName", "egressNodeName",
    "sourceZone", "destinationZone", "sourceRegion", "destinationRegion",
)  # fmt: skip
DIMENSIONS: tuple[Column, ...] = (
    *map(_dimension, _NAMES),
    _network("source"),
    _network("destination"),
)
"""What both roll-ups tell records apart by, beside the time. New ones go to the end."""

END_NUMBERS: tuple[Column, ...] = tuple(
    Column(
        NUMBERS[end], "SimpleAggregateFunction(any, UInt64)", NUMBERS[end],
        f"Number of the {end} by its workload, else its Pod; else by what it is",
        default=end_number_sql(end),
    )
    for end in ENDS
)  # fmt: skip
"""What follows from dimensions, and takes a question a third of its time to work out."""

_NUMBER = "T64, ZSTD(1)"


def _sum(name: str, sql: str, meaning: str) -> Column:
    return Column(name, "SimpleAggregateFunction(sum, UInt64)", sql, meaning, _NUMBER)


def _count(name: str, condition: str, meaning: str) -> Column:
    return _sum(name, f"toUInt64({condition})", meaning)


def _ends(end: str) -> Column:
    return Column(
        f"{end}s",
        "AggregateFunction(uniqExact, UInt64)",
        f"initializeAggregation('uniqExactState', {end_sql(end)})",
        f"Distinct {end}s: Pods, and addresses of what is no Pod (`uniqExactMerge`)",
    )


SUMS: tuple[Column, ...] = (
    *(
        _sum(name, name, f"{what} from {way}")
        for name, what, way in (
            ("octetDeltaCount", "Bytes of IP packets", "source to destination"),
            ("reverseOctetDeltaCount", "Bytes of IP packets", "destination to source"),
            ("packetDeltaCount", "Packets", "source to destination"),
            ("reversePacketDeltaCount", "Packets", "destination to source"),
        )
    ),
    _count("records", "1", "Flow records"),
    _count("connections", FIRST_RECORD, "Connections begun"),
    _count("ended", ENDED_SQL, "Connections that ended"),
    _count("denied", BEGAN_DENIED_SQL, "Connections begun that a policy denied"),
    _count(
        "unanswered",
        MISSED_SQL,
        "Connections that ended without any packet back, not counting those that a policy denied",
    ),
)
"""Measures that add up (`sum`)."""

OTHERS: tuple[Column, ...] = (
    Column(
        "peakThroughput",
        "SimpleAggregateFunction(max, UInt64)",
        "throughput",
        "Highest throughput of a single connection, bits/s (`max`)",
        _NUMBER,
    ),
    _ends("source"),
    _ends("destination"),
)
"""Measures that do not."""


@dataclass(frozen=True, slots=True)
class Projection:
    """The sums of a roll-up by some of its dimensions, which the engine keeps within each part.

    It takes them by itself for a question that groups and filters by nothing else. Values are its
    keys, which cost far less to read than states: it has no aggregate that chooses one of them.
    """

    name: str
    values: tuple[str, ...]
    """SQL over dimensions, by which rows are told apart."""
    time: str = TIME

    @property
    def ddl(self) -> str:
        """The projection in CREATE TABLE and ADD."""
        keys = ", ".join([self.time, *self.values])
        sums = ", ".join(f"sum({each.name})" for each in SUMS)
        return f"PROJECTION {self.name} (SELECT {keys}, {sums} GROUP BY {keys})"


DAY_S = 86_400
DAY = f"intDiv(toUInt32({TIME}), {DAY_S})"
"""SQL of the number of a row's day, of UTC."""

_BY_HOUR = (
    Projection(
        "pairs",
        (
            "clusterUUID",
            *(f"{end}{what}" for end in ENDS
              for what in ("PodNamespace", "WorkloadName", "WorkloadKind")),
            "destinationServicePortName",
            "flowType",
            *map(kind_sql, ENDS),
            *NUMBERS.values(),
            *(kept_sql(*each) for each in NAMED_BY_POD.items()),
            *(kept_sql(f"{end}NodeName", node_sql(end)) for end in ENDS),
        ),
    ),
    Projection(
        "policies",
        ("clusterUUID", *(f"{end}PodNamespace" for end in ENDS), "flowType", *_POLICIES),
    ),
)  # fmt: skip
_BY_DAY = (
    *(replace(each, name=f"{each.name}_by_day", time=DAY) for each in _BY_HOUR),
    Projection("by_day", tuple(each.name for each in (*DIMENSIONS, *END_NUMBERS)), time=DAY),
)
PROJECTIONS: tuple[Projection, ...] = (*_BY_DAY, *_BY_HOUR)
"""Of the roll-up by hour: who with whom, and let through or stopped by what. A Pod or a node has
its name only where nothing else names the end; so each has a fifth of the rows. The same ends meet
hour after hour, so by day there are far fewer: a tenth of the rows even where nothing is left out.
"""
REPLACED = ("workloads", "conversations", "conversations_by_day")
"""Projections of programs before this one."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """One of the two tables."""

    name: str
    step_s: int
    measures: tuple[Column, ...]
    order: tuple[str, ...]
    """What rows are sorted by before the dimensions."""
    option: str
    """That says how long it is kept."""
    projections: tuple[Projection, ...] = ()

    @property
    def time(self) -> Column:
        """The column of the minute or hour, of UTC whatever the server's time zone."""
        seconds = f"intDiv(toUInt32(flowEndSeconds), {self.step_s}) * {self.step_s}"
        column = Column(
            TIME, "DateTime", f"toDateTime({seconds})", "Start of the minute or hour, of UTC"
        )
        if self.order == (TIME,):  # one hour after the other: nothing reads that faster
            return column
        return replace(column, codec="Delta(4), ZSTD(1)", dividing="GCD, DoubleDelta, ZSTD(1)")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column, in the order of the table."""
        day = Column(INSERTED_DAY, "Date", f"toDate({INSERTED_SQL})", "Day of the records' commit")
        return (self.time, *DIMENSIONS, *END_NUMBERS, *self.measures, day)

    def start_s(self, time_s: int) -> int:
        """Return the start of the minute or hour that a time is of."""
        return time_s - time_s % self.step_s


MINUTES = Rollup(
    "flow_minutes",
    60,
    SUMS,
    ("toStartOfHour(time)",),
    "clickHouse.minutes.ttl",
)
HOURS = Rollup("flow_hours", 3600, (*SUMS, *OTHERS), (TIME,), "clickHouse.hours.ttl", PROJECTIONS)
ROLLUPS: tuple[Rollup, ...] = (MINUTES, HOURS)
BY_NAME: Mapping[str, Rollup] = {rollup.name: rollup for rollup in ROLLUPS}

SHARD_BY = (
    "cityHash64(sourcePodNamespace, sourceWorkloadName, destinationPodNamespace,"
    " destinationWorkloadName)"
)


def create(layout: TableLayout, features: Features, rollup: Rollup, ttl_s: int) -> str:
    """Write the CREATE TABLE; `ttl_s` 0 keeps rows for ever."""
    name = layout.own(rollup.name)
    projections = rollup.projections if features.projections else ()
    columns = ",\n    ".join(
        [
            *(column.ddl(features) for column in rollup.columns),
            *(each.ddl for each in projections),
        ]
    )
    order = _order(rollup)
    parts = [
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{name}{layout.everywhere}",
        f"(\n    {columns}\n)",
        f"ENGINE = {layout.aggregating_merge_tree(name)}",
        f"PARTITION BY {INSERTED_DAY}",
        f"PRIMARY KEY ({', '.join(order[:4])})",
        f"ORDER BY ({', '.join(order)})",
        *kept(
            layout, features, ttl_sql(ttl_s) if ttl_s else "", whole_parts=True,
            more=[LARGE_BLOCKS, *(of_projections(features) if projections else ())],
        ),
    ]  # fmt: skip
    return "\n".join(parts)


LARGE_BLOCKS = "min_compress_block_size = 1048576"
"""Of what is compressed at once: whole spans are read, and the same ends come again for each that
talks to them."""


QUIET_S = 3 * 3600
"""What of a day was rolled that long ago has all of it: what is later is merged once more."""


def of_projections(features: Features) -> tuple[str, ...]:
    """Return the settings of a table that has projections.

    They are made anew when rows of one key become one; their sums have no codec else. They are not
    made for what is inserted, where that can be left to its first merge: it comes soon, and most of
    what one of them costs is spent on a roll's own rows, which the next merge makes fewer of. A day
    that is over becomes one part (`whole_days`).
    """
    merged = (
        "materialize_projections_on_insert = 0",
        "materialize_projections_on_merge = 1",
    )
    return (
        "deduplicate_merge_projection_mode = 'rebuild'",
        "default_compression_codec = 'ZSTD(1)'",
        f"min_age_to_force_merge_seconds = {QUIET_S}",
        "min_age_to_force_merge_on_partition_only = 1",
        *(merged if features.merges_projections else ()),
    )


def change_projections(
    layout: TableLayout, features: Features, rollup: Rollup, existing: str
) -> Iterator[str]:
    """Yield the ALTER TABLEs after which an older program's table has the projections of now.

    `existing` is its CREATE TABLE. What is there does not get them: it is read without.
    """
    missing = [one for one in rollup.projections if f"PROJECTION {one.name} " not in existing]
    table = f"ALTER TABLE {layout.database}.{layout.own(rollup.name)}{layout.everywhere}"
    lacking = [
        setting
        for setting in (of_projections(features) if rollup.projections else ())
        if setting.split(" ", 1)[0] not in existing
    ]
    if lacking:
        yield f"{table} MODIFY SETTING {', '.join(lacking)}"
    for name in REPLACED:
        if f"PROJECTION {name} " in existing:
            yield f"{table} DROP PROJECTION IF EXISTS {name}"
    for one in missing:
        yield f"{table} ADD {one.ddl.replace('PROJECTION', 'PROJECTION IF NOT EXISTS', 1)}"


_BEFORE_TIME = "destinationServicePort"
"""The dimension after which rows are sorted by time: few differ in what follows."""


def _order(rollup: Rollup) -> list[str]:
    names = [column.name for column in DIMENSIONS]
    if TIME not in rollup.order:
        names.insert(names.index(_BEFORE_TIME) + 1, TIME)
    return [*rollup.order, *names]


_BEFORE = {
    "CODEC(ZSTD(1))",
    "CODEC(Delta(4), ZSTD(1))",
    "CODEC(GCD, DoubleDelta, ZSTD(1))",
}
"""What programs before this one had of what has another codec now."""


def compress(
    layout: TableLayout,
    features: Features,
    rollup: Rollup,
    existing: str,
    codecs: Mapping[str, str],
) -> Iterator[str]:
    """Yield the ALTER TABLEs after which what is written is compressed as in a new table.

    `existing` is its CREATE TABLE, `codecs` has the codec of each of its columns, as the server
    shows it. What is there is compressed anew as it is merged. What somebody chose is left alone.
    """
    table = f"ALTER TABLE {layout.database}.{layout.own(rollup.name)}{layout.everywhere}"
    if LARGE_BLOCKS.split(" ", 1)[0] not in existing:
        yield f"{table} MODIFY SETTING {LARGE_BLOCKS}"
    changes = [
        f"MODIFY COLUMN {column.ddl(features)}"
        for column in rollup.columns
        if codecs.get(column.name) in _BEFORE
        and codecs[column.name] != f"CODEC({column.codec_of(features)})"
    ]
    if changes:
        yield f"{table} {', '.join(changes)}"


def add_columns(
    layout: TableLayout, features: Features, rollup: Rollup, existing: Iterable[str]
) -> str:
    """Write the ALTER TABLE that adds what an older program's table lacks; "": nothing.

    Rows are told apart by new dimensions as well, which are empty in those that are there.
    """
    known = set(existing)
    missing = [column for column in rollup.columns if column.name not in known]
    if not missing:
        return ""
    changes = [f"ADD COLUMN {column.ddl(features)}" for column in missing]
    if any(column in DIMENSIONS for column in missing):
        changes.append(f"MODIFY ORDER BY ({', '.join(_order(rollup))})")
    table = f"{layout.database}.{layout.own(rollup.name)}{layout.everywhere}"
    return f"ALTER TABLE {table} {', '.join(changes)}"


def ttl_sql(ttl_s: int) -> str:
    """Return the moment at which the rows of a day go."""
    return f"toDateTime({INSERTED_DAY} + 1) + toIntervalSecond({ttl_s})"


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


def over_all(layout: TableLayout, rollup: Rollup) -> str:
    """Write the CREATE TABLE of what shows all servers' rows."""
    own = f"{layout.database}.{layout.own(rollup.name)}"
    engine = layout.distributed(rollup.name, SHARD_BY)
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{rollup.name}{layout.everywhere}"
        f" AS {own} ENGINE = {engine}"
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


def sums_sql(layout: TableLayout, table: str, from_s: int, to_s: int) -> str:
    """Ask for the sums of a span of whole steps, of records or of a roll-up, in order of SUMS."""
    names = [column.name for column in SUMS]
    if table == TABLE:
        time, summed = "flowEndSeconds", [column.sql for column in SUMS]
    else:
        time, summed = TIME, names
    values = ", ".join(f"sum({sql})" for sql in summed)
    made_of = ", ".join(f"{sql} AS {name}" for name, sql in definitions(values).items())
    given = f"WITH {made_of} " if made_of else ""
    return (
        f"{given}SELECT {values} FROM {layout.database}.{table}"
        f" WHERE {time} >= toDateTime({from_s}) AND {time} < toDateTime({to_s})"
    )


def documentation() -> str:
    """Return the columns as a Markdown table."""
    lines = ["| Column | Type | In | Meaning |", "|---|---|---|---|"]
    minutes = {column.name for column in MINUTES.columns}
    for column in HOURS.columns:
        where = "both" if column.name in minutes else "hours"
        lines.append(f"| {column.name} | {column.type} | {where} | {column.meaning} |")
    return "\n".join(lines) + "\n"
