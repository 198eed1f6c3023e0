"""Half an hour of exporters, whose aggregator or ClickHouse is killed every five minutes.

Connections, Pods and names change all the time (`benchmarks.soak_exporters`). At the end what the
store has is compared with what was exported, for 65,536 parts of the connections: `lost_unnamed`
are intervals that are missing beyond the losses that books name, `doubled` those that are there
more than once; `stored_twice` and `more_than_their_totals` have examples. `rss_growth_mb` is the
most that the aggregator's last life held, beyond its first; of one life only, the last quarter
beyond the second. `--rate` limits the records a second (100,000); what the machine does of them is
`records_per_second`.
"""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.aggregator_process import settings_in
from benchmarks.clickhouse_server import Restarted
from benchmarks.soak_exporters import BUCKETS
from flowvis.cli.client import ControlClient
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import FlowvisError
from flowvis.runtime.dropped import reason_of

DURATION_S = 1800.0
KILL_S = 300.0
RATE = 100_000.0
EXPORTERS = 20
ACTIVE_TIMEOUT_S = 5.0
AWAY_S = 2.0
LOOK_S = 1.0
START_S = 60.0
SETTLE_S = 120.0
STOP_S = 40.0
TWICE_IN = 64  # of so many parts of the connections one is searched for records stored twice
MAX_ROWS = 1_000_000
EXAMPLES = 5
WHICH = "stored_twice", "more_than_their_totals"

CONNECTION = "sourceIP, sourceTransportPort, flowStartSeconds"
_COUNTERS = [
    f"packet{kind}Count{of}"
    for kind in ("Total", "Delta")
    for of in ("", "FromSourceNode", "FromDestinationNode")
]
COUNTED = ", ".join(["flowEndSeconds", "monitoringIntervalStartMilliSeconds", *_COUNTERS])
"""What two records of one connection never have in common: of what the second node tells late, the
counters of the whole stay as they are, and only its own grow."""


def run(duration_s: float = DURATION_S, rate: float = RATE) -> dict[str, Any]:
    """Soak for so long; kills come every five minutes, or three times in a shorter run."""
    with tempfile.TemporaryDirectory(prefix="flowvis-") as directory:
        return _Soak(Path(directory), duration_s, rate).run()


