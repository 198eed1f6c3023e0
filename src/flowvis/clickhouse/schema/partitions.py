"""What of a store goes first when its disk fills: whole partitions, the oldest of records first.

Dropping a partition needs no room; a mutation, or a TTL that rewrites parts, does, when there is
least of it. So what can be kept is as fine as partitions are: hours of records (days in tables that
an older program made), days of roll-ups and books. Only where a disk does not hold the newest hour
parts of it go: an engine that has no room to merge in has small ones.

On a cluster each server has a disk of its own, and a part of all records. What the fullest one has
to give up goes on all of them, so that what is there is as old everywhere.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate

from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolled_columns import TIME
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS
from flowvis.clickhouse.schema.tables import BOOKS, INSERTED_SQL, TABLE

DROPPED = "flow_dropped"
"""What goes and what went for lack of room, so that the next process knows as well from when on all
is there; and what went by its age before it was rolled up."""
NEWEST_S = 3600
"""What was committed within so long stays, unless it alone fills the disk."""
LEAST_S = 300
"""What was committed within so long is never dropped."""
HOUR_S = 3600
LENGTHENED_S = 600
"""What a table keeps for longer may still go for so long, until the engine has taken it over."""
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
    part: bool = False
    """It is a part of a partition, by its name."""

    @property
    def known(self) -> tuple[str, str]:
        """What names it in a database."""
        return self.table, self.key

    @property
    def within(self) -> tuple[str, str]:
        """What names the partition that it is, or that it is a part of."""
        return self.table, self.key.partition("_")[0] if self.part else self.key


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
class Server:
    """What one server has of a store."""

    shard: str
    """Whose servers have the same; "" for the only one."""
    name: str
    partitions: tuple[Partition, ...] = ()
    disks: tuple[Disk, ...] = ()
    replaced: int = 0
    """Bytes that merges have put into other parts, and the engine deletes within minutes."""

    @property
    def bytes(self) -> int:
        """What its partitions take."""
        return sum(each.bytes for each in self.partitions)

    def said(self, text: str) -> str:
        """Put its name before something that is said of it."""
        return f"server {self.name} of shard {self.shard}: {text}" if self.shard else text


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
    urgent: bool = False
    """Nothing will fit in soon: also of the newest hour something has to go."""


def excess(
    limits: Limits,
    own: int,
    disks: Sequence[Disk],
    replaced: int = 0,
    *,
    full: bool = False,
    dropped: bool = False,
) -> Excess:
    """Say how many bytes are too many, of a store that has `own` of them.

    `replaced` bytes more are going to be given back, unless the disk is full before; soon, if they
    are of what was just `dropped`. From halfway between the threshold and a full disk on it is
    urgent, or when the engine says that it is `full`.
    """
    found = [Excess()]
    least = round(own * limits.share)
    if limits.max_bytes and (over := own - int(limits.max_bytes * limits.threshold)) > 0:
        part = own / limits.max_bytes
        why = f"the store has {part:.0%} of clickHouse.monitor.storageSize"
        found.append(Excess(max(over, least), why))
    for disk in disks:
        left = disk.used - (replaced if dropped else 0)
        urgent = full or left > disk.total * (1 + limits.threshold) / 2
        over = disk.used - int(disk.total * limits.threshold) - (0 if urgent else replaced)
        if full and disk.used > disk.total / 2:  # a commit needs room for it uncompressed
            over = max(over, least)
        if over <= 0 or not disk.total:
            continue
        why = f"disk {disk.name} is {disk.used / disk.total:.0%} full"
        if over >= own + replaced:
            found.append(Excess(0, f"{why}, and not with flows: free some of it", foreign=True))
        else:
            found.append(Excess(max(over, least), why, urgent=urgent))
    return max(found, key=lambda each: (each.urgent, each.bytes, each.foreign))


def whole(servers: Sequence[Server]) -> dict[tuple[str, str], Partition]:
    """Return the partitions of all servers, each with what all shards have of it together.

    Replicas of a shard have the same, but for what one has yet to fetch.
    """
    by_shard: dict[tuple[str, str], dict[str, Partition]] = {}
    for server in servers:
        for each in server.partitions:
            shards = by_shard.setdefault(each.known, {})
            before = shards.get(server.shard)
            if before is None or (each.rows, each.bytes) > (before.rows, before.bytes):
                shards[server.shard] = each
    return {
        known: replace(
            next(iter(shards.values())),
            rows=sum(each.rows for each in shards.values()),
            bytes=sum(each.bytes for each in shards.values()),
        )
        for known, shards in by_shard.items()
    }


def with_unrolled(
    partitions: Iterable[Partition], batches: Sequence[StoredBatch], most: int
) -> Iterator[Partition]:
    """Add how many records of each partition no roll-up has.

    `batches` are the oldest that are not in all roll-ups, oldest first. If there are `most` of
    them, there may be more: of anything later nobody knows that it was rolled.
    """
    known_s = batches[-1].batch_id.inserted_s if len(batches) >= most else None
    moments = [batch.batch_id.inserted_s for batch in batches]
    before = [0, *accumulate(batch.records for batch in batches)]
    for each in partitions:
        first, last = (bisect_left(moments, end_s) for end_s in (each.begin_s, each.end_s))
        unrolled = before[last] - before[first]
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

    first = [*of(TABLE), *of(MINUTES.name), *of(HOURS.name)]
    left = set(there).difference(first)
    left_s = min((each.begin_s for each in left if each.table != BOOKS), default=now_s)
    books = [each for each in of(BOOKS) if each.end_s <= left_s]
    unrolled = [each for each in old if each.unrolled]
    return list(_enough([*first, *books, *unrolled], needed))


def _enough(order: Iterable[Partition], needed: int) -> Iterator[Partition]:
    """Go through the first ones that have `needed` bytes together."""
    for each in order:
        if needed <= 0:
            return
        yield each
        needed -= each.bytes


def choose_newest(pieces: Iterable[Partition], needed: int, now_s: int) -> list[Partition]:
    """Return what of the newest hour goes where it alone fills the disk, in order.

    The same order, of parts; nothing that was committed in the newest minutes.
    """
    old = sorted(
        (each for each in pieces if each.end_s <= now_s - LEAST_S), key=lambda each: each.end_s
    )
    tables = (TABLE, MINUTES.name, HOURS.name)
    order = [each for name in tables for each in old if each.table == name and not each.unrolled]
    return list(_enough([*order, *(each for each in old if each.unrolled)], needed))


@dataclass(frozen=True, slots=True)
class View:
    """How the engine's own tables are read, of one server or of all of a cluster."""

    identity: str
    """Expressions for the shard and name of the server that a row is of."""
    source: str
    """FROM what, with `{}` for the table."""
    options: Mapping[str, int | str]
    """Settings without which it fails while a server is away."""

    @classmethod
    def of(cls, layout: TableLayout, features: Features) -> "View":
        """Return the view of all servers; old ones do not tell of each replica."""
        if not layout.cluster:
            return cls("'', ''", "system.{}", {})
        away: dict[str, int | str] = {"skip_unavailable_shards": 1}
        if features.all_replicas:
            return cls("getMacro('shard'), getMacro('replica')", layout.system("{}"), away)
        macros = (
            "(SELECT anyIf(substitution, macro = 'shard') AS shard,"
            " anyIf(substitution, macro = 'replica') AS server FROM system.macros)"
        )
        source = f"cluster('{layout.cluster}', system.{{}}) CROSS JOIN {macros}"
        return cls("shard, server", source, away)

    def from_(self, table: str) -> str:
        """Write the FROM of one of the engine's tables."""
        return f"FROM {self.source.format(table)}"


