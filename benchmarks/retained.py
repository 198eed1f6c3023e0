"""What was put into a store of a small disk, and whether all of it that is retained is there."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowvis import checkpoint
from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.schema.tables import TABLE


@dataclass
class Truth:
    """What was put in, by second of `flowEndSeconds`: records and octets."""

    by_second: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, second: int, records: int, octets: int) -> None:
        """Note some, all of one second."""
        count, size = self.by_second.get(second, (0, 0))
        self.by_second[second] = count + records, size + octets

    @property
    def records(self) -> int:
        """All of them."""
        return sum(count for count, _ in self.by_second.values())

    def since(self, begin_s: int, step_s: int) -> dict[int, tuple[int, int]]:
        """Return the sums of whole steps that begin then or later."""
        sums: dict[int, tuple[int, int]] = {}
        for second, (count, octets) in self.by_second.items():
            step = second - second % step_s
            if step >= begin_s:
                counts, sizes = sums.get(step, (0, 0))
                sums[step] = counts + count, sizes + octets
        return sums


def compared(
    store: EmbeddedStore, truth: Truth, *, named: int, dropped: int, unrolled: int
) -> dict[str, Any]:
    """Compare what is retained; what no table retains is counted as it went.

    Records that books name as lost are `named`; the monitor `dropped` some of the store, of which
    no roll-up has the `unrolled`.
    """
    answer: dict[str, Any] = {"missing": {}, "doubled": {}, "compared": {}}
    tables = {TABLE: ("flowEndSeconds", "1", 1)}
    tables |= {rollup.name: ("time", "records", rollup.step_s) for rollup in ROLLUPS}
    for table, (time_name, counted, step_s) in tables.items():
        begin_s = store.begins.get(table, 0)
        expected = truth.since(begin_s, step_s)
        rows = store.query(
            f"SELECT toUInt32({time_name}) AS t, sum({counted}), sum(octetDeltaCount)"
            f" FROM {table} WHERE t >= {begin_s} GROUP BY t",
            max_rows=1 << 20,
        ).rows
        found = {int(t): (int(count), int(octets)) for t, count, octets in rows}
        answer["compared"][table] = sum(count for count, _ in expected.values())
        less = more = 0
        for step in expected.keys() | found.keys():
            (count, octets), (has, size) = expected.get(step, (0, 0)), found.get(step, (0, 0))
            less += max(count - has, int(octets > size))
            more += max(has - count, int(size > octets))
        excused = named if table == TABLE else named + unrolled
        answer["missing"][table], answer["doubled"][table] = max(less - excused, 0), more
    there = int(store.query(f"SELECT count() FROM {TABLE}").rows[0][0])
    return answer | {"retained": there, "unnamed": truth.records - there - dropped - named}


def move(batch: Batch, end_s: int) -> None:
    """Have the records end then, and all else as long before it as it was."""
    by_s = end_s - batch["flowEndSeconds"].astype(np.int64)
    for name in batch.columns:
        if name.startswith(("flowStartSeconds", "flowEndSeconds")):
            batch[name] = (batch[name] + by_s).astype(np.uint32)
    in_ms = ("monitoringIntervalStartMilliSeconds", *checkpoint.STARTS, *checkpoint.ENDS)
    for name in in_ms:
        batch[name] = (batch[name].astype(np.int64) + by_s * 1000).astype(np.uint64)
