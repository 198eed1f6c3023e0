"""The conformance cases of network-policy-api (policy.networking.k8s.io), rebuilt as data.

Houses are namespaces with two Pods each. The cases are those of conformance/tests at the time of
v1alpha2, for the tiers Admin and Baseline; each also runs with the kinds of v1alpha1
(AdminNetworkPolicy, BaselineAdminNetworkPolicy), which mean the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from policies.cluster import (
    NOW,
    Cluster,
    Connection,
    Pod,
    admin_policy,
    labels,
    matching,
    namespace,
    network_policy,
    passes,
)

HOUSES = ("gryffindor", "slytherin", "hufflepuff", "ravenclaw")
NAMED = (("web", 6, 80), ("dns", 17, 53))
OWN, OTHER = HOUSES[0], HOUSES[1:]
ALL = (("TCP", 80), ("UDP", 53), ("SCTP", 9003))
REST = (("TCP", 8080), ("UDP", 5353), ("SCTP", 9005))
Rules = list[dict[str, Any]]


class Poke(NamedTuple):
    source: str
    destination: str
    services: Sequence[tuple[str, int]]
    passing: bool


def house(name: str) -> dict[str, Any]:
    return {"namespaces": matching(house=name)}


def pods_of(name: str) -> dict[str, Any]:
    selector = matching(house=name)
    return {"pods": {"namespaceSelector": selector, "podSelector": selector}}


def rule(action: str, side: str, *names: str, ports: Iterable[tuple[str, int]] = ()) -> Any:
    found: dict[str, Any] = {
        "name": f"{action.lower()}-{'-'.join(names)}",
        "action": action,
        side: [house(name) for name in names],
    }
    numbers = [{p.lower(): {"destinationPort": {"number": n}}} for p, n in ports]
    return found | ({"protocols": numbers} if numbers else {})


def combined(side: str) -> Rules:
    """The seven rules of the policy of most cases."""
    apart = (("TCP", 80 if side == "from" else 8080), ("UDP", 5353), ("SCTP", 9003))
    return [
        rule("Accept", side, "ravenclaw"),
        rule("Deny", side, "ravenclaw"),
        rule("Pass", side, "ravenclaw"),
        rule("Deny", side, "slytherin", ports=ALL),
        rule("Pass", side, "slytherin", ports=ALL),
        rule("Accept", side, "hufflepuff", ports=apart),
        rule("Deny", side, "hufflepuff"),
    ]


def swapped(rules: Rules, one: int, other: int) -> Rules:
    found = list(rules)
    found[one], found[other] = found[other], found[one]
    return found


def policy(ingress: Rules, egress: Rules, tier: str = "Admin", **more: Any) -> dict[str, Any]:
    name = more.pop("name", "default" if tier == "Baseline" else "gress-rules")
    spec = {"priority": 15, "subject": house(OWN), "ingress": ingress, "egress": egress, **more}
    return admin_policy("ClusterNetworkPolicy", name, tier=tier, **spec)


def both(at: str, services: Sequence[tuple[str, int]], passing: bool) -> list[Poke]:
    return [Poke(OWN, at, services, passing), Poke(at, OWN, services, passing)]


def gress(one: int, other: int) -> list[dict[str, Any]]:
    return [policy(swapped(combined("from"), one, other), swapped(combined("to"), one, other))]


def simple(action: str, side: str) -> Rules:
    return [rule(action, side, "slytherin")]


def from_and_to(action: str, **more: Any) -> dict[str, Any]:
    return policy(simple(action, "from"), simple(action, "to"), **more)


ALLOWED_BY_POLICY = network_policy(
    "allow-slytherin",
    OWN,
    podSelector=None,
    policyTypes=["Ingress", "Egress"],
    ingress=[{"from": [{"namespaceSelector": matching(house="slytherin")}]}],
    egress=[{"to": [{"namespaceSelector": matching(house="slytherin")}]}],
)
ORDER: tuple[tuple[int, int, bool], ...] = ((0, 0, True), (0, 1, False), (0, 2, True))
"""Which rule for ravenclaw comes first, and whether what it says lets everything pass."""

CASES: dict[str, tuple[list[Any], list[Poke]]] = {
    **{
        f"rule {other} first": (
            gress(one, other),
            both("ravenclaw", (*ALL, *REST), passing),
        )
        for one, other, passing in ORDER
    },
    "allow at ports, egress": (
        gress(0, 0),
        [
            Poke(OWN, "hufflepuff", (("TCP", 8080), ("UDP", 5353), ("SCTP", 9003)), True),
            Poke(OWN, "hufflepuff", (("TCP", 80), ("UDP", 53), ("SCTP", 9005)), False),
        ],
    ),
    "allow at ports, ingress": (
        gress(0, 0),
        [
            Poke("hufflepuff", OWN, (("TCP", 80), ("UDP", 5353), ("SCTP", 9003)), True),
            Poke("hufflepuff", OWN, (("TCP", 8080), ("UDP", 53), ("SCTP", 9005)), False),
        ],
    ),
    "deny at ports": (
        gress(0, 0),
        both("slytherin", ALL, False) + both("slytherin", REST, True),
    ),
    "pass at ports": (gress(3, 4), both("slytherin", (*ALL, *REST), True)),
    "Admin over NetworkPolicy": (
        [from_and_to("Deny"), ALLOWED_BY_POLICY],
        both("slytherin", (("TCP", 80), ("TCP", 8080)), False),
    ),
    "Pass to NetworkPolicy": (
        [from_and_to("Pass"), ALLOWED_BY_POLICY, from_and_to("Deny", tier="Baseline")],
        both("slytherin", (("TCP", 80), ("TCP", 8080)), True),
    ),
    "Pass to Baseline": (
        [from_and_to("Pass"), from_and_to("Deny", tier="Baseline")],
        both("slytherin", (("TCP", 80), ("TCP", 8080)), False),
    ),
    "priority: the lower number first": (
        [
            from_and_to("Deny", priority=50, name="fifty"),
            from_and_to("Pass", priority=60, name="sixty"),
            from_and_to("Accept", tier="Baseline"),
        ],
        both("slytherin", (("TCP", 80), ("TCP", 8080)), False),
    ),
    "priority: the other one first": (
        [
            from_and_to("Deny", priority=50, name="fifty"),
            from_and_to("Pass", priority=40, name="sixty"),
            from_and_to("Accept", tier="Baseline"),
        ],
        both("slytherin", (("TCP", 80), ("TCP", 8080)), True),
    ),
    "egress to networks": (
        [
            policy(
                [],
                [
                    {"action": "Accept", "to": [{"networks": ["10.0.3.0/32", "10.0.2.0/32"]}]},
                    {"action": "Accept", "to": [pods_of("slytherin")]},
                    {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
                ],
                subject=pods_of(OWN),
            )
        ],
        [
            Poke(OWN, "slytherin", ALL, True),
            Poke(OWN, "ravenclaw-0", ALL, True),
            Poke(OWN, "ravenclaw-1", ALL, False),
            Poke(OWN, "hufflepuff-0", ALL, True),
            Poke(OWN, "hufflepuff-1", ALL, False),
            Poke(OWN, "192.0.2.1", ALL, False),
            Poke(OWN, "2001:db8::1", ALL, False),
        ],
    ),
    "egress to nodes": (
        [
            policy(
                [],
                [
                    {
                        "action": "Accept",
                        "to": [{"nodes": matching(os="linux")}],
                        "protocols": [{"tcp": {"destinationPort": {"number": 34345}}}],
                    },
                    {
                        "action": "Pass",
                        "to": [{"nodes": matching(os="linux")}],
                        "protocols": [{"udp": {"destinationPort": {"number": 34346}}}],
                    },
                    {
                        "action": "Deny",
                        "to": [
                            pods_of("slytherin"),
                            {"nodes": matching(os="linux")},
                            {"networks": ["0.0.0.0/0", "::/0"]},
                        ],
                    },
                ],
            )
        ],
        [
            Poke(OWN, "192.0.2.7", (("TCP", 34345), ("UDP", 34346)), True),
            Poke(OWN, "192.0.2.7", (("TCP", 34346), ("UDP", 34347), ("SCTP", 1)), False),
            Poke(OWN, "192.0.2.8", (("TCP", 34345), ("UDP", 34346)), False),
            Poke(OWN, "slytherin", ALL, False),
        ],
    ),
    "named ports": (
        [
            policy(
                [
                    {
                        "action": "Accept",
                        "from": [house("hufflepuff")],
                        "protocols": [{"destinationNamedPort": "dns"}],
                    },
                    rule("Deny", "from", "hufflepuff"),
                ],
                [
                    {
                        "action": "Accept",
                        "to": [house("hufflepuff")],
                        "protocols": [{"destinationNamedPort": "web"}],
                    },
                    rule("Deny", "to", "hufflepuff"),
                ],
            )
        ],
        [
            Poke(OWN, "hufflepuff", (("TCP", 80),), True),
            Poke(OWN, "hufflepuff", (("TCP", 8080), ("UDP", 80)), False),
            Poke("hufflepuff", OWN, (("UDP", 53),), True),
            Poke("hufflepuff", OWN, (("UDP", 5353), ("TCP", 53)), False),
        ],
    ),
    "port ranges": (
        [
            policy(
                [],
                [
                    {
                        "action": "Deny",
                        "to": [house("ravenclaw")],
                        "protocols": [
                            {"tcp": {"destinationPort": {"range": {"start": 80, "end": 90}}}},
                            {"udp": {}},
                        ],
                    }
                ],
            )
        ],
        [
            Poke(OWN, "ravenclaw", (("TCP", 80), ("TCP", 90), ("UDP", 1)), False),
            Poke(OWN, "ravenclaw", (("TCP", 79), ("TCP", 91), ("SCTP", 80)), True),
        ],
    ),
    "egress only does not speak of ingress": (
        [policy([], [rule("Deny", "to", *OTHER)])],
        [Poke(OWN, at, ALL, False) for at in OTHER] + [Poke(at, OWN, ALL, True) for at in OTHER],
    ),
}
for _tier_case, _passing in (("Accept", True), ("Deny", False)):
    _in, _out = (swapped(combined(side), 0, 0 if _passing else 1) for side in ("from", "to"))
    CASES[f"Baseline: {_tier_case} first"] = (
        [policy(_in, _out, tier="Baseline")],
        both("ravenclaw", (*ALL, *REST), _passing),
    )
CASES["Baseline: deny at ports"] = (
    [policy(combined("from"), combined("to"), tier="Baseline")],
    both("slytherin", ALL, False) + both("slytherin", REST, True),
)

NODES = [
    {
        "kind": "Node",
        "metadata": {"name": name, "labels": {"os": system}},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    }
    for name, system, ip in (("wizard", "linux", "192.0.2.7"), ("muggle", "dos", "192.0.2.8"))
]


def as_v1alpha1(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same policy in the older kinds."""
    if item["kind"] != "ClusterNetworkPolicy":
        return item
    spec = {key: value for key, value in item["spec"].items() if key != "tier"}
    for side in ("ingress", "egress"):
        spec[side] = [_older(rule) for rule in spec[side]]
    if item["spec"]["tier"] == "Admin":
        return admin_policy("AdminNetworkPolicy", item["metadata"]["name"], **spec)
    del spec["priority"]
    return admin_policy("BaselineAdminNetworkPolicy", "default", **spec)