class _Soak:
    def __init__(self, path: Path, duration_s: float, rate: float) -> None:
        self._path, self._duration_s, self._rate = path, duration_s, rate
        self._kill_s = min(KILL_S, duration_s / 4)
        self._port = _free_port()
        self._server = Restarted(path / "clickhouse")
        self._aggregator: subprocess.Popen[bytes] | None = None
        self._lives: list[list[float]] = []
        self._deaths = {"aggregator": 0, "clickhouse": 0}
        self._cpu_s = 0.0

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        self._server.start()
        try:
            self._configure()
            self._start()
            with self._exporters() as exporters:
                self._soak()
                exported = time.monotonic()
                answer, _ = exporters.communicate(b"\n", timeout=SETTLE_S + STOP_S)
            told = json.loads(answer)
            settled_s = self._settle(exported)
            code, books = self._stop()
            found = self._compare(np.load(self._path / "truth.npy"))
        finally:
            self._end()
        named = {**told["named"], **books}
        seconds = exported - began
        return {
            "records": told["sent"],
            "cpu_seconds": round(self._cpu_s, 1),
            "wall_seconds": round(time.monotonic() - began, 1),
            "records_per_second": round(told["sent"] / seconds),
            "lost_unnamed": max(0, found["lost"] - sum(named.values())),
            "doubled": found["doubled"],
            **{name: found[name] for name in ("more_than_exported", *WHICH)},
            "rss_growth_mb": self._growth_mb(),
            "lost": found["lost"],
            "named": named,
            "kills": self._deaths,
            "sent_again": told["sent_again"],
            "settled_seconds": settled_s,
            "exit_code": code,
            "life_peaks_mb": [max(life) for life in self._lives if life],
        }

    def _configure(self) -> None:
        settings = settings_in(self._path, "sender", ACTIVE_TIMEOUT_S)
        settings["listen"]["port"] = self._port
        settings["clickHouse"] = {
            "enable": True,
            "databaseURL": f"tcp://127.0.0.1:{self._server.port}",
        }
        settings["log"] = {"level": "error"}
        (self._path / "aggregator.yaml").write_text(yaml.safe_dump(settings))

    def _start(self) -> None:
        """Start the aggregator, and wait until it is ready."""
        command = [sys.executable, "-m", "flowvis.cli.aggregator", "--config"]
        self._aggregator = subprocess.Popen([*command, str(self._path / "aggregator.yaml")])
        self._lives.append([])
        deadline = time.monotonic() + START_S
        while not self._ledger():
            assert self._aggregator.poll() is None, "the aggregator ended"
            assert time.monotonic() < deadline, "the aggregator is not ready"
            time.sleep(0.1)

    @contextlib.contextmanager
    def _exporters(self) -> "Iterator[subprocess.Popen[bytes]]":
        options = {
            "port": self._port,
            "certificates": str(self._path),
            "exporters": EXPORTERS,
            "rate": self._rate,
            "truth_file": str(self._path / "truth.npy"),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_exporters", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _soak(self) -> None:
        over = time.monotonic() + self._duration_s
        kill = time.monotonic() + self._kill_s
        victims = iter(("aggregator", "clickhouse") * 1000)
        while (now := time.monotonic()) < over:
            self._look()
            if now >= kill and now + self._kill_s / 2 < over:
                kill += self._kill_s
                self._kill(next(victims))
            time.sleep(LOOK_S)

    def _look(self) -> None:
        assert self._aggregator is not None
        assert self._aggregator.poll() is None, "the aggregator ended by itself"
        status = Path(f"/proc/{self._aggregator.pid}/status").read_text()
        (line,) = (one for one in status.splitlines() if one.startswith("VmRSS"))
        self._lives[-1].append(round(int(line.split()[1]) / 1024, 1))

    def _kill(self, victim: str) -> None:
        self._deaths[victim] += 1
        if victim == "clickhouse":
            self._server.kill()
            time.sleep(AWAY_S)
            self._server.start()
            return
        assert self._aggregator is not None
        self._aggregator.kill()
        self._waited()
        time.sleep(AWAY_S)
        self._start()

    def _ledger(self) -> dict[str, Any]:
        with contextlib.suppress(FlowvisError, OSError, ValueError):
            books: dict[str, Any] = ControlClient(self._path / "control.sock").get("ledger")
            return books
        return {}

    def _settle(self, began: float) -> float | None:
        """Wait until the aggregator holds nothing; return how long that took."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            stages = self._ledger().get("stages", ())
            if stages and not any(stage["held"] for stage in stages):
                return round(time.monotonic() - began, 1)
            time.sleep(LOOK_S)
        return None

    def _stop(self) -> tuple[int, dict[str, int]]:
        """End the aggregator in order; return its exit code, and the losses of its books."""
        named = {}
        for stage in self._ledger().get("stages", ()):
            for word, count in stage["dropped"].items():
                reason = reason_of(stage["stage"], word)
                if count and (reason is None or reason.is_loss):
                    named[f"{stage['stage']}: {word}"] = count
        assert self._aggregator is not None
        self._aggregator.send_signal(signal.SIGTERM)
        return self._waited(), named

    def _waited(self) -> int:
        """Wait for the end of the aggregator, and note what CPU it took."""
        assert self._aggregator is not None
        _, status, usage = os.wait4(self._aggregator.pid, 0)
        self._aggregator.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s += usage.ru_utime + usage.ru_stime
        return self._aggregator.returncode

    def _compare(self, truth: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
        settings = StoreSettings(f"tcp://127.0.0.1:{self._server.port}")
        store: Store = open_store(settings)
        try:
            stored = np.zeros(BUCKETS, np.int64)
            sums = "SELECT IPv4StringToNum(sourceIP) % 65536 AS b, sum(packetDeltaCount) FROM flows"
            for bucket, packets in store.query(f"{sums} GROUP BY b", max_rows=BUCKETS).rows:
                stored[int(bucket)] = int(packets)
            twice = store.query(
                f"SELECT {CONNECTION}, {COUNTED}, count() AS n FROM flows WHERE "
                f"IPv4StringToNum(sourceIP) % {TWICE_IN} = 0 GROUP BY {CONNECTION}, {COUNTED} "
                "HAVING n > 1",
                max_rows=MAX_ROWS,
            ).rows
            over = store.query(
                f"SELECT {CONNECTION}, sum(packetDeltaCount) AS told, "
                f"max(packetTotalCount) AS had FROM flows GROUP BY {CONNECTION} HAVING told > had",
                max_rows=MAX_ROWS,
            ).rows
        finally:
            store.close()
        more = int(np.maximum(stored - truth, 0).sum())
        return {
            "lost": int(np.maximum(truth - stored, 0).sum()),
            "doubled": more + sum(int(row[-1]) - 1 for row in twice),
            "more_than_exported": more,
            "stored_twice": [str(row) for row in twice[:EXAMPLES]],
            "more_than_their_totals": [str(row) for row in over[:EXAMPLES]],
        }

    def _growth_mb(self) -> float:
        lives = [life for life in self._lives if life]
        if len(lives) > 1:
            return round(max(lives[-1]) - max(lives[0]), 1)
        quarter = max(len(lives[0]) // 4, 1)
        later, earlier = lives[0][-quarter:], lives[0][quarter : 2 * quarter] or lives[0]
        return round(statistics.mean(later) - statistics.mean(earlier), 1)

    def _end(self) -> None:
        if self._aggregator is not None and self._aggregator.returncode is None:
            self._aggregator.kill()
            self._aggregator.wait()
        self._server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
