import json
from typing import Any

import pytest

from flowvis.aggregator.enrichment.complete import Completer
from flowvis.batch import Batch, address_text
from flowvis.fields import BY_NAME, FlowType
from flowvis.filters import parse
from flowvis.filters.mask import mask
from flowvis.inventory.index import Inventory
from flowvis.native import StringTable
from flowvis.policies import Egresses, Policies
from flowvis.strings import MAX_TEXT_BYTES
from inventory.kubernetes_objects import node, service

from .records import FIELDS, records

START_S = 1_800_000_000
START_MS = START_S * 1000


def pod(name: str, address: str, node: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels or {},
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def completed(batch: Batch, *, labels: bool = False) -> Batch:
    inventory = Inventory()
    inventory.upsert(pod("client", "10.0.1.1", "n1", {"app": "c", "tier": "1"}), START_MS)
    inventory.upsert(pod("server", "10.0.2.1", "n2"), START_MS)
    inventory.upsert(pod("near", "10.0.1.2", "n1"), START_MS)
    inventory.upsert(node("n3", "192.0.2.2", "10.9.0.0/24"), START_MS)
    inventory.upsert(service("web", ["10.96.0.1"], {"name": "http", "port": 80}), START_MS)
    Completer(inventory, lambda: "east", pod_labels=labels).complete(batch)
    return batch


INTER_NODE = {
    "sourceIP": "10.0.1.1",
    "destinationIP": "10.0.2.1",
    "flowType": 2,
    "flowStartSeconds": START_S,
}


def test_the_pod_of_the_missing_half_is_filled_in() -> None:
    batch = completed(
        records(
            INTER_NODE | {"sourcePodName": "client", "sourcePodNamespace": "shop"},
            INTER_NODE | {"destinationPodName": "known", "destinationNodeName": "kept"},
        )
    )
    assert batch.texts("destinationPodName") == ["server", "known"]
    assert batch.texts("destinationPodNamespace") == ["shop", ""]
    assert batch.texts("destinationNodeName") == ["n2", "kept"]
    assert batch.texts("sourcePodName") == ["client", "client"]
    assert batch.texts("sourceNodeName") == ["n1", "n1"]


def test_what_began_long_before_a_pod_was_made_is_its_own_only_where_a_record_says_so() -> None:
    """The address was another Pod's, which is forgotten; a stream goes on to who has it now."""
    inventory, policies = Inventory(), Policies()
    heir = pod("heir", "10.0.1.1", "n1", {"app": "c"})
    heir["metadata"]["creationTimestamp"] = "2027-01-15T08:00:00Z"  # START_S
    inventory.upsert(heir, START_MS)
    policy = {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"policyTypes": ["Egress"]}}
    policies.upsert(policy | {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}, 0)
    early = INTER_NODE | {"flowStartSeconds": START_S - 3600}
    late = INTER_NODE | {"flowStartSeconds": START_S - 60}
    named = {"sourcePodName": "heir", "sourcePodNamespace": "shop"}
    batch = records(early, late, early | named)
    Completer(inventory, lambda: "", pod_labels=True, policies=policies).complete(batch)
    assert batch.texts("sourcePodName") == ["", "heir", "heir"]
    assert batch.texts("sourcePodLabels") == ["", '{"app":"c"}', '{"app":"c"}']
    assert batch.texts("egressNetworkPolicyName") == ["", "p", "p"]
    assert policies.stats.unknown == 1


def test_who_only_looks_counts_nothing() -> None:
    """Alerts go by what is counted of policies."""
    objects = [
        pod("client", "10.0.1.1", "n1", {"app": "c"}),
        pod("server", "10.0.2.1", "n2", {"app": "s"}),
    ]
    inventory, policies = Inventory(), Policies()
    for each in objects:
        inventory.upsert(each, START_MS)
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    policies.upsert(policy, 0)
    completer = Completer(inventory, lambda: "east", pod_labels=True, policies=policies)
    answered = INTER_NODE | {"octetTotalCount": 500, "reverseOctetTotalCount": 500}
    looked, written = records(answered, INTER_NODE), records(answered, INTER_NODE)
    completer.complete(looked, counts=False)
    assert (policies.stats.records, policies.stats.unenforced) == (0, 0)
    completer.complete(written)
    assert (policies.stats.records, policies.stats.unenforced) == (2, 1)
    assert looked.texts("ingressNetworkPolicyName") == written.texts("ingressNetworkPolicyName")
    assert looked["ingressNetworkPolicyRuleAction"].any()


