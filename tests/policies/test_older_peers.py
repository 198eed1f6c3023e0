"""policy.networking.k8s.io/v1alpha1 as it was until network-policy-api v0.1.1.

Peers choose namespaces by `namespaceSelector`, `sameLabels` or `notSameLabels`; newer ones by a
selector. Both mean the same to both kinds, at both endpoints.
"""

from typing import Any

import pytest

from policies.cluster import (
    NOTHING,
    NOW,
    Cluster,
    Pod,
    admin_policy,
    expression,
    labels,
    matching,
    namespace,
    network_policy,
)

KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
TENANTS = {
    "red": {"tenant": "r", "stage": "live"},
    "rose": {"tenant": "r", "stage": "test"},
    "blue": {"tenant": "b", "stage": "live"},
    "grey": {"stage": "live"},
}


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster(
        [
            Pod(space, name, f"10.1.{at}.{n}", labels(app=name))
            for at, space in enumerate(TENANTS)
            for n, name in enumerate(("api", "job"))
        ]
    )
    found.apply(*(namespace(name, **pairs) for name, pairs in TENANTS.items()))
    return found


def policy(kind: str, side: str, *peers: Any, subject: Any = None) -> dict[str, Any]:
    direction = "ingress" if side == "from" else "egress"
    own = {"namespaces": matching(tenant="r", stage="live")} if subject is None else subject
    rule = {"name": "no", "action": "Deny", side: list(peers)}
    return admin_policy(kind, "older", subject=own, **{direction: [rule]})


def denied(cluster: Cluster, side: str) -> set[str]:
    """The Pods that red/job may not call, or be called by."""
    direction, found = ("ingress", "egress")[side == "to"], set()
    for pod in cluster.pods:
        other = f"{pod.namespace}/{pod.name}"
        endpoints = (other, "red/job") if side == "from" else ("red/job", other)
        verdict = cluster.one(*endpoints)[direction]
        if verdict.action:
            assert verdict == ("older", "", 4, "no", 2)
            found.add(other)
    return found


def every(*spaces: str) -> set[str]:
    return {f"{space}/{name}" for space in spaces for name in ("api", "job")} - {"red/job"}


CHOICES: list[tuple[Any, tuple[str, ...]]] = [
    ({"namespaceSelector": {}}, ("red", "rose", "blue", "grey")),
    ({"namespaceSelector": matching(stage="live")}, ("red", "blue", "grey")),
    ({"namespaceSelector": expression("tenant", "DoesNotExist")}, ("grey",)),
    ({"sameLabels": ["tenant"]}, ("red", "rose")),
    ({"sameLabels": ["stage", "tenant"]}, ("red",)),
    ({"sameLabels": ["missing"]}, ()),
    ({"sameLabels": []}, ()),
    ({"notSameLabels": ["tenant"]}, ("blue",)),
    ({"notSameLabels": ["tenant", "stage"]}, ("rose", "blue")),
    ({"notSameLabels": ["missing"]}, ()),
    ({"notSameLabels": []}, ()),
    # The newer form, under the same version.
    ({}, ("red", "rose", "blue", "grey")),
    (matching(tenant="b"), ("blue",)),
    (expression("stage", "NotIn", "live"), ("rose",)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["from", "to"])
@pytest.mark.parametrize(("choice", "spaces"), CHOICES)
def test_namespaces(
    cluster: Cluster, kind: str, side: str, choice: Any, spaces: tuple[str, ...]
) -> None:
    cluster.apply(policy(kind, side, {"namespaces": choice}))
    assert denied(cluster, side) == every(*spaces)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["from", "to"])
@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        (
            {"namespaces": {"notSameLabels": ["tenant"]}, "podSelector": matching(app="job")},
            {"blue/job"},
        ),
        (
            {"namespaces": {"sameLabels": ["tenant"]}, "podSelector": matching(app="api")},
            {"red/api", "rose/api"},
        ),
        (
            {
                "namespaces": {"namespaceSelector": matching(tenant="r", stage="test")},
                "podSelector": {},
            },
            {"rose/api", "rose/job"},
        ),
        (
            {"namespaceSelector": matching(tenant="b"), "podSelector": matching(app="api")},
            {"blue/api"},
        ),
    ],
)
def test_pods(cluster: Cluster, kind: str, side: str, pods: Any, expected: set[str]) -> None:
    cluster.apply(policy(kind, side, {"pods": pods}))
    assert denied(cluster, side) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "subject",
    [
        {"namespaces": matching(tenant="r", stage="live")},
        {"pods": {"namespaceSelector": matching(tenant="r"), "podSelector": matching(app="job")}},
        {"namespaces": {"namespaceSelector": matching(tenant="r")}},
    ],
)
def test_subjects(cluster: Cluster, kind: str, subject: Any) -> None:
    cluster.apply(policy(kind, "from", {"namespaces": {"sameLabels": ["stage"]}}, subject=subject))
    assert denied(cluster, "from") == every("red", "blue", "grey")
    assert cluster.one("red/api", "blue/api")["ingress"] == NOTHING


