"""Policies that cost too much are not worked out; all others are, as ever."""

from typing import Any

import pytest

from flowvis.policies import costs
from flowvis.policies.costs import BLOCKS, PEERS, RULES, SELECTORS
from flowvis.policies.model import Action, Direction

from .cluster import (
    NOTHING,
    NOW,
    Cluster,
    Pod,
    Verdict,
    admin_policy,
    antrea,
    network_policy,
)

SERVER, CLIENT = Pod("shop", "server", "10.0.0.1"), Pod("shop", "client", "10.0.0.2")
OTHER = Pod("bank", "teller", "10.0.0.3")


def holed(number: int) -> dict[str, Any]:
    """All addresses but one of their own: so many of these are sets of so many, everywhere."""
    return {"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"172.16.{number >> 8}.{number & 255}/32"]}}


def selector(number: int) -> dict[str, Any]:
    return {"podSelector": {"matchExpressions": [{"key": f"k{number}", "operator": "Exists"}]}}


def cluster_with(*items: dict[str, Any]) -> tuple[Cluster, list[str]]:
    reports: list[str] = []
    cluster = Cluster([SERVER, CLIENT, OTHER])
    cluster.policies._report = reports.append
    cluster.apply(*items)
    return cluster, reports


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ([{"from": [holed(number) for number in range(1500)]}], BLOCKS),
        ([{"from": [holed(2 * n), holed(2 * n + 1)]} for n in range(750)], BLOCKS),
        ([{"from": [selector(number) for number in range(1001)]}], SELECTORS),
        ([{"from": [selector(number)]} for number in range(1001)], SELECTORS),
        ([{"ports": [{"port": 1 + number}]} for number in range(1001)], RULES),
    ],
    ids=["blocks of a rule", "blocks of many", "selectors of a rule", "selectors of many", "rules"],
)
def test_one_policy_that_is_too_much_is_unknown_and_reported(
    rules: list[dict[str, Any]], problem: str
) -> None:
    modest = network_policy(
        "modest", "bank", podSelector={}, ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]}]
    )
    hostile = network_policy("hostile", "shop", podSelector={}, ingress=rules)
    cluster, reports = cluster_with(modest, hostile)
    assert cluster.one("bank/teller", "shop/server")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1
    allowed = Verdict("modest", "bank", 1, "ingress[0]", Action.ALLOW)
    assert cluster.one("shop/client", "bank/teller")["ingress"] == allowed
    (report,) = reports
    assert report.startswith(f"NetworkPolicy shop/hostile: not understood: {problem}: verdicts")
    assert cluster.policies.as_dict()["unrecognized"] == {"NetworkPolicy shop/hostile": problem}
    rules_ = cluster.policies._newest.generation.rules  # type: ignore[union-attr]
    assert sum(map(len, rules_.blocks.sets)) < 10
    assert len(rules_.rules_for(range(10), Direction.INGRESS)) < 10

    cluster.apply(network_policy("hostile", "shop", podSelector={}, ingress=[]))
    assert cluster.one("bank/teller", "shop/server", start_ms=2_000_000_000_000)["ingress"] == (
        Verdict("hostile", "shop", 1, "", Action.DROP)
    )
    assert cluster.policies.as_dict()["unrecognized"] == {}


def test_a_large_list_of_networks_is_nothing_unusual() -> None:
    networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(5000)]
    allowed = [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in networks]}]
    cluster, reports = cluster_with(
        network_policy("listed", "shop", podSelector={}, ingress=allowed)
    )
    assert cluster.one("bank/teller", "shop/server")["ingress"].name == "listed"
    assert cluster.one("11.0.0.1", "shop/server")["ingress"].action == Action.DROP
    assert reports == []


def test_who_cuts_a_neighbours_block_in_pieces_pays_for_it() -> None:
    wide = [
        network_policy(f"wide-{n}", "bank", podSelector={}, ingress=[{"from": [holed(n)]}])
        for n in range(100)
    ]
    cutting = [f"10.{number >> 8}.{number & 255}.1/32" for number in range(0, 12_000, 2)]
    rules = [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in cutting]}]
    cluster, reports = cluster_with(
        *wide, network_policy("cutting", "shop", podSelector={}, ingress=rules)
    )
    assert cluster.one("shop/client", "bank/teller")["ingress"].name == "wide-0"
    assert [report.partition(":")[0] for report in reports] == ["NetworkPolicy shop/cutting"]


