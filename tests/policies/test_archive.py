from typing import Any

import pytest

from flowvis.policies import Policies, archive
from flowvis.policies.archive import KEPT_MS, ObjectArchive
from flowvis.policies.objects import Key

from .cluster import network_policy

NOW = 2 * KEPT_MS
BEGAN = NOW - 1000


def key(name: str) -> Key:
    return "", "Namespace", "", name


def at(kept: ObjectArchive, time_ms: int) -> dict[str, Any]:
    return {name: value for (_, _, _, name), value in kept.at(time_ms)}


def test_objects_at_any_time() -> None:
    kept = ObjectArchive(BEGAN)
    kept.put(key("a"), 1, NOW - 5000)
    kept.put(key("a"), 1, NOW)  # the same again
    kept.put(key("a"), 2, NOW + 10)
    kept.put(key("b"), 3, NOW + 20)
    kept.put(key("a"), None, NOW + 30)
    kept.put(key("a"), 4, NOW + 40)
    found = [at(kept, NOW + then) for then in (-5001, -5000, 10, 20, 30, 40)]
    assert found == [{}, {"a": 1}, {"a": 2}, {"a": 2, "b": 3}, {"b": 3}, {"a": 4, "b": 3}]
    assert kept.known_from_ms == BEGAN
    assert (kept.changes, kept.changed_ms) == (5, NOW + 40)
    kept.put(key("none"), None, NOW + 50)
    assert (kept.changes, kept.changed_ms) == (5, NOW + 40)


def test_what_was_over_long_ago_is_forgotten_and_says_so() -> None:
    kept = ObjectArchive(BEGAN)
    kept.put(key("a"), 1, NOW)
    kept.put(key("b"), 1, NOW)
    kept.put(key("a"), 2, NOW + 10)
    kept.put(key("b"), None, NOW + 20)
    kept.expire(NOW + 9 + KEPT_MS)
    assert (len(kept), kept.known_from_ms) == (4, BEGAN)
    kept.expire(NOW + 10 + KEPT_MS)
    assert (len(kept), kept.known_from_ms) == (3, NOW + 10)
    assert at(kept, NOW + 10) == {"a": 2, "b": 1}
    kept.expire(NOW + 20 + KEPT_MS)
    assert (len(kept), kept.known_from_ms) == (1, NOW + 20)
    assert at(kept, NOW + 20) == {"a": 2}


def test_changes_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_CHANGES", 10)
    kept = ObjectArchive(BEGAN)
    for number in range(100):
        kept.put(key("a"), number, NOW + number)
        kept.put(key(f"b{number}"), number, NOW + number)
        kept.put(key(f"b{number}"), None, NOW + number)
    assert len(kept) <= 1 + 2 * 10
    assert NOW + 90 <= kept.known_from_ms <= NOW + 99
    for then in range(kept.known_from_ms, NOW + 100):
        assert at(kept, then)["a"] == then - NOW


def test_what_nothing_depends_on_has_one_version() -> None:
    kept = ObjectArchive(BEGAN)
    kept.put(key("a"), 1, NOW, counts=False)
    kept.put(key("a"), 2, NOW + 10, counts=False)
    assert at(kept, NOW) == {"a": 2}
    kept.put(key("a"), 3, NOW + 20)
    assert [at(kept, NOW + then)["a"] for then in (0, 20)] == [2, 3]
    kept.put(key("b"), 1, NOW, counts=False)
    kept.put(key("b"), None, NOW, counts=False)
    assert (len(kept), kept.known_from_ms) == (2, BEGAN)


def test_large_objects_that_change_again_and_again_take_no_more_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy of some thousand addresses, written anew every few seconds, and a small one."""
    monkeypatch.setattr(archive, "MAX_VALUES", 10_000)
    kept = ObjectArchive(BEGAN)
    shared = tuple(range(1000))
    for number in range(100):
        kept.put(key("large"), (number, *range(1000)), NOW + 2 * number)
        kept.put(key("small"), {"label": "x" * number}, NOW + 2 * number + 1)
    assert 9 < len(kept) < 25
    assert kept.known_from_ms == NOW + 180
    assert at(kept, NOW + 180) == {"large": (90, *range(1000)), "small": {"label": "x" * 89}}
    kept.put(key("large"), (shared,) * 100, NOW + 300)  # which takes no hundred times as much
    kept.put(key("large"), None, NOW + 301)
    assert len(kept) > 15


def test_addresses_of_policies_count_as_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_VALUES", 10_000)
    policies = Policies()
    for number in range(20):
        listed = [{"ipBlock": {"cidr": f"10.{number}.0.{n}/32"}} for n in range(200)]
        item = network_policy("listed", "shop", ingress=[{"from": listed}])
        policies.upsert(item, NOW + number * 1000)
    assert len(policies._archive) < 6
    assert policies.known_from_ms > NOW + 10_000
