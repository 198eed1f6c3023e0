import pytest

from flowvis.transport.address import CollectorAddress, parse_collector_address, parse_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("collector", CollectorAddress("collector", 4739, "tls")),
        ("collector:1234", CollectorAddress("collector", 1234, "tls")),
        ("collector:1234:tcp", CollectorAddress("collector", 1234, "tcp")),
        ("collector:1234:udp", CollectorAddress("collector", 1234, "udp")),
        ("collector:1234:TLS", CollectorAddress("collector", 1234, "tls")),
        ("collector::tcp", CollectorAddress("collector", 4739, "tcp")),
        ("10.0.0.1:1", CollectorAddress("10.0.0.1", 1, "tls")),
        ("[fd00::1]", CollectorAddress("fd00::1", 4739, "tls")),
        ("[fd00::1]:65535", CollectorAddress("fd00::1", 65535, "tls")),
        ("[fd00:0::1]:1:tcp", CollectorAddress("fd00::1", 1, "tcp")),
        (
            "flow-aggregator/flow-aggregator",
            CollectorAddress("flow-aggregator/flow-aggregator", 4739, "tls"),
        ),
    ],
)
def test_forms(text: str, address: CollectorAddress) -> None:
    assert parse_collector_address(text) == address
    assert parse_collector_address(str(address)) == address


def test_default_protocol_of_external_collectors() -> None:
    assert parse_collector_address("a:1", default_protocol="tcp").protocol == "tcp"


def test_a_service_is_resolved_by_its_cluster_name() -> None:
    assert parse_collector_address("ns/svc:1").dns_name == "svc.ns.svc"
    assert parse_collector_address("host:1").dns_name == "host"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no host"),
        (":4739", "names no host"),
        ("a/b/c", "names no host"),
        ("/b", "names no host"),
        (" a", "names no host"),
        ("flows..svc:4739", "which is no name: one of its labels is empty or too long"),
        (".a", "which is no name"),
        (f"{'a' * 64}.example", "which is no name"),
        ("a\0b:4739", "which is no name"),
        ("a./b", "has 'a./b', which is no name"),
        ("a:0", "has port '0'"),
        ("a:65536", "has port '65536'"),
        ("a:9999999999", "has port"),
        ("a:x", "has port 'x'"),
        ("a:²", "has port"),
        ("a:1:grpc", "is over grpc, which is not supported: use tls, tcp, udp"),
        ("a:1:quic", "is over 'quic'"),
        ("a:1:tls:x", "is not a collector address"),
        ("fd00::1", "is an IPv6 address without brackets: write [fd00::1]"),
        ("[fd00::1", "is not a collector address"),
        ("[fd00::1]4739", "is not a collector address"),
        ("[10.0.0.1]:1", "no IPv6 address"),
        ("10.0.0.256", "has '10.0.0.256', which is no IPv4 address"),
        ("192.168.010.001:4739", "which is no IPv4 address"),  # 192.168.8.1 to some resolvers
        ("10.1", "which is no IPv4 address"),
        ("flows..example:4739", "has 'flows..example', which is no name"),
        (".example", "which is no name"),
        ("n" * 64, "one of its labels is empty or too long"),
        ("a/" + "n" * 64, "one of its labels is empty or too long"),
        ("\u00fc" * 70, "one of its labels is empty or too long"),
        ("a\x00b", "which is no name"),
    ],
)
def test_what_is_no_address(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|names) ") as caught:
        parse_collector_address(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("", ""),
        ("fd00::1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("[FD00:0::1]:4739:tls", "fd00::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4739:udp", "192.0.2.7"),
        ("flows.example", "flows.example"),
        ("flow-aggregator/web:4739", "web.flow-aggregator.svc"),
    ],
)
def test_whom_a_certificate_is_for(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["a..b:1", "a..b", "n" * 64, "[fd00::1", "[web]", "192.0.2.300", "a/b/c", " "]
)
def test_whom_no_certificate_can_be_for(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|names) "):
        parse_host(text)
