from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from flowvis.exporter.daemon import FlowExporter
from flowvis.exporter.enrich import ClusterNode, PlainHost
from flowvis.exporter.settings import ExporterSettings
from flowvis.inventory.access import HOST, PORT
from flowvis.lab.apiserver import ApiServer, kubeconfig
from flowvis.runtime.settings import load
from inventory.kubernetes_objects import node, pod, service

PLAIN = {"flowExporter": {"flowCollectorAddr": "[::1]:4739:tcp"}, "nodeName": "node-1"}


def build(inventory: dict[str, Any]) -> FlowExporter:
    text = yaml.safe_dump(PLAIN | {"inventory": inventory})
    return FlowExporter(load(ExporterSettings, text.encode(), {}))


async def test_a_node_knows_its_own_pods_and_all_services_and_nodes(tmp_path: Path) -> None:
    server = ApiServer(tokens={"t"})
    for i in range(60):
        server.put(node(f"node-{i}", f"192.0.2.{i}"))
    server.put(pod("here", "10.0.0.1", node="node-1"))
    server.put(pod("there", "10.0.1.1", node="node-2"))
    server.put(service("web", ["10.96.0.1"], {"port": 80}))
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    built = build({"kubernetes": {"kubeconfig": str(path)}})
    assert isinstance(built.table._enricher, ClusterNode)
    following = built.components[1]
    assert following is built.kubernetes
    await following.start()
    assert built.inventory.pods.names() == [("shop", "here")]
    assert len(built.inventory) == 60 + 1 + 1
    await following.stop()
    await server.stop()


def test_the_api_server_is_asked_in_a_pod_unless_there_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HOST, raising=False)
    assert build({}).kubernetes is None
    assert isinstance(build({}).table._enricher, PlainHost)
    monkeypatch.setenv(HOST, "10.96.0.1")
    monkeypatch.setenv(PORT, "443")
    built = build({})
    assert [component.name for component in built.components[:2]] == ["status", "kubernetes"]
    files = build({"files": [str(tmp_path)]})
    assert [part.name for part in files.components[:2]] == ["status", "inventory files"]
    assert build({"kubernetes": {"enable": False}}).kubernetes is None


def test_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, "10.96.0.1")
    built = build({})
    status: Any = built.components[0]
    assert status._not_ready()[-1] == "kubernetes: not started"
    text = generate_latest(status._registry).decode()
    for line in (
        "flowvis_exporter_kubernetes_lists_total 0.0",
        "flowvis_exporter_kubernetes_synced 0.0",
        "flowvis_exporter_kubernetes_stale_seconds 0.0",
    ):
        assert line in text.splitlines()
