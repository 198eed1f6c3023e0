import numpy as np
import pytest

from flowvis.policies import history
from flowvis.policies.history import KEPT_MS, MAX_EPOCHS, ObjectHistory
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
    assert dict(kept.values(int(kept.epochs(np.array([NOW + 300_000]))[0])))[objects[1]] == 299
