"""Corners of Antrea's policies: ranks, groups, names of ports, what is left open, nodes."""

from typing import Any

import pytest

from flowvis.policies import Policies
from policies.cluster import (
    NOTHING,
    NOW,
    Cluster,
    Pod,
    admin_policy,
    antrea,
    expression,
    labels,
    matching,
    namespace,
    network_policy,
    service,
)
from policies.work import lines_run

ALL: list[dict[str, Any]] = [{"podSelector": {}}]
OUTSIDE = "203.0.113.7"


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster(
        [
            Pod("shop", "cart", "10.2.0.1", labels(app="cart", tier="front")),
            Pod("shop", "till", "10.2.0.2", labels(app="till", tier="back")),
            Pod("bank", "vault", "10.2.1.1", labels(app="vault", tier="back")),
            Pod("bank", "desk", "10.2.1.2", labels(app="desk", tier="front")),
        ]
    )
    found.apply(namespace("shop", kind="retail"), namespace("bank", kind="money"))
    return found


def acnp(name: str, direction: str = "ingress", *rules: Any, **spec: Any) -> Any:
    given = {"appliedTo": ALL, "priority": 7, direction: list(rules), **spec}
    return antrea("ClusterNetworkPolicy", name, **given)


def annp(name: str, space: str, direction: str = "ingress", *rules: Any, **spec: Any) -> Any:
    spec = {"appliedTo": ALL, "priority": 7, direction: list(rules)} | spec
    return antrea("NetworkPolicy", name, space, **spec)


def decided(
    cluster: Cluster, source: str, destination: str, *rest: Any, way: str = "ingress"
) -> Any:
    found = cluster.one(source, destination, *rest)[way]
    return found.name, found.rule, found.action


# Ranks


def test_of_equal_priorities_the_place_of_the_rule_decides(cluster: Cluster) -> None:
    nobody = {"action": "Allow", "from": [{"podSelector": matching(app="none")}]}
    cluster.apply(
        acnp("a-late", "ingress", nobody, nobody, {"name": "third", "action": "Drop"}),
        acnp("z-early", "ingress", nobody, {"name": "second", "action": "Reject"}),
    )
    assert decided(cluster, "shop/cart", "shop/till") == ("z-early", "second", 3)


@pytest.mark.parametrize("tier", ["emergency", "application", "baseline"])
def test_namespaced_and_wide_policies_share_ranks(cluster: Cluster, tier: str) -> None:
    other = {"action": "Allow", "ports": [{"protocol": "UDP", "port": 9}]}
    cluster.apply(
        acnp("a", "ingress", other, {"name": "wide", "action": "Drop"}, tier=tier),
        annp("z", "shop", "ingress", {"name": "own", "action": "Allow"}, tier=tier),
    )
    assert decided(cluster, "bank/desk", "shop/till") == ("z", "own", 1)


def test_a_lower_number_still_goes_first(cluster: Cluster) -> None:
    other = {"action": "Allow", "ports": [{"port": 1}]}
    cluster.apply(
        acnp("a", "ingress", {"action": "Allow"}, priority=7.5),
        acnp("z", "ingress", other, other, {"name": "third", "action": "Drop"}, priority=7.25),
    )
    assert decided(cluster, "shop/cart", "shop/till") == ("z", "third", 2)


@pytest.mark.parametrize(("priority", "expected"), [(0, "later"), (2, "default")])
def test_the_baseline_admin_policy_ranks_at_one(
    cluster: Cluster, priority: int, expected: str
) -> None:
    subject: dict[str, Any] = {"namespaces": {}}
    first = {"name": "no", "action": "Deny", "from": [subject]}
    more = {"action": "Accept", "from": [{"namespaces": matching(kind="none")}]}
    cluster.apply(
        admin_policy("BaselineAdminNetworkPolicy", "default", subject=subject, ingress=[first]),
        admin_policy(
            "ClusterNetworkPolicy",
            "later",
            tier="Baseline",
            priority=priority,
            subject=subject,
            ingress=[more, {"name": "no", "action": "Deny", "from": [subject]}],
        ),
    )
    assert decided(cluster, "shop/cart", "bank/desk") == (expected, "no", 2)


