"""The flow-exporter's configuration, under Antrea's option names, and ours beside them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network
from pathlib import Path

from flowvis.addresses import Network
from flowvis.conntrack.sources.openvswitch import RUN
from flowvis.denials.prefixes import DEFAULT, PRESETS, parse_pattern
from flowvis.exporter.older import from_antrea
from flowvis.fields import PROTOCOLS
from flowvis.inventory.settings import KubernetesSettings, ObjectName, parse_object_name
from flowvis.ipfix.receivers import AntreaRelease, parse_release
from flowvis.runtime.memory import ByteSize, MemorySettings
from flowvis.runtime.sections import LogSettings, StatusSettings
from flowvis.runtime.settings import Duration, option, section
from flowvis.transport.address import CollectorAddress, parse_collector_address, parse_host
from flowvis.transport.tls import VERSIONS, TlsFiles

CERTIFICATES = Path("/etc/flow-exporter/certs")  # where the manifests mount the client's Secret


MAX_CONNECTIONS = 1 << 24  # 6 GB when full, more than any kernel is set up to track


@dataclass(frozen=True)
class FlowExporterOptions:
    """What is exported, how often, and where to."""

    enable: bool = option(True, doc="Whether connections are exported")
    flow_collector_addr: CollectorAddress = option(
        "flow-aggregator/flow-aggregator:4739:tls",
        doc="The collector: `<host>[:<port>[:<proto>]]`; host is a DNS name, an address (IPv6 in "
        "brackets) or `<namespace>/<service>`; port 4739 and tls by default; tls, tcp or udp, over "
        "which nobody notices what is lost on the way",
        parse=parse_collector_address,
        live=True,
    )
    template_refresh_timeout: Duration = option(
        60.0,
        doc="How often templates go out anew over udp: what a collector that was restarted cannot "
        "read until then is lost",
        minimum=1,
    )
    antrea_version: AntreaRelease | None = option(
        None,
        doc="The release of Antrea whose aggregator the collector is, where it is older than 2.3: "
        "such a one ends the session at elements that it does not know, so it gets only those that "
        "it does. Empty: flowvis' own aggregator, Antrea's from 2.3 on, and all that skip unknown "
        "elements",
        parse=parse_release,
        takes="a release such as '2.2', in quotes",
        live=True,
    )
    flow_poll_interval: Duration = option(
        5.0,
        doc="How often the kernel's connections are read",
        minimum=0.1,  # a dump and its records take milliseconds; less would only burn CPU
        live=True,
    )
    active_flow_export_timeout: Duration = option(
        60.0,
        doc="How often a connection that goes on is exported; at least the poll interval",
        minimum=0,
        live=True,
    )
    idle_flow_export_timeout: Duration = option(
        15.0,
        doc="How long without packets before a connection is exported as idle; at least the poll "
        "interval",
        minimum=0,
        live=True,
    )
    protocol_filter: tuple[str, ...] | None = option(
        None,
        doc="Export only connections of these protocols; all by default, none with `[]`",
        choices=tuple(PROTOCOLS),
        live=True,
    )
    max_connections: int = option(
        262_144,  # kube-proxy lets a node of 8 cores track as many; 100 MB when full
        doc="Connections tracked at one time; at more, those idle longest are exported early",
        minimum=1,
    )
    pending_records: int = option(
        65_536,  # 25 MB; an hour of 18 ended connections a second
        doc="Records kept while the collector is away, or until it has acknowledged them; at "
        "more, the oldest are dropped and counted",
        minimum=10_000,  # a batch on its way has up to 8192
    )

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is too much."""
        if self.max_connections > MAX_CONNECTIONS:
            yield "maxConnections", f"{self.max_connections}: at most {MAX_CONNECTIONS}"

    @property
    def active_ms(self) -> int:
        """The active timeout that applies, in milliseconds."""
        return round(1000 * max(self.active_flow_export_timeout, self.flow_poll_interval))

    @property
    def idle_ms(self) -> int:
        """The idle timeout that applies, in milliseconds."""
        return round(1000 * max(self.idle_flow_export_timeout, self.flow_poll_interval))


class ConntrackSource(Enum):
    """Whose table of connections is read."""

    KERNEL = "kernel"
    OVS = "ovs"


@dataclass(frozen=True)
class OpenVSwitchSettings:
    """Open vSwitch's datapath in user space, whose connections the kernel does not know."""

    run: Path = option(
        RUN,
        doc="The directory of its pid file and control socket, in Kubernetes a hostPath; or the "
        "control socket itself",
    )
    datapath: str = option(
        "",
        doc="The datapath, as `ovs-appctl dpctl/dump-dps` names it; empty: the one that begins "
        "with netdev@",
    )


