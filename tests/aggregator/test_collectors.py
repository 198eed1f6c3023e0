"""Collectors of others read what the aggregator sends: tshark, and nfdump's nfcapd.

nfcapd of nfdump 1.7 takes IPFIX over UDP only. The messages are those of a real aggregator over
TCP; the test passes each on as one datagram.
"""

import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from ports import free_port
from waiting import PATIENCE_S, block_until

from .harness import connection, deliver, exported, running

FLOWS = 40


class Listener:
    """Takes one TCP session and keeps its bytes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.data = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        session, _ = self._socket.accept()
        with session:
            while data := session.recv(65536):
                self.data += data

    def finish(self) -> None:
        self._thread.join(PATIENCE_S)
        self._socket.close()
        assert not self._thread.is_alive()

    def messages(self) -> list[bytes]:
        """The stream, cut into IPFIX messages by their length fields."""
        found, at = [], 0
        while at < len(self.data):
            length = int.from_bytes(self.data[at + 2 : at + 4])
            found.append(bytes(self.data[at : at + length]))
            at += length
        return found


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What a real aggregator sent: one record for each of FLOWS connections between nodes."""
    listener = Listener()
    path = tmp_path_factory.mktemp("aggregator")
    settings = {
        "flowCollector": {
            "enable": True,
            "address": f"127.0.0.1:{listener.port}:tcp",
            "observationDomainID": 77,
            "maxIPFIXMsgSize": 1400,
        }
    }
    rows = [connection(n, source=side) for n in range(FLOWS) for side in (True, False)]
    with running(path, settings) as aggregator:
        deliver(aggregator, exported(*rows))
        books = aggregator.settled(2 * FLOWS)
        assert books["ipfix"]["sent"] == FLOWS
        assert aggregator.stop() == 0
    listener.finish()
    return listener.messages()


def test_tshark_reads_them(messages: list[bytes], tmp_path: Path) -> None:
    stream = b"".join(messages)
    head = Ether() / IP(src="127.0.0.1", dst="127.0.0.2")
    packets = [
        head / TCP(sport=40000, dport=4739, seq=1 + at, flags="PA") / Raw(stream[at : at + 1400])
        for at in range(0, len(stream), 1400)
    ]
    wrpcap(str(tmp_path / "tcp.pcap"), packets)
    names = ("cflow.od_id", "cflow.srcaddr", "cflow.dstport", "cflow.octets")
    command = ["tshark", "-r", str(tmp_path / "tcp.pcap"), "-d", "tcp.port==4739,cflow"]
    command += ["-o", "cflow.max_template_fields:100", "-T", "fields", "-E", "separator=;"]
    command += [part for name in names for part in ("-e", name)]
    command += ["-Y", "_ws.malformed or cflow"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    lines = [line.split(";") for line in done.stdout.splitlines()]
    assert {value for line in lines for value in line[0].split(",")} == {"77"}
    sources = [value for line in lines for value in line[1].split(",") if value]
    assert sorted(sources) == sorted(f"10.0.0.{n}" for n in range(FLOWS))
    assert {value for line in lines for value in line[2].split(",") if value} == {"80"}
    octets = [int(value) for line in lines for value in line[3].split(",") if value]
    assert set(octets) == {1000, 0}  # deltas and totals of both nodes; the reverse direction


@contextlib.contextmanager
def nfcapd(path: Path) -> Iterator[int]:
    """nfcapd on loopback, writing to a directory."""
    port = free_port()
    command = ["nfcapd", "-b", "127.0.0.1", "-p", str(port), "-w", str(path), "-t", "3600"]
    with (path.parent / "nfcapd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        block_until(lambda: any(path.glob("nfcapd.current*")))
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, (path.parent / "nfcapd.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def unread(port: int) -> int:
    """Bytes that wait in the receive buffer of a UDP socket on loopback."""
    lines = Path("/proc/net/udp").read_text().splitlines()
    (found,) = (line.split() for line in lines if f": 0100007F:{port:04X} " in line)
    return int(found[4].partition(":")[2], 16)


def nfdump(path: Path) -> list[list[str]]:
    """What nfdump finds: addresses, ports, protocol, packets and bytes of each flow."""
    form = "fmt:%sa,%da,%sp,%dp,%pr,%pkt,%byt"
    command = ["nfdump", "-R", str(path), "-q", "-N", "-o", form]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]


def test_nfcapd_reads_them(messages: list[bytes], tmp_path: Path) -> None:
    """All but the times: nfdump 1.7 does not know flowStartSeconds, the element Antrea uses."""
    path = tmp_path / "flows"
    path.mkdir()
    with nfcapd(path) as port, socket.socket(type=socket.SOCK_DGRAM) as sender:
        for message in messages:
            sender.sendto(message, ("127.0.0.1", port))
            block_until(lambda: not unread(port))
    expected = [f"10.0.0.{n},10.200.0.1,40000,80,6,10,1000".split(",") for n in range(FLOWS)]
    assert sorted(nfdump(path)) == sorted(expected)
