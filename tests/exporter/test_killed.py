"""A real exporter that is killed at any moment, and what the one that follows makes of it."""

import asyncio
import socket
from collections import Counter
from pathlib import Path

import pytest

from cli.test_exporter import until_answered
from exporter.collector import Collector
from exporter.test_export import deltas
from exporter.test_live import Start, start
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.fields import EXPORTED
from flowvis.ipfix.file import read_file
from flowvis.native import StringTable
from waiting import until

__all__ = ["start"]

pytestmark = pytest.mark.kernel


class Passers:
    """Connections of some datagrams, that are over soon after."""

    def __init__(self) -> None:
        self.octets: Counter[int] = Counter()
        for name in ("udp_timeout", "udp_timeout_stream"):
            (ROOT / f"nf_conntrack_{name}").write_text("1")

    def pass_by(self, count: int, datagrams: int = 1) -> None:
        for _ in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind(("127.0.0.1", 0))
                for _ in range(datagrams):
                    client.sendto(bytes(72), ("127.0.0.1", 9))
                self.octets[client.getsockname()[1]] += 100 * datagrams


def kept(directory: Path) -> int:
    """How many bytes records on disk report."""
    found = 0
    for path in directory.glob("*.records/*.ipfix"):
        batch = read_file(path.read_bytes(), EXPORTED, StringTable()).batch
        found += int(batch["octetDeltaCount"].sum())
    return found


async def test_what_it_had_not_sent_is_sent_by_the_next_one(start: Start) -> None:
    """The kernel has forgotten these connections, and only the killed exporters knew of them."""
    passers, waits = Passers(), {"activeFlowExportTimeout": "1h", "idleFlowExportTimeout": "1h"}
    async with Collector() as collector:
        exporter = start(collector, grace_period="1s", **waits)
        await until(lambda: collector.sessions == 1)
        await collector.go_away()
        for number in range(1, 3):
            passers.pass_by(7, datagrams=number)
            await until(lambda: kept(exporter.path) == passers.octets.total())
            exporter.kill()
            await asyncio.to_thread(until_answered, exporter.status, "readyz")
        await collector.come()
        await until(lambda: deltas(collector).total() >= passers.octets.total())
        await exporter.stop()
        assert deltas(collector) == passers.octets
        assert kept(exporter.path) == 0


async def test_an_orderly_stop_leaves_what_the_collector_did_not_take(start: Start) -> None:
    passers, waits = Passers(), {"activeFlowExportTimeout": "1h", "idleFlowExportTimeout": "1h"}
    async with Collector() as collector:
        exporter = start(collector, grace_period="1s", **waits)
        await until(lambda: collector.sessions == 1)
        await collector.go_away()
        passers.pass_by(5)
        await until(lambda: kept(exporter.path) == 500)
        log = await exporter.stop()
        assert "5 records that were not acknowledged are left to the next exporter" in log
        assert "are lost" not in log
        exporter.kill()
        await collector.come()
        await until(lambda: deltas(collector).total() >= passers.octets.total())
        await exporter.stop()
        assert deltas(collector) == passers.octets
