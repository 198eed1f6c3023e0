"""Runs the flow table: records in, due records out, completed, to every destination."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.enrichment.endpoints import Endpoints
from flowvis.batch import Batch
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.ledger import Stage

log = logging.getLogger(__name__)

TICK_S = 0.5  # how late a due record may be; a tick scans the whole table
AT_ONCE = 20_000  # records written in one go: some 20 ms in which no session is read


class Destination(Protocol):
    """What takes written records."""

    def put(self, batch: Batch) -> None:
        """Take a batch or count it as dropped; never wait."""


class Correlator:
    """The flow table in time. `stage` is its page in the ledger."""

    name = "correlator"

    def __init__(
        self,
        table: FlowTable,
        completer: Completer,
        destinations: Sequence[Destination],
        stage: Stage,
        *,
        tick_s: float = TICK_S,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.table = table
        self.stage = stage
        self._completer = completer
        self._endpoints = Endpoints(completer.inventory)
        self._destinations = destinations
        self._tick_s = tick_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        stage.held = lambda: table.stats.held

    def add(self, batch: Batch) -> None:
        """Take records of exporters into the table."""
        self.table.add(self._endpoints.settle(batch), self._clock())
        self._balance()

    async def start(self) -> None:
        """Begin to write what is due."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Write everything that waits."""
        await end(self._task)
        await self._write_all(self.table.flush)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            await self._write_all(self.table.due)
            self._completer.inventory.expire(self._clock())

    async def _write_all(self, choose: Callable[[int, int], Batch]) -> None:
        """Write what `choose` gives, in parts between which sessions are read."""
        while len(batch := choose(self._clock(), AT_ONCE)):
            self._completer.complete(batch)
            for destination in self._destinations:
                try:
                    destination.put(batch)
                except Exception:  # the others get it all the same
                    log.exception("a defect of ours: %d records for one destination", len(batch))
            self._balance()
            await asyncio.sleep(0)

    def _balance(self) -> None:
        stats = self.table.stats
        self.stage.received = stats.received
        self.stage.sent = stats.written
        self.stage.merged = stats.merged
        self.stage.dropped = {reason: count for reason, count in stats.dropped.items() if count}