def partitions_sql(layout: TableLayout, view: View) -> str:
    """Ask for the partitions; see `read_servers`. Days are those of the server's time zone."""
    tables = ", ".join(f"'{layout.own(name)}'" for name in WATCHED)
    day = (
        "toDate(concat(substring(partition_id, 1, 4), '-', substring(partition_id, 5, 2), '-',"
        " substring(partition_id, 7, 2)))"
    )
    return (
        f"SELECT {view.identity}, table, partition_id, toUInt32(toDateTime({day})),"
        f" toUInt32(toDateTime({day} + 1)), sumIf(rows, active), sumIf(bytes_on_disk, active),"
        f" sumIf(bytes_on_disk, active = 0) {view.from_('parts')}"
        f" WHERE database = '{layout.database}' AND table IN ({tables})"
        f" GROUP BY {view.identity}, table, partition_id"
    )


def disks_sql(layout: TableLayout, view: View) -> str:
    """Ask for the disks that the database is on; see `read_servers`."""
    ours = f"SELECT disk_name FROM system.parts WHERE database = '{layout.database}'"
    return (
        f"SELECT {view.identity}, name, free_space, total_space {view.from_('disks')}"
        f" WHERE name IN ({ours})"
    )


def read_servers(
    layout: TableLayout, partitions: Iterable[Sequence[object]], disks: Iterable[Sequence[object]]
) -> list[Server]:
    """Return what `partitions_sql` and `disks_sql` found; one server at the least."""
    names = {layout.own(name): name for name in WATCHED}
    found: dict[tuple[str, str], tuple[list[Partition], list[Disk], list[int]]] = {}
    for shard, server, *row in partitions:
        ours = found.setdefault((str(shard), str(server)), ([], [], []))
        table, key, begin, end, count, size, replaced = row
        ours[2].append(_int(replaced))
        if not _int(count):
            continue
        begin_s, end_s = _int(begin), _int(end)
        _, _, hour = str(key).partition("-")
        if hour:
            begin_s = int(hour) * HOUR_S
            end_s = begin_s + HOUR_S
        name = names[str(table)]
        ours[0].append(Partition(name, str(key), begin_s, end_s, _int(count), _int(size)))
    for shard, server, disk, free, total in disks:
        ours = found.setdefault((str(shard), str(server)), ([], [], []))
        ours[1].append(Disk(str(disk), _int(free), _int(total)))
    servers = [
        Server(shard, name, tuple(there), tuple(on), sum(replaced))
        for (shard, name), (there, on, replaced) in sorted(found.items())
    ]
    return servers or [Server("", "")]


