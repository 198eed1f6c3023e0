"""TLS in to ClickHouse acknowledged: the CPU of a real aggregator per record.

Three processes beside this one: flow-aggregator with its defaults (but for the active timeout: a
minute is compressed to some seconds), Debian's clickhouse-server, and a sender with 50 sessions of
mutual TLS. The CPU is that of the aggregator's process alone, from the first record to the last
acknowledgement. Half of the flows are between nodes: two records come in for one row.
"""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.clickhouse_server import clickhouse_server
from benchmarks.records import EPOCH_MS, INTERVAL_MS, NODES, Traffic
from flowvis.batch import Batch
from flowvis.cli.client import ControlClient
from flowvis.fields import EXPORTED, FlowType
from flowvis.ipfix.exporter import ExporterSession, observation_domain_id
from flowvis.transport.certificates import issue_ca, issue_client, issue_server

FLOWS = 100_000
INTERVALS = 8
PERIOD_S = 3.0  # between the starts of two intervals, and the active timeout
PATIENCE_S = 120.0


def run() -> dict[str, Any]:
    """Send `INTERVALS` intervals of `FLOWS` flows; wait until ClickHouse has them all."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        path = Path(name)
        records, octets = _encode(path)
        database = stack.enter_context(clickhouse_server(path / "clickhouse"))
        aggregator, client, port = stack.enter_context(_aggregator(path, database))
        sender = stack.enter_context(
            _process([sys.executable, "-m", "benchmarks.ingest", name, str(port)], text=True)
        )
        assert sender.stdout is not None
        assert sender.stdout.readline() == "connected\n"
        cpu = _cpu_seconds(aggregator.pid)
        began = time.monotonic()
        assert sender.stdin is not None
        sender.stdin.write("go\n")
        sender.stdin.flush()
        books = _wait(client, records)
        wall = time.monotonic() - began
        used = _cpu_seconds(aggregator.pid) - cpu
        stored = client.post("sql", {"query": "SELECT count(), sum(octetDeltaCount) FROM flows"})
        rows, sum_octets = map(int, stored["rows"][0])
        assert sum_octets == octets, f"{octets} octets were sent, {sum_octets} are stored"
        return {
            "records": records,
            "cpu_seconds": round(used, 2),
            "wall_seconds": round(wall, 2),
            "rss_mb": _peak_mb(aggregator.pid),
            "rows": rows,
            "sessions": NODES,
            "store": "clickhouse-server 18.16, native protocol, LZ4",
            "balanced": books["balanced"],
        }


def _encode(path: Path) -> tuple[int, int]:
    """Write a file of messages per node and interval; return the records and their octets."""
    traffic = Traffic(FLOWS)
    sessions = [
        ExporterSession(observation_domain_id(f"node-{node}"), EXPORTED) for node in range(NODES)
    ]
    records = octets = 0
    for number in range(INTERVALS):
        interval = traffic.interval(number)
        now = (EPOCH_MS + number * INTERVAL_MS) // 1000
        records += len(interval.batch)
        delta, twice = interval.batch["octetDeltaCount"], _of_two_nodes(interval.batch)
        octets += int(delta[~twice].sum()) + int(delta[twice].sum()) // 2
        for node, session in enumerate(sessions):
            messages = [] if number else session.templates(now)
            messages += session.encode(interval.batch.take(interval.node == node), now)
            (path / f"{number}-{node}").write_bytes(b"".join(messages))
    return records, octets


def _of_two_nodes(batch: Batch) -> NDArray[np.bool_]:
    """Which records come twice: once from each node of the connection."""
    return np.asarray(batch["flowType"] == FlowType.INTER_NODE)


@contextlib.contextmanager
def _process(command: list[str], **options: Any) -> "Iterator[subprocess.Popen[Any]]":
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
def _aggregator(
    path: Path, database: int
) -> "Iterator[tuple[subprocess.Popen[Any], ControlClient, int]]":
    ca = issue_ca()
    ca.write(path, "ca")
    issue_server(ca, ["localhost", "127.0.0.1"]).write(path, "server")
    issue_client(ca, "sender").write(path, "client")
    control = path / "control.sock"
    settings = {
        "activeFlowRecordTimeout": f"{PERIOD_S:g}s",
        "clusterID": "0f8b1c1e-5f7c-4a3e-9d6e-3d1f0f2f7a11",
        "clickHouse": {"enable": True, "databaseURL": f"tcp://127.0.0.1:{database}"},
        "tls": {
            "ca": str(path / "ca.crt"),
            "certificate": str(path / "server.crt"),
            "key": str(path / "server.key"),
        },
        "listen": {"address": "127.0.0.1", "port": 0},
        "status": {"port": 0},
        "controlSocket": str(control),
        "log": {"level": "error"},
    }
    (path / "aggregator.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "flowvis.cli.aggregator"]
    with _process([*command, "--config", str(path / "aggregator.yaml")]) as process:
        client = ControlClient(control)
        yield process, client, _listening(client, process)


def _listening(client: ControlClient, process: "subprocess.Popen[Any]") -> int:
    """Wait until the aggregator listens; return the port."""
    for _ in range(600):
        assert process.poll() is None, f"the aggregator ended with {process.returncode}"
        with contextlib.suppress(Exception):
            status = client.get("status")
            if status["ready"]:
                return int(status["port"])
        time.sleep(0.05)
    raise TimeoutError("the aggregator does not start")


def _wait(client: ControlClient, records: int) -> dict[str, Any]:
    """Wait until all records have arrived and nothing is on its way; return the books."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        books: dict[str, Any] = client.get("ledger")
        stages = books["stages"]
        if stages[0]["received"] == records and not any(stage["held"] for stage in stages):
            return books
    raise TimeoutError(json.dumps(books))


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError("no VmHWM")


def send(path: Path, port: int) -> None:
    """Be 50 exporters: one TLS session each, an interval as fast as it is taken, every period."""
    context = ssl.create_default_context(cafile=path / "ca.crt")
    context.load_cert_chain(path / "client.crt", path / "client.key")
    data = [
        [(path / f"{number}-{node}").read_bytes() for node in range(NODES)]
        for number in range(INTERVALS)
    ]
    sockets = [
        context.wrap_socket(
            socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
        )
        for _ in range(NODES)
    ]
    print("connected", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for number, interval in enumerate(data):
        time.sleep(max(began + number * PERIOD_S - time.monotonic(), 0))
        for sock, octets in zip(sockets, interval, strict=True):
            sock.sendall(octets)
    sys.stdin.readline()


if __name__ == "__main__":
    send(Path(sys.argv[1]), int(sys.argv[2]))
