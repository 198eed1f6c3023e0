"""The Pod Security Standards, as data: what a Pod may not have under baseline and restricted.

https://kubernetes.io/docs/concepts/security/pod-security-standards, as of Kubernetes 1.34, for
Linux. A control names fields of a Pod; each is looked at where it is set, and a required one must
be set for every container, by itself or by its Pod. What the API server fills in before it admits a
Pod is filled in here as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

Object = dict[str, Any]
Allowed = Callable[[Any], bool]

CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


class Profile(Enum):
    """A level of the standards; restricted has all controls of baseline."""

    BASELINE = "baseline"
    RESTRICTED = "restricted"


@dataclass(frozen=True)
class Control:
    """One control: where its fields are, and which values these may have."""

    name: str
    profile: Profile
    allowed: Allowed
    pod: tuple[str, ...] = ()
    """Paths from the Pod; `[]` goes through a list."""
    container: tuple[str, ...] = ()
    """Paths from each container."""
    required: bool = False
    """Whether it has to be set: by each container, or by its Pod where that has the field."""


@dataclass(frozen=True, order=True)
class Violation:
    """A control that a Pod does not pass, and where: a container, or "" for the Pod itself."""

    control: str
    container: str


def _one_of(*values: Any) -> Allowed:
    return lambda value: value in values


def _within(*values: str) -> Allowed:
    return lambda value: set(value) <= set(values)


_ADDED_BY_RUNTIMES = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
)  # fmt: skip
_VOLUMES = (
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
)  # fmt: skip
_HANDLERS = (
    *(f"{probe}.{kind}.host" for probe in ("livenessProbe", "readinessProbe", "startupProbe")
      for kind in ("httpGet", "tcpSocket")),
    *(f"lifecycle.{hook}.{kind}.host" for hook in ("postStart", "preStop")
      for kind in ("httpGet", "tcpSocket")),
)  # fmt: skip
_SELINUX_TYPES = (
    "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t",
)  # fmt: skip

_BASELINE = (
    Control(
        "HostProcess", Profile.BASELINE, _one_of(False),
        ("spec.securityContext.windowsOptions.hostProcess",),
        ("securityContext.windowsOptions.hostProcess",),
    ),
    Control(
        "Host namespaces", Profile.BASELINE, _one_of(False),
        ("spec.hostNetwork", "spec.hostPID", "spec.hostIPC"),
    ),
    Control(
        "Privileged containers", Profile.BASELINE, _one_of(False),
        container=("securityContext.privileged",),
    ),
    Control(
        "Capabilities", Profile.BASELINE, _within(*_ADDED_BY_RUNTIMES),
        container=("securityContext.capabilities.add",),
    ),
    Control(
        "HostPath volumes", Profile.BASELINE, lambda volume: "hostPath" not in volume,
        ("spec.volumes[]",),
    ),
    Control(
        "Host ports", Profile.BASELINE, _one_of(0), container=("ports[].hostPort",)
    ),
    Control(
        "Host of probes and lifecycle hooks", Profile.BASELINE, _one_of(""), container=_HANDLERS
    ),
    Control(
        "AppArmor", Profile.BASELINE, _one_of("RuntimeDefault", "Localhost"),
        ("spec.securityContext.appArmorProfile.type",),
        ("securityContext.appArmorProfile.type",),
    ),
    Control(
        "SELinux type", Profile.BASELINE, _one_of(*_SELINUX_TYPES),
        ("spec.securityContext.seLinuxOptions.type",), ("securityContext.seLinuxOptions.type",),
    ),
    Control(
        "SELinux user and role", Profile.BASELINE, _one_of(""),
        ("spec.securityContext.seLinuxOptions.user", "spec.securityContext.seLinuxOptions.role"),
        ("securityContext.seLinuxOptions.user", "securityContext.seLinuxOptions.role"),
    ),
    Control(
        "/proc mount type", Profile.BASELINE, _one_of("Default"),
        container=("securityContext.procMount",),
    ),
    Control(
        "Seccomp", Profile.BASELINE, _one_of("RuntimeDefault", "Localhost"),
        ("spec.securityContext.seccompProfile.type",), ("securityContext.seccompProfile.type",),
    ),
    Control(
        "Sysctls", Profile.BASELINE, _one_of(*_SAFE_SYSCTLS),
        ("spec.securityContext.sysctls[].name",),
    ),
)  # fmt: skip

_RESTRICTED = (
    Control(
        "Volume types", Profile.RESTRICTED, lambda volume: set(volume) <= set(_VOLUMES),
        ("spec.volumes[]",),
    ),
    Control(
        "Privilege escalation", Profile.RESTRICTED, _one_of(False),
        container=("securityContext.allowPrivilegeEscalation",), required=True,
    ),
    Control(
        "Running as non-root", Profile.RESTRICTED, _one_of(True),
        ("spec.securityContext.runAsNonRoot",), ("securityContext.runAsNonRoot",), required=True,
    ),
    Control(
        "Running as non-root user", Profile.RESTRICTED, lambda user: user != 0,
        ("spec.securityContext.runAsUser",), ("securityContext.runAsUser",),
    ),
    Control(
        "Seccomp, set", Profile.RESTRICTED, _one_of("RuntimeDefault", "Localhost"),
        ("spec.securityContext.seccompProfile.type",), ("securityContext.seccompProfile.type",),
        required=True,
    ),
    Control(
        "Capabilities dropped", Profile.RESTRICTED, lambda dropped: "ALL" in dropped,
        container=("securityContext.capabilities.drop",), required=True,
    ),
    Control(
        "Capabilities added", Profile.RESTRICTED, _within("NET_BIND_SERVICE"),
        container=("securityContext.capabilities.add",),
    ),
)  # fmt: skip

CONTROLS = {Profile.BASELINE: _BASELINE, Profile.RESTRICTED: (*_BASELINE, *_RESTRICTED)}


def violations(pod: Object, profile: Profile) -> set[Violation]:
    """Return what a Pod, or a template of one, does not pass."""
    return {found for control in CONTROLS[profile] for found in _violations(control, pod)}


def _violations(control: Control, pod: Object) -> Iterator[Violation]:
    of_pod = [value for path in control.pod for value in _values(pod, path.split("."))]
    if not all(map(control.allowed, of_pod)):
        yield Violation(control.name, "")
    for container in _containers(pod["spec"]):
        own = [v for path in control.container for v in _values(container, path.split("."))]
        missing = control.required and not own and not of_pod
        if missing or not all(map(control.allowed, own)):
            yield Violation(control.name, container["name"])


def _containers(spec: Object) -> Iterator[Object]:
    """Go through all containers of a Pod, as the API server completes them."""
    for kind in CONTAINERS:
        for container in spec.get(kind) or ():
            if spec.get("hostNetwork"):  # a port of the Pod is one of the node
                ports = [{"hostPort": p["containerPort"]} | p for p in container.get("ports", ())]
                yield container | {"ports": ports}
            else:
                yield container


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    """Go through all values at a path; what is not there is passed over."""
    if not path:
        if value is not None:
            yield value
        return
    key, is_list = path[0].removesuffix("[]"), path[0].endswith("[]")
    inner = value.get(key) if isinstance(value, dict) else None
    for item in (inner or ()) if is_list else (inner,):
        yield from _values(item, path[1:])


@dataclass(frozen=True)
class Need:
    """Something that restricted forbids and that cannot be done without."""

    pod: str
    """The name of what makes the Pod."""
    violation: Violation
    reason: str


def _exporter(control: str, container: str, reason: str) -> Need:
    return Need("flow-exporter", Violation(control, container), reason)


_ONLY_ROOT = (
    "A capability over the node's network is of use to uid 0 only: Kubernetes gives no other user "
    "an ambient one."
)
_SYSCTLS = (
    "Runtimes mount /proc/sys read-only unless a container is privileged; it sets three sysctls "
    "and ends. Remove it where the nodes set them."
)
_NET_ADMIN = "NET_ADMIN: netlink gives the connections and their events to nobody else."


def _logs(control: str, container: str, reason: str) -> Need:
    return Need("fluent-bit", Violation(control, container), reason)


NEEDS = (
    _exporter(
        "Host namespaces",
        "",
        "The node's network: its connections are in the table of that namespace, and no other.",
    ),
    _exporter(
        "HostPath volumes",
        "",
        "/run/flow-exporter of the node: what was exported, so that a successor exports no byte "
        "twice, also after a crash. In overlays/openvswitch also /run/openvswitch, read-only: the "
        "switch's control socket, at which connections are asked for. No other.",
    ),
    _exporter(
        "Volume types",
        "",
        "A hostPath, for these: no other volume outlives the Pod and ends with the node's boot, "
        "and the switch's socket is on the node only.",
    ),
    _exporter("Capabilities", "flow-exporter", _NET_ADMIN),
    _exporter(
        "Capabilities added",
        "flow-exporter",
        "NET_ADMIN again, and no other.",
    ),
    _exporter(
        "Host ports",
        "flow-exporter",
        "A port on the node's network is the node's; the exporter listens on it at loopback only.",
    ),
    _exporter(
        "Host ports",
        "kube-rbac-proxy",
        "Only with components/prometheus: where Prometheus comes, over TLS and with a token that "
        "the API server knows.",
    ),
    _exporter(
        "Host of probes and lifecycle hooks",
        "flow-exporter",
        "The kubelet probes at 127.0.0.1, where nobody else can ask.",
    ),
    _exporter("Running as non-root", "flow-exporter", _ONLY_ROOT),
    _exporter(
        "Running as non-root user",
        "flow-exporter",
        "Uid 0 is who gets the capability; of root's other powers it has none.",
    ),
    _exporter("Privileged containers", "sysctls", _SYSCTLS),
    _exporter("Privilege escalation", "sysctls", "A privileged container has it always."),
    _exporter("Running as non-root", "sysctls", "Files of /proc/sys/net are root's."),
    _exporter("Running as non-root user", "sysctls", "Only uid 0 may write these files."),
    _exporter(
        "Capabilities dropped", "sysctls", "A privileged container has all, whatever is dropped."
    ),
    _logs(
        "HostPath volumes",
        "",
        "Only in deploy/logs: logs are files of the node (/var/log/containers, pods and antrea, "
        "to read), and in /var/lib/flow-logs is how far they were read.",
    ),
    _logs("Volume types", "", "A hostPath, for those directories."),
    _logs(
        "Running as non-root", "fluent-bit", "Runtimes and Antrea write logs that only uid 0 reads."
    ),
    _logs(
        "Running as non-root user",
        "fluent-bit",
        "Uid 0 is whose files they are; of root's other powers it has none.",
    ),
)


def documentation() -> str:
    """Return the table of what is needed, as Markdown."""
    lines = ["| Pod | Container | Control | Why not without |", "|---|---|---|---|"]
    for need in NEEDS:
        container = f"`{need.violation.container}`" if need.violation.container else "the Pod"
        lines.append(f"| `{need.pod}` | {container} | {need.violation.control} | {need.reason} |")
    return "\n".join(lines) + "\n"
