from typing import Any

from flowvis.inventory.objects import parse_pod
from inventory.kubernetes_objects import pod


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
