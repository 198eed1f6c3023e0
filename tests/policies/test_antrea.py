"""Antrea's own policies, with verdicts worked out by hand."""

from typing import Any

import pytest

from policies.cluster import (
    NOTHING,
    Cluster,
    Pod,
    antrea,
    labels,
    matching,
    namespace,
    network_policy,
)

ALL: list[dict[str, Any]] = [{"podSelector": {}}]


@pytest.fixture
def cluster() -> Cluster:
    pods = [
        Pod(ns, name, f"10.0.{at}.{n}", labels(app=name), service_account=f"{name}-account")
        for at, ns in enumerate(("dev", "test", "prod"))
        for n, name in enumerate(("web", "db"))
    ]
    found = Cluster(pods)
    found.apply(namespace("dev", org="a"), namespace("test", org="a"), namespace("prod", org="b"))
    return found


def acnp(name: str, *ingress: Any, priority: float = 5, **spec: Any) -> Any:
    given = {"appliedTo": ALL, "priority": priority, "ingress": list(ingress), **spec}
    return antrea("ClusterNetworkPolicy", name, **given)


def verdict(cluster: Cluster, source: str = "dev/web", to: str = "dev/db", *rest: Any) -> Any:
    found = cluster.one(source, to, *rest)["ingress"]
    return found.name, found.rule, int(found.action)


def test_every_action_and_type(cluster: Cluster) -> None:
    cluster.apply(
        antrea(
            "NetworkPolicy",
            "own",
            "dev",
            appliedTo=ALL,
            priority=1,
            ingress=[{"name": "no", "action": "Reject", "from": [{"podSelector": {}}]}],
        ),
        acnp("all", {"action": "Drop", "name": "drop"}, priority=2),
    )
    row = cluster.one("dev/web", "dev/db")
    assert row == {"ingress": ("own", "dev", 2, "no", 3), "egress": NOTHING}
    assert cluster.one("prod/web", "dev/db")["ingress"] == ("all", "", 3, "drop", 2)


def test_tiers_come_before_priorities(cluster: Cluster) -> None:
    cluster.apply(
        acnp("late", {"action": "Drop"}, priority=1),
        acnp("early", {"action": "Allow"}, priority=99, tier="securityops"),
    )
    assert verdict(cluster) == ("early", "ingress[0]", 1)


def test_a_tier_of_ones_own(cluster: Cluster) -> None:
    mine = acnp("mine", {"action": "Reject"}, tier="mine", priority=9)
    cluster.apply(mine, acnp("other", {"action": "Allow"}, tier="emergency"))
    assert verdict(cluster) == ("other", "ingress[0]", 1)
    cluster.apply(antrea("Tier", "mine", priority=20))
    assert verdict(cluster) == ("mine", "ingress[0]", 3)


def test_pass_skips_the_tiers_and_goes_to_network_policies(cluster: Cluster) -> None:
    cluster.apply(
        acnp("pass", {"action": "Pass"}, tier="emergency"),
        acnp("drop", {"action": "Drop"}),
        acnp("last", {"action": "Reject"}, tier="baseline"),
    )
    assert verdict(cluster) == ("last", "ingress[0]", 3)
    cluster.apply(network_policy("allows", "dev", ingress=[{}]))
    assert verdict(cluster) == ("allows", "ingress[0]", 1)


def test_the_baseline_does_not_matter_to_isolated_pods(cluster: Cluster) -> None:
    cluster.apply(
        acnp("last", {"action": "Allow"}, tier="baseline"), network_policy("isolates", "dev")
    )
    assert verdict(cluster) == ("isolates", "", 2)
    assert verdict(cluster, "dev/db", "test/db") == ("last", "ingress[0]", 1)


def test_a_rule_has_targets_of_its_own(cluster: Cluster) -> None:
    only = {"podSelector": matching(app="db")}
    cluster.apply(acnp("rules", {"action": "Drop", "appliedTo": [only]}, appliedTo=None))
    assert verdict(cluster) == ("rules", "ingress[0]", 2)
    assert verdict(cluster, "dev/db", "dev/web") == ("", "", 0)


@pytest.mark.parametrize(
    ("relation", "from_test", "from_prod"),
    [({"match": "Self"}, False, False), ({"sameLabels": ["org"]}, True, False)],
)
def test_namespaces_by_relation(
    cluster: Cluster, relation: Any, *, from_test: bool, from_prod: bool
) -> None:
    cluster.apply(
        acnp(
            "related",
            {"action": "Allow", "from": [{"namespaces": relation}]},
            {"action": "Drop"},
        )
    )
    found = [verdict(cluster, f"{ns}/web")[2] == 1 for ns in ("dev", "test", "prod")]
    assert found == [True, from_test, from_prod]


