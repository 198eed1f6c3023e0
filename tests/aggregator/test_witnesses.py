"""Programs of others as witnesses: softflowd and pmacctd export what they saw in a capture to our
aggregator over UDP, nfacctd reads what it exports. Field by field.

tests/aggregator/test_collectors.py has nfdump's nfcapd and tshark; docs/operating.md the versions.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from flowvis.elements import REGISTRY
from flowvis.fields import AGGREGATED, Field, Kind
from flowvis.ipfix.exporter import ExporterSession
from ports import free_port
from waiting import PATIENCE_S, block_until

from .harness import Aggregator, running
from .records import records
from .test_collectors import unread

OUT = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BACK = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
CLIENT, SERVER = "10.1.0.1", "10.1.0.2"

KEY = (
    "sourceIP",
    "destinationIP",
    "protocolIdentifier",
    "sourceTransportPort",
    "destinationTransportPort",
)
COUNTERS = ("packetDeltaCount", "octetDeltaCount")
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")

Flow = tuple[Any, ...]

_TESTS = itertools.count()


def conversations(began: float) -> list[Any]:
    """Packets of TCP, UDP, ICMP and IPv6; lengths and times are what witnesses have to tell."""
    there, back = IP(src=CLIENT, dst=SERVER), IP(src=SERVER, dst=CLIENT)
    tcp: dict[str, Any] = {"sport": 40001, "dport": 443}
    answer: dict[str, Any] = {"sport": 443, "dport": 40001}
    six = IPv6(src="fd01::1", dst="fd01::2")
    timed = [
        (0.0, OUT / there / TCP(**tcp, flags="S", seq=1)),
        (0.1, BACK / back / TCP(**answer, flags="SA", seq=1, ack=2)),
        (0.2, OUT / there / TCP(**tcp, flags="A", seq=2, ack=2)),
        (0.3, OUT / there / TCP(**tcp, flags="PA", seq=2, ack=2) / bytes(100)),
        (0.5, BACK / back / TCP(**answer, flags="PA", seq=2, ack=102) / bytes(1000)),
        (0.7, OUT / there / TCP(**tcp, flags="FA", seq=102, ack=1002)),
        (0.9, BACK / back / TCP(**answer, flags="FA", seq=1002, ack=103)),
        (1.0, OUT / there / TCP(**tcp, flags="A", seq=103, ack=1003)),
        *((1.1 + n, OUT / there / UDP(sport=40002, dport=53) / bytes(50)) for n in range(3)),
        (4.5, BACK / back / UDP(sport=53, dport=40002) / bytes(200)),
        (5.0, OUT / there / ICMP(type=8, id=7) / bytes(56)),
        (6.0, OUT / six / TCP(sport=40003, dport=80, flags="S", seq=1)),
        (6.5, OUT / six / TCP(sport=40003, dport=80, flags="A", seq=2) / bytes(10)),
    ]
    for after_s, packet in timed:
        packet.time = began + after_s
    return [packet for _, packet in timed]


TRUTH = {
    (CLIENT, SERVER, 6, 40001, 443): (5, 5 * 40 + 100),
    (SERVER, CLIENT, 6, 443, 40001): (3, 3 * 40 + 1000),
    (CLIENT, SERVER, 17, 40002, 53): (3, 3 * (28 + 50)),
    (SERVER, CLIENT, 17, 53, 40002): (1, 28 + 200),
    (CLIENT, SERVER, 1, 0, 0): (1, 28 + 56),
    ("fd01::1", "fd01::2", 6, 40003, 80): (2, 2 * 60 + 10),
}
"""Packets and bytes of IP, by direction."""
BOTH = {(6, 40001): (0.0, 1.0), (17, 40002): (1.1, 4.5), (1, 0): (5.0, 5.0), (6, 40003): (6.0, 6.5)}
"""When a conversation began and ended, in seconds."""


@pytest.fixture(scope="module")
def aggregator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aggregator]:
    settings = {"aggregatorTransportProtocol": "UDP", "correlationTimeout": "500ms"}
    with running(tmp_path_factory.mktemp("aggregator"), settings) as started:
        yield started


@pytest.fixture
def began() -> float:
    """When what is captured began: of each test at another time, the latest last."""
    return float(int(time.time()) - 2000 + 50 * next(_TESTS))


@pytest.fixture
def capture(tmp_path: Path, began: float) -> Path:
    path = tmp_path / "seen.pcap"
    wrpcap(str(path), conversations(began))
    return path


def flows(aggregator: Aggregator, began: float) -> list[dict[str, Any]]:
    """What the aggregator wrote of the capture that began then."""
    rows = aggregator.control.lines("flows", {"limit": "1000"})
    first, last = (began - 1) * 1000, (began + 10) * 1000
    return [row for row in rows if first <= int(row["flowStartMilliseconds"]) <= last]


def key_of(row: dict[str, Any]) -> Flow:
    """Which conversation and direction it is; of ICMP some put type and code into the ports."""
    key = tuple(row[name] for name in KEY)
    return (*key[:3], 0, 0) if key[2] == 1 else key


def told(rows: list[dict[str, Any]]) -> dict[Flow, tuple[int, int]]:
    """Packets and bytes by direction, of one flow for both directions or for each."""
    found: dict[Flow, list[int]] = {}
    for row in rows:
        source, destination, protocol, sport, dport = key_of(row)
        back = (destination, source, protocol, dport, sport)
        for key, prefix in (((source, destination, protocol, sport, dport), ""), (back, "reverse")):
            names = [prefix + (name[0].upper() + name[1:] if prefix else name) for name in COUNTERS]
            counts = [int(row[name]) for name in names]
            if any(counts):
                before = found.setdefault(key, [0, 0])
                found[key] = [a + b for a, b in zip(before, counts, strict=True)]
    return {key: (packets, octets) for key, (packets, octets) in found.items()}


def agree(aggregator: Aggregator, began: float, within_ms: int) -> list[dict[str, Any]]:
    """Wait until the aggregator has written what was in the capture; times agree as well."""
    block_until(
        lambda: told(flows(aggregator, began)) == TRUTH,
        lambda: f"{told(flows(aggregator, began))}\n{aggregator.log()}",
    )
    rows = flows(aggregator, began)
    for row in rows:
        _, _, protocol, sport, dport = key_of(row)
        port = sport if (protocol, sport) in BOTH else dport
        expected = [round((began + after_s) * 1000) for after_s in BOTH[protocol, port]]
        assert [int(row[name]) for name in TIMES] == pytest.approx(expected, abs=within_ms)
    return rows


@pytest.mark.parametrize(
    ("options", "count", "within_ms"),
    [
        (["-A", "milli"], 6, 1),
        (["-A", "milli", "-b"], 4, 1),
        (["-A", "nano"], 6, 1),
        (["-A", "sec"], 6, 1000),
    ],  # its uptimes are no times of a capture
    ids=["milliseconds", "biflow", "nanoseconds", "seconds"],
)
def test_softflowd(
    aggregator: Aggregator,
    capture: Path,
    began: float,
    *,
    options: list[str],
    count: int,
    within_ms: int,
) -> None:
    to = ["-n", f"127.0.0.1:{aggregator.port}", "-v", "10"]
    files = ["-r", str(capture), "-p", "none", "-c", "none"]  # with a control socket it reads none
    command = ["softflowd", *files, *to, "-d", "-6", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    rows = agree(aggregator, began, within_ms)
    assert len(rows) <= count  # a direction by itself may be known as the answers to the other
    ended = {row["flowEndReason"] for row in rows if row["protocolIdentifier"] == 6}
    assert 3 in ended


def test_pmacctd(aggregator: Aggregator, capture: Path, began: float, tmp_path: Path) -> None:
    primitives = "src_host, dst_host, src_port, dst_port, proto, tcpflags"
    configuration = tmp_path / "pmacctd.conf"
    configuration.write_text(
        f"daemonize: false\npcap_savefile: {capture}\nplugins: nfprobe\nnfprobe_version: 10\n"
        f"aggregate: {primitives}\nnfprobe_receiver: 127.0.0.1:{aggregator.port}\n"
    )
    with started(["pmacctd", "-f", str(configuration)], tmp_path):
        agree(aggregator, began, 1)


@contextlib.contextmanager
def started(command: list[str], tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program, and end it with all its children, which pmacct's plugins are."""
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def primitive(field: Field, version: int) -> str:
    """How nfacctd is told of an element that it does not know by itself."""
    element = REGISTRY.named(field.element(version))
    number = f"{element.enterprise}:{element.id}" if element.enterprise else f"{element.id}"
    length = "vlen" if field.kind is Kind.TEXT else {4: 4, 6: 16}[version]
    meaning = {Kind.TEXT: "str", Kind.ADDRESS: "ip"}.get(field.kind, "u_int")
    if meaning == "u_int":
        length = field.kind.dtype.itemsize
    return f"field_type={number} len={length} semantics={meaning}\n"


