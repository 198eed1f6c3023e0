"""Where aggregated records go: the part of the configuration that names destinations."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flowvis.clickhouse.store import target_problems
from flowvis.fields import AGGREGATED, Field
from flowvis.ipfix.exporter import least_message
from flowvis.ipfix.receivers import AntreaRelease, parse_release, understood
from flowvis.runtime.settings import Duration, option, section
from flowvis.transport.address import CollectorAddress, parse_collector_address, parse_host
from flowvis.transport.tls import VERSIONS

Problems = Iterator[tuple[str, str]]

CERTIFICATES = Path("/etc/flow-aggregator/certs")


class RecordFormat(Enum):
    """What a collector is sent."""

    IPFIX = "IPFIX"
    JSON = "JSON"


class FileFormat(Enum):
    """What a file is made of."""

    CSV = "CSV"


def later(enabled: bool, what: str) -> Problems:
    """Yield the problem of an option that switches on what does not exist yet."""
    if enabled:
        yield "enable", f"{what} is not supported yet: leave it false"


def collector_address(text: str) -> CollectorAddress:
    """Read `flowCollector.address`, whose protocol is tcp unless it says otherwise."""
    return parse_collector_address(text, default_protocol="tcp")


@dataclass(frozen=True)
class CollectorTls:
    """TLS towards the external collector, from files in one directory."""

    enable: bool = option(False, doc="TLS over tcp; the same as the protocol tls in the address")
    ca_secret_name: str = option(
        "", doc="The Secret that `directory` holds ca.crt of; empty: the system's CAs"
    )
    server_name: str = option(
        "",
        parse=parse_host,
        takes="a name or address",
        doc="The name in the collector's certificate; empty: the host",
    )
    client_secret_name: str = option(
        "", doc="The Secret that `directory` holds tls.crt and tls.key of; empty: no certificate"
    )
    min_version: str = option(
        "",
        doc="The oldest TLS to speak; empty: VersionTLS12",
        choices=("", *VERSIONS),
    )
    directory: Path = option(
        CERTIFICATES / "flow-collector", doc="Where ca.crt, tls.crt and tls.key are"
    )


@dataclass(frozen=True)
class FlowCollector:
    """An external IPFIX collector."""

    enable: bool = option(False, doc="Whether aggregated records go to an IPFIX collector")
    address: CollectorAddress | None = option(
        None,
        doc="`host`, `host:port` or `host:port:protocol`; port 4739 and tcp by default",
        parse=collector_address,
    )
    observation_domain_id: int | None = option(
        None,
        doc="Observation domain of the records; by default a hash (FNV-1) of the cluster's ID",
        minimum=0,
        maximum=0xFFFFFFFF,
    )
    record_format: RecordFormat = option(RecordFormat.IPFIX, doc="JSON is not supported yet")
    template_refresh_timeout: Duration = option(
        600.0, doc="How often templates go out anew over UDP: not supported yet", minimum=0
    )
    antrea_version: AntreaRelease | None = option(
        None,
        doc="The release of Antrea that the collector is built like, where it is older than 2.3 "
        "(go-ipfix up to 0.11): such a one ends the session at elements that it does not know, so "
        "it gets only those that it does. Empty: all elements",
        parse=parse_release,
        takes="a release such as '2.2', in quotes",
    )
    max_ipfix_msg_size: int = option(
        0,
        doc=f"Largest message in bytes: what a template takes ({least_message(AGGREGATED)}) to "
        "65535; 0: 65535",
        minimum=0,
        maximum=65535,
    )
    tls: CollectorTls = section(CollectorTls, doc="TLS towards the collector")
    include_k8s_names: bool = option(
        True, doc="Names of Kubernetes objects; false is not supported yet", key="includeK8sNames"
    )
    include_k8s_uids: bool = option(
        False, doc="UIDs of Kubernetes objects; true is not supported yet", key="includeK8sUIDs"
    )
    max_pending_records: int = option(
        262_144,  # some 700 bytes each: 180 MB
        doc="Records that wait while the collector is away or slow; then the oldest are dropped",
        minimum=1,
    )

    def check(self) -> Problems:
        """Yield what does not go together, or does not exist yet."""
        if self.enable and self.address is None:
            yield "address", "is needed when flowCollector.enable is true"
        if self.enable and self.address is not None and self.address.protocol == "udp":
            yield "address", "is over udp, which is not supported yet: use tcp or tls"
        least = least_message(self.fields)
        if 0 < self.max_ipfix_msg_size < least:
            problem = f"{self.max_ipfix_msg_size}: 0, or {least} (what a template takes) to 65535"
            yield "maxIPFIXMsgSize", problem
        if self.record_format is not RecordFormat.IPFIX:
            yield "recordFormat", f"{self.record_format.value} is not supported yet: use IPFIX"
        if not self.include_k8s_names:
            yield "includeK8sNames", "false is not supported yet: leave it true"
        if self.include_k8s_uids:
            yield "includeK8sUIDs", "true is not supported yet: leave it false"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that the collector is sent."""
        return understood(AGGREGATED, self.antrea_version)


@dataclass(frozen=True)
class ClickHouseTls:
    """TLS towards the ClickHouse server."""

    insecure_skip_verify: bool = option(False, doc="Take any certificate: for tests only")
    ca_cert: bool = option(False, doc="Verify the server by `caFile` instead of the system's CAs")
    ca_file: Path = option(
        CERTIFICATES / "clickhouse" / "ca.crt", doc="The CA of the server's certificate (PEM)"
    )


