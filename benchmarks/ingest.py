"""TLS in to ClickHouse acknowledged: the CPU of a real aggregator per record.

Three processes beside this one: flow-aggregator with its defaults (but for the active timeout: a
minute is compressed to some seconds), Debian's clickhouse-server, and a sender with 50 sessions of
mutual TLS. The CPU is that of the aggregator's process alone, from the first record to the last
acknowledgement. Half of the flows are between nodes: two records come in for one row.
"""

import contextlib
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.aggregator_process import (
    aggregator,
    encode,
    process,
    sent,
)
from benchmarks.clickhouse_server import clickhouse_server
from benchmarks.records import NODES
from benchmarks.usage import peak_mb
from flowvis.fields import EXPORTED

FLOWS = 100_000
INTERVALS = 8
PERIOD_S = 3.0  # between the starts of two intervals, and the active timeout


def run() -> dict[str, Any]:
    """Send `INTERVALS` intervals of `FLOWS` flows; wait until ClickHouse has them all."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        path = Path(name)
        records, octets = encode(path, FLOWS, INTERVALS, EXPORTED)
        database = stack.enter_context(clickhouse_server(path / "clickhouse"))
        store = {"enable": True, "databaseURL": f"tcp://127.0.0.1:{database}"}
        daemon, client, port = stack.enter_context(
            aggregator(path, PERIOD_S, {"clickHouse": store})
        )
        sender = stack.enter_context(
            process([sys.executable, "-m", "benchmarks.ingest", name, str(port)], text=True)
        )
        books, used, wall = sent(sender, daemon, client, records)
        stored = client.post("sql", {"query": "SELECT count(), sum(octetDeltaCount) FROM flows"})
        rows, sum_octets = map(int, stored["rows"][0])
        assert sum_octets == octets, f"{octets} octets were sent, {sum_octets} are stored"
        return {
            "records": records,
            "cpu_seconds": round(used, 2),
            "wall_seconds": round(wall, 2),
            "rss_mb": peak_mb(daemon.pid),
            "rows": rows,
            "sessions": NODES,
            "store": "clickhouse-server 18.16, native protocol, LZ4",
            "balanced": books["balanced"],
        }


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
