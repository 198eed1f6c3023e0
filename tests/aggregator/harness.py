"""A real flow-aggregator in a process of its own, and exporters that send it what a test says."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from flowvis.batch import Batch
from flowvis.cli.client import ControlClient as Control
from flowvis.errors import FlowvisError
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.transport.address import CollectorAddress
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.client import Client
from flowvis.transport.tls import TlsFiles
from waiting import PATIENCE_S, block_until

from .records import records

Books = dict[str, dict[str, Any]]
"""The ledger's stages by name."""

BASE_MS = (int(time.time()) - 2000) * 1000
"""When all connections began: one and the same however long a test takes, and no end is to come."""


class Aggregator:
    """One aggregator with settings of its own; may be started again after it has ended."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.control = Control(path / "control.sock")
        self.port = 0
        self.status_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        ca = issue_ca()
        ca.write(path, "ca")
        issue_server(ca, ["localhost", "127.0.0.1"]).write(path, "server")
        issue_client(ca, "node").write(path, "client")
        document = {
            "tls": {
                "ca": str(path / "ca.crt"),
                "certificate": str(path / "server.crt"),
                "key": str(path / "server.key"),
            },
            "listen": {"address": "127.0.0.1", "port": 0},
            "status": {"port": 0},
            "apiServer": {"apiPort": 0},
            "controlSocket": str(path / "control.sock"),
            "activeFlowRecordTimeout": "500ms",
            "inactiveFlowRecordTimeout": "2s",
            "gracePeriod": "60s",
            "clusterID": "east",
        }
        self._document: dict[str, Any] = document | settings
        self._write()

    def start(self) -> "Aggregator":
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "flowvis.cli.aggregator"]
        with (self.path / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self.path / "config.yaml")],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        status = block_until(self._ready, self.log, despite=(FlowvisError,))
        self.port, self.status_port = status["port"], status["statusPort"]
        return self

    def _ready(self) -> dict[str, Any]:
        """Its status once it is ready, nothing before."""
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        status: dict[str, Any] = self.control.get("status")
        return status if status["ready"] else {}

    def configure(self, changes: dict[str, Any], *, reported: bool = True) -> None:
        """Change its file while it runs; with `reported` it looks at once."""
        self._document |= changes
        self._write()
        if reported:
            assert self._process is not None
            self._process.send_signal(signal.SIGHUP)

    def _write(self) -> None:
        fresh = self.path / "config.yaml.new"
        fresh.write_text(yaml.safe_dump(self._document))
        fresh.replace(self.path / "config.yaml")

    def logged(self, text: str) -> None:
        """Wait until a text is in the log."""
        block_until(lambda: text in self.log(), lambda: f"no {text!r} in\n{self.log()}")

    def metrics(self) -> dict[str, float]:
        """Its metrics, by name with labels."""
        with urlopen(f"http://127.0.0.1:{self.status_port}/metrics", timeout=PATIENCE_S) as answer:
            lines = str(answer.read(), "utf-8").splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in values.items()}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(PATIENCE_S)
        finally:
            self.end()

    def end(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.path / "log").read_text()

    def books(self) -> Books:
        """The ledger's stages by name; asserts that they balance."""
        ledger = self.control.get("ledger")
        assert ledger["balanced"], ledger
        return {stage["stage"]: stage for stage in ledger["stages"]}

    def settled(self, received: int) -> Books:
        """Wait until so many records have come in and nothing is held; return the books."""
        return self._books_when(
            lambda books: (
                books["collector"]["received"] >= received
                and not any(stage["held"] for stage in books.values())
            )
        )

    def until(self, stage: str, what: str, count: int) -> Books:
        """Wait until a stage's number is as given; return the books."""
        return self._books_when(lambda books: books[stage][what] == count)

    def _books_when(self, condition: Callable[[Books], bool]) -> Books:
        def met() -> Books:
            books = self.books()
            return books if condition(books) else {}

        return block_until(met, lambda: f"{self.books()}\n{self.log()}")

    def sql(self, query: str) -> list[list[Any]]:
        rows: list[list[Any]] = self.control.post("sql", {"query": query})["rows"]
        return rows

    def client(self) -> Client:
        """An exporter's connection."""
        address = CollectorAddress("localhost", self.port, "tls")
        files = TlsFiles(self.path / "ca.crt", self.path / "client.crt", self.path / "client.key")
        return Client(address, files)


@contextlib.contextmanager
def running(path: Path, settings: dict[str, Any]) -> Iterator[Aggregator]:
    aggregator = Aggregator(path, settings)
    try:
        yield aggregator.start()
    finally:
        aggregator.end()


def exported(*rows: dict[str, Any]) -> Batch:
    """Records as an exporter has them."""
    return records(*rows, fields=EXPORTED)


def connection(number: int, *, interval: int = 1, source: bool = True) -> dict[str, Any]:
    """One node's record of an inter-node connection in its `interval`-th interval."""
    start, end = BASE_MS, BASE_MS + interval * 1000
    half = (
        {"sourcePodName": f"client-{number}", "sourceNodeName": "n1"}
        if source
        else {"destinationPodName": f"server-{number}", "destinationNodeName": "n2"}
    )
    return {
        "flowStartSeconds": start // 1000,
        "flowStartMilliseconds": start,
        "flowEndSeconds": end // 1000,
        "flowEndMilliseconds": end,
        "flowEndReason": 2,
        "sourceIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        "destinationIP": "10.200.0.1",
        "sourceTransportPort": 40000,
        "destinationTransportPort": 80,
        "protocolIdentifier": 6,
        "flowType": 2,
        "octetTotalCount": 1000 * interval,
        "octetDeltaCount": 1000,
        "packetTotalCount": 10 * interval,
        "packetDeltaCount": 10,
        **half,
    }


async def send(client: Client, batches: Sequence[Batch]) -> bool:
    """Send batches in one session; whether the aggregator confirmed that it read all."""
    await client.connect()
    session = ExporterSession(1, EXPORTED, max_message=client.max_message)
    now = int(time.time())
    messages = session.templates(now)
    for batch in batches:
        messages += session.encode(batch, now)
    await client.send(messages)
    return await client.close(PATIENCE_S)


def deliver(aggregator: Aggregator, *batches: Batch) -> None:
    """Send batches, and be sure that they arrived."""
    assert asyncio.run(send(aggregator.client(), batches))
