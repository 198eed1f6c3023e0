import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.records import numbered
from flowvis.backlog import size_of
from flowvis.batch import SETTLED, Batch
from flowvis.delivery.queue import SMALL, Queue, Unsettled
from flowvis.native import StringTable
from flowvis.runtime.dropped import ExportDropped, OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.strings import Strings

STRINGS = StringTable()


def batch(first: int, count: int, strings: Strings = STRINGS) -> Batch:
    return Batch({"number": np.arange(first, first + count)}, strings)


def drain(queue: Queue) -> list[list[int]]:
    taken = []
    while (one := queue.take()) is not None:
        taken.append(one["number"].tolist())
        queue.sent(len(one))
    return taken


def balanced(queue: Queue) -> None:
    assert queue.stage.imbalance == 0, queue.stage.as_dict()


def test_in_and_out_in_order() -> None:
    queue = Queue(Stage("sink"), 10_000)
    queue.put(batch(0, SMALL))
    queue.put(batch(SMALL, 0))
    queue.put(batch(SMALL, 2))
    assert len(queue) == SMALL + 2
    assert drain(queue) == [list(range(SMALL)), [SMALL, SMALL + 1]]
    assert queue.stage.sent == SMALL + 2
    balanced(queue)


def test_small_batches_are_joined() -> None:
    queue = Queue(Stage("sink"), 10_000)
    for first in range(0, 100, 10):
        queue.put(batch(first, 10))
    queue.put(batch(100, 5, StringTable()))
    assert drain(queue) == [list(range(100)), list(range(100, 105))]


def test_the_oldest_are_dropped_and_counted() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(batch(0, 60, StringTable()))
    queue.put(batch(60, 30, StringTable()))
    queue.put(batch(90, 80, StringTable()))
    assert len(queue) == 100
    assert drain(queue) == [list(range(70, 90)), list(range(90, 170))]
    assert queue.stage.dropped == {OutgoingDropped.QUEUE_FULL: 70}
    balanced(queue)


