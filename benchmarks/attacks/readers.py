"""Readers of the HTTP API on TCP who should not be, or who take more than their part.

What a good reader notices is measured here, without and with the attack: it asks a question of the
store every `EVERY_S`, over one connection.
"""

import contextlib
import http.client
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

from benchmarks.attacks import ATTACKER, Findings, Store, Target, attack
from flowvis.cli.client import ControlClient

EVERY_S = 0.1
CALM_S = 3.0  # of the attack's time, before it begins
WORST_RATIO = 2.0
QUESTION = "/api/v1/query?by=src.namespace,dst.namespace&measure=octets,connections&from=-1h"
COSTLY = (
    "SELECT count() FROM numbers(40000000) a CROSS JOIN numbers(99) b WHERE a.number > b.number"
)
MANY_ROWS = "SELECT number, toString(number) FROM numbers(1000000)"

Assault = Callable[["_Door", Event, Counter[str]], None]


class _Door:
    """The API, and the tokens of a good reader and of another one."""

    def __init__(self, target: Target) -> None:
        lines = (target.directory / "tokens").read_text().splitlines()
        self.good, self.other = (line.split()[0] for line in lines)
        self.port = int(ControlClient(target.control).get("status")["apiPort"])

    def ask(
        self, method: str, path: str, token: str = "", body: bytes | None = None, **headers: str
    ) -> int:
        """Send one request from the attacker's address; return the status, 0 where it was cut."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        client = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(ATTACKER, 0)
        )
        try:
            client.request(method, path, body, headers)
            answer = client.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            client.close()
        return answer.status

    def connect(self) -> socket.socket:
        """Connect from the attacker's address."""
        return socket.create_connection(("127.0.0.1", self.port), 5, source_address=(ATTACKER, 0))


@dataclass
class _Seen:
    """What a reader saw: when it asked and how long the answer took, and what else came."""

    taken: list[tuple[float, float]]
    refused: dict[str, int]

    def median_ms(self, since: float, until: float) -> float:
        """How long answers took that were asked for in between."""
        times = [took for at, took in self.taken if since <= at < until]
        return round(1000 * median(times), 1) if times else float("inf")


class _Reader:
    """Asks its question again and again, in a process of its own: the attacker's CPU is not its."""

    def __init__(self, port: int, token: str) -> None:
        command = [sys.executable, "-m", "benchmarks.attacks.readers", str(port), token]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def end(self) -> _Seen:
        """Have it ask no more, and return what it saw."""
        out, _ = self._process.communicate("", timeout=25)
        return _Seen(*json.loads(out))


def _read(port: int, token: str) -> _Seen:
    """Ask until standard input ends."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    seen = _Seen([], defaultdict(int))
    headers = {"Authorization": f"Bearer {token}"}
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        began = time.monotonic()
        try:
            client.request("GET", QUESTION, headers=headers)
            answer = client.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            seen.refused["no answer"] += 1
            client.close()
            continue
        if answer.status == http.client.OK:
            seen.taken.append((began, time.monotonic() - began))
        else:
            seen.refused[str(answer.status)] += 1
    return seen


def _tokens(path: Path) -> dict[str, Any]:
    tokens = path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(f"{secrets.token_hex(24)} good\n{secrets.token_hex(24)} other\n")
    return {
        "apiServer": {
            "address": "127.0.0.1",
            "apiPort": 0,
            "tls": False,
            "tokenFile": str(tokens),
        }
    }


def _measured(target: Target, over: Event, assault: Assault, threads: int) -> Findings:
    """Let a good reader ask, first alone, then with the assault in so many threads."""
    door = _Door(target)
    reader = _Reader(door.port, door.good)
    calm = time.monotonic()
    over.wait(CALM_S)
    began = time.monotonic()
    seen: Counter[str] = Counter()
    for _ in range(threads):
        threading.Thread(target=assault, args=(door, over, seen), daemon=True).start()
    over.wait()
    ended = time.monotonic()
    read = reader.end()
    alone, meanwhile = read.median_ms(calm, began), read.median_ms(began, ended)
    ratio = meanwhile / alone
    return {
        "reader_ms": [alone, meanwhile],
        "reader_ratio": round(ratio, 2),
        "reader_refused": read.refused,
        "answers": dict(seen),
        "held": ratio <= WORST_RATIO and not read.refused and not seen["let in"],
    }


@attack("api-no-token", prepare=_tokens, store=Store.EMBEDDED)
def no_token(target: Target, over: Event) -> Findings:
    """Requests without a token, and with wrong ones."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        while not over.is_set():
            for token in ("", "x", secrets.token_hex(24), door.good[:-1], door.good.upper()):
                status = door.ask("GET", QUESTION, token)
                seen["let in" if status == http.client.OK else str(status)] += 1

    return _measured(target, over, assault, 4)


