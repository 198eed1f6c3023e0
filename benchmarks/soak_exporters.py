"""Exporters whose connections never stop changing, and the truth of all that they observed.

Each is the exporter's own sender with its queue, over a table of made-up connections. Two
neighbours are two nodes: what the one reports of connections between them the other reports as
well. A record is worth one packet, so sums of packets are numbers of intervals. The file of the
truth has these by the last two bytes of the client's address (`buckets`), and second, intervals
and octets by the second of their ends (`by_second`).
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer import finished
from flowvis.batch import Batch
from flowvis.delivery.queue import Queue
from flowvis.exporter.export import Exporter
from flowvis.fields import EndReason, FlowType
from flowvis.native import StringTable
from flowvis.runtime.dropped import ExportDropped, reason_of
from flowvis.runtime.ledger import Ledger
from flowvis.transport.address import CollectorAddress
from flowvis.transport.tls import TlsFiles

BUCKETS = 1 << 16
LIVE = 2_000  # connections of an exporter at one time
ENDING = 0.1  # of them, in each interval
BETWEEN = 0.5  # of them, between its node and its neighbour's
NAMES = 20  # Pods that are new in each interval
INTERVALS_EACH = 50  # that one string table serves
MOST_OCTETS = 100_000
ROOM = 200_000  # records that an exporter keeps
PATIENCE_S = 120.0
LOOK_S = 0.05

Ints = NDArray[np.int64]


class Truth:
    """How many intervals were told: in all, and of which parts."""

    def __init__(self) -> None:
        self.records = 0
        self._buckets = np.zeros(BUCKETS, np.int64)
        self._by_second: dict[int, tuple[int, int]] = {}

    def add(self, ids: Ints, end_ms: int) -> None:
        """Note an interval of these connections."""
        self.records += len(ids)
        np.add.at(self._buckets, ids % BUCKETS, 1)
        second = end_ms // 1000
        records, octets = self._by_second.get(second, (0, 0))
        self._by_second[second] = records + len(ids), octets + int(_octets(ids).sum())

    def save(self, path: Path) -> None:
        """Write it; see the module."""
        by_second = [(second, *sums) for second, sums in self._by_second.items()]
        with path.open("wb") as file:
            np.savez(file, buckets=self._buckets, by_second=by_second)


class Connections:
    """The table of one exporter: all of its connections are due in each interval."""

    survives = False

    def __init__(
        self, number: int, interval_s: float, truth: Truth, ledger: Ledger, ending: float
    ) -> None:
        self.queue = Queue(
            ledger.stage(f"records {number}"), 2 * ROOM, full=ExportDropped.PENDING_FULL
        )
        self.neighbour: Connections | None = None
        self.over = False
        self._number = number
        self._interval_ms = round(1000 * interval_s)
        self._truth = truth
        self._ending = ending
        self.given: deque[Batch] = deque()
        self._next_ms = 0
        self._random = np.random.default_rng(number)
        self._intervals = 0
        self._made = 0
        self._strings = StringTable()
        self._ids: Ints = np.arange(0)
        self._start_ms: Ints = np.arange(0)
        self._totals: Ints = np.arange(0)
        self._pods: NDArray[np.uint32] = np.arange(0, dtype=np.uint32)

    def due(self, now_ms: int, *, live: int) -> Batch:
        """Return what the neighbour has as well, then an interval of all connections."""
        if self.given and live:
            return self.given.popleft()
        full = len(self.queue) > ROOM or self._crowded
        if self.over or full or not live or now_ms < self._next_ms:
            return finished(b"\0\0", (), self._strings)
        self._next_ms = now_ms + self._interval_ms
        return self._interval(now_ms)

    def flush(self, *, live: int) -> Batch:  # noqa: ARG002  the tables' interface
        """Return what is left; nothing is known of connections beyond their intervals."""
        return self.given.popleft() if self.given else finished(b"\0\0", (), self._strings)

    def next_deadline(self) -> int | None:
        """Soon."""
        return int(1000 * time.time()) + 100

    @property
    def _crowded(self) -> bool:
        return self.neighbour is not None and len(self.neighbour.given) > 4

    def _interval(self, now_ms: int) -> Batch:
        if self._intervals % INTERVALS_EACH == 0:
            self._strings = StringTable()
            self._pods = self._new_pods(len(self._ids))
        self._intervals += 1
        self._fill_up(now_ms)
        self._totals += 1
        ending = self._random.random(len(self._ids)) < self._ending
        batch = self._batch(now_ms, ending)
        self._truth.add(self._ids, now_ms)
        if self.neighbour is not None:
            self.neighbour.given.append(batch.take(self._between))
        keep = ~ending
        self._ids, self._start_ms = self._ids[keep], self._start_ms[keep]
        self._totals, self._pods = self._totals[keep], self._pods[keep]
        return batch

    @property
    def _between(self) -> NDArray[np.bool_]:
        return np.asarray(self._ids % 100 < 100 * BETWEEN)

    def _fill_up(self, now_ms: int) -> None:
        new = LIVE - len(self._ids)
        ids = np.arange(self._made, self._made + new)
        self._made += new
        self._ids = np.concatenate([self._ids, ids])
        self._start_ms = np.concatenate([self._start_ms, now_ms - 1 - _mixed(ids) % 1000])
        self._totals = np.concatenate([self._totals, np.zeros(new, np.int64)])
        self._pods = np.concatenate([self._pods, self._new_pods(new)])

    def _new_pods(self, count: int) -> NDArray[np.uint32]:
        codes = [
            self._strings.intern(f"pod-{self._number}-{self._intervals}-{n}".encode())
            for n in range(NAMES)
        ]
        return np.resize(np.array(codes, np.uint32), count)

    def _batch(self, now_ms: int, ending: NDArray[np.bool_]) -> Batch:
        ids = self._ids
        between = self._between if self.neighbour is not None else np.zeros(len(ids), bool)
        values: dict[str, Any] = {
            "flowStartSeconds": self._start_ms // 1000,
            "flowStartMilliseconds": self._start_ms,
            "flowEndSeconds": now_ms // 1000,
            "flowEndMilliseconds": now_ms,
            "flowEndReason": np.where(ending, EndReason.END, EndReason.ACTIVE),
            "sourceTransportPort": 1024 + _mixed(ids) % 60_000,
            "flowType": np.where(between, FlowType.INTER_NODE, FlowType.INTRA_NODE),
            "octetTotalCount": _octets(ids) * self._totals,
            "octetDeltaCount": _octets(ids),
            "packetTotalCount": self._totals,
            "packetDeltaCount": 1,
        }
        network = bytes([10, self._number])
        batch = finished(network, ids % BUCKETS, self._strings, **values)
        batch["sourcePodName"][:] = self._pods
        return batch


def _mixed(ids: Ints) -> Ints:
    """Return numbers that look random: what is stored of them is as large as it would be."""
    return ids * 0x9E37_79B1 >> 7 & 0x7FFF_FFFF


def _octets(ids: Ints) -> Ints:
    """What each connection has in an interval."""
    return 40 + _mixed(ids) % MOST_OCTETS


@contextlib.contextmanager
def running(**options: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """Run `main` with these in a process of its own, which says at the end what it returns."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak_exporters", json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def main(
    *,
    port: int,
    certificates: str,
    exporters: int,
    rate: float,
    truth_file: str,
    ending: float = ENDING,
    paired: bool = True,
) -> dict[str, Any]:
    """Export until a line comes on standard input; then until all of it is with the collector.

    `ending` is the part of the connections that end in each interval; those that are `paired` tell
    each other's.
    """
    truth, ledger = Truth(), Ledger()
    records = exporters // 2 * LIVE * (1 + BETWEEN) if paired else exporters * LIVE
    interval_s = records / rate
    tables = [Connections(n, interval_s, truth, ledger, ending) for n in range(exporters)]
    files = {name: Path(certificates, name) for name in ("ca.crt", "client.crt", "client.key")}
    tls = TlsFiles(files["ca.crt"], files["client.crt"], files["client.key"])
    address = CollectorAddress("localhost", port, "tls")
    senders = [
        Exporter([table], table.queue, address, tls, domain=1000 + n)
        for n, table in enumerate(tables)
    ]
    for first, second in zip(tables[::2], tables[1::2], strict=True) if paired else ():
        first.neighbour, second.over = second, True
    for sender in senders:
        await sender.start()
    await asyncio.to_thread(sys.stdin.readline)
    for table in tables:
        table.over = True
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(  # noqa: ASYNC110  as other processes would
        len(t.queue) or t.given for t in tables
    ):
        await asyncio.sleep(LOOK_S)
    left = sum(len(table.queue) for table in tables)
    for sender in senders:
        await sender.stop()
    truth.save(Path(truth_file))
    return {
        "records": truth.records,
        "left": left,
        "sent": sum(table.queue.stats.sent for table in tables),
        "sent_again": sum(table.queue.stats.sent_again for table in tables),
        "acknowledged": sum(table.queue.stats.acknowledged for table in tables),
        "named": _losses(ledger),
    }


def _losses(ledger: Ledger) -> dict[str, int]:
    found: dict[str, int] = {}
    for stage in ledger.stages.values():
        for word, count in stage.dropped.items():
            reason = reason_of("records", word)
            if reason is None or reason.is_loss:
                found[f"exporter: {word}"] = found.get(f"exporter: {word}", 0) + count
    return {word: count for word, count in found.items() if count}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(**json.loads(sys.argv[1])))), flush=True)
