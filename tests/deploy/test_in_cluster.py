"""Both daemons with the manifests' own configuration, as far as paths and ports let them."""

import asyncio
import base64
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.kustomize import render

from aggregator.harness import Aggregator
from cli.test_exporter import Daemon
from flowvis.lab.apiserver import ApiServer, User, kubeconfig, status
from inventory.kubernetes_objects import node, pod, service
from ports import free_port
from waiting import PATIENCE_S, until

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMESPACE = "flow-aggregator"
CLIENT, CA = "flow-aggregator-client-tls", "flow-aggregator-ca"
SECRETS = {"flow-aggregator-ca-tls", CLIENT}

Document = dict[str, Any]

USERS = {
    "of-admin": User("admin", None),
    "of-sam": User("system:serviceaccount:shop:sam", {"shop"}),
    "of-ann": User("ann", {"elsewhere"}),
}
"""Of the cluster, by their tokens."""


def configuration(name: str, changes: Document) -> Document:
    """What a ConfigMap says, and in its place what differs outside of a Pod."""
    texts = {
        key: text
        for item in render(DEPLOY / "base")
        if item["kind"] == "ConfigMap"
        for key, text in item["data"].items()
    }
    document: Document = yaml.safe_load(texts[name])
    for key, change in changes.items():
        own = document.get(key)
        document[key] = {**(own or {}), **change} if isinstance(change, dict) else change
    return document


class Confined(Daemon):
    """An exporter with the capabilities that its container has."""

    def __init__(self, config: str) -> None:
        only = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities())])
        command = ["setpriv", f"--bounding-set={only}", f"--inh-caps={only}", sys.executable]
        self.process = subprocess.Popen(
            [*command, "-m", "flowvis.cli.exporter", "--config", config],
            stderr=subprocess.PIPE,
            text=True,
        )


def exporter_pod() -> Document:
    item = next(item for item in render(DEPLOY / "base") if item["kind"] == "DaemonSet")
    pod_spec: Document = item["spec"]["template"]["spec"]
    return pod_spec


def capabilities() -> list[str]:
    names: list[str] = exporter_pod()["containers"][0]["securityContext"]["capabilities"]["add"]
    return names


class Node:
    """Two Pods, an aggregator and an exporter."""

    def __init__(self, path: Path, server: ApiServer, more: Document) -> None:
        self.path, self.server = path, server
        self.access = str(kubeconfig(path / "kubeconfig", server.url, {"token": "good"}))
        own = {"ca": "own-ca.crt", "certificate": "own.crt", "key": "own.key"}
        changes = {
            "tls": {key: str(path / name) for key, name in own.items()},
            "listen": {"address": "127.0.0.1", "port": 0},
            "status": {"address": "127.0.0.1", "port": 0},
            "apiServer": {"address": "127.0.0.1", "apiPort": 0},
            "controlSocket": str(path / "control.sock"),
            "inventory": {"kubernetes": {"kubeconfig": self.access}},
            "activeFlowRecordTimeout": "500ms",
            **more,
        }
        self.aggregator = Aggregator(path, configuration("flow-aggregator.conf", changes))
        self.exporter: Daemon | None = None

    def item(self, plural: str, name: str) -> Document | None:
        return self.server.objects.get(("v1", plural, NAMESPACE, name))

    def export(self, collector: str, more: Document | None = None) -> None:
        """With certificates from the API, as the manifests have it."""
        changes = (more or {}) | {
            "flowExporter": {"flowCollectorAddr": collector, "flowPollInterval": "200ms"},
            "nodeName": "node-1",
            "conntrack": {"loopback": True},
            "inventory": {"kubernetes": {"kubeconfig": self.access}},
            "state": {"directory": str(self.path / "state")},
            "status": {"address": "127.0.0.1", "port": 0},
        }
        path = self.path / "flow-exporter.conf"
        path.write_text(yaml.safe_dump(configuration("flow-exporter.conf", changes)))
        self.exporter = Confined(str(path))

    def mounted(self) -> Document:
        """As from a Secret and a ConfigMap of the exporters' own namespace, which others fill."""
        secret, published = self.item("secrets", CLIENT), self.item("configmaps", CA)
        assert secret is not None
        assert published is not None
        for name in ("tls.crt", "tls.key"):
            (self.path / name).write_bytes(base64.b64decode(secret["data"][name]))
        (self.path / "ca.crt").write_text(published["data"]["ca.crt"])
        return {
            "ca": str(self.path / "ca.crt"),
            "certificate": str(self.path / "tls.crt"),
            "key": str(self.path / "tls.key"),
            "serverName": "flow-aggregator.flow-aggregator.svc",
        }

    def ask(self, path: str, token: str) -> tuple[int, str]:
        """Ask the HTTP API, trusting the CA that is published."""
        published = self.item("configmaps", CA)
        assert published is not None
        trusted = ssl.create_default_context(cadata=published["data"]["ca.crt"])
        port = self.aggregator.control.get("status")["apiPort"]
        http = HTTPSConnection("localhost", port, timeout=PATIENCE_S, context=trusted)
        try:
            http.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = http.getresponse()
            return answer.status, answer.read().decode()
        finally:
            http.close()

    def sessions(self) -> int:
        return len(self.aggregator.control.get("status")["sessions"])

    def flows(self) -> list[Document]:
        return list(self.aggregator.control.lines("flows", {"pod": "client"}))

    def end(self) -> None:
        self.aggregator.end()
        if self.exporter is not None:
            self.exporter.end()


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    started: list[Node] = []
    yield started
    for each in started:
        each.end()


