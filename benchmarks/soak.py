"""Half an hour of exporters, whose aggregator or ClickHouse is killed every five minutes.

Connections, Pods and names change all the time (`benchmarks.soak_exporters`). At the end what the
store has is compared with what was exported, for 65,536 parts of the connections: `lost_unnamed`
are intervals that are missing beyond the losses that books name, `doubled` those that are there
more than once; `stored_twice` and `more_than_their_totals` have examples. `rss_growth_mb` is the
most by which a life of the aggregator grew, its last minute beyond its second, or by which the
peak of its last life is above that of its first. `--rate` limits the records a second (100,000);
what the machine does of them is `records_per_second`. A line a minute says how it goes.
"""

import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.aggregator_process import settings_in
from benchmarks.clickhouse_server import Restarted
from benchmarks.lives import Lives, Progress, losses
from benchmarks.soak_exporters import BUCKETS, running
from flowvis.clickhouse.store import Store, StoreSettings, open_store

DURATION_S = 1800.0
KILL_S = 300.0
RATE = 100_000.0
EXPORTERS = 20
ACTIVE_TIMEOUT_S = 5.0
AWAY_S = 2.0
LOOK_S = 1.0
SETTLE_S = 120.0
STOP_S = 40.0
TWICE_IN = 64  # of so many parts of the connections one is searched for records stored twice
MAX_ROWS = 1_000_000
PARTS = 32  # all connections at once are more than a query may take
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
        self._server = Restarted(path / "clickhouse")
        settings = settings_in(path, "sender", ACTIVE_TIMEOUT_S)
        settings["listen"]["port"] = _free_port()
        settings["clickHouse"] = {
            "enable": True,
            "databaseURL": f"tcp://127.0.0.1:{self._server.port}",
        }
        settings["log"] = {"level": "error"}
        self._lives = Lives(path, settings)
        self._deaths = {"aggregator": 0, "clickhouse": 0}

    def run(self) -> dict[str, Any]:
        began, lives = time.monotonic(), self._lives
        self._server.start()
        try:
            lives.start()
            with running(
                port=lives.status()["port"],
                certificates=str(self._path),
                exporters=EXPORTERS,
                rate=self._rate,
                truth_file=str(self._path / "truth.npz"),
            ) as exporters:
                self._soak()
                exported = time.monotonic()
                answer, _ = exporters.communicate(b"\n", timeout=SETTLE_S + STOP_S)
            told = json.loads(answer)
            lives.held_nothing(SETTLE_S)
            settled_s = time.monotonic() - exported
            lives.look()
            books = losses(lives.stages())
            code = lives.end()
            found = self._compare(np.load(self._path / "truth.npz")["buckets"])
        finally:
            lives.kill()
            self._server.kill()
        named = {**told["named"], **books}
        seconds = exported - began
        return {
            "records": told["sent"],
            "cpu_seconds": round(lives.cpu_s, 1),
            "wall_seconds": round(time.monotonic() - began, 1),
            "records_per_second": round(told["sent"] / seconds),
            "lost_unnamed": max(0, found["lost"] - sum(named.values())),
            "doubled": found["doubled"],
            **{name: found[name] for name in ("more_than_exported", *WHICH)},
            **lives.memory(),
            "lost": found["lost"],
            "named": named,
            "kills": self._deaths,
            "sent_again": told["sent_again"],
            "settled_seconds": round(settled_s, 1),
            "exit_code": code,
        }

    def _soak(self) -> None:
        over = time.monotonic() + self._duration_s
        kill = time.monotonic() + self._kill_s
        victims = iter(("aggregator", "clickhouse") * 1000)
        progress = Progress(self._lives)
        while (now := time.monotonic()) < over:
            self._lives.look()
            progress.look()
            if now >= kill and now + self._kill_s / 2 < over:
                kill += self._kill_s
                self._kill(next(victims))
            time.sleep(LOOK_S)

    def _kill(self, victim: str) -> None:
        self._deaths[victim] += 1
        dying = self._server if victim == "clickhouse" else self._lives
        dying.kill()
        time.sleep(AWAY_S)
        dying.start()

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
            over = [
                row
                for part in range(PARTS)
                for row in store.query(
                    f"SELECT {CONNECTION}, sum(packetDeltaCount) AS told, "
                    "max(packetTotalCount) AS had FROM flows WHERE "
                    f"IPv4StringToNum(sourceIP) % {PARTS} = {part} "
                    f"GROUP BY {CONNECTION} HAVING told > had",
                    max_rows=MAX_ROWS,
                ).rows
            ]
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
