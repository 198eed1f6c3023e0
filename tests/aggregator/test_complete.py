import json
from typing import Any

from flowvis.aggregator.complete import Completer
from flowvis.batch import Batch
from flowvis.inventory.index import Inventory
from flowvis.policies import Policies

from .records import records

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
    Completer(inventory, "east", pod_labels=labels).complete(batch)
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
    assert batch.texts("sourceNodeName") == ["", "n1"]


def test_only_flows_between_nodes_lack_a_pod() -> None:
    batch = completed(records(*(INTER_NODE | {"flowType": number} for number in (0, 1, 3, 4))))
    assert batch.texts("sourcePodName") == ["", "", "", ""]
    assert batch.texts("destinationPodName") == ["", "", "", "server"]


def test_unknown_addresses_stay_as_they_are() -> None:
    batch = completed(records(INTER_NODE | {"destinationIP": "10.0.9.9"}))
    assert batch.texts("destinationPodName") == [""]


def test_every_record_carries_the_cluster() -> None:
    assert completed(records({}, {})).texts("clusterId") == ["east", "east"]


def test_labels_are_json_and_only_of_pods() -> None:
    known = INTER_NODE | {"sourcePodName": "client"}
    batch = completed(records(known, {"sourceIP": "10.0.1.1", "flowType": 0}), labels=True)
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
    completer = Completer(inventory, "east", pod_labels=False, policies=policies)
    rows = [INTER_NODE, INTER_NODE | {"ingressNetworkPolicyName": "told"}]
    batch = records(*rows)
    completer.complete(batch)
    assert batch.texts("ingressNetworkPolicyName") == ["", "told"]
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
    assert batch.texts("ingressNetworkPolicyName") == ["only-c", "told"]
    assert batch.texts("ingressNetworkPolicyNamespace") == ["shop", ""]
    assert batch["ingressNetworkPolicyType"].tolist() == [1, 0]
    assert batch["ingressNetworkPolicyRuleAction"].tolist() == [1, 0]
    assert batch["egressNetworkPolicyRuleAction"].tolist() == [0, 0]


def test_what_is_added_can_change() -> None:
    inventory = Inventory()
    inventory.upsert(pod("client", "10.0.1.1", "n1", {"app": "c"}), START_MS)
    completer = Completer(inventory, "east", pod_labels=False)
    before, after = (records(INTER_NODE | {"sourcePodName": "client"}) for _ in range(2))
    completer.complete(before)
    completer.cluster_id, completer.pod_labels = "west", True
    completer.complete(after)
    assert [batch.texts("clusterId") for batch in (before, after)] == [["east"], ["west"]]
    assert before.texts("sourcePodLabels") == [""]
    assert after.texts("sourcePodLabels") == ['{"app":"c"}']
