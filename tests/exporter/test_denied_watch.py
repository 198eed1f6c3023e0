"""From packets that real rules deny, and a real file, to a collector."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.collector import Collector
from flowvis.delivery.queue import Queue
from flowvis.denials.prefixes import Prefixes
from flowvis.denials.sources.follow import Follower
from flowvis.denials.sources.log import PacketLog
from flowvis.exporter import denied_watch
from flowvis.exporter.denied_watch import Binding, DeniedWatch
from flowvis.exporter.export import Exporter
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EndReason, RuleAction
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger
from waiting import PATIENCE_S, until

GROUP = 7
RULES = f"""
table inet policies {{
    chain deny {{
        type filter hook output priority filter;
        udp dport 9 log group {GROUP} prefix "flowvis:drop:egress:shop/web:0" drop
        udp dport 10 log group {GROUP + 1} prefix "DRI" drop
    }}
}}
"""
LINE = (
    "2026/09/30 02:14:03.512873 AntreaPolicyIngressRule AntreaNetworkPolicy:shop/web deny Ingress "
    "Reject 44900 shop/web-1 10.0.1.23 48212 10.0.2.41 8443 TCP 60 <nil> [5 packets in 1s]\n"
)

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def rules(tracked: None) -> None:
    subprocess.run(["nft", RULES], check=True)


class Node:
    """The exporter's parts put together by hand."""

    def __init__(
        self, collector: Collector, groups: tuple[int, ...], audit: Path | None, **options: Any
    ) -> None:
        self.ledger = Ledger()
        scope = Scope(loopback=True)
        options = {"idle_timeout_ms": 300, "active_timeout_ms": 300, **options}
        self.table = DeniedTable(PlainHost(), scope, ledger=self.ledger, **options)
        self.pending = Queue(self.ledger.stage("records"), 100_000, full=ExportDropped.PENDING_FULL)
        connections = ConnectionTable(PlainHost(), scope, ledger=self.ledger)
        self.exporter = Exporter(
            [connections, self.table], self.pending, collector.address, None, domain=1
        )
        self.logs = [PacketLog(group, Prefixes()) for group in groups]
        follower = Follower(audit) if audit else None
        self.watch = DeniedWatch(self.table, self.exporter, self.logs, follower)

    async def stop(self) -> None:
        await self.watch.stop()
        await self.exporter.stop()
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()


@asynccontextmanager
async def exporting(
    *groups: int, audit: Path | None = None, **options: Any
) -> AsyncIterator[tuple[Node, Collector]]:
    async with Collector() as collector:
        node = Node(collector, groups, audit, **options)
        await node.exporter.start()
        await node.watch.start()
        yield node, collector
        await node.stop()