def pieces_sql(layout: TableLayout) -> str:
    """Ask for the parts of one server's tables, and what spans they have; see `read_pieces`.

    Of records it is when they were committed, of roll-ups their time, as these do not tell more.
    """
    ends = {TABLE: (f"toUInt32({INSERTED_SQL})", 1)}
    ends |= {rollup.name: (f"toUInt32({TIME})", rollup.step_s) for rollup in ROLLUPS}
    spans = " UNION ALL ".join(
        f"SELECT '{name}' AS table, _part AS name, min({moment}) AS begins,"
        f" max({moment}) + {step_s} AS ends FROM {layout.database}.{name} GROUP BY _part"
        for name, (moment, step_s) in ends.items()
    )
    return (
        f"SELECT table, name, begins, ends, rows, bytes_on_disk FROM ({spans}) AS spans"
        " ANY INNER JOIN (SELECT table, name, rows, bytes_on_disk FROM system.parts"
        f" WHERE database = '{layout.database}' AND active) AS sizes USING table, name"
    )


def read_pieces(rows: Iterable[Sequence[object]]) -> Iterator[Partition]:
    """Yield what `pieces_sql` found."""
    for table, name, begin, end, count, size in rows:
        yield Partition(
            str(table), str(name), _int(begin), _int(end), _int(count), _int(size), part=True
        )


def drop_sql(layout: TableLayout, partition: Partition) -> str:
    """Write the ALTER TABLE that drops a partition, which may be gone, or a part, which may not."""
    table = f"{layout.database}.{layout.own(partition.table)}{layout.everywhere}"
    if partition.part:
        return f"ALTER TABLE {table} DROP PART '{partition.key}'"
    return f"ALTER TABLE {table} DROP PARTITION ID '{partition.key}'"


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


def read_lost(rows: Iterable[Sequence[object]]) -> Iterator[Lost]:
    """Yield what `lost_sql` found."""
    for begin, end, records, expired in rows:
        yield Lost(_int(begin), _int(end), _int(records), bool(_int(expired)))


def _int(value: object) -> int:
    return int(str(value))
