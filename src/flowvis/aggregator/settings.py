"""The flow-aggregator's configuration, under Antrea's option names, and ours beside them.

Options of parts that do not exist yet are taken in their documented form while they are off, so
that an Antrea configuration loads as it is; switching one on is an error that says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flowvis.aggregator.api.settings import ApiSettings
from flowvis.aggregator.certificates.authority import Names
from flowvis.aggregator.destinations.kind import CERTIFICATES, Problems
from flowvis.aggregator.destinations.settings import FlowStreamService
from flowvis.aggregator.destinations.table import DestinationSettings
from flowvis.aggregator.network_names import NamedNetwork
from flowvis.aggregator.network_names import problems as network_problems
from flowvis.aggregator.older import from_antrea
from flowvis.inventory.settings import Enable, KubernetesSettings
from flowvis.runtime.memory import ByteSize, MemorySettings
from flowvis.runtime.sections import LogSettings, StatusSettings
from flowvis.runtime.settings import Duration, option, section
from flowvis.transport.address import parse_host
from flowvis.transport.tls import VERSIONS


class Mode(Enum):
    """What the aggregator makes of what it receives."""

    AGGREGATE = "Aggregate"
    PROXY = "Proxy"


class Transport(Enum):
    """How exporters reach it."""

    TLS = "TLS"
    TCP = "TCP"
    UDP = "UDP"
    NONE = "none"


@dataclass(frozen=True)
class ServerTls:
    """The certificate files of the listening side; read again when they change."""

    ca: Path = option(
        CERTIFICATES / "ca.crt", doc="The CA that exporters' certificates must come from (PEM)"
    )
    certificate: Path = option(CERTIFICATES / "tls.crt", doc="The aggregator's certificate (PEM)")
    key: Path = option(CERTIFICATES / "tls.key", doc="Its private key (PEM)")
    min_version: str = option(
        "VersionTLS12", doc="The oldest version of TLS", choices=tuple(VERSIONS)
    )


@dataclass(frozen=True)
class CertificateSettings:
    """The cluster's certificates, where the aggregator makes them."""

    issue: bool = option(
        False,
        doc="Make the CA, the exporters' certificate and one's own, and keep them in the API; "
        "`tls.ca`, `tls.certificate` and `tls.key` then say where to put one's own",
        in_pod=True,
    )
    namespace: str = option(
        "",
        doc="Where the objects and the Service are; by default the Pod's namespace "
        "(POD_NAMESPACE), else flow-aggregator",
    )
    service: str = option(
        "flow-aggregator", doc="The Service that exporters connect to: names in the certificate"
    )
    ca_secret: str = option(
        Names.ca_secret, doc="The Secret with the CA and its key, for all replicas"
    )
    ca_config_map: str = option(Names.ca_config_map, doc="The ConfigMap with ca.crt, for exporters")
    client_secret: str = option(
        Names.client_secret, doc="The Secret with the exporters' certificate"
    )
    check_interval: Duration = option(
        30.0,
        doc="How often the objects are looked at: one that was deleted or broken is whole again "
        "by then",
        minimum=1,
    )

    def names(self, env: Mapping[str, str]) -> Names:
        """Return where the objects are."""
        namespace = self.namespace or env.get("POD_NAMESPACE") or Names.namespace
        return Names(namespace, self.ca_secret, self.ca_config_map, self.client_secret)


@dataclass(frozen=True)
class LeaseSettings:
    """The Lease by which one replica receives at a time."""

    enable: Enable = option(
        Enable.AUTO,
        doc="Whether a replica receives only while the Lease is its own; auto: in a Pod (POD_NAME "
        "is set) that asks the API server",
    )
    name: str = option(
        "", doc="The Lease, in certificates.namespace; by default as certificates.service"
    )
    duration: Duration = option(
        15.0,
        doc="How long after its last sign of life a replica that died still has it; it is renewed "
        "three times as often",
        minimum=3,
        maximum=300,
    )

    def wanted(self, kubernetes: bool, env: Mapping[str, str]) -> bool:
        """Whether there is one; `kubernetes` says whether the API server is asked."""
        if self.enable is Enable.AUTO:
            return kubernetes and bool(env.get("POD_NAME"))
        return self.enable is Enable.TRUE