@pytest.mark.parametrize("labels", [500, 30_000])
def test_a_pod_with_more_labels_than_a_record_has_room_for(labels: int) -> None:
    """Kubernetes has no limit but etcd's of 1.5 MB for an object."""
    reports: list[str] = []
    inventory = Inventory(report=reports.append)
    many = {f"team.example.com/{n:05d}": "v" * 30 for n in range(labels)}
    for _ in range(3):
        inventory.upsert(pod("client", "10.0.1.1", "n1", many), START_MS)
    inventory.upsert(pod("server", "10.0.2.1", "n2", {"app": "s"}), START_MS)
    batch = records(INTER_NODE | {"sourcePodName": "client"}, {"sourceIP": "10.0.2.1"})
    Completer(inventory, lambda: "east", pod_labels=True).complete(batch)
    long, short = batch.texts("sourcePodLabels")
    shown = json.loads(long)
    assert shown == dict(list(many.items())[: len(shown)])
    assert MAX_TEXT_BYTES // 2 < len(long) <= MAX_TEXT_BYTES
    assert short == '{"app":"s"}'
    (report,) = reports
    assert report.startswith(f"Pod shop/client: its {labels} labels take")
    assert inventory.stats.odd_values["Pod"] == 1


def test_a_string_table_without_room_costs_added_text_only() -> None:
    strings = StringTable(1000)
    strings.encode(["x" * 60] + [f"{n}" for n in range(13)])
    batch = records(INTER_NODE | {"octetTotalCount": 7}, strings=strings)
    inventory = Inventory()
    inventory.upsert(pod("client", "10.0.1.1", "n1", {"app": "c" * 500}), START_MS)
    Completer(inventory, lambda: "east", pod_labels=True).complete(batch)
    assert batch.texts("sourcePodLabels") == [""]
    assert batch["octetTotalCount"].tolist() == [7]
    assert strings.refused


def test_whatever_the_flow_is_called_its_pods_are_named() -> None:
    batch = completed(records(*(INTER_NODE | {"flowType": number} for number in range(5))))
    assert batch.texts("sourcePodName") == ["client"] * 5
    assert batch.texts("destinationPodName") == ["server"] * 5
    assert batch["flowType"].tolist() == [2, 1, 2, 2, 2]


def test_a_pod_that_the_record_names_otherwise_is_left_alone() -> None:
    batch = completed(records(INTER_NODE | {"sourcePodName": "before"}))
    assert batch.texts("sourcePodNamespace") == [""]
    assert batch.texts("sourceNodeName") == [""]


OUTSIDE, UNKNOWN_POD = "198.51.100.9", "10.9.0.7"


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("10.0.1.1", "10.0.1.2", FlowType.INTRA_NODE),
        ("10.0.1.1", "10.0.2.1", FlowType.INTER_NODE),
        ("10.0.1.1", OUTSIDE, FlowType.TO_EXTERNAL),
        ("10.0.1.1", "192.0.2.2", FlowType.INTER_NODE),  # a node is inside of the cluster
        ("192.0.2.2", "10.0.1.1", FlowType.INTER_NODE),
        (OUTSIDE, "10.0.2.1", FlowType.FROM_EXTERNAL),
        ("10.0.1.1", UNKNOWN_POD, FlowType.UNSPECIFIED),
        (UNKNOWN_POD, "10.0.1.1", FlowType.UNSPECIFIED),
        (OUTSIDE, "192.0.2.2", FlowType.UNSPECIFIED),
    ],
)
def test_flow_types_of_records_that_have_none(source: str, destination: str, expected: int) -> None:
    batch = completed(records({"sourceIP": source, "destinationIP": destination}))
    assert batch["flowType"].tolist() == [expected]