class Client:
    """A port that sends datagrams which do not leave."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def send(self, count: int = 1, *, to: int = 9) -> None:
        for _ in range(count):
            with suppress(PermissionError):
                self.socket.sendto(bytes(100), ("127.0.0.1", to))


@pytest.fixture
def client() -> Any:
    made = Client()
    yield made
    made.socket.close()


def total(collector: Collector, name: str) -> int:
    return sum(row[name] for row in collector.rows)


async def test_denied_packets_become_records(client: Client) -> None:
    async with exporting(GROUP, GROUP + 1) as (node, collector):
        client.send(20)
        client.send(3, to=10)
        await until(lambda: total(collector, "packetDeltaCount") == 23)
        assert total(collector, "octetDeltaCount") == 23 * 128
        egress = [row for row in collector.rows if row["destinationTransportPort"] == 9]
        assert {row["sourceTransportPort"] for row in egress} == {client.port}
        assert {row["egressNetworkPolicyName"] for row in egress} == {"web"}
        assert {row["egressNetworkPolicyRuleAction"] for row in egress} == {RuleAction.DROP}
        assert node.watch.stats.listening == 2
        assert node.watch.logged().packets == 23


async def test_what_is_denied_while_all_else_starts_is_in_the_records(client: Client) -> None:
    async with Collector() as collector:
        node = Node(collector, (GROUP,), None)
        binding = Binding(node.watch)
        await binding.start()
        client.send(7)
        await node.exporter.start()
        client.send(4)
        await node.watch.start()
        client.send(2)
        await until(lambda: total(collector, "packetDeltaCount") == 13)
        assert node.watch.stats.listening == 1
        await node.stop()
        await binding.stop()
        assert not node.logs[0].is_open


async def test_a_start_that_is_cut_short_releases_the_log() -> None:
    async with Collector() as collector:
        node = Node(collector, (GROUP,), None)
        binding = Binding(node.watch)
        await binding.start()
        assert node.watch.stats.listening == 1
        await binding.stop()
        assert (node.logs[0].is_open, node.watch.stats.listening) == (False, 0)


async def test_a_stop_tells_what_was_logged_until_then(client: Client) -> None:
    async with exporting(GROUP, idle_timeout_ms=60_000, active_timeout_ms=60_000) as (
        node,
        collector,
    ):
        await until(lambda: node.exporter.client.connected)
        client.send(5)
    assert total(collector, "packetDeltaCount") == 5
    assert {row["flowEndReason"] for row in collector.rows} == {EndReason.FORCED}


async def test_a_flood_is_counted_to_the_last_packet(client: Client) -> None:
    async with exporting(GROUP, max_packets_per_second=1000) as (node, collector):
        sent = 0
        for _ in range(60):
            client.send(500)
            sent += 500
            await asyncio.sleep(0.01)
        packets = node.table.packets
        await until(lambda: packets.received == sent)
        assert packets.dropped["rate-limit"] > 0
        kept = sent - sum(packets.dropped.values())
        await until(lambda: total(collector, "packetDeltaCount") == kept)
        assert 1000 <= kept < sent


async def test_a_collector_that_is_away(client: Client) -> None:
    async with exporting(GROUP) as (node, collector):
        await until(lambda: node.exporter.client.connected)
        await collector.go_away()
        await until(lambda: not node.exporter.client.connected)
        client.send(10)
        await until(lambda: len(node.table) == 1)
        await asyncio.sleep(0.5)  # longer than its timeouts: nothing becomes due
        assert node.table.next_deadline() is not None
        assert len(node.pending) == 0
        await collector.come()
        await until(lambda: node.exporter.client.connected)
        await until(lambda: total(collector, "packetDeltaCount") == 10)


async def test_a_group_that_becomes_free(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denied_watch, "RETRY_S", 0.1)
    other = PacketLog(GROUP, Prefixes())
    other.open()
    async with exporting(GROUP) as (node, collector):
        assert (node.watch.stats.listening, node.watch.stats.refusals) == (0, 1)
        await asyncio.sleep(0.3)  # some attempts in vain
        assert node.watch.stats.listening == 0
        other.close()
        await until(lambda: node.watch.stats.listening == 1)
        client.send(4)
        await until(lambda: total(collector, "packetDeltaCount") == 4)


async def test_the_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "np.log"
    path.write_text(LINE * 3)
    async with exporting(audit=path) as (node, collector):
        with path.open("a") as file:
            file.write(f"garbage\n{LINE}")
        await until(lambda: total(collector, "packetDeltaCount") == 5)
        path.rename(tmp_path / "np-old.log")
        path.write_text(LINE)
        await until(lambda: total(collector, "packetDeltaCount") == 10)
        row = collector.rows[0]
        assert (row["sourceIP"], row["destinationIP"]) == ("10.0.1.23", "10.0.2.41")
        assert (row["destinationTransportPort"], row["octetTotalCount"]) == (8443, 300)
        assert row["ingressNetworkPolicyRuleAction"] == RuleAction.REJECT
        assert row["ingressNetworkPolicyType"] == 2
        assert node.watch.audit.stats.malformed == 1


async def test_an_audit_log_that_never_pauses_ends_with_the_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "np.log"
    path.write_text("")
    async with asyncio.timeout(PATIENCE_S), exporting(audit=path) as (node, _):
        follower = node.watch.follower
        assert follower is not None
        read = follower.read

        def one_more() -> list[bytes]:
            with path.open("a") as file:
                file.write(LINE)
            return read()

        monkeypatch.setattr(follower, "read", one_more)
    assert node.table.packets.received > 0


async def test_an_audit_log_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denied_watch, "FOLLOW_PAUSE_S", 0.01)
    async with exporting(audit=tmp_path) as (node, _):
        follower = node.watch.follower
        assert follower is not None
        await until(lambda: follower.stats.failures > 3)
    assert caplog.text.count("the audit log is not read") == 1


async def test_packets_whose_handling_fails_cost_themselves_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    audit = tmp_path / "np.log"
    audit.write_text("")
    async with exporting(audit=audit) as (node, collector):
        count = node.table._count
        failed: list[int] = []

        def defect(*given: Any) -> None:
            if not failed:
                failed.append(len(given[1]))
                raise RuntimeError("a defect of a test")
            count(*given)

        with monkeypatch.context() as patched:
            patched.setattr(node.table, "_count", defect)
            audit.write_text(LINE)
            await until(lambda: node.table.packets.received == 5)
            assert not node.ledger.imbalance()
            with audit.open("a") as file:
                file.write(LINE.replace("48212", "48213"))
            await until(lambda: node.table.packets.received == 10)
        await until(lambda: collector.rows)
        assert collector.rows[0]["sourceTransportPort"] == 48213
    assert node.table.packets.dropped == {"failed": 5}
    assert "a defect of ours over denied packets: RuntimeError" in caplog.text