def test_same_labels_needs_the_label(cluster: Cluster) -> None:
    same = {"namespaces": {"sameLabels": ["team"]}}
    cluster.apply(acnp("related", {"action": "Drop", "from": [same]}))
    assert verdict(cluster) == ("", "", 0)


def test_same_labels_that_change(cluster: Cluster) -> None:
    same = {"namespaces": {"sameLabels": ["org"]}}
    cluster.apply(acnp("related", {"action": "Drop", "from": [same]}))
    assert verdict(cluster, "test/web")[2] == 2
    cluster.apply(namespace("test", org="c"))
    assert verdict(cluster, "test/web")[2] == 0


def test_groups(cluster: Cluster) -> None:
    cluster.apply(
        acnp("by-group", {"action": "Drop", "from": [{"group": "both"}]}),
        antrea("ClusterGroup", "both", childGroups=["webs", "outside"]),
        antrea("ClusterGroup", "webs", podSelector=matching(app="web")),
        antrea("ClusterGroup", "outside", ipBlocks=[{"cidr": "192.0.2.0/24"}]),
    )
    assert verdict(cluster) == ("by-group", "ingress[0]", 2)
    assert verdict(cluster, "192.0.2.9") == ("by-group", "ingress[0]", 2)
    assert verdict(cluster, "test/db") == ("", "", 0)


def test_groups_that_contain_each_other_end(cluster: Cluster) -> None:
    cluster.apply(
        acnp("by-group", {"action": "Drop", "from": [{"group": "one"}]}),
        antrea("ClusterGroup", "one", childGroups=["other"]),
        antrea("ClusterGroup", "other", childGroups=["one"]),
    )
    assert verdict(cluster) == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


def test_groups_in_groups_in_groups_cost_no_more_than_there_are_groups(cluster: Cluster) -> None:
    names = [f"g{n}" for n in range(30)]
    cluster.apply(
        acnp("by-group", {"action": "Drop", "from": [{"group": "g0"}]}),
        *(antrea("ClusterGroup", name, childGroups=names) for name in names[:-1]),
        antrea("ClusterGroup", names[-1], podSelector=matching(app="web")),
    )
    assert verdict(cluster) == ("by-group", "ingress[0]", 2)
    assert verdict(cluster, "test/db") == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


def test_a_long_chain_of_groups(cluster: Cluster) -> None:
    cluster.apply(
        acnp("by-group", {"action": "Drop", "from": [{"group": "g0"}]}),
        *(antrea("ClusterGroup", f"g{n}", childGroups=[f"g{n + 1}"]) for n in range(3000)),
    )
    assert verdict(cluster) == ("", "", 0)
    assert cluster.policies.stats.unknown == 1


def test_service_accounts(cluster: Cluster) -> None:
    account = {"serviceAccount": {"namespace": "test", "name": "web-account"}}
    cluster.apply(acnp("by-account", {"action": "Drop", "from": [account]}))
    assert verdict(cluster, "test/web") == ("by-account", "ingress[0]", 2)
    assert verdict(cluster, "dev/web") == ("", "", 0)
    assert verdict(cluster, "test/db") == ("", "", 0)


@pytest.mark.parametrize(
    "doubt",
    [
        {"from": [{"externalEntitySelector": {}}]},
        {"from": [{"podSelector": matching(app="none")}, {"fqdn": "example.org"}]},
        {"from": [{"podSelector": {}, "scope": "ClusterSet"}]},
        {"ports": [{"protocol": "TCP", "sourcePort": 1024}]},
        {"toServices": [{"name": "s", "namespace": "dev"}]},
    ],
)
def test_what_a_record_cannot_tell_is_left_open(cluster: Cluster, doubt: Any) -> None:
    cluster.apply(
        acnp("first", {"action": "Allow", "ports": [{"port": 443}]}, priority=1),
        acnp("doubtful", {"action": "Drop"} | doubt, priority=2),
        acnp("later", {"action": "Reject"}, priority=3),
    )
    assert verdict(cluster) == ("", "", 0)
    assert cluster.policies.stats.unknown == 1
    assert verdict(cluster, "dev/web", "dev/db", 443) == ("first", "ingress[0]", 1)


def test_icmp(cluster: Cluster) -> None:
    cluster.apply(acnp("ping", {"action": "Drop", "protocols": [{"icmp": {}}]}))
    assert verdict(cluster, "dev/web", "dev/db", 0, 1) == ("ping", "ingress[0]", 2)
    assert verdict(cluster, "dev/web", "dev/db", 0, 58) == ("ping", "ingress[0]", 2)
    assert verdict(cluster) == ("", "", 0)
    cluster.apply(acnp("ping", {"action": "Drop", "protocols": [{"icmp": {"icmpType": 8}}]}))
    assert verdict(cluster, "dev/web", "dev/db", 0, 1) == ("", "", 0)
    assert cluster.policies.stats.unknown == 1
