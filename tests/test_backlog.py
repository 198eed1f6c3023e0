import pytest

from aggregator.records import numbered
from flowvis.backlog import Backlog, size_of
from flowvis.batch import SETTLED, Batch
from flowvis.native import StringTable


def numbers(backlog: Backlog) -> list[int]:
    return [number for batch in backlog for number in batch["octetTotalCount"].tolist()]


def over(strings: StringTable, first: int, count: int = 10) -> Batch:
    batch = numbered(first, count)
    return Batch(batch.columns, strings)


def test_records_are_taken_in_their_order_and_in_parts() -> None:
    backlog = Backlog(100)
    backlog.put(numbered(0, 5))
    backlog.put(numbered(5, 5))
    assert (len(backlog), backlog.records) == (2, 10)
    assert backlog.take(3)["octetTotalCount"].tolist() == [0, 1, 2]
    assert backlog.take(3)["octetTotalCount"].tolist() == [3, 4]
    backlog.put_back([numbered(100, 1), numbered(101, 1)])
    assert numbers(backlog) == [100, 101, 5, 6, 7, 8, 9]
    assert sum(map(len, backlog.clear())) == 7
    assert (len(backlog), backlog.records, backlog.bytes) == (0, 0, 0)
    with pytest.raises(IndexError):
        backlog.take()


@pytest.mark.parametrize(("beside", "left"), [(0, 12), (5, 7), (12, 0), (99, 0)])
def test_at_most_so_many_records_the_oldest_go(beside: int, left: int) -> None:
    backlog = Backlog(12)
    for first in range(0, 30, 10):
        backlog.put(numbered(first, 10))
    assert backlog.trim(beside) == 30 - left
    assert numbers(backlog) == list(range(30 - left, 30))


def test_at_most_so_many_bytes() -> None:
    one = size_of(numbered(0, 10))
    strings = StringTable()
    backlog = Backlog(1000, 3 * one)
    lost = 0
    for first in range(0, 70, 10):
        backlog.put(over(strings, first))
        lost += backlog.trim()
        assert backlog.bytes <= 3 * one
    assert lost == 40
    assert numbers(backlog) == list(range(40, 70))
    assert backlog.trim(bytes_beside=one) == 10


def test_small_batches_take_more_than_their_data() -> None:
    columns = numbered(0, 1).columns
    assert size_of(numbered(0, 1)) > 2 * sum(column.nbytes for column in columns.values())


def test_string_tables_that_were_left_behind_count_while_a_batch_is_over_them() -> None:
    old, new = StringTable(), StringTable()
    old.intern(b"x" * 10_000)
    new.intern(b"y" * 500)
    backlog = Backlog(1000)
    backlog.put(over(old, 0, 1))
    backlog.put(over(old, 1, 1))
    columns = backlog.bytes
    assert columns == 2 * size_of(numbered(0, 1)), "the newest table is not the backlog's own"
    backlog.put(over(new, 2, 1))
    assert backlog.bytes == columns * 3 // 2 + old.memory_bytes
    backlog.take()
    assert backlog.bytes > old.memory_bytes
    backlog.take()
    assert backlog.bytes == columns // 2


def test_one_table_may_be_left_out() -> None:
    old, new = StringTable(), StringTable()
    old.intern(b"x" * 10_000)
    backlog = Backlog(1000, 8000)
    backlog.put(over(old, 0, 1))
    backlog.put(over(new, 1, 1))
    columns = 2 * size_of(numbered(0, 1))
    assert backlog.bytes_beside(old) == columns
    assert backlog.bytes_beside(new) == backlog.bytes_beside(None) == backlog.bytes > 10_000
    backlog.max_bytes = columns
    assert backlog.trim(apart=lambda: old) == 0
    assert backlog.trim() == 1


def test_what_keeps_an_old_table_goes_first_when_there_is_no_room() -> None:
    backlog = Backlog(1000, 40_000)
    for first in range(6):
        strings = StringTable()
        strings.intern(bytes([65 + first]) * 15_000)
        backlog.put(over(strings, first, 1))
        backlog.trim()
    assert numbers(backlog) == [4, 5]


def test_small_batches_are_joined() -> None:
    strings, other = StringTable(), StringTable()
    backlog = Backlog(1000, join=20)
    for first in range(0, 24, 3):
        backlog.put(over(strings, first, 3))
    assert [len(batch) for batch in backlog] == [18, 6]
    backlog.put(over(other, 24, 1))
    narrow = over(other, 25, 1)
    backlog.put(narrow.select(["octetTotalCount"]))
    assert [len(batch) for batch in backlog] == [18, 6, 1, 1]
    assert numbers(backlog) == list(range(26))
    assert backlog.records == 26
    batches = backlog.clear()
    assert sum(map(size_of, batches)) < 26 * size_of(numbered(0, 1))


def marked(first: int, mark: int, strings: StringTable | None = None) -> Batch:
    batch = over(strings or StringTable(), first)
    batch.mark = mark
    return batch


def test_the_mark_is_the_oldest_of_what_is_there() -> None:
    backlog = Backlog(1000)
    assert backlog.mark == SETTLED
    for first, mark in ((0, 6), (10, 4), (20, 5)):
        backlog.put(marked(first, mark))
    assert backlog.mark == 4
    taken = backlog.take(3)
    assert (taken.mark, backlog.mark) == (6, 4)
    backlog.take()
    backlog.take()
    assert backlog.mark == 5
    backlog.put_back([taken])
    assert backlog.mark == 5
    backlog.trim(beside=1000)
    assert backlog.mark == SETTLED
    backlog.put(marked(30, 8))
    assert backlog.mark == 8
    backlog.clear()
    assert backlog.mark == SETTLED


def test_what_is_joined_has_the_oldest_mark() -> None:
    backlog = Backlog(1000, join=100)
    strings = StringTable()
    backlog.put(marked(0, 3, strings))
    backlog.put(marked(10, 2, strings))
    assert (len(backlog), backlog.mark) == (1, 2)
