import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calls import calls_of
from flowvis.native import StringTable
from flowvis.policies import endpoints, verdicts
from flowvis.policies.endpoints import EndpointTable
from flowvis.policies.history import KEPT_MS
from flowvis.policies.model import PolicyType
from policies.cluster import (
    NOTHING,
    NOW,
    Cluster,
    Connection,
    Pod,
    admin_policy,
    labels,
    matching,
    namespace,
    network_policy,
)

OPEN = network_policy("p", ingress=[{}])
SHUT = network_policy("p")
ALLOWED = ("p", "x", 1, "ingress[0]", 1)
DENIED = ("p", "x", 1, "", 2)
NODES = [
    {
        "kind": "Node",
        "metadata": {"name": f"node-{n}"},
        "spec": {"podCIDRs": [f"10.0.{n}.0/24", f"fd00:{n}::/64"]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": f"192.0.2.{n}"},
                {"type": "Hostname", "address": f"node-{n}"},
            ]
        },
    }
    for n in (1, 2)
]


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster(
        [Pod("x", "a", "10.0.0.1", labels(pod="a")), Pod("y", "b", "10.0.0.2", labels(pod="b"))]
    )
    found.apply(namespace("x"), namespace("y"))
    return found


def ingress(cluster: Cluster, start_ms: int = NOW, source: str = "y/b") -> Any:
    return cluster.one(source, "x/a", start_ms=start_ms)["ingress"]


def dated(item: Any, when: str) -> Any:
    return item | {"metadata": item["metadata"] | {"creationTimestamp": when}}


def test_objects_as_they_were_when_the_connection_began(cluster: Cluster) -> None:
    cluster.apply(OPEN, now_ms=NOW)
    cluster.apply(SHUT, now_ms=NOW + 1000)
    cluster.policies.delete(SHUT, NOW + 2000)
    found = [ingress(cluster, NOW + at) for at in (-1, 0, 999, 1000, 1999, 2000)]
    assert found == [NOTHING, ALLOWED, ALLOWED, DENIED, DENIED, NOTHING]


def test_one_batch_has_connections_of_several_times(cluster: Cluster) -> None:
    cluster.apply(OPEN, now_ms=NOW)
    cluster.apply(SHUT, now_ms=NOW + 1000)
    times = (NOW + 1500, NOW - 1, NOW + 500, NOW + 1500)
    rows = cluster.decide([Connection("y/b", "x/a", start_ms=at) for at in times])
    assert [row["ingress"] for row in rows] == [DENIED, NOTHING, ALLOWED, DENIED]
    assert cluster.policies.stats.compiled == 3
    assert cluster.policies.stats.records == 4


def test_a_policy_counts_from_its_creation(cluster: Cluster) -> None:
    cluster.apply(dated(OPEN, "2025-12-31T23:59:50Z"), now_ms=NOW)
    assert ingress(cluster, NOW - 10_000) == ALLOWED
    assert ingress(cluster, NOW - 10_001) == NOTHING


def test_a_change_counts_from_when_it_was_seen(cluster: Cluster) -> None:
    cluster.apply(dated(OPEN, "2025-12-31T23:59:50Z"), now_ms=NOW)
    cluster.apply(dated(SHUT, "2025-12-31T23:59:50Z"), now_ms=NOW + 5)
    assert ingress(cluster, NOW + 4) == ALLOWED
    assert ingress(cluster, NOW + 5) == DENIED


def test_a_policy_seen_late_changes_what_was_compiled(cluster: Cluster) -> None:
    assert ingress(cluster, NOW) == NOTHING
    cluster.apply(dated(OPEN, "2025-12-31T23:59:50Z"), now_ms=NOW + 400)
    assert ingress(cluster, NOW) == ALLOWED


def test_a_tenant_who_changes_a_policy_all_the_time_hides_no_other(cluster: Cluster) -> None:
    """Nor does each change cost a compilation, which all records wait for."""
    for at in range(0, 300_000, 250):
        noise = {"matchLabels": {"tick": str(at)}}
        cluster.apply(network_policy("noise", "y", podSelector=noise), now_ms=NOW + at)
        if at == 150_000:
            cluster.apply(SHUT, now_ms=NOW + at)
        ingress(cluster, NOW + at)
        if at > 180_000:
            assert ingress(cluster, NOW + at - 15_000) == DENIED
        elif at < 150_000:
            assert ingress(cluster, NOW + at - 15_000) == NOTHING
    assert cluster.policies.stats.compiled < 300_000 // 5000 + 10


