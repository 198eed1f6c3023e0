import base64
import functools
import hashlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import kubernetes_validate
import pytest
from tools import manifests
from tools.kustomize import Object, render

from clickhouse.server import Server
from flowvis.aggregator.cluster_identity import ClusterIdentity
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli import aggregator, exporter
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.exporter.settings import ExporterSettings
from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import LEASES, NODES, PODS, SERVICES
from flowvis.runtime.settings import load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
VERSIONS = ("1.25", "1.29", "1.33", "1.37")
DEPLOYED = ("", "base", *(f"overlays/{path.name}" for path in (DEPLOY / "overlays").iterdir()))
OPERATED = ("ClickHouseInstallation", "ClickHouseKeeperInstallation")
NOT_KUBERNETES = {"PodMonitor", *OPERATED}  # operators define them
MODERN = Features("25.8.1.1", True, True, True, True, False)
KEPT = ("namespaces", "overlays/embedded/volume")  # applied first, and not deleted with the rest
MADE_BY_THE_AGGREGATOR = {"flow-aggregator-ca", "flow-aggregator-client-tls"}


@functools.cache
def objects(overlay: str) -> list[Object]:
    return render(DEPLOY / overlay)


def of(overlay: str, *kinds: str) -> list[Object]:
    return [item for item in objects(overlay) if item["kind"] in kinds]


def workloads(overlay: str) -> list[Object]:
    return of(overlay, "DaemonSet", "Deployment", "StatefulSet")


def workload(name: str) -> Object:
    return next(item for item in workloads("") if item["metadata"]["name"] == name)


def containers(overlay: str) -> Iterator[tuple[Object, Object]]:
    for item in workloads(overlay):
        for container in item["spec"]["template"]["spec"]["containers"]:
            yield item, container


@pytest.mark.parametrize("path", manifests.CONFIGURATIONS)
def test_configurations_are_up_to_date(path: str) -> None:
    assert (DEPLOY / path).read_text() == manifests.configurations()[path], "run `make docs`"


@pytest.mark.parametrize("name", manifests.SINGLE)
def test_single_files_are_up_to_date(name: str) -> None:
    fresh = manifests.single_files(DEPLOY)[f"{name}.yml"]
    assert (DEPLOY / f"{name}.yml").read_text() == fresh, "run `make docs`"


