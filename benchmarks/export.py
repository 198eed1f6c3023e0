"""From due connections to bytes: what one interval of a busy node costs its exporter."""

import time
from typing import Any

from benchmarks.records import Traffic
from flowvis.fields import EXPORTED
from flowvis.ipfix import ExporterSession

CONNECTIONS = 50_000
ROUNDS = 20


def run() -> dict[str, Any]:
    batch = Traffic(CONNECTIONS, ipv6=0.2).interval(0).batch.take(slice(CONNECTIONS))
    session = ExporterSession(1, EXPORTED)
    octets = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for now in range(ROUNDS):
        octets += sum(map(len, session.encode(batch, now)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    records = ROUNDS * CONNECTIONS
    assert session.stats.records == records
    return {
        "records": records,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "octets_per_record": round(octets / records),
    }