def test_what_was_not_sent_comes_first_again() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(batch(0, 10))
    taken = queue.take()
    assert taken is not None
    queue.put(batch(10, 5))
    balanced(queue)
    queue.sent(4)
    queue.rewind()
    assert queue.stage.sent == 4
    assert drain(queue) == [[4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    balanced(queue)


def test_what_is_out_and_given_up() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(batch(0, 10))
    taken = queue.take()
    assert taken is not None
    queue.rewrite(taken.take(np.arange(10) % 3 != 1), ExportDropped.OVERSIZE)
    balanced(queue)
    queue.sent(7)
    assert queue.stage.sent == 7
    queue.put(batch(0, 10))
    assert queue.abandon(ExportDropped.STOPPED) == 10
    assert queue.take() is None
    assert queue.stage.dropped == {"oversize": 3, "stopped": 10}
    balanced(queue)


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(count) for count in batch["octetTotalCount"]]


async def test_records_come_out_in_order_and_in_parts() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(numbered(0, 3))
    queue.put(numbered(3, 2))
    assert numbers(queue.take(2)) == [0, 1]
    assert numbers(queue.take(2)) == [2]
    assert numbers(queue.take(2)) == [3, 4]
    assert len(queue) == 5
    queue.sent(4)
    queue.drop(OutgoingDropped.REJECTED, 1)
    assert len(queue) == 0
    assert (queue.stage.sent, queue.stage.dropped, queue.stage.imbalance) == (4, {"rejected": 1}, 0)


async def test_oldest_records_go_when_it_is_full() -> None:
    queue = Queue(Stage("sink"), 4)
    queue.put(numbered(0, 3))
    queue.put(numbered(3, 3))
    assert queue.stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    assert numbers(queue.take(10)) == [2]
    assert numbers(queue.take(10)) == [3, 4, 5]
    assert queue.stage.imbalance == 0


async def test_what_is_taken_takes_room_and_is_never_dropped() -> None:
    queue = Queue(Stage("sink"), 3)
    queue.put(numbered(0, 2))
    assert numbers(queue.take(10)) == [0, 1]
    queue.put(numbered(2, 3))
    assert queue.stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    queue.sent(2)
    assert numbers(queue.take(10)) == [4]


async def test_a_batch_larger_than_the_queue_keeps_its_newest() -> None:
    queue = Queue(Stage("sink"), 2)
    queue.put(numbered(0, 5))
    assert numbers(queue.take(10)) == [3, 4]
    assert queue.stage.dropped == {OutgoingDropped.QUEUE_FULL: 3}


async def test_it_says_when_there_is_something_to_take_or_never_will_be() -> None:
    queue = Queue(Stage("sink"), 10)
    waiting = asyncio.ensure_future(queue.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(numbered(7, 1))
    await waiting
    assert numbers(queue.take(10)) == [7]
    queue.put(numbered(8, 1))
    queue.close()
    assert numbers(queue.take(10)) == [8]
    await queue.ready()
    assert queue.take(10) is None


async def test_what_is_put_after_closing_is_counted() -> None:
    queue = Queue(Stage("sink"), 10)
    queue.close()
    queue.put(numbered(0, 3))
    assert queue.stage.dropped == {"closed": 3}
    assert queue.stage.imbalance == 0


async def test_abandoning_counts_what_waits_and_what_is_taken() -> None:
    queue = Queue(Stage("sink"), 10)
    queue.put(numbered(0, 4))
    queue.take(1)
    queue.abandon(OutgoingDropped.SHUTDOWN)
    assert queue.stage.dropped == {"shutdown": 4}
    assert queue.stage.imbalance == 0
    assert queue.take(1) is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(1, 9)), max_size=40),
)
def test_the_books_balance_after_every_step(capacity: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        queue = Queue(Stage("sink"), capacity)
        expected: list[int] = []
        seen: list[int] = []
        first = 0
        for what, count in steps:
            if what == "put":
                queue.put(numbered(first, count))
                expected = (expected + list(range(first, first + count)))[-capacity:]
                first += count
            elif expected:
                got = numbers(queue.take(count))
                queue.sent(len(got))
                assert got == expected[: len(got)]
                expected = expected[len(got) :]
                seen += got
            assert len(queue) == len(expected) <= capacity
            assert queue.stage.imbalance == 0
        assert seen == sorted(set(seen))

    asyncio.run(play())


@pytest.mark.parametrize("count", [0])
async def test_an_empty_batch_changes_nothing(count: int) -> None:
    queue = Queue(Stage("sink"), 10)
    queue.put(numbered(0, 3).take(slice(0, count)))
    assert len(queue) == 0


async def test_another_queue_takes_over() -> None:
    stage = Stage("sink")
    old = Queue(stage, 100)
    old.put(numbered(0, 3))
    assert numbers(old.take(2)) == [0, 1]
    old.put(numbered(3, 2))
    new = Queue(stage, 100)
    new.put(numbered(5, 1))
    stage.held = lambda: len(old) + len(new)
    new.take_over(old.release())
    assert (len(old), len(new), new.taken) == (0, 6, 0)
    assert stage.imbalance == 0
    assert [numbers(new.take(9)) for _ in range(4)] == [[0, 1], [2], [3, 4], [5]]


async def test_taking_over_more_than_there_is_room_for() -> None:
    stage = Stage("sink")
    old, new = Queue(stage, 100), Queue(stage, 4)
    old.put(numbered(0, 6))
    new.take_over(old.release())
    assert stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
    assert numbers(new.take(9)) == [2, 3, 4, 5]


def marked(first: int, count: int) -> Batch:
    """Numbered records, in a batch whose mark is the number of its first."""
    return Batch({"number": np.arange(first, first + count)}, StringTable(), first)


def take(queue: Queue, limit: int = 1 << 40) -> list[int]:
    taken = queue.take(limit)
    return [] if taken is None else taken["number"].tolist()


def test_what_is_sent_stays_until_it_is_acknowledged() -> None:
    queue = Queue(Stage("sink"), 100)
    assert queue.begin(acknowledged=True) == 0
    queue.put(marked(0, 10))
    queue.put(marked(10, 10))
    assert (take(queue, 6), take(queue)) == (list(range(6)), list(range(6, 10)))
    queue.sent(8)
    assert (len(queue), queue.unacknowledged, queue.taken, queue.mark) == (20, 8, 2, 0)
    queue.acknowledge(5)
    assert (len(queue), queue.unacknowledged, queue.mark) == (15, 3, 0)
    queue.acknowledge(3)  # an older answer changes nothing
    assert len(queue) == 15
    queue.sent(2)
    queue.acknowledge(10)
    assert (len(queue), queue.unacknowledged, queue.mark) == (10, 0, 10)
    assert (queue.stage.sent, queue.stats.acknowledged, queue.stats.sent) == (10, 10, 10)
    balanced(queue)


def test_what_a_session_did_not_confirm_comes_first_in_the_next() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 10))
    take(queue)
    queue.sent(7)
    queue.acknowledge(2)
    queue.put(marked(10, 5))
    assert queue.begin(acknowledged=True) == 5
    assert (queue.waiting, queue.unacknowledged, queue.mark) == (13, 0, 0)
    assert [number for _ in range(4) for number in take(queue)] == list(range(2, 15))
    queue.sent(13)
    assert (queue.stats.sent, queue.stats.sent_again) == (20, 5)
    queue.acknowledge(13)
    assert (len(queue), queue.mark, queue.stage.sent) == (0, SETTLED, 15)
    balanced(queue)


