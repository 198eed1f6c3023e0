"""How long Grafana's panels take, over a day of 24 million records and a week of roll-ups.

The store is embedded and filled as for `console`, with records that end now; their roll-ups are
copied to the six days before. Each query of each panel is asked with everything chosen, as the
data source sends it, over ranges that end at different moments; the numbers are those of the
slowest twentieth. `rollup_bytes_per_record` is what both tables take on disk for a record.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tools.dashboards.chosen import ALL_WRITTEN, CHOICES, NOTHING
from tools.dashboards.looked import ALL, Looked
from tools.dashboards.pages import PAGES

from benchmarks import console
from benchmarks.cluster_hour import HOUR_MS
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.query import QueryLimits
from flowvis.clickhouse.rollups import Roller
from flowvis.clickhouse.schema.rollups import INSERTED_DAY, ROLLUPS, TIME, Rollup
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import QuerySettings, StoreSettings

DAYS = 7
DATABASE = "panels"
RANGES = {"1h": 1, "24h": 24, "7d": 24 * DAYS}
"""In hours."""
REPEATS = 2
POINTS = 300
"""Of a time series, as the panels ask for."""
VALUES = {name: [ALL] for name in CHOICES} | {
    "exclude": [NOTHING], "level": "workload", "rows": "1000",
}  # fmt: skip


def run() -> dict[str, Any]:
    """Fill a store and measure it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "store"
        queries = QuerySettings(limits=QueryLimits(memory_bytes=2 << 30, threads=console.THREADS))
        settings = StoreSettings(
            f"embedded://{path}", database=DATABASE, ttl_s=0, minutes_ttl_s=0, hours_ttl_s=0,
            queries=queries,
        )  # fmt: skip
        store = EmbeddedStore(settings, path)
        begin_ms = (int(time.time() * 1000) // HOUR_MS - console.HOURS + 1) * HOUR_MS
        began = time.monotonic()
        console.fill(store, begin_ms)
        filled_s = time.monotonic() - began
        began, cpu = time.monotonic(), time.process_time()
        asyncio.run(Roller(store, "benchmark").look(everything=True))
        rolled_s, rolled_cpu = time.monotonic() - began, time.process_time() - cpu
        sizes = {table: _bytes(store, table) for table in (TABLE, *(r.name for r in ROLLUPS))}
        for rollup in ROLLUPS:
            _copy(store, rollup)
        began, cpu = time.monotonic(), time.process_time()
        measured = measure(store)
        records = console.HOURS * console.RECORDS
        answer = {
            "records": records,
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "wall_seconds": round(time.monotonic() - began, 3),
            "fill_seconds": round(filled_s, 1),
            "roll_seconds": round(rolled_s, 1),
            "roll_cpu_seconds": round(rolled_cpu, 1),
            "bytes_per_record": round(sizes[TABLE] / records, 2),
            "rollup_bytes_per_record": round(sum(sizes[r.name] for r in ROLLUPS) / records, 2),
            **measured,
        }
        store.close()
    return answer


def measure(store: EmbeddedStore) -> dict[str, Any]:
    """Ask every panel over each range: 95th percentiles, in ms, and the slowest panel."""
    found: dict[str, Any] = {}
    end_s = int(time.time()) // 60 * 60
    for name, hours in RANGES.items():
        times: dict[str, list[float]] = {}
        for repeat in range(REPEATS):
            to_s = end_s - repeat * 7 * 60  # so that nothing is the same query again
            interval_s = max(hours * 3600 // POINTS, 60)
            look = Looked(
                to_s - hours * 3600, to_s, interval_s, VALUES, dict.fromkeys(CHOICES, ALL_WRITTEN)
            )
            for page in PAGES:
                for panel in page.panels:
                    for _, sql, _ in panel.queries():
                        which = f"{page.name}: {panel.title}"
                        times.setdefault(which, []).append(_ask(store, look.sql(sql)))
        every = [each for of_panel in times.values() for each in of_panel]
        found[f"p95_ms_{name}"] = round(float(np.percentile(every, 95)) * 1000, 1)
        found[f"p50_ms_{name}"] = round(float(np.percentile(every, 50)) * 1000, 1)
        slowest = max(times, key=lambda which: max(times[which]))
        found[f"slowest_{name}"] = f"{slowest}, {max(times[slowest]) * 1000:.0f} ms"
    return found


def _ask(store: EmbeddedStore, sql: str) -> float:
    began = time.monotonic()
    store.query(sql, max_rows=1_000_000)
    return time.monotonic() - began


def _bytes(store: EmbeddedStore, table: str) -> int:
    store.query("SELECT 1")
    execute: Any = store._execute  # noqa: SLF001  what a question may not
    execute(f"OPTIMIZE TABLE {DATABASE}.{table} FINAL")
    ((found,),) = execute(
        "SELECT sum(bytes_on_disk) FROM system.parts"
        f" WHERE active AND database = '{DATABASE}' AND table = '{table}'"
    )
    return int(found)


def _copy(store: EmbeddedStore, rollup: Rollup) -> None:
    """Put a day's rows into each of the days before."""
    execute: Any = store._execute  # noqa: SLF001
    moved = {TIME: f"{TIME} - toIntervalDay({{days}})", INSERTED_DAY: f"{INSERTED_DAY} - {{days}}"}
    names = [column.name for column in rollup.columns]
    values = ", ".join(moved.get(name, name) for name in names)
    first, last = execute(f"SELECT min({TIME}), max({TIME}) FROM {DATABASE}.{rollup.name}")[0]
    for days in range(1, DAYS):
        execute(
            f"INSERT INTO {DATABASE}.{rollup.name} ({', '.join(names)})"
            f" SELECT {values.format(days=days)} FROM {DATABASE}.{rollup.name}"
            f" WHERE {TIME} BETWEEN '{first}' AND '{last}'"
        )
    execute(f"OPTIMIZE TABLE {DATABASE}.{rollup.name} FINAL")
