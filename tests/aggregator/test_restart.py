"""Real aggregators that are killed or stopped on a real store, and an exporter that keeps records.

What is stored adds up to what was counted.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowvis.fields import EXPORTED
from flowvis.ipfix.acknowledgement import Acknowledgements
from flowvis.ipfix.exporter import ExporterSession
from flowvis.transport.client import Client, ConnectionLost
from flowvis.transport.tls import TlsFiles
from waiting import until

from .harness import Aggregator, connection, exported

DOMAIN = 9
Row = dict[str, Any]


class KeepingExporter:
    """Keeps what it has sent until it hears that it is durable, and sends it again."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.kept: list[Row] = []
        self.heard = 0
        self._aggregator = aggregator
        self._ever = 0
        self._acknowledgements = Acknowledgements(DOMAIN)
        self._client: Client | None = None

    async def connect(self) -> None:
        plain = self._aggregator.client()
        path = self._aggregator.path
        files = TlsFiles(path / "ca.crt", path / "client.crt", path / "client.key")
        self._client = Client(plain.address, files, on_data=self._receive)
        self._acknowledgements, self.heard = Acknowledgements(DOMAIN), 0
        self._session = ExporterSession(DOMAIN, EXPORTED)
        await self._client.connect()
        assert self._client.acknowledges
        now = int(time.time())
        self._sent = 0
        await self._client.send(self._session.templates(now))
        await self._client.send(self._session.sent_again(self._ever, now))
        again, self.kept = self.kept, []
        await self.send(*again)

    async def send(self, *rows: Row) -> None:
        assert self._client is not None
        for row in rows:
            self.kept.append(row)
            self._sent += 1
            self._ever = max(self._ever, len(self.kept))
            with contextlib.suppress(ConnectionLost):
                await self._client.send(self._session.encode(exported(row), int(time.time())))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _receive(self, data: memoryview) -> None:
        count = self._acknowledgements.receive(data, self._sent)
        done, self.heard = count - self.heard, count
        del self.kept[:done]
        self._ever -= done


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[Aggregator]:
    store = {"enable": True, "databaseURL": f"embedded://{tmp_path}/store", "commitInterval": "1s"}
    started = Aggregator(tmp_path, {"clickHouse": store, "correlationTimeout": "30s"}).start()
    try:
        yield started
    finally:
        started.end()


def halves(interval: int, *, source: bool = True, destination: bool = True) -> list[Row]:
    wanted = [side for side, sends in ((True, source), (False, destination)) if sends]
    return [connection(n, interval=interval, source=side) for n in (1, 2, 3) for side in wanted]


def check_sums(aggregator: Aggregator, octets: int) -> None:
    sums = ", ".join(
        f"sum(octetDeltaCount{suffix})" for suffix in ("", "FromSourceNode", "FromDestinationNode")
    )
    rows = aggregator.sql(f"SELECT sourceIP, {sums} FROM flows GROUP BY sourceIP ORDER BY sourceIP")
    assert rows == [[f"10.0.0.{n}", octets, octets, octets] for n in (1, 2, 3)]


@pytest.mark.parametrize(("how", "durable"), [(signal.SIGKILL, True), (signal.SIGTERM, True)])
async def test_the_next_aggregator_goes_on(
    aggregator: Aggregator, how: signal.Signals, durable: bool
) -> None:
    exporter = KeepingExporter(aggregator)
    await exporter.connect()
    await exporter.send(*halves(1))
    if durable:
        await until(lambda: not exporter.kept)
    await exporter.send(*halves(2, destination=False))  # wait for their other halves
    await asyncio.to_thread(aggregator.stop, how)
    assert len(exporter.kept) >= 3
    aggregator.start()
    await exporter.connect()
    await exporter.send(*halves(2, source=False), *halves(3))
    await until(lambda: not exporter.kept)
    check_sums(aggregator, 3000)
    aggregator.books()
    await exporter.close()


async def test_what_another_cluster_stored_of_the_same_addresses_is_not_ours(
    aggregator: Aggregator,
) -> None:
    exporter = KeepingExporter(aggregator)
    await exporter.connect()
    await exporter.send(*halves(1), *halves(2))
    await until(lambda: not exporter.kept)
    await exporter.close()
    await asyncio.to_thread(aggregator.stop)
    aggregator.configure({"clusterID": "west"}, reported=False)
    aggregator.start()
    exporter = KeepingExporter(aggregator)
    await exporter.connect()
    await exporter.send(*halves(1))
    await until(lambda: not exporter.kept)
    check_sums(aggregator, 3000)
    rows = aggregator.sql(
        "SELECT clusterUUID, sum(octetDeltaCount) FROM flows GROUP BY 1 ORDER BY 1"
    )
    assert rows == [["east", 6000], ["west", 3000]]
    await exporter.close()
