"""Scapy, an independent reader and builder: it reads what we send, we read what it builds.

It knows neither enterprises nor variable length in data records; those it is given as raw bytes.
"""

from struct import pack

from scapy.layers.netflow import (
    GetNetflowRecordV9,
    NetflowDataflowsetV9,
    NetflowFlowsetV9,
    NetflowHeader,
    NetflowHeaderV10,
    NetflowOptionsFlowset10,
    NetflowOptionsFlowsetOptionV9,
    NetflowOptionsFlowsetScopeV9,
    NetflowRecordV9,
    NetflowTemplateFieldV9,
    NetflowTemplateV9,
    ipfix_defragment,
)
from scapy.packet import Packet

from flowvis.elements import IANA, REGISTRY
from flowvis.fields import AGGREGATED, EXPORTED, Field, Kind
from flowvis.ipfix import ExporterSession

from . import wire
from .conftest import Leaf
from .feeding import fed_in_every_manner
from .records import batch_of
from .test_vectors import numbered

NOW = 1_790_000_000

# Scapy's names of the IANA elements of fixed length that we send.
NAMES = {
    "flowStartSeconds": "flowStartSeconds",
    "flowEndSeconds": "flowEndSeconds",
    "flowEndReason": "flowEndReason",
    "L4_SRC_PORT": "sourceTransportPort",
    "L4_DST_PORT": "destinationTransportPort",
    "PROTOCOL": "protocolIdentifier",
    "PACKETS_TOTAL": "packetTotalCount",
    "BYTES_TOTAL": "octetTotalCount",
    "IN_PKTS": "packetDeltaCount",
    "IN_BYTES": "octetDeltaCount",
    "IPV4_SRC_ADDR": "sourceIP",
    "IPV4_DST_ADDR": "destinationIP",
    "flowStartMilliseconds": "flowStartMilliseconds",
    "flowEndMilliseconds": "flowEndMilliseconds",
    "flowId": "flowId",
    "ICMP_TYPE": "icmpTypeCode",
}


