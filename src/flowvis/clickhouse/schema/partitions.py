"""The partitions of a store's tables, and the disks that they are on, as the engine tells of them.

What can be dropped is as fine as partitions are: hours of records (days in tables that an older
program made), days of roll-ups and books. Only an engine that has no room to merge in has small
parts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rolled_columns import TIME
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS
from flowvis.clickhouse.schema.tables import BOOKS, INSERTED_SQL, TABLE

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


def _int(value: object) -> int:
    return int(str(value))
