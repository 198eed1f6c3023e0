"""A small disk under a whole aggregator, which exporters send to as fast as is asked for.

Connections are short: each is one record, which ends it, so that what the store has can be compared
record by record with what exporters told. The disk is nearly full from the beginning, of records of
the hours before. See `benchmarks.full_disk`.
"""

import asyncio
import json
import re
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import soak_exporters
from benchmarks.aggregator_process import settings_in
from benchmarks.cluster_hour import records
from benchmarks.lives import Lives, Progress, losses
from benchmarks.retained import Truth, compared, move
from flowvis.clickhouse.commits import BatchIds
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.room import NEWEST_S
from flowvis.clickhouse.schema.dropped import DROPPED, Outcome
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import StoreSettings

DATABASE = "full"
EXPORTERS = 20
ACTIVE_TIMEOUT_S = 5.0
LOOK_S = 5.0
SETTLE_S = 180.0
FILLED = 0.7  # of the disk, before the aggregator starts
STORED_BYTES = 50  # of a record with its roll-ups, about
BATCHES, APART_S = 80, 400  # what it is filled with at most, up to an hour before
METRIC = re.compile(r"^\w+_clickhouse_store_dropped_records_total ([0-9.e+]+)$", re.MULTILINE)
SAID = re.compile(rf"dropped {TABLE} from \S+ to \S+: (\d+) rows")
UNROLLED = re.compile(r"(\d+) of them lost: no roll-up has them")


def fill(disk: Path, duration_s: float, rate: float) -> dict[str, Any]:
    """Send for so long into an aggregator whose store is on the disk that is mounted there."""
    with tempfile.TemporaryDirectory(prefix="flowvis-") as directory:
        return _Whole(disk, Path(directory), duration_s).run(rate)


class _Whole:
    def __init__(self, disk: Path, path: Path, duration_s: float) -> None:
        self._path, self._duration_s = path, duration_s
        self._store = StoreSettings(f"embedded://{disk}/store", database=DATABASE)
        settings = settings_in(path, "sender", ACTIVE_TIMEOUT_S)
        settings["clickHouse"] = {
            "enable": True,
            "database": DATABASE,
            "databaseURL": self._store.database_url,
        }
        settings["log"] = {"level": "warning"}
        self._lives = Lives(path, settings)
        self._disk = disk
        self._fullest = 0.0
        self._kept_s: list[int] = []
        self._problems: set[str] = set()
        self._before = Truth()

    def run(self, rate: float) -> dict[str, Any]:
        began = time.monotonic()
        lives, truth_file = self._lives, self._path / "truth.npz"
        self._fill()
        filled_s = time.monotonic()
        lives.start()
        try:
            port = int(lives.status()["port"])
            with soak_exporters.running(
                port=port,
                certificates=str(self._path),
                exporters=EXPORTERS,
                rate=rate,
                truth_file=str(truth_file),
                ending=1.0,
                paired=False,
            ) as exporters:
                self._watch(filled_s + self._duration_s)
                answer, _ = exporters.communicate(b"\n", timeout=SETTLE_S)
            told = json.loads(answer)
            settled_s = lives.held_nothing(SETTLE_S)
            stages, said = lives.stages(), self._said()
            code = lives.end()
        finally:
            lives.kill()
        named = {**told["named"], **losses(stages)}
        queued = {"exporters": told["left"], **{each["stage"]: each["held"] for each in stages}}
        found, noted = self._compared(truth_file, sum(named.values()))
        return {
            "records": told["records"],
            "before": self._before.records,
            "cpu_seconds": round(lives.cpu_s, 1),
            "wall_seconds": round(time.monotonic() - began, 1),
            **found,
            **lives.memory(),
            "named": named,
            "queued": {stage: records for stage, records in queued.items() if records},
            "said": said | {"notes": noted},
            "sent_again": told["sent_again"],
            "kept_seconds": min(self._kept_s, default=None),
            "fullest": round(self._fullest, 3),
            "problems": sorted(self._problems),
            "settled_seconds": settled_s,
            "exit_code": code,
        }

    def _fill(self) -> None:
        """Store what hours before have brought, with its roll-ups."""
        size = round(shutil.disk_usage(self._disk).total * FILLED / STORED_BYTES / BATCHES)
        made, _ = records(size)
        at_s = int(time.time()) - NEWEST_S - BATCHES * APART_S
        ids = BatchIds(lambda: at_s)
        store = EmbeddedStore(self._store, self._disk / "store")
        try:
            store.migrate()
            for _ in range(BATCHES):
                if _used(self._disk) > FILLED:  # merges have not given back what they replaced
                    break
                batch = made.take(slice(0, size))
                move(batch, at_s)
                store.insert(batch, ids.next())
                octets = int(batch["octetDeltaCount"].sum(dtype=np.uint64))
                self._before.add(at_s, len(batch), octets)
                at_s += APART_S
            asyncio.run(Roller(store, ids.writer).look(everything=True))
        finally:
            store.close()

    def _watch(self, until_s: float) -> None:
        """Look now and then what it says of itself."""
        progress = Progress(self._lives)
        while time.monotonic() < until_s:
            time.sleep(LOOK_S)
            self._lives.look()
            progress.look()
            status = self._lives.status()
            self._problems |= {each["problem"] for each in status.get("destinations", ())} - {""}
            if not (store := status.get("store")):
                continue
            self._problems |= {store["problem"]} - {""}
            for disk in store["disks"]:
                used = 1 - disk["freeBytes"] / disk["totalBytes"]
                self._fullest = max(self._fullest, used)
            for table in store["tables"]:
                if table["name"] == TABLE and store["droppedRecords"]:
                    self._kept_s.append((table["toMs"] - table["fromMs"]) // 1000)

    def _said(self) -> dict[str, int]:
        """How many records went, by those who say it."""
        status = self._lives.status()
        where = f"http://127.0.0.1:{status['statusPort']}/metrics"
        with urllib.request.urlopen(where) as answer:
            (metric,) = METRIC.findall(answer.read().decode())
        return {
            "status": status["store"].get("droppedRecords", 0),
            "metrics": round(float(metric)),
            "log": self._logged(SAID),
        }

    def _logged(self, what: re.Pattern[str]) -> int:
        return sum(map(int, what.findall(self._lives.log.read_text())))

    def _compared(self, truth_file: Path, named: int) -> tuple[dict[str, Any], int]:
        """Compare what the store has with what exporters told; return what its notes say too."""
        truth = Truth(dict(self._before.by_second))
        for second, count, octets in np.load(truth_file)["by_second"].tolist():
            truth.add(second, count, octets)
        store = EmbeddedStore(self._store, self._disk / "store")
        try:
            store.migrate()
            roller = Roller(store, BatchIds().writer)
            asyncio.run(roller.look(everything=True))
            found = compared(
                store,
                truth,
                named=named,
                dropped=self._logged(SAID),
                unrolled=self._logged(UNROLLED),
            )
            notes = (
                f"SELECT sum(rows) FROM {DROPPED} WHERE fromTable = '{TABLE}'"
                f" AND what = '{Outcome.WENT}'"
            )
            noted = store.query(notes).rows[0][0] if store.begins else 0
        finally:
            store.close()
        return found, int(noted)


def _used(disk: Path) -> float:
    """Return which part of a disk is used."""
    usage = shutil.disk_usage(disk)
    return usage.used / usage.total