def test_a_peer_that_does_not_acknowledge_gets_what_another_did_not_confirm() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 4))
    take(queue)
    queue.sent(4)
    assert queue.begin() == 4
    assert take(queue) == [0, 1, 2, 3]
    queue.sent(4)
    assert (len(queue), queue.stage.sent) == (0, 4)
    with pytest.raises(ValueError, match="acknowledged"):
        queue.acknowledge(1)


def unconfirmed(queue: Queue, sent: int, count: int) -> None:
    """Put records, and lose the session in which the first were sent."""
    queue.begin(acknowledged=True)
    queue.put(marked(0, count))
    take(queue)
    queue.sent(sent)
    queue.rewind()


def test_what_was_sent_before_is_not_taken_together_with_what_was_not() -> None:
    """Who sends a batch in another order would else not send it first."""
    queue = Queue(Stage("sink"), 100)
    unconfirmed(queue, 4, 10)
    queue.put(marked(10, 3))
    assert queue.begin(acknowledged=True) == 4
    assert [take(queue, 3), take(queue)] == [[0, 1, 2], [3]]
    assert take(queue)[:2] == [4, 5]


@pytest.mark.parametrize("read", [True, False])
def test_what_was_sent_before_may_be_kept_from_a_peer(read: bool) -> None:
    queue = Queue(Stage("sink"), 100)
    unconfirmed(queue, 4, 10)
    assert queue.begin() == 4
    assert queue.keep_from_repeating(read=read) == 4
    assert take(queue) == list(range(4, 10))
    assert (queue.stage.sent, queue.stage.dropped) == ((4, {}) if read else (0, {"unconfirmed": 4}))
    assert queue.keep_from_repeating(read=read) == 0
    balanced(queue)


def test_what_a_process_before_had_may_be_sent_again_or_not() -> None:
    """Who acknowledges is told that it may come again; who does not gets it as if it were new."""
    queue = Queue(Stage("sink"), 100)
    queue.put(marked(4, 6))
    queue.stage.received += 4
    queue.take_over(Unsettled([marked(0, 4)], repeated=4, doubtful=4))
    assert queue.begin(acknowledged=True) == 4
    assert take(queue, 3) == [0, 1, 2]
    queue.sent(3)
    assert queue.begin() == 4
    assert queue.keep_from_repeating(read=False) == 3  # those are certain by now
    assert take(queue) == [3]
    assert queue.stage.dropped == {"unconfirmed": 3}
    balanced(queue)
    assert queue.release().doubtful == 0


def test_what_may_not_have_been_sent_is_not_withheld_for_being_taken() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.stage.received = 6
    queue.take_over(Unsettled([marked(0, 6)], repeated=6, doubtful=4))
    queue.begin()
    assert take(queue, 4) == [0, 1, 2, 3]
    queue.sent(3)  # settled: the peer acknowledges nothing
    queue.begin()
    assert queue.keep_from_repeating(read=False) == 0
    assert (take(queue) + take(queue), queue.stage.sent) == ([3, 4, 5], 3)
    balanced(queue)


@pytest.mark.parametrize(
    ("kept", "read", "lost", "books", "left"),
    [
        ({4}, False, 7, {"unconfirmed": 4, "stopped": 3}, (2, [[4, 5], [6, 7, 8, 9]])),
        ({4}, True, 3, {"sent": 4, "stopped": 3}, (2, [[4, 5], [6, 7, 8, 9]])),
        ({0, 10}, False, 6, {"unconfirmed": 2, "stopped": 4}, (4, [[0, 1, 2, 3], [10, 11, 12]])),
        ({0, 10}, True, 6, {"stopped": 6}, (4, [[0, 1, 2, 3], [10, 11, 12]])),
        (set(), False, 13, {"unconfirmed": 6, "stopped": 7}, (0, [])),
    ],
)
def test_what_others_have_is_not_given_up(
    kept: set[int],
    read: bool,
    lost: int,
    books: dict[str, int],
    left: tuple[int, list[list[int]]],
) -> None:
    """Of 13 records 4 were sent before, and 2 perhaps."""
    queue = Queue(Stage("sink"), 100)
    queue.keep_marks_apart()
    queue.stage.received = 10
    queue.take_over(Unsettled([marked(0, 4), marked(4, 6)], repeated=6, doubtful=2))
    queue.put(marked(10, 3))
    number = queue.give_up(ExportDropped.STOPPED, unless=kept.__contains__, read=read)
    assert number == lost
    assert {"sent": queue.stage.sent} | queue.stage.dropped == {"sent": 0} | books
    balanced(queue)
    assert (queue.begin(acknowledged=True), drain(queue)) == left


