"""Connections of a real Open vSwitch's userspace datapath, and switches that misbehave."""

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from exporter.collector import Collector
from flowvis.batch import address_text
from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import TCP_STATES
from flowvis.conntrack.sources import openvswitch
from flowvis.conntrack.sources.openvswitch import OpenVSwitch
from flowvis.delivery.queue import Queue
from flowvis.errors import SystemRefused
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.watch import Watch
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from waiting import PATIENCE_S, block_until, until

from .ovs import ZONES, Switch, switching

CLIENT, SERVER = "10.9.0.1", "10.9.0.2"


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    with switching(tmp_path_factory.mktemp("ovs")) as started:
        yield started


@pytest.fixture
def opened(switch: Switch) -> Iterator[OpenVSwitch]:
    source = OpenVSwitch(ZONES, run=switch.control)
    source.open()
    yield source
    source.close()
    switch.dpctl("dpctl/flush-conntrack")


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(switch: Switch, sockets: ExitStack) -> tuple[socket.socket, socket.socket]:
    """A TCP connection through the switch: the client's end and the server's."""
    kind = (socket.AF_INET, socket.SOCK_STREAM)
    with switch.socket(1, *kind) as listener:
        listener.bind((SERVER, 0))
        listener.listen()
        client = sockets.enter_context(switch.socket(0, *kind))
        client.settimeout(PATIENCE_S)
        client.connect(listener.getsockname())
        return client, sockets.enter_context(listener.accept()[0])


def shown(source: OpenVSwitch, condition: Callable[[Entries], object]) -> Entries:
    """Poll until the entries are as wanted."""

    def look() -> Entries | None:
        entries = source.poll()
        return entries if condition(entries) else None

    found = block_until(look, lambda: str(source.poll().columns()))
    assert found is not None
    return found


def in_state(state: str, entries: Entries) -> bool:
    return bool(len(entries)) and TCP_STATES[entries.tcp_state[0]] == state


@pytest.mark.kernel
def test_all_protocols_and_both_families(
    switch: Switch, opened: OpenVSwitch, sockets: ExitStack
) -> None:
    client, server = connected(switch, sockets)
    udp = (socket.AF_INET, socket.SOCK_DGRAM)
    resolver = sockets.enter_context(switch.socket(1, *udp))
    resolver.bind((SERVER, 53))
    resolver.settimeout(PATIENCE_S)
    asking = sockets.enter_context(switch.socket(0, *udp))
    asking.sendto(b"q", (SERVER, 5300))  # translated by the switch
    resolver.sendto(b"a", resolver.recvfrom(10)[1])
    six = sockets.enter_context(switch.socket(0, socket.AF_INET6, socket.SOCK_DGRAM))
    six.sendto(b"x", ("fd09::2", 99))
    for family, host, protocol, kind in (
        (socket.AF_INET, SERVER, socket.IPPROTO_ICMP, 8),
        (socket.AF_INET6, "fd09::2", socket.IPPROTO_ICMPV6, 128),
    ):
        ping = sockets.enter_context(switch.socket(0, family, socket.SOCK_RAW, protocol))
        checksum = ~((kind << 8) + 77 + 1) & 0xFFFF  # of IPv6 the kernel's
        ping.sendto(struct.pack(">BBHHH", kind, 0, checksum, 77, 1), (host, 0))
    entries = shown(opened, lambda entries: len(entries) >= 5)
    by_protocol = {
        (int(entries.protocol[at]), int(entries.family[at])): at for at in range(len(entries))
    }
    assert set(by_protocol) == {(1, 2), (6, 2), (17, 2), (17, 10), (58, 10)}
    tcp = by_protocol[6, 2]
    assert address_text(entries.source[tcp].tobytes()) == CLIENT
    assert address_text(entries.destination[tcp].tobytes()) == SERVER
    assert entries.source_port[tcp] == client.getsockname()[1]
    assert entries.destination_port[tcp] == server.getsockname()[1]
    assert (entries.zone[tcp], entries.mark[tcp]) == (65520, 0x13)
    assert int.from_bytes(entries.labels[tcp].tobytes(), "little") == 0x1234
    assert TCP_STATES[entries.tcp_state[tcp]] == "ESTABLISHED"
    nat = by_protocol[17, 2]
    assert (entries.destination_port[nat], entries.reply_source_port[nat]) == (5300, 53)
    for key, kind in (((1, 2), 8), ((58, 10), 128)):
        echo = by_protocol[key]
        assert (entries.icmp_type[echo], entries.icmp_id[echo]) == (kind, 77)
    assert entries.zone[by_protocol[58, 10]] == 65510
    assert entries.uncounted.all()
    assert opened.count() == len(entries)
    assert opened.stats.malformed_entries == 0
    of_six = OpenVSwitch([65510], run=switch.control, datapath="netdev@ovs-netdev")
    of_six.open()
    assert len(of_six.poll()) == 2


