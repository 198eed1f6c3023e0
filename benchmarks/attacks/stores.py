"""Stores and collectors behind the aggregator that do not do their part."""

import contextlib
import os
import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.attacks import ATTACKER, Findings, Store, Target, attack
from benchmarks.peer import Records, connect, context
from flowvis.cli.client import ControlClient

REPORTED_S = 10.0
PORT_FILE = "hostile-port"
HOSTILE = b"\x0a\x60"  # 10.96
RESET = struct.pack("ii", 1, 0)
_THEIRS = {"sourcePodNamespace": "hostile", "destinationPodNamespace": "hostile"}
"""What is not looked for in the stream of good records."""


@attack("store-frozen", store=Store.SERVER)
def store_frozen(target: Target, over: Event) -> Findings:
    """A ClickHouse that neither answers nor hangs up: a problem in /status within seconds."""
    os.kill(target.store_pid, signal.SIGSTOP)
    try:
        return _reported(target, over)
    finally:
        os.kill(target.store_pid, signal.SIGCONT)


def _reported(target: Target, over: Event) -> Findings:
    """Wait until the attack is over; return how soon a destination's problem was reported."""
    began, reported = time.monotonic(), 0.0
    client = ControlClient(target.control)
    while not (over.is_set() and (reported or time.monotonic() - began > REPORTED_S)):
        if not reported and any(each["problem"] for each in client.get("status")["destinations"]):
            reported = time.monotonic() - began
        time.sleep(0.2)
    return {"reported_s": round(reported, 1) or None, "held": 0 < reported <= REPORTED_S + 1}


def _port(path: Path) -> int:
    """Choose a port for what the aggregator will connect to: none that connections get."""
    with socket.socket() as probe:
        for port in random.sample(range(10_000, 30_000), 100):
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                break
        port = int(probe.getsockname()[1])
    (path / PORT_FILE).write_text(str(port))
    return port


def _collector(path: Path) -> dict[str, Any]:
    return {"flowCollector": {"enable": True, "address": f"127.0.0.1:{_port(path)}:tcp"}}


def _clickhouse(path: Path) -> dict[str, Any]:
    url = f"tcp://127.0.0.1:{_port(path)}"
    return {
        "flowCollector": {"enable": False},
        "clickHouse": {"enable": True, "databaseURL": url, "commitInterval": "1s"},
    }


def _serve(target: Target, over: Event, answer: Callable[[socket.socket], None]) -> int:
    """Be what the aggregator connects to, until the attack is over; return how often it came."""
    port = int((target.directory / PORT_FILE).read_text())
    came, kept = 0, []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(0.2)
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                made, _ = listener.accept()
                came += 1
                kept.append(stack.enter_context(made))
                threading.Thread(target=_answer, args=(answer, made), daemon=True).start()
    return came


def _answer(answer: Callable[[socket.socket], None], made: socket.socket) -> None:
    with contextlib.suppress(OSError):
        answer(made)


def _flood(target: Target, over: Event) -> None:
    """Send many connections, so that what is behind the aggregator has something to refuse."""
    made = Records(domain=9)
    templates = made.templates()
    tls = context(target.directory)
    with connect(target.port, tls, ATTACKER) as session:
        session.sendall(templates)
        port = 1024
        while not over.wait(0.1):
            port += 1
            values: dict[str, Any] = {"sourceTransportPort": port % 65536}
            messages = made.messages(HOSTILE, range(500), **values, **_THEIRS)
            session.sendall(b"".join(messages))


@attack("collector-never-reads", prepare=_collector, sink=False)
def never_reads(target: Target, over: Event) -> Findings:
    """An IPFIX collector that takes the session and reads nothing, while there is much to send."""
    threading.Thread(target=_flood, args=(target, over), daemon=True).start()
    return {"sessions": _serve(target, over, lambda _: None)}


@attack("collector-resets", prepare=_collector, sink=False)
def resets(target: Target, over: Event) -> Findings:
    """An IPFIX collector that resets each session after a moment."""
    threading.Thread(target=_flood, args=(target, over), daemon=True).start()

    def reset(made: socket.socket) -> None:
        made.recv(1 << 16)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        made.close()

    return {"sessions": _serve(target, over, reset)}


@attack("collector-garbage", prepare=_collector, sink=False)
def garbage(target: Target, over: Event) -> Findings:
    """An IPFIX collector that answers, without end."""

    def answer(made: socket.socket) -> None:
        while not over.is_set():
            made.sendall(random.randbytes(1 << 16))

    return {"sessions": _serve(target, over, answer)}


@attack("clickhouse-garbage", prepare=_clickhouse, sink=False)
def clickhouse_garbage(target: Target, over: Event) -> Findings:
    """A ClickHouse whose answers are exceptions of any length, and what else is no answer."""
    endless = b"\xff" * 8 + b"\x7f"  # a length of 2 ** 63 - 1
    answers = [
        b"\x02" + struct.pack("<i", 1) + endless,  # an exception whose name never ends
        b"\x00" + endless,  # a hello whose name does not
        b"\x02" + struct.pack("<i", 60) + b"\x01E\x80\x80\x80\x80\x04" + b"x" * (64 << 20),
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"\x02" + (struct.pack("<i", 1) + b"\x01E\x01m\x01s\x01") * 100_000,  # nested for ever
    ]
    turn = iter(range(1 << 30))

    def answer(made: socket.socket) -> None:
        made.recv(1 << 12)
        data = answers[next(turn) % len(answers)]
        made.sendall(data)
        while not over.is_set() and data.endswith(b"\x7f"):
            made.sendall(b"x" * (1 << 16))

    ended = threading.Event()
    report: Findings = {}
    watch = threading.Thread(target=lambda: report.update(_reported(target, ended)), daemon=True)
    watch.start()
    came = _serve(target, over, answer)
    ended.set()
    watch.join(REPORTED_S)
    return report | {"sessions": came}
