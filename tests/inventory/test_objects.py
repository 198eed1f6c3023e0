import json
from typing import Any

import pytest

from flowvis.inventory.index import Inventory
from flowvis.inventory.objects import parse_node, parse_pod
from flowvis.strings import MAX_TEXT_BYTES
from inventory.kubernetes_objects import node, pod


def port(name: str, number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": protocol}


def test_what_policies_ask_of_a_pod() -> None:
    web = {
        "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"containerPort": 9000},
        ]
    }
    sidecar = {"restartPolicy": "Always", "ports": [sync := port("sync", 7, "SCTP")]}
    before = {"ports": [port("http", 9), port("setup", 10)]}
    other_init = {"restartPolicy": "OnFailure", "ports": [sync | {"containerPort": 8}]}
    spec = {
        "serviceAccountName": "robot",
        "containers": [web, {"name": "none"}],
        "initContainers": [before, other_init, sidecar],
    }
    found = parse_pod(pod("a", "10.0.0.1", spec=spec))
    assert found.service_account == "robot"
    assert found.named_ports == (("http", 6, 8080), ("dns", 17, 53), ("sync", 132, 7))
    other = parse_pod(pod("b", "10.0.0.2", spec=spec))
    assert other.named_ports is found.named_ports


def test_a_pod_that_says_nothing_for_policies() -> None:
    found = parse_pod(pod("a", "10.0.0.1"))
    assert (found.service_account, found.named_ports) == ("", ())


def test_labels_that_no_record_has_room_for() -> None:
    labels = {f"team.example.com/{n:04d}-{'k' * 50}": "v" * 63 for n in range(500)}
    notes: list[str] = []
    found = parse_pod(pod("a", "10.0.0.1", labels=labels), notes.append)
    assert json.loads(found.labels) == labels  # policies select by all of them
    shown = json.loads(found.exported_labels)
    assert shown == dict(list(labels.items())[: len(shown)])
    assert MAX_TEXT_BYTES - 150 < len(found.exported_labels) <= MAX_TEXT_BYTES
    (note,) = notes
    assert "Pod shop/a: its 500 labels take" in note
    assert f"the first {len(shown)}" in note


def test_labels_of_usual_size_are_held_once() -> None:
    found = parse_pod(pod("a", "10.0.0.1", labels={"app": "web"}))
    assert found.exported_labels is found.labels


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"labels": ["app"]}, r"Pod shop/a: metadata.labels \['app'\] is no object"),
        ({"namespace": 7}, "metadata.namespace 7 is not a text"),
    ],
)
def test_metadata_that_is_not_what_kubernetes_has(metadata: dict[str, Any], problem: str) -> None:
    item = pod("a", "10.0.0.1")
    item["metadata"] |= metadata
    with pytest.raises(ValueError, match=problem):
        Inventory().upsert(item, 0)


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"Pod shop/7: metadata\.name 7 is not a text"):
        parse_pod(pod(7, "10.0.0.1"))  # type: ignore[arg-type]


ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("labels", "zone", "region", "noted"),
    [
        ({ZONE: "eu-1a", REGION: "eu-1"}, "eu-1a", "eu-1", ""),
        ({OLD_ZONE: "b"}, "b", "", ""),
        ({ZONE: "", OLD_ZONE: "b"}, "b", "", ""),
        ({ZONE: "a", OLD_ZONE: "b"}, "a", "", ""),
        ({ZONE: 7, OLD_ZONE: "b"}, "b", "", f"metadata.labels[{ZONE}]: 7 is no text"),
        ({}, "", "", ""),
        ([ZONE], "", "", f"metadata.labels: ['{ZONE}'] is no object"),
    ],
)
def test_where_a_node_is(labels: Any, zone: str, region: str, noted: str) -> None:
    notes: list[str] = []
    found = parse_node(node("n1", "192.0.2.1", labels=labels), notes.append)
    assert (found.zone, found.region) == (zone, region)
    assert found.addresses
    assert notes == ([f"Node n1: {noted}: it is left out"] if noted else [])
