"""The notes of what went: for lack of room, by its age before it was rolled up, by a TTL of then.

They are in the store, so that whoever asks it knows from when on all is there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.partitions import HOUR_S, Partition
from flowvis.clickhouse.schema.tables import TABLE

DROPPED = "flow_dropped"
"""What goes and what went for lack of room, so that the next process knows as well from when on all
is there; and what went by its age before it was rolled up."""
LENGTHENED_S = 600
"""What a table keeps for longer may still go for so long, until the engine has taken it over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that went before both roll-ups had them: no table has all that there was."""

    begin_s: int
    """They were committed from then on."""
    end_s: int
    """And before this."""
    records: int
    expired: bool = False
    """By their age, `clickHouse.ttl`; else for lack of room."""


class Outcome(StrEnum):
    """What a note says of rows."""

    GOES = "goes"
    """Noted before a drop: they may be gone."""
    WENT = "went"
    """Noted after it: they are."""
    STAYS = "stays"
    """The drop found them merged into another part, with which they go later."""
    EXPIRED = "expired"
    """They went by their age before they were rolled up: no drop, and no rows or bytes of one."""
    SHORTER = "shorter"
    """Since `end` the table keeps rows for longer; until then they went so long after their commit
    as `end` is after `begin`. By that the engine drops what was there also later."""
    LENGTHENED = "lengthened"
    """Noted after it: what was there is kept for as long as what comes."""


def create_dropped(layout: TableLayout) -> str:
    """Write the CREATE TABLE of what went; on a cluster all servers have the same."""
    return (
        f"CREATE TABLE IF NOT EXISTS {layout.database}.{DROPPED}{layout.everywhere}"
        " (fromTable String, begin DateTime, end DateTime, rows UInt64, bytes UInt64,"
        f" unrolled UInt64, dropped DateTime, {_columns(_ADDED, '')})"
        f" ENGINE = {layout.shared_merge_tree(DROPPED)}"
        " PARTITION BY toYYYYMM(dropped) ORDER BY (fromTable, end)"
    )


_ADDED = {"what": f"String DEFAULT '{Outcome.WENT}'", "key": "String"}
"""Columns that a program before this one did not have."""


def _columns(types: Mapping[str, str], change: str) -> str:
    return ", ".join(f"{change}{name} {kind}" for name, kind in types.items())


def extend_dropped(layout: TableLayout) -> str:
    """Write the ALTER TABLE of a table that lacks columns."""
    added = _columns(_ADDED, "ADD COLUMN IF NOT EXISTS ")
    return f"ALTER TABLE {layout.database}.{DROPPED}{layout.everywhere} {added}"


def dropped_columns_sql(database: str) -> str:
    """Ask how many columns the table has, 0 without it, and how many of these it lacks."""
    names = ", ".join(f"'{name}'" for name in _ADDED)
    return (
        f"SELECT count(), {len(_ADDED)} - countIf(name IN ({names})) FROM system.columns"
        f" WHERE database = '{database}' AND table = '{DROPPED}'"
    )


def note_sql(database: str, partition: Partition, outcome: Outcome) -> str:
    """Write the INSERT that notes what becomes of a partition."""
    one = partition
    return (
        f"INSERT INTO {database}.{DROPPED} ({_NOTE}) SELECT '{one.table}',"
        f" toDateTime({one.begin_s}), toDateTime({one.end_s}), toUInt64({one.rows}),"
        f" toUInt64({one.bytes}), toUInt64({one.unrolled}), now(), '{outcome}', '{one.key}'"
    )


_NOTE = ", ".join(("fromTable, begin, end, rows, bytes, unrolled, dropped", *_ADDED))


def note_expired_sql(database: str, lost: Iterable[Lost]) -> str:
    """Write the INSERT that notes what went by its age, of which there is something."""
    each = ", ".join(f"({one.begin_s}, {one.end_s}, {one.records})" for one in lost)
    return (
        f"INSERT INTO {database}.{DROPPED} ({_NOTE}) SELECT '{TABLE}', toDateTime(one.1),"
        f" toDateTime(one.2), toUInt64(0), toUInt64(0), toUInt64(one.3), now(),"
        f" '{Outcome.EXPIRED}', '' FROM (SELECT arrayJoin([{each}]) AS one)"
    )


def note_shorter_sql(database: str, table: str, kept_s: int) -> str:
    """Write the INSERT that notes how long a table has kept its rows, before it keeps longer."""
    return (
        f"INSERT INTO {database}.{DROPPED} ({_NOTE}) SELECT '{table}',"
        f" toDateTime(toUInt32(now()) - {kept_s}), now(), toUInt64(0), toUInt64(0), toUInt64(0),"
        f" now(), '{Outcome.SHORTER}', ''"
    )


def note_lengthened_sql(database: str, table: str) -> str:
    """Write the INSERT that notes that what a table has is kept for as long as what comes."""
    columns = "fromTable, begin, end, rows, bytes, unrolled"
    return (
        f"INSERT INTO {database}.{DROPPED} ({_NOTE}) SELECT {columns}, now(),"
        f" '{Outcome.LENGTHENED}', key FROM {database}.{DROPPED}"
        f" WHERE fromTable = '{table}' AND what = '{Outcome.SHORTER}'"
    )


def _went_by_age(database: str) -> str:
    """Write the SELECT of what went by TTLs that were made longer since: name, before when (s)."""
    begin, end = "toInt64(toUInt32(begin))", "toInt64(toUInt32(end))"
    return (
        f"SELECT fromTable, least({end}, if(countIf(what = '{Outcome.LENGTHENED}') > 0,"
        f" {begin} + {LENGTHENED_S}, toInt64(toUInt32(now())) - ({end} - {begin}))) AS before_s,"
        f" toInt64(0) AS at_s FROM {database}.{DROPPED}"
        f" WHERE what IN ('{Outcome.SHORTER}', '{Outcome.LENGTHENED}')"
        " GROUP BY fromTable, begin, end"
    )


def _gone(database: str) -> str:
    """Write the SELECT of what went or may have, each once, however many tried it how often.

    Of a drop whose end nobody noted nobody knows: then it counts.
    """
    said = {each: f"countIf(what = '{each}')" for each in Outcome}
    return (
        "SELECT fromTable, begin, end, unrolled, max(dropped) AS at,"
        f" {said[Outcome.EXPIRED]} > 0 AS expired FROM {database}.{DROPPED}"
        " GROUP BY fromTable, begin, end, rows, bytes, unrolled, key"
        f" HAVING expired OR {said[Outcome.WENT]} > 0"
        f" OR {said[Outcome.GOES]} > {said[Outcome.STAYS]}"
    )


def dropped_sql(database: str) -> str:
    """Ask what each table lacks: name, before which moment (s), and how long ago (s) it went.

    In 1970 where it only went by its age, before a TTL was made longer.
    """
    return (
        "SELECT fromTable, max(before_s), toInt64(toUInt32(now())) - max(at_s) FROM ("
        "SELECT fromTable, toInt64(toUInt32(end)) AS before_s, toInt64(toUInt32(at)) AS at_s"
        f" FROM ({_gone(database)}) WHERE NOT expired"
        f" UNION ALL {_went_by_age(database)}) GROUP BY fromTable"
    )


def lost_sql(database: str) -> str:
    """Ask which records went that no roll-up has, by hour and why; see `read_lost`."""
    return (
        f"SELECT toUInt32(min(begin)), toUInt32(max(end)), sum(unrolled), expired"
        f" FROM ({_gone(database)}) WHERE fromTable = '{TABLE}' AND unrolled != 0"
        f" GROUP BY intDiv(toUInt32(begin), {HOUR_S}), expired ORDER BY min(begin), expired"
    )


def read_lost(rows: Iterable[Sequence[Any]]) -> Iterator[Lost]:
    """Yield what `lost_sql` found."""
    for begin, end, records, expired in rows:
        yield Lost(int(begin), int(end), int(records), bool(int(expired)))
