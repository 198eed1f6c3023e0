"""A reader of the HTTP API while others attack it: how long answers take, with and without.

The reader asks twenty times a second on a connection that it keeps, and now and then on a new one
(`connect_ms`: with the handshake). Without an attack first, then during each, which comes from a
process of its own with little priority. `worst_ratio` is that of the 95th percentiles of answers.
"""

import contextlib
import json
import os
import ssl
import sys
import tempfile
import time
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregator_process import aggregator
from benchmarks.attacks import readers

TOKEN = "good-reader-0123456789"  # noqa: S105  of the benchmark alone
PHASE_S = 6.0
EVERY_S = 0.05
CONNECTS = 10  # requests of which one is on a new connection
ASKED = "/api/v1/me"


def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flowvis-") as directory:
        path = Path(directory)
        tokens = path / "tokens"
        tokens.write_text(f"{TOKEN} good\n{readers.OTHER_TOKEN} other\n")
        tokens.chmod(0o600)
        settings = {"apiServer": {"apiPort": 0, "tokenFile": str(tokens)}}
        began, used = time.monotonic(), os.times()
        with aggregator(path, 2.0, settings) as (_, client, _):
            port = client.get("status")["apiPort"]
            reader = _Reader(port, path)
            reader.measured(1.0)  # warm
            calm = reader.measured(PHASE_S)
            found = {}
            for name in readers.ATTACKS:
                stop = readers.start(name, port, path)
                try:
                    time.sleep(1.0)
                    found[name] = reader.measured(PHASE_S)
                finally:
                    stop()
                print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
            asked = reader.asked
        now = os.times()
    ratios = {name: result["p95_ms"] / calm["p95_ms"] for name, result in found.items()}
    return {
        "records": asked,
        "cpu_seconds": round(now.children_user - used.children_user, 2) or 0.01,
        "wall_seconds": round(time.monotonic() - began, 1),
        "calm": calm,
        "worst_ratio": round(max(ratios.values()), 2),
        "failed": sum(result["failed"] for result in found.values()),
        "attacks": found,
    }


class _Reader:
    """Somebody with a token."""

    def __init__(self, port: int, certificates: Path) -> None:
        self.asked = 0
        self._port = port
        self._context = ssl.create_default_context(cafile=certificates / "ca.crt")
        self._kept = self._connection()

    def measured(self, seconds: float) -> dict[str, float]:
        """Ask for a while; return percentiles, in ms."""
        answers: list[float] = []
        connects: list[float] = []
        failed = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            fresh = self.asked % CONNECTS == 0
            try:
                took = self._ask(fresh=fresh)
            except (OSError, HTTPException):
                failed += 1
                self._kept.close()
                self._kept = self._connection()
                continue
            (connects if fresh else answers).append(took)
            time.sleep(EVERY_S)
        return {
            "p50_ms": _percentile(answers, 50),
            "p95_ms": _percentile(answers, 95),
            "max_ms": _percentile(answers, 100),
            "connect_ms": _percentile(connects, 50),
            "failed": failed,
        }

    def _ask(self, *, fresh: bool) -> float:
        self.asked += 1
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            connection = self._kept
            if fresh:
                connection = self._connection()
                stack.callback(connection.close)
            connection.request("GET", ASKED, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            answer.read()
        if answer.status != 200:
            raise HTTPException(f"status {answer.status}")
        return (time.perf_counter() - began) * 1000

    def _connection(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self._port, timeout=20, context=self._context)


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 2) if values else 0.0
