import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.aggregator.destinations.outbox import Outbox
from flowvis.batch import Batch
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

from .records import numbered


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(count) for count in batch["octetTotalCount"]]


async def test_records_come_out_in_order_and_in_parts() -> None:
    box = Outbox(Stage("sink"), 100)
    box.put(numbered(0, 3))
    box.put(numbered(3, 2))
    assert numbers(await box.take(2)) == [0, 1]
    assert numbers(await box.take(2)) == [2]
    assert numbers(await box.take(2)) == [3, 4]
    assert len(box) == 5
    box.sent(4)
    box.dropped(OutgoingDropped.REJECTED, 1)
    assert len(box) == 0
    assert (box.stage.sent, box.stage.dropped, box.stage.imbalance) == (4, {"rejected": 1}, 0)


async def test_oldest_records_go_when_it_is_full() -> None:
    box = Outbox(Stage("sink"), 4)
    box.put(numbered(0, 3))
    box.put(numbered(3, 3))
    assert box.stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    assert numbers(await box.take(10)) == [2]
    assert numbers(await box.take(10)) == [3, 4, 5]
    assert box.stage.imbalance == 0


async def test_what_is_taken_takes_room_and_is_never_dropped() -> None:
    box = Outbox(Stage("sink"), 3)
    box.put(numbered(0, 2))
    assert numbers(await box.take(10)) == [0, 1]
    box.put(numbered(2, 3))
    assert box.stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    box.sent(2)
    assert numbers(await box.take(10)) == [4]


async def test_a_batch_larger_than_the_outbox_keeps_its_newest() -> None:
    box = Outbox(Stage("sink"), 2)
    box.put(numbered(0, 5))
    assert numbers(await box.take(10)) == [3, 4]
    assert box.stage.dropped == {OutgoingDropped.QUEUE_FULL: 3}


async def test_take_waits_for_records_and_ends_when_closed() -> None:
    box = Outbox(Stage("sink"), 10)
    taking = asyncio.ensure_future(box.take(10))
    await asyncio.sleep(0)
    assert not taking.done()
    box.put(numbered(7, 1))
    assert numbers(await taking) == [7]
    box.put(numbered(8, 1))
    box.close()
    assert numbers(await box.take(10)) == [8]
    assert await box.take(10) is None


async def test_what_is_put_after_closing_is_counted() -> None:
    box = Outbox(Stage("sink"), 10)
    box.close()
    box.put(numbered(0, 3))
    assert box.stage.dropped == {"closed": 3}
    assert box.stage.imbalance == 0


async def test_abandoning_counts_what_waits_and_what_is_taken() -> None:
    box = Outbox(Stage("sink"), 10)
    box.put(numbered(0, 4))
    await box.take(1)
    box.abandon(OutgoingDropped.SHUTDOWN)
    assert box.stage.dropped == {"shutdown": 4}
    assert box.stage.imbalance == 0
    assert await box.take(1) is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(1, 9)), max_size=40),
)
def test_the_books_balance_after_every_step(capacity: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        box = Outbox(Stage("sink"), capacity)
        expected: list[int] = []
        seen: list[int] = []
        first = 0
        for what, count in steps:
            if what == "put":
                box.put(numbered(first, count))
                expected = (expected + list(range(first, first + count)))[-capacity:]
                first += count
            elif expected:
                got = numbers(await box.take(count))
                box.sent(len(got))
                assert got == expected[: len(got)]
                expected = expected[len(got) :]
                seen += got
            assert len(box) == len(expected) <= capacity
            assert box.stage.imbalance == 0
        assert seen == sorted(set(seen))

    asyncio.run(play())


@pytest.mark.parametrize("count", [0])
async def test_an_empty_batch_changes_nothing(count: int) -> None:
    box = Outbox(Stage("sink"), 10)
    box.put(numbered(0, 3).take(slice(0, count)))
    assert len(box) == 0


async def test_another_outbox_takes_over() -> None:
    stage = Stage("sink")
    old = Outbox(stage, 100)
    old.put(numbered(0, 3))
    assert numbers(await old.take(2)) == [0, 1]
    old.put(numbered(3, 2))
    new = Outbox(stage, 100)
    new.put(numbered(5, 1))
    stage.held = lambda: len(old) + len(new)
    new.take_over(*old.release())
    assert (len(old), len(new), new.taken) == (0, 6, 2)
    assert stage.imbalance == 0
    new.sent(2)
    assert [numbers(await new.take(9)) for _ in range(3)] == [[2], [3, 4], [5]]


async def test_taking_over_more_than_there_is_room_for() -> None:
    stage = Stage("sink")
    old, new = Outbox(stage, 100), Outbox(stage, 4)
    old.put(numbered(0, 6))
    new.take_over(*old.release())
    assert stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    assert numbers(await new.take(9)) == [2, 3, 4, 5]
