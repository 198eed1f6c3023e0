"""Every manifest against the Pod Security Standards."""

import copy
from typing import Any

import pytest
from tools.pod_security import NEEDS, Profile, Violation, violations

from deploy.rendered import DEPLOYED, KEPT, LOGS, of, templates, workload

Pod = dict[str, Any]
EVERYWHERE = [*DEPLOYED, *KEPT, LOGS]


def level(namespace: str) -> str:
    """What a namespace enforces."""
    if namespace == "kube-system":
        return "privileged"  # as the cluster has it
    for overlay in (*KEPT, LOGS):
        for item in of(overlay, "Namespace"):
            if item["metadata"]["name"] == namespace:
                labels: dict[str, str] = item["metadata"]["labels"]
                return labels["pod-security.kubernetes.io/enforce"]
    raise AssertionError(namespace)


@pytest.mark.parametrize("overlay", EVERYWHERE)
def test_all_pass_restricted_but_for_what_is_explained(overlay: str) -> None:
    for item, template in templates(overlay):
        name = item["metadata"]["name"]
        pod = template["spec"]
        there = {c["name"] for c in [*pod["containers"], *pod.get("initContainers", ())]} | {""}
        explained = {
            need.violation
            for need in NEEDS
            if need.pod == name and need.violation.container in there
        }
        assert violations(template, Profile.RESTRICTED) == explained
        # Their namespace admits them, and no more than it must.
        wanted = "privileged" if explained else "restricted"
        assert level(item["metadata"]["namespace"]) == wanted


def test_each_reason_is_a_sentence() -> None:
    assert {need.pod for need in NEEDS} == {"flow-exporter", "fluent-bit"}
    assert len(NEEDS) == len({(need.pod, need.violation) for need in NEEDS})
    for need in NEEDS:
        assert need.reason.endswith(".")
        assert need.reason[0].isupper() or need.reason.startswith("/run/")


def test_what_the_exporter_does_without() -> None:
    """Beside its needs: a Pod that took more would be found."""
    pod = workload("flow-exporter")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert [v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v] == [
        "/run/flow-exporter"
    ]


def test_the_switch_s_directory_is_all_that_comes_with_its_source() -> None:
    """Read-only; and without the kernel's sysctls nothing is privileged."""
    pod = workload("flow-exporter", "overlays/openvswitch")["spec"]["template"]["spec"]
    plain = workload("flow-exporter")["spec"]["template"]["spec"]
    container, plain_container = dict(pod["containers"][0]), plain["containers"][0]
    *same, volume = pod["volumes"]
    *same_mounts, mount = container.pop("volumeMounts")
    assert (same, same_mounts) == (plain["volumes"], plain_container["volumeMounts"])
    assert volume == {
        "name": mount["name"],
        "hostPath": {"path": "/run/openvswitch", "type": "Directory"},
    }
    assert mount["readOnly"] is True
    assert "initContainers" not in pod
    without = {key: value for key, value in plain_container.items() if key != "volumeMounts"}
    assert container == without


