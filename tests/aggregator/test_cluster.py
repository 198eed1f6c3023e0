from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from flowvis.aggregator import daemon
from flowvis.aggregator.cluster import follow
from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli.status import _show as show
from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import POLICIES
from flowvis.inventory.settings import KubernetesSettings
from flowvis.inventory.sources.access import HOST, PORT
from flowvis.lab.apiserver import ApiServer, kubeconfig
from flowvis.runtime.settings import load
from inventory.kubernetes_objects import node, pod
from waiting import until

from .exported import SOURCE_HALF, START_MS, exported


def build(inventory: dict[str, Any]) -> Aggregator:
    text = yaml.safe_dump({"inventory": inventory, "controlSocket": "/nowhere"})
    return Aggregator(load(AggregatorSettings, text.encode(), {}))


def test_deadlines_go_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0]
    monkeypatch.setattr(daemon, "monotonic_ms", lambda: passed[0])
    table = build({}).table
    table.add(exported(table.strings, SOURCE_HALF), START_MS)
    assert not len(table.due(START_MS + 400_000))
    passed[0] += 90_000
    assert len(table.due(START_MS - 400_000)) == 1


async def test_the_aggregator_knows_all_of_the_cluster(tmp_path: Path) -> None:
    served = {"networking.k8s.io/v1": {"networkpolicies"}, "crd.antrea.io/v1beta1": {"egresses"}}
    server = ApiServer(served=served)
    server.put(pod("a", "10.0.0.1", node="node-1"))
    server.put(pod("b", "10.0.1.1", node="node-2"))
    server.put({"kind": "Service", "metadata": {"name": "s", "namespace": "shop"}})
    server.put(node("node-1", "192.0.2.1"))
    server.put({"kind": "Namespace", "metadata": {"name": "shop"}})
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "shop"}}
    server.put(policy, "networking.k8s.io/v1")
    egress = {"kind": "Egress", "metadata": {"name": "out"}}
    server.put(egress, "crd.antrea.io/v1beta1")
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    settings = KubernetesSettings(kubeconfig=path)
    inventory, policies, egresses = Inventory(), Reported(), Reported()
    watchers = follow(settings, inventory, policies, egresses)
    await watchers.start()
    assert len(inventory) == 5
    decided_by = ["Namespace shop", "NetworkPolicy deny", "Node node-1", "Service s"]
    assert sorted(policies.reported) == decided_by
    assert sorted(egresses.reported) == ["Egress out", "Namespace shop"]
    assert len(watchers.watchers) == 4 + len(POLICIES) + 1
    await watchers.stop()
    await server.stop()


async def test_while_the_server_is_away_it_is_ready_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ApiServer()
    server.put(pod("a", "10.0.0.1"))
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    built = build({"kubernetes": {"kubeconfig": str(path)}})
    status: Any = built.components[0]
    following: Any = built.components[1]
    await following.start()
    assert built._status()["kubernetes"] == ""
    await server.stop()
    await until(lambda: built._status()["kubernetes"])
    assert not any("kubernetes" in line for line in status._not_ready())
    assert len(built._inventory) == 1
    show({"version": "1", "uptimeSeconds": 1, "flows": 0, **built._status()})
    assert "Kubernetes API: stale for" in " ".join(capsys.readouterr().out.split())
    await following.stop()


class Reported(Inventory):
    """Remembers what it was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.reported: list[str] = []
        self.latest_ms = 0

    def upsert(self, item: Any, now_ms: int) -> None:
        self.latest_ms = now_ms
        self.reported.append(f"{item['kind']} {item['metadata']['name']}")


def test_the_api_server_is_asked_in_a_pod_unless_there_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HOST, raising=False)
    assert build({}).components[1].name == "inventory files"
    monkeypatch.setenv(HOST, "10.96.0.1")
    monkeypatch.setenv(PORT, "443")
    assert build({}).components[1].name == "kubernetes"
    assert build({"files": [str(tmp_path)]}).components[1].name == "inventory files"


def test_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, "10.96.0.1")
    built = build({})
    status: Any = built.components[0]
    assert "kubernetes: not started" in status._not_ready()
    text = generate_latest(status.registry).decode()
    assert "flowvis_aggregator_kubernetes_synced 0.0" in text.splitlines()
    assert "flowvis_aggregator_kubernetes_watches_total 0.0" in text.splitlines()


def test_policies_that_are_not_understood_are_logged_and_shown(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build({})
    strange = {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": "AdminNetworkPolicy",
        "metadata": {"name": "newer"},
        "spec": {"priority": 1, "subject": {"workloads": {}}},
    }
    for at in range(3):
        built._policies.upsert(strange, at)
    (line,) = [r.getMessage() for r in caplog.records if "newer" in r.getMessage()]
    assert line.startswith("AdminNetworkPolicy newer: not understood: ")
    assert "workloads" in line
    status: Any = built.components[0]
    text = generate_latest(status.registry).decode().splitlines()
    assert "flowvis_aggregator_policies_unrecognized 1.0" in text
    assert "flowvis_aggregator_policies_unenforced_total 0.0" in text
    show({"version": "1", "uptimeSeconds": 1, "flows": 0, **built._status()})
    assert "AdminNetworkPolicy newer: not understood" in " ".join(capsys.readouterr().out.split())