def test_old_versions_are_forgotten(cluster: Cluster) -> None:
    cluster.apply(OPEN, now_ms=NOW)
    cluster.apply(SHUT, now_ms=NOW + 1000)
    cluster.policies.expire(NOW + 1000 + KEPT_MS)
    assert ingress(cluster, NOW) == DENIED
    cluster.policies.delete(SHUT, NOW + 2000)
    cluster.policies.expire(NOW + 2000 + KEPT_MS)
    assert ingress(cluster, NOW) == NOTHING
    assert len(cluster.policies) == 2


def test_an_old_policy_counts_always(cluster: Cluster) -> None:
    cluster.apply(dated(OPEN, "2020-01-01T00:00:00Z"), now_ms=NOW)
    assert ingress(cluster, NOW - 10 * KEPT_MS) == ALLOWED


def test_starts_in_whole_seconds(cluster: Cluster) -> None:
    cluster.apply(OPEN, now_ms=NOW)
    batch = cluster.batch([Connection("y/b", "x/a")])
    del batch.columns["flowStartMilliseconds"]
    batch["flowStartSeconds"] = np.array([NOW // 1000], dtype=np.uint32)
    handles = np.array([1]), np.array([0])
    found = cluster.policies.decide(batch, cluster.pods, *handles)
    assert found["ingressNetworkPolicyRuleAction"].tolist() == [1]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, DENIED),
        ({"RuleAction": 2}, DENIED),
        ({"Name": "p", "Namespace": "x", "RuleAction": 2}, DENIED),
        # Who reports a kind of policy knows it all: Antrea names none for the default isolation,
        # and no rule of a NetworkPolicy.
        ({"Type": 1, "RuleAction": 2}, ("", "", 1, "", 2)),
        ({"Name": "p", "Namespace": "x", "Type": 1, "RuleAction": 2}, ("p", "x", 1, "", 2)),
        ({"RuleAction": 3}, ("", "", 0, "", 3)),
        ({"Type": 2}, ("", "", 2, "", 0)),
        ({"Name": "n", "Type": 2, "RuleAction": 1}, ("n", "", 2, "", 1)),
    ],
)
def test_what_the_record_says_stays(cluster: Cluster, said: Any, expected: Any) -> None:
    cluster.apply(SHUT)
    columns = {f"ingressNetworkPolicy{name}": [value] for name, value in said.items()}
    assert cluster.decide([Connection("y/b", "x/a")], **columns)[0]["ingress"] == expected


def test_a_rule_that_the_record_leaves_without_a_name_stays_so(cluster: Cluster) -> None:
    cluster.apply(OPEN)
    own = {"Name": "p", "Namespace": "x", "Type": 1, "RuleAction": 1}
    columns = {f"ingressNetworkPolicy{name}": [value] for name, value in own.items()}
    found = cluster.decide([Connection("y/b", "x/a")], **columns)[0]["ingress"]
    assert found == ("p", "x", 1, "", 1)
    assert ingress(cluster) == ALLOWED


def test_without_policies_records_keep_what_they_say(cluster: Cluster) -> None:
    assert ingress(Cluster(cluster.pods)) == NOTHING
    said = {"ingressNetworkPolicyName": ["n"]}
    assert cluster.decide([Connection("y/b", "x/a")], **said)[0]["ingress"].name == "n"
    assert cluster.decide([]) == []


def test_what_was_decided_outlives_changes_of_namespaces(cluster: Cluster) -> None:
    peer = {"from": [{"namespaceSelector": matching(team="a")}]}
    cluster.apply(network_policy("p", ingress=[peer]))
    assert ingress(cluster) == DENIED
    before = replace(cluster.policies.stats)
    cluster.apply(namespace("other"), now_ms=NOW)
    assert ingress(cluster) == DENIED
    assert cluster.policies.stats.evaluated == before.evaluated
    cluster.apply(namespace("y", team="a"), now_ms=NOW + 1)
    assert ingress(cluster, NOW + 1) == ALLOWED
    assert ingress(cluster) == DENIED
    assert cluster.policies.stats.compiled == before.compiled