@pytest.mark.parametrize("address", ["192.0.2.2", "10.9.0.0", "10.9.0.1"])
def test_nodes_are_named_at_all_their_addresses(address: str) -> None:
    rows = (
        {"sourceIP": "10.0.1.1", "destinationIP": address, "flowType": 3},
        {"sourceIP": address, "destinationIP": "10.0.1.1", "flowType": 4},
        {"sourceIP": address, "destinationIP": "10.0.1.1", "sourceNodeName": "reported"},
    )
    batch = completed(records(*rows))
    assert batch.texts("sourceNodeName") == ["n1", "n3", "reported"]
    assert batch.texts("destinationNodeName") == ["n3", "n1", "n1"]
    assert batch.texts("destinationPodName") == ["", "client", "client"]
    assert batch.texts("sourcePodName") == ["client", "", ""]


def host_pod(name: str, node_name: str, *ports: int, **more: Any) -> dict[str, Any]:
    made = pod(name, "192.0.2.2", node_name)
    made["spec"] |= {
        "hostNetwork": True,
        "containers": [{"ports": [{"containerPort": port} for port in ports]}],
    }
    made["metadata"] |= more
    return made


def test_what_is_known_of_another_pod_with_that_address_is_not_said() -> None:
    batch = completed(
        records(INTER_NODE | {"sourcePodName": "before", "sourcePodNamespace": "shop"}), labels=True
    )
    for name in ("sourceWorkloadKind", "sourceWorkloadName", "sourcePodLabels"):
        assert batch.texts(name) == [""]
    assert batch.texts("sourcePodName") == ["before"]
    assert batch.texts("destinationPodName") == ["server"]


def test_pods_of_one_name_in_two_namespaces_are_two() -> None:
    inventory = Inventory()
    database = pod("db-0", "10.0.1.1", "n1", {"app": "db"})
    inventory.upsert(database, START_MS)
    by = {"sourceIP": "10.0.1.1", "sourcePodName": "db-0", "flowStartSeconds": START_S}
    batch = records(by | {"sourcePodNamespace": "shop"}, by | {"sourcePodNamespace": "bank"}, by)
    Completer(inventory, lambda: "east", pod_labels=True).complete(batch)
    assert batch.texts("sourcePodLabels") == ['{"app":"db"}', "", '{"app":"db"}']
    assert batch.texts("sourcePodNamespace") == ["shop", "bank", "shop"]
    assert batch.texts("sourceNodeName") == ["n1", "", "n1"]


def test_an_address_that_another_pod_has_within_the_same_second() -> None:
    inventory = Inventory()
    inventory.upsert(pod("old", "10.0.1.1", "n1"), START_MS - 60_000)
    inventory.upsert(pod("new", "", "n1"), START_MS - 50_000)
    inventory.delete(pod("old", "10.0.1.1", "n1"), START_MS + 300)
    inventory.upsert(pod("new", "", "n1"), START_MS + 400)
    inventory.upsert(pod("new", "10.0.1.1", "n1"), START_MS + 900)
    began = {"sourceIP": "10.0.1.1", "flowStartSeconds": START_S}
    ended = {"sourceIP": "10.0.1.1", "flowEndSeconds": START_S}
    fields = (*FIELDS, BY_NAME["flowStartMilliseconds"], BY_NAME["flowEndMilliseconds"])
    batch = records(
        began | {"flowStartMilliseconds": START_MS + 200},
        began | {"flowStartMilliseconds": START_MS + 800},
        began,
        ended | {"flowEndMilliseconds": START_MS + 800},
        ended,
        fields=fields,
    )
    Completer(inventory, lambda: "east", pod_labels=False).complete(batch)
    assert batch.texts("sourcePodName") == ["old", "new", "old", "new", "old"]


