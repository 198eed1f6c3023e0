"""A real flow-aggregator in a process of its own, and what 50 exporters send it."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.records import EPOCH_MS, INTERVAL_MS, NODES, Traffic
from benchmarks.usage import cpu_seconds
from flowvis.batch import Batch
from flowvis.cli.client import ControlClient
from flowvis.fields import Field, FlowType, Kind
from flowvis.ipfix.exporter import TEMPLATE_IDS, ExporterSession, observation_domain_id
from flowvis.ipfix.plan import encode_program
from flowvis.native import RecordEncoder
from flowvis.native.contract.ipfix import HEADER, SET
from flowvis.transport.certificates import issue_ca, issue_client, issue_server

PATIENCE_S = 120.0
CONTROL = "control.sock"


def encode(
    path: Path, flows: int, intervals: int, fields: Sequence[Field], *, one_by_one: bool = False
) -> tuple[int, int]:
    """Write a file of messages per node and interval; return the records and their octets."""
    traffic = Traffic(flows)
    domains = [observation_domain_id(f"node-{node}") for node in range(NODES)]
    sessions = [ExporterSession(domain, fields) for domain in domains]
    singles = [_SingleRecords(domain, fields) for domain in domains]
    records = octets = 0
    for number in range(intervals):
        interval = traffic.interval(number)
        now = (EPOCH_MS + number * INTERVAL_MS) // 1000
        records += len(interval.batch)
        delta, twice = interval.batch["octetDeltaCount"], _of_two_nodes(interval.batch)
        octets += int(delta[~twice].sum()) + int(delta[twice].sum()) // 2
        for node, session in enumerate(sessions):
            batch = interval.batch.take(interval.node == node)
            messages = [] if number else session.templates(now)
            messages += (singles[node] if one_by_one else session).encode(batch, now)
            (path / f"{number}-{node}").write_bytes(b"".join(messages))
    return records, octets


class _SingleRecords:
    """IPv4 records of one observation domain, each in a message of its own."""

    def __init__(self, domain: int, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._sequence = 0
        self._encoder = RecordEncoder(domain, TEMPLATE_IDS[4], encode_program(fields, 4))

    def encode(self, batch: Batch, now: int) -> list[bytes]:
        """As an `ExporterSession` does, in the order of the records' sizes.

        Two do not fit where the larger one just does, if it is less than twice as large.
        """
        sizes, columns = self._sizes(batch), [batch[field.name] for field in self._fields]
        order = np.argsort(sizes, kind="stable")
        messages: list[bytes] = []
        while len(order):
            largest = 2 * int(sizes[order[0]]) - 1
            rows, order = order[sizes[order] <= largest], order[sizes[order] > largest]
            made, written = self._encoder.encode(
                columns,
                batch.strings,
                rows,
                export_time=now,
                sequence=self._sequence,
                max_message=HEADER.size + SET.size + largest,
            )
            assert len(made) == written == len(rows)
            self._sequence += written
            messages += made
        return messages

    def _sizes(self, batch: Batch) -> NDArray[np.int64]:
        """The octets of each record."""
        lengths = np.diff(batch.strings.packed()[1]).astype(np.int64)
        sizes = np.zeros(len(batch), dtype=np.int64)
        for field in self._fields:
            if field.kind is Kind.TEXT:
                sizes += 1 + lengths[batch[field.name]]
            else:
                sizes += 4 if field.kind is Kind.ADDRESS else field.kind.dtype.itemsize
        return sizes


def _of_two_nodes(batch: Batch) -> NDArray[np.bool_]:
    """Which records come twice: once from each node of the connection."""
    return np.asarray(batch["flowType"] == FlowType.INTER_NODE)


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
    """A process with pipes, which ends with the context."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def aggregator(
    path: Path, active_timeout_s: float, destination: dict[str, Any]
) -> "Iterator[tuple[subprocess.Popen[Any], ControlClient, int]]":
    """An aggregator with its defaults but for these; yields its process, its API and its port."""
    settings = settings_in(path, "sender", active_timeout_s) | destination
    settings["log"] = {"level": "error"}
    (path / "aggregator.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "flowvis.cli.aggregator"]
    with process([*command, "--config", str(path / "aggregator.yaml")]) as daemon:
        client = ControlClient(path / CONTROL)
        yield daemon, client, _listening(client, daemon)


def settings_in(path: Path, client: str, active_timeout_s: float) -> dict[str, Any]:
    """Issue certificates into a directory; return the settings of an aggregator that uses them.

    It is as shipped, but listens on any port. A client named so has client.crt and client.key.
    """
    ca = issue_ca()
    ca.write(path, "ca")
    issue_server(ca, ["localhost", "127.0.0.1"]).write(path, "server")
    issue_client(ca, client).write(path, "client")
    return {
        "activeFlowRecordTimeout": f"{active_timeout_s:g}s",
        "clusterID": "0f8b1c1e-5f7c-4a3e-9d6e-3d1f0f2f7a11",
        "tls": {
            "ca": str(path / "ca.crt"),
            "certificate": str(path / "server.crt"),
            "key": str(path / "server.key"),
        },
        "listen": {"address": "127.0.0.1", "port": 0},
        "status": {"port": 0},
        "controlSocket": str(path / CONTROL),
    }


def _listening(client: ControlClient, daemon: "subprocess.Popen[Any]") -> int:
    """Wait until the aggregator listens; return the port."""
    for _ in range(600):
        assert daemon.poll() is None, f"the aggregator ended with {daemon.returncode}"
        with contextlib.suppress(Exception):
            status = client.get("status")
            if status["ready"]:
                return int(status["port"])
        time.sleep(0.05)
    raise TimeoutError("the aggregator does not start")


def sent(
    sender: "subprocess.Popen[str]",
    daemon: "subprocess.Popen[Any]",
    client: ControlClient,
    records: int,
) -> tuple[dict[str, Any], float, float]:
    """Let a sender that has connected begin, and wait until all its records have gone through.

    Returns the books, and the aggregator's CPU and the wall clock's time, in seconds.
    """
    assert sender.stdin is not None
    assert sender.stdout is not None
    assert sender.stdout.readline() == "connected\n"
    cpu, began = cpu_seconds(daemon.pid), time.monotonic()
    sender.stdin.write("go\n")
    sender.stdin.flush()
    books = _arrived(client, records)
    wall = time.monotonic() - began
    return books, cpu_seconds(daemon.pid) - cpu, wall


def _arrived(client: ControlClient, records: int) -> dict[str, Any]:
    """Wait until all records have arrived and nothing is on its way; return the books."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        books: dict[str, Any] = client.get("ledger")
        stages = books["stages"]
        if stages[0]["received"] == records and not any(stage["held"] for stage in stages):
            return books
    raise TimeoutError(json.dumps(books))
