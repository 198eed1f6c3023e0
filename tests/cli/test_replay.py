"""flowctl replay: captures, written by scapy, to collectors over everything that there is."""

import argparse
import asyncio
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapWriter

from flowvis.captures.messages import Captured
from flowvis.captures.packets import Endpoints
from flowvis.cli import replay
from flowvis.cli.flowctl import main
from flowvis.errors import SystemRefused
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.server import Peer, Server
from flowvis.transport.tls import TlsFiles
from ipfix import wire
from ports import free_port
from transport.conftest import Recorder
from waiting import PATIENCE_S, block_until

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network
START_S = 1_700_000_000


def message(number: int) -> bytes:
    return wire.message(wire.set_of(256, number.to_bytes(2, "big") * 10), sequence=number)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Two sessions over UDP and one over TCP, ten messages of each, a second apart."""
    path = tmp_path / "flows.pcap"
    writer = PcapWriter(str(path))
    ends = ETHER / IP(src="10.0.0.1", dst="10.0.0.2")
    at = 1
    for number in range(10):
        parts = [ends / UDP(sport=port, dport=4739) / message(port + number) for port in (100, 200)]
        data = message(300 + number)
        parts.append(ends / TCP(sport=300, dport=4739, flags="PA", seq=at) / data)
        at += len(data)
        for part in parts:
            part.time = START_S + number
            writer.write(part)
    writer.close()
    return path


ENDS = [Endpoints(6, "10.0.0.1", port, "10.0.0.2", 4739) for port in (1, 2, 3)]


def options(address: CollectorAddress) -> argparse.Namespace:
    return argparse.Namespace(to=address, dry_run=False, timed=False, server_name="")


SESSIONS = [[message(first + at) for at in range(10)] for first in (100, 200, 300)]


class Collector:
    """Our server in a thread of its own, with a handler that keeps what it gets."""

    def __init__(self, tls: TlsFiles | None) -> None:
        self.got: list[Recorder] = []
        self.port = 0
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(tls)))
        self._thread.start()
        block_until(lambda: self.port)

    async def _serve(self, tls: TlsFiles | None) -> None:
        self._loop = asyncio.get_running_loop()
        server = Server(self._open, host="127.0.0.1", tls=tls)
        await server.start()
        self.port = server.port
        await self._stop.wait()
        await server.stop()

    def _open(self, peer: Peer) -> Recorder:
        self.got.append(Recorder(peer))
        return self.got[-1]

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def collecting() -> Iterator[Callable[..., Collector]]:
    started: list[Collector] = []

    def begin(tls: TlsFiles | None = None) -> Collector:
        started.append(Collector(tls))
        return started[-1]

    yield begin
    for each in started:
        each.end()


def test_over_tcp_each_session_in_one_of_its_own(
    capture: Path, collecting: Callable[..., Collector], capsys: pytest.CaptureFixture[str]
) -> None:
    collector = collecting()
    assert main(["replay", str(capture), "--to", f"127.0.0.1:{collector.port}:tcp"]) == 0
    block_until(lambda: [each.ends for each in collector.got] == [["eof", "closed"]] * 3)
    assert [bytes(each.data) for each in collector.got] == [b"".join(each) for each in SESSIONS]
    out = capsys.readouterr().out
    assert out.startswith("30 messages (1200 bytes) of 3 sessions sent in ")


def test_over_tls_with_our_certificate(
    capture: Path, collecting: Callable[..., Collector], tmp_path: Path
) -> None:
    ca = issue_ca()
    root, _ = ca.write(tmp_path, "ca")
    server = TlsFiles(root, *issue_server(ca, ["collector"]).write(tmp_path, "server"))
    certificate, key = issue_client(ca, "replay").write(tmp_path, "client")
    collector = collecting(server)
    to = ["--to", f"127.0.0.1:{collector.port}", "--server-name", "collector"]
    ours = ["--ca", str(root), "--certificate", str(certificate), "--key", str(key)]
    assert main(["replay", str(capture), *to, *ours]) == 0
    block_until(lambda: sum(len(each.data) for each in collector.got) == 1200)
    assert [bytes(each.data) for each in collector.got] == [b"".join(each) for each in SESSIONS]
    assert collector.got[0].peer.subject == "replay"


def test_a_collector_that_does_not_accept_our_certificate_has_read_nothing(
    tmp_path: Path, collecting: Callable[..., Collector], capsys: pytest.CaptureFixture[str]
) -> None:
    """With TLS 1.3 it says so after all has been sent."""
    ca = issue_ca()
    root, _ = ca.write(tmp_path, "ca")
    server = TlsFiles(root, *issue_server(ca, ["collector"]).write(tmp_path, "server"))
    certificate, key = issue_client(issue_ca(), "replay").write(tmp_path, "client")
    collector = collecting(server)
    capture = tmp_path / "one.pcap"
    writer = PcapWriter(str(capture))
    writer.write(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=4739) / message(1))
    writer.close()
    to = ["--to", f"127.0.0.1:{collector.port}", "--server-name", "collector"]
    ours = ["--ca", str(root), "--certificate", str(certificate), "--key", str(key)]
    assert main(["replay", str(capture), *to, *ours]) == 1
    assert not collector.got
    said = capsys.readouterr()
    assert said.out == ""
    assert "the collector refuses: has it the CA of our certificate" in said.err
    assert said.err.endswith("; 0 messages were sent before\n")


async def test_a_collector_that_has_not_read_all_has_not_got_all() -> None:
    """It ends the sessions when all has been sent, and what waits there is lost with them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def captured() -> Iterator[Captured]:
            for ends in ENDS[:2]:
                yield Captured(0, ends, message(0))
            for _ in range(2):
                sock, _ = listener.accept()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        address = CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp")
        sender = replay.Replay(options(address))
        with pytest.raises(SystemRefused, match="2 of 2 sessions were not read to their end"):
            await sender.send(captured())


