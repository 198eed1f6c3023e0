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
        (owned("Job", "migrate-20260115"), ("Job", "migrate-20260115")),  # as minutes: 2008
        (owned("Job", "run-1234567890"), ("Job", "run-1234567890")),  # as seconds: 2009
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


@pytest.mark.parametrize(
    ("job", "kind"),
    [
        ("report-29453760", "CronJob"),  # 2026-01-01 in minutes, when the Pod was made
        ("report-29452320", "CronJob"),  # a day before: it was late
        ("report-29460960", "Job"),  # five days later
        ("report-2026010112", "Job"),  # as seconds: 2034
    ],
)
def test_no_pod_is_made_before_it_is_scheduled(job: str, kind: str) -> None:
    inventory, when = Inventory(), "2026-01-01T00:00:00Z"
    inventory.upsert(pod("p", "10.0.0.1", creationTimestamp=when, **owned("Job", job)), 0)
    assert inventory.pods.objects[0].workload == (kind, "report" if kind == "CronJob" else job)


def test_pods_know_their_workload() -> None:
    inventory = Inventory()
    inventory.upsert(pod("cart-1", "10.0.0.1", **owned("StatefulSet", "cart")), 0)
    assert inventory.pods.objects[0].workload == ("StatefulSet", "cart")