def test_a_pod_on_the_nodes_own_address_is_named_where_it_alone_declares_the_port() -> None:
    inventory = Inventory()
    owner = {"kind": "DaemonSet", "name": "watch", "controller": True}
    for item in (
        node("n3", "192.0.2.2"),
        host_pod("metrics", "n3", 9100, labels={"app": "m"}, ownerReferences=[owner]),
        host_pod("one", "n3", 8080),
        host_pod("other", "n3", 8080),
        host_pod("elsewhere", "n1", 22),
    ):
        inventory.upsert(item, START_MS)
    to = {"destinationIP": "192.0.2.2", "protocolIdentifier": 6, "flowStartSeconds": START_S}
    batch = records(
        to | {"destinationTransportPort": 9100},
        to | {"destinationTransportPort": 8080},
        to | {"destinationTransportPort": 22},
        to | {"destinationTransportPort": 9100, "protocolIdentifier": 17},
        to | {"destinationTransportPort": 9100, "destinationPodName": "reported"},
    )
    Completer(inventory, lambda: "east", pod_labels=True).complete(batch)
    assert batch.texts("destinationPodName") == ["metrics", "", "", "", "reported"]
    assert batch.texts("destinationPodNamespace") == ["shop", "", "", "", ""]
    assert batch.texts("destinationNodeName") == ["n3", "n3", "n3", "n3", ""]
    assert batch.texts("destinationPodLabels") == ['{"app":"m"}', "", "", "", ""]
    assert batch.texts("destinationWorkloadName") == ["watch", "", "", "", ""]


def test_the_workloads_of_both_pods() -> None:
    inventory = Inventory()
    client = pod("client-7d4b-x", "10.0.1.1", "n1", {"pod-template-hash": "7d4b"})
    for item, kind, name in (
        (client, "ReplicaSet", "client-7d4b"),
        (pod("db-0", "10.0.2.1", "n2"), "StatefulSet", "db"),
    ):
        item["metadata"]["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
        inventory.upsert(item, START_MS)
    inventory.upsert(pod("bare", "10.0.2.2", "n2"), START_MS)
    batch = records(INTER_NODE, INTER_NODE | {"destinationIP": "10.0.2.2"}, {"sourceIP": OUTSIDE})
    Completer(inventory, lambda: "east", pod_labels=False).complete(batch)
    assert batch.texts("sourceWorkloadKind") == ["Deployment", "Deployment", ""]
    assert batch.texts("sourceWorkloadName") == ["client", "client", ""]
    assert batch.texts("destinationWorkloadKind") == ["StatefulSet", "", ""]
    assert batch.texts("destinationWorkloadName") == ["db", "", ""]


def test_services_by_either_of_their_addresses() -> None:
    called = {"destinationServicePort": 80, "protocolIdentifier": 6}
    vip = {"destinationServiceIP": "10.96.0.1"}
    batch = completed(
        records(
            called | vip,
            called | {"destinationClusterIP": "10.96.0.1"},
            called | vip | {"destinationServicePortName": "reported"},
            called | {"destinationServiceIP": "10.96.0.2"},
            called | vip | {"protocolIdentifier": 17},
            vip,
        )
    )
    named = ["shop/web:http", "shop/web:http", "reported", "", "", ""]
    assert batch.texts("destinationServicePortName") == named
    addresses = [address_text(bytes(row)) for row in batch["destinationServiceIP"]]
    assert addresses == ["10.96.0.1"] * 3 + ["10.96.0.2"] + ["10.96.0.1"] * 2


def test_unknown_addresses_stay_as_they_are() -> None:
    batch = completed(records(INTER_NODE | {"destinationIP": "10.0.9.9"}))
    assert batch.texts("destinationPodName") == [""]


def test_every_record_carries_the_cluster() -> None:
    assert completed(records({}, {})).texts("clusterId") == ["east", "east"]


def test_labels_are_json_and_only_of_pods() -> None:
    known = INTER_NODE | {"sourcePodName": "client"}
    batch = completed(records(known, {"sourceIP": OUTSIDE, "flowType": 0}), labels=True)
    first, second = batch.texts("sourcePodLabels")
    assert json.loads(first) == {"app": "c", "tier": "1"}
    assert second == ""
    assert batch.texts("destinationPodLabels") == ["{}", ""]


def test_labels_stay_out_unless_they_are_wanted() -> None:
    batch = completed(records(INTER_NODE | {"sourcePodName": "client"}))
    assert batch.texts("sourcePodLabels") == [""]


def test_an_empty_batch_is_fine() -> None:
    assert len(completed(records({}).take(slice(0, 0)), labels=True)) == 0


def test_the_policies_that_allowed_and_denied() -> None:
    inventory, policies = Inventory(), Policies()
    for item in (
        pod("client", "10.0.1.1", "n1", {"app": "c"}),
        pod("server", "10.0.2.1", "n2", {"app": "s"}),
    ):
        inventory.upsert(item, START_MS)
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)
    rows = [INTER_NODE, INTER_NODE | {"ingressNetworkPolicyName": "reported"}]
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["", "reported"]
    policies.upsert(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "only-c", "namespace": "shop"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "s"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]}],
            },
        },
        START_MS - 1,
    )
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["only-c", "reported"]
    assert batch.texts("ingressNetworkPolicyNamespace") == ["shop", ""]
    assert batch["ingressNetworkPolicyType"].tolist() == [1, 0]
    assert batch["ingressNetworkPolicyRuleAction"].tolist() == [1, 0]
    assert batch["egressNetworkPolicyRuleAction"].tolist() == [0, 0]


