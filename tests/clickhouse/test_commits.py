"""What a writer has in memory, and what it drops for want of room."""

import itertools

import pytest

from aggregator.records import numbered
from flowvis.batch import Batch
from flowvis.clickhouse.commits import BatchIds, Uncommitted
from flowvis.clickhouse.schema.encode import MAX_BATCH_NUMBER
from flowvis.native import StringTable
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

ROOM = 200_000


def over(strings: StringTable, first: int) -> Batch:
    """Ten records over a table of texts: 12 KB."""
    return Batch(numbered(first, 10).columns, strings)


def large() -> StringTable:
    """A table of texts that takes more than all that waits may."""
    table = StringTable()
    for number in range(20):
        table.intern(b"%d" % number * 8000)
    assert table.memory_bytes > ROOM
    return table


@pytest.fixture
def held() -> Uncommitted:
    return Uncommitted(
        Stage("clickhouse"), BatchIds(), max_records=1000, max_bytes=ROOM, commit_records=10
    )


@pytest.mark.parametrize("taken", [False, True])
def test_a_large_table_that_was_left_behind_costs_nothing_that_waits(
    held: Uncommitted, taken: bool
) -> None:
    old, new = large(), StringTable()
    held.put(over(old, 0))
    if taken:
        held.current = held.take()
    held.put(over(old, 10))
    for first in range(20, 60, 10):
        held.put(over(new, first))
    assert (held.records, held.stage.dropped) == (60, {})
    assert held.filled < 1
    assert held.bytes > ROOM, "what it takes is said all the same"


def test_of_several_tables_that_were_left_behind_only_the_oldest_has_room_elsewhere(
    held: Uncommitted,
) -> None:
    held.put(over(large(), 0))
    held.current = held.take()
    for first in (10, 20, 30):
        held.put(over(large(), first))
    assert held.stage.dropped == {OutgoingDropped.QUEUE_FULL: 20}
    assert held.records == 20


def test_after_a_clock_was_set_back_ids_have_its_time_and_none_comes_twice() -> None:
    """As where it was ahead at the start, or is set forth and back again and again."""
    moments = [1000, 1000, 1001, 9001, 9001, 8990, 1003, 1003, 1004, 1002, 9001, 900, 1000, 1001]
    clock = iter(moments)
    ids = BatchIds(lambda: float(next(clock)))
    found = [ids.next() for _ in moments]
    assert len(set(found)) == len(moments)
    assert [batch_id.inserted_s for batch_id in found] == [
        1000, 1000, 1001, 9001, 9001, 9001, 1003, 1003, 1004, 1004, 9001, 900, 1000, 1001,
    ]  # fmt: skip


def test_a_clock_that_is_set_back_more_often_than_there_are_numbers() -> None:
    clock = itertools.cycle([2000.0, 1000.0])
    ids = BatchIds(lambda: next(clock))
    found = [ids.next() for _ in range(2 * MAX_BATCH_NUMBER + 1000)]
    assert len(set(found)) == len(found)
    assert max(batch_id.number for batch_id in found) == MAX_BATCH_NUMBER
