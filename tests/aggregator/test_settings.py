from ipaddress import ip_address

import pytest
import yaml
from cryptography import x509

from flowvis.aggregator.network_names import network_names
from flowvis.aggregator.settings import AggregatorSettings, Mode, Transport
from flowvis.errors import SettingsError
from flowvis.fields import AGGREGATED
from flowvis.ipfix.exporter import least_message
from flowvis.runtime.settings import load
from flowvis.transport.certificates import issue_ca, issue_server

ANTREA = b"""
mode: Aggregate
activeFlowRecordTimeout: 60s
inactiveFlowRecordTimeout: 90s
aggregatorTransportProtocol: "TLS"
flowAggregatorAddress: ""
recordContents:
  podLabels: false
apiServer:
  apiPort: 10348
  tlsCipherSuites: ""
  tlsMinVersion: ""
flowCollector:
  enable: false
  address: ""
  #observationDomainID:
  recordFormat: "IPFIX"
  templateRefreshTimeout: "600s"
  maxIPFIXMsgSize: 0
  tls:
    enable: false
    caSecretName: ""
    serverName: ""
    clientSecretName: ""
    minVersion: ""
  includeK8sNames: true
  includeK8sUIDs: false
clickHouse:
  enable: false
  database: "default"
  databaseURL: "tcp://clickhouse-clickhouse.flow-visibility.svc:9000"
  tls:
    insecureSkipVerify: false
    caCert: false
  debug: false
  compress: true
  commitInterval: "8s"
s3Uploader:
  enable: false
  bucketName: ""
  bucketPrefix: ""
  region: "us-west-2"
  recordFormat: "CSV"
  compress: true
  maxRecordsPerFile: 1000000
  uploadInterval: "60s"
flowLogger:
  enable: false
  path: "/tmp/antrea-flows.log"
  maxSize: 100
  maxBackups: 3
  maxAge: 0
  compress: true
  recordFormat: "CSV"
  prettyPrint: true
  filters: []
recordBufferSize: 8192
flowStreamService:
  enable: false
clusterID: ""
"""


def test_a_configuration_of_antrea_loads_and_says_what_the_defaults_are() -> None:
    assert load(AggregatorSettings, ANTREA, {}) == load(AggregatorSettings, b"", {})


def test_values_arrive_where_they_belong() -> None:
    settings = load(
        AggregatorSettings,
        b"""
aggregatorTransportProtocol: tcp
activeFlowRecordTimeout: 1m30s
clusterID: east
clickHouse: {enable: true, databaseURL: "embedded:///data", commitInterval: 1s, ttl: 1h}
flowCollector: {enable: true, address: "[::1]:4740:tls", observationDomainID: 7}
""",
        {"CH_USERNAME": "reader", "CH_PASSWORD": "secret"},
    )
    assert settings.mode is Mode.AGGREGATE
    assert settings.aggregator_transport_protocol is Transport.TCP
    assert settings.active_flow_record_timeout == 90
    assert settings.cluster_id == "east"
    assert settings.click_house.ttl == 3600
    assert (settings.click_house.username, settings.click_house.password) == ("reader", "secret")
    address = settings.flow_collector.address
    assert address is not None
    assert (address.host, address.port, address.protocol) == ("::1", 4740, "tls")
    assert settings.flow_collector.observation_domain_id == 7


def test_an_address_without_a_protocol_is_tcp() -> None:
    document = b"flowCollector: {enable: true, address: collector.example}"
    address = load(AggregatorSettings, document, {}).flow_collector.address
    assert address is not None
    assert (address.port, address.protocol) == (4739, "tcp")