def test_no_policy_of_another_pod_that_has_the_address_of_one_that_is_gone() -> None:
    """Records come late, as after an outage: their Pods are gone, and addresses are used again."""
    inventory, policies = Inventory(), Policies()
    for item in (
        pod("next", "10.0.1.1", "n1", {"app": "c"}),
        pod("server", "10.0.2.1", "n2", {"app": "s"}),
        pod("open", "10.0.2.2", "n2", {"app": "o"}),
        pod("free", "10.0.2.3", "n2"),
        node("n3", "192.0.2.2"),
    ):
        inventory.upsert(item, START_MS)
    clients = [{"podSelector": {"matchLabels": {"app": "c"}}}]
    metrics = {"ports": [{"port": "metrics"}]}
    block = {"from": [{"ipBlock": {"cidr": "10.0.9.0/24"}}]}
    for name, spec in {
        "shut": _ingress("s", {"from": clients, "ports": [{"port": 80}]}),
        "open": _ingress("o", block, metrics, {}) | {"egress": [metrics, {"to": clients}]},
        "out": {"podSelector": {"matchLabels": {"app": "c"}}, "egress": [{}]},
    }.items():
        metadata = {"name": name, "namespace": "shop"}
        item = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
        policies.upsert(item | {"spec": spec}, START_MS - 1)
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)
    to = INTER_NODE | {"destinationTransportPort": 80, "protocolIdentifier": 6}
    own = to | {"sourcePodName": "next", "sourcePodNamespace": "shop"}
    gone = own | {"sourcePodName": "gone"}
    elsewhere = gone | {"sourceIP": "10.0.9.9"}
    batch = records(
        own,
        gone,
        elsewhere,
        elsewhere | {"destinationTransportPort": 81},  # of which no rule is, whoever calls
        gone | {"destinationIP": "10.0.2.2"},
        elsewhere | {"destinationIP": "10.0.2.2"},
        gone | {"destinationIP": "10.0.2.3"},
        gone | {"sourceIP": "192.0.2.2"},  # in its node's network: none that policies select
        to | {"sourceIP": "10.0.9.8", "destinationIP": "10.0.9.9", "destinationPodName": "gone"},
        to | {"sourceIP": "10.0.2.2", "destinationIP": "10.0.9.9", "destinationPodName": "gone"},
    )
    completer.complete(batch)
    decided = zip(
        batch.texts("ingressNetworkPolicyName"),
        batch.texts("ingressNetworkPolicyRuleName"),
        batch["ingressNetworkPolicyRuleAction"].tolist(),
        strict=True,
    )
    nothing, denied = ("", "", 0), ("shut", "", 2)
    allowed = ("shut", "ingress[0]", 1), ("open", "ingress[2]", 1), ("open", "ingress[0]", 1)
    others = [nothing, nothing, denied, *allowed[1:], nothing, denied, nothing, nothing]
    assert list(decided) == [allowed[0], *others]
    assert batch.texts("egressNetworkPolicyName") == ["out"] + [""] * 9
    assert batch.texts("sourcePodName")[:3] == ["next", "gone", "gone"]
    assert policies.stats.unknown == 2 * 2 + 4 + 1 + 2

    inventory.upsert(pod("late", "10.0.2.4", "n2", {"app": "s"}), START_MS)
    batch = records(*({**by, "destinationIP": "10.0.2.4"} for by in (gone, own)))
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["", "shut"]


