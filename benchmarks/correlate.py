"""Decode and correlate: 50 nodes' streams of Antrea's 43 elements into the table of live flows.

100,000 flows, half of them between nodes, each reported once an interval. The CPU is that of
decoding, merging and writing out what is due; `one_in_a_message` is the same with a message for
each record, as Antrea's exporters send them.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.records import EPOCH_MS, INTERVAL_MS, NODES, Traffic, exported_by_antrea
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, ExporterSession, RecordBuffer

FLOWS = 100_000
INTERVALS = 4
CHUNK = 64 * 1024  # what one read of a connection brings, at most
MAX_MESSAGE = 65_535
ONE_RECORD = 480  # a message with less than this has no room for two of the records
FULL_RECORDS = 8192  # handed on at once, as the aggregator does


@dataclass
class Cost:
    """What a run took, by stage, in CPU seconds; and what came in and out."""

    decode: float = 0.0
    merge: float = 0.0
    write: float = 0.0
    wall: float = 0.0
    received: int = 0
    written: int = 0

    @property
    def cpu(self) -> float:
        return self.decode + self.merge + self.write


def run() -> dict[str, Any]:
    cost = _correlate(one_by_one=False)
    single = _correlate(one_by_one=True)
    return {
        "records": cost.received,
        "cpu_seconds": round(cost.cpu, 3),
        "wall_seconds": round(cost.wall, 3),
        "flows": FLOWS,
        "written": cost.written,
        "decode_ns": round(cost.decode / cost.received * 1e9),
        "merge_ns": round(cost.merge / cost.received * 1e9),
        "write_ns": round(cost.write / cost.received * 1e9),
        "one_in_a_message_records_per_cpu_second": round(single.received / single.cpu),
    }


def _correlate(*, one_by_one: bool) -> Cost:
    """Run all intervals; the first, which makes the flows, is not counted."""
    traffic = Traffic(FLOWS)
    table = FlowTable()
    buffer = RecordBuffer(EXPORTED, table.strings)
    octets = ONE_RECORD if one_by_one else MAX_MESSAGE
    fields = exported_by_antrea()
    exporters = [ExporterSession(node, fields, max_message=octets) for node in range(NODES)]
    sessions = [CollectorSession(f"node {node}", buffer) for node in range(NODES)]
    for session, exporter in zip(sessions, exporters, strict=True):
        session.receive(b"".join(exporter.templates(0)))
    cost = Cost()
    for number in range(INTERVALS + 1):
        interval = traffic.interval(number)
        streams = []
        for node, exporter in enumerate(exporters):
            of_node = interval.batch.take(np.flatnonzero(interval.node == node))
            streams.append(b"".join(exporter.encode(of_node, 0)))
        spent = _interval(table, buffer, sessions, streams, EPOCH_MS + number * INTERVAL_MS)
        if number:
            _add(cost, spent)
    assert table.stats.imbalance == 0
    assert table.stats.written == FLOWS * (INTERVALS + 1), table.stats
    return cost


def _interval(
    table: FlowTable,
    buffer: RecordBuffer,
    sessions: list[CollectorSession],
    streams: list[bytes],
    now_ms: int,
) -> Cost:
    """One interval's streams, a chunk of each session in turn, and what is due at its end."""
    cost = Cost(received=-table.stats.received, written=-table.stats.written)
    wall = time.perf_counter()
    for at in range(0, max(map(len, streams)), CHUNK):
        for session, stream in zip(sessions, streams, strict=True):
            begin = time.process_time()
            session.receive(stream[at : at + CHUNK])
            decoded = time.process_time()
            cost.decode += decoded - begin
            if len(buffer) >= FULL_RECORDS:
                table.add(buffer.batch(), now_ms)
                buffer.clear()
                cost.merge += time.process_time() - decoded
    begin = time.process_time()
    table.add(buffer.batch(), now_ms)
    buffer.clear()
    merged = time.process_time()
    while len(table.due(now_ms + INTERVAL_MS, FULL_RECORDS)):
        pass
    cost.merge += merged - begin
    cost.write += time.process_time() - merged
    cost.wall = time.perf_counter() - wall
    cost.received += table.stats.received
    cost.written += table.stats.written
    return cost


def _add(total: Cost, cost: Cost) -> None:
    for name, value in vars(cost).items():
        setattr(total, name, getattr(total, name) + value)
