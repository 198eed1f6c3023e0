"""Known records and known bytes, in both directions."""

from struct import pack

import pytest

from flowvis.fields import AGGREGATED, ANTREA_EXPORTED, EXPORTED, Field
from flowvis.ipfix import ExporterSession

from . import wire
from .conftest import Leaf
from .feeding import fed_in_every_manner
from .records import batch_of
from .wire import ANTREA, IANA, REVERSE, VARIABLE

NOW = 1_790_000_000

# Antrea's exporter template as (enterprise, id, length), written out from its registry.
STRING = VARIABLE
EXPORTER_TEMPLATE = {
    version: [
        *[
            (IANA, 150, 4),
            (IANA, 151, 4),
            (IANA, 136, 1),
            (IANA, 7, 2),
            (IANA, 11, 2),
            (IANA, 4, 1),
        ],
        *[(IANA, 86, 8), (IANA, 85, 8), (IANA, 2, 8), (IANA, 1, 8)],
        *[(IANA, source, size), (IANA, destination, size)],
        *[(REVERSE, 86, 8), (REVERSE, 85, 8), (REVERSE, 2, 8), (REVERSE, 1, 8)],
        *[(ANTREA, number, STRING) for number in (101, 100, 104, 103, 102, 105)],
        *[(ANTREA, 108, 2), (ANTREA, 109, STRING)],
        *[(ANTREA, 110, STRING), (ANTREA, 111, STRING), (ANTREA, 115, 1), (ANTREA, 141, STRING)],
        (ANTREA, 139, 1),
        *[(ANTREA, 112, STRING), (ANTREA, 113, STRING), (ANTREA, 118, 1), (ANTREA, 142, STRING)],
        (ANTREA, 140, 1),
        *[(ANTREA, 136, STRING), (ANTREA, 137, 1)],
        *[(ANTREA, 153, STRING), (ANTREA, 154, STRING), (ANTREA, 157, STRING), (ANTREA, 172, 2)],
        *[(ANTREA, cluster, size), (ANTREA, snat, size), (ANTREA, service, size)],
    ]
    for version, size, source, destination, cluster, snat, service in (
        (4, 4, 8, 12, 106, 170, 168),
        (6, 16, 27, 28, 107, 171, 169),
    )
}
OURS = [(IANA, 152, 8), (IANA, 153, 8), (IANA, 148, 8)]
ICMP_TYPE_CODE = {4: (IANA, 32, 2), 6: (IANA, 139, 2)}

LONG = "ns/" + "s" * 300 + ":https"

IPV4: dict[str, int | str] = {
    "flowStartSeconds": 1_789_999_990,
    "flowEndSeconds": 1_789_999_999,
    "flowEndReason": 2,
    "sourceTransportPort": 44_752,
    "destinationTransportPort": 5_201,
    "protocolIdentifier": 6,
    "packetTotalCount": 823_188,
    "octetTotalCount": 30_472_817_041,
    "packetDeltaCount": 241_333,
    "octetDeltaCount": 8_982_624_938,
    "sourceIP": "10.10.0.79",
    "destinationIP": "10.10.0.80",
    "reversePacketTotalCount": 471_111,
    "reverseOctetTotalCount": 24_500_996,
    "reversePacketDeltaCount": 136_211,
    "reverseOctetDeltaCount": 7_083_284,
    "sourcePodName": "perftest-a",
    "sourcePodNamespace": "antrea-test",
    "sourceNodeName": "k8s-node-control-plane",
    "destinationServicePort": 5_202,
    "destinationServicePortName": LONG,
    "egressNetworkPolicyName": "möglich",
    "egressNetworkPolicyType": 1,
    "egressNetworkPolicyRuleAction": 1,
    "tcpState": "ESTABLISHED",
    "flowType": 2,
    "proxySnatPort": 65_535,
    "destinationClusterIP": "10.96.0.1",
    "destinationServiceIP": "10.96.0.1",
    "flowStartMilliseconds": 1_789_999_990_123,
    "flowEndMilliseconds": 1_789_999_999_999,
}
IPV4_BYTES = b"".join(
    [
        pack(">IIBHHB", 1_789_999_990, 1_789_999_999, 2, 44_752, 5_201, 6),
        pack(">QQQQ", 823_188, 30_472_817_041, 241_333, 8_982_624_938),
        bytes([10, 10, 0, 79]),
        bytes([10, 10, 0, 80]),
        pack(">QQQQ", 471_111, 24_500_996, 136_211, 7_083_284),
        b"\x0aperftest-a",
        b"\x0bantrea-test",
        b"\x16k8s-node-control-plane",
        b"\0\0\0",
        pack(">H", 5_202),
        b"\xff\x01\x35ns/" + b"s" * 300 + b":https",
        b"\0\0\0\0\0",
        b"\x08m\xc3\xb6glich",
        b"\0\x01\0\x01",
        b"\x0bESTABLISHED",
        b"\x02",
        b"\0\0\0",
        b"\xff\xff",
        bytes([10, 96, 0, 1]),
        bytes([0, 0, 0, 0]),
        bytes([10, 96, 0, 1]),
        pack(">QQQH", 1_789_999_990_123, 1_789_999_999_999, 0, 0),
    ]
)

