from contextlib import ExitStack

import pytest

from flowvis.aggregator.api.latest import (
    FIRST_ONES,
    MAX_FOLLOWERS,
    MAX_OF_ONE,
    LatestRecords,
    TooManyFollowers,
)
from flowvis.backlog import size_of
from flowvis.runtime.dropped import OutgoingDropped

from .records import numbered, records


def latest(history: LatestRecords, limit: int) -> list[int]:
    return [number for b in history.latest(limit) for number in b["octetTotalCount"].tolist()]


def test_the_latest_records_are_kept_oldest_first() -> None:
    history = LatestRecords(5)
    for first in (0, 3, 6):
        history.put(numbered(first, 3))
    assert len(history) == 5
    assert latest(history, 100) == [4, 5, 6, 7, 8]
    assert latest(history, 2) == [7, 8]
    assert latest(history, 0) == []


def test_batches_that_nobody_can_see_are_forgotten() -> None:
    history = LatestRecords(4)
    for first in range(0, 100, 2):
        history.put(numbered(first, 2))
    assert len(history._backlog) == 2


async def test_a_follower_gets_what_comes_and_is_reported_what_it_missed() -> None:
    history = LatestRecords(4)
    history.put(numbered(0, 1))
    with history.follow() as coming:
        history.put(numbered(1, 3))
        history.put(numbered(4, 3))
        assert coming.stage.dropped == {OutgoingDropped.QUEUE_FULL: 2}
        batch = await coming.next(10)
        assert batch is not None
        assert batch["octetTotalCount"].tolist() == [3]
        history.close()
        assert await coming.next(10) is not None
        assert await coming.next(10) is None
    history.put(numbered(7, 1))
    assert len(coming) == 4


def test_followers_are_bounded() -> None:
    history = LatestRecords(1)
    contexts = [history.follow(str(owner)) for owner in range(MAX_FOLLOWERS)]
    for context in contexts:
        context.__enter__()
    with pytest.raises(TooManyFollowers, match="16 followers"), history.follow():
        pass
    contexts[0].__exit__(None, None, None)
    with history.follow():
        pass


def test_a_few_callers_do_not_keep_all_others_from_following() -> None:
    history = LatestRecords(1)
    with ExitStack() as followed:
        for owner, most in (("a", MAX_OF_ONE), ("b", MAX_FOLLOWERS - FIRST_ONES - MAX_OF_ONE)):
            for _ in range(most):
                followed.enter_context(history.follow(owner))
            with pytest.raises(TooManyFollowers, match="followers"), history.follow(owner):
                pass
        for number in range(FIRST_ONES):
            followed.enter_context(history.follow(str(number)))
        with pytest.raises(TooManyFollowers, match="16 followers"), history.follow("late"):
            pass


def test_the_latest_records_are_bounded_in_bytes_as_well() -> None:
    one = size_of(numbered(0, 100))
    history = LatestRecords(1_000_000, 2 * 5 * one)
    with history.follow() as follower:
        for first in range(0, 5000, 100):
            history.put(numbered(first, 100))
            assert history.bytes <= 2 * 5 * one
        assert latest(history, 10) == list(range(4990, 5000))
        assert 0 < len(history) <= 500
        assert len(follower) < 500
        assert follower.stage.dropped["queue-full"] > 4000


def test_for_how_long_back_all_is_remembered() -> None:
    now = [100.0]
    history = LatestRecords(10, clock_s=lambda: now[0])
    assert LatestRecords(10).whole_since_s is None
    for second in range(5):  # at 100, 102, ... 108
        now[0] = 100.0 + 2 * second
        history.put(records(*[{}] * 3))
    assert history.put_records == 15
    now[0] = 110.0
    # The oldest five are forgotten: all of 100, and of 102 two. So of 104 and later nothing is.
    assert history.whole_since_s == 6.0
    assert history.put_within(3) >= 3
    assert history.put_within(7) >= 9
    assert history.put_within(1000) == 10
    history.put(records(*[{}] * 20))
    assert history.whole_since_s == 0.0


def test_what_was_put_within_is_never_too_little() -> None:
    now = [0.0]
    history = LatestRecords(1000, clock_s=lambda: now[0])
    put: list[float] = []
    for step in range(200):
        now[0] += (step * 7 % 10) / 10
        history.put(records({}))
        put.append(now[0])
        for seconds in (0.5, 3, 20):
            found = history.put_within(seconds)
            assert found >= sum(at > now[0] - seconds for at in put)
            assert found <= sum(at >= now[0] - seconds - 2 for at in put)