# Groups


@pytest.mark.parametrize("where", ["spec", "rule"])
@pytest.mark.parametrize("nested", [False, True])
def test_applied_to_a_cluster_group_of_a_service(
    cluster: Cluster, where: str, *, nested: bool
) -> None:
    group = [{"group": "outer" if nested else "pods"}]
    rule = {"name": "no", "action": "Drop"} | ({"appliedTo": group} if where == "rule" else {})
    cluster.apply(
        service("front", "shop", tier="front"),
        antrea("ClusterGroup", "pods", serviceReference={"namespace": "shop", "name": "front"}),
        antrea("ClusterGroup", "outer", childGroups=["pods"]),
        acnp("by-service", "ingress", rule, appliedTo=group if where == "spec" else None),
    )
    assert decided(cluster, "bank/desk", "shop/cart") == ("by-service", "no", 2)
    assert decided(cluster, "bank/vault", "shop/till") == ("", "", 0)
    assert decided(cluster, "shop/till", "bank/desk") == ("", "", 0)


def test_peers_of_a_service(cluster: Cluster) -> None:
    reference: dict[str, Any] = {"serviceReference": {"namespace": "bank", "name": "counter"}}
    cluster.apply(
        service("counter", "bank", app="desk"),
        antrea("ClusterGroup", "counter", **reference),
        acnp(
            "no-desks", "ingress", {"name": "no", "action": "Drop", "from": [{"group": "counter"}]}
        ),
    )
    assert decided(cluster, "bank/desk", "shop/till") == ("no-desks", "no", 2)
    assert decided(cluster, "bank/vault", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 0


@pytest.mark.parametrize("made", [[], [service("counter", "bank")]])
def test_a_service_that_is_missing_or_selects_nothing(cluster: Cluster, made: Any) -> None:
    reference: dict[str, Any] = {"serviceReference": {"namespace": "bank", "name": "counter"}}
    cluster.apply(
        *made,
        antrea("ClusterGroup", "counter", **reference),
        acnp("in-vain", "ingress", {"action": "Drop"}, appliedTo=[{"group": "counter"}]),
    )
    assert decided(cluster, "shop/cart", "bank/desk") == ("", "", 0)
    assert cluster.policies.stats.unknown == 0


def test_a_service_that_changes_counts_from_then_on(cluster: Cluster) -> None:
    reference: dict[str, Any] = {"serviceReference": {"namespace": "bank", "name": "counter"}}
    cluster.apply(
        antrea("ClusterGroup", "counter", **reference),
        acnp("s", "ingress", {"action": "Drop"}, appliedTo=[{"group": "counter"}]),
        service("counter", "bank", app="desk"),
    )
    cluster.apply(service("counter", "bank", app="vault"), now_ms=NOW)
    cluster.policies.delete(service("counter", "bank"), NOW + 9)

    def actions(start_ms: int) -> list[int]:
        rows = [cluster.one("shop/cart", f"bank/{n}", start_ms=start_ms) for n in ("desk", "vault")]
        return [row["ingress"].action for row in rows]

    assert [actions(NOW + at) for at in (-1, 0, 9)] == [[2, 0], [0, 2], [0, 0]]


def test_services_that_no_group_names_change_nothing(cluster: Cluster) -> None:
    cluster.apply(acnp("p", "ingress", {"action": "Drop"}))
    assert decided(cluster, "shop/cart", "bank/desk")[2] == 2
    compiled, kept = cluster.policies.stats.compiled, len(cluster.policies)
    for at in range(40):
        cluster.apply(service("busy", "bank", app=f"v{at}"), now_ms=NOW + at)
        decided(cluster, "shop/cart", "bank/desk")
    assert cluster.policies.stats.compiled == compiled
    assert len(cluster.policies) == kept + 1
    cluster.policies.delete(service("busy", "bank"), NOW + 50)
    assert len(cluster.policies) == kept


def test_a_service_is_known_before_the_group_that_names_it(cluster: Cluster) -> None:
    cluster.apply(service("counter", "bank", app="vault"))
    cluster.apply(service("counter", "bank", app="desk"))
    reference: dict[str, Any] = {"serviceReference": {"namespace": "bank", "name": "counter"}}
    cluster.apply(
        antrea("ClusterGroup", "counter", **reference),
        acnp("s", "ingress", {"action": "Drop"}, appliedTo=[{"group": "counter"}]),
        now_ms=NOW,
    )
    assert decided(cluster, "shop/cart", "bank/desk")[2] == 2
    assert decided(cluster, "shop/cart", "bank/vault")[2] == 0


@pytest.mark.parametrize("way", ["ingress", "egress"])
def test_applied_to_address_blocks_has_no_effect(cluster: Cluster, way: str) -> None:
    blocks = [{"cidr": "10.2.0.0/16"}]
    cluster.apply(
        antrea("ClusterGroup", "blocks", ipBlocks=blocks),
        antrea("ClusterGroup", "mixed", childGroups=["blocks", "tills"]),
        antrea("ClusterGroup", "tills", podSelector=matching(app="till")),
        acnp("blocks", way, {"action": "Drop"}, appliedTo=[{"group": "blocks"}], priority=1),
        acnp("mixed", way, {"action": "Drop"}, appliedTo=[{"group": "mixed"}], priority=2),
    )
    endpoints = ("shop/cart", "shop/till") if way == "ingress" else ("shop/till", "shop/cart")
    assert decided(cluster, *endpoints, way=way)[0] == "mixed"
    assert decided(cluster, *reversed(endpoints), way=way) == ("", "", 0)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("where", ["spec", "rule"])
@pytest.mark.parametrize(
    ("members", "reaches"),
    [
        ({"namespaceSelector": {}, "podSelector": matching(tier="back")}, True),
        ({"namespaceSelector": matching(kind="money")}, True),
        ({"serviceReference": {"namespace": "bank", "name": "counter"}}, True),
        ({"namespaceSelector": {}, "podSelector": matching(app="till")}, False),
        ({"podSelector": matching(tier="back")}, False),
        ({"namespaceSelector": matching(kind="retail")}, False),
    ],
)
def test_applied_to_a_group_with_pods_of_other_namespaces(
    cluster: Cluster, depth: int, where: str, members: Any, *, reaches: bool
) -> None:
    applied = [{"group": ("child", "parent")[depth]}]
    rule = {"name": "no", "action": "Drop"} | ({"appliedTo": applied} if where == "rule" else {})
    cluster.apply(
        service("counter", "bank", app="vault"),
        antrea("Group", "child", "shop", **members),
        antrea("Group", "tills", "shop", podSelector=matching(app="till")),
        antrea("Group", "parent", "shop", childGroups=["tills", "child"]),
        annp("own", "shop", "ingress", rule, appliedTo=applied if where == "spec" else None),
    )
    # Antrea realises nothing of it: not for the other namespace, and not for its own either.
    assert decided(cluster, "shop/cart", "bank/vault") == ("", "", 0)
    own = ("", "", 0) if reaches else ("own", "no", 2)
    assert decided(cluster, "shop/cart", "shop/till") == own


def test_a_cluster_group_may_reach_everywhere(cluster: Cluster) -> None:
    cluster.apply(
        antrea("ClusterGroup", "backs", namespaceSelector={}, podSelector=matching(tier="back")),
        acnp("wide", "ingress", {"name": "no", "action": "Drop"}, appliedTo=[{"group": "backs"}]),
    )
    for pod in ("bank/vault", "shop/till"):
        assert decided(cluster, "shop/cart", pod) == ("wide", "no", 2)


def test_pods_that_come_to_a_group_are_seen_in_half_a_minute(cluster: Cluster) -> None:
    cluster.apply(
        antrea("Group", "g", "shop", namespaceSelector={}, podSelector=matching(app="till")),
        annp("own", "shop", "ingress", {"action": "Drop"}, appliedTo=[{"group": "g"}]),
    )
    cluster.policies.expire(NOW)
    assert decided(cluster, "shop/cart", "shop/till")[0] == "own"
    cluster.pods = [*cluster.pods, Pod("bank", "till", "10.2.1.9", labels(app="till"))]
    cluster.policies.expire(NOW + 30_000)
    assert decided(cluster, "shop/cart", "shop/till") == ("", "", 0)
    cluster.pods = cluster.pods[:-1]
    cluster.policies.expire(NOW + 60_000)
    assert decided(cluster, "shop/cart", "shop/till")[0] == "own"


def steps_with_groups(count: int, pods: int) -> int:
    """What a look costs with so many Groups that may have Pods anywhere, and have none."""
    cluster = Cluster(
        [Pod("bank", f"p{n}", f"10.9.0.{n}", labels(app=f"a{n}")) for n in range(pods)]
    )
    members = (expression(f"none-{n}", "Exists") for n in range(count))
    groups = [
        antrea("Group", f"g{n}", "shop", podSelector=some, namespaceSelector={})
        for n, some in enumerate(members)
    ]
    rules = [{"action": "Drop", "appliedTo": [{"group": f"g{n}"}]} for n in range(count)]
    cluster.apply(*groups, antrea("NetworkPolicy", "p", "shop", priority=5, ingress=rules))
    return lines_run(lambda: cluster.one("bank/p1", "bank/p2"))


def test_hundreds_of_groups_are_not_looked_at_for_each_pod() -> None:
    few, many = (steps_with_groups(50, pods) - steps_with_groups(5, pods) for pods in (10, 200))
    assert many < few + 200


def test_a_group_of_other_namespaces_is_a_peer_as_any(cluster: Cluster) -> None:
    cluster.apply(
        antrea("Group", "g", "shop", namespaceSelector={}, podSelector=matching(tier="back")),
        annp("own", "shop", "ingress", {"action": "Drop", "from": [{"group": "g"}]}),
    )
    assert decided(cluster, "bank/vault", "shop/cart")[0] == "own"
    assert decided(cluster, "bank/desk", "shop/cart") == ("", "", 0)


def test_external_entities_and_nodes_are_no_pods(cluster: Cluster) -> None:
    for n, applied in enumerate(
        (
            {"externalEntitySelector": {}, "namespaceSelector": {}},
            {"nodeSelector": {}},
            {"service": {"name": "front", "namespace": "shop"}},
        )
    ):
        cluster.apply(acnp(f"p{n}", "ingress", {"action": "Drop"}, appliedTo=[applied]))
    assert decided(cluster, "shop/cart", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 0


# Names of ports


def named(cluster: Cluster, *ports: tuple[str, int, int]) -> None:
    till = Pod("shop", "till", "10.2.0.2", labels(app="till", tier="back"), named_ports=ports)
    cluster.pods = [till if pod.name == "till" else pod for pod in cluster.pods]


@pytest.mark.parametrize(
    ("peers", "matches"),
    [
        ([], True),
        ([{"podSelector": matching(app="till")}], True),
        ([{"namespaceSelector": {}}], True),
        ([{"group": "tills"}], True),
        ([{"serviceAccount": {"namespace": "shop", "name": "default"}}], True),
        ([{"namespaces": {"match": "Self"}}], True),
        ([{"ipBlock": {"cidr": "10.2.0.0/16"}}], False),
        ([{"group": "blocks"}], False),
        ([{"fqdn": "till.example.org"}], False),
        ([{"nodeSelector": {}}], False),
        ([{"ipBlock": {"cidr": "10.2.0.0/16"}}, {"podSelector": matching(app="till")}], True),
        ([{"ipBlock": {"cidr": "10.2.0.0/16"}}, {"podSelector": matching(app="desk")}], False),
    ],
)
def test_egress_to_a_named_port(cluster: Cluster, peers: Any, *, matches: bool) -> None:
    named(cluster, ("pay", 6, 9090))
    rule = {"name": "no", "action": "Drop", "to": peers, "ports": [{"port": "pay"}, {"port": 443}]}
    cluster.apply(
        antrea("ClusterGroup", "blocks", ipBlocks=[{"cidr": "10.2.0.0/16"}]),
        antrea("ClusterGroup", "tills", podSelector=matching(app="till")),
        acnp("names", "egress", rule),
    )
    expected = ("names", "no", 2) if matches else ("", "", 0)
    assert decided(cluster, "shop/cart", "shop/till", 9090, way="egress") == expected
    assert cluster.policies.stats.unknown == 0
    by_number = {str(peer) for peer in peers} & {"{'ipBlock': {'cidr': '10.2.0.0/16'}}"}
    if by_number:
        found = decided(cluster, "shop/cart", "shop/till", 443, way="egress")
        assert found == ("names", "no", 2), "numbers are for every peer"


def test_a_named_port_on_egress_of_a_network_policy_is_of_any_pod(cluster: Cluster) -> None:
    named(cluster, ("pay", 6, 9090))
    to = [{"ipBlock": {"cidr": "10.2.0.0/16"}}]
    cluster.apply(
        network_policy(
            "k", "shop", policyTypes=["Egress"], egress=[{"to": to, "ports": [{"port": "pay"}]}]
        )
    )
    assert decided(cluster, "shop/cart", "shop/till", 9090, way="egress") == ("k", "egress[0]", 1)


def test_the_first_container_that_has_a_ports_name(cluster: Cluster) -> None:
    named(cluster, ("pay", 17, 70), ("pay", 6, 9091), ("pay", 6, 9090))
    cluster.apply(acnp("names", "ingress", {"action": "Drop", "ports": [{"port": "pay"}]}))
    found = [
        decided(cluster, "shop/cart", "shop/till", port, protocol)[2]
        for protocol, port in (("TCP", 9090), ("TCP", 9091), ("TCP", 70), ("UDP", 70))
    ]
    assert found == [0, 2, 0, 0]


def test_a_name_without_a_protocol_is_the_first_containers_too(cluster: Cluster) -> None:
    named(cluster, ("pay", 17, 70), ("pay", 6, 9091))
    subject: dict[str, Any] = {"namespaces": {}}
    rule = {"action": "Deny", "from": [subject], "protocols": [{"destinationNamedPort": "pay"}]}
    cluster.apply(
        admin_policy("ClusterNetworkPolicy", "c", tier="Admin", subject=subject, ingress=[rule])
    )
    assert decided(cluster, "shop/cart", "shop/till", 70, "UDP")[2] == 2
    assert decided(cluster, "shop/cart", "shop/till", 9091)[2] == 0


# What leaves one entry open


@pytest.mark.parametrize(
    ("rule", "certain", "open_"),
    [
        ({"ports": [{"port": 80, "sourcePort": 5}, {"port": 443}]}, 443, 80),
        ({"ports": [{"port": 80, "sourcePort": 5}, {"port": 80, "endPort": 81}]}, 80, None),
        ({"ports": [{"port": 80, "ttl": 9}, {"port": 443}]}, 443, 80),
        ({"ports": [{"port": 443}], "protocols": [{"icmp": {"icmpType": 8}}]}, 443, None),
        ({"ports": [{"port": 443}], "protocols": [{"esp": {}}]}, 443, 80),
    ],
)
def test_a_certain_entry_of_ports_stays_certain(
    cluster: Cluster, rule: Any, certain: int, open_: int | None
) -> None:
    cluster.apply(
        acnp("first", "ingress", {"name": "no", "action": "Drop"} | rule),
        acnp("second", "ingress", {"name": "yes", "action": "Allow"}, priority=9),
    )
    assert decided(cluster, "shop/cart", "shop/till", certain) == ("first", "no", 2)
    assert decided(cluster, "shop/cart", "shop/till", 79)[0] == (
        "" if "esp" in str(rule) else "second"
    )
    before = cluster.policies.stats.unknown
    if open_ is not None:
        assert decided(cluster, "shop/cart", "shop/till", open_) == ("", "", 0)
        assert cluster.policies.stats.unknown == before + 1


def test_icmp_of_any_type_beside_one_of_a_type(cluster: Cluster) -> None:
    protocols = [{"icmp": {"icmpType": 3, "icmpCode": 1}}, {"icmp": {}}]
    cluster.apply(acnp("p", "ingress", {"name": "no", "action": "Drop", "protocols": protocols}))
    assert decided(cluster, "shop/cart", "shop/till", 0, 1) == ("p", "no", 2)
    assert cluster.policies.stats.unknown == 0


@pytest.mark.parametrize(
    ("asked", "certain"),
    [({}, True), ({"igmpType": 17}, False), ({"groupAddress": "224.0.0.1"}, False)],
)
def test_igmp(cluster: Cluster, asked: Any, *, certain: bool) -> None:
    cluster.apply(acnp("p", "ingress", {"action": "Drop", "protocols": [{"igmp": asked}]}))
    assert decided(cluster, "shop/cart", "shop/till", 0, 2)[2] == (2 if certain else 0)
    assert cluster.policies.stats.unknown == (not certain)
    assert decided(cluster, "shop/cart", "shop/till", 0, 1) == ("", "", 0)


def test_a_scope_that_is_empty_is_this_cluster(cluster: Cluster) -> None:
    peer = {"podSelector": matching(app="cart"), "scope": ""}
    cluster.apply(acnp("p", "ingress", {"action": "Drop", "from": [peer]}))
    assert decided(cluster, "shop/cart", "shop/till")[0] == "p"


@pytest.mark.parametrize("strange", [{"fqdn": "a.example.org"}, {"futureSelector": {}}])
def test_a_certain_peer_stays_certain(cluster: Cluster, strange: Any) -> None:
    to = [strange, {"podSelector": matching(app="till")}]
    cluster.apply(acnp("p", "egress", {"name": "no", "action": "Drop", "to": to}))
    assert decided(cluster, "shop/cart", "shop/till", way="egress") == ("p", "no", 2)
    assert decided(cluster, "shop/cart", OUTSIDE, way="egress") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


def test_services_called_have_no_other_peers(cluster: Cluster) -> None:
    to = [{"name": "front", "namespace": "shop"}]
    cluster.apply(
        acnp("p", "egress", {"action": "Drop", "toServices": to, "appliedTo": ALL}, appliedTo=None)
    )
    assert decided(cluster, "shop/cart", OUTSIDE, way="egress") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


@pytest.mark.parametrize("where", ["spec", "rule"])
def test_applied_to_whom_is_not_understood(cluster: Cluster, where: str) -> None:
    strange: list[dict[str, Any]] = [{"podSelector": {}, "vmSelector": {}}]
    rule = {"action": "Drop"} | ({"appliedTo": strange} if where == "rule" else {})
    cluster.apply(
        annp("p", "shop", "ingress", rule, appliedTo=strange if where == "spec" else None)
    )
    assert decided(cluster, "bank/desk", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1
    assert decided(cluster, "shop/till", "bank/desk") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1, "it can only be applied to Pods of its namespace"


def test_a_group_that_is_not_understood(cluster: Cluster) -> None:
    cluster.apply(
        antrea("ClusterGroup", "g", podSelector=matching(app="desk"), geoSelector={}),
        acnp("p", "ingress", {"action": "Drop", "from": [{"group": "g"}]}),
    )
    assert decided(cluster, "bank/desk", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1
    assert list(cluster.policies.unrecognized) == ["ClusterGroup g"]


EVERYBODY: Any = {"namespaces": {}}


@pytest.mark.parametrize(
    "made",
    [
        lambda rule: acnp("p", "ingress", {"action": "Drop", **rule}),
        lambda rule: annp("p", "shop", "ingress", {"action": "Drop", **rule}),
        lambda rule: network_policy("p", "shop", ingress=[rule]),
        lambda rule: admin_policy(
            "AdminNetworkPolicy", "p", subject=EVERYBODY, ingress=[{"action": "Deny", **rule}]
        ),
        lambda rule: admin_policy(
            "ClusterNetworkPolicy",
            "p",
            tier="Baseline",
            subject=EVERYBODY,
            ingress=[{"action": "Deny", **rule}],
        ),
    ],
)
@pytest.mark.parametrize("more", [{}, {"from": [{"namespaces": {}, "podSelector": {}}]}])
def test_a_rule_with_a_part_of_a_newer_api_is_not_one_for_everybody(
    cluster: Cluster, made: Any, more: Any
) -> None:
    cluster.apply(made({"toRegions": ["north"], **more}))
    assert decided(cluster, "bank/desk", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1
    (parts,) = cluster.policies.unrecognized.values()
    assert parts == "rule with toRegions"


@pytest.mark.parametrize("relation", [{}, {"match": "Parent"}, {"sameLabels": []}])
def test_relations_that_are_not_understood(cluster: Cluster, relation: Any) -> None:
    cluster.apply(acnp("p", "ingress", {"action": "Drop", "from": [{"namespaces": relation}]}))
    assert decided(cluster, "shop/cart", "shop/till") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


# Nodes


def node(*addresses: tuple[str, str], transport: str = "") -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {
            "name": "host-7",
            "labels": {"rack": "7"},
            "annotations": {"node.antrea.io/transport-addresses": transport} if transport else {},
        },
        "spec": {"podCIDRs": ["10.7.0.0/24", "fd07::/64"]},
        "status": {"addresses": [{"type": kind, "address": text} for kind, text in addresses]},
    }


INTERNAL = ("InternalIP", "192.0.2.71")
SECOND = ("InternalIP", "192.0.2.72")
SIX = ("InternalIP", "2001:db8::71")
EXTERNAL = ("ExternalIP", "198.51.100.71")
LEGS = {"10.7.0.1", "fd07::1"}


@pytest.mark.parametrize(
    ("found", "selected"),
    [
        (node(EXTERNAL, INTERNAL), {"192.0.2.71"}),
        (node(INTERNAL, SECOND, SIX, EXTERNAL), {"192.0.2.71", "2001:db8::71"}),
        (node(EXTERNAL), {"198.51.100.71"}),
        (node(INTERNAL, transport="192.0.2.99"), {"192.0.2.71", "192.0.2.99"}),
        (
            node(EXTERNAL, transport="192.0.2.99,2001:db8::99"),
            {"198.51.100.71", "192.0.2.99", "2001:db8::99"},
        ),
    ],
)
def test_addresses_that_a_node_selector_selects(
    cluster: Cluster, found: Any, selected: set[str]
) -> None:
    cluster.apply(
        found, acnp("p", "egress", {"action": "Drop", "to": [{"nodeSelector": matching(rack="7")}]})
    )
    known = {INTERNAL[1], SECOND[1], SIX[1], EXTERNAL[1], "192.0.2.99", "2001:db8::99", *LEGS}
    denied = {a for a in known if decided(cluster, "shop/cart", a, way="egress")[2] == 2}
    assert denied == selected | LEGS


def test_nodes_of_a_cluster_network_policy_are_all_their_addresses(cluster: Cluster) -> None:
    subject: dict[str, Any] = {"namespaces": {}}
    rule = {"action": "Deny", "to": [{"nodes": matching(rack="7")}]}
    cluster.apply(
        node(EXTERNAL, INTERNAL, SECOND),
        admin_policy("ClusterNetworkPolicy", "c", tier="Admin", subject=subject, egress=[rule]),
    )
    for _, address in (EXTERNAL, INTERNAL, SECOND):
        assert decided(cluster, "shop/cart", address, way="egress")[2] == 2


# A Pod, itself and its node


HOST = {
    "kind": "Node",
    "metadata": {"name": "node-1"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}
OTHER = {
    "kind": "Node",
    "metadata": {"name": "node-2"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]},
}


def test_a_network_policy_cannot_keep_a_pod_from_its_own_node(cluster: Cluster) -> None:
    cluster.apply(HOST, OTHER, network_policy("k", "shop", policyTypes=["Egress"]))
    assert cluster.one("shop/cart", "192.0.2.1")["egress"] == NOTHING
    assert cluster.policies.stats.exempt == 1
    assert decided(cluster, "shop/cart", "192.0.2.2", way="egress") == ("k", "", 2)
    assert decided(cluster, "shop/cart", OUTSIDE, way="egress") == ("k", "", 2)
    assert cluster.policies.stats.exempt == 1


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_an_address_that_two_nodes_have_is_the_younger_ones(
    cluster: Cluster, order: tuple[str, str]
) -> None:
    created = {"old": "2025-01-01T00:00:00Z", "new": "2026-01-01T00:00:00Z"}
    for name in order:
        about = {"name": name, "labels": {"is": name}, "creationTimestamp": created[name]}
        status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}
        cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": about, "status": status})
    rules = [
        {"name": name, "action": "Drop", "to": [{"nodeSelector": matching(**{"is": name})}]}
        for name in ("old", "new")
    ]
    cluster.apply(acnp("p", "egress", *rules))
    assert decided(cluster, "shop/cart", "192.0.2.7", way="egress") == ("p", "new", 2)


def test_policies_that_can_name_nodes_can(cluster: Cluster) -> None:
    cluster.apply(
        HOST,
        network_policy("k", "shop", policyTypes=["Egress"]),
        acnp(
            "p", "egress", {"action": "Drop", "to": [{"nodeSelector": {}}], "ports": [{"port": 22}]}
        ),
    )
    assert decided(cluster, "shop/cart", "192.0.2.1", 22, way="egress")[0] == "p"
    assert decided(cluster, "shop/cart", "192.0.2.1", 10250, way="egress") == ("", "", 0)


def test_the_baseline_is_not_reached_where_a_network_policy_lets_pass(cluster: Cluster) -> None:
    subject: dict[str, Any] = {"namespaces": {}}
    rule = {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}
    cluster.apply(
        HOST,
        network_policy("k", "shop", policyTypes=["Egress"]),
        admin_policy("BaselineAdminNetworkPolicy", "b", subject=subject, egress=[rule]),
    )
    assert decided(cluster, "shop/cart", "192.0.2.1", way="egress") == ("", "", 0)
    assert decided(cluster, "bank/desk", "192.0.2.1", way="egress")[0] == "b"


def test_no_verdict_by_right_is_not_that_nothing_selects(cluster: Cluster) -> None:
    cluster.apply(network_policy("k", "shop"), HOST)
    assert cluster.one("shop/cart", "shop/cart")["ingress"] == NOTHING
    assert cluster.policies.stats.exempt == 2, "a Pod to itself, in both directions"
    assert cluster.one("192.0.2.1", "shop/cart")["ingress"] == NOTHING
    assert cluster.policies.stats.exempt == 3, "a node to its Pods"
    assert cluster.one("shop/cart", "bank/desk") == {"ingress": NOTHING, "egress": NOTHING}
    assert cluster.policies.stats.exempt == 3


def test_nothing_is_kept_of_policies_that_are_gone() -> None:
    policies = Policies()
    strange = acnp("p", "ingress", {"action": "Drop", "from": [{"moon": 1}]})
    policies.upsert(strange, NOW)
    policies.retain("crd.antrea.io", "ClusterNetworkPolicy", set(), NOW)
    assert policies.unrecognized == {}