def test_only_policies_make_it_active(cluster: Cluster) -> None:
    assert not cluster.policies.active
    cluster.apply(OPEN, now_ms=NOW)
    policies = cluster.policies
    assert policies.active
    policies.delete(OPEN, NOW + 1)
    assert policies.active, "for connections that began before"
    policies.expire(NOW + 1 + KEPT_MS)
    assert not policies.active


def test_a_pod_always_reaches_itself(cluster: Cluster) -> None:
    cluster.apply(SHUT)
    assert ingress(cluster, source="x/a") == NOTHING


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("192.0.2.1", NOTHING),
        ("10.0.1.1", NOTHING),
        ("192.0.2.2", DENIED),
        ("10.0.2.1", DENIED),
        ("192.0.2.3", DENIED),
    ],
)
def test_a_node_always_reaches_its_own_pods(cluster: Cluster, source: str, expected: Any) -> None:
    cluster.apply(SHUT, *NODES)
    assert ingress(cluster, source=source) == expected


def test_a_pod_whose_labels_change(cluster: Cluster) -> None:
    cluster.apply(network_policy("p", podSelector=matching(pod="c")))
    assert ingress(cluster) == NOTHING
    cluster.pods = [replace(cluster.pods[0], labels=labels(pod="c")), cluster.pods[1]]
    assert ingress(cluster) == DENIED


def test_a_handle_that_becomes_another_pods(cluster: Cluster) -> None:
    cluster.apply(SHUT)
    assert ingress(cluster) == DENIED
    cluster.pods = [Pod("z", "a", "10.0.0.1"), cluster.pods[1]]
    assert cluster.one("y/b", "z/a")["ingress"] == NOTHING


def test_one_address_is_a_pods_and_nobodys(cluster: Cluster) -> None:
    cluster.apply(SHUT)
    assert ingress(cluster) == DENIED
    assert cluster.one("y/b", "10.0.0.1")["ingress"] == NOTHING


def test_named_ports_of_two_pods_with_equal_labels(cluster: Cluster) -> None:
    web = Pod("x", "a", "10.0.0.1", named_ports=(("web", 6, 8080),))
    cluster.pods = [web, replace(web, name="c", address="10.0.0.3", named_ports=())]
    cluster.apply(network_policy("p", ingress=[{"ports": [{"port": "web"}]}]))
    rows = [Connection("192.0.2.1", f"x/{name}", 8080) for name in "aca"]
    found = [row["ingress"].action for row in cluster.decide(rows)]
    assert found == [1, 2, 1]


def test_a_port_that_gets_a_name_after_it_was_decided_over(cluster: Cluster) -> None:
    plain = Pod("x", "a", "10.0.0.1")
    cluster.pods = [plain, replace(plain, name="c", address="10.0.0.3")]
    cluster.apply(network_policy("p", ingress=[{"ports": [{"port": "web"}]}]))
    assert cluster.one("192.0.2.1", "x/a", 8080)["ingress"].action == 2
    cluster.pods = [plain, replace(cluster.pods[1], named_ports=(("web", 6, 8080),))]
    rows = [Connection("192.0.2.1", f"x/{n}", port) for n in "ac" for port in (8080, 8081)]
    assert [row["ingress"].action for row in cluster.decide(rows)] == [2, 2, 1, 2]


def test_a_fresh_string_table(cluster: Cluster) -> None:
    cluster.apply(SHUT)
    assert ingress(cluster) == DENIED
    cluster.strings = StringTable()
    cluster.strings.encode(["something", "else"])
    assert ingress(cluster) == DENIED


def test_full_tables_begin_anew(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "MAX_PAIRS", 4)
    cluster.policies = type(cluster.policies)(EndpointTable(max_endpoints=8))
    blocks = [{"ipBlock": {"cidr": f"192.0.2.{n}/32"}} for n in range(40)]
    cluster.apply(network_policy("p", ingress=[{"from": blocks[:20]}]), now_ms=NOW - 1)
    for number in range(40):
        expected = ALLOWED if number < 20 else DENIED
        assert ingress(cluster, source=f"192.0.2.{number}") == expected
    assert cluster.policies.stats.cleared == 5