@contextlib.contextmanager
def nfacctd(path: Path, fields: Sequence[Field], version: int) -> Iterator[tuple[int, Path]]:
    """nfacctd on loopback; yield its port and the file of JSON lines that it writes."""
    port = free_port()
    lines = [f"name=f{n} {primitive(field, version)}" for n, field in enumerate(fields)]
    (path / "primitives").write_text("".join(lines))
    written = path / "flows.json"
    names = ", ".join(("src_host", "dst_host", "proto", *(f"f{n}" for n in range(len(fields)))))
    (path / "nfacctd.conf").write_text(
        f"daemonize: false\nnfacctd_ip: 127.0.0.1\nnfacctd_port: {port}\nplugins: print\n"
        f"aggregate: {names}\naggregate_primitives: {path}/primitives\nprint_output: json\n"
        f"print_refresh_time: 1\nprint_output_file: {written}\nprint_output_file_append: true\n"
    )
    with started(["nfacctd", "-f", str(path / "nfacctd.conf")], path):
        log = path / "log"
        block_until(lambda: "Purging cache - END" in log.read_text(), log.read_text)
        yield port, written


def told_apart(number: int, version: int) -> dict[str, Any]:
    """A record, each of whose fields has a value of its own."""
    row: dict[str, Any] = {}
    for place, field in enumerate(AGGREGATED, 1):
        value = 1000 * (number + 1) + place
        if field.kind is Kind.TEXT:
            row[field.name] = f"t{value}" * (60 if field.name == "sourcePodName" else 1)
        elif field.kind is Kind.ADDRESS:
            row[field.name] = f"10.{number}.1.{place}" if version == 4 else f"fd0{number}::{place}"
        elif field.kind is Kind.U8:
            row[field.name] = number + place
        elif field.kind is Kind.U64:
            row[field.name] = value << 33
        else:
            row[field.name] = value
    return row


