import base64
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from flowvis.errors import SettingsError
from flowvis.exporter.daemon import FlowExporter
from flowvis.exporter.settings import ClientTls, ExporterSettings
from flowvis.exporter.tables.enrich import Careful, ClusterNode, PlainHost
from flowvis.inventory.sources.access import HOST, PORT
from flowvis.lab.apiserver import ApiServer, kubeconfig
from flowvis.runtime.settings import load
from flowvis.transport.certificates import Issued, issue_ca, issue_client
from flowvis.transport.tls import TlsReloader
from inventory.kubernetes_objects import node, pod, service
from waiting import until

NAMED = {"caConfigMap": "there/ca", "clientSecret": "there/client"}
PLAIN = {"flowExporter": {"flowCollectorAddr": "[::1]:4739:tcp"}, "nodeName": "node-1"}


def build(inventory: dict[str, Any], **more: Any) -> FlowExporter:
    text = yaml.safe_dump(PLAIN | {"inventory": inventory} | more)
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
    assert isinstance(built.table._enricher, Careful)
    assert isinstance(built.table._enricher._inner, ClusterNode)
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


def test_certificates_from_the_api_are_a_reason_to_ask_it() -> None:
    """Outside of a Pod as well: what is missing there is said when it starts."""
    assert build({}).kubernetes is None
    assert build({}, tls=NAMED).kubernetes is not None


@pytest.mark.parametrize("of_a_pod", [{}, {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}])
def test_files_that_are_named_count_and_not_objects(of_a_pod: dict[str, str]) -> None:
    def read(**tls: str) -> ClientTls:
        return load(ExporterSettings, yaml.safe_dump({"tls": tls}).encode(), of_a_pod).tls

    by_default = read()
    assert str(by_default.ca_object) == (
        "flow-aggregator/flow-aggregator-ca" if of_a_pod else "None"
    )
    assert (by_default.objects == "") is (not of_a_pod)
    ca = read(ca="/x/ca.crt")
    assert (ca.ca_object, ca.files.ca) == (None, Path("/x/ca.crt"))
    assert (ca.client_object is None) is (not of_a_pod)
    for key in ("certificate", "key"):
        pair = read(ca="/x/ca.crt", **{key: f"/x/{key}"}, **NAMED)
        assert (pair.objects, pair.client_object) == ("", None)
        assert getattr(pair.files, key) == Path(f"/x/{key}")
    assert read(**NAMED).objects == "tls.caConfigMap, tls.clientSecret"
    assert read().files.key == Path("/etc/flow-exporter/certs/tls.key")


def test_certificates_from_the_api_need_the_api() -> None:
    for inventory in ({"kubernetes": {"enable": False}}, {"files": ["x"]}):
        with pytest.raises(SettingsError, match=r"^tls.caConfigMap, tls.clientSecret: needs the"):
            build(inventory, tls=NAMED)
    with pytest.raises(SettingsError, match=r"^tls.caConfigMap: needs the API server"):
        build({"files": ["x"]}, tls={"caConfigMap": "there/ca"})


def test_http_is_loaded_only_where_it_is_used() -> None:
    """It costs 8 MB."""
    code = """
import sys
from flowvis.exporter.daemon import FlowExporter
from flowvis.exporter.settings import ClientTls, ExporterSettings
from flowvis.runtime.settings import load
from flowvis.transport.certificates import Issued, issue_ca, issue_client
from flowvis.transport.tls import TlsReloader
FlowExporter(load(ExporterSettings, b"inventory: {kubernetes: {enable: false}}", {}))
assert "aiohttp" not in sys.modules
FlowExporter(load(ExporterSettings, b"inventory: {kubernetes: {enable: true}}", {}))
assert "aiohttp" in sys.modules
assert "kubernetes" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_certificates_are_those_of_the_objects(tmp_path: Path) -> None:
    server = ApiServer()
    await server.start()
    path = kubeconfig(tmp_path / "config", server.url, {"token": "t"})
    built = build(
        {"kubernetes": {"kubeconfig": str(path)}},
        tls=NAMED,
        flowExporter={"flowCollectorAddr": "there/collector:4739:tls"},
    )
    assert built.cluster is not None
    assert built.kubernetes is not None
    reloader = TlsReloader(built.cluster.tls, server=False)
    assert "ca.crt of ConfigMap there/ca cannot be read: the API server has" in refused(reloader)
    await built.kubernetes.start()
    maker = "the flow-aggregator makes it (certificates.issue)"
    assert refused(reloader).splitlines() == [
        f"tls.ca: ca.crt of ConfigMap there/ca cannot be read: there is no such ConfigMap: {maker}",
        "tls.certificate: tls.crt of Secret there/client cannot be read: there is no such Secret: "
        + maker,
        "tls.key: tls.key of Secret there/client cannot be read: there is no such Secret: " + maker,
    ]
    first, second = issue_ca("generation 0"), issue_ca("generation 1")
    put(server, first, issue_client(first, "node"))
    await until(lambda: trusts(reloader, first))
    put(server, second, issue_client(second, "node"))
    await until(lambda: trusts(reloader, second))
    server.put(secret(b"broken", b"broken"))
    await until(lambda: "tls.crt of Secret there/client is not PEM" in refused(reloader))
    good = reloader.context()
    server.remove(secret(b"", b""))
    await until(lambda: "there is no such Secret" in refused(reloader))
    assert reloader.context() is good
    assert trusts(reloader, second)
    await built.kubernetes.stop()
    await server.stop()


def trusts(reloader: TlsReloader, ca: Issued) -> bool:
    if refused(reloader):
        return False
    (trusted,) = reloader.context().get_ca_certs(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(trusted) == ca.certificate_pem().decode()


def refused(reloader: TlsReloader) -> str:
    """What is wrong with what is new."""
    try:
        reloader.refresh()
        reloader.context()
    except SettingsError as error:
        return str(error)
    return ""


def put(server: ApiServer, ca: Issued, client: Issued) -> None:
    metadata = {"namespace": "there", "name": "ca"}
    bundle = {"ca.crt": ca.certificate_pem().decode()}
    server.put({"kind": "ConfigMap", "metadata": metadata, "data": bundle})
    server.put(secret(client.certificate_pem(), client.key_pem()))


def secret(certificate: bytes, key: bytes) -> dict[str, Any]:
    texts = {"tls.crt": certificate, "tls.key": key}
    return {
        "kind": "Secret",
        "metadata": {"namespace": "there", "name": "client"},
        "data": {name: base64.b64encode(text).decode() for name, text in texts.items()},
    }


def test_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST, "10.96.0.1")
    built = build({})
    status: Any = built.components[0]
    assert status._not_ready()[-1] == "kubernetes: not started"
    text = generate_latest(status.registry).decode()
    for line in (
        "flowvis_exporter_kubernetes_lists_total 0.0",
        "flowvis_exporter_kubernetes_synced 0.0",
        "flowvis_exporter_kubernetes_stale_seconds 0.0",
    ):
        assert line in text.splitlines()