def _ingress(app: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": app}}, "ingress": [*rules]}


def test_a_denial_that_the_traffic_refutes() -> None:
    inventory, policies = Inventory(), Policies()
    inventory.upsert(pod("client", "10.0.1.1", "n1"), START_MS)
    inventory.upsert(pod("server", "10.0.2.1", "n2"), START_MS)
    metadata = {"name": "shut", "namespace": "shop"}
    shut = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    policies.upsert(shut | {"spec": {"podSelector": {}}}, START_MS - 1)
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)
    sent = {"octetTotalCount": 300, "packetTotalCount": 5}
    replies = {"reverseOctetTotalCount": 9000, "reversePacketTotalCount": 7}
    batch = records(
        INTER_NODE | sent,
        INTER_NODE | sent | replies,
        INTER_NODE | sent | replies | {"ingressNetworkPolicyRuleAction": 2},
    )
    completer.complete(batch)
    assert batch["ingressNetworkPolicyRuleAction"].tolist() == [2, 4, 2]
    assert batch.texts("ingressNetworkPolicyName") == ["shut"] * 3
    assert mask(parse("verdict = denied"), batch).tolist() == [True, False, True]
    assert mask(parse("verdict = unenforced"), batch).tolist() == [False, True, False]
    assert policies.stats.unenforced == 1


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_pod_that_is_gone_is_no_member_of_a_group(*, forgotten: bool) -> None:
    inventory, policies = Inventory(), Policies()
    for name, address in (("client", "10.0.1.1"), ("server", "10.0.2.1"), ("guest", "10.0.3.1")):
        inventory.upsert(pod(name, address, "n1", {"app": name}), START_MS)
    other = pod("guest", "10.0.3.2", "n1", {"app": "server"})
    other["metadata"] |= {"namespace": "bank", "uid": "other"}
    inventory.upsert(other, START_MS)
    group = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "server"}}}
    rule = {"name": "no", "action": "Drop"}
    policy = {"priority": 5, "appliedTo": [{"group": "servers"}], "ingress": [rule]}
    for kind, name, spec in (("Group", "servers", group), ("NetworkPolicy", "shut", policy)):
        metadata = {"name": name, "namespace": "shop"}
        item = {"apiVersion": "crd.antrea.io/v1beta1", "kind": kind, "metadata": metadata}
        policies.upsert(item | {"spec": spec}, START_MS - 1)
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)

    def named() -> list[str]:
        batch = records(INTER_NODE)
        completer.complete(batch)
        return batch.texts("ingressNetworkPolicyName")

    assert named() == [""], "Antrea applies nothing to a Group with Pods of other namespaces"
    inventory.delete(other, START_MS + 1000)
    if forgotten:
        inventory.expire(START_MS + 3_600_000)
    policies.expire(START_MS + 3_600_000)
    assert named() == ["shut"]


