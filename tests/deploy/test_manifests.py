import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from tools import manifests
from tools.kustomize import Object

from deploy.rendered import (
    DEPLOY,
    DEPLOYED,
    KEPT,
    LOGS,
    NAMESPACES,
    OPERATED,
    ROOT,
    configuration,
    containers,
    named,
    objects,
    of,
    secret_keys,
    templates,
    workload,
    workloads,
)
from flowvis.aggregator.api import reviews
from flowvis.aggregator.cluster_identity import ClusterIdentity
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli import aggregator, exporter
from flowvis.cli.credentials import parse_user
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.exporter.settings import ConntrackSource, ExporterSettings
from flowvis.inventory.index import Inventory
from flowvis.inventory.resources import (
    EGRESSES,
    LEASES,
    NODES,
    PODS,
    POLICIES,
    SERVICES,
)
from flowvis.inventory.resources import NAMESPACES as NAMESPACE_OBJECTS
from flowvis.runtime.settings import load

VERSIONS = ("1.25", "1.29", "1.33", "1.37")
NOT_KUBERNETES = {
    "PodMonitor",
    "ServiceMonitor",
    "PrometheusRule",
    *OPERATED,
}  # operators define them
MODERN = Features("25.8.1.1", True, True, True, True, False)
EXPORTER_CONF, AGGREGATOR_CONF = "flow-exporter.conf", "flow-aggregator.conf"


@pytest.mark.parametrize("path", [*manifests.CONFIGURATIONS, *manifests.OTHERS])
def test_configurations_are_up_to_date(path: str) -> None:
    assert (DEPLOY / path).read_text() == manifests.configurations()[path], "run `make docs`"


@pytest.mark.parametrize("name", manifests.SINGLE)
def test_single_files_are_up_to_date(name: str) -> None:
    fresh = manifests.single_files(DEPLOY)[f"{name}.yml"]
    assert (DEPLOY / f"{name}.yml").read_text() == fresh, "run `make docs`"


