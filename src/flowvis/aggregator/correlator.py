"""Runs the flow table: records in, due records out, completed, to every destination."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from flowvis.aggregator.acknowledgement import Acknowledgements
from flowvis.aggregator.correlation.checkpoint import Flows
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.parked import Inquiry
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.enrichment.endpoints import Endpoints
from flowvis.aggregator.quarantine import Quarantine
from flowvis.aggregator.under_way import UnderWay
from flowvis.batch import SETTLED, Batch
from flowvis.parts import each_part
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

CORRELATING = "correlation"
COMPLETING = "completion"

TICK_S = 0.5  # how late a due record may be; a tick scans the whole table
AT_ONCE = 8192  # records written in one go: 5 MB, some 8 ms in which no session is read


class Destination(Protocol):
    """What takes written records."""

    def put(self, batch: Batch) -> None:
        """Take a batch or count it as dropped; never wait."""


def _nothing_waits() -> int:
    return SETTLED


class Correlator:
    """The flow table in time. `stage` is its page in the ledger.

    Each call of `add` is a cycle. The oldest one of which something waits, here or between here and
    the destinations, says what is durable: `watermark`.
    """

    name = "correlator"

    def __init__(
        self,
        table: FlowTable,
        completer: Completer,
        destinations: Iterable[Destination],
        stage: Stage,
        *,
        tick_s: float = TICK_S,
        clock: Callable[[], int] = now_ms,
        quarantine: Quarantine | None = None,
        undelivered: Callable[[], int] = _nothing_waits,
        under_way: UnderWay | None = None,
    ) -> None:
        """`undelivered`: the oldest mark of what those destinations have that must deliver it."""
        self.under_way = under_way or UnderWay()
        self.table = table
        self.acknowledgements = Acknowledgements()
        self._undelivered = undelivered
        self._cycle = 0
        self.keeps: Callable[[int], bool] = bool
        """Whether the exporter of a number sends again what it does not hear to be durable."""
        self.stage = stage
        self._completer = completer
        self._endpoints = Endpoints(completer.inventory)
        self._destinations = destinations
        self._tick_s = tick_s
        self._clock = clock
        self._log = LimitedLog(log, burst=1)
        self._task: asyncio.Task[None] | None = None
        self.quarantine = quarantine or Quarantine()
        table.report = partial(self.quarantine.note, CORRELATING)
        stage.held = lambda: table.stats.held + table.stats.parked

    @property
    def full(self) -> bool:
        """Whether no more records are to be taken in, as too many wait for the store."""
        return self.table.parked.full

    @property
    def watermark(self) -> int:
        """The first cycle of which something may not be durable; SETTLED where all is."""
        return min(self.table.mark, self.under_way.mark)

    def settle(self) -> None:
        """Have what is delivered kept, and acknowledge what is durable."""
        self.under_way.settle(self._undelivered())
        self.acknowledgements.settle(self.watermark)

    def add(self, batch: Batch) -> int:
        """Take records of exporters into the table; those that cannot be are counted.

        Return the number of the cycle.
        """
        self._cycle += 1
        each_part(batch, self._add, self._add_as_reported)
        self._balance()
        return self._cycle

    def open_flows(self, slots: int) -> Iterator[Batch]:
        """Go through copies of the flows that are open, as they would be written now.

        In parts of at most so many slots of the table each; changes nothing.
        """
        for part in self.table.live_parts(slots):
            found: list[Batch] = []

            def complete(batch: Batch, found: list[Batch] = found) -> None:
                self._completer.complete(batch, counts=False)
                found.append(batch)

            def leave(error: Exception, batch: Batch, found: list[Batch] = found) -> None:
                self.quarantine.note(COMPLETING, error, batch)
                found.append(batch)

            each_part(part, complete, leave)
            yield from found

    def answer(self, inquiry: Inquiry, stored: Flows) -> None:
        """Go on from what the store has of connections, and merge what waited for it."""
        try:
            self.table.answer(inquiry, stored, self._clock())
        except Exception as error:  # noqa: BLE001  records go on without
            text = "a defect of ours in going on from the store: %s: %s"
            name = type(error).__name__
            self._log.log(logging.ERROR, name, text, name, error, error=error)
            self.table.unpark(self._clock())
        self._balance()

    def _add(self, batch: Batch) -> None:
        self.table.add(self._endpoints.settle(batch), self._clock(), self._cycle)

    def _add_as_reported(self, error: Exception, batch: Batch) -> None:
        """Take records as they are; where that fails as well, give them up."""
        self.quarantine.note(CORRELATING, error, batch)
        try:
            self.table.add(batch, self._clock(), self._cycle)
        except Exception:  # noqa: BLE001  as before, most likely
            self.table.stats.received += len(batch)
            self.table.stats.failed += len(batch)

    async def start(self) -> None:
        """Begin to write what is due."""
        self._task = spawn(self.name, self._run())

    @property
    def cycle(self) -> int:
        """The last one."""
        return self._cycle

    async def write_complete(self) -> None:
        """Write what waits, but for halves whose other halves are missing."""
        await self._write_all(self.table.flush_complete)

    async def stop(self) -> None:
        """Write what waits, but for what exporters keep until they hear that it is durable."""
        await end(self._task)
        self.table.leave(self.keeps, self._clock())
        await self._write_all(self.table.flush)
        self._balance()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self._write_all(self.table.due)
                self._completer.inventory.expire(self._clock())
                self.settle()
            except Exception as error:  # noqa: BLE001  the next tick may be better
                text = "a defect of ours in writing what is due: %s: %s"
                name = type(error).__name__
                self._log.log(logging.ERROR, name, text, name, error, error=error)

    async def _write_all(self, choose: Callable[[int, int], Batch]) -> None:
        """Write what `choose` gives, in parts between which sessions are read."""
        while len(batch := choose(self._clock(), AT_ONCE)):
            each_part(batch, self._complete, self._leave_uncompleted)
            self._balance()
            await asyncio.sleep(0)
            if len(batch) < AT_ONCE:  # that was all
                break

    def _complete(self, batch: Batch) -> None:
        self._completer.complete(batch)
        self._give(batch)

    def _leave_uncompleted(self, error: Exception, batch: Batch) -> None:
        """Write records with what was added to them until that failed."""
        self.quarantine.note(COMPLETING, error, batch)
        self.table.stats.uncompleted += len(batch)
        self._give(batch)

    def _give(self, batch: Batch) -> None:
        """Give records to all destinations; one that fails costs the others nothing."""
        self.under_way.put(batch)
        for destination in self._destinations:
            try:
                destination.put(batch)
            except Exception as error:  # noqa: BLE001  whatever it is, the others go on
                self.quarantine.note(f"handing over to {_name(destination)}", error, batch)

    def _balance(self) -> None:
        stats = self.table.stats
        self.stage.received = stats.received
        self.stage.sent = stats.written
        self.stage.merged = stats.merged
        self.stage.dropped = {reason: count for reason, count in stats.dropped.items() if count}


def _name(destination: Destination) -> str:
    return str(getattr(destination, "name", type(destination).__name__))
