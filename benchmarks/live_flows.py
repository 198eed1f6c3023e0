"""Memory of 1,000,000 live flows: of the whole process, every row in use and written once.

Half of the flows have two halves. All are due at once, and written in parts as the aggregator
does. `rss_mb` is what is resident at the end, `peak_mb` the most that ever was.
"""

import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.records import EPOCH_MS, Traffic
from flowvis.aggregator.correlation.flows import FlowTable

FLOWS = 1_000_000
COPIES = 40  # of one set of records, each under other addresses: a million would not be small
AT_ONCE = 20_000


def run() -> dict[str, Any]:
    table = FlowTable(max_flows=FLOWS)
    batch = Traffic(FLOWS // COPIES, strings=table.strings).interval(0).batch
    before = _resident_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    for copy in range(COPIES):
        for end in ("sourceIP", "destinationIP"):
            batch[end][:, 12] = 10 + copy
        table.add(batch, EPOCH_MS)
    while len(table.due(EPOCH_MS, AT_ONCE)):
        pass
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    resident = _resident_mb()
    assert len(table) == table.stats.written == FLOWS, table.stats
    return {
        "records": table.stats.received,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "flows": len(table),
        "rss_mb": round(resident, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "bytes_per_flow": round((resident - before) * 2**20 / len(table)),
    }


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")