def test_what_was_sent_is_given_up_as_unconfirmed() -> None:
    queue = Queue(Stage("sink"), 100)
    unconfirmed(queue, 4, 10)
    queue.begin(acknowledged=True)
    take(queue, 2)
    queue.sent(1)
    assert queue.acknowledgeable == 2
    assert queue.abandon(ExportDropped.STOPPED) == 10
    assert queue.stage.dropped == {"unconfirmed": 4, "stopped": 6}
    balanced(queue)


def test_an_answer_may_come_before_the_sending_is_over() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 10))
    take(queue)
    queue.acknowledge(6)
    assert (queue.taken, len(queue)) == (4, 4)
    queue.sent(10)
    assert (queue.taken, queue.unacknowledged, queue.stage.sent) == (0, 4, 6)
    queue.acknowledge(10)
    balanced(queue)
    assert len(queue) == 0


def test_what_was_sent_again_and_acknowledged_early_comes_no_third_time() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(marked(0, 10))
    queue.begin(acknowledged=True)
    take(queue)
    queue.sent(10)
    assert queue.begin(acknowledged=True) == 10
    take(queue)
    queue.acknowledge(6)
    queue.put(marked(10, 10))
    assert queue.begin() == 4
    assert queue.keep_from_repeating(read=False) == 4
    assert take(queue) == list(range(10, 20))
    assert queue.stage.dropped == {"unconfirmed": 4}
    balanced(queue)


@pytest.mark.parametrize("total", [4, 1 << 60])
def test_more_is_acknowledged_than_was_sent(total: int) -> None:
    queue = Queue(Stage("sink"), 100)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 10))
    take(queue, 3)
    queue.sent(3)
    with pytest.raises(ValueError, match=str(total)):
        queue.acknowledge(total)
    assert len(queue) == 10


def test_a_full_queue_forgets_first_what_was_sent() -> None:
    queue = Queue(Stage("sink"), 20)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 10))
    take(queue)
    queue.sent(10)
    queue.put(marked(10, 14))
    assert (len(queue), queue.stage.held(), queue.stage.dropped) == (20, 24, {})
    queue.acknowledge(3)  # of those that were forgotten: they are durable after all
    assert (len(queue), queue.stage.held(), queue.stage.sent) == (20, 21, 3)
    balanced(queue)
    queue.acknowledge(6)
    assert (len(queue), queue.unacknowledged) == (18, 4)
    queue.rewind()
    queue.put(marked(24, 8))
    assert queue.stage.dropped == {"unconfirmed": 4, "queue-full": 2}
    assert take(queue) == list(range(12, 24))
    balanced(queue)


@pytest.mark.parametrize("end", ["rewind", "abandon"])
def test_what_was_forgotten_is_unconfirmed_when_the_session_ends(end: str) -> None:
    queue = Queue(Stage("sink"), 10)
    queue.begin(acknowledged=True)
    queue.put(marked(0, 10))
    take(queue)
    queue.sent(10)
    queue.put(marked(10, 6))
    queue.acknowledge(2)
    with pytest.raises(ValueError, match="17"):
        queue.acknowledge(17)
    assert (queue.stage.sent, queue.stage.held()) == (2, 14)
    if end == "rewind":
        queue.rewind()
        assert queue.stage.dropped == {"unconfirmed": 4}
    else:
        assert queue.abandon(ExportDropped.STOPPED) == 14
        assert queue.stage.dropped == {"unconfirmed": 8, "stopped": 6}
    balanced(queue)


@pytest.mark.parametrize("apart", [False, True])
def test_small_batches_that_are_sent_take_no_more_memory_than_their_records(apart: bool) -> None:
    """As a quiet node has them while the collector acknowledges nothing; in pieces of a file."""
    queue = Queue(Stage("sink"), 10_000, max_bytes=100 * size_of(batch(0, 1)))
    if apart:
        queue.keep_marks_apart()
    queue.begin(acknowledged=True)
    for number in range(900):
        one = batch(number, 1)
        one.mark = 5 + number // 300
        queue.put(one)
        queue.take()
        queue.sent(1)
    assert (len(queue), queue.stage.held(), queue.mark) == (900, 900, 5)
    queue.acknowledge(299)
    assert queue.mark == 5
    queue.acknowledge(301)
    assert queue.mark == (6 if apart else 5)
    assert queue.begin(acknowledged=True) == 599
    assert [number for taken in drain(queue) for number in taken] == list(range(301, 900))
    balanced(queue)