async def started(path: Path, nodes: list[Node], changes: Document | None = None) -> Node:
    server = ApiServer(tokens={"good"}, users=USERS)
    await server.start()
    server.put(node("node-1", "192.0.2.1", "127.0.0.0/24"))
    server.put(pod("client", "127.0.0.2", labels={"app": "client"}))
    server.put(pod("server", "127.0.0.3"))
    server.put({"kind": "Namespace", "metadata": {"name": "shop", "uid": "of-shop"}})
    nodes.append(Node(path, server, changes or {}))
    await asyncio.to_thread(nodes[0].aggregator.start)
    return nodes[0]


def talk() -> None:
    """One request from Pod to Pod."""
    with (
        socket.create_server(("127.0.0.3", 0)) as listener,
        socket.create_connection(listener.getsockname(), source_address=("127.0.0.2", 0)) as client,
    ):
        served, _ = listener.accept()
        client.sendall(bytes(1000))
        served.close()


@pytest.mark.kernel
async def test_complete_records_over_certificates_of_the_cluster(
    tracked: None, tmp_path: Path, nodes: list[Node]
) -> None:
    here = await started(tmp_path, nodes)
    here.export(f"127.0.0.1:{here.aggregator.port}:tls", {"tls": here.mounted()})
    await until(lambda: here.sessions() == 1)
    talk()
    await until(lambda: any(row["protocolIdentifier"] == 6 for row in here.flows()))
    row = next(row for row in here.flows() if row["protocolIdentifier"] == 6)
    for token, code, seen in (
        ("of-admin", 200, True),
        ("of-sam", 200, True),
        ("of-ann", 403, False),
        ("of-nobody", 401, False),
    ):
        found = await asyncio.to_thread(here.ask, "/flows", token)
        assert (found[0], row["sourcePodName"] in found[1]) == (code, seen), found
    assert here.exporter is not None
    code, log = await asyncio.to_thread(here.exporter.stop)
    assert code == 0, log
    assert await asyncio.to_thread(here.aggregator.stop) == 0, here.aggregator.log()
    assert (row["sourcePodNamespace"], row["sourcePodName"]) == ("shop", "client")
    assert (row["destinationPodNamespace"], row["destinationPodName"]) == ("shop", "server")
    assert (row["sourceNodeName"], row["destinationNodeName"]) == ("node-1", "node-1")
    assert "client" in row["sourcePodLabels"]
    await here.server.stop()


