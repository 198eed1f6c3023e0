"""What of a store goes first when its disk fills: whole partitions, the oldest of records first.

Dropping a partition needs no room; a mutation, or a TTL that rewrites parts, does, when there is
least of it. So what can be kept is as fine as partitions are: hours of records (days in tables that
an older program made), days of roll-ups and books.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, StoredBatch
from flowvis.clickhouse.schema.tables import BOOKS, TABLE

DROPPED = "flow_dropped"
"""What went for lack of room, so that the next process knows as well from when on all is there."""
NEWEST_S = 3600
"""What was committed within so long is never dropped."""
HOUR_S = 3600
WATCHED = (TABLE, MINUTES.name, HOURS.name, BOOKS)
"""The tables that grow, in the order in which they are given up."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a table that can be dropped at once."""

    table: str
    key: str
    """By which the engine knows it."""
    begin_s: int
    """Its rows were committed from then on."""
    end_s: int
    """And before this."""
    rows: int
    bytes: int
    unrolled: int = 0
    """Records that no roll-up has, or not both."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that parts of the store are on."""

    name: str
    free: int
    total: int

    @property
    def used(self) -> int:
        """Bytes that are not to be had."""
        return max(self.total - self.free, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much room a store may take."""

    threshold: float = 0.9
    """Of the disk, and of `max_bytes`: above it something goes."""
    share: float = 0.1
    """Of the store's bytes: so much goes at once, at the least."""
    max_bytes: int = 0
    """The store's own size; 0: as the disk has."""


@dataclass(frozen=True, slots=True)
class Excess:
    """What is too much."""

    bytes: int = 0
    """That have to go; 0: all is well, or nothing of the store would help."""
    why: str = ""
    foreign: bool = False
    """Others fill the disk, so that it is too full even without the store."""


def excess(limits: Limits, own: int, disks: Sequence[Disk]) -> Excess:
    """Say how many bytes are too many, of a store that has `own` of them."""
    found = [Excess()]
    least = round(own * limits.share)
    if limits.max_bytes and (over := own - int(limits.max_bytes * limits.threshold)) > 0:
        part = own / limits.max_bytes
        why = f"the store has {part:.0%} of clickHouse.monitor.storageSize"
        found.append(Excess(max(over, least), why))
    for disk in disks:
        over = disk.used - int(disk.total * limits.threshold)
        if over <= 0 or not disk.total:
            continue
        why = f"disk {disk.name} is {disk.used / disk.total:.0%} full"
        if over >= own:
            found.append(Excess(0, f"{why}, and not with flows: free some of it", foreign=True))
        else:
            found.append(Excess(max(over, least), why))
    return max(found, key=lambda each: (each.bytes, each.foreign))


def with_unrolled(
    partitions: Iterable[Partition], batches: Sequence[StoredBatch], most: int
) -> Iterator[Partition]:
    """Add how many records of each partition no roll-up has.

    `batches` are the oldest that are not in all roll-ups. If there are `most` of them, there may be
    more: of anything later nobody knows that it was rolled.
    """
    known_s = batches[-1].batch_id.inserted_s if len(batches) >= most else None
    for each in partitions:
        unrolled = sum(
            batch.records
            for batch in batches
            if each.begin_s <= batch.batch_id.inserted_s < each.end_s
        )
        if known_s is not None and each.end_s > known_s:
            unrolled = each.rows
        if each.table == TABLE and unrolled:
            yield replace(each, unrolled=unrolled)
        else:
            yield each


def choose(partitions: Iterable[Partition], needed: int, now_s: int) -> list[Partition]:
    """Return what is to be dropped for `needed` bytes, in order; less where there is no more.

    Records that the roll-ups have come first, then minutes, hours, and the books of what is gone
    altogether; records that no roll-up has are last. Each from its oldest on, and nothing that was
    committed in the newest hour.
    """
    there = sorted(partitions, key=lambda each: each.end_s)
    old = [each for each in there if each.end_s <= now_s - NEWEST_S]

    def of(table: str) -> list[Partition]:
        return [each for each in old if each.table == table and not each.unrolled]

    chosen: list[Partition] = []
    unrolled = [each for each in old if each.unrolled]
    order = [*of(TABLE), *of(MINUTES.name), *of(HOURS.name), *of(BOOKS), *unrolled]
    for each in order:
        if sum(one.bytes for one in chosen) >= needed:
            break
        if each.table == BOOKS:
            left = (one for one in there if one.table != BOOKS and one not in chosen)
            if any(one.begin_s < each.end_s for one in left):
                continue
        chosen.append(each)
    return chosen


def partitions_sql(database: str) -> str:
    """Ask for the partitions; see `read_partitions`. Days are those of the server's time zone."""
    tables = ", ".join(f"'{name}'" for name in WATCHED)
    day = (
        "toDate(concat(substring(partition_id, 1, 4), '-', substring(partition_id, 5, 2), '-',"
        " substring(partition_id, 7, 2)))"
    )
    return (
        f"SELECT table, partition_id, toUInt32(toDateTime({day})),"
        f" toUInt32(toDateTime({day} + 1)), sum(rows), sum(bytes_on_disk) FROM system.parts"
        f" WHERE database = '{database}' AND table IN ({tables}) AND active"
        " GROUP BY table, partition_id"
    )


def read_partitions(rows: Iterable[Sequence[object]]) -> Iterator[Partition]:
    """Yield what `partitions_sql` found."""
    for table, key, begin, end, count, size in rows:
        begin_s, end_s = _int(begin), _int(end)
        _, _, hour = str(key).partition("-")
        if hour:
            begin_s = int(hour) * HOUR_S
            end_s = begin_s + HOUR_S
        yield Partition(str(table), str(key), begin_s, end_s, _int(count), _int(size))


def disks_sql(database: str) -> str:
    """Ask for the disks that the database is on; see `read_disks`."""
    ours = f"SELECT disk_name FROM system.parts WHERE database = '{database}'"
    return f"SELECT name, free_space, total_space FROM system.disks WHERE name IN ({ours})"


def read_disks(rows: Iterable[Sequence[object]]) -> Iterator[Disk]:
    """Yield what `disks_sql` found."""
    for name, free, total in rows:
        yield Disk(str(name), _int(free), _int(total))


def drop_sql(database: str, partition: Partition) -> str:
    """Write the ALTER TABLE that drops a partition; one that is gone is no error."""
    return f"ALTER TABLE {database}.{partition.table} DROP PARTITION ID '{partition.key}'"


def create_dropped(database: str) -> str:
    """Write the CREATE TABLE of what went."""
    return (
        f"CREATE TABLE IF NOT EXISTS {database}.{DROPPED} (fromTable String, begin DateTime,"
        " end DateTime, rows UInt64, bytes UInt64, unrolled UInt64, dropped DateTime)"
        " ENGINE = MergeTree PARTITION BY toYYYYMM(dropped) ORDER BY (fromTable, end)"
    )


def note_sql(database: str, partition: Partition) -> str:
    """Write the INSERT that notes that a partition goes."""
    one = partition
    return (
        f"INSERT INTO {database}.{DROPPED} SELECT '{one.table}', toDateTime({one.begin_s}),"
        f" toDateTime({one.end_s}), toUInt64({one.rows}), toUInt64({one.bytes}),"
        f" toUInt64({one.unrolled}), now()"
    )


def begins_sql(database: str) -> str:
    """Ask before which moment each table lacks something; rows of name and seconds."""
    return f"SELECT fromTable, toUInt32(max(end)) FROM {database}.{DROPPED} GROUP BY fromTable"


def _int(value: object) -> int:
    return int(str(value))