@dataclass(frozen=True)
class Queries:
    """What people ask of the store, by questions and by SQL."""

    username: str = option(
        "",
        doc="The server's user for queries: one that only reads the database, with `readonly` 2, "
        "or 1 and limits in its profile. Empty: the user that writes, who is made read-only for "
        "each query",
        env="CH_QUERY_USERNAME",
    )
    password: str = option("", doc="That user's password", env="CH_QUERY_PASSWORD", secret=True)
    max_concurrent: int = option(
        2,
        doc="Queries that run at once. Questions wait for their turn, SQL is refused",
        minimum=1,
        maximum=64,
    )
    max_memory: int = option(
        512,
        doc="Memory of one query, in MiB; one that needs more fails. Of an embedded store, all "
        "queries together have 15 % of `memory.limit` at the most",
        key="maxMemoryMiB",
        minimum=16,
        maximum=1 << 20,
    )
    max_duration: Duration = option(
        60.0, doc="How long a query may take, with the reading of its answer", minimum=1
    )
    max_threads: int = option(2, doc="Threads of one query", minimum=1, maximum=256)
    max_rows_read: int = option(
        2_000_000_000,
        doc="Records that one query may read; one that needs more is refused before it begins, "
        "where the engine can tell. 0: as many as there are",
        minimum=0,
        maximum=1 << 62,
    )

    def check(self) -> Problems:
        """Yield the problem of a password of nobody."""
        if self.password and not self.username:
            yield "username", "is needed where clickHouse.queries.password is set"


@dataclass(frozen=True)
class ClickHouse:
    """The store."""

    enable: bool = option(False, doc="Whether records go to ClickHouse")
    database: str = option("default", doc="The database; created where it is missing")
    database_url: str = option(
        "tcp://clickhouse-clickhouse.flow-visibility.svc:9000",
        doc="`tcp://host:port` or `tls://host:port` (native protocol), or `embedded:///directory` "
        "for ClickHouse inside the aggregator",
    )
    cluster: str = option(
        "",
        doc="The cluster, as the servers' `remote_servers` names it, for replicated tables on all "
        "of its servers; empty: one server",
    )
    username: str = option("default", doc="The user", env="CH_USERNAME")
    password: str = option("", doc="The user's password", env="CH_PASSWORD", secret=True)
    queries: Queries = section(Queries, doc="What people ask, by `flowctl sql`")
    tls: ClickHouseTls = section(ClickHouseTls, doc="TLS towards the server")
    debug: bool = option(False, doc="Log each commit")
    compress: bool = option(True, doc="LZ4 between the aggregator and the server")
    commit_interval: Duration = option(8.0, doc="How often records are written", minimum=1)
    ttl: Duration = option(
        12 * 3600.0, doc="How long the store keeps records; 0: for ever", minimum=0
    )
    max_pending_records: int = option(
        524_288,  # Antrea's number; some 700 bytes each
        doc="Records that wait while the store is away or slow; then the oldest are dropped",
        minimum=1,
    )

    def check(self) -> Problems:
        """Yield what is wrong with where the store is, if there is to be one."""
        if self.enable:
            yield from target_problems(self.database_url, self.database, self.cluster)


@dataclass(frozen=True)
class S3Uploader:
    """Antrea's upload to S3: not built yet."""

    enable: bool = option(False, doc="Not supported yet")
    bucket_name: str = option("", doc="Not used yet")
    bucket_prefix: str = option("", doc="Not used yet")
    region: str = option("us-west-2", doc="Not used yet")
    record_format: FileFormat = option(FileFormat.CSV, doc="Not used yet")
    compress: bool = option(True, doc="Not used yet")
    max_records_per_file: int = option(1_000_000, doc="Not used yet", minimum=1)
    upload_interval: Duration = option(60.0, doc="Not used yet", minimum=1)

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "uploading to S3")


@dataclass(frozen=True)
class LogFilter:
    """Which records a flow log takes."""

    ingress_network_policy_rule_actions: tuple[str, ...] = option((), doc="Not used yet")
    egress_network_policy_rule_actions: tuple[str, ...] = option((), doc="Not used yet")


@dataclass(frozen=True)
class FlowLogger:
    """Antrea's log of flows in a file: not built yet."""

    enable: bool = option(False, doc="Not supported yet")
    path: str = option("/tmp/antrea-flows.log", doc="Not used yet")  # noqa: S108  Antrea's default
    max_size: int = option(100, doc="Not used yet", minimum=0)
    max_backups: int = option(3, doc="Not used yet", minimum=0)
    max_age: int = option(0, doc="Not used yet", minimum=0)
    compress: bool = option(True, doc="Not used yet")
    record_format: FileFormat = option(FileFormat.CSV, doc="Not used yet")
    pretty_print: bool = option(True, doc="Not used yet")
    filters: tuple[LogFilter, ...] = option((), doc="Not used yet")

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "logging flows to a file")


@dataclass(frozen=True)
class FlowStreamService:
    """Antrea's gRPC stream of flows: not built yet."""

    enable: bool = option(False, doc="Not supported yet; `flowctl flows --follow` does it locally")

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "the flow stream service")