@dataclass(frozen=True)
class ConntrackSettings:
    """How connections are read."""

    source: ConntrackSource = option(
        ConntrackSource.KERNEL,
        doc="Whose connections: those of the kernel, or of Open vSwitch's userspace datapath (ovs: "
        "DPDK, datapath_type=netdev), which has no counters, start times and events of them",
    )
    events: bool = option(
        True,
        doc="Listen to the kernel as well, so that connections shorter than the poll interval are "
        "seen and last counters are exact",
    )
    zones: tuple[int, ...] = option(
        (),
        doc="The conntrack zones to read; by default Antrea's (65520, 65510) where its gateway "
        "antrea-gw0 is there (when it comes, the exporter begins anew), else the default zone (0). "
        "Beside Antrea's, zone 0 is read for the clients from outside and the SNAT that only it "
        "knows",
        minimum=0,
        maximum=65535,
    )
    loopback: bool = option(False, doc="Export connections of this host with itself over loopback")
    ovs: OpenVSwitchSettings = section(OpenVSwitchSettings, doc="Where source is ovs")
    own_sessions: bool = option(
        False, doc="Export this exporter's own connections to its collector as well"
    )


@dataclass(frozen=True)
class DeniedSettings:
    """Where denied connections are reported."""

    nflog_groups: tuple[int, ...] = option(
        (),
        doc="The NFLOG groups that rules log denied packets to: kube-router's is 100, Calico's are "
        "1 and 2 while Felix itself does not listen; only one program can listen to a group",
        minimum=0,
        maximum=65535,
    )
    audit_log: Path | None = option(
        None,
        doc="Antrea's audit log of policies, followed across its rotation: "
        "`/var/log/antrea/networkpolicy/np.log`",
    )
    prefixes: tuple[str, ...] = option(
        DEFAULT,
        doc="How a logged packet's prefix tells what denied it, in this order: "
        f"{', '.join(f'`{name}`' for name in PRESETS)} or regular expressions for the whole prefix "
        "with groups named action, direction, namespace, policy, rule, type (docs/denied.md)",
        parse=parse_pattern,
        takes="a name of these or a regular expression",
        live=True,
    )
    max_connections: int = option(
        65_536,  # 25 MB when full; a scan of all ports of one address
        doc="Denied connections tracked at one time; at more, those idle longest are exported "
        "early",
        minimum=1,
    )
    max_packets_per_second: int = option(
        20_000,  # an eighth of a core; each may become a record
        doc="Denied packets looked at in a second; more are counted and left out",
        minimum=1,
        live=True,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        """Yield what is too much, or there twice."""
        if self.max_connections > MAX_CONNECTIONS:
            yield "maxConnections", f"{self.max_connections}: at most {MAX_CONNECTIONS}"
        if len(set(self.nflog_groups)) < len(self.nflog_groups):
            yield "nflogGroups", f"{list(self.nflog_groups)}: name each group once"

    @property
    def wanted(self) -> bool:
        """Whether there is anything to follow."""
        return bool(self.nflog_groups) or self.audit_log is not None


@dataclass(frozen=True)
class ClientTls:
    """The certificates of the connecting side; read again when they change."""

    ca: Path | None = option(
        None,
        doc="The CA that the collector's certificate must come from (PEM); given, it counts and "
        f"not `caConfigMap`. Where neither is: `{CERTIFICATES}/ca.crt`",
    )
    certificate: Path | None = option(
        None,
        doc="This exporter's certificate (PEM); given, it and `key` count and not `clientSecret`. "
        f"Where neither is: `{CERTIFICATES}/tls.crt`",
    )
    key: Path | None = option(
        None, doc=f"Its private key (PEM); by default `{CERTIFICATES}/tls.key`"
    )
    ca_config_map: ObjectName | None = option(
        None,
        doc="The ConfigMap with `ca.crt`, watched through the API, which is then asked for all "
        "else as well",
        parse=parse_object_name,
        takes="`<namespace>/<name>`",
        in_pod="flow-aggregator/flow-aggregator-ca",
    )
    client_secret: ObjectName | None = option(
        None,
        doc="The Secret with `tls.crt` and `tls.key`, watched through the API",
        parse=parse_object_name,
        takes="`<namespace>/<name>`",
        in_pod="flow-aggregator/flow-aggregator-client-tls",
    )
    server_name: str = option(
        "",
        parse=parse_host,
        takes="a name or address",
        doc="The name that the collector's certificate must have; by default the collector's host, "
        "`<service>.<namespace>.svc` for a Service",
        live=True,
    )
    min_version: str = option(
        "VersionTLS12", doc="The oldest version of TLS", choices=tuple(VERSIONS)
    )

    @property
    def files(self) -> TlsFiles:
        """The certificates where all of them are files."""
        return TlsFiles(
            self.ca or CERTIFICATES / "ca.crt",
            self.certificate or CERTIFICATES / "tls.crt",
            self.key or CERTIFICATES / "tls.key",
            self.min_version,
        )

    @property
    def ca_object(self) -> ObjectName | None:
        """The ConfigMap with the CA; None where that is a file."""
        return None if self.ca else self.ca_config_map

    @property
    def client_object(self) -> ObjectName | None:
        """The Secret with certificate and key; None where these are files."""
        return None if self.certificate or self.key else self.client_secret

    @property
    def objects(self) -> str:
        """The options that name objects of the API; "" without any."""
        named = {"caConfigMap": self.ca_object, "clientSecret": self.client_object}
        return ", ".join(f"tls.{key}" for key, name in named.items() if name is not None)


@dataclass(frozen=True)
class ExporterInventory:
    """What Kubernetes says, from files or from the API server."""

    files: tuple[Path, ...] = option(
        (),
        doc="Files or directories with the output of `kubectl get pods,services,nodes -A -o yaml`; "
        "read again when they change. Without any, and without an API server, this is a plain "
        "host: all its connections are exported",
    )
    kubernetes: KubernetesSettings = section(KubernetesSettings, doc="The API server")
    pod_networks: tuple[Network, ...] = option(
        (),
        key="podCIDRs",
        doc="Networks of Pod addresses, where the nodes' podCIDRs do not tell (Calico, Cilium)",
        parse=ip_network,
        takes="a network such as 10.0.0.0/8",
        live=True,
    )


@dataclass(frozen=True)
class StateSettings:
    """What an exporter leaves to the one that follows it."""

    enable: bool = option(
        True,
        doc="Whether what was exported is remembered over a restart or a crash and not exported "
        "again, and what was not acknowledged is kept and sent again",
    )
    directory: Path = option(
        Path("/run/flow-exporter"),
        doc="Where: on a file system that a reboot clears, in Kubernetes the node's (hostPath)",
    )
    max_bytes: ByteSize = option(
        "32Mi",  # 130,000 records; where the file system is in memory, what is used is the Pod's
        doc="Bytes of records there that the collector has not acknowledged, for the exporter that "
        "follows; at more, a kill loses the oldest, and a stop what cannot be sent in its time",
        parse=ByteSize.parse,
        takes="a size such as 32Mi",
    )


@dataclass(frozen=True)
class Status(StatusSettings):
    """Metrics and health over HTTP.

    In a Pod on loopback as well: it is the node's, where no NetworkPolicy applies, and the kubelet
    probes there.
    """

    address: str = option(
        "127.0.0.1",
        doc="Local address of /metrics, /healthz and /readyz; where it is another than loopback, "
        "all hosts that reach the node may ask",
    )
    port: int = option(9740, doc="Local port; 0: any free one", minimum=0, maximum=65535)


@dataclass(frozen=True)
class ExporterSettings:
    """All that flow-exporter can be told."""

    older = staticmethod(from_antrea)

    flow_exporter: FlowExporterOptions = section(
        FlowExporterOptions, doc="What is exported, and where to"
    )
    node_name: str = option(
        "", doc="The name of this node in Kubernetes; by default the host name", env="NODE_NAME"
    )
    conntrack: ConntrackSettings = section(ConntrackSettings, doc="The kernel's connections")
    denied: DeniedSettings = section(DeniedSettings, doc="Connections that policies denied")
    tls: ClientTls = section(ClientTls, doc="Certificates of the connecting side")
    inventory: ExporterInventory = section(ExporterInventory, doc="Pods, Services and Nodes")
    state: StateSettings = section(StateSettings, doc="What is remembered over a restart")
    memory: MemorySettings = section(MemorySettings, doc="What the process may take")
    status: Status = section(Status, doc="Metrics and health")
    grace_period: Duration = option(
        10.0, doc="How long a stop may take to send what is left", minimum=0.1
    )
    log: LogSettings = section(LogSettings, doc="The daemon's own log", live=True)