def plain(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple(
        field
        for field in fields
        if field.kind is not Kind.TEXT and REGISTRY.named(field.element(4)).enterprise == IANA
    )


def test_scapy_reads_our_templates(leaf: Leaf) -> None:
    for fields in (EXPORTED, AGGREGATED):
        messages = ExporterSession(7, fields).templates(NOW)
        for version, message in zip((4, 6), messages, strict=True):
            header = NetflowHeader(message)
            assert header.version == 10
            assert header[NetflowHeaderV10].length == len(message)
            assert header.ObservationDomainID == 7
            assert header.ExportTime == NOW
            (template,) = header[NetflowFlowsetV9].templates
            elements = [REGISTRY.named(field.element(version)) for field in fields]
            assert template.templateID == {4: 256, 6: 257}[version]
            assert template.fieldCount == len(fields)
            assert [
                (f.enterpriseNumber if f.enterpriseBit else 0, f.fieldType, f.fieldLength)
                for f in template.template_fields
            ] == [(e.enterprise, e.id, e.type.size or 65535) for e in elements]


def test_scapy_reads_our_records(leaf: Leaf) -> None:
    fields = plain(EXPORTED)
    sent = [numbered(fields, 4), numbered(fields, 4) | {"octetDeltaCount": 2**63 + 5}]
    session = ExporterSession(7, fields)
    messages = session.templates(NOW) + session.encode(batch_of(sent, leaf.table(), fields), NOW)
    read = ipfix_defragment([NetflowHeader(message) for message in messages])
    assert set(NAMES.values()) == {field.name for field in fields}
    for record, theirs in zip(sent, read[-1][NetflowDataflowsetV9].records, strict=True):
        assert {ours: value_of(theirs, name) for name, ours in NAMES.items()} == record


def value_of(record: Packet, name: str) -> int | str:
    """A value; those that scapy has no type for are bytes."""
    value = record.getfieldval(name)
    return int.from_bytes(value) if isinstance(value, bytes) else value


def built(*parts: Packet, sequence: int = 0) -> bytes:
    body = b"".join(bytes(part) for part in parts)
    # Scapy's own idea of the length leaves out the two bytes of the version.
    header = NetflowHeader(version=10) / NetflowHeaderV10(
        length=16 + len(body), ExportTime=NOW, flowSequence=sequence, ObservationDomainID=7
    )
    return bytes(header) + body


def field_of(number: int, length: int, enterprise: int = 0) -> NetflowTemplateFieldV9:
    return NetflowTemplateFieldV9(
        enterpriseBit=int(bool(enterprise)),
        fieldType=number,
        fieldLength=length,
        enterpriseNumber=enterprise,
    )


def test_we_read_records_that_scapy_builds(leaf: Leaf) -> None:
    numbers = [(8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (1, 4), (2, 4), (150, 4)]
    template = NetflowFlowsetV9(
        flowSetID=2,
        templates=[
            NetflowTemplateV9(
                templateID=300, template_fields=[field_of(*number) for number in numbers]
            )
        ],
    )
    record = GetNetflowRecordV9(template, templateID=300)
    data = NetflowDataflowsetV9(
        templateID=300,
        records=[
            record(
                IPV4_SRC_ADDR="192.0.2.1",
                IPV4_DST_ADDR=f"198.51.100.{n}",
                PROTOCOL=17,
                L4_SRC_PORT=1000 + n,
                L4_DST_PORT=53,
                IN_BYTES=100 * n,
                IN_PKTS=n,
                flowStartSeconds=NOW,
            )
            for n in (1, 2, 3)
        ],
    )
    fed = fed_in_every_manner(leaf, built(template, data) + built(data, sequence=3))
    expected = [
        {
            "sourceIP": "192.0.2.1",
            "destinationIP": f"198.51.100.{n}",
            "protocolIdentifier": 17,
            "sourceTransportPort": 1000 + n,
            "destinationTransportPort": 53,
            "octetDeltaCount": 100 * n,
            "packetDeltaCount": n,
            "flowStartSeconds": NOW,
            "flowStartMilliseconds": NOW * 1000,
        }
        for n in (1, 2, 3)
    ]
    assert fed.records == expected * 2
    assert not fed.session.stats.malformed
    assert fed.session.stats.gaps == 0


def test_we_read_enterprise_and_variable_length_from_scapys_frames(leaf: Leaf) -> None:
    """Scapy pads the set to four bytes."""
    fields = [field_of(101, 65535, 56506), field_of(1, 8, 29305), field_of(109, 65535, 56506)]
    template = NetflowFlowsetV9(
        flowSetID=2, templates=[NetflowTemplateV9(templateID=256, template_fields=fields)]
    )
    record = wire.text("pod-a") + pack(">Q", 77) + wire.text("s" * 300)
    data = NetflowDataflowsetV9(templateID=256, records=[NetflowRecordV9(fieldValue=record)])
    fed = fed_in_every_manner(leaf, built(template, data))
    assert fed.records == [
        {
            "sourcePodName": "pod-a",
            "reverseOctetDeltaCount": 77,
            "destinationServicePortName": "s" * 300,
        }
    ]
    assert not fed.session.stats.malformed


def test_we_read_options_templates_that_scapy_builds(leaf: Leaf) -> None:
    options = NetflowOptionsFlowset10(
        templateID=257,
        scope_field_count=1,
        field_count=2,
        scopes=[NetflowOptionsFlowsetScopeV9(scopeFieldType=149, scopeFieldlength=4)],
        options=[NetflowOptionsFlowsetOptionV9(optionFieldType=40, optionFieldlength=8)],
        pad=b"",  # its own padding would cut the options off
    )
    data = NetflowDataflowsetV9(
        templateID=257, records=[NetflowRecordV9(fieldValue=pack(">IQ", 7, 1))]
    )
    fed = fed_in_every_manner(leaf, built(options, data))
    assert fed.records == []
    assert fed.session.stats.ignored_records == 1
    assert not fed.session.stats.malformed
