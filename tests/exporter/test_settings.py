import pytest

from flowvis.errors import SettingsError
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime.settings import effective, load
from flowvis.transport.address import CollectorAddress


def read(text: str, **env: str) -> ExporterSettings:
    return load(ExporterSettings, text.encode(), env)


def test_defaults() -> None:
    settings = read("")
    exported = settings.flow_exporter
    assert exported.enable
    assert exported.flow_collector_addr == CollectorAddress("flow-aggregator/flow-aggregator")
    assert (exported.flow_poll_interval, exported.active_ms, exported.idle_ms) == (
        5,
        60_000,
        15_000,
    )
    assert exported.protocol_filter is None
    assert settings.conntrack.events
    assert settings.conntrack.zones == ()


def test_antreas_section_is_taken_as_it_is() -> None:
    settings = read(
        """
        flowExporter:
          enable: true
          flowCollectorAddr: "flow-aggregator/flow-aggregator:4739:tls"
          flowPollInterval: "5s"
          activeFlowExportTimeout: "5s"
          idleFlowExportTimeout: "15s"
          protocolFilter: [TCP, udp]
        """
    )
    assert settings.flow_exporter.protocol_filter == ("tcp", "udp")
    assert settings.flow_exporter.active_ms == 5000


def test_an_old_release_of_the_collector() -> None:
    settings = read("flowExporter: {antreaVersion: 'v1.10.3'}")
    assert str(settings.flow_exporter.antrea_version) == "1.10"
    assert read(effective(settings)) == settings
    assert read("flowExporter: {antreaVersion: ''}").flow_exporter.antrea_version is None


def test_timeouts_are_at_least_the_poll_interval() -> None:
    exported = read(
        "flowExporter: {flowPollInterval: 20s, activeFlowExportTimeout: 1s}"
    ).flow_exporter
    assert (exported.active_ms, exported.idle_ms) == (20_000, 20_000)


def test_an_empty_filter_is_not_no_filter() -> None:
    assert read("flowExporter: {protocolFilter: []}").flow_exporter.protocol_filter == ()
    assert read("flowExporter: {protocolFilter:}").flow_exporter.protocol_filter is None


def test_the_nodes_name_comes_from_the_environment() -> None:
    assert read("nodeName: a", NODE_NAME="b").node_name == "b"


def test_what_effective_prints_is_read_as_the_same() -> None:
    settings = read(
        "{conntrack: {zones: [1, 2]}, inventory: {files: [a.yaml], podCIDRs: [10.0.0.0/8]}}"
    )
    assert read(effective(settings)) == settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("flowExporter: {flowPollInterval: 50ms}", "at least 100ms"),
        ("flowExporter: {flowPollInterval: 5}", "a duration"),
        ("flowExporter: {protocolFilter: [gre]}", "tcp, udp, sctp, icmp, icmpv6"),
        ("flowExporter: {flowCollectorAddr: 'a:b'}", "port 'b'"),
        ("flowExporter: {flowCollectorAddr: 'a:1:grpc'}", "use tls, tcp, udp"),
        ("flowExporter: {pendingRecords: 1}", "at least 10000"),
        ("flowExporter: {antreaVersion: 2.2}", "a release such as '2.2', in quotes"),
        ("flowExporter: {antreaVersion: v0.11.1}", "is older than 0.12"),
        ("flowExporter: {maxConnections: 16777217}", "at most 16777216"),
        ("flowExporter: {maxConnection: 1}", "did you mean maxConnections"),
        ("conntrack: {zones: [65536]}", "from 0 to 65535"),
        ("inventory: {podCIDRs: [10.0.0.1/8]}", "has host bits set"),
        ("tls: {minVersion: SSLv3}", "VersionTLS12, VersionTLS13"),
        ("tls: {caConfigMap: flow-aggregator-ca}", "write <namespace>/<name>"),
        ("tls: {clientSecret: a/B}", "write <namespace>/<name>"),
    ],
)
def test_problems_are_named(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read(text)


def test_denied_connections() -> None:
    settings = read(
        """
        denied:
          nflogGroups: [100, 5]
          auditLog: /var/log/antrea/networkpolicy/np.log
          prefixes: [kube-router, "(?P<action>[a-z]+) .*"]
        """
    )
    assert settings.denied.wanted
    assert settings.denied.nflog_groups == (100, 5)
    assert settings.denied.prefixes == ("kube-router", "(?P<action>[a-z]+) .*")
    assert not read("").denied.wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nflogGroups: [5, 5]", r"denied.nflogGroups: \[5, 5\]: name each group once"),
        ("nflogGroups: [65536]", "denied.nflogGroups"),
        ("prefixes: ['a(b']", "denied.prefixes.*use flowvis, calico, kube-router or a regular"),
        ("maxConnections: 16777217", "denied.maxConnections: 16777217: at most 16777216"),
    ],
)
def test_denied_connections_that_cannot_be(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read(f"denied: {{{text}}}")