def _older(rule: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(rule)
    found["action"] = {"Accept": "Allow"}.get(rule["action"], rule["action"])
    if "protocols" in found:
        found["ports"] = [_older_port(protocol) for protocol in found.pop("protocols")]
    return found


def _older_port(protocol: Mapping[str, Any]) -> dict[str, Any]:
    if "destinationNamedPort" in protocol:
        return {"namedPort": protocol["destinationNamedPort"]}
    ((name, match),) = protocol.items()
    port = match.get("destinationPort", {"range": {"start": 0, "end": 65535}})
    if "range" in port:
        return {"portRange": {"protocol": name.upper(), **port["range"]}}
    return {"portNumber": {"protocol": name.upper(), "port": port["number"]}}


@pytest.fixture
def cluster() -> Cluster:
    pods = [
        Pod(name, f"{name}-{n}", f"10.0.{at}.{n}", labels(house=name), named_ports=NAMED)
        for at, name in enumerate(HOUSES)
        for n in (0, 1)
    ]
    found = Cluster(pods)
    found.apply(*(namespace(name, house=name) for name in HOUSES), *NODES)
    return found


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2"])
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, version: str, cluster: Cluster) -> None:
    objects, pokes = CASES[name]
    cluster.apply(*(as_v1alpha1(item) if version == "v1alpha1" else item for item in objects))
    connections = [
        (Connection(one, other, port, protocol), poke.passing)
        for poke in pokes
        for one in _members(poke.source)
        for other in _members(poke.destination)
        for protocol, port in poke.services
    ]
    rows = cluster.decide([connection for connection, _ in connections])
    wrong = [
        (connection, row)
        for (connection, passing), row in zip(connections, rows, strict=True)
        if passes(row) != passing
    ]
    assert not wrong