IPV6: dict[str, int | str] = {
    "flowStartSeconds": 4_294_967_295,  # 2106: seconds are unsigned
    "flowEndSeconds": 4_294_967_295,
    "flowEndReason": 3,
    "protocolIdentifier": 58,
    "octetTotalCount": 18_446_744_073_709_551_615,
    "sourceIP": "fd00:10:244::1",
    "destinationIP": "2001:db8::2",
    "destinationPodName": "x" * 255,
    "destinationPodNamespace": "y" * 254,
    "flowType": 4,
    "proxySnatIP": "fd00::3",
    "flowStartMilliseconds": 4_294_967_295_000,
    "flowEndMilliseconds": 4_294_967_295_000,
    "flowId": 128 << 24 | 4001,  # an echo request
    "icmpTypeCode": 128 << 8,
}
IPV6_BYTES = b"".join(
    [
        b"\xff" * 8,
        b"\x03\0\0\0\0\x3a",
        b"\0" * 8 + b"\xff" * 8 + b"\0" * 16,
        bytes.fromhex("fd000010024400000000000000000001"),
        bytes.fromhex("20010db8000000000000000000000002"),
        b"\0" * 32,
        b"\0\0\0",
        b"\xff\x00\xff" + b"x" * 255,
        b"\xfe" + b"y" * 254,
        b"\0",
        b"\0\0\0",
        b"\0" * 11,  # two policies without name, namespace, type, rule and action; TCP state
        b"\x04",
        b"\0\0\0\0\0",
        b"\0" * 16,
        bytes.fromhex("fd000000000000000000000000000003"),
        b"\0" * 16,
        pack(">QQQH", 4_294_967_295_000, 4_294_967_295_000, 128 << 24 | 4001, 128 << 8),
    ]
)

VECTORS = {
    4: (IPV4, 256, wire.template(256, *EXPORTER_TEMPLATE[4], *OURS, ICMP_TYPE_CODE[4]), IPV4_BYTES),
    6: (IPV6, 257, wire.template(257, *EXPORTER_TEMPLATE[6], *OURS, ICMP_TYPE_CODE[6]), IPV6_BYTES),
}


@pytest.mark.parametrize("version", [4, 6])
def test_a_record_becomes_its_bytes(leaf: Leaf, version: int) -> None:
    record, template_id, _, raw = VECTORS[version]
    session = ExporterSession(7, EXPORTED)
    messages = session.encode(batch_of([record], leaf.table()), NOW)
    assert messages == [wire.message(wire.set_of(template_id, raw), time=NOW)]


@pytest.mark.parametrize("version", [4, 6])
def test_bytes_become_their_record(leaf: Leaf, version: int) -> None:
    record, template_id, template, raw = VECTORS[version]
    stream = wire.message(wire.templates(template), wire.set_of(template_id, raw, raw))
    fed = fed_in_every_manner(leaf, stream)
    assert fed.records == [record, record]
    assert fed.buffer.batch()["observationDomainId"].tolist() == [7, 7]


def test_the_templates_messages(leaf: Leaf) -> None:
    expected = [wire.message(wire.templates(VECTORS[v][2]), time=NOW) for v in (4, 6)]
    assert ExporterSession(7, EXPORTED).templates(NOW) == expected


def test_antreas_own_template_is_read(leaf: Leaf) -> None:
    """43 elements, without ours: the milliseconds are made from the seconds."""
    template = wire.template(256, *EXPORTER_TEMPLATE[4])
    assert len(EXPORTER_TEMPLATE[4]) == ANTREA_EXPORTED
    stream = wire.message(wire.templates(template), wire.set_of(256, IPV4_BYTES[:-26]))
    times = {"flowStartMilliseconds": 1_789_999_990_000, "flowEndMilliseconds": 1_789_999_999_000}
    assert fed_in_every_manner(leaf, stream).records == [IPV4 | times]


def test_seconds_are_made_from_milliseconds(leaf: Leaf) -> None:
    stream = wire.message(
        wire.templates(wire.template(256, *OURS[:2])),
        wire.set_of(256, pack(">QQ", 1_789_999_990_123, 1_789_999_999_999)),
    )
    times = [name for name in IPV4 if name.startswith(("flowStart", "flowEndS", "flowEndM"))]
    assert fed_in_every_manner(leaf, stream).records == [{name: IPV4[name] for name in times}]


def numbered(fields: tuple[Field, ...], version: int) -> dict[str, int | str]:
    """A record in which no two fields have the same value."""
    record: dict[str, int | str] = {}
    for place, field in enumerate(fields, start=1):
        match field.kind.name:
            case "TEXT":
                record[field.name] = f"text-{place}"
            case "ADDRESS":
                record[field.name] = f"10.0.0.{place}" if version == 4 else f"fd00::{place:x}"
            case _:
                record[field.name] = place
    return record


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("fields", [EXPORTED, AGGREGATED], ids=["exported", "aggregated"])
def test_no_two_fields_are_exchanged(leaf: Leaf, fields: tuple[Field, ...], version: int) -> None:
    record = numbered(fields, version)
    session = ExporterSession(7, fields)
    messages = [*session.templates(NOW)]
    messages += session.encode(batch_of([record], leaf.table(), fields), NOW)
    fed = fed_in_every_manner(leaf, b"".join(messages), fields=fields)
    assert fed.records == [record]
