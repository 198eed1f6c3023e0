"""One record a message over TLS, as Antrea's agents send; IPFIX out: the CPU of a real aggregator.

As `ingest`, but each message of Antrea's 43 elements has one record and is a TLS record of its own,
and a collector that is sent the flows stands for the store. A node's messages of an interval come
as fast as they are taken. The octets that the collector got are compared with those of the flows.
"""

import json
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.aggregator_process import aggregator, encode, process, sent
from benchmarks.records import NODES, exported_by_antrea
from benchmarks.usage import peak_mb
from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, RecordBuffer
from flowvis.native import StringTable

FLOWS = 100_000
INTERVALS = 8
PENDING = 1_000_000  # room for all: on a busy machine the collector may be late
PERIOD_S = 3.0  # between the starts of two intervals, and the active timeout


def run() -> dict[str, Any]:
    """Send `INTERVALS` intervals of `FLOWS` flows; wait until the collector has them all."""
    itself = [sys.executable, "-m", "benchmarks.ingest_single"]
    with (
        tempfile.TemporaryDirectory() as name,
        process([*itself, "collect"], text=True) as collector,
    ):
        path = Path(name)
        fields = exported_by_antrea()
        records, octets = encode(path, FLOWS, INTERVALS, fields, one_by_one=True)
        assert collector.stdout is not None
        address = f"127.0.0.1:{int(collector.stdout.readline())}:tcp"
        destination = {
            "flowCollector": {"enable": True, "address": address, "maxPendingRecords": PENDING}
        }
        with (
            aggregator(path, PERIOD_S, destination) as (daemon, client, port),
            process([*itself, "send", name, str(port)], text=True) as sender,
        ):
            books, used, wall = sent(sender, daemon, client, records)
            rss_mb = peak_mb(daemon.pid)
        collected = json.loads(collector.stdout.readline())
        assert collected["octets"] == octets, (
            f"{octets} octets were sent, got: {collected}, {books}"
        )
        return {
            "records": records,
            "cpu_seconds": round(used, 2),
            "wall_seconds": round(wall, 2),
            "rss_mb": rss_mb,
            "rows": collected["rows"],
            "sessions": NODES,
            "balanced": books["balanced"],
        }


def send(path: Path, port: int) -> None:
    """Be 50 exporters: one TLS session each, an interval as fast as it is taken, every period."""
    context = ssl.create_default_context(cafile=path / "ca.crt")
    context.load_cert_chain(path / "client.crt", path / "client.key")
    sessions = [_Session(context, port) for _ in range(NODES)]
    intervals = [
        [
            session.sealed((path / f"{number}-{node}").read_bytes())
            for node, session in enumerate(sessions)
        ]
        for number in range(INTERVALS)
    ]
    print("connected", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for number, interval in enumerate(intervals):
        time.sleep(max(began + number * PERIOD_S - time.monotonic(), 0))
        for session, octets in zip(sessions, interval, strict=True):
            session.sock.sendall(octets)
    sys.stdin.readline()


class _Session:
    """A client's TLS session."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(1 << 16))
            else:
                break
        self.sock.sendall(self._outgoing.read())

    def sealed(self, stream: bytes) -> bytes:
        """Each message of a stream as a TLS record."""
        for message in _messages(stream):
            self._tls.write(message)
        return self._outgoing.read()


def _messages(stream: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        length = int.from_bytes(stream[at + 2 : at + 4])
        yield stream[at : at + length]
        at += length


def collect() -> None:
    """Be the collector: print the port; at the end of its one session, how much came."""
    buffer = RecordBuffer(EXPORTED, StringTable())
    session = CollectorSession("aggregator", buffer)
    rows = octets = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
    stream = []
    while data := sock.recv(
        1 << 20
    ):  # read in no time, as what is slow here would be dropped there
        stream.append(data)
    for data in stream:
        session.receive(data)
        rows += len(buffer)
        octets += int(buffer.batch()["octetDeltaCount"].sum())
        buffer.clear()
    print(json.dumps({"rows": rows, "octets": octets}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "collect":
        collect()
    else:
        send(Path(sys.argv[2]), int(sys.argv[3]))