LEAST = least_message(AGGREGATED)
SIZES = f"0, or {LEAST} (what a template takes) to 65535"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_least_message_follows_from_the_template(enabled: bool) -> None:
    def document(size: int, release: str = "") -> bytes:
        lines = f"maxIPFIXMsgSize: {size}\n  antreaVersion: '{release}'\n  enable: {enabled}"
        return f"flowCollector:\n  {lines}\n  address: collector".encode()

    assert load(AggregatorSettings, document(LEAST), {}).flow_collector.fields == AGGREGATED
    old = load(AggregatorSettings, document(LEAST - 1, "1.5"), {}).flow_collector
    assert len(old.fields) < len(AGGREGATED)
    least = least_message(old.fields)
    load(AggregatorSettings, document(least, "1.5"), {})
    with pytest.raises(SettingsError, match=f"maxIPFIXMsgSize: {least - 1}: 0, or {least} "):
        load(AggregatorSettings, document(least - 1, "1.5"), {})


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("mode: Proxy", "mode: Proxy is not supported yet"),
        ("mode: Sum", "mode: 'Sum'"),
        ("aggregatorTransportProtocol: none", "aggregatorTransportProtocol: none is not"),
        ("flowCollector: {enable: true}", "flowCollector.address: is needed"),
        ("flowCollector: {address: 'a:b'}", "flowCollector.address: 'a:b'"),
        (
            "flowCollector: {address: 'a:1:udp', tls: {enable: true}}",
            "flowCollector.tls.enable: TLS is over tcp",
        ),
        ("flowCollectors: [{name: a}]", "flowCollectors[0].address: is needed"),
        ("flowCollectors: [{address: a}]", "flowCollectors[0].name: ''"),
        ("flowCollectors: [{address: a, name: A b}]", "flowCollectors[0].name: 'A b'"),
        (
            "flowCollectors: [{address: a, name: x}, {address: b, name: y}, {address: c, name: x}]",
            "flowCollectors: 2 are called 'x'",
        ),
        ("flowCollector: {maxIPFIXMsgSize: 100}", f"flowCollector.maxIPFIXMsgSize: 100: {SIZES}"),
        (
            f"flowCollector: {{maxIPFIXMsgSize: {LEAST - 1}}}",
            f"flowCollector.maxIPFIXMsgSize: {LEAST - 1}: {SIZES}",
        ),
        ("flowCollector: {antreaVersion: 2.2}", "flowCollector.antreaVersion: 2.2 is not"),
        ("flowCollector: {antreaVersion: next}", "flowCollector.antreaVersion: 'next' is no rel"),
        ("s3Uploader: {enable: true}", "s3Uploader.bucketName: is needed"),
        ("s3Uploader: {endpoint: minio}", "s3Uploader.endpoint: 'minio'"),
        (
            "s3Uploader: {endpoint: 'http://[fd00::1'}",
            "s3Uploader.endpoint: 'http://[fd00::1': no URL",
        ),
        ("s3Uploader: {endpoint: 'http://a..b'}", "s3Uploader.endpoint: 'http://a..b': no URL"),
        ("s3Uploader: {endpoint: 'http://a:99999'}", "s3Uploader.endpoint: 'http://a:99999': no"),
        ("s3Uploader: {endpoint: 'https:///b'}", "s3Uploader.endpoint: 'https:///b': no URL"),
        ("kafka: {brokers: ['a..b:9092']}", "kafka.brokers[0]: 'a..b:9092' is no broker"),
        ("s3Uploader: {accessKeyID: a}", "s3Uploader.accessKeyID: goes with"),
        ("flowLogger: {enable: true, path: flows}", "flowLogger.path: 'flows' is not absolute"),
        (
            "flowLogger: {filters: [{ingressNetworkPolicyRuleActions: [Deny]}]}",
            "flowLogger.filters[0].ingressNetworkPolicyRuleActions",
        ),
        ("flowStreamService: {enable: true}", "flowStreamService.enable: the flow stream service"),
        ("clickHouse: {commitInterval: 100ms}", "clickHouse.commitInterval: '100ms'"),
        ("clickHouse: {ttl: 876000h}", "clickHouse.ttl: '876000h' is not allowed here: a duration"),
        ("clickHouse: {minutes: {ttl: 876000h}}", "clickHouse.minutes.ttl: '876000h'"),
        ("clickHouse: {hours: {ttl: 876000h}}", "clickHouse.hours.ttl: '876000h'"),
        ("clickhouse: {enable: true}", "clickhouse: unknown key; did you mean clickHouse?"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(document: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(AggregatorSettings, document.encode(), {})
    assert [line for line in caught.value.problems if line.startswith(problem)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[fd00::5]", x509.IPAddress(ip_address("fd00::5"))),
        ("[fd00:0:0::5]:4739:tls", x509.IPAddress(ip_address("fd00::5"))),
        ("fd00::5", x509.IPAddress(ip_address("fd00::5"))),
        ("192.0.2.5", x509.IPAddress(ip_address("192.0.2.5"))),
        ("flows.example:4739", x509.DNSName("flows.example")),
    ],
)
def test_the_certificate_is_for_the_address_that_exporters_use(
    text: str, named: x509.GeneralName
) -> None:
    settings = load(
        AggregatorSettings, yaml.safe_dump({"flowAggregatorAddress": text}).encode(), {}
    )
    issued = issue_server(issue_ca(), ["x", settings.flow_aggregator_address])
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName("x"), named]


def test_an_address_that_no_certificate_can_have_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"^flowAggregatorAddress: '\[web\]' has 'web' in brackets"
    ):
        load(AggregatorSettings, b"flowAggregatorAddress: '[web]'", {})


@pytest.mark.parametrize(
    ("networks", "problem"),
    [
        ([{"cidrs": ["203.0.113.0/24"]}], "networks[0].name: '': 1 to 63 letters"),
        ([{"name": "it's", "cidrs": ["::/0"]}], 'networks[0].name: "it\'s": 1 to 63 letters'),
        ([{"name": "a"}], "networks[0].cidrs: is empty"),
        ([{"name": "a", "cidrs": ["::/0", "10.1/8"]}], "networks[0].cidrs[1]: '10.1/8' is no"),
        (2 * [{"name": "a", "cidrs": ["::/0"]}], "networks[1].name: 'a' is there already"),
        (
            [{"name": name, "cidrs": ["10.0.0.1/8"]} for name in "ab"],
            "networks[1].cidrs: 10.0.0.0/8 is of 'a' already",
        ),
        (
            [{"name": "a", "cidrs": [f"2001:db8:0:{n:x}::/64" for n in range(4500)]}],
            "networks: 4500 take ",
        ),
    ],
)
def test_names_of_networks(networks: list[dict[str, object]], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(AggregatorSettings, yaml.safe_dump({"networks": networks}).encode(), {})
    (found,) = caught.value.problems
    assert found.startswith(problem)


def test_thousands_of_networks_are_taken() -> None:
    cidrs = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(4000)]
    document = yaml.safe_dump({"networks": [{"name": "all", "cidrs": cidrs}]}).encode()
    assert len(network_names(load(AggregatorSettings, document, {}).networks).names) == 2
