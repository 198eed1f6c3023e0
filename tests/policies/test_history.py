import numpy as np
import pytest

from flowvis.policies import history
from flowvis.policies.history import (
    BUSY,
    BUSY_MS,
    KEPT_MS,
    MAX_EPOCHS,
    WAIT_MS,
    ObjectHistory,
)
from flowvis.policies.objects import Key

NOW = 10 * KEPT_MS


def key(name: str) -> Key:
    return "", "Namespace", "", name


def names(kept: ObjectHistory, at: int) -> dict[str, int]:
    (epoch,) = kept.epochs(np.array([at])).tolist()
    return {name: value for (_, _, _, name), value in kept.values(epoch)}


def test_values_by_time() -> None:
    kept = ObjectHistory()
    assert kept.put(key("a"), 1, NOW, NOW) == NOW
    assert kept.put(key("a"), 2, NOW + 10, NOW + 10) == NOW + 10
    assert kept.put(key("b"), 3, NOW + 20, NOW + 20) == NOW + 20
    assert kept.put(key("a"), None, NOW + 30, NOW + 30) == NOW + 30
    found = [names(kept, NOW + at) for at in (-1, 0, 10, 29, 30)]
    assert found == [{}, {"a": 1}, {"a": 2}, {"a": 2, "b": 3}, {"b": 3}]
    assert list(kept) == [key("b")]


def test_what_does_not_change_makes_no_epoch() -> None:
    kept = ObjectHistory()
    kept.put(key("a"), 1, NOW, NOW)
    assert kept.put(key("a"), 1, NOW + 10, NOW + 10) is None
    assert kept.put(key("b"), None, NOW + 10, NOW + 10) is None
    assert len(kept) == 1


def test_a_time_before_the_last_version_is_moved_behind_it() -> None:
    kept = ObjectHistory()
    kept.put(key("a"), 1, NOW, NOW)
    assert kept.put(key("a"), 2, NOW - 10, NOW) == NOW
    assert names(kept, NOW - 5) == {}
    assert names(kept, NOW) == {"a": 2}


def test_epochs_are_bounded_and_the_newest_is_exact() -> None:
    kept = ObjectHistory()
    for number in range(100):
        kept.put(key("a"), number, NOW + number * number, NOW)
        assert names(kept, NOW + number * number) == {"a": number}
    times = np.arange(NOW - 1, NOW + 10_000)
    assert len(np.unique(kept.epochs(times))) == MAX_EPOCHS
    ages = [names(kept, time).get("a", -1) for time in times.tolist()]
    assert ages == sorted(ages)


def test_forgetting_what_changed_long_ago() -> None:
    kept = ObjectHistory()
    kept.put(key("a"), 1, NOW, NOW)
    kept.put(key("a"), 2, NOW + 10, NOW + 10)
    kept.put(key("b"), 3, NOW + 20, NOW + 20)
    kept.put(key("b"), None, NOW + 30, NOW + 30)
    kept.expire(NOW + 25 + KEPT_MS)
    assert names(kept, NOW) == {"a": 2, "b": 3}
    assert names(kept, NOW + 30) == {"a": 2}
    kept.expire(NOW + 30 + KEPT_MS)
    assert names(kept, NOW) == {"a": 2}
    assert len(kept) == 1


def test_objects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_OBJECTS", 2)
    kept = ObjectHistory()
    for name in "abc":
        kept.put(key(name), 1, NOW, NOW)
    assert (len(kept), kept.refused) == (2, 1)