def _members(name: str) -> list[str]:
    if name in HOUSES:
        return [f"{name}/{name}-{n}" for n in (0, 1)]
    place = name.rpartition("-")[0]
    return [f"{place}/{name}" if place in HOUSES else name]


def test_a_namespace_that_loses_its_label(cluster: Cluster) -> None:
    cluster.apply(from_and_to("Deny"))
    pair = "slytherin/slytherin-0", "gryffindor/gryffindor-0"
    assert not passes(cluster.one(*pair))
    cluster.apply(namespace("slytherin", house="other"), now_ms=NOW + 1)
    assert passes(cluster.one(*pair, start_ms=NOW + 2))
    assert not passes(cluster.one(*pair))


def test_the_verdict_names_policy_and_rule(cluster: Cluster) -> None:
    cluster.apply(*gress(0, 0))
    row = cluster.one("slytherin/slytherin-0", "gryffindor/gryffindor-1")
    assert row["ingress"] == ("gress-rules", "", 4, "deny-slytherin", 2)
    assert row["egress"] == ("", "", 0, "", 0)


def test_a_peer_of_a_newer_kind_is_not_to_be_reported(cluster: Cluster) -> None:
    newer = [{"action": "Accept", "to": [{"domainNames": ["example.org"]}]}]
    cluster.apply(policy([], newer))
    assert cluster.one("gryffindor/gryffindor-0", "192.0.2.1")["egress"] == ("", "", 0, "", 0)
    assert cluster.policies.stats.unknown == 1
