from typing import Any

import pytest

from flowvis.inventory.index import Inventory
from flowvis.inventory.workloads import NO_WORKLOAD, Workload, workload
from inventory.kubernetes_objects import pod


def owned(kind: str, name: str, template_hash: str = "") -> dict[str, Any]:
    labels = {"pod-template-hash": template_hash} if template_hash else {}
    owner = {"kind": kind, "name": name, "controller": True}
    return {"labels": labels, "ownerReferences": [{"kind": "Node", "name": "n"}, owner]}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (owned("ReplicaSet", "cart-6f8b9c", "6f8b9c"), ("Deployment", "cart")),
        (owned("ReplicaSet", "a-b-6f8b9cbd7", "other"), ("Deployment", "a-b")),
        (owned("ReplicaSet", "by-hand"), ("ReplicaSet", "by-hand")),
        (owned("StatefulSet", "db"), ("StatefulSet", "db")),
        (owned("DaemonSet", "proxy"), ("DaemonSet", "proxy")),
        (owned("Job", "report-29384720"), ("CronJob", "report")),
        (owned("Job", "report-1763712000"), ("CronJob", "report")),
        (owned("Job", "migrate-1"), ("Job", "migrate-1")),
        (owned("Rollout", "x"), ("Rollout", "x")),
    ],
)
def test_workloads_by_the_names_that_controllers_give(
    metadata: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert workload(metadata) == Workload(*expected)


def test_a_pod_made_by_itself() -> None:
    assert workload({}) == NO_WORKLOAD
    assert workload({"ownerReferences": [{"kind": "Node", "name": "n"}]}) == NO_WORKLOAD


def test_pods_know_their_workload() -> None:
    inventory = Inventory()
    inventory.upsert(pod("cart-1", "10.0.0.1", **owned("StatefulSet", "cart")), 0)
    assert inventory.pods.objects[0].workload == ("StatefulSet", "cart")
