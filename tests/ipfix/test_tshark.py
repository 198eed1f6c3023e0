"""Wireshark's dissector reads what we send, field by field."""

import re
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from flowvis.elements import ANTREA, REGISTRY, REVERSE
from flowvis.fields import AGGREGATED, EXPORTED, Field, Kind
from flowvis.ipfix import ExporterSession
from waiting import PATIENCE_S

from .conftest import Leaf
from .records import Record, batch_of
from .test_vectors import IPV4, IPV6, numbered

NOW = 1_790_000_000

# What Wireshark calls the IANA elements.
NAMES = {
    "cflow.flow_end_reason": "flowEndReason",
    "cflow.srcport": "sourceTransportPort",
    "cflow.dstport": "destinationTransportPort",
    "cflow.protocol": "protocolIdentifier",
    "cflow.permanent_packets": "packetTotalCount",
    "cflow.permanent_octets": "octetTotalCount",
    "cflow.packets": "packetDeltaCount",
    "cflow.octets": "octetDeltaCount",
    "cflow.srcaddr": "sourceIPv4Address",
    "cflow.dstaddr": "destinationIPv4Address",
    "cflow.srcaddrv6": "sourceIPv6Address",
    "cflow.dstaddrv6": "destinationIPv6Address",
    "cflow.flow_id": "flowId",
    "cflow.icmp_type_code_ipv4": "icmpTypeCodeIPv4",
}
TIMES = {
    ("cflow.abstimestart", "4"): "flowStartSeconds",
    ("cflow.abstimeend", "4"): "flowEndSeconds",
    ("cflow.abstimestart", "8"): "flowStartMilliseconds",
    ("cflow.abstimeend", "8"): "flowEndMilliseconds",
}


# It shows the two bytes of this one apart.
ICMP_TYPE_CODE_IPV6 = {"cflow.icmp_ipv6_type": 8, "cflow.icmp_ipv6_code": 0}


def element_of(node: Xml.Element) -> str:
    """The element that a node of the dissection shows."""
    name, text = node.attrib["name"], node.attrib["showname"]
    if private := re.search(r"\(Project Antrea\) Type (\d+):", text):
        number, enterprise = int(private[1]), ANTREA
    elif reverse := re.search(r"\(Reverse Type (\d+) ", text):
        number, enterprise = int(reverse[1]), REVERSE
    else:
        return TIMES.get((name, node.attrib["size"])) or NAMES[name]
    element = REGISTRY.find(enterprise, number)
    assert element is not None
    return element.name


def leaves(flow: Xml.Element) -> Iterator[Xml.Element]:
    for node in flow:
        if node.attrib["name"] == "cflow.timedelta":
            yield from node
        else:
            yield node


def value_of(field: Field, raw: bytes) -> int | str:
    match field.kind:
        case Kind.TEXT:
            return raw.decode()
        case Kind.ADDRESS:
            return str(ip_address(raw)) if any(raw) else ""
        case _:
            return int.from_bytes(raw)


def dissected(capture: Path, fields: tuple[Field, ...]) -> list[dict[str, int | str]]:
    command = ["tshark", "-r", str(capture), "-T", "pdml", "-Y", "cflow"]
    command += ["-o", "cflow.max_template_fields:100"]  # 60 is its default
    for transport in ("udp", "tcp"):
        command += ["-d", f"{transport}.port==4739,cflow"]
    output = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout
    by_element = {name: field for field in fields for name in field.elements}
    records = []
    for flow in Xml.fromstring(output).iter("field"):  # noqa: S314 - tshark wrote it
        if not flow.get("show", "").startswith("Flow "):
            continue
        record: dict[str, int | str] = {}
        for node in leaves(flow):
            if node.attrib["name"] in ICMP_TYPE_CODE_IPV6:
                byte = int(node.attrib["value"], 16) << ICMP_TYPE_CODE_IPV6[node.attrib["name"]]
                record["icmpTypeCode"] = int(record.get("icmpTypeCode", 0)) + byte
                continue
            field = by_element[element_of(node)]
            record[field.name] = value_of(field, bytes.fromhex(node.attrib["value"]))
        records.append({name: value for name, value in record.items() if value})
    return records


def over_udp(messages: list[bytes]) -> list[Ether]:
    head = Ether() / IP(src="127.0.0.1", dst="127.0.0.2")
    return [head / UDP(sport=40000, dport=4739) / Raw(message) for message in messages]


def over_tcp(messages: list[bytes]) -> list[Ether]:
    stream = b"".join(messages)
    head = Ether() / IP(src="127.0.0.1", dst="127.0.0.2")
    return [
        head / TCP(sport=40000, dport=4739, seq=1 + at, flags="PA") / Raw(stream[at : at + 1448])
        for at in range(0, len(stream), 1448)
    ]


@pytest.mark.parametrize("fields", [EXPORTED, AGGREGATED], ids=["exported", "aggregated"])
def test_every_field(leaf: Leaf, fields: tuple[Field, ...], tmp_path: Path) -> None:
    sent = [numbered(fields, 4), numbered(fields, 6)]
    session = ExporterSession(7, fields, max_message=1400)
    messages = session.templates(NOW) + session.encode(batch_of(sent, leaf.table(), fields), NOW)
    wrpcap(str(tmp_path / "udp.pcap"), over_udp(messages))
    assert dissected(tmp_path / "udp.pcap", fields) == sent


def test_a_stream_of_long_messages(leaf: Leaf, tmp_path: Path) -> None:
    sent: list[Record] = [IPV4 | {"packetTotalCount": n} for n in range(1, 201)]
    sent += [IPV6 | {"packetTotalCount": n} for n in range(1, 151)]
    session = ExporterSession(7, EXPORTED)
    messages = session.templates(NOW) + session.encode(batch_of(sent, leaf.table()), NOW)
    assert max(map(len, messages)) > 60_000
    wrpcap(str(tmp_path / "tcp.pcap"), over_tcp(messages))
    assert dissected(tmp_path / "tcp.pcap", EXPORTED) == sent
