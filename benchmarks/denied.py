"""Logged packets of the kernel into the table of denied connections: a flood from many clients."""

import struct
import time
from typing import Any

from flowvis.denials.nflog import PACKET, LogDecoder
from flowvis.denials.prefixes import Prefixes
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope

CONNECTIONS = 5000
RULES = 30
READ = 1000  # packets that one read brings in a flood
ROUNDS = 20
NOW_MS = 1_700_000_000_000
WITHOUT_LIMIT = 1 << 40


def run() -> dict[str, Any]:
    reads = [
        b"".join(_logged(number) for number in range(start, start + READ))
        for start in range(0, 4 * CONNECTIONS, READ)
    ]
    decoder = LogDecoder(Prefixes())
    table = DeniedTable(PlainHost(), Scope(), max_packets_per_second=WITHOUT_LIMIT)
    wall, cpu, reported = time.perf_counter(), time.process_time(), 0
    for round_ in range(ROUNDS):
        now_ms = NOW_MS + 60_000 * round_
        for data in reads:
            table.add(decoder.decode(data, now_ms), now_ms)
        reported += len(table.due(now_ms + 30_000))
    cpu = time.process_time() - cpu
    records = ROUNDS * READ * len(reads)
    assert table.packets.received == records
    assert reported == ROUNDS * CONNECTIONS
    return {
        "records": records,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "connections": CONNECTIONS,
        "us_per_packet": round(1e6 * cpu / records, 2),
    }


def _logged(number: int) -> bytes:
    """A message of the kernel about the first packet of a TCP connection."""
    client = number % CONNECTIONS
    header = struct.pack(
        "!BBHHHBBHII", 0x45, 0, 60, 0, 0, 64, 6, 0, 0x0A000000 + client, 0x0A800001
    )
    packet = header + struct.pack("!HH", 1024 + client, 80) + bytes(36)
    rule = b"DPI%d|knp/shop/knp.default.deny-all\0" % (client % RULES)
    attributes = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in (
            (1, struct.pack("!HBB", 0x0800, 3, 0)),
            (10, rule),
            (4, struct.pack("!I", 2)),
            (5, struct.pack("!I", 3)),
            (12, struct.pack("!I", number)),
            (9, packet),
        )
    )
    return struct.pack("=IHHIIBBH", 20 + len(attributes), PACKET, 0, 0, 0, 2, 0, 0) + attributes