def test_groups_of_thousands_in_many_rules_of_many_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kilobyte of a policy could be a hundred thousand peers, and another one as many more."""
    monkeypatch.setattr(costs, "MAX_PEERS", 10_000)
    networks = [{"cidr": f"10.{number >> 8}.{number & 255}.0/24"} for number in range(1000)]
    everybody: list[dict[str, Any]] = [{"podSelector": {}}]

    def listing(name: str, rules: int) -> dict[str, Any]:
        ingress = [
            {
                "action": "Allow",
                "from": [{"group": "many"}, {"group": "few"}],
                "ports": [{"port": n}],
            }
            for n in range(rules)
        ]
        return antrea(
            "NetworkPolicy", name, "shop", appliedTo=everybody, priority=5, ingress=ingress
        )

    groups = [
        antrea("Group", "many", "shop", ipBlocks=networks),
        antrea("Group", "few", "shop", ipBlocks=networks[:10]),
    ]
    modest = antrea("NetworkPolicy", "modest", "bank", appliedTo=everybody, priority=5)
    modest["spec"]["ingress"] = [{"action": "Drop"}]
    cluster, reports = cluster_with(*groups, modest, listing("small", 3), listing("large", 7))
    assert cluster.one("shop/client", "bank/teller")["ingress"].name == "modest"
    assert cluster.one("10.0.0.9", "shop/server", 2)["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1
    (report,) = reports
    assert report.startswith(f"NetworkPolicy shop/large: not understood: {PEERS}")
    cluster.policies.delete(listing("large", 7), NOW)
    found = cluster.one("10.0.0.9", "shop/server", 2, start_ms=NOW)["ingress"]
    assert (found.name, found.rule) == ("small", "ingress[2]")


def test_a_direction_without_rules_costs_nothing_and_stays_certain() -> None:
    rules = [{"ports": [{"port": 1 + number}]} for number in range(1001)]
    shut = network_policy(
        "shut", "shop", podSelector={}, policyTypes=["Ingress", "Egress"], ingress=rules
    )
    cluster, _ = cluster_with(shut)
    found = cluster.one("shop/client", "shop/server")
    assert found == {"ingress": NOTHING, "egress": Verdict("shut", "shop", 1, "", Action.DROP)}
    assert cluster.policies.stats.unknown == 1


def test_what_is_reported_of_a_policy_ends_with_it() -> None:
    rules = [
        {"action": "Deny", "from": [{"namespaces": {}}], "ports": [{"portNumber": {"port": 1 + n}}]}
        for n in range(1001)
    ]

    def costly(name: str, *its: dict[str, Any]) -> dict[str, Any]:
        subject: dict[str, Any] = {"namespaces": {}}
        return admin_policy(
            "AdminNetworkPolicy", name, priority=1, subject=subject, ingress=list(its)
        )

    cluster, reports = cluster_with(costly("mended", *rules), costly("gone", *rules))
    before = NOW - 1000
    assert cluster.one("bank/teller", "shop/server", start_ms=before)["ingress"] == NOTHING
    assert set(cluster.policies.unrecognized) == {
        f"AdminNetworkPolicy {n}" for n in ("mended", "gone")
    }
    cluster.apply(costly("mended", rules[0]), now_ms=NOW)
    cluster.policies.delete(costly("gone"), NOW)
    assert cluster.policies.unrecognized == {}
    cluster.policies._caches.clear()  # as when there are many, or a table of ends is full
    cluster.policies._newest = None
    assert cluster.one("bank/teller", "shop/server", start_ms=before)["ingress"] == NOTHING
    assert cluster.one("bank/teller", "shop/server", 1, start_ms=NOW)["ingress"].name == "mended"
    assert cluster.policies.unrecognized == {}
    assert cluster.policies.stats.unrecognized == 0
    assert len(reports) == 2


def test_one_that_is_too_much_costs_no_other_kind_of_its_name() -> None:
    """All BaselineAdminNetworkPolicies are called "default"."""
    everybody: dict[str, Any] = {"namespaces": {}}
    deny: dict[str, Any] = {"action": "Deny", "from": [everybody]}
    hostile = admin_policy(
        "AdminNetworkPolicy",
        "default",
        subject={"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}},
        ingress=[deny] * 1001,
    )
    baseline = admin_policy(
        "BaselineAdminNetworkPolicy", "default", subject=everybody, ingress=[deny]
    )
    cluster, reports = cluster_with(hostile, baseline)
    found = cluster.one("shop/client", "shop/server")["ingress"]
    assert found == Verdict("default", "", 4, "ingress[0]", Action.DROP)
    assert cluster.one("shop/client", "bank/teller")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1
    assert [report.split(":")[0] for report in reports] == ["AdminNetworkPolicy default"]


def test_policies_of_too_many_blocks_together_cost_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside each other they are no sets of sets; but each takes its time, at each change."""
    monkeypatch.setattr(costs, "MAX_BLOCKS", 100)

    def blocks(first: int, count: int) -> list[dict[str, Any]]:
        return [{"ipBlock": {"cidr": f"172.16.{first}.{n}/32"}} for n in range(count)]

    hostile = [network_policy(f"h{n}", "shop", ingress=[{"from": blocks(n, 80)}]) for n in range(3)]
    modest = network_policy("modest", "bank", ingress=[{"from": blocks(9, 20)}])
    cluster, reports = cluster_with(*hostile, modest)
    found = cluster.one("172.16.9.7", "bank/teller")["ingress"]
    assert found == Verdict("modest", "bank", 1, "ingress[0]", Action.ALLOW)
    assert cluster.one("172.16.1.7", "shop/server")["ingress"] == NOTHING
    assert cluster.policies.stats.unknown == 1
    assert [report.split(": verdicts")[0] for report in reports] == [
        f"NetworkPolicy shop/h{n}: not understood: too many address blocks" for n in range(3)
    ]


def test_blocks_that_several_policies_have_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MAX_BLOCKS", 100)
    shared = [{"ipBlock": {"cidr": f"172.16.0.{n}/32"}} for n in range(80)]
    policies = [network_policy(f"p{n}", "shop", ingress=[{"from": shared}]) for n in range(3)]
    cluster, reports = cluster_with(*policies)
    assert cluster.one("172.16.0.7", "shop/server")["ingress"].action == Action.ALLOW
    assert reports == []