KNOWN_TO_NFACCTD = {"sourceIP", "destinationIP", "protocolIdentifier", *COUNTERS}


@pytest.mark.parametrize(("version", "half"), [(4, 0), (4, 1), (6, 0), (6, 1)])
def test_nfacctd(tmp_path: Path, version: int, half: int) -> None:
    """Every field of what the aggregator exports; in two parts: more it cannot take.

    It is ready when its plugin is, which purges for the first time then.
    """
    fields = [f for f in AGGREGATED if f.name not in KNOWN_TO_NFACCTD][half::2]
    batch = records(*(told_apart(number, version) for number in range(3)))
    with nfacctd(tmp_path, fields, version) as (port, written):
        session = ExporterSession(7, AGGREGATED, max_message=1450)  # it reads no more at a time
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for message in session.templates(1) + session.encode(batch, 1):
                block_until(lambda: not unread(port))
                sender.sendto(message, ("127.0.0.1", port))
        block_until(
            lambda: written.exists() and written.read_text().count("\n") >= 3,
            (tmp_path / "log").read_text,
        )
    seen = [json.loads(line) for line in written.read_text().splitlines()]
    seen.sort(key=lambda row: str(row["ip_src"]))
    for number, row in enumerate(seen):
        wanted = told_apart(number, version)
        assert (row["ip_src"], row["ip_dst"]) == (wanted["sourceIP"], wanted["destinationIP"])
        assert (row["packets"], row["bytes"]) == tuple(wanted[name] for name in COUNTERS)
        for place, field in enumerate(fields):
            assert row[f"f{place}"] == str(wanted[field.name]), field.name
