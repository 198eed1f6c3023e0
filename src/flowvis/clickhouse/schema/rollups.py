"""The roll-ups `flow_minutes` and `flow_hours`: sums of records by who, what and when.

A row has the sums of the records that agree in all dimensions and in the minute or hour of their
`flowEndSeconds`, which is its `time`. Minutes have what adds up; hours also the peak and the
distinct ends, which cost most and are asked of long spans (`rolled_columns`).

Records become rows batch by batch (`rolls`). Partitions are days of insertion, as hours of it are
those of the records: whatever times exporters claim, a batch is of one partition, and each table
loses whole days.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.projections import PROJECTIONS, REPLACED, Projection, settings
from flowvis.clickhouse.schema.rolled_columns import (
    DIMENSIONS,
    END_NUMBERS,
    INSERTED_DAY,
    OTHERS,
    SUMS,
    TIME,
    Column,
)
from flowvis.clickhouse.schema.tables import INSERTED_SQL, TABLE, definitions, kept


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
            more=[LARGE_BLOCKS, *(settings(features) if projections else ())],
        ),
    ]  # fmt: skip
    return "\n".join(parts)


LARGE_BLOCKS = "min_compress_block_size = 1048576"
"""Of what is compressed at once: whole spans are read, and the same ends come again for each that
talks to them."""


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
        for setting in (settings(features) if rollup.projections else ())
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


def over_all(layout: TableLayout, rollup: Rollup) -> str:
    """Write the CREATE TABLE of what shows all servers' rows."""
    own = f"{layout.database}.{layout.own(rollup.name)}"
    engine = layout.distributed(rollup.name, SHARD_BY)
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{rollup.name}{layout.everywhere}"
        f" AS {own} ENGINE = {engine}"
    )


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
