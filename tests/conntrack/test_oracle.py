"""The decoder on real dumps, beside pyroute2's own decoder and the conntrack tool."""

import socket
from ipaddress import ip_address
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import AsyncNFCTSocket

from flowvis.batch import address_text
from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import TCP_STATES, ConntrackStatus
from flowvis.conntrack.sources.sockets import DumpSocket
from flowvis.conntrack.sources.source import Conntrack
from namespaces import run

from . import traffic

pytestmark = pytest.mark.kernel

ADDRESSES = ("source", "destination", "reply_source", "reply_destination")
PROTOCOLS = {1, 6, 17, 47, 58, 99, 132}


class Recorder:
    """Keeps the bytes of a dump as they are decoded."""

    def __init__(self, leaf: ModuleType) -> None:
        self.decoder = leaf.EntryDecoder()
        self.data: list[bytes] = []

    def feed(self, data: memoryview, sequence: int | None = None) -> int | None:
        self.data.append(bytes(data))
        code: int | None = self.decoder.feed(data, sequence)
        return code


@pytest.fixture
def mixed(kernel: Conntrack) -> None:
    traffic.make_mixed_table()


def dump(leaf: ModuleType) -> tuple[list[dict[str, Any]], list[bytes]]:
    recorder, source = Recorder(leaf), DumpSocket()
    try:
        source.dump(recorder)
    finally:
        source.close()
    assert recorder.decoder.malformed == 0
    return rows(Entries.of(recorder.decoder.take())), recorder.data


def rows(entries: Entries) -> list[dict[str, Any]]:
    columns = entries.columns()
    return [
        {name: plain(name, column[at]) for name, column in columns.items()}
        for at in range(len(entries))
    ]


def plain(name: str, value: Any) -> Any:
    if name in ADDRESSES:
        return address_text(value.tobytes())
    return value.tobytes() if name == "labels" else int(value)


def nested(message: Any, *path: str) -> Any:
    for name in path:
        if message is None:
            return None
        message = message.get_attr(name)
    return message


def as_pyroute2_sees_it(message: Any) -> dict[str, Any]:
    """One message of pyroute2's in our terms; it does not know the zone of one direction."""
    v6 = message["nfgen_family"] == socket.AF_INET6
    ip, icmp = ("V6", "ICMPV6") if v6 else ("V4", "ICMP")
    row: dict[str, Any] = {"family": message["nfgen_family"], "event": 0}
    for side, prefix in (("ORIG", ""), ("REPLY", "reply_")):
        ends = ("CTA_TUPLE_" + side, "CTA_TUPLE_IP")
        proto = ("CTA_TUPLE_" + side, "CTA_TUPLE_PROTO")
        row[prefix + "source"] = nested(message, *ends, f"CTA_IP_{ip}_SRC")
        row[prefix + "destination"] = nested(message, *ends, f"CTA_IP_{ip}_DST")
        row[prefix + "source_port"] = nested(message, *proto, "CTA_PROTO_SRC_PORT")
        row[prefix + "destination_port"] = nested(message, *proto, "CTA_PROTO_DST_PORT")
    proto = ("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO")
    row["protocol"] = nested(message, *proto, "CTA_PROTO_NUM")
    for what in ("ID", "TYPE", "CODE"):
        row[f"icmp_{what.lower()}"] = nested(message, *proto, f"CTA_PROTO_{icmp}_{what}")
    for name in ("status", "timeout", "mark", "id", "zone"):
        row[name] = nested(message, f"CTA_{name.upper()}")
    for side, prefix in (("ORIG", ""), ("REPLY", "reverse_")):
        counters = f"CTA_COUNTERS_{side}"
        row[prefix + "packets"] = nested(message, counters, "CTA_COUNTERS_PACKETS")
        row[prefix + "octets"] = nested(message, counters, "CTA_COUNTERS_BYTES")
    row["uncounted"] = int(not nested(message, "CTA_COUNTERS_ORIG", "CTA_COUNTERS_PACKETS"))
    for name in ("start", "stop"):
        stamp = f"CTA_TIMESTAMP_{name.upper()}"
        row[f"{name}_ns"] = nested(message, "CTA_TIMESTAMP", stamp)
    state = ("CTA_PROTOINFO", "CTA_PROTOINFO_TCP", "CTA_PROTOINFO_TCP_STATE")
    row = {name: value or 0 for name, value in row.items()}
    row["tcp_state"] = nested(message, *state) or 255
    row["labels"] = (nested(message, "CTA_LABELS") or 0).to_bytes(16, "little")
    return row