def test_writing_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in DEPLOY.rglob("*.yaml"):
        copy = tmp_path / path.relative_to(DEPLOY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    assert manifests.main([str(tmp_path)]) == 0
    for name in [*manifests.CONFIGURATIONS, "flow-exporter.yml", "flow-aggregator.yml"]:
        assert (tmp_path / name).read_text() == (DEPLOY / name).read_text()
    assert str(tmp_path / "flow-exporter.yml") in capsys.readouterr().out


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", [*DEPLOYED, *KEPT])
def test_the_api_takes_them(overlay: str, version: str) -> None:
    for item in objects(overlay):
        if item["kind"] not in NOT_KUBERNETES:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    service = of("", "Service")[0]
    wrong = service | {"spec": service["spec"] | {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_the_daemons_take_their_configuration(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mains = {"flow-exporter.conf": exporter.main, "flow-aggregator.conf": aggregator.main}
    checked = set()
    for item in of(overlay, "ConfigMap"):
        for name, text in item["data"].items():
            path = tmp_path / name
            path.write_text(text)
            assert mains[name](["check", "--config", str(path)]) == 0, capsys.readouterr().err
            checked.add(name)
    assert checked == set(mains) - ({"flow-exporter.conf"} if "antrea" in overlay else set())


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_what_is_referred_to_is_there(overlay: str) -> None:
    there = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for applied in (overlay, *KEPT)
        for item in objects(applied)
    }
    for item in workloads(overlay):
        namespace, pod = item["metadata"]["namespace"], item["spec"]["template"]["spec"]
        assert ("Namespace", None, namespace) in there or namespace == "kube-system"
        if "serviceAccountName" in pod:
            assert ("ServiceAccount", namespace, pod["serviceAccountName"]) in there
        for kind, name, optional in references(pod):
            known = (kind, namespace, name) in there or name in MADE_BY_THE_AGGREGATOR
            assert known or optional, f"{kind} {namespace}/{name}"
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        volumes |= {c["metadata"]["name"] for c in item["spec"].get("volumeClaimTemplates", ())}
        mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert mounted == volumes
    for item in of(overlay, "RoleBinding", "ClusterRoleBinding"):
        role, namespace = item["roleRef"], item["metadata"].get("namespace")
        assert (role["kind"], namespace, role["name"]) in there
        for subject in item["subjects"]:
            account = subject["kind"], subject["namespace"], subject["name"]
            assert account in there or subject["name"] == "antrea-agent"


def references(value: Any) -> Iterator[tuple[str, str, bool]]:
    """ConfigMaps and Secrets that a Pod names, and whether it starts without."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in {"configMap", "configMapKeyRef"}:
                yield "ConfigMap", inner["name"], inner.get("optional", False)
            elif key in {"secret", "secretKeyRef"}:
                name = inner.get("secretName") or inner["name"]
                yield "Secret", name, inner.get("optional", False)
            else:
                yield from references(inner)


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_selectors_and_ports_meet_the_pods(overlay: str) -> None:
    pods = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item["spec"]["template"]
        for item in workloads(overlay)
    } | {
        (item["metadata"]["namespace"], template["name"]): template
        for item in of(overlay, *OPERATED)
        for template in item["spec"]["templates"]["podTemplates"]
    }
    chosen = of(overlay, "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor")
    for item in chosen + workloads(overlay):
        spec = item["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        labels = selector.get("matchLabels", selector)
        found = [
            template
            for (namespace, _), template in pods.items()
            if namespace == item["metadata"]["namespace"]
            and labels.items() <= template["metadata"]["labels"].items()
        ]
        assert len(found) == 1, item["metadata"]["name"]
        named = {p["name"] for c in found[0]["spec"]["containers"] for p in c.get("ports", ())}
        assert ports(item) <= named | OPERATED_PORTS


OPERATED_PORTS = {2181, 9444, 9000, 8123, 9009}  # the operator names them
OPERATED_MACROS = {"installation", "cluster", "shard", "replica"}


def test_the_operator_s_clickhouse_is_the_one_that_the_aggregator_writes_to() -> None:
    overlay = "overlays/clickhouse-operator"
    conf = next(
        item["data"] for item in of(overlay, "ConfigMap") if "flow-aggregator.conf" in item["data"]
    )
    wanted = load(AggregatorSettings, conf["flow-aggregator.conf"].encode(), {}).click_house
    servers, keeper = (of(overlay, kind)[0] for kind in OPERATED)
    about, configuration = servers["metadata"], servers["spec"]["configuration"]
    clusters = [cluster["name"] for cluster in configuration["clusters"]]
    assert wanted.enable
    assert clusters == [wanted.cluster]
    layout = configuration["clusters"][0]["layout"]
    assert min(layout["shardsCount"], layout["replicasCount"]) > 1
    service = servers["spec"]["templates"]["serviceTemplates"][0]
    name = service["generateName"].format(chi=about["name"])
    port = next(p["port"] for p in service["spec"]["ports"] if p["name"] == "tcp")
    assert wanted.database_url == f"tcp://{name}.{about['namespace']}.svc:{port}"
    ddl = schema.create_table(TableLayout("db", wanted.cluster), MODERN, 3600)
    assert set(re.findall(r"{(\w+)}", ddl + schema.create_versions(TableLayout("db", "c")))) <= (
        OPERATED_MACROS
    )
    nodes = [node["host"] for node in configuration["zookeeper"]["nodes"]]
    assert nodes == [f"keeper-{keeper['metadata']['name']}"]
    assert keeper["metadata"]["namespace"] == about["namespace"]
    assert keeper["spec"]["configuration"]["clusters"][0]["layout"]["replicasCount"] % 2


def test_the_operator_s_objects_are_whole() -> None:
    overlay = "overlays/clickhouse-operator"
    secrets = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item["data"]
        for item in of(overlay, "Secret")
    }
    for item in of(overlay, *OPERATED):
        namespace, spec = item["metadata"]["namespace"], item["spec"]
        assert namespace in {
            other["metadata"]["name"]
            for other in objects("namespaces")
            if other["kind"] == "Namespace"
        }
        named = {
            kind: {template["name"] for template in spec["templates"].get(f"{kind}s", ())}
            for kind in ("podTemplate", "volumeClaimTemplate", "serviceTemplate")
        }
        for kind, name in spec["defaults"]["templates"].items():
            assert name in named[kind.replace("dataVolume", "volume")]
        (template,) = spec["templates"]["podTemplates"]
        (container,) = template["spec"]["containers"]
        assert container["name"] == item["metadata"]["labels"]["app.kubernetes.io/name"]
        assert re.fullmatch(r"clickhouse/clickhouse-\w+:\d+\.\d+", container["image"])
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (claim,) = spec["templates"]["volumeClaimTemplates"]
        assert claim["reclaimPolicy"] == "Retain"
        assert "storage" in claim["spec"]["resources"]["requests"]
        # Our Pods' form, which the API's schema knows.
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, VERSIONS[-1], strict=True)
    users = of(overlay, OPERATED[0])[0]["spec"]["configuration"]["users"]
    reference = users["flowvis/password"]["valueFrom"]["secretKeyRef"]
    secret = secrets["flow-visibility", reference["name"]]
    assert reference["key"] in secret
    assert base64.b64decode(secret["username"]) == b"flowvis"
    (theirs,) = (data for (space, _), data in secrets.items() if space == "flow-aggregator")
    assert theirs == secret


def ports(item: Object) -> set[str]:
    spec = item["spec"]
    if item["kind"] == "Service":
        return {port["targetPort"] for port in spec["ports"]}
    if item["kind"] == "NetworkPolicy":
        return {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
    return {endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", ())}


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_pods_may_do_no_more_than_they_must(overlay: str) -> None:
    for item, container in containers(overlay):
        pod, name = item["spec"]["template"]["spec"], container["name"]
        may = container["securityContext"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert may["allowPrivilegeEscalation"] is False
        assert may["readOnlyRootFilesystem"] is (name != "clickhouse")
        assert may["capabilities"]["drop"] == ["ALL"]
        assert may["capabilities"].get("add", []) == (
            ["NET_ADMIN"] if name == "flow-exporter" else []
        )
        assert pod["securityContext"].get("runAsNonRoot", False) is (name != "flow-exporter")
        assert pod.get("hostNetwork", False) is (name == "flow-exporter")
        assert {"livenessProbe", "readinessProbe"} <= set(container)
        assert "cpu" in container["resources"]["requests"]
        assert "memory" in container["resources"]["limits"]
        privileged = [
            c["name"] for c in pod.get("initContainers", ()) if c["securityContext"]["privileged"]
        ]
        assert privileged == (["sysctls"] if name == "flow-exporter" else [])


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_rights_are_the_least(overlay: str) -> None:
    for item in of(overlay, "ClusterRole"):
        for rule in item["rules"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
            assert not {"secrets", "configmaps", "*"} & set(rule["resources"])
    for item in of(overlay, "Role"):
        for rule in item["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"]
            assert "resourceNames" in rule or rule["verbs"] == ["create"]


def test_a_second_aggregator_may_find_out_that_it_is_one() -> None:
    settings = load(AggregatorSettings, b"", {})
    role = next(item for item in of("", "Role") if item["metadata"]["name"].endswith("-lease"))
    bound = [
        item["subjects"]
        for item in of("", "RoleBinding")
        if item["roleRef"]["name"].endswith("-lease")
    ]
    deployment = workload("flow-aggregator")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    namespace = settings.certificates.names({}).namespace
    assert bound == [[{"kind": "ServiceAccount", "name": account, "namespace": namespace}]]
    assert role["metadata"]["namespace"] == namespace
    name = settings.lease.name or settings.certificates.service
    kind = {"apiGroups": [LEASES.group], "resources": [LEASES.plural]}
    assert role["rules"] == [
        {**kind, "resourceNames": [name], "verbs": ["get", "update"]},
        {**kind, "verbs": ["create"]},
    ]
    env = {each["name"] for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert {"POD_NAME", "POD_NAMESPACE"} <= env
    # A rolling update that keeps the old one until the new one is ready would wait for ever.
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_aggregator_may_write_its_certificates_and_no_more() -> None:
    conf = next(
        item["data"] for item in of("", "ConfigMap") if "flow-aggregator.conf" in item["data"]
    )
    settings = load(AggregatorSettings, conf["flow-aggregator.conf"].encode(), {})
    assert settings.certificates.issue
    names = settings.certificates.names({})
    role = next(
        item
        for item in of("", "Role")
        if item["metadata"]["name"] == "flow-aggregator-certificates"
    )
    assert role["metadata"]["namespace"] == names.namespace
    may = {
        (resource, name, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }
    existing = {
        (resource, name, verb)
        for resource, name in (
            ("secrets", names.ca_secret),
            ("secrets", names.client_secret),
            ("configmaps", names.ca_config_map),
        )
        for verb in ("get", "update")
    }
    assert may == existing | {("secrets", "*", "create"), ("configmaps", "*", "create")}
    volumes = {
        v["name"]: v for v in workload("flow-exporter")["spec"]["template"]["spec"]["volumes"]
    }
    mounted = {
        (kind, source[kind]["name"])
        for source in volumes["certificates"]["projected"]["sources"]
        for kind in source
    }
    assert mounted == {("configMap", names.ca_config_map), ("secret", names.client_secret)}


def test_exporters_elsewhere_may_follow_the_two_objects_that_they_name() -> None:
    overlay = "overlays/kube-system"
    (daemon_set,) = of(overlay, "DaemonSet")
    assert daemon_set["metadata"]["namespace"] == "kube-system"
    text = next(
        item["data"]["flow-exporter.conf"]
        for item in of(overlay, "ConfigMap")
        if "flow-exporter.conf" in item["data"]
    )
    tls = load(ExporterSettings, text.encode(), {}).tls
    assert tls.ca_config_map is not None
    assert tls.client_secret is not None
    named = {"configmaps": tls.ca_config_map, "secrets": tls.client_secret}
    roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): r for r in of(overlay, "Role")}
    account = {"kind": "ServiceAccount", "name": "flow-exporter", "namespace": "kube-system"}
    (binding,) = (item for item in of(overlay, "RoleBinding") if account in item["subjects"])
    namespace = binding["metadata"]["namespace"]
    rules = roles[namespace, binding["roleRef"]["name"]]["rules"]
    assert [rule["resources"] for rule in rules] == [["configmaps"], ["secrets"]]
    for rule in rules:
        name = named[rule["resources"][0]]
        assert (rule["resourceNames"], namespace) == ([name.name], name.namespace)
        assert rule["verbs"] == ["get", "list", "watch"]
    (own,) = (item for item in of(overlay, "ClusterRoleBinding") if account in item["subjects"])
    assert own["roleRef"]["name"] == "flow-exporter"
    assert not list(references(daemon_set["spec"]["template"]["spec"]["volumes"][1:]))


def test_exporters_may_follow_what_they_look_up_and_ask_for_a_service() -> None:
    (role,) = (i for i in of("", "ClusterRole") if i["metadata"]["name"] == "flow-exporter")
    may = {(name, verb) for r in role["rules"] for name in r["resources"] for verb in r["verbs"]}
    followed = {
        (each.plural, verb) for each in (PODS, NODES, SERVICES) for verb in ("list", "watch")
    }
    assert may == followed | {(SERVICES.plural, "get")}


def test_the_aggregator_may_follow_antreas_identity() -> None:
    contents = ClusterIdentity(Inventory()).antrea
    (role,) = (i for i in of("", "Role") if i["metadata"]["namespace"] == contents.name.namespace)
    assert role["rules"] == [
        {
            "apiGroups": [contents.resource.group],
            "resources": [contents.resource.plural],
            "resourceNames": [contents.name.name],
            "verbs": ["get", "list", "watch"],
        }
    ]


def test_what_daemons_and_manifests_must_agree_on() -> None:
    conf = {name: text for item in of("", "ConfigMap") for name, text in item["data"].items()}
    exporting = load(ExporterSettings, conf["flow-exporter.conf"].encode(), {})
    aggregating = load(AggregatorSettings, conf["flow-aggregator.conf"].encode(), {})
    for settings, name in ((exporting, "flow-exporter"), (aggregating, "flow-aggregator")):
        template = workload(name)["spec"]["template"]
        pod = template["spec"]
        numbers = {p["name"]: p["containerPort"] for p in pod["containers"][0]["ports"]}
        assert numbers["status"] == settings.status.port
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(
            settings.status.port
        )
        assert pod["terminationGracePeriodSeconds"] > settings.grace_period
        mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
        for file in (settings.tls.ca, settings.tls.certificate, settings.tls.key):
            assert mounts[str(file.parent)] == "certificates"
    mounts = workload("flow-exporter")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(exporting.state.directory) in {mount["mountPath"] for mount in mounts}
    address = exporting.flow_exporter.flow_collector_addr
    service = next(s for s in of("", "Service") if s["metadata"]["name"] == "flow-aggregator")
    about = service["metadata"]
    assert address.host == f"{about['namespace']}/{about['name']}"
    assert [port["port"] for port in service["spec"]["ports"]] == [address.port]
    assert aggregating.listen.port == address.port
    store = next(s for s in of("", "Service") if s["metadata"]["namespace"] == "flow-visibility")
    about = store["metadata"]
    assert aggregating.click_house.enable
    assert aggregating.click_house.database_url == (
        f"tcp://{about['name']}.{about['namespace']}.svc:{store['spec']['ports'][0]['port']}"
    )


def data_of(overlay: str) -> set[str]:
    """The namespaces in which an overlay's records are."""
    pods = {w["metadata"]["namespace"]: w["spec"]["template"]["spec"] for w in workloads(overlay)}
    mounted = {
        namespace
        for namespace, pod in pods.items()
        if any("persistentVolumeClaim" in volume for volume in pod.get("volumes", ()))
    }
    claimed = {
        item["metadata"]["namespace"]
        for item in of(overlay, "StatefulSet", *OPERATED)
        if item["kind"] in OPERATED or item["spec"].get("volumeClaimTemplates")
    }
    return mounted | claimed


def test_deleting_an_overlay_leaves_the_records() -> None:
    found = {overlay: data_of(overlay) for overlay in DEPLOYED}
    assert found[""] == found["overlays/clickhouse-operator"] == {"flow-visibility"}
    assert found["overlays/embedded"] == {"flow-aggregator"}
    for overlay, namespaces in found.items():
        assert not of(overlay, "PersistentVolumeClaim", "PersistentVolume")
        deleted = {item["metadata"]["name"] for item in of(overlay, "Namespace")}
        assert not namespaces & deleted, overlay
        kept = {i["metadata"]["name"] for k in KEPT for i in of(k, "Namespace")}
        assert namespaces <= kept
        for item in of(overlay, "StatefulSet"):
            policy = item["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}
            assert item["spec"]["podManagementPolicy"] == "Parallel"


def test_the_embedded_store_is_on_the_volume() -> None:
    overlay = "overlays/embedded"
    (claim,) = of("overlays/embedded/volume", "PersistentVolumeClaim")
    (deployment,) = of(overlay, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (store,) = (v for v in pod["volumes"] if "persistentVolumeClaim" in v)
    assert store["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    (container,) = pod["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == store["name"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert container["image"].endswith("-embedded")
    (conf,) = (i["data"] for i in of(overlay, "ConfigMap") if "flow-aggregator.conf" in i["data"])
    stored = load(AggregatorSettings, conf["flow-aggregator.conf"].encode(), {}).click_house
    assert stored.enable
    path = Path(stored.database_url.removeprefix("embedded://"))
    assert path.is_relative_to(mount["mountPath"])
    assert path != Path(mount["mountPath"])  # a volume's root has a lost+found


@pytest.mark.parametrize("overlay", [*DEPLOYED, *KEPT])
def test_all_objects_can_be_selected(overlay: str) -> None:
    for item in objects(overlay):
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "flowvis", item


def clickhouse_user(directory: Path, name: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run what the server's container begins with."""
    (container,) = workload("clickhouse")["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    for there, here in (("/etc/clickhouse-server/users.d", directory), ("/entrypoint.sh", "env")):
        assert there in script
        script = script.replace(there, str(here))
    environment = {"CLICKHOUSE_USER": name, "CLICKHOUSE_PASSWORD": password, "PATH": os.defpath}
    return subprocess.run(
        [*container["command"], script], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "password", ["plain", "a&b<c>\"d'e]]>", "$(id) `id` $HOME \\n %s", "ö 密", " blanks ", ""]
)
@pytest.mark.parametrize("name", ["clickhouse_operator", "default", "_u2"])
def test_any_password_reaches_clickhouse(tmp_path: Path, name: str, password: str) -> None:
    done = clickhouse_user(tmp_path, name, password)
    assert done.returncode == 0, done.stderr
    assert "CLICKHOUSE" not in done.stdout  # nothing of it is left to the entry point
    users = ElementTree.parse(tmp_path / "flowvis.xml").getroot().find("users")  # noqa: S314  ours
    assert users is not None
    user = users.find(name)
    assert user is not None
    expected = hashlib.sha256(password.encode()).hexdigest()
    assert user.findtext("password_sha256_hex") == expected
    assert [child.tag for child in users] == ([name] if name == "default" else ["default", name])


@pytest.mark.clickhouse
@pytest.mark.parametrize("password", ["a&b<c>\"d'e]]>", "$(id) \\n %s ö"])
def test_a_real_server_takes_it(tmp_path: Path, password: str) -> None:
    server = Server(tmp_path)
    users = tmp_path / "users.d"
    users.mkdir()
    assert clickhouse_user(users, "operator_1", password).returncode == 0
    written = users / "flowvis.xml"  # Debian's server is from before the root was renamed
    written.write_text(written.read_text().replace("clickhouse>", "yandex>"))
    settings = StoreSettings(server.url, username="operator_1", password=password)
    store = open_store(settings)
    server.start()
    try:
        store.migrate()
        assert store.query("SELECT count() FROM flows").rows == [[0]]
    finally:
        store.close()
        server.kill()


@pytest.mark.parametrize("name", ["", "a b", "1a", "a/><b", "x-y", "é"])
def test_a_name_that_clickhouse_cannot_have_is_said(tmp_path: Path, name: str) -> None:
    done = clickhouse_user(tmp_path, name, "p")
    assert done.returncode == 1
    assert done.stderr.startswith(f"clickhouse.env: username: '{name}'")
    assert list(tmp_path.iterdir()) == []


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("flow-exporter", "flow-aggregator"):
        pod = workload(name)["spec"]["template"]["spec"]
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["image"] == f"flowvis/{name}:{version}"


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_pods_that_run_see_another_configuration(overlay: str) -> None:
    """The ConfigMap keeps its name, and is mounted whole, beside what else is mounted there."""
    for item, container in containers(overlay):
        if not item["metadata"]["name"].startswith("flow-"):
            continue
        name = item["metadata"]["name"]
        volumes = item["spec"]["template"]["spec"]["volumes"]
        (volume,) = (v for v in volumes if v["name"] == "config")
        assert volume["configMap"] == {"name": f"{name}-configmap"}
        (mount,) = (m for m in container["volumeMounts"] if m["name"] == "config")
        assert "subPath" not in mount
        assert container["args"] == ["--config", f"{mount['mountPath']}/{name}.conf"]
        for other in container["volumeMounts"]:  # nothing can be mounted in a read-only directory
            assert not other["mountPath"].startswith(f"{mount['mountPath']}/")


def test_another_password_rolls_the_pods() -> None:
    """What comes in the environment cannot change in a Pod that runs."""
    secrets = {item["metadata"]["name"] for item in of("", "Secret")}
    assert len(secrets) == 1
    assert secrets.pop().startswith("clickhouse-secret-")