@dataclass(frozen=True)
class RecordContents:
    """What the aggregator adds to records."""

    pod_labels: bool = option(
        False, doc="Add sourcePodLabels and destinationPodLabels, as JSON objects", in_pod=True
    )


@dataclass(frozen=True)
class AggregatorInventory:
    """What Kubernetes says, from files or from the API server."""

    files: tuple[Path, ...] = option(
        (),
        doc="Files or directories with the output of `kubectl get pods,services,nodes,namespaces "
        "-A -o yaml`; read again when they change",
    )
    kubernetes: KubernetesSettings = section(KubernetesSettings, doc="The API server")


@dataclass(frozen=True)
class UdpListen:
    """What is particular where exporters come over UDP."""

    receive_buffer: int = option(
        16_384,
        doc="KiB of datagrams that the kernel holds while the aggregator is busy; more than the "
        "sysctl net.core.rmem_max need CAP_NET_ADMIN",
        minimum=64,
        maximum=1 << 20,
    )
    max_datagrams_per_second: int = option(
        20_000,  # a node's exporter sends a tenth of it
        doc="Datagrams taken from one address in a second; raise it where many exporters share one "
        "(NAT)",
        minimum=1,
    )
    template_lifetime: Duration = option(
        1800.0,
        doc="How long a template is valid after it came last: three times the interval in which "
        "exporters send theirs anew (RFC 7011 section 8.4). A session that is silent for so long "
        "is over",
        minimum=10,
    )


@dataclass(frozen=True)
class Listen:
    """Where exporters connect."""

    address: str = option("::", doc="Local address; `::` takes IPv4 as well")
    port: int = option(4739, doc="Local port; 0: any free one", minimum=0, maximum=65535)
    max_sessions: int = option(
        10_000,  # twice the nodes that Kubernetes supports in one cluster
        doc="Sessions at one time; of those that sent no records the oldest give way to new ones, "
        "then more are refused",
        minimum=1,
        live=True,
    )
    max_sessions_per_address: int | None = option(
        None,
        doc="Sessions from one address at one time, by default half of maxSessions; raise it where "
        "more nodes than that share one address (NAT)",
        minimum=1,
        live=True,
    )
    max_session_age: Duration = option(
        3600.0,
        doc="How long a session may last; then the exporter is asked to finish (FIN) and begins "
        "another, in which both show the certificates that they have by then. Nothing is lost by "
        "it; 0: for ever. Not over UDP",
        minimum=0,
    )
    udp: UdpListen = section(UdpListen, doc="Where aggregatorTransportProtocol is UDP")


@dataclass(frozen=True)
class CheckpointSettings:
    """How an aggregator without a store knows what the one before has delivered."""

    directory: Path | None = option(
        None,
        doc="Where it is kept what was delivered of each connection, so that an aggregator that "
        "was killed tells nothing twice to collectors, files and buckets. A directory of its own, "
        "for one aggregator at a time; not used where clickHouse.enable is set, as the store "
        "itself says it. By default: nowhere",
    )
    max_bytes: ByteSize = option(
        ByteSize(256 << 20),
        doc="Most bytes of it: 256Mi are 400,000 connections of the last two hours, after which "
        "the ones that ended first are given up; its index takes 6 % of that in memory",
        parse=ByteSize.parse,
        takes="a size such as 512Mi or 2Gi",
    )


@dataclass(frozen=True)
class Status(StatusSettings):
    """Metrics and health over HTTP."""

    port: int = option(9739, doc="Local port; 0: any free one", minimum=0, maximum=65535)