async def test_a_collector_that_never_ends_confirms_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "CLOSE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = CollectorAddress("127.0.0.1", listener.getsockname()[1], "tcp")
        sender = replay.Replay(options(address))
        with pytest.raises(SystemRefused, match="1 of 1 sessions were not read to their end"):
            await sender.send(iter([Captured(0, ENDS[0], message(0))]))


def test_datagrams_that_came_in_fragments() -> None:
    """And what came over TCP can be larger than what a path takes, as well."""
    large = wire.message(wire.set_of(256, bytes(60_000)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.settimeout(PATIENCE_S)
        address = CollectorAddress("127.0.0.1", sock.getsockname()[1], "udp")
        asyncio.run(replay.Replay(options(address)).send(iter([Captured(0, ENDS[0], large)])))
        assert sock.recv(1 << 16) == large


def test_over_udp(capture: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE_S)
        assert main(["replay", str(capture), "--to", f"127.0.0.1:{sock.getsockname()[1]}:udp"]) == 0
        got: dict[int, list[bytes]] = {}
        for _ in range(30):
            data, (_, port) = sock.recvfrom(1 << 16)
            got.setdefault(port, []).append(data)
    assert list(got.values()) == SESSIONS


def test_more_sessions_than_descriptors_at_first(tmp_path: Path) -> None:
    """A cluster of a thousand nodes is a thousand sessions; shells give 1024 descriptors."""
    path = tmp_path / "many.pcap"
    writer = PcapWriter(str(path))
    for port in range(1, 101):
        ends = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=port, dport=4739)
        writer.write(ETHER / ends / message(port))
    writer.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        flowctl = f"{sys.executable} -m flowvis.cli.flowctl"
        replayed = f"{flowctl} replay {path} --to 127.0.0.1:{sock.getsockname()[1]}:udp"
        command = ["sh", "-c", f"ulimit -Sn 64; exec {replayed}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("100 messages (4000 bytes) of 100 sessions sent"), done.stderr
    assert done.returncode == 0
    assert all("so far" in line for line in done.stderr.splitlines()), done.stderr


def test_with_the_times_between_messages(capture: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        began = time.monotonic()
        to = ["--to", f"127.0.0.1:{sock.getsockname()[1]}:udp", "--timed", "--speed", "30"]
        assert main(["replay", str(capture), *to]) == 0
        assert time.monotonic() - began >= 9 / 30


def test_a_long_wait_is_said(tmp_path: Path) -> None:
    """Of a capture whose times are damaged: nobody knows otherwise that it waits for years."""
    path = tmp_path / "damaged.pcap"
    writer = PcapWriter(str(path))
    for number in range(3):
        sent = ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=4739)
        sent /= message(number)
        sent.time = START_S + 7 * 365 * 86_400 * (number == 2)
        writer.write(sent)
    writer.close()
    command = [sys.executable, "-m", "flowvis.cli.flowctl", "replay", str(path), "--timed", "--to"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{sock.getsockname()[1]}:udp"
        with subprocess.Popen([*command, to], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
            process.kill()
    assert re.fullmatch(r"2 messages sent so far; the next in 613(20h|19h\d+m\d+s)\n", said), said


def test_how_far_it_is_is_said(
    capture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "SAY_S", -1.0)
    assert main(["replay", str(capture), "--dry-run"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{number} messages found so far" for number in range(1, 31)]


def test_what_is_in_a_capture(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(capture), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "30 messages (1200 bytes) of 3 sessions found" in out
    assert "  10.0.0.1:100 > 10.0.0.2:4739 udp: 10\n" in out
    assert "  10.0.0.1:300 > 10.0.0.2:4739 tcp: 10\n" in out


def test_nothing_to_send_is_said(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(capture), "--dry-run", "--port", "2055"]) == 1
    hello = tmp_path / "tls.pcap"
    writer = PcapWriter(str(hello))
    segment = TCP(sport=1, dport=4739, flags="PA", seq=1) / (b"\x16\x03\x01\x01\0" + bytes(99))
    writer.write(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / segment)
    writer.close()
    assert main(["replay", str(hello), "--dry-run"]) == 1
    assert "left out: 1 streams in TLS" in capsys.readouterr().err
    writer = PcapWriter(str(hello), linktype=105)  # of a wireless interface
    for _ in range(3):
        writer.write(bytes(60))
    writer.close()
    assert main(["replay", str(hello), "--dry-run"]) == 1
    assert "left out: 3 packets of a link of type 105" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["missing.pcap", "--dry-run"], 1, "missing.pcap: cannot be read: No such file"),
        ([__file__, "--dry-run"], 1, "is no packet capture"),
        (["x", "--to", "a:1:grpc"], 2, "'a:1:grpc' is over grpc"),
        (["x", "--to", "a:1:tcp", "--speed", "0"], 2, "a number from 0.001"),
        (["x", "--dry-run", "--port", "0"], 2, "a port is a number"),
        (["x"], 2, "one of the arguments --to --dry-run is required"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], code: int, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if code == 2:
        with pytest.raises(SystemExit, match="2"):
            main(["replay", *arguments])
    else:
        assert main(["replay", *arguments]) == code
    assert problem in capsys.readouterr().err


async def test_sessions_are_ended_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "CLOSE_S", 3600.0)
    all_ended = asyncio.Barrier(3)

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await all_ended.wait()
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    address = CollectorAddress("127.0.0.1", server.sockets[0].getsockname()[1], "tcp")
    sender = replay.Replay(options(address))
    captured = [Captured(0, each, message(0)) for each in ENDS]
    await asyncio.wait_for(sender.send(iter(captured)), 30)
    server.close()
    assert sender.sent.total() == 3


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_nobody_there(
    capture: Path,
    protocol: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = ["--to", f"127.0.0.1:{free_port()}:{protocol}", "--timed", "--speed", "100"]
    assert main(["replay", str(capture), *to]) == 1
    assert "onnection refused" in capsys.readouterr().err