POD = {
    "metadata": {"name": "p"},
    "spec": {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "c",
                "image": "i",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}
SPEC, CONTAINER = "spec", "spec.containers.0"
OWN = f"{CONTAINER}.securityContext"
HTTP = {"httpGet": {"port": 1, "host": "127.0.0.1"}}

CHANGES: list[tuple[str, Any, set[str]]] = [
    (f"{SPEC}.hostNetwork", True, {"Host namespaces"}),
    (f"{SPEC}.hostPID", True, {"Host namespaces"}),
    (f"{SPEC}.hostIPC", True, {"Host namespaces"}),
    (f"{SPEC}.hostPID", False, set()),
    (f"{OWN}.privileged", True, {"Privileged containers"}),
    (f"{OWN}.capabilities.add", ["NET_BIND_SERVICE"], set()),
    (f"{OWN}.capabilities.add", ["CHOWN"], {"Capabilities added"}),
    (f"{OWN}.capabilities.add", ["NET_RAW"], {"Capabilities", "Capabilities added"}),
    (f"{OWN}.capabilities.drop", ["NET_RAW"], {"Capabilities dropped"}),
    (f"{OWN}.capabilities", None, {"Capabilities dropped"}),
    (f"{SPEC}.volumes", [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {}}], set()),
    (
        f"{SPEC}.volumes",
        [{"name": "v", "hostPath": {"path": "/"}}],
        {"HostPath volumes", "Volume types"},
    ),
    (f"{SPEC}.volumes", [{"name": "v", "nfs": {"server": "s", "path": "/"}}], {"Volume types"}),
    (f"{CONTAINER}.ports", [{"containerPort": 1, "hostPort": 1}], {"Host ports"}),
    (f"{CONTAINER}.ports", [{"containerPort": 1, "hostPort": 0}], set()),
    (f"{CONTAINER}.livenessProbe", HTTP, {"Host of probes and lifecycle hooks"}),
    (f"{CONTAINER}.lifecycle", {"preStop": HTTP}, {"Host of probes and lifecycle hooks"}),
    (f"{CONTAINER}.startupProbe", {"httpGet": {"port": 1}}, set()),
    (f"{OWN}.appArmorProfile", {"type": "Unconfined"}, {"AppArmor"}),
    (f"{SPEC}.securityContext.appArmorProfile", {"type": "RuntimeDefault"}, set()),
    (f"{SPEC}.securityContext.seLinuxOptions", {"type": "spc_t"}, {"SELinux type"}),
    (f"{OWN}.seLinuxOptions", {"type": "container_t"}, set()),
    (f"{OWN}.seLinuxOptions", {"user": "u"}, {"SELinux user and role"}),
    (f"{OWN}.procMount", "Unmasked", {"/proc mount type"}),
    (f"{OWN}.seccompProfile", {"type": "Unconfined"}, {"Seccomp", "Seccomp, set"}),
    (f"{SPEC}.securityContext.seccompProfile", None, {"Seccomp, set"}),
    (
        f"{SPEC}.securityContext.seccompProfile",
        {"type": "Unconfined"},
        {"Seccomp", "Seccomp, set"},
    ),
    (f"{SPEC}.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], {"Sysctls"}),
    (
        f"{SPEC}.securityContext.sysctls",
        [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
        set(),
    ),
    (f"{OWN}.allowPrivilegeEscalation", True, {"Privilege escalation"}),
    (f"{OWN}.allowPrivilegeEscalation", None, {"Privilege escalation"}),
    (f"{SPEC}.securityContext.runAsNonRoot", None, {"Running as non-root"}),
    (f"{OWN}.runAsNonRoot", False, {"Running as non-root"}),
    (f"{SPEC}.securityContext.runAsUser", 0, {"Running as non-root user"}),
    (f"{OWN}.runAsUser", 0, {"Running as non-root user"}),
    (f"{SPEC}.securityContext.runAsUser", None, set()),
    (f"{OWN}.windowsOptions", {"hostProcess": True}, {"HostProcess"}),
]


def changed(pod: Pod, path: str, value: Any) -> Pod:
    """A Pod with another value at a path, or without where that is None."""
    pod = copy.deepcopy(pod)
    *way, last = path.split(".")
    at: Any = pod
    for key in way:
        at = at[int(key)] if key.isdigit() else at.setdefault(key, {})
    if value is None:
        at.pop(last, None)
    else:
        at[last] = value
    return pod


@pytest.mark.parametrize(("path", "value", "found"), CHANGES)
def test_each_control(path: str, value: Any, found: set[str]) -> None:
    assert violations(POD, Profile.RESTRICTED) == set()
    pod = changed(POD, path, value)
    assert {each.control for each in violations(pod, Profile.RESTRICTED)} == found
    # Init containers are containers.
    if path.startswith(CONTAINER):
        (container,) = pod["spec"]["containers"]
        twin = changed(POD, "spec.initContainers", [container | {"name": "init"}])
        expected = {Violation(control, "init") for control in found}
        assert violations(twin, Profile.RESTRICTED) == expected


def test_baseline_is_a_part_of_it() -> None:
    pod: Pod = {"spec": {"containers": [{"name": "c"}]}}
    assert violations(pod, Profile.BASELINE) == set()
    assert len(violations(pod, Profile.RESTRICTED)) == 4
    pod["spec"]["hostNetwork"] = True
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": 9}]
    assert {each.control for each in violations(pod, Profile.BASELINE)} == {
        "Host namespaces",
        "Host ports",  # which the API server fills in
    }