def test_pyroute2_reads_the_same(mixed: None, leaf: ModuleType) -> None:
    ours, data = dump(leaf)
    marshal = AsyncNFCTSocket().marshal
    theirs = [
        as_pyroute2_sees_it(message)
        for chunk in data
        for message in marshal.parse(chunk)
        if message["header"]["type"] == 0x100
    ]
    assert {row["protocol"] for row in ours} == PROTOCOLS
    for row in ours:
        if row["destination_port"] == 7001:  # its zone holds in the original direction only
            assert row["zone"] == 9
            row["zone"] = 0
    assert ours == theirs


def part_of(element: ET.Element, path: str) -> ET.Element:
    found = element.find(path)
    assert found is not None, path
    return found


def number_of(element: ET.Element, path: str, default: str | None = None) -> int:
    text = element.findtext(path, default)
    assert text is not None, path
    return int(text)


def as_the_tool_prints_it(flow: ET.Element) -> dict[str, Any]:
    """What the tool reports an entry that stays as it is."""
    row: dict[str, Any] = {}
    for side, prefix, counted in (("original", "", ""), ("reply", "reply_", "reverse_")):
        meta = part_of(flow, f"meta[@direction='{side}']")
        row[prefix + "source"] = meta.findtext("layer3/src")
        row[prefix + "destination"] = meta.findtext("layer3/dst")
        row[prefix + "source_port"] = number_of(meta, "layer4/sport", "0")
        row[prefix + "destination_port"] = number_of(meta, "layer4/dport", "0")
        row[counted + "packets"] = number_of(meta, "counters/packets")
        row[counted + "octets"] = number_of(meta, "counters/bytes")
        row["family"] = int(part_of(meta, "layer3").attrib["protonum"])
        row["protocol"] = int(part_of(meta, "layer4").attrib["protonum"])
        row["zone"] = row.get("zone") or number_of(meta, "zone", "0")
    rest = part_of(flow, "meta[@direction='independent']")
    row["zone"] = row["zone"] or number_of(rest, "zone", "0")
    row["mark"], row["id"] = number_of(rest, "mark"), number_of(rest, "id")
    if row["protocol"] == 6:
        row["state"] = rest.findtext("state")
    row["replied"] = rest.find("unreplied") is None
    row["assured"] = rest.find("assured") is not None
    return row


def in_its_terms(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    row |= {
        "replied": bool(row["status"] & ConntrackStatus.SEEN_REPLY),
        "assured": bool(row["status"] & ConntrackStatus.ASSURED),
    }
    if row["protocol"] == 6:
        row["state"] = TCP_STATES[row["tcp_state"]]
    return {name: row[name] for name in names}


def test_the_conntrack_tool_tells_the_same(mixed: None, leaf: ModuleType) -> None:
    ours, _ = dump(leaf)
    listing = ET.fromstring(run("conntrack", "-L", "-o", "xml,id"))  # noqa: S314  the tool that we started
    theirs = {row["id"]: row for row in map(as_the_tool_prints_it, listing)}
    assert {row["id"]: in_its_terms(row, list(theirs[row["id"]])) for row in ours} == theirs


def only(entries: Entries, which: np.ndarray) -> dict[str, Any]:
    [row] = rows(entries.take(which))
    return row


def test_what_was_sent_is_what_is_there(mixed: None, kernel: Conntrack) -> None:
    entries = kernel.poll()
    tcp = only(entries, entries.protocol == 6)
    assert (tcp["destination"], tcp["destination_port"]) == traffic.SERVICE
    assert (tcp["reply_source"], tcp["reply_source_port"]) == traffic.BACKEND
    assert TCP_STATES[tcp["tcp_state"]] == "TIME_WAIT"
    headers, handshake = 52, 8  # IP and TCP with timestamps; SYNs carry more options
    assert tcp["octets"] == traffic.SENT + tcp["packets"] * headers + handshake
    assert tcp["reverse_octets"] == traffic.RECEIVED + tcp["reverse_packets"] * headers + handshake
    snat = only(entries, entries.destination_port == 5353)
    assert snat["reply_destination"] == traffic.SNAT
    assert ConntrackStatus(snat["status"]) & ConntrackStatus.SRC_NAT
    assert int.from_bytes(snat["labels"], "little") == 1 << traffic.LABEL
    zoned = only(entries, entries.destination_port == 7000)
    assert (zoned["zone"], zoned["mark"]) == (7, traffic.MARK)
    assert only(entries, entries.protocol == 1)["icmp_id"] == 0xBEEF
    assert only(entries, entries.protocol == 58)["icmp_type"] == 128
    assert only(entries, entries.protocol == 132)["destination_port"] == 5001
    assert ip_address(only(entries, (entries.family == 10) & (entries.protocol == 17))["source"])