@pytest.mark.kernel
def test_a_connection_that_ends(switch: Switch, opened: OpenVSwitch, sockets: ExitStack) -> None:
    for end in connected(switch, sockets):
        end.close()
    entries = shown(opened, lambda e: len(e) and TCP_STATES[e.tcp_state[0]] == "TIME_WAIT")
    assert 0 < entries.timeout[0] <= opened.closed_s()["TIME_WAIT"]


@pytest.mark.kernel
def test_a_tuple_that_is_used_again_is_another_connection(
    switch: Switch, opened: OpenVSwitch, sockets: ExitStack
) -> None:
    """The switch tells neither when they began nor which they are."""
    table = ConnectionTable(PlainHost(), Scope(), events=False)
    kind = (socket.AF_INET, socket.SOCK_STREAM)
    listener = sockets.enter_context(switch.socket(1, *kind))
    listener.bind((SERVER, 0))
    listener.listen()
    starts, port = [], 0
    for now_ms in (1_000_000, 2_000_000):
        client = sockets.enter_context(switch.socket(0, *kind))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((CLIENT, port))
        client.settimeout(PATIENCE_S)
        client.connect(listener.getsockname())
        port = client.getsockname()[1]
        server, _ = listener.accept()
        for at_ms, state in ((now_ms, "ESTABLISHED"), (now_ms + 5000, "TIME_WAIT")):
            if state == "TIME_WAIT":
                server.close()  # first, so that the client's port is free at once
                assert client.recv(1) == b""
                client.close()
            table.poll(shown(opened, partial(in_state, state)), at_ms)
            table.sweep()
        batch = table.due(now_ms + 5000)
        starts += batch["flowStartMilliseconds"].tolist()
    assert starts == [1_000_000, 2_000_000]
    assert table.stats.vanished == 0


@pytest.mark.kernel
def test_how_many_there_can_be(switch: Switch, opened: OpenVSwitch) -> None:
    switch.dpctl("dpctl/ct-set-maxconns", "12345")
    assert opened.maximum() == 12345
    assert opened.count() == 0
    assert len(opened.prepare()) == 1


CONFINED = """
mount -o bind,ro "$1" "$2" && ! touch "$2/x" 2>/dev/null &&
exec setpriv --bounding-set=-all,+net_admin --inh-caps=-all "$3" -c "
from pathlib import Path
from flowvis.conntrack.sources.openvswitch import OpenVSwitch
source = OpenVSwitch(run=Path('$2/vswitchd.ctl'))
source.open()
print(source.maximum(), len(source.poll()))"
"""


