"""Changes of a running exporter's configuration file, and what comes of them."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from cli.test_exporter import Daemon, get, let_connections_last, write
from exporter.collector import Collector, DatagramCollector
from exporter.test_export import deltas
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.transport.address import CollectorAddress
from ports import free_port
from waiting import block_until, until

RESTART = "flowvis_exporter_config_restart_required"


class Addressed(Protocol):
    """A collector."""

    @property
    def address(self) -> CollectorAddress: ...


class Exporter:
    """The daemon, its file, and the connections of this host that it sees."""

    def __init__(
        self,
        path: Path,
        collector: Addressed,
        *,
        own_sessions: bool = False,
        others: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.path = path
        self.status = free_port()
        self.exported: dict[str, Any] = {
            "flowCollectorAddr": f"{collector.address}",
            "flowPollInterval": "200ms",
            "activeFlowExportTimeout": "200ms",
            "protocolFilter": ["udp"],
        }
        self.others: dict[str, Any] = {
            "conntrack": {"loopback": True, "ownSessions": own_sessions},
            "state": {"directory": str(path)},
            "status": {"port": self.status},
            **(others or {}),
        }
        self.exported |= changes
        self.daemon = Daemon(self._write())
        self.clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
        for client in self.clients:
            client.bind(("127.0.0.1", 0))

    def ports(self) -> list[int]:
        return [client.getsockname()[1] for client in self.clients]

    def _write(self) -> str:
        return write(self.path, {"flowExporter": self.exported, **self.others})

    def reported(self, *collectors: Collector) -> Counter[int]:
        """How many bytes collectors were reported together, by the client's port."""
        together = deltas(row for collector in collectors for row in collector.rows)
        return Counter({port: together[port] for port in self.ports() if port in together})

    def configure(self, **changes: Any) -> None:
        self.exported |= changes
        self._write()
        self.daemon.look()

    def send(self) -> None:
        """100 bytes on each connection."""
        for client in self.clients:
            client.sendto(bytes(72), ("127.0.0.1", 9))

    async def metric(self, name: str, value: float) -> None:
        """Wait until a metric is as given."""

        def shown() -> bool:
            return f"{name} {value}" in get(self.status, "metrics")

        # An OSError: it has not begun.
        await asyncio.to_thread(
            block_until, shown, lambda: f"no {name} {value}", despite=(OSError,)
        )

    async def stop(self) -> str:
        """End it well; return its log."""
        code, log = await asyncio.to_thread(self.daemon.stop)
        assert code == 0, log
        assert "Traceback" not in log
        return log

    def kill(self) -> None:
        """End it with SIGKILL, and start the next one."""
        self.daemon.end()
        self.daemon = Daemon(self._write())

    def end(self) -> None:
        self.daemon.end()
        for client in self.clients:
            client.close()


Start = Callable[..., Exporter]


@pytest.fixture
def start(tracked: None, tmp_path: Path) -> Iterator[Start]:
    for name in ("nf_conntrack_acct", "nf_conntrack_timestamp"):  # the daemon may be too late
        (ROOT / name).write_text("1")
    let_connections_last()
    started: list[Exporter] = []

    def begin(collector: Addressed, **changes: Any) -> Exporter:
        started.append(Exporter(tmp_path, collector, **changes))
        return started[-1]

    yield begin
    for exporter in started:
        exporter.end()


async def traffic(exporter: Exporter, until_done: Awaitable[Any]) -> int:
    """Send while something happens; return how many bytes each connection had."""
    task = asyncio.ensure_future(until_done)
    octets = 0
    while not task.done():
        exporter.send()
        octets += 100
        await asyncio.sleep(0.02)
    await task
    return octets


