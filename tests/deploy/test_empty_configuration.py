"""Both daemons as the manifests start them, with an empty configuration file.

Each runs with the environment of its container and a mount namespace of its own, in which /run and
/etc are a Pod's: the service account is where the kubelet mounts it.
"""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tools.kustomize import render

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.exporter.settings import ExporterSettings
from flowvis.lab.apiserver import ApiServer, service_account
from flowvis.runtime.settings import load
from flowvis.transport.certificates import issue_ca, issue_server
from inventory.kubernetes_objects import node, pod, service
from waiting import PATIENCE_S, block_until, until

DEPLOY = Path(__file__).parents[2] / "deploy"
POD = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
SETTINGS: dict[str, type[ExporterSettings | AggregatorSettings]] = {
    "flow-exporter": ExporterSettings,
    "flow-aggregator": AggregatorSettings,
}
FIELDS = {
    "metadata.name": "pod-0",
    "metadata.namespace": "flow-aggregator",
    "spec.nodeName": "node-1",
}
STATUS = {
    "flow-aggregator": "[::1]:9739",  # from elsewhere too
    "flow-exporter": "127.0.0.1:9740",
}


def shipped(name: str) -> bytes:
    texts = {
        key: text
        for item in render(DEPLOY / "base")
        if item["kind"] == "ConfigMap"
        for key, text in item["data"].items()
    }
    return str(texts[f"{name}.conf"]).encode()


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_file_in_a_pod_is_the_shipped_one(name: str) -> None:
    empty = load(SETTINGS[name], b"", POD)
    assert empty == load(SETTINGS[name], shipped(name), POD)
    assert empty == load(SETTINGS[name], shipped(name), {})
    assert empty != load(SETTINGS[name], b"", {})


def test_what_a_short_file_leaves_out_is_a_pods_default() -> None:
    short = load(AggregatorSettings, b"clickHouse: {enable: true}\nstatus: {port: 80}\nlog:", POD)
    assert (short.status.address, short.status.port, short.log.format) == ("::", 80, "json")
    assert short.certificates.issue
    assert short.record_contents.pod_labels


def test_what_is_given_counts_in_a_pod_as_well() -> None:
    document = (
        b"certificates: {issue: false}\nrecordContents: {podLabels: false}\nlog: {format: text}"
    )
    given = load(AggregatorSettings, document, POD)
    assert not given.certificates.issue
    assert not given.record_contents.pod_labels
    assert given.log.format == "text"
    exporting = load(ExporterSettings, b"status: {address: 192.0.2.1}", POD)
    assert exporting.status.address == "192.0.2.1"


def environment(name: str, port: int) -> dict[str, str]:
    """What a container of the manifests has, and what the kubelet adds."""
    (spec,) = (
        item["spec"]["template"]["spec"]
        for item in render(DEPLOY / "base")
        if item["kind"] in {"Deployment", "DaemonSet"} and item["metadata"]["name"] == name
    )
    found = POD | {"KUBERNETES_SERVICE_PORT": str(port), "PATH": os.environ["PATH"]}
    for variable in spec["containers"][0]["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            found[variable["name"]] = FIELDS[source["fieldRef"]["fieldPath"]]
        elif "value" in variable:
            found[variable["name"]] = variable["value"]
    return found


class Container:
    """A daemon with a /run and an /etc of its own, and an empty file."""

    def __init__(self, folder: Path, name: str, module: str) -> None:
        self.name, self._module, self._log = name, module, folder / f"{name}.log"
        self._run, self.etc = folder / name / "run", folder / name / "etc"
        self.account = self._run / "secrets/kubernetes.io/serviceaccount"
        for path in (self.etc / name / "certs", self.etc / name / "config", self._run / "flowvis"):
            path.mkdir(parents=True)  # an exporter finds no certificates there, and needs none
        (self.etc / name / "config" / f"{name}.conf").write_text("")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> None:
        script = (
            f"mount --bind {self._run} /run && mount --bind {self.etc} /etc && "
            f"exec {sys.executable} -m {self._module} "
            f"--config /etc/{self.name}/config/{self.name}.conf"
        )
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script],
                env=environment(self.name, port) | {"PYTHONPATH": ":".join(sys.path)},
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text()

    def ready(self) -> bool:
        """Whether it says so."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            with urlopen(f"http://{STATUS[self.name]}/readyz", timeout=PATIENCE_S):
                return True
        except (URLError, OSError):
            return False

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def api_server(folder: Path, *containers: Container) -> ApiServer:
    ca = issue_ca()
    certificate, key = issue_server(ca, ["127.0.0.1"]).write(folder, "api")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for container in containers:
        service_account(container.account, "good", ca.certificate_pem())
    server = ApiServer(tokens={"good"}, tls=context)
    server.put(node("node-1", "192.0.2.1", "127.0.0.0/24"))
    server.put(pod("client", "127.0.0.2", labels={"app": "client"}))
    collector = service("flow-aggregator", ["127.0.0.1"], {"port": 4739, "protocol": "TCP"})
    collector["metadata"]["namespace"] = "flow-aggregator"
    server.put(collector)
    return server


@pytest.mark.kernel
async def test_both_daemons_work_with_an_empty_file(tracked: None, tmp_path: Path) -> None:
    aggregator = Container(tmp_path, "flow-aggregator", "flowvis.cli.aggregator")
    exporter = Container(tmp_path, "flow-exporter", "flowvis.cli.exporter")
    server = api_server(tmp_path, aggregator, exporter)
    await server.start()
    try:
        aggregator.start(server.port)
        await asyncio.to_thread(block_until, aggregator.ready, aggregator.log)
        exporter.start(server.port)
        await asyncio.to_thread(block_until, exporter.ready, exporter.log)
        await until(lambda: "connected to flow-aggregator/" in exporter.log(), "a session")
        codes = [await asyncio.to_thread(each.stop) for each in (exporter, aggregator)]
    finally:
        exporter.end()
        aggregator.end()
        await server.stop()
    assert codes == [0, 0], exporter.log() + aggregator.log()
    lines = [json.loads(line) for line in (exporter.log() + aggregator.log()).splitlines()]
    unusual = [line["msg"] for line in lines if line["level"] != "info"]
    assert unusual == ["no destination is enabled: records can only be seen with flowctl flows"]