def test_labels_that_change_are_compared_as_they_were(cluster: Cluster) -> None:
    cluster.apply(policy("AdminNetworkPolicy", "to", {"namespaces": {"notSameLabels": ["tenant"]}}))
    cluster.apply(namespace("grey", tenant="g"), now_ms=NOW)
    before = cluster.one("red/api", "grey/api", start_ms=NOW - 1)["egress"]
    after = cluster.one("red/api", "grey/api", start_ms=NOW)["egress"]
    assert (before, after.action) == (NOTHING, 2)


STRANGE: list[Any] = [
    {"namespaces": {"zones": ["a"]}},
    {"namespaces": {"sameLabels": ["tenant"], "notSameLabels": ["stage"]}},
    {"namespaces": {"sameLabels": ["tenant"], "matchLabels": {"stage": "live"}}},
    {"namespaces": matching(tenant="b"), "identity": "x"},
    {"pods": {"namespaces": {}, "podSelector": {}}},
    {"pods": {"namespaces": {"anyOf": []}, "podSelector": {}}},
    {"pods": {"namespaceSelector": {}, "podSelector": {}, "owner": "x"}},
    {"pods": {"namespaceSelector": {"matchFields": {}}, "podSelector": {}}},
    {"pods": {"namespaceSelector": {}, "podSelector": expression("app", "Near", "api")}},
    {"identities": ["x"]},
    {},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["from", "to"])
@pytest.mark.parametrize("peer", STRANGE)
def test_what_is_not_understood_is_not_everything(
    cluster: Cluster, kind: str, side: str, peer: Any
) -> None:
    cluster.apply(policy(kind, side, {"namespaces": matching(tenant="b")}, peer))
    endpoints = ("grey/job", "red/job") if side == "from" else ("red/job", "grey/job")
    assert cluster.one(*endpoints)[("ingress", "egress")[side == "to"]] == NOTHING
    assert cluster.policies.stats.unknown == 1
    assert denied(cluster, side) == every("blue"), "a certain match stays certain"
    assert cluster.policies.stats.unrecognized == 1


@pytest.mark.parametrize(
    "subject", [{}, {"identities": []}, {"namespaces": {"sameLabels": ["tenant"], "x": 1}}]
)
def test_a_subject_that_is_not_understood_may_be_anybody(cluster: Cluster, subject: Any) -> None:
    peers = {"namespaces": matching(tenant="b")}
    cluster.apply(policy("AdminNetworkPolicy", "from", peers, subject=subject))
    for pod in ("grey/api", "red/job"):
        assert cluster.one("blue/job", pod)["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 2
    assert cluster.one("grey/job", "grey/api")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 2, "where it cannot matter it does not"


def test_network_policies_too(cluster: Cluster) -> None:
    strange: dict[str, Any] = {"podSelector": {}, "namespaceSelector": {"matchAnnotations": {}}}
    known = {"podSelector": matching(app="api")}
    cluster.apply(network_policy("a", "red", ingress=[{"from": [known]}, {"from": [strange]}]))
    assert cluster.one("red/api", "red/job")["ingress"].rule == "ingress[0]"
    assert cluster.policies.stats.unknown == 0
    assert cluster.one("blue/api", "red/job")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1


def test_a_network_policy_with_a_strange_subject_stays_in_its_namespace(cluster: Cluster) -> None:
    cluster.apply(network_policy("a", "red", podSelector={"celExpression": "true"}))
    assert cluster.one("blue/api", "red/job")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1
    assert cluster.one("blue/api", "grey/job")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1


def test_strange_ports(cluster: Cluster) -> None:
    ports = [{"portNumber": {"protocol": "TCP", "port": 443}}, {"portSet": "web"}]
    found = policy("AdminNetworkPolicy", "from", {"namespaces": {}})
    found["spec"]["ingress"][0]["ports"] = ports
    cluster.apply(found)
    assert cluster.one("blue/api", "red/job", 443)["ingress"].action == 2
    assert cluster.policies.stats.unknown == 0
    assert cluster.one("blue/api", "red/job", 80)["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1


def test_each_object_is_reported_once(cluster: Cluster) -> None:
    said: list[str] = []
    cluster.policies = type(cluster.policies)(report=said.append)
    strange = policy("AdminNetworkPolicy", "from", {"identities": ["x"]}, {"zones": 5})
    for at in range(3):
        cluster.apply(strange, now_ms=NOW + at)
    (text,) = said
    assert text.startswith("AdminNetworkPolicy older: ")
    assert "identities" in text
    assert "zones" in text
    other = policy("AdminNetworkPolicy", "from", {"planets": 9})
    cluster.apply(other, now_ms=NOW + 3)
    assert len(said) == 2
    assert cluster.policies.stats.unrecognized == 1
    cluster.policies.delete(other, NOW + 4)
    assert (cluster.policies.stats.unrecognized, cluster.policies.unrecognized) == (0, {})


def test_what_is_reported_is_bounded(cluster: Cluster) -> None:
    said: list[str] = []
    cluster.policies = type(cluster.policies)(report=said.append)
    peers = [{f"{n}-\n{'x' * 9000}": n} for n in range(25)]
    cluster.apply(policy("AdminNetworkPolicy", "from", *peers))
    (text,) = said
    assert len(text) < 1000
    assert "and 17 more" in text
    assert text.isprintable()