@pytest.mark.parametrize(
    ("times", "epochs"),
    [
        ([], {}),
        ([NOW + 15], {NOW + 10: [0]}),
        ([NOW + 19, NOW + 10, NOW + 12], {NOW + 10: [0, 1, 2]}),
        ([5, NOW + 30, NOW + 10, 7, NOW + 25], {0: [0, 3], NOW + 10: [2], NOW + 20: [1, 4]}),
    ],
)
def test_times_are_split_by_their_epochs(times: list[int], epochs: dict[int, list[int]]) -> None:
    kept = ObjectHistory()
    for number in (10, 20):
        kept.put(key("a"), number, NOW + number, NOW)
    column = np.array(times, dtype=np.int64)
    found = {epoch: np.arange(len(times))[at].tolist() for epoch, at in kept.split(column)}
    assert found == epochs
    assert all((kept.epochs(column[at]) == epoch).all() for epoch, at in found.items())


def test_versions_that_no_epoch_has_are_forgotten() -> None:
    """A large policy that is written anew every second would else be there six hundred times."""
    kept, objects = ObjectHistory(), (key("a"), key("b"))
    for second in range(300):
        for number, one in enumerate(objects):
            kept.put(one, second, NOW + 1000 * second + number, NOW + 1000 * second + number)
    assert max(len(versions) for versions in kept._versions.values()) <= MAX_EPOCHS + 1
    times = NOW + np.arange(300) * 1000 + 500
    for second, epoch in enumerate(kept.epochs(times).tolist()):
        found = dict(kept.values(epoch))
        then = (epoch - NOW) // 1000
        assert found[objects[0]] == then <= second
    over = int(kept.epochs(np.array([NOW + 300_000 + WAIT_MS]))[0])
    assert dict(kept.values(over))[objects[1]] == 299


@pytest.mark.parametrize("every_ms", [70, 200, 1000, 5000, 9000])
def test_who_changes_an_object_all_the_time_hides_nothing_that_others_change(
    every_ms: int,
) -> None:
    """What was seconds ago is known to seconds; what was minutes ago less well."""
    kept, changed = ObjectHistory(), NOW + 700_000
    for now in range(NOW, NOW + 1_000_000, every_ms):
        if now - every_ms < changed <= now:
            kept.put(key("new"), 1, changed, now)
        kept.put(key("a"), now, now, now)
        if now % (7 * every_ms) == 0:
            kept.expire(now)
        ages = [age for age in (6000, 20_000, 60_000, 200_000) if now - age > changed]
        for age in ages:
            late = WAIT_MS + age // 2
            if now - age > changed + late:
                assert "new" in names(kept, now - age), (now - changed, age)


def test_many_changes_make_few_epochs() -> None:
    """Each has to be compiled before the next record can be decided over."""
    kept, seen = ObjectHistory(), set()
    for now in range(NOW, NOW + 200_000, 50):
        kept.put(key("a"), now, now, now)
        seen |= set(kept.epochs(np.arange(now - 30_000, now + 1, 1000)).tolist())
    assert len(seen) <= BUSY + 200_000 // WAIT_MS + 2


def test_few_changes_count_at_once() -> None:
    kept = ObjectHistory()
    for at in range(BUSY):
        assert kept.put(key("a"), at, NOW + at, NOW + at) == NOW + at
    assert (
        kept.put(key("a"), -1, NOW + BUSY_MS + 5000, NOW + BUSY_MS + 5000) == NOW + BUSY_MS + 5000
    )


def test_what_waits_counts_together() -> None:
    kept = ObjectHistory()
    for at in range(BUSY):
        kept.put(key("a"), at, NOW + at, NOW + at)
    then = NOW + BUSY - 1 + WAIT_MS
    assert kept.put(key("b"), 1, NOW + 100, NOW + 100) == then
    assert kept.put(key("c"), 1, NOW + 4000, NOW + 4200) == then
    assert kept.put(key("b"), None, NOW + 4300, NOW + 4300) == then
    assert kept.put(key("d"), 1, NOW - 8000, NOW + 4400) == NOW - 8000, "it was there before"
    assert names(kept, then - 1) == {"a": BUSY - 1, "d": 1}
    assert names(kept, then) == {"a": BUSY - 1, "c": 1, "d": 1}
    assert kept.put(key("e"), 1, then - 60_000, then - 60_000) == then - 60_000, "a clock set back"