def test_writing_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(DEPLOY, tmp_path, dirs_exist_ok=True)
    for path in [*tmp_path.glob("*.yml"), *tmp_path.rglob("*.conf")]:
        path.write_text("")
    assert manifests.main([str(tmp_path)]) == 0
    for name in [
        *manifests.CONFIGURATIONS,
        *manifests.OTHERS,
        "flow-exporter.yml",
        "flow-aggregator.yml",
    ]:
        assert (tmp_path / name).read_text() == (DEPLOY / name).read_text()
    assert str(tmp_path / "flow-exporter.yml") in capsys.readouterr().out


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_takes_them(version: str) -> None:
    distinct = {
        json.dumps(item): item
        for overlay in (*DEPLOYED, *KEPT, LOGS)
        for item in objects(overlay)
        if item["kind"] not in NOT_KUBERNETES
    }
    assert len(distinct) > 40
    for item in distinct.values():  # most are in many overlays
        kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    service = named("", "Service", "flow-aggregator")
    wrong = service | {"spec": service["spec"] | {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_the_daemons_take_their_configuration(
    overlay: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever they are checked."""
    mains = {"flow-exporter.conf": exporter.main, "flow-aggregator.conf": aggregator.main}
    checked = set()
    for item in of(overlay, "ConfigMap"):
        for name, text in item["data"].items():
            if name not in mains:
                continue
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
        if "priorityClassName" in pod:
            assert ("PriorityClass", None, pod["priorityClassName"]) in there
        for kind, name, optional in references(pod):
            known = (kind, namespace, name) in there | generated(overlay)
            assert known or optional, f"{kind} {namespace}/{name}"
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        volumes |= {c["metadata"]["name"] for c in item["spec"].get("volumeClaimTemplates", ())}
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())}
        assert mounted == volumes
    for item in of(overlay, "RoleBinding", "ClusterRoleBinding"):
        role, namespace = item["roleRef"], item["metadata"].get("namespace")
        assert (role["kind"], namespace, role["name"]) in there
        for subject in item["subjects"]:
            account = subject["kind"], subject["namespace"], subject["name"]
            assert account in there or subject["name"] == "antrea-agent"


def generated(overlay: str) -> set[tuple[str, str, str]]:
    """The Secrets that a Job makes, and does not overwrite."""
    jobs = [item["spec"]["template"]["spec"]["containers"] for item in of(overlay, "Job")]
    users = [parse_user(text) for containers in jobs for c in containers for text in c["args"]]
    return {("Secret", name.namespace, name.name) for user in users for name in user.secrets}


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
    pods = [(item["metadata"]["namespace"], template) for item, template in templates(overlay)]
    chosen = of(overlay, "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor")
    for item in chosen + of(overlay, "DaemonSet", "Deployment", "StatefulSet"):
        spec, name = item["spec"], item["metadata"]["name"]
        selector = spec.get("podSelector", spec.get("selector"))
        labels = selector.get("matchLabels", selector)
        found = [
            template
            for namespace, template in pods
            if namespace == item["metadata"]["namespace"]
            and labels.items() <= template["metadata"]["labels"].items()
        ]
        if name in {"grafana", "default-deny"}:  # for what is not in these manifests
            continue
        assert len(found) == 1, name
        there = {p["name"] for c in found[0]["spec"]["containers"] for p in c.get("ports", ())}
        assert ports(item) <= there | OPERATED_PORTS


OPERATED_PORTS = {2181, 9444, 9000, 8123, 9009}  # the operator names them
OPERATED_MACROS = {"installation", "cluster", "shard", "replica"}


def test_the_operator_s_clickhouse_is_the_one_that_the_aggregator_writes_to() -> None:
    overlay = "overlays/clickhouse-operator"
    conf = configuration(overlay, AGGREGATOR_CONF)
    wanted = load(AggregatorSettings, conf.encode(), {}).click_house
    servers, keeper = (of(overlay, kind)[0] for kind in OPERATED)
    about, configured = servers["metadata"], servers["spec"]["configuration"]
    clusters = [cluster["name"] for cluster in configured["clusters"]]
    assert wanted.enable
    assert clusters == [wanted.cluster]
    layout = configured["clusters"][0]["layout"]
    assert min(layout["shardsCount"], layout["replicasCount"]) > 1
    service = servers["spec"]["templates"]["serviceTemplates"][0]
    name = service["generateName"].format(chi=about["name"])
    port = next(p["port"] for p in service["spec"]["ports"] if p["name"] == "tcp")
    assert wanted.database_url == f"tcp://{name}.{about['namespace']}.svc:{port}"
    ddl = schema.create_table(TableLayout("db", wanted.cluster), MODERN, 3600)
    assert set(re.findall(r"{(\w+)}", ddl + schema.create_versions(TableLayout("db", "c")))) <= (
        OPERATED_MACROS
    )
    nodes = [node["host"] for node in configured["zookeeper"]["nodes"]]
    assert nodes == [f"keeper-{keeper['metadata']['name']}"]
    assert keeper["metadata"]["namespace"] == about["namespace"]
    assert keeper["spec"]["configuration"]["clusters"][0]["layout"]["replicasCount"] % 2


def test_the_operator_s_objects_are_whole() -> None:
    overlay = "overlays/clickhouse-operator"
    for item in of(overlay, *OPERATED):
        namespace, spec = item["metadata"]["namespace"], item["spec"]
        assert namespace in {
            other["metadata"]["name"]
            for other in objects("namespaces")
            if other["kind"] == "Namespace"
        }
        known = {
            kind: {template["name"] for template in spec["templates"].get(f"{kind}s", ())}
            for kind in ("podTemplate", "volumeClaimTemplate", "serviceTemplate")
        }
        for kind, name in spec["defaults"]["templates"].items():
            assert name in known[kind.replace("dataVolume", "volume")]
        (template,) = spec["templates"]["podTemplates"]
        (container,) = template["spec"]["containers"]
        assert container["name"] == item["metadata"]["labels"]["app.kubernetes.io/name"]
        assert re.fullmatch(r"clickhouse/clickhouse-\w+:\d+\.\d+", container["image"])
        (claim,) = spec["templates"]["volumeClaimTemplates"]
        assert claim["reclaimPolicy"] == "Retain"
        assert "storage" in claim["spec"]["resources"]["requests"]
        # Our Pods' form, which the API's schema knows.
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, VERSIONS[-1], strict=True)


def ports(item: Object) -> set[str]:
    spec = item["spec"]
    if item["kind"] == "Service":
        return {port["targetPort"] for port in spec["ports"]}
    if item["kind"] == "NetworkPolicy":
        return {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
    return {endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", ())}


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_pods_may_do_no_more_than_they_must(overlay: str) -> None:
    for item, container in containers(overlay):
        pod, name = item["spec"]["template"]["spec"], container["name"]
        may = container["securityContext"]
        assert may["readOnlyRootFilesystem"] is True
        assert may["capabilities"].get("add", []) == (
            ["NET_ADMIN"] if name == "flow-exporter" else []
        )
        ours = item["kind"] != "Job" and name != "kube-rbac-proxy"
        assert ({"livenessProbe", "readinessProbe"} <= set(container)) is ours
        assert "cpu" in container["resources"]["requests"]
        assert "memory" in container["resources"]["limits"]
        account = pod.get("automountServiceAccountToken", True)
        assert account is ("serviceAccountName" in pod)


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_rights_are_the_least(overlay: str) -> None:
    for item in of(overlay, "ClusterRole"):
        for rule in item["rules"]:
            asks = {"tokenreviews", "subjectaccessreviews"} >= set(rule["resources"])
            assert set(rule["verbs"]) <= ({"create"} if asks else {"get", "list", "watch"})
            assert not {"secrets", "configmaps", "*"} & set(rule["resources"])
    for item in of(overlay, "Role"):
        for rule in item["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"]
            assert "resourceNames" in rule or rule["verbs"] == ["create"]


@pytest.mark.parametrize("overlay", DEPLOYED)
@pytest.mark.parametrize("path", [reviews.TOKENS, reviews.RIGHTS])
def test_the_aggregator_may_ask_who_asks(overlay: str, path: str) -> None:
    """What the HTTP API asks the API server is allowed to the aggregator's account."""
    pods = [each for each in of(overlay, "Deployment") if is_aggregator(each)]
    accounts = {each["spec"]["template"]["spec"]["serviceAccountName"] for each in pods}
    _, _, group, _, resource = path.split("/")
    allowing = {
        item["metadata"]["name"]
        for item in of(overlay, "ClusterRole")
        for rule in item["rules"]
        if (rule["apiGroups"], rule["verbs"]) == ([group], ["create"])
        and resource in rule["resources"]
    }
    bound = {
        subject["name"]
        for item in of(overlay, "ClusterRoleBinding")
        if item["roleRef"]["name"] in allowing
        for subject in item["subjects"]
    }
    assert accounts <= bound


def is_aggregator(item: Object) -> bool:
    return bool(item["metadata"]["name"] == "flow-aggregator")


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
    settings = load(AggregatorSettings, configuration("", AGGREGATOR_CONF).encode(), {})
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


EXPORTERS = [overlay for overlay in DEPLOYED if "antrea" not in overlay]


@pytest.mark.parametrize("overlay", EXPORTERS)
def test_exporters_may_follow_their_certificates_and_no_more(overlay: str) -> None:
    (daemon_set,) = of(overlay, "DaemonSet")
    namespace = daemon_set["metadata"]["namespace"]
    assert namespace == ("kube-system" if "kube-system" in overlay else "flow-exporter")
    tls = load(ExporterSettings, configuration(overlay, EXPORTER_CONF).encode(), {}).tls
    issued = load(AggregatorSettings, configuration(overlay, AGGREGATOR_CONF).encode(), {})
    names = issued.certificates.names({})
    assert str(tls.ca_object) == f"{names.namespace}/{names.ca_config_map}"
    assert str(tls.client_object) == f"{names.namespace}/{names.client_secret}"
    account = {"kind": "ServiceAccount", "name": "flow-exporter", "namespace": namespace}
    (binding,) = (item for item in of(overlay, "RoleBinding") if account in item["subjects"])
    assert binding["subjects"] == [account]
    assert binding["metadata"]["namespace"] == names.namespace
    role = named(overlay, "Role", binding["roleRef"]["name"])
    assert role["metadata"]["namespace"] == names.namespace
    watch = {"apiGroups": [""], "verbs": ["get", "list", "watch"]}
    assert role["rules"] == [
        watch | {"resources": ["configmaps"], "resourceNames": [names.ca_config_map]},
        watch | {"resources": ["secrets"], "resourceNames": [names.client_secret]},
    ]
    own = named(overlay, "ClusterRoleBinding", "flow-exporter")
    assert (own["subjects"], own["roleRef"]["name"]) == ([account], "flow-exporter")
    assert not [r for r in references(daemon_set["spec"]["template"]["spec"]) if r[0] == "Secret"]


def test_antreas_agents_have_that_right_in_the_exporters_place() -> None:
    binding = named("overlays/antrea", "RoleBinding", "flow-aggregator-exporter-role-binding")
    agent = {"kind": "ServiceAccount", "name": "antrea-agent", "namespace": "kube-system"}
    assert binding["subjects"] == [agent]


def test_exporters_may_follow_what_they_look_up_and_ask_for_a_service() -> None:
    (role,) = (i for i in of("", "ClusterRole") if i["metadata"]["name"] == "flow-exporter")
    may = {(name, verb) for r in role["rules"] for name in r["resources"] for verb in r["verbs"]}
    followed = {
        (each.plural, verb) for each in (PODS, NODES, SERVICES) for verb in ("list", "watch")
    }
    assert may == followed | {(SERVICES.plural, "get")}


def test_the_aggregator_may_follow_what_it_knows_of_and_ask_for_nothing_else() -> None:
    role = named("", "ClusterRole", "flow-aggregator")
    may = [
        (group, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
        for verb in rule["verbs"]
    ]
    known = (PODS, SERVICES, NODES, NAMESPACE_OBJECTS, *POLICIES, EGRESSES)
    assert len(may) == len(set(may))
    assert set(may) == {
        (each.group, each.plural, verb) for each in known for verb in ("list", "watch")
    }


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
    exporting = load(ExporterSettings, configuration("", EXPORTER_CONF).encode(), {})
    aggregating = load(AggregatorSettings, configuration("", AGGREGATOR_CONF).encode(), {})
    for settings, name in ((exporting, "flow-exporter"), (aggregating, "flow-aggregator")):
        pod = workload(name)["spec"]["template"]["spec"]
        numbers = {p["name"]: p["containerPort"] for p in pod["containers"][0]["ports"]}
        assert numbers["status"] == settings.status.port
        assert pod["terminationGracePeriodSeconds"] > settings.grace_period
    assert numbers["api"] == aggregating.api_server.api_port
    template = workload("flow-aggregator")["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(aggregating.status.port)
    mounts = {m["mountPath"]: m["name"] for m in template["spec"]["containers"][0]["volumeMounts"]}
    for file in (aggregating.tls.ca, aggregating.tls.certificate, aggregating.tls.key):
        assert mounts[str(file.parent)] == "certificates"
    mounts = workload("flow-exporter")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(exporting.state.directory) in {mount["mountPath"] for mount in mounts}
    address = exporting.flow_exporter.flow_collector_addr
    service = named("", "Service", "flow-aggregator")
    about = service["metadata"]
    assert address.host == f"{about['namespace']}/{about['name']}"
    ports = [address.port, aggregating.api_server.api_port]
    assert [port["port"] for port in service["spec"]["ports"]] == ports
    assert aggregating.listen.port == address.port
    store = next(s for s in of("", "Service") if s["metadata"]["namespace"] == "flow-visibility")
    about = store["metadata"]
    assert aggregating.click_house.enable
    assert aggregating.click_house.database_url == (
        f"tcp://{about['name']}.{about['namespace']}.svc:{store['spec']['ports'][0]['port']}"
    )


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_all_agree_on_how_records_come(overlay: str) -> None:
    """The aggregator's protocol, its ports, and how exporters send."""
    conf = configuration(overlay, AGGREGATOR_CONF)
    aggregating = load(AggregatorSettings, conf.encode(), {})
    transport = aggregating.aggregator_transport_protocol.value
    carried = "UDP" if transport == "UDP" else "TCP"
    (container,) = workload("flow-aggregator", overlay)["spec"]["template"]["spec"]["containers"]
    listening = [port for port in container["ports"] if port["containerPort"] == 4739]
    assert aggregating.listen.port == 4739
    assert [(port["name"], port["protocol"]) for port in listening] == [
        (f"ipfix-{carried.lower()}", carried)
    ]
    served = named(overlay, "Service", "flow-aggregator")["spec"]["ports"]
    reached = [(p["targetPort"], p["protocol"]) for p in served if p["port"] == 4739]
    assert reached == [(f"ipfix-{carried.lower()}", carried)]
    if of(overlay, "DaemonSet"):
        exporting = load(ExporterSettings, configuration(overlay, EXPORTER_CONF).encode(), {})
        address = exporting.flow_exporter.flow_collector_addr
        assert (address.port, address.protocol) == (4739, transport.lower())
    assert carried == ("UDP" if overlay == "overlays/udp" else "TCP")


def test_the_switch_is_where_its_directory_is_mounted() -> None:
    overlay = "overlays/openvswitch"
    reading = load(ExporterSettings, configuration(overlay, EXPORTER_CONF).encode(), {}).conntrack
    assert reading.source is ConntrackSource.OVS
    (container,) = workload("flow-exporter", overlay)["spec"]["template"]["spec"]["containers"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounted[str(reading.ovs.run)] == "openvswitch"


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


@pytest.mark.parametrize("overlay", [*DEPLOYED, LOGS])
def test_nothing_comes_to_a_node_of_windows(overlay: str) -> None:
    for item, template in templates(overlay):
        chosen = template["spec"].get("nodeSelector", {})
        assert chosen.get("kubernetes.io/os") == "linux", item["metadata"]["name"]


def test_commands_of_the_pages_name_what_is_there() -> None:
    kinds = {"deploy": "Deployment", "deployment": "Deployment", "daemonset": "DaemonSet",
             "statefulset": "StatefulSet"}  # fmt: skip
    there = {
        (item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])
        for overlay in DEPLOYED
        for item, _ in templates(overlay)
    }
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))
    commands = re.findall(
        r"kubectl -n ([\w-]+) (?:exec|port-forward|rollout restart)((?: [\w-]+/[\w-]+)+)", pages
    )
    named = {
        (kinds[kind], namespace, name)
        for namespace, objects_ in commands
        for kind, name in (each.split("/") for each in objects_.split())
    }
    assert len(named) >= 3
    assert named <= there


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


def test_deleting_one_daemon_leaves_what_the_other_needs() -> None:
    first, second = (
        {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
         for item in objects(f"single/{name}")}
        for name in ("flow-exporter", "flow-aggregator")
    )  # fmt: skip
    assert ("DaemonSet", "flow-exporter", "flow-exporter") in first
    assert not first & second


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
    conf = configuration(overlay, AGGREGATOR_CONF)
    stored = load(AggregatorSettings, conf.encode(), {}).click_house
    assert stored.enable
    path = Path(stored.database_url.removeprefix("embedded://"))
    assert path.is_relative_to(mount["mountPath"])
    assert path != Path(mount["mountPath"])  # a volume's root has a lost+found


@pytest.mark.parametrize("overlay", [*DEPLOYED, *KEPT])
def test_all_objects_can_be_selected(overlay: str) -> None:
    for item in objects(overlay):
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "flowvis", item


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_images_are_of_this_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for _, template in templates(overlay):
        pod = template["spec"]
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            name, _, tag = container["image"].partition(":")
            if name.startswith("flowvis/"):
                assert tag.removesuffix("-embedded") == version


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_pods_that_run_see_another_configuration(overlay: str) -> None:
    """The ConfigMap keeps its name, and is mounted whole, beside what else is mounted there."""
    for item, container in containers(overlay):
        name = item["metadata"]["name"]
        if name != container["name"] or not name.startswith("flow-"):
            continue
        volumes = item["spec"]["template"]["spec"]["volumes"]
        (volume,) = (v for v in volumes if v["name"] == "config")
        assert volume["configMap"] == {"name": f"{name}-configmap"}
        (mount,) = (m for m in container["volumeMounts"] if m["name"] == "config")
        assert "subPath" not in mount
        assert container["args"] == ["--config", f"{mount['mountPath']}/{name}.conf"]
        for other in container["volumeMounts"]:  # nothing can be mounted in a read-only directory
            assert not other["mountPath"].startswith(f"{mount['mountPath']}/")


def test_another_server_configuration_restarts_clickhouse() -> None:
    """It does not follow its files: their ConfigMaps are named after what is in them."""
    volumes = workload("clickhouse")["spec"]["template"]["spec"]["volumes"]
    mounted = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    assert {re.sub("-[a-z0-9]{10}$", "", name) for name in mounted} == {
        "clickhouse-config",
        "clickhouse-users",
    }
    assert mounted <= {item["metadata"]["name"] for item in of("", "ConfigMap")}


@pytest.mark.parametrize("overlay", DEPLOYED)
def test_no_password_is_in_the_manifests(overlay: str) -> None:
    assert not of(overlay, "Secret")
    for _, template in templates(overlay):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", ()):
                assert "PASSWORD" not in variable["name"] or "secretKeyRef" in variable["valueFrom"]


STORES = [overlay for overlay in DEPLOYED if of(overlay, "Job")]


@pytest.mark.parametrize("overlay", STORES)
def test_both_users_have_their_password_where_it_is_needed(overlay: str) -> None:
    """The aggregator knows both, the server their hashes; neither starts without."""
    assert "" in STORES
    assert "overlays/clickhouse-operator" in STORES
    made = generated(overlay)
    pod = workload("flow-aggregator", overlay)["spec"]["template"]["spec"]
    asked = {name for kind, name, optional in references(pod) if kind == "Secret" and not optional}
    assert asked == {"clickhouse-secret", "clickhouse-queries"}
    assert {("Secret", "flow-aggregator", name) for name in asked} <= made
    (server,) = of(overlay, "StatefulSet", OPERATED[0])
    keys = set(secret_keys(server["spec"]))
    assert keys == {(name, "password_sha256_hex") for name in asked}
    assert {("Secret", "flow-visibility", name) for name in asked} <= made


@pytest.mark.parametrize("overlay", STORES)
def test_the_job_may_write_the_secrets_that_it_names_and_no_more(overlay: str) -> None:
    (job,) = of(overlay, "Job")
    pod = job["spec"]["template"]["spec"]
    account = {
        "kind": "ServiceAccount",
        "name": pod["serviceAccountName"],
        "namespace": job["metadata"]["namespace"],
    }
    rights: dict[str, Any] = {}
    for binding in of(overlay, "RoleBinding"):
        if account in binding["subjects"]:
            namespace = binding["metadata"]["namespace"]
            (role,) = (
                role
                for role in of(overlay, "Role")
                if role["metadata"] == binding["metadata"] | {"name": binding["roleRef"]["name"]}
            )
            rights[namespace] = role["rules"]
    wanted: dict[str, set[str]] = {}
    for _, namespace, name in generated(overlay):
        wanted.setdefault(namespace, set()).add(name)
    assert set(rights) == set(wanted)
    for namespace, names in wanted.items():
        first, second = rights[namespace]
        assert set(first["resourceNames"]) == names
        assert first["verbs"] == ["get", "update"]
        assert second == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}
    # One that is there cannot be changed: it goes by itself, and the next apply makes it anew.
    assert job["spec"]["ttlSecondsAfterFinished"] <= 300
    assert pod["restartPolicy"] == "OnFailure"


def test_namespaces_say_what_may_run_in_them() -> None:
    spaces = {i["metadata"]["name"]: i["metadata"]["labels"] for i in of("namespaces", "Namespace")}
    assert set(spaces) == set(NAMESPACES)
    for name, labels in spaces.items():
        profile = "pod-security.kubernetes.io"
        modes = {mode: labels[f"{profile}/{mode}"] for mode in ("enforce", "audit", "warn")}
        if name == "flow-exporter":
            assert modes == {"enforce": "privileged", "audit": "restricted", "warn": "privileged"}
        else:
            assert set(modes.values()) == {"restricted"}


def test_prometheus_comes_to_exporters_by_who_asks_for_its_token() -> None:
    overlay = "overlays/prometheus"
    pod = workload("flow-exporter", overlay)["spec"]["template"]["spec"]
    exporter_container, proxy = pod["containers"]
    settings = load(ExporterSettings, configuration(overlay, EXPORTER_CONF).encode(), {})
    assert settings.status.address == "127.0.0.1"
    upstream = f"--upstream=http://127.0.0.1:{settings.status.port}/"
    (port,) = proxy["ports"]
    assert proxy["args"] == [
        f"--secure-listen-address=:{port['containerPort']}",
        upstream,
        "--allow-paths=/metrics",
    ]
    service = named(overlay, "Service", "flow-exporter")
    (monitor,) = of(overlay, "ServiceMonitor")
    assert [p["name"] for p in service["spec"]["ports"]] == [
        e["port"] for e in monitor["spec"]["endpoints"]
    ]
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    for probe in ("livenessProbe", "readinessProbe"):
        assert exporter_container[probe]["httpGet"]["host"] == settings.status.address
