"""Aggregators that end while a real exporter sends: the store has what the kernel counted."""

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clickhouse.server import Server
from exporter.test_export import Node
from flowvis.transport.address import CollectorAddress
from flowvis.transport.tls import TlsFiles
from ports import free_port
from waiting import until

from .harness import Aggregator

pytestmark = pytest.mark.clickhouse

LIVE = range(1, 31)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "clickhouse")
    server.start()
    yield server
    server.kill()


class Cluster:
    """Aggregators at addresses of their own, of which the exporter takes any, over one store."""

    def __init__(self, path: Path, server: Server, count: int) -> None:
        self.hosts = [f"127.0.0.{number}" for number in range(1, count + 1)]
        self.port = free_port()
        self.path = path
        self.aggregators: list[Aggregator] = []
        for host in self.hosts:
            settings = {
                "listen": {"address": host, "port": self.port},
                "clickHouse": {"enable": True, "databaseURL": server.url, "commitInterval": "1s"},
            }
            if self.aggregators:
                settings["tls"] = self.tls
            self.aggregators.append(Aggregator(path / host, settings))

    @property
    def tls(self) -> dict[str, Any]:
        """The first one's certificates are all others'."""
        first = self.aggregators[0].path
        names = {"ca": "ca.crt", "certificate": "server.crt", "key": "server.key"}
        return {name: str(first / file) for name, file in names.items()}

    async def resolve(self, _: CollectorAddress) -> Sequence[str]:
        return random.sample(self.hosts, len(self.hosts))

    def node(self) -> Node:
        first = self.aggregators[0].path
        files = TlsFiles(first / "ca.crt", first / "client.crt", first / "client.key")
        address = CollectorAddress("localhost", self.port)
        return Node(address, tls=files, active_ms=300, hosts=self.resolve)

    def start(self) -> None:
        for aggregator in self.aggregators:
            aggregator.start()

    def end(self) -> None:
        for aggregator in self.aggregators:
            aggregator.end()


class Kernel:
    """Connections that come, grow and go, and what they have counted."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.octets: dict[int, int] = {}
        self._choose = random.Random(seed)
        self._ended = 1000
        self._live = 0

    async def work(self, seconds: float) -> None:
        """Go on for some time."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        while loop.time() < until_s:
            self._live += 100
            self.node.list(LIVE, self._live)
            self.octets |= dict.fromkeys(LIVE, self._live)
            ended = range(self._ended, self._ended + self._choose.randrange(10))
            self._ended = ended.stop
            self.node.end(*ended)
            self.octets |= dict.fromkeys(ended, 100)
            self.node.exporter.collect(self.node.table)
            await asyncio.sleep(self._choose.random() / 5)


def stored(aggregator: Aggregator) -> dict[int, int]:
    rows = aggregator.sql(
        "SELECT sourceTransportPort, sum(octetDeltaCount) FROM flows GROUP BY sourceTransportPort"
    )
    return {int(port): int(octets) for port, octets in rows}


async def all_is_durable(node: Node) -> None:
    await until(lambda: not len(node.pending), "the last acknowledgement")


async def run(cluster: Cluster, number: signal.Signals, seed: int) -> None:
    """Work; end and begin each aggregator in turn meanwhile; compare."""
    node = cluster.node()
    kernel = Kernel(node, seed)
    await node.exporter.start()
    await until(lambda: node.exporter.client.connected)
    assert node.exporter.client.acknowledges
    for aggregator in cluster.aggregators * (2 // len(cluster.aggregators)):
        await kernel.work(1.5)
        await asyncio.gather(kernel.work(2.0), asyncio.to_thread(aggregator.stop, number))
        await asyncio.to_thread(aggregator.start)
    await kernel.work(1.0)
    await all_is_durable(node)
    node.balanced()
    assert node.pending.stage.dropped == {}
    assert node.pending.stats.sent_again > 0
    found = await asyncio.to_thread(stored, cluster.aggregators[0])
    assert found == kernel.octets
    await node.exporter.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "count"), [(signal.SIGKILL, 2), (signal.SIGTERM, 1)])
def test_aggregators_that_end_lose_nothing_and_count_nothing_twice(
    tmp_path: Path, server: Server, count: int, number: signal.Signals
) -> None:
    cluster = Cluster(tmp_path, server, count)
    try:
        cluster.start()
        asyncio.run(run(cluster, number, seed=count))
    finally:
        cluster.end()