@pytest.mark.kernel
async def test_another_collector_while_connections_go_on(start: Start) -> None:
    async with Collector() as first, Collector() as second:
        exporter = start(first)
        await until(lambda: first.sessions == 1)

        async def move() -> None:
            await until(lambda: len(first.rows) >= 20, "records at the first")
            exporter.configure(flowCollectorAddr=f"{second.address}")
            await until(lambda: len(second.rows) >= 20, "records at the second")

        octets = await traffic(exporter, move())
        log = await exporter.stop()
        assert second.sessions == 1
        assert (first.gaps, second.gaps) == (0, 0)
        assert exporter.reported(first, second) == dict.fromkeys(exporter.ports(), octets)
        for port in exporter.ports():  # the first one's totals are where the second one's begin
            last = [r for r in first.rows if r["sourceTransportPort"] == port][-1]
            begun = next(r for r in second.rows if r["sourceTransportPort"] == port)
            before = begun["octetTotalCount"] - begun["octetDeltaCount"]
            assert before == last["octetTotalCount"]
        assert (
            f"received={len(first.rows + second.rows)} sent={len(first.rows + second.rows)}"
            in (log.partition("books of records")[2].splitlines()[0])
        )
        assert "level=error" not in log


@pytest.mark.kernel
async def test_from_a_collector_that_does_not_answer(start: Start) -> None:
    """The pause between attempts, long by then, does not delay the move."""
    dead = Collector()
    async with Collector() as collector:
        exporter = start(dead)
        await exporter.metric("flowvis_exporter_client_attempts_total", 4.0)
        exporter.send()
        exporter.configure(flowCollectorAddr=f"{collector.address}")
        await until(lambda: len(exporter.reported(collector)) == 5)
        await exporter.stop()
        assert exporter.reported(collector) == dict.fromkeys(exporter.ports(), 100)


@pytest.mark.kernel
async def test_from_a_collector_that_reads_nothing(start: Start) -> None:
    """What it did not take goes to the next; what it took and never read is its loss."""
    stuck = Collector()
    stuck.reading.clear()
    async with Collector() as collector:
        await stuck.come()
        exporter = start(stuck)
        await until(lambda: stuck.sessions == 1)
        exporter.send()
        await asyncio.sleep(1)  # some goes where nobody reads it
        exporter.configure(flowCollectorAddr=f"{collector.address}")
        octets = 100 + await traffic(
            exporter, until(lambda: len(exporter.reported(collector)) == 5)
        )
        await exporter.stop()
        stuck.reading.set()
        await stuck.go_away()
        assert exporter.reported(stuck, collector) == dict.fromkeys(exporter.ports(), octets)


@pytest.mark.kernel
async def test_timeouts_and_intervals(start: Start) -> None:
    """Connections that are known already are reported by the new timeouts."""
    async with Collector() as collector:
        exporter = start(collector, flowPollInterval="1h", activeFlowExportTimeout="2h")
        await until(lambda: collector.sessions == 1)
        exporter.send()
        await asyncio.sleep(0.5)  # no poll meanwhile
        assert not exporter.reported(collector)
        exporter.configure(flowPollInterval="200ms")
        await asyncio.sleep(1)  # polls, but nothing is due
        assert not exporter.reported(collector)
        exporter.configure(activeFlowExportTimeout="100ms")
        await until(lambda: len(exporter.reported(collector)) == 5)
        exporter.configure(activeFlowExportTimeout="2h", idleFlowExportTimeout="300ms")
        await until(lambda: any(row["flowEndReason"] == 1 for row in collector.rows))
        await exporter.stop()


@pytest.mark.kernel
async def test_protocols(start: Start) -> None:
    async with Collector() as collector:
        exporter = start(collector)
        exporter.send()
        await until(lambda: len(exporter.reported(collector)) == 5)
        exporter.configure(protocolFilter=["icmp"])
        await exporter.metric("antrea_agent_conntrack_antrea_connection_count", 0.0)
        exporter.send()
        await asyncio.sleep(0.5)  # polls that pass it over
        assert exporter.reported(collector) == dict.fromkeys(exporter.ports(), 100)
        exporter.configure(protocolFilter=None)
        total = dict.fromkeys(exporter.ports(), 300)  # from their beginning
        await until(lambda: exporter.reported(collector) == total)
        await exporter.stop()