@pytest.mark.kernel
def test_as_in_its_pod(
    switch: Switch, opened: OpenVSwitch, sockets: ExitStack, tmp_path: Path
) -> None:
    """Root with no capability but NET_ADMIN, and the directory read-only."""
    connected(switch, sockets)
    tracked = len(opened.poll())
    paths = str(switch.directory), str(tmp_path), sys.executable
    asked = subprocess.run(
        ["unshare", "-m", "sh", "-c", CONFINED, "sh", *paths],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert asked.stderr == ""
    assert [int(number) for number in asked.stdout.split()] == [opened.maximum(), tracked]
    assert tracked == 1


@pytest.mark.kernel
async def test_from_the_switch_to_a_collector(
    switch: Switch, opened: OpenVSwitch, sockets: ExitStack
) -> None:
    ledger = Ledger()
    scope = Scope(("tcp",))
    table = ConnectionTable(PlainHost(), scope, active_timeout_ms=300, events=False, ledger=ledger)
    pending = Queue(ledger.stage("records"), 1000, full=ExportDropped.PENDING_FULL)
    async with Collector() as collector:
        exporter = Exporter([table], pending, collector.address, None, domain=1)
        watch = Watch(opened, table, exporter, poll_interval_s=0.1, events=False)
        await exporter.start()
        await watch.start()
        client, server = connected(switch, sockets)
        port = client.getsockname()[1]
        await until(lambda: watch.stats.listed)
        client.close()
        server.close()
        await until(lambda: any(row["tcpState"] == "TIME_WAIT" for row in collector.rows))
        await watch.stop()
        await exporter.stop()
    assert watch.stats.maximum > 0
    assert watch.stats.failures == 0
    (row,) = [row for row in collector.rows if row["tcpState"] == "TIME_WAIT"]
    assert (row["sourceIP"], row["destinationIP"]) == (CLIENT, SERVER)
    assert row["sourceTransportPort"] == port
    assert row["flowEndReason"] == 3
    assert ledger.imbalance() == {}


# Switches that misbehave


@contextlib.asynccontextmanager
async def watched_in_vain(path: Path, answers: int) -> AsyncIterator[tuple[Watch, asyncio.Event]]:
    """Watch a switch that answers so often and then never again; tells when it is asked in vain."""
    asked, left = asyncio.Event(), asyncio.Event()
    replies = {"dpctl/dump-dps": "netdev@x", "dpctl/dump-conntrack": ""}  # else a number
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        method = json.loads(await reader.read(4096))["method"]
        if count > answers:
            asked.set()
            assert await reader.read() == b""
            left.set()
        else:
            writer.write(result(replies.get(method, "5")))
        writer.close()

    ledger = Ledger()
    table = ConnectionTable(PlainHost(), Scope(), events=False, ledger=ledger)
    pending = Queue(ledger.stage("records"), 1000, full=ExportDropped.PENDING_FULL)
    async with Collector() as collector:
        exporter = Exporter([table], pending, collector.address, None, domain=1)
        source = OpenVSwitch(run=path)
        watch = Watch(source, table, exporter, poll_interval_s=0.1, events=False, stop_s=0.2)
        server = await asyncio.start_unix_server(serve, path)
        yield watch, asked
        await left.wait()  # nobody waits for it any more
        server.close()


async def test_a_stop_does_not_wait_for_a_switch_that_does_not_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nothing that waits to be sent would be."""
    async with watched_in_vain(tmp_path / "ctl", answers=7) as (watch, asked):
        await watch.start()
        await asked.wait()
        async with asyncio.timeout(openvswitch.TIMEOUT_S / 2):
            await watch.stop()
    assert watch.stats.polls == 2
    assert "not polled a last time" in caplog.text


@pytest.mark.parametrize("answers", [0, 1])
async def test_others_go_on_while_a_switch_does_not_answer_at_the_start(
    tmp_path: Path, answers: int
) -> None:
    async with watched_in_vain(tmp_path / "ctl", answers) as (watch, asked):
        starting = asyncio.create_task(watch.start())
        async with asyncio.timeout(openvswitch.TIMEOUT_S / 2):
            await asked.wait()
            starting.cancel()  # as a stop does
            with pytest.raises(asyncio.CancelledError):
                await starting


class Impostor:
    """Listens at a control socket, and answers as it is told."""

    def __init__(self, path: Path, answers: list[bytes]) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            with self._listener.accept()[0] as peer:
                self.asked.append(json.loads(peer.recv(4096)))
                peer.sendall(answer)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[..., Impostor]]:
    started: list[Impostor] = []

    def begin(*answers: bytes) -> Impostor:
        (tmp_path / "ovs-vswitchd.pid").write_text("4711\n")
        started.append(Impostor(tmp_path / "ovs-vswitchd.4711.ctl", list(answers)))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def result(text: str) -> bytes:
    return json.dumps({"id": 0, "result": text, "error": None}).encode()


def test_it_is_found_by_its_process_and_asked_zone_by_zone(
    tmp_path: Path, answering: Callable[..., Impostor]
) -> None:
    line = (
        "udp,orig=(src=1.1.1.1,dst=2.2.2.2,sport=1,dport=2),"
        "reply=(src=2.2.2.2,dst=1.1.1.1,sport=2,dport=1)"
    )
    many = "\n".join([line] * 5000)
    impostor = answering(
        result("system@ovs-system\nnetdev@ovs-netdev\n"), result(f"{line}\nwhat}}\n"), result(many)
    )
    source = OpenVSwitch([3, 2, 3], run=tmp_path)
    source.open()
    assert len(source.poll()) == 5001
    assert source.stats.malformed_entries == 1
    named = ["-m", "-s", "netdev@ovs-netdev"]
    assert [each["params"] for each in impostor.asked[1:]] == [
        [*named, "zone=2"],
        [*named, "zone=3"],
    ]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (result("system@ovs-system"), r"no userspace datapath \(datapaths: system@ovs-system\)"),
        (result(""), "datapaths: none"),
        (result("netdev@a netdev@b"), "several userspace datapaths .* conntrack.ovs.datapath"),
        (b'{"id":0,"result":null,"error":"no such command\\n"}', "refuses dpctl/dump-dps: no such"),
        (b"{}", "does not speak as ovs-vswitchd"),
        (b"[1]}", "the answer ends before it is whole"),
        (b"[" * 100_000 + b"}", "the answer ends before it is whole"),
        (b'"\xff"}', "the answer ends before it is whole"),
        (b"", "the answer ends before it is whole"),
    ],
)
def test_what_is_in_the_way_is_said(
    tmp_path: Path, answering: Callable[..., Impostor], answer: bytes, problem: str
) -> None:
    answering(answer)
    with pytest.raises(SystemRefused, match=problem):
        OpenVSwitch(run=tmp_path).open()


def test_a_list_that_is_no_text(tmp_path: Path, answering: Callable[..., Impostor]) -> None:
    answering(result("netdev@x"), result("udp,orig=(\ud800)\n"))
    source = OpenVSwitch(run=tmp_path)
    source.open()
    assert len(source.poll()) == 0
    assert source.stats.malformed_entries == 1


@pytest.mark.parametrize("pid", [b"", b"\xff\xfe", b"\0", b"../1"])
def test_a_process_that_has_no_number(tmp_path: Path, pid: bytes) -> None:
    (tmp_path / "ovs-vswitchd.pid").write_bytes(pid)
    with pytest.raises(SystemRefused, match=r"ovs-vswitchd.pid: '.*' is no process's number"):
        OpenVSwitch(run=tmp_path).open()


def test_an_answer_without_end_is_cut(
    tmp_path: Path, answering: Callable[..., Impostor], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(openvswitch, "MOST_BYTES", 1 << 20)
        answering(b'{"result":"' + b"x" * (1 << 20))
        with pytest.raises(SystemRefused, match="an answer of more than 1 MiB"):
            OpenVSwitch(run=tmp_path).open()


def test_a_long_list_is_never_whole_in_memory(
    tmp_path: Path, answering: Callable[..., Impostor]
) -> None:
    """Half a million connections are 180 MB of text; a Pod of the exporter has 512 MiB."""
    lines = 100_000
    impostor = answering(result(f"what, {'x' * 350}\n" * lines))
    source = OpenVSwitch(run=tmp_path, datapath="netdev@x")
    source.open()
    tracemalloc.start()
    try:
        assert len(source.poll()) == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.stats.malformed_entries == lines
    assert len(impostor.asked) == 1
    assert peak < 8 << 20


@pytest.mark.parametrize("rest", ['"', '","error":nul', '","error":null', '\\"}', "\\"])
def test_a_list_that_is_cut_is_no_list(
    tmp_path: Path, answering: Callable[..., Impostor], rest: str
) -> None:
    """As of a switch that is killed meanwhile: what is missing has not ended."""
    line = "udp,orig=(src=::1,dst=::2),reply=(src=::2,dst=::1)\\n"
    answering(f'{{"id":0,"result":"{line * 9}{rest}'.encode())
    source = OpenVSwitch(run=tmp_path, datapath="netdev@x")
    source.open()
    with pytest.raises(SystemRefused, match="the answer ends before it is whole"):
        source.poll()


def test_a_number_that_is_none(tmp_path: Path, answering: Callable[..., Impostor]) -> None:
    answering(result("many"))
    with pytest.raises(SystemRefused, match="answers dpctl/ct-get-maxconns with 'many'"):
        OpenVSwitch(run=tmp_path, datapath="netdev@x").maximum()


def test_no_switch(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match=r"ovs-vswitchd.pid: No such file .*conntrack.ovs.run"):
        OpenVSwitch(run=tmp_path).open()
    (tmp_path / "ovs-vswitchd.pid").write_text("1\n")
    with pytest.raises(SystemRefused, match=r"ovs-vswitchd.1.ctl: No such file .*root"):
        OpenVSwitch(run=tmp_path).open()


@pytest.mark.kernel
def test_a_switch_that_went_away_fails_the_poll(tmp_path: Path) -> None:
    with switching(tmp_path) as switch:
        source = OpenVSwitch(run=switch.control)
        source.open()
        assert len(source.poll()) == 0
    with pytest.raises(SystemRefused, match=r"vswitchd.ctl: No such file .*does Open vSwitch run"):
        source.poll()
