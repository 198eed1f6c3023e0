"""The partitions of a store, on all of its servers: what they take, what of them went.

What goes is noted in the store before, so that answers know of it from then on.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from flowvis.clickhouse.rollup_tables import Execute
from flowvis.clickhouse.schema import dropped as notes
from flowvis.clickhouse.schema import partitions as schema
from flowvis.clickhouse.schema.dropped import Lost, Outcome
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.partitions import Partition, Server, View
from flowvis.clickhouse.schema.retention import ttl_of
from flowvis.errors import StoreError

log = logging.getLogger(__name__)

PATIENCE_S = 10  # for all servers of a cluster; even, as 18.16 halves it
SHORT_PATIENCE_S = 2  # once one was away
TIMEOUT = 159  # TIMEOUT_EXCEEDED: a server is away, and does it when it is back
NO_ROOM = frozenset({243, 75})  # NOT_ENOUGH_SPACE, CANNOT_WRITE_TO_FILE_DESCRIPTOR
_FULL = "No space left on device"  # of what the system says to other steps, under other codes
REFUSED = frozenset({359, 497, 164})
"""Until somebody allows it: TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT, ACCESS_DENIED, READONLY."""
GONE = 232  # NO_SUCH_DATA_PART: merged, or dropped by another


def lacks_room(error: StoreError) -> bool:
    """Whether a store failed as nothing fits in."""
    return error.code in NO_ROOM or _FULL in str(error)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What of a table went for lack of room, whoever made it."""

    before_s: int
    """What was committed before that moment may be gone."""
    ago_s: int
    """How long ago the last of it went, by the store's clock."""


class StoredPartitions:
    """The partitions of a store. Methods block; errors are StoreErrors."""

    def __init__(self, execute: Execute, layout: TableLayout, features: Features) -> None:
        self.has_disks = features.disks
        """The engine tells how full its disks are."""
        self.has_pieces = features.drops_parts and not layout.cluster
        """Parts can go: those of a cluster's shards have other names, or the same by chance."""
        self._has_ttl = features.ttl
        self._execute = execute
        self._layout = layout
        self._view = View.of(layout, features)
        self._noting = False
        self._away = False

    def servers(self) -> list[Server]:
        """Return what each server has, of those that answer."""
        layout, view = self._layout, self._view
        partitions = list(self._execute(schema.partitions_sql(layout, view), view.options))
        disks = (
            self._execute(schema.disks_sql(layout, view), view.options) if self.has_disks else ()
        )
        return schema.read_servers(layout, partitions, disks)

    def ttls(self) -> dict[str, int]:
        """Return, by table, how long (s) it keeps rows, 0: for ever; nothing without TTLs."""
        if not self._has_ttl:
            return {}
        names = {self._layout.own(name): name for name in schema.WATCHED}
        asked = ", ".join(f"'{name}'" for name in names)
        rows = self._execute(
            "SELECT name, engine_full FROM system.tables"
            f" WHERE database = '{self._layout.database}' AND name IN ({asked})",
            {},
        )
        return {names[str(name)]: ttl_of(str(engine)) for name, engine in rows}

    def pieces(self) -> list[Partition]:
        """Return the parts that partitions are made of; none where they cannot go by themselves."""
        if not self.has_pieces:
            return []
        return list(schema.read_pieces(self._execute(schema.pieces_sql(self._layout), {})))

    def note(self, partition: Partition, outcome: Outcome) -> None:
        """Note what becomes of a partition."""
        self._make_notes()
        self._execute(notes.note_sql(self._layout.database, partition, outcome), {})

    def note_expired(self, lost: Sequence[Lost]) -> None:
        """Note what went by its age before the roll-ups had it; callable beside the others."""
        self._make_notes()
        self._execute(notes.note_expired_sql(self._layout.database, lost), {})

    def _make_notes(self) -> None:
        if not self._noting:
            self._execute_everywhere(notes.create_dropped(self._layout))
            self._noting = True

    def drop(self, partition: Partition) -> bool:
        """Drop a partition, or a part; a server that is away does it when it is back.

        False: a part is not there any more, as it was merged into another.
        """
        try:
            self._execute_everywhere(schema.drop_sql(self._layout, partition))
        except StoreError as error:
            if error.code != GONE or not partition.part:
                raise
            return False
        return True

    def dropped(self) -> dict[str, Dropped]:
        """Return what went, by table."""
        if not self._has_notes():
            return {}
        rows = self._execute(notes.dropped_sql(self._layout.database), {})
        return {str(table): Dropped(int(before), int(ago)) for table, before, ago in rows}

    def lost(self) -> list[Lost]:
        """Return what of the records went before the roll-ups had it, oldest first."""
        if not self._has_notes():
            return []
        return list(notes.read_lost(self._execute(notes.lost_sql(self._layout.database), {})))

    def _has_notes(self) -> bool:
        """Whether there are notes; those of an older program get what they lack."""
        columns = self._execute(notes.dropped_columns_sql(self._layout.database), {})
        there, lacks = map(int, next(iter(columns)))
        if there and lacks:
            self._execute_everywhere(notes.extend_dropped(self._layout))
        return there > 0

    def begins(self) -> dict[str, int]:
        """Return, by table of which something went, the moment (s) before which that is."""
        return {table: each.before_s for table, each in self.dropped().items()}

    def _execute_everywhere(self, sql: str) -> None:
        """Execute on all servers, once each."""
        if not self._layout.cluster:
            self._execute(sql, {})
            return
        patience_s = SHORT_PATIENCE_S if self._away else PATIENCE_S
        try:
            self._execute(sql, {"distributed_ddl_task_timeout": patience_s})
            self._away = False
        except StoreError as error:
            if error.code != TIMEOUT:
                raise
            self._away = True
            log.warning("store: not all servers of the cluster did it yet: %s", error)
