"""A real flow-exporter with 10,000 connections that are all in use, at its default intervals.

It runs in a network namespace of its own; the connections are datagrams over loopback from one
client to 10,000 addresses, sent every two seconds, all of them counted by the kernel. Measured is
a minute of the process, in which each connection is polled twelve times and exported once, over
TLS.
"""

import ctypes
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.usage import cpu_seconds, peak_mb
from flowvis.conntrack.sources.tracking import RULE
from flowvis.transport.certificates import issue_ca, issue_client, issue_server
from flowvis.transport.tls import TlsFiles

CONNECTIONS = 10_000
EVERY_S = 2.0
WARM_UP_S = 15.0
MEASURED_S = 60.0
POLL_S = 5.0
CLONE_NEWNET = 0x40000000


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flowvis-") as room, _namespace():
        files = _certificates(Path(room))
        with _collector(files) as port, _traffic():
            daemon = _start(Path(room), port)
            try:
                time.sleep(WARM_UP_S)
                before, wall = cpu_seconds(daemon.pid), time.monotonic()
                time.sleep(MEASURED_S)
                cpu, wall = cpu_seconds(daemon.pid) - before, time.monotonic() - wall
                rss_mb = peak_mb(daemon.pid)
            finally:
                daemon.terminate()
                code = daemon.wait(30)
            assert code == 0, f"flow-exporter exited with {code}"
    return {
        "records": round(CONNECTIONS * wall / POLL_S),  # entries polled
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "cpu_percent": round(100 * cpu / wall, 2),
        "rss_mb": rss_mb,
    }


@contextmanager
def _namespace() -> Iterator[None]:
    """A new network namespace that tracks connections, for this thread and its children."""
    libc = ctypes.CDLL(None)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise PermissionError("a network namespace needs root: run it as root")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nft", RULE], check=True)
        for switch in ("acct", "timestamp"):  # before the first packet, or nothing is counted
            Path(f"/proc/sys/net/netfilter/nf_conntrack_{switch}").write_text("1")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)


def _certificates(room: Path) -> TlsFiles:
    ca = issue_ca()
    ca.write(room, "ca")
    issue_client(ca, "node").write(room, "client")
    certificate, key = issue_server(ca, ["127.0.0.1"]).write(room, "server")
    return TlsFiles(room / "ca.crt", certificate, key)


@contextmanager
def _collector(files: TlsFiles) -> Iterator[int]:
    """Read what one exporter sends and throw it away; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = files.server_context()
        reader = threading.Thread(target=_read_all, args=(listener, context), daemon=True)
        reader.start()
        yield listener.getsockname()[1]
        reader.join(10)


def _read_all(listener: socket.socket, context: ssl.SSLContext) -> None:
    plain, _ = listener.accept()
    with context.wrap_socket(plain, server_side=True) as stream:
        while stream.recv(1 << 16):
            pass


@contextmanager
def _traffic() -> Iterator[None]:
    """Keep all connections in use."""
    over = threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("0.0.0.0", 0))  # noqa: S104  in a namespace of its own
        port = server.getsockname()[1]
        sender = threading.Thread(target=_send, args=(client, port, over), daemon=True)
        sender.start()
        yield
        over.set()
        sender.join()


def _send(client: socket.socket, port: int, over: threading.Event) -> None:
    peers = [(f"127.1.{at >> 8}.{at & 255}", port) for at in range(1, CONNECTIONS + 1)]
    while not over.wait(EVERY_S):
        for peer in peers:
            client.sendto(b"x" * 100, peer)


def _start(room: Path, port: int) -> "subprocess.Popen[bytes]":
    settings = {
        "flowExporter": {"flowCollectorAddr": f"127.0.0.1:{port}:tls"},
        "conntrack": {"loopback": True},
        "tls": {
            "ca": str(room / "ca.crt"),
            "certificate": str(room / "client.crt"),
            "key": str(room / "client.key"),
        },
        "state": {"directory": str(room)},
        "status": {"port": 0},
        "log": {"level": "warning"},
    }
    config = room / "flow-exporter.yaml"
    config.write_text(yaml.safe_dump(settings))
    return subprocess.Popen([sys.executable, "-m", "flowvis.cli.exporter", "--config", config])