@pytest.mark.kernel
@pytest.mark.slow
async def test_all_through_the_api(tracked: None, tmp_path: Path, nodes: list[Node]) -> None:
    """As the manifests have it, while the certificates are deleted and replaced."""
    here = await started(tmp_path, nodes, {"listen": {"address": "127.0.0.1", "port": free_port()}})
    server, port, keys = here.server, here.aggregator.port, keys_below(tmp_path)
    here.export(f"{NAMESPACE}/flow-aggregator:{port}:tls")
    exporter = here.exporter
    assert exporter is not None
    await until(lambda: any("/services/" in request.path for request in server.requests))
    server.put(collector_service("127.0.0.1", port))
    await until(lambda: here.sessions() == 1)

    first = here.item("secrets", CLIENT)
    assert first is not None
    server.remove(first)
    for _ in range(4):  # the aggregator looks every half minute
        with contextlib.suppress(TimeoutError):
            await until(lambda: here.item("secrets", CLIENT) is not None)
    second = here.item("secrets", CLIENT)
    assert second is not None
    assert second["data"] != first["data"]
    talk()
    await until(lambda: bool(here.flows()))
    assert here.sessions() == 1

    assert await asyncio.to_thread(here.aggregator.stop) == 0, here.aggregator.log()
    for plural, name in (
        ("secrets", "flow-aggregator-ca-tls"),
        ("configmaps", CA),
    ):
        item = here.item(plural, name)
        assert item is not None
        server.remove(item)
    await asyncio.to_thread(here.aggregator.start)
    await until(lambda: here.sessions() == 1)
    talk()
    await until(lambda: bool(here.flows()))

    memory = resident_mb(exporter.process.pid)
    code, log = await asyncio.to_thread(exporter.stop)
    assert code == 0, log
    assert here.aggregator.log().count("a CA was made") == 2
    assert "Service flow-aggregator/flow-aggregator: there is none" in log
    assert "Traceback" not in log
    assert memory <= 100
    assert keys_below(tmp_path) == keys
    await server.stop()


def collector_service(ip: str, port: int) -> Document:
    item = service("flow-aggregator", [ip], {"port": port, "protocol": "TCP"})
    item["metadata"]["namespace"] = NAMESPACE
    return item


def keys_below(directory: Path) -> set[str]:
    """The files with a private key."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in files if b"PRIVATE KEY" in path.read_bytes()}


def resident_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024


@pytest.mark.kernel
def test_the_init_container_sets_what_the_exporter_needs(tracked: None) -> None:
    root = Path("/proc/sys/net/netfilter")
    names = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events")
    for name in names:
        (root / name).write_text("0")
    container = exporter_pod()["initContainers"][0]
    subprocess.run([*container["command"], *container["args"]], check=True)
    assert [(root / name).read_text() for name in names] == ["1\n"] * 3


async def test_an_aggregator_that_comes_after_keeps_the_ca(
    tmp_path: Path, nodes: list[Node]
) -> None:
    here = await started(tmp_path, nodes)
    before = here.item("secrets", "flow-aggregator-ca-tls")
    assert await asyncio.to_thread(here.aggregator.stop) == 0, here.aggregator.log()
    (tmp_path / "own.crt").unlink()
    await asyncio.to_thread(here.aggregator.start)
    assert here.item("secrets", "flow-aggregator-ca-tls") == before
    assert (tmp_path / "own.crt").exists()
    assert here.aggregator.log().count("a CA was made") == 1
    await here.server.stop()


async def test_without_the_right_to_write_secrets_it_says_so(
    tmp_path: Path, nodes: list[Node]
) -> None:
    server = ApiServer(tokens={"good"})
    server.faults.answer = lambda request: (
        status(403, "secrets is forbidden") if request.method == "POST" else None
    )
    await server.start()
    nodes.append(Node(tmp_path, server, {}))
    starting = asyncio.create_task(asyncio.to_thread(nodes[0].aggregator.start))
    log = tmp_path / "log"
    await until(lambda: log.exists() and "secrets is forbidden" in log.read_text())
    server.faults.answer = None
    await starting
    assert {key[3] for key in server.objects if key[1] == "secrets"} == SECRETS
    await server.stop()