def test_a_record_without_a_start_is_judged_as_of_when_it_was_seen() -> None:
    inventory, policies, egresses = Inventory(), Policies(), Egresses()
    for name, address in (("client", "10.0.1.1"), ("server", "10.0.2.1")):
        inventory.upsert(pod(name, address, "n1"), START_MS)
    metadata = {"name": "shut", "namespace": "shop"}
    shut = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    policies.upsert(shut | {"spec": {"podSelector": {}}}, START_MS)
    status = {"egressIP": "192.0.2.9", "egressNode": "n1"}
    leaves = {"apiVersion": "crd.antrea.io/v1beta1", "kind": "Egress", "status": status}
    leaves |= {"metadata": {"name": "out"}, "spec": {"appliedTo": {"podSelector": {}}}}
    egresses.upsert(leaves, START_MS)
    completer = Completer(
        inventory, lambda: "east", pod_labels=False, policies=policies, egresses=egresses
    )
    seen = {"flowStartSeconds": 0, "flowEndSeconds": START_S + 60}
    away = {"destinationIP": "198.51.100.1", "flowType": FlowType.TO_EXTERNAL}
    batch = records(INTER_NODE | seen, INTER_NODE | seen | away)
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["shut", ""]
    assert batch.texts("egressName") == ["", "out"]


def test_labels_are_added_from_when_they_are_wanted() -> None:
    inventory = Inventory()
    inventory.upsert(pod("client", "10.0.1.1", "n1", {"app": "c"}), START_MS)
    completer = Completer(inventory, lambda: "east", pod_labels=False)
    before, after = (records(INTER_NODE | {"sourcePodName": "client"}) for _ in range(2))
    completer.complete(before)
    completer.pod_labels = True
    completer.complete(after)
    assert before.texts("sourcePodLabels") == [""]
    assert after.texts("sourcePodLabels") == ['{"app":"c"}']


def test_the_egress_of_what_leaves_the_cluster() -> None:
    inventory, egresses = Inventory(), Egresses()
    inventory.upsert(pod("client", "10.0.1.1", "n1"), START_MS)
    inventory.upsert(node("n2", "192.0.2.2"), START_MS)
    completer = Completer(inventory, lambda: "east", pod_labels=False, egresses=egresses)
    out = {"sourceIP": "10.0.1.1", "flowType": 3, "flowStartSeconds": START_S}
    rows = [
        out | {"destinationIP": "198.51.100.9"},
        out | {"destinationIP": "192.0.2.2"},  # a node: never given another address
        out | {"destinationIP": "198.51.100.9", "egressName": "reported"},
        {"sourceIP": "10.0.9.9", "flowType": 3, "destinationIP": "198.51.100.9"},
        out | {"destinationIP": "198.51.100.9", "sourcePodName": "gone"},
    ]
    egresses.upsert(
        {
            "apiVersion": "crd.antrea.io/v1beta1",
            "kind": "Egress",
            "metadata": {"name": "way-out"},
            "spec": {"appliedTo": {"podSelector": {}}},
            "status": {"egressNode": "n2", "egressIP": "192.0.2.200"},
        },
        0,
    )
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("egressName") == ["way-out", "", "reported", "", ""]
    assert batch.texts("egressIP") == ["192.0.2.200", "", "", "", ""]
    assert batch.texts("egressNodeName") == ["n2", "", "", "", ""]


GATEWAY = "10.0.2.254"  # of the Pods' bridge on n2; no object has it


def test_no_policy_stops_what_a_node_sends_to_its_own_pods() -> None:
    inventory, policies = Inventory(), Policies()
    inventory.upsert(pod("server", "10.0.2.1", "n2", {"app": "s"}), START_MS)
    inventory.upsert(node("n2", "192.0.2.2"), START_MS)
    policies.upsert(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "s"}}, "policyTypes": ["Ingress"]},
        },
        START_MS - 1,
    )
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)
    to = {"destinationIP": "10.0.2.1", "flowStartSeconds": START_S}
    own = to | {"sourceIP": GATEWAY, "sourceNodeName": "n2"}
    batch = records(
        own,
        to | {"sourceIP": "192.0.2.2"},
        to | {"sourceIP": GATEWAY, "sourceNodeName": "n1"},
        to | {"sourceIP": OUTSIDE},
        own | {"ingressNetworkPolicyName": "reported", "ingressNetworkPolicyRuleAction": 3},
    )
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["", "", "closed", "closed", "reported"]
    assert batch["ingressNetworkPolicyRuleAction"].tolist() == [0, 0, 2, 2, 3]
    assert batch["flowType"].tolist() == [1, 1, 2, 4, 1]