def test_bytes_of_what_is_sent_count_as_well() -> None:
    queue = Queue(Stage("sink"), 1 << 20, 5000)
    queue.begin(acknowledged=True)
    for first in range(0, 1000, 100):
        queue.put(batch(first, 100))
        taken = queue.take()
        assert taken is not None
        queue.sent(len(taken))
        queue.put(marked(first, 0))
        assert queue.bytes <= 5000
    assert queue.stage.dropped == {}
    balanced(queue)
    queue.rewind()
    assert queue.stage.dropped["unconfirmed"] > 0
    balanced(queue)


def large() -> StringTable:
    """A table of texts that alone takes more than the queues here may."""
    table = StringTable()
    for number in range(8):
        table.intern(b"%d" % number * 10_000)
    return table


@pytest.mark.parametrize("taken", [False, True])
def test_a_large_table_that_was_left_behind_costs_nothing_that_waits(taken: bool) -> None:
    queue = Queue(Stage("sink"), 1 << 20, 50_000)
    old, new = large(), StringTable()
    queue.put(batch(0, 10, old))
    if taken:
        queue.take()
    queue.put(batch(10, 10, old))
    for first in range(20, 60, 10):
        queue.put(batch(first, 10, new))
    assert (len(queue), queue.stage.dropped) == (60, {})
    assert queue.bytes > 50_000, "what it takes is said all the same"


def test_of_several_tables_that_were_left_behind_only_the_oldest_has_room_elsewhere() -> None:
    queue = Queue(Stage("sink"), 1 << 20, 50_000)
    queue.put(batch(0, 10, large()))
    queue.take()
    for first in (10, 20, 30):
        queue.put(batch(first, 10, large()))
    assert queue.stage.dropped == {"queue-full": 20}
    queue.rewind()
    assert drain(queue) == [list(range(10)), list(range(30, 40))]
    balanced(queue)


def test_the_records_in_the_order_that_they_are_sent_in() -> None:
    queue = Queue(Stage("sink"), 100)
    queue.put(marked(3, 4))
    taken = queue.take()
    assert taken is not None
    queue.rewrite(taken.take(np.array([3, 2, 1, 0])))
    queue.sent(1)
    queue.rewind()
    assert (queue.mark, take(queue)) == (3, [5, 4, 3])
    with pytest.raises(ValueError, match="in the place of"):
        queue.rewrite(marked(0, 2))
    with pytest.raises(ValueError, match="in the place of"):
        queue.rewrite(marked(0, 4), OutgoingDropped.OVERSIZE)
    queue.rewrite(marked(0, 0), OutgoingDropped.OVERSIZE)
    assert (queue.taken, queue.mark) == (0, SETTLED)
    balanced(queue)


STEPS = ["put", "take", "sent", "acknowledge", "lost", "plain"]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(5, 40),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 12)), max_size=60),
)
def test_a_record_is_held_delivered_or_in_the_books(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    """Against a model of lists: what is not settled is there, in order, whatever happens."""
    queue = Queue(Stage("sink"), capacity)
    queue.begin(acknowledged=True)
    made = taken = sent = confirmed = 0
    durable: set[int] = set()
    session: list[int] = []  # what this one was given to send, in order
    acknowledging = True
    for what, number in steps:
        if what == "put":
            queue.put(marked(made, number))
            made += number
        elif what == "take":
            found = take(queue, number + 1)
            session += found
            taken += len(found)
        elif what == "sent":
            left_to_send = min(number, taken - sent)
            queue.sent(left_to_send)
            sent += left_to_send
            if not acknowledging:
                durable.update(session[:sent])
        elif what == "acknowledge" and acknowledging:
            confirmed = max(confirmed, min(number, taken))  # also what `sent` is not told of yet
            queue.acknowledge(min(number, taken))
            durable.update(session[:confirmed])
        elif what in {"lost", "plain"}:
            acknowledging = what == "lost"
            queue.begin(acknowledged=acknowledging)
            taken = sent = confirmed = 0
            session = []
        assert queue.leaving == taken - sent
        assert queue.stage.imbalance == 0
        assert len(queue) <= capacity + queue.taken
    queue.begin()  # which is when what was forgotten is lost
    dropped = sum(queue.stage.dropped.values())
    left: list[int] = []
    while found := take(queue):
        queue.sent(len(found))
        left += found
    assert left == sorted(set(left))
    assert len(durable | set(left)) >= made - dropped
    assert queue.stage.sent == made - dropped
