"""How long Grafana's panels take, over a day of 24 million records and a week of roll-ups.

What is in the store `week` says; its records end with the last hour. Each query of each panel is
asked with everything chosen, as the data source sends it, over ranges that end at different
moments; the numbers are those of the slowest twentieth. Not among them are the four values that the
store is asked for as the range changes (`ranges.Branch`). `rollup_bytes_per_record` is what both
tables take on disk for a record.
"""

import re
import time
from functools import partial
from typing import Any

import numpy as np
from tools.dashboards.chosen import ALL_WRITTEN, CHOICES, NOTHING
from tools.dashboards.looked import ALL, Looked
from tools.dashboards.pages import PAGES

from benchmarks import week
from flowvis.clickhouse.embedded import EmbeddedStore

RANGES = {"1h": 1, "24h": 24, "7d": 24 * week.DAYS}
"""In hours."""
REPEATS = 2
POINTS = 300
"""Of a time series, as the panels ask for."""
VALUES = {name: [ALL] for name in CHOICES} | {
    "exclude": [NOTHING], "level": "workload", "rows": "1000",
}  # fmt: skip


def run(store: str = "") -> dict[str, Any]:
    """Measure the panels over the store that a directory keeps; "": over one made for it."""
    began = time.monotonic()
    with week.opened(store) as filled:
        filled_s = time.monotonic() - began
        rolled = sum(_bytes(filled, name) / days for name, days in week.ROLLED_DAYS.items())
        began, cpu = time.monotonic(), time.process_time()
        measured = measure(filled, week.END_MS // 1000)
        records = week.HOURS * week.RECORDS
        return {
            "records": records,
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "wall_seconds": round(time.monotonic() - began, 3),
            "fill_seconds": round(filled_s, 1),
            "rollup_bytes_per_record": round(rolled / records, 2),
            **measured,
        }


def measure(store: EmbeddedStore, end_s: int) -> dict[str, Any]:
    """Ask every panel over each range: 95th percentiles, in ms, and the slowest panel."""
    found: dict[str, Any] = {}
    for name, hours in RANGES.items():
        times: dict[str, list[float]] = {}
        for repeat in range(REPEATS):
            to_s = end_s - repeat * 7 * 60  # so that nothing is the same query again
            interval_s = max(hours * 3600 // POINTS, 60)
            look = Looked(
                to_s - hours * 3600, to_s, interval_s, VALUES, dict.fromkeys(CHOICES, ALL_WRITTEN)
            ).refreshed(partial(_value, store, end_s))
            for page in PAGES:
                for panel in page.panels:
                    for _, sql, _ in panel.queries():
                        which = f"{page.name}: {panel.title}"
                        times.setdefault(which, []).append(
                            _ask(store, _as_of(look.sql(sql), end_s))
                        )
        every = [each for of_panel in times.values() for each in of_panel]
        found[f"p95_ms_{name}"] = round(float(np.percentile(every, 95)) * 1000, 1)
        found[f"p50_ms_{name}"] = round(float(np.percentile(every, 50)) * 1000, 1)
        slowest = max(times, key=lambda which: max(times[which]))
        found[f"slowest_{name}"] = f"{slowest}, {max(times[slowest]) * 1000:.0f} ms"
    return found


def _value(store: EmbeddedStore, now_s: int, sql: str) -> str:
    ((value,),) = store.query(_as_of(sql, now_s)).rows
    return str(value)


def _as_of(sql: str, now_s: int) -> str:
    """Return a query that takes this moment for now, by which dashboards know what is recent."""
    return re.sub(r"\bnow\(\)", f"toDateTime({now_s})", sql)


def _ask(store: EmbeddedStore, sql: str) -> float:
    began = time.monotonic()
    store.query(sql, max_rows=1_000_000)
    return time.monotonic() - began


def _bytes(store: EmbeddedStore, table: str) -> int:
    with store.session() as session:
        found = session.query(
            "SELECT sum(bytes_on_disk) FROM system.parts"
            f" WHERE active AND database = '{week.DATABASE}' AND table = '{table}'"
        )
    return int(str(found).strip())