def test_no_network_policy_keeps_a_pod_from_any_address_of_its_own_node() -> None:
    """As from a DNS cache of the node, at an address that only the node's exporter knows."""
    inventory, policies = Inventory(), Policies()
    inventory.upsert(pod("client", "10.0.2.1", "n2", {"app": "c"}), START_MS)
    inventory.upsert(node("n2", "192.0.2.2"), START_MS)
    closed = {"podSelector": {}, "policyTypes": ["Egress"]}
    metadata = {"name": "closed", "namespace": "shop"}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    policies.upsert(policy | {"spec": closed}, START_MS - 1)
    completer = Completer(inventory, lambda: "east", pod_labels=False, policies=policies)
    cache = {"sourceIP": "10.0.2.1", "destinationIP": "169.254.20.10", "flowStartSeconds": START_S}
    rows = [
        cache | {"sourceNodeName": "n2", "destinationNodeName": "n2"},
        cache | {"sourceNodeName": "n2", "destinationNodeName": "n1"},
        cache,
        cache | {"destinationIP": "192.0.2.2"},
    ]
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("egressNetworkPolicyName") == ["", "closed", "closed", ""]
    rule = {"name": "no", "action": "Drop"}
    wide = {"priority": 5, "appliedTo": [{"podSelector": {}}], "egress": [rule]}
    antrea = {"apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy"}
    policies.upsert(antrea | {"metadata": {"name": "wide"}, "spec": wide}, START_MS - 1)
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("egressNetworkPolicyName") == ["wide"] * 4, "other kinds may forbid it"


def _placed(name: str, zone: str, region: str = "eu") -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": region}
    return node(name, f"192.0.2.{name[1:4]}", labels=labels)


def test_zones_and_regions_are_those_of_the_nodes() -> None:
    """Of nodes that records name, or that are found at an address; whatever string table it is."""
    inventory = Inventory()
    inventory.upsert(_placed("n1", "eu-a"), START_MS)
    inventory.upsert(_placed("n2", "eu-b"), START_MS)
    inventory.upsert(node("n3", "192.0.2.3"), START_MS)
    inventory.upsert(pod("server", "10.0.2.1", "n2"), START_MS)
    completer = Completer(inventory, lambda: "east", pod_labels=False)
    for _ in range(2):
        batch = records(
            INTER_NODE | {"sourcePodName": "client", "sourceNodeName": "n1"},
            INTER_NODE | {"sourceIP": "192.0.2.2", "destinationIP": "198.51.100.9"},
            INTER_NODE | {"sourceNodeName": "n3", "destinationNodeName": "gone"},
        )
        completer.complete(batch)
        assert batch.texts("sourceZone") == ["eu-a", "eu-b", ""]
        assert batch.texts("sourceRegion") == ["eu", "eu", ""]
        assert batch.texts("destinationZone") == ["eu-b", "", ""]
        assert batch.texts("destinationRegion") == ["eu", "", ""]
    inventory.upsert(_placed("n1", "eu-c"), START_MS)
    inventory.upsert(_placed("n3", "eu-d", region=""), START_MS)
    batch = records(*(INTER_NODE | {"sourceNodeName": name} for name in ("n1", "n3", "n4")))
    completer.complete(batch)
    assert batch.texts("sourceZone") == ["eu-c", "eu-d", ""]
    assert batch.texts("sourceRegion") == ["eu", "", ""]


def test_a_node_whose_name_has_no_room_is_nowhere() -> None:
    strings = StringTable(1000)
    strings.encode(["x" * 60] + [f"{n}" for n in range(13)])
    inventory = Inventory()
    inventory.upsert(_placed("n" + "1" * 3, "z" * 500), START_MS)
    batch = records(INTER_NODE | {"octetTotalCount": 7}, INTER_NODE, strings=strings)
    Completer(inventory, lambda: "east", pod_labels=False).complete(batch)
    assert batch.texts("sourceZone") == ["", ""]
