"""Decode alone: Antrea's 43 elements, one record in a message, as Antrea's exporters send them."""

import time
from typing import Any

from benchmarks.records import Traffic, exported_by_antrea
from flowvis.batch import Batch
from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, ExporterSession, RecordBuffer
from flowvis.native import StringTable

FLOWS = 20_000
ROUNDS = 30
CHUNK = 256 * 1024  # what one read of a busy connection brings


def run() -> dict[str, Any]:
    batch = Traffic(FLOWS).interval(0).batch
    single = _stream(batch, one_by_one=True)
    wall, cpu = _decode(single, len(batch))
    _, packed_cpu = _decode(_stream(batch, one_by_one=False), len(batch))
    records = ROUNDS * len(batch)
    return {
        "records": records,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "octets_per_record": round(len(single) / len(batch)),
        "many_in_a_message_records_per_cpu_second": round(records / packed_cpu),
    }


def _stream(batch: Batch, *, one_by_one: bool) -> bytes:
    session = ExporterSession(1, exported_by_antrea())
    messages = session.templates(0)
    step = 1 if one_by_one else len(batch)
    for start in range(0, len(batch), step):
        messages += session.encode(batch.take(slice(start, start + step)), 0)
    return b"".join(messages)


def _decode(stream: bytes, records: int) -> tuple[float, float]:
    """Wall and CPU seconds of all rounds, each a new session into the same buffer."""
    buffer = RecordBuffer(EXPORTED, StringTable())
    pieces = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        session = CollectorSession("benchmark", buffer)
        for piece in pieces:
            session.receive(piece)
            buffer.clear()
        assert session.stats.records == records
    return time.perf_counter() - wall, time.process_time() - cpu