def test_addresses_outside_by_the_million_compile_and_decide_nothing_anew(
    cluster: Cluster,
) -> None:
    """As a scan's, or the clients of what everybody may call."""
    cluster.policies = type(cluster.policies)(EndpointTable(max_endpoints=64))
    block = {"ipBlock": {"cidr": "198.18.0.0/16", "except": ["198.18.7.0/24"]}}
    cluster.apply(*NODES, network_policy("p", ingress=[{"from": [block]}]), now_ms=NOW - 1)
    for place in range(20):
        ends = [f"198.18.{place}.{n}" for n in range(40)] + ["192.0.2.1", "192.0.2.2", "y/b"]
        found = [row["ingress"] for row in cluster.decide([Connection(e, "x/a") for e in ends])]
        allowed = DENIED if place == 7 else ALLOWED
        assert found == [allowed] * 40 + [NOTHING, DENIED, DENIED]
        if place == 7:
            evaluated = cluster.policies.stats.evaluated
    assert cluster.policies.stats.cleared > 5
    assert cluster.policies.stats.compiled == 1
    assert cluster.policies.stats.evaluated == evaluated


def test_so_many_classes_that_others_have_to_be_begun(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MAX_CLASSES", 20)
    cluster.policies = type(cluster.policies)(EndpointTable(max_endpoints=16))
    blocks = [{"ipBlock": {"cidr": f"192.0.2.{n}/32"}} for n in range(0, 200, 2)]
    cluster.apply(network_policy("p", ingress=[{"from": blocks}]), now_ms=NOW - 1)
    for number in range(200):
        expected = DENIED if number % 2 else ALLOWED
        assert ingress(cluster, source=f"192.0.2.{number}") == expected
        (cache,) = cluster.policies._caches.values()
        assert len(cache.classes.endpoints) <= 20 + 16
    assert 1 < cluster.policies.stats.compiled < cluster.policies.stats.cleared


def test_new_addresses_outside_cost_no_python_each(cluster: Cluster) -> None:
    cluster.apply(network_policy("p", ingress=[{"from": [{"ipBlock": {"cidr": "198.18.0.0/16"}}]}]))

    def calls(net: int, ends: int) -> int:
        batch = cluster.batch([Connection(f"198.{net}.0.{n}", "x/a") for n in range(ends)])
        handles = np.full(ends, -1), np.zeros(ends, dtype=np.int64)
        return calls_of(lambda: cluster.policies.decide(batch, cluster.pods, *handles))

    assert calls(18, 1) + calls(19, 1)  # what is outside of the block, too, is a class
    assert calls(18, 250) < calls(18, 2) + 100


def test_pods_of_which_there_are_too_many_are_learned_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MAX_MEMBERS", 6)
    cluster.apply(network_policy("p", ingress=[{"from": [{"podSelector": matching(pod="b")}]}]))
    for number in range(20):
        pod = Pod("x", "b", "10.0.0.9", labels(pod="b" if number % 3 else "c", serial=str(number)))
        cluster.pods = [*cluster.pods[:2], pod]
        assert ingress(cluster, source="x/b") == (ALLOWED if number % 3 else DENIED)
    assert cluster.policies.stats.cleared > 2
    assert cluster.policies.stats.compiled == 1


def test_more_endpoints_than_there_is_room_for(cluster: Cluster) -> None:
    cluster.policies = type(cluster.policies)(EndpointTable(max_endpoints=8))
    cluster.apply(SHUT)
    rows = [Connection(f"192.0.2.{n}", "x/a") for n in range(20)]
    with pytest.raises(ValueError, match="too small"):
        cluster.decide(rows)


def test_replacing_everything(cluster: Cluster) -> None:
    other = network_policy("other")
    cluster.policies.replace([namespace("x"), OPEN], NOW)
    assert ingress(cluster) == ALLOWED
    cluster.policies.replace([namespace("x"), other], NOW + 5)
    assert ingress(cluster, NOW + 5) == ("other", "x", 1, "", 2)
    assert len(cluster.policies._history._versions) == 4


def test_what_a_list_of_a_kind_lacks_is_gone(cluster: Cluster) -> None:
    cluster.apply(OPEN, network_policy("other", "y"))
    cluster.policies.retain("networking.k8s.io", "NetworkPolicy", {("y", "other")}, NOW)
    assert cluster.one("y/b", "x/a")["ingress"] == NOTHING
    assert cluster.one("x/a", "y/b")["ingress"] == ("other", "y", 1, "", 2)
    cluster.policies.retain("crd.antrea.io", "NetworkPolicy", set(), NOW)
    assert len(cluster.policies) == 4


def test_a_malformed_object_leaves_its_last_version(cluster: Cluster) -> None:
    cluster.apply(OPEN)
    bad = network_policy("p", ingress=[{"ports": [{"port": 70000}]}])
    with pytest.raises(ValueError, match="NetworkPolicy x/p: ports 70000-70000: at most 0-65535"):
        cluster.policies.upsert(bad, NOW)
    with pytest.raises(ValueError, match="x/p"):
        cluster.policies.replace([bad, admin_policy("ClusterNetworkPolicy", "ok")], NOW)
    assert ingress(cluster) == ALLOWED
    assert cluster.policies.stats.malformed == 3


def test_other_kinds_are_passed_over(cluster: Cluster) -> None:
    before = len(cluster.policies)
    cluster.apply({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}})
    cluster.apply(network_policy("p") | {"apiVersion": "example.org/v1"})
    cluster.policies.delete(network_policy("unknown"), NOW)
    assert len(cluster.policies) == before