@dataclass(frozen=True)
class AggregatorSettings(DestinationSettings):
    """All that flow-aggregator can be told."""

    older = staticmethod(from_antrea)

    mode: Mode = option(Mode.AGGREGATE, doc="Proxy is not supported yet")
    active_flow_record_timeout: Duration = option(
        60.0, doc="How often a flow with new data is written", minimum=0.1, live=True
    )
    inactive_flow_record_timeout: Duration = option(
        90.0, doc="How long a flow without new data is kept", minimum=0.1, live=True
    )
    correlation_timeout: Duration | None = option(
        None,
        doc="How long the first half of a connection waits for the other node's; then it is "
        "written as it is. By default inactiveFlowRecordTimeout",
        minimum=0,
        live=True,
    )
    aggregator_transport_protocol: Transport = option(
        Transport.TLS,
        doc="How exporters connect: TLS (mutual), TCP or UDP. Only with TLS does anybody prove who "
        "it is; over UDP what is lost on the way is lost, and counted by the sequence numbers",
    )
    flow_aggregator_address: str = option(
        "",
        parse=parse_host,
        takes="a name or address",
        doc="One more name or address in the certificate that the aggregator issues to itself "
        "(certificates.issue)",
    )
    record_contents: RecordContents = section(
        RecordContents, doc="What is added to records", live=True
    )
    api_server: ApiSettings = section(ApiSettings, doc="The HTTP API and the console")
    record_buffer_size: int = option(
        8192, doc="How many of the latest records `flowctl flows` can show", minimum=1
    )
    flow_stream_service: FlowStreamService = section(FlowStreamService, doc="Flows over gRPC")
    cluster_id: str = option(
        "",
        doc="clusterId of all records, clusterUUID in ClickHouse; by default Antrea's (the "
        "ConfigMap kube-system/antrea-cluster-identity), else the UID of the namespace kube-system",
        live=True,
    )
    listen: Listen = section(Listen, doc="Where exporters connect")
    tls: ServerTls = section(ServerTls, doc="Certificates of the listening side")
    certificates: CertificateSettings = section(
        CertificateSettings, doc="Certificates that the aggregator makes"
    )
    lease: LeaseSettings = section(LeaseSettings, doc="One replica receives at a time")
    networks: tuple[NamedNetwork, ...] = option(
        (),
        doc="Names of networks outside of the cluster, by which filters, questions and the map "
        "call their addresses; they are applied when somebody asks, to what is stored as well",
        live=True,
    )
    inventory: AggregatorInventory = section(AggregatorInventory, doc="Pods, Services and Nodes")
    max_flows: int = option(
        1_000_000,  # 680 MB when full
        doc="Live flows, as far as memory.limit has room for them; at more, the ones idle longest "
        "are written out and forgotten",
        minimum=1,
    )
    memory: MemorySettings = section(MemorySettings, doc="What the process may take")
    quarantine_directory: Path | None = option(
        None,
        doc="Where records are written whose handling fails by a defect of ours, to reproduce it: "
        "at most 16 files of 1000 records. By default only the log says of them",
    )
    checkpoint: CheckpointSettings = section(
        CheckpointSettings, doc="What was delivered, where no store is"
    )
    status: Status = section(Status, doc="Metrics and health")
    control_socket: Path | None = option(
        None,
        doc="The UNIX socket that flowctl uses, for its owner only. By default "
        "flow-aggregator.sock in $XDG_RUNTIME_DIR, else in /run/flowvis",
    )
    grace_period: Duration = option(
        25.0, doc="How long a stop may take to drain and flush", minimum=0.1
    )
    log: LogSettings = section(LogSettings, doc="The daemon's own log", live=True)

    def check(self) -> Problems:
        """Yield what does not go together, or does not exist yet."""
        yield from super().check()
        if self.mode is Mode.PROXY:
            yield "mode", "Proxy is not supported yet: use Aggregate"
        if self.aggregator_transport_protocol is Transport.NONE:
            yield "aggregatorTransportProtocol", "none is not supported yet: use TLS, TCP or UDP"
        yield from network_problems(self.networks)
        api = self.api_server
        kubernetes = self.inventory.kubernetes.wanted(self.inventory.files)
        if api.wanted(kubernetes=kubernetes) and not kubernetes and api.token_file is None:
            yield "apiServer.enable", "nobody says who asks: name a tokenFile, or an API server"
