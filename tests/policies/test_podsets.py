"""Which peers a Pod is: as trying each says, but without trying each."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.policies.model import Pods
from flowvis.policies.podsets import PodSets
from flowvis.policies.selectors import Requirement, Selector

from .cluster import Cluster, Connection, Pod, network_policy

KEYS, VALUES = st.sampled_from("abc"), st.sampled_from("xyz")
LABELS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyzw"))


@st.composite
def selectors(draw: Any) -> Selector:
    requirements = []
    for _ in range(draw(st.integers(0, 3))):
        operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
        valued = operator in {"In", "NotIn"}
        values = draw(st.frozensets(VALUES, min_size=1)) if valued else frozenset()
        requirements.append(Requirement(draw(KEYS), operator, values))
    return Selector(tuple(requirements))


PEERS = st.builds(
    Pods,
    namespace=st.sampled_from([None, None, "front", "back"]),
    namespaces=selectors(),
    pods=selectors(),
    account=st.sampled_from(["", "", "reader"]),
)


@given(
    st.lists(PEERS, unique=True, max_size=12),
    st.sampled_from(["front", "back", "else"]),
    LABELS,
    LABELS,
    st.sampled_from(["", "reader", "writer"]),
)
def test_it_finds_what_trying_each_finds(
    peers: list[Pods],
    namespace: str,
    named: dict[str, str],
    labels: dict[str, str],
    account: str,
) -> None:
    sets = PodSets((peer, number) for number, peer in enumerate(peers))
    found = sets.of(sets.near(namespace, named), account, sets.named(labels.items()))
    wanted = [n for n, peer in enumerate(peers) if peer.select(namespace, named, labels, account)]
    assert sorted(found) == wanted


@pytest.mark.parametrize("operator", ["NotIn", "DoesNotExist"])
def test_many_peers_of_one_policy_are_not_tried_on_each_pod(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [Pod("shop", f"p{n}", f"10.0.{n >> 8}.{n & 255}", f'{{"n":"{n}"}}') for n in range(300)]
    cluster = Cluster(pods)
    cluster.apply(_with_peers(operator, 900))
    looked = 0
    holds = Requirement.holds

    def counted(requirement: Requirement, labels: Mapping[str, str]) -> bool:
        nonlocal looked
        looked += 1
        return holds(requirement, labels)

    with monkeypatch.context() as patch:
        patch.setattr(Requirement, "holds", counted)
        found = cluster.decide(
            [Connection(f"shop/{pod.name}", f"shop/{pods[0].name}") for pod in pods[1:]]
        )
    assert {verdict["ingress"].name for verdict in found} == {"hostile"}
    assert looked < 10_000, "300 Pods, 900 selectors"


def _with_peers(operator: str, count: int) -> dict[str, Any]:
    """A policy with so many peers, each of a selector of its own that every Pod fits."""
    values = {"values": ["x"]} if operator == "NotIn" else {}
    choices = [
        {"podSelector": {"matchExpressions": [{"key": f"k{n}", "operator": operator, **values}]}}
        for n in range(count)
    ]
    return network_policy("hostile", "shop", podSelector={}, ingress=[{"from": choices}])