def test_labels_of_a_pod_are_read_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.apply(SHUT)
    read: list[str] = []

    def loads(text: str) -> Any:
        read.append(text)
        return {"pod": "a"}

    monkeypatch.setattr(json, "loads", loads)
    for _ in range(3):
        ingress(cluster)
    assert len(read) == 2


def test_a_pod_with_two_addresses_is_two_endpoints(cluster: Cluster) -> None:
    block = {"ipBlock": {"cidr": "10.0.0.2/32"}}
    cluster.apply(network_policy("p", ingress=[{"from": [block]}]))
    several = [Pod("y", "b", address) for address in ("10.0.0.2", "fd00::2")]
    for _ in range(2):
        found = []
        for at in (0, 0, 1, 1, 0):
            batch = cluster.batch([Connection(several[at].address, "x/a")] * 2)
            handles = cluster._handles(["y/b", "y/b"]), cluster._handles(["x/a", "x/a"])
            columns = cluster.policies.decide(batch, cluster.pods, *handles)
            found.append(columns["ingressNetworkPolicyRuleAction"].tolist())
        assert found == [[1, 1], [1, 1], [2, 2], [2, 2], [1, 1]]
        cluster.policies._clear()  # as when a table is full


def test_objects_as_they_were_at_a_time(cluster: Cluster) -> None:
    def there(at: int) -> Any:
        snapshot = cluster.policies.as_of(NOW + at)
        return [policy.name for policy in snapshot.policies], sorted(snapshot.namespaces)

    cluster.apply(OPEN, now_ms=NOW)
    found = [there(at) for at in (-1, 0, 5)]
    assert found == [([], ["x", "y"]), (["p"], ["x", "y"]), (["p"], ["x", "y"])]
    cluster.policies.delete(OPEN, NOW + 10)
    cluster.apply(namespace("z"), now_ms=NOW + 20)
    assert [there(at) for at in (5, 10, 19, 20)] == [
        (["p"], ["x", "y"]),
        ([], ["x", "y"]),
        ([], ["x", "y"]),
        ([], ["x", "y", "z"]),
    ]
    # What is seen late changes what was asked for already.
    cluster.apply(dated(SHUT, "2025-12-31T23:59:50Z"), now_ms=NOW + 30)
    assert there(20) == (["p"], ["x", "y", "z"])
    mine = cluster.policies.as_of(NOW + 30)
    mine.reaching = frozenset({("x", "g")})
    assert not cluster.policies.as_of(NOW + 30).reaching


def test_since_when_a_policy_says_what_it_says(cluster: Cluster) -> None:
    cluster.apply(dated(OPEN, "2025-12-31T23:59:50Z"), now_ms=NOW)
    cluster.apply(network_policy("q", "y"), now_ms=NOW + 5)
    kind = "NetworkPolicy"
    assert cluster.policies.since() == {
        (PolicyType.KUBERNETES, kind, "x", "p"): NOW - 10_000,
        (PolicyType.KUBERNETES, kind, "y", "q"): NOW + 5,
    }
    cluster.apply(dated(SHUT, "2025-12-31T23:59:50Z"), now_ms=NOW + 7)
    cluster.policies.delete(network_policy("q", "y"), NOW + 8)
    assert cluster.policies.since() == {(PolicyType.KUBERNETES, kind, "x", "p"): NOW + 7}
