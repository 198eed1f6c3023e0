"""Places for queries: who waits for whom."""

import asyncio

import pytest

from flowvis.aggregator.api import places
from flowvis.aggregator.api.places import OURS, QueryPlaces
from flowvis.aggregator.api.problems import Problem


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def begun(*owners: str, of: QueryPlaces) -> list["asyncio.Task[None]"]:
    """Have owners ask, one after the other."""
    tasks = []
    for owner in owners:
        tasks.append(asyncio.ensure_future(of.turn(owner)))
        await asyncio.sleep(0)
    return tasks


def through(tasks: list["asyncio.Task[None]"]) -> list[bool]:
    return [task.done() for task in tasks]


async def end(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_asks_alone_has_all_places() -> None:
    shared = QueryPlaces(lambda: 2)
    tasks = await begun("a", "a", "a", places.OURS, of=shared)
    assert through(tasks) == [True, True, False, False]
    shared.leave("a")
    await asyncio.sleep(0)
    assert through(tasks) == [True, True, True, False] or through(tasks)[3]
    await end(tasks)


async def test_who_has_fewest_is_next() -> None:
    shared = QueryPlaces(lambda: 3)
    tasks = await begun("a", "a", "a", "a", "a", "b", "c", of=shared)
    assert through(tasks) == [True] * 3 + [False] * 4
    for expected in (5, 6):
        shared.leave("a")
        await asyncio.sleep(0)
        assert tasks[expected].done()
    assert not tasks[3].done()
    await end(tasks)


async def test_nobody_has_all_while_others_ask() -> None:
    clock = Clock()
    shared = QueryPlaces(lambda: 2, clock)
    tasks = await begun("b", of=shared)
    shared.leave("b")
    tasks += await begun("a", "a", "b", of=shared)
    assert through(tasks) == [True, True, False, True], "the second place is not only a's"
    shared.leave("b")
    await asyncio.sleep(0)
    assert not tasks[2].done()
    clock.now_s = places.OTHERS_S + 1
    (last,) = await begun("a", of=shared)
    assert last.done(), "nobody else has asked for a while"
    await end([*tasks, last])


async def test_what_the_aggregator_asks_by_itself_hides_nobody() -> None:
    """Between two people's questions values for completions are asked for."""
    shared = QueryPlaces(lambda: 2, Clock())
    await begun("anna", of=shared)
    shared.leave("anna")
    tasks = await begun("bob", OURS, of=shared)
    shared.leave(OURS)
    tasks += await begun("bob", "anna", of=shared)
    assert through(tasks) == [True, True, False, True], "the second place is not only bob's"
    await end(tasks)


async def test_what_waits_is_bounded_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_WAITING", 4)
    shared = QueryPlaces(lambda: 1)
    tasks = await begun("a", "a", "a", of=shared)
    with pytest.raises(Problem, match="2 questions wait"):
        await shared.turn("a")
    more = await begun("b", "b", of=shared)
    with pytest.raises(Problem, match="4 questions wait"):
        await shared.turn("c")
    for task in [*tasks[1:], more[0]]:
        task.cancel()
    await asyncio.sleep(0)
    shared.leave("a")
    await asyncio.sleep(0)
    assert through(more) == [True, True]
    assert shared.taken == 1
    shared.leave("b")
    assert shared.taken == 0


async def test_waiting_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WAIT_S", 0.01)
    shared = QueryPlaces(lambda: 1)
    await shared.turn("a")
    with pytest.raises(Problem, match="none ended in"):
        await shared.turn("b")
    shared.leave("a")
    await shared.turn("b")
    assert shared.taken == 1


async def test_who_is_called_as_they_leave_gives_the_place_on() -> None:
    shared = QueryPlaces(lambda: 1)
    await shared.turn("a")
    first, second = await begun("b", "c", of=shared)
    shared.leave("a")
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert second.done()
    assert shared.taken == 1
    await end([first, second])