@pytest.mark.kernel
async def test_a_broken_file_and_what_needs_a_restart(start: Start) -> None:
    async with Collector() as collector:
        exporter = start(collector)
        exporter.send()
        await until(lambda: len(collector.rows) >= 5)
        exporter.configure(flowPollInterval="1", protocolFilter=["icmp"])
        await exporter.metric('flowvis_exporter_config_reloads_total{result="invalid"}', 1.0)
        await exporter.metric("flowvis_exporter_config_problems", 1.0)
        exporter.send()
        await until(lambda: exporter.reported(collector)[exporter.ports()[0]] == 200)
        exporter.configure(flowPollInterval="200ms", protocolFilter=["udp"], maxConnections=5000)
        await exporter.metric(RESTART, 1.0)
        await exporter.metric("flowvis_exporter_config_problems", 0.0)
        await exporter.metric("flowvis_exporter_table_capacity_connections", 262144.0)
        exporter.configure(maxConnections=262144)
        await exporter.metric(RESTART, 0.0)
        exporter.others["log"] = {"level": "error"}
        exporter.configure()
        await exporter.metric('flowvis_exporter_config_reloads_total{result="applied"}', 3.0)
        log = await exporter.stop()
        assert "flowExporter.flowPollInterval: '1' is not a duration: write" in log
        assert "flowExporter.maxConnections: 262144 -> 5000 needs a restart" in log
        assert "log.level: info -> error" not in log  # which is below what is logged then
        assert "books of" not in log


@pytest.mark.kernel
async def test_exporters_that_are_killed_repeat_no_more_than_was_under_way(start: Start) -> None:
    """This collector acknowledges nothing: whether it has read what it was sent nobody knows."""
    async with Collector() as collector:
        exporter = start(collector)

        async def reporting(sessions: int) -> None:
            await until(lambda: collector.sessions == sessions)
            seen = len(collector.rows)
            await until(lambda: len(collector.rows) >= seen + 20)

        async def go_on() -> None:
            for sessions in (1, 2, 3):
                await reporting(sessions)
                if sessions < 3:
                    exporter.kill()

        octets = await traffic(exporter, go_on())
        await exporter.stop()
        exported = exporter.reported(collector)
        for port in exporter.ports():
            mine = [row for row in collector.rows if row["sourceTransportPort"] == port]
            assert mine[-1]["octetTotalCount"] == octets
            assert len({row["flowStartMilliseconds"] for row in mine}) == 1
            # What was under way at each of two kills may be missing or come again; totals have it.
            under_way = 2 * max(row["octetDeltaCount"] for row in mine)
            assert octets - under_way <= exported[port] <= octets + under_way


@pytest.mark.kernel
async def test_over_udp_to_a_collector_that_goes_away_and_comes_back(start: Start) -> None:
    """ICMP ends the session, and the next begins with templates; others come every second."""
    async with DatagramCollector() as collector:
        exporter = start(collector, templateRefreshTimeout="1s")
        await traffic(exporter, until(lambda: collector.refreshed, "templates again"))
        await until(lambda: exporter.reported(collector).keys() == set(exporter.ports()))
        await collector.go_away()
        await traffic(exporter, exporter.metric("flowvis_exporter_client_sessions_total", 2.0))
        before = len(collector.rows)
        await collector.come()
        await traffic(exporter, until(lambda: len(collector.rows) >= before + 20, "more records"))
        exporter.send()
        log = await exporter.stop()
        assert "level=error" not in log
        for port in exporter.ports():
            rows = [row for row in collector.rows if row["sourceTransportPort"] == port]
            totals = [row["octetTotalCount"] for row in rows]
            assert totals == sorted(totals)
            assert totals[-1] % 100 == 0
