import copy
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.policies import Policies
from flowvis.policies.objects import KINDS, PARSERS, Snapshot, created_ms, key_of, parse
from flowvis.policies.rulebook import Rulebook
from flowvis.policies.selectors import parse_selector
from policies.cluster import admin_policy, antrea, matching, namespace, network_policy, service

CHOICE = {"namespaces": matching(a="b")}
GOOD = [
    namespace("x"),
    {"kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"}},
    network_policy(
        "p",
        ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        egress=[{"to": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}]}],
    ),
    admin_policy(
        "AdminNetworkPolicy",
        "p",
        subject=CHOICE,
        ingress=[{"action": "Allow", "from": [CHOICE], "ports": [{"portNumber": {"port": 80}}]}],
    ),
    admin_policy(
        "ClusterNetworkPolicy",
        "p",
        tier="Admin",
        subject=CHOICE,
        egress=[{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]}],
    ),
    antrea(
        "ClusterNetworkPolicy",
        "p",
        appliedTo=[{"podSelector": {}}],
        ingress=[{"action": "Drop", "from": [{"group": "g"}], "ports": [{"port": "http"}]}],
    ),
    admin_policy(
        "BaselineAdminNetworkPolicy",
        "older",
        subject={"pods": {"namespaceSelector": {}, "podSelector": matching(a="b")}},
        egress=[
            {
                "action": "Deny",
                "to": [
                    {"namespaces": {"sameLabels": ["a"]}},
                    {"pods": {"namespaces": {"notSameLabels": ["a"]}, "podSelector": {}}},
                ],
            }
        ],
    ),
    antrea(
        "NetworkPolicy",
        "p",
        "x",
        appliedTo=[{"group": "g"}],
        egress=[
            {
                "action": "Drop",
                "to": [{"namespaces": {"match": "Self"}}, {"nodeSelector": {}}],
                "protocols": [{"icmp": {"icmpType": 8}}],
            }
        ],
    ),
    antrea("Group", "s", "x", serviceReference={"namespace": "x", "name": "s"}),
    service("s", "x", app="a"),
    antrea("ClusterGroup", "g", ipBlocks=[{"cidr": "10.0.0.0/8"}]),
    antrea("Tier", "t", priority=9),
]


def read(item: Any) -> Any:
    key = key_of(item, PARSERS)
    return None if key is None else parse(key, item, PARSERS)


def change(item: Any, path: str, value: Any) -> Any:
    found = copy.deepcopy(item)
    *way, last = path.split(".")
    at = found
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return found


@pytest.mark.parametrize(
    ("item", "path", "value", "problem"),
    [
        (GOOD[0], "metadata.name", "", "Namespace: metadata.name is missing"),
        (GOOD[2], "spec.ingress.0.from.0.ipBlock.cidr", "x", "NetworkPolicy x/p: 'x' does not"),
        (GOOD[2], "spec.egress.0.ports.0.protocol", "ICMP", "protocol 'ICMP': allowed are TCP"),
        (GOOD[2], "spec.egress.0.ports.0.endPort", 70, "ports 80-70"),
        (GOOD[3], "spec.ingress.0.action", "Maybe", "no or bad value for 'Maybe'"),
        (GOOD[4], "spec.tier", "Best", "ClusterNetworkPolicy p: tier 'Best': allowed are Admin"),
        (GOOD[5], "spec.ingress.0.from", 5, "ClusterNetworkPolicy p: "),
        (GOOD[2], "metadata.namespace", None, "NetworkPolicy p: metadata.namespace is missing"),
        (GOOD[2], "metadata.namespace", ["x"], "NetworkPolicy: metadata.name and metadata.namespa"),
        (GOOD[-1], "spec", None, "Tier t: "),
        (GOOD[-1], "spec.priority", float("inf"), "Tier t: cannot convert float infinity"),
        (GOOD[-1], "spec.priority", float("nan"), "Tier t: cannot convert float NaN"),
    ],
)
def test_malformed_objects_are_named(item: Any, path: str, value: Any, problem: str) -> None:
    read(item)
    with pytest.raises(ValueError, match=problem):
        read(change(item, path, value))


scalars = st.none() | st.booleans() | st.integers(-9, 70000) | st.floats() | st.text(max_size=3)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def paths(item: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [so_far] if so_far else []
    items = item.items() if isinstance(item, dict) else enumerate(item)
    for key, value in items:
        deeper = isinstance(value, dict | list)
        found += paths(value, (*so_far, key)) if deeper else [(*so_far, key)]
    return found


@settings(max_examples=300)
@given(st.data(), st.sampled_from(GOOD), anything)
def test_any_damage_is_a_value_error(data: Any, good: Any, value: Any) -> None:
    item = copy.deepcopy(good)
    *way, last = data.draw(st.sampled_from(paths(item)))
    at = item
    for step in way:
        at = at[step]
    at[last] = value
    policies = Policies()
    with suppress(ValueError):
        policies.upsert(item, 0)
    Rulebook(Snapshot.of(policies._history.values(0)))


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "Near", "values": ["b"]},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["b"]},
    ],
)
def test_malformed_selectors(expression: Any) -> None:
    with pytest.raises(ValueError, match="operator"):
        parse_selector({"matchExpressions": [expression]})


def test_times_of_creation() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for when in (moment, "2026-01-01T00:00:00Z"):
        assert created_ms({"metadata": {"creationTimestamp": when}}) == 1_767_225_600_000
    assert created_ms({"metadata": {}}) is None
    for when in ("soon", "0001-01-01T00:00:00", datetime(1, 1, 1)):  # noqa: DTZ001  before all
        assert created_ms({"metadata": {"creationTimestamp": when}}) is None


def test_every_kind_has_a_group() -> None:
    assert ("networking.k8s.io", "NetworkPolicy") in KINDS
    assert {group for group, _ in KINDS} == {
        "",
        "networking.k8s.io",
        "policy.networking.k8s.io",
        "crd.antrea.io",
    }
