"""Batches that wait, in their order: bounded in records and in bytes, the oldest go first.

What a batch takes is its columns, the objects that hold them, and its string table: the newest
table is the flow table's own affair, but one that was left behind lives on for the batches alone.
Whoever loses records for want of room may leave one such table out: the flow table's texts have
room for one beside the newest, and one that is large would else cost all that waits.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from flowvis.batch import SETTLED, Batch, concat
from flowvis.strings import Strings

COLUMN_BYTES = 120  # of numpy's object for an array, beside its data
UNBOUNDED = 1 << 62


class Backlog:
    """A queue of batches, to be kept within its bounds by `trim`.

    Batches of up to `join` records together are joined: an empty batch alone takes some 9 KB.
    """

    def __init__(self, max_records: int, max_bytes: int = UNBOUNDED, *, join: int = 0) -> None:
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.records = 0
        self.marks_apart = False
        """Whether only batches of one mark are joined."""
        self._join = join
        self._batches: deque[Batch] = deque()
        self._column_bytes = 0
        self._tables: Counter[Strings] = Counter()
        self._left_behind = 0  # bytes of all tables but the newest
        self._mark: int | None = SETTLED  # None: to be looked for

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def __reversed__(self) -> Iterator[Batch]:
        return reversed(self._batches)

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return self._column_bytes + self._left_behind

    @property
    def column_bytes(self) -> int:
        """About what the batches take in memory without their string tables."""
        return self._column_bytes

    def bytes_beside(self, table: Strings | None) -> int:
        """About what it takes in memory, without this table."""
        newest = self.newest
        if table is None or table not in self._tables:
            return self.bytes
        if newest is not None and newest.strings is table:
            return self.bytes
        return self._column_bytes + max(self._left_behind - table.memory_bytes, 0)

    @property
    def tables(self) -> Iterable[Strings]:
        """The string tables of the batches."""
        return self._tables

    @property
    def mark(self) -> int:
        """The oldest mark of all batches; SETTLED without any."""
        if self._mark is None:
            self._mark = min((batch.mark for batch in self._batches), default=SETTLED)
        return self._mark

    @property
    def oldest(self) -> Batch:
        """The batch that is taken next; IndexError where there is none."""
        return self._batches[0]

    @property
    def newest(self) -> Batch | None:
        """The batch that came last."""
        return self._batches[-1] if self._batches else None

    def put(self, batch: Batch) -> None:
        """Add a batch at the end."""
        newest = self.newest
        if newest is not None and self._may_join(newest, batch):
            self._count(self._batches.pop(), -1)
            batch = concat([newest, batch])
        self._batches.append(batch)
        self._count(batch, 1)

    def _may_join(self, newest: Batch, batch: Batch) -> bool:
        if len(newest) + len(batch) > self._join or newest.strings is not batch.strings:
            return False
        if self.marks_apart and newest.mark != batch.mark:
            return False
        return newest.columns.keys() == batch.columns.keys()

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Add batches before all others, in their order."""
        for batch in reversed(batches):
            self._batches.appendleft(batch)
            self._count(batch, 1)

    def take(self, limit: int = UNBOUNDED) -> Batch:
        """Take out the oldest batch, or its first `limit` records; IndexError without any."""
        batch = self._batches.popleft()
        self._count(batch, -1)
        if len(batch) > limit:
            self.put_back([batch.take(slice(limit, None))])
            batch = batch.take(slice(limit))
        return batch

    def trim(
        self,
        beside: int = 0,
        bytes_beside: int = 0,
        *,
        apart: Callable[[], Strings | None] = lambda: None,
    ) -> int:
        """Drop the oldest records that are too many with those `beside`; return their number.

        The table that is `apart` does not count.
        """
        lost = 0
        while self._batches and self.bytes_beside(apart()) + bytes_beside > self.max_bytes:
            lost += len(self.take())
        while self._batches and self.records + beside > self.max_records:
            lost += len(self.take(self.records + beside - self.max_records))
        return lost

    def clear(self) -> list[Batch]:
        """Take out all that there is."""
        batches = list(self._batches)
        self._batches.clear()
        self._tables.clear()
        self.records = self._column_bytes = self._left_behind = 0
        self._mark = SETTLED
        return batches

    def _count(self, batch: Batch, times: int) -> None:
        if times < 0:
            self._mark = None
        elif self._mark is not None:
            self._mark = min(self._mark, batch.mark)
        self.records += times * len(batch)
        self._column_bytes += times * size_of(batch)
        table = batch.strings
        before = self._tables[table]
        self._tables[table] = before + times
        if not self._tables[table]:
            del self._tables[table]
        if not before or not self._tables.get(table):
            self._look_behind()

    def _look_behind(self) -> None:
        """Sum up the tables that nothing new comes to."""
        newest = self.newest
        current = newest.strings if newest is not None else None
        tables = (table for table in self._tables if table is not current)
        self._left_behind = sum(table.memory_bytes for table in tables)


def size_of(batch: Batch) -> int:
    """About what a batch takes in memory, its string table aside."""
    columns = batch.columns.values()
    return sum(column.nbytes for column in columns) + COLUMN_BYTES * len(columns)