@attack("api-half-requests", prepare=_tokens, store=Store.EMBEDDED)
def half_requests(target: Target, over: Event) -> Findings:
    """Connections that stop within a request, and come again."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        beginnings = (b"", b"GET /api/v1/que", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ")
        standing: list[socket.socket] = []
        while not over.is_set():
            for beginning in beginnings:
                with contextlib.suppress(OSError):
                    standing.append(door.connect())
                    standing[-1].sendall(beginning)
                    seen["opened"] += 1
            if len(standing) > 200:
                standing.pop(0).close()

    return _measured(target, over, assault, 4)


@attack("api-too-large", prepare=_tokens, store=Store.EMBEDDED)
def too_large(target: Target, over: Event) -> Findings:
    """Bodies, headers, URLs and filters that are too large, by somebody who may ask."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        body = json.dumps({"query": "SELECT 1" + " " * (8 << 20)}).encode()
        deep = "(" * 4000
        while not over.is_set():
            for status in (
                door.ask("POST", "/api/v1/sql", door.other, body),
                door.ask("GET", "/api/v1/query?filter=" + "a" * (1 << 20), door.other),
                door.ask("GET", f"/api/v1/query?filter={deep}", door.other),
                door.ask("GET", QUESTION, door.other, None, **{"X-Long": "x" * (1 << 18)}),
            ):
                seen["let in" if status == http.client.OK else str(status)] += 1

    return _measured(target, over, assault, 2)


@attack("api-costly", prepare=_tokens, store=Store.EMBEDDED)
def costly(target: Target, over: Event) -> Findings:
    """Queries that take all they may, by somebody who may ask."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        body = json.dumps({"query": COSTLY}).encode()
        while not over.is_set():
            seen[str(door.ask("POST", "/api/v1/sql", door.other, body))] += 1

    return _measured(target, over, assault, 4)


@attack("api-too-many", prepare=_tokens, store=Store.EMBEDDED)
def too_many(target: Target, over: Event) -> Findings:
    """One caller's questions, as fast as they are answered, and streams that nobody reads."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        request = (
            f"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\n"
            f"Authorization: Bearer {door.other}\r\n\r\n"
        ).encode()
        streams: list[socket.socket] = []
        while not over.is_set():
            if len(streams) < 20:
                with contextlib.suppress(OSError):
                    streams.append(door.connect())
                    streams[-1].sendall(request)
            seen[str(door.ask("GET", QUESTION, door.other))] += 1

    return _measured(target, over, assault, 4)


@attack("api-cut-off", prepare=_tokens, store=Store.EMBEDDED)
def cut_off(target: Target, over: Event) -> Findings:
    """Answers of a million rows that are left in the middle."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        body = json.dumps({"query": MANY_ROWS, "maxRows": 1_000_000}).encode()
        request = (
            f"POST /api/v1/sql HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\n"
            f"Authorization: Bearer {door.other}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        while not over.is_set():
            with contextlib.suppress(OSError), door.connect() as connection:
                connection.sendall(request)
                seen["cut"] += bool(connection.recv(1 << 16))

    return _measured(target, over, assault, 2)


@attack("api-other-origin", prepare=_tokens, store=Store.EMBEDDED)
def other_origin(target: Target, over: Event) -> Findings:
    """A page of somebody else's, and a name that leads here, in the browser of who may ask."""

    def assault(door: _Door, over: Event, seen: Counter[str]) -> None:
        while not over.is_set():
            for headers in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Host": "evil.example"},
                {"Host": f"127.0.0.1.evil.example:{door.port}"},
            ):
                status = door.ask("GET", QUESTION, door.other, None, **headers)
                seen["let in" if status == http.client.OK else str(status)] += 1

    return _measured(target, over, assault, 2)


if __name__ == "__main__":
    found = _read(int(sys.argv[1]), sys.argv[2])
    print(json.dumps([found.taken, found.refused]))
