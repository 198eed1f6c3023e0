"""What destinations of files, objects and brokers have in common: loads, delivered one at a time.

Records wait in a queue until there are enough, or for long enough, to be a load. It is delivered
whole, and again with growing pauses until that is known to have succeeded, however long it takes;
the queue is bounded meanwhile.
"""

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from flowvis.backlog import UNBOUNDED
from flowvis.batch import Batch
from flowvis.counts import count, gauge
from flowvis.delivery.patience import Patience
from flowvis.delivery.queue import Unsettled
from flowvis.delivery.queued import QueuedDestination
from flowvis.errors import FlowvisError
from flowvis.runtime.backoff import Backoff
from flowvis.runtime.component import end, ended, let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

log = logging.getLogger(__name__)

DEFECTS = 3  # attempts that may end in an error that no receiver gives; then the load is dropped


class Undelivered(FlowvisError):
    """A load was not taken; it is tried again unless the receiver never takes it."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.final = final


@dataclass(slots=True)
class LoadStats:
    """What became of loads since the start."""

    delivered: int = count("Loads (files, objects, messages together) that were taken")
    delivered_bytes: int = count("Bytes of these, as they were sent or written")
    failures: int = count("Attempts that failed; each is repeated")
    last_delivered_ms: int = gauge("When the last one was taken, in ms since the epoch")


@dataclass
class Load:
    """Records that are delivered together; what is made of them once stays with all attempts."""

    batches: list[Batch]
    name: str = ""
    """What the destination calls it, for all attempts."""
    defects: int = 0
    """How many attempts ended in an error that no receiver gives."""

    def __len__(self) -> int:
        return sum(map(len, self.batches))


class LoadDestination(QueuedDestination, ABC):
    """Delivers loads, in order; subclasses say how."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        *,
        capacity: int,
        max_bytes: int = UNBOUNDED,
        grace_s: float = 8.0,
        required: bool = False,
        load_records: int,
        interval_s: float,
        stats: LoadStats | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A load has `load_records` at most, and is delivered after `interval_s` at the latest.

        It has half of the `capacity` and a quarter of `max_bytes` at the most: what comes before it
        is delivered has room. `stats` are those of the destination whose place this one takes.
        """
        super().__init__(name, stage, capacity=capacity, max_bytes=max_bytes, required=required)
        self.stats = stats or LoadStats()
        self._load_records = min(load_records, max(capacity // 2, 1))
        self._load_bytes = max_bytes // 4
        self.waits_s = interval_s
        self._grace_s = grace_s
        self._clock = clock
        self._load: Load | None = None
        self._enough = asyncio.Event()
        self._stopping = asyncio.Event()
        self._backoff = Backoff()
        self._patience = Patience(name)
        self._failing = ""
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def deliver(self, load: Load) -> int:
        """Deliver a load and return its bytes; Undelivered when it was not, or not surely, taken.

        The next attempt has the same load, with the name that this one gave it.
        """

    async def completed(self, load: Load) -> bool:  # noqa: ARG002  for subclasses
        """Whether a delivery that was broken off has come to its end all the same."""
        return False

    @abstractmethod
    async def close(self) -> None:
        """Let go of what the destination has open."""

    @property
    def problem(self) -> str:
        """Why nothing can be delivered at the moment; "" when all is well."""
        return self._patience.problem or self._failing

    def put(self, batch: Batch) -> None:
        """Take a batch; the oldest that wait are dropped when there are too many."""
        super().put(batch)
        if self._has_enough():
            self._enough.set()

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self._load_bytes = max_bytes // 4
        super().bound(max_bytes)

    def hurry(self) -> None:
        """Wait for no more records to come."""
        self._enough.set()

    async def start(self) -> None:
        """Begin to deliver; whether that is possible shows later."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Deliver what waits within the grace period, then close; the rest is dropped, counted."""
        self._begin_to_stop()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._grace_s)
            await end(self._task)
        self.abandon()
        await self.close()

    async def retire(self, hurry: asyncio.Event) -> None:
        """Deliver what waits within the grace period, or until `hurry`; close, keep the rest."""
        self._begin_to_stop()
        if self._task is not None:
            let_end(self._task)
            await ended(self._task, self._grace_s, hurry)
            await end(self._task)
        await self.close()

    def remainder(self) -> Unsettled:
        """Take out what was kept when it was retired."""
        self._load = None
        return super().remainder()

    def abandon(self) -> None:
        """Give up what waits, counted."""
        super().abandon()
        self._load = None

    def _begin_to_stop(self) -> None:
        self.queue.close()
        self._stopping.set()
        self._enough.set()

    async def _run(self) -> None:
        while self._load is not None or self.queue.waiting or not self.queue.closed:
            if self._load is None:
                self._load = await self._next()
            if self._load is not None and not await self._attempt(self._load):
                await _event(self._stopping, self._backoff.wait_s())
                if self._stopping.is_set():
                    await asyncio.sleep(0.1)  # within the grace period, often

    async def _next(self) -> Load | None:
        """Wait for a load; None when nothing comes any more."""
        await self.queue.ready()
        if not self._has_enough():
            self._enough.clear()
            if not self._stopping.is_set():
                await _event(self._enough, self.waits_s)
        batches: list[Batch] = []
        records, left = self._load_records, self._load_bytes
        while records > 0 and left > 0 and (batch := self.queue.take(records)) is not None:
            batches.append(batch)
            records -= len(batch)
            left -= sum(column.nbytes for column in batch.columns.values())
        return Load(batches) if batches else None

    def _has_enough(self) -> bool:
        queue = self.queue
        return queue.waiting >= self._load_records or queue.bytes >= self._load_bytes

    async def _attempt(self, load: Load) -> bool:
        """Deliver a load; False when it is to be tried again."""
        try:
            with self._patience.waiting(f"take {len(load)} records"):
                size = await self.deliver(load)
        except asyncio.CancelledError:
            if await self.completed(load):
                self.queue.sent(len(load))
                self._load = None
            raise
        except Undelivered as error:
            return self._failed(load, str(error), OutgoingDropped.REJECTED if error.final else None)
        except Exception as error:
            log.exception("%s: a defect of ours", self.name)
            load.defects += 1
            gone = OutgoingDropped.FAILED if load.defects >= DEFECTS else None
            return self._failed(load, f"{type(error).__name__}: {error}", gone)
        self.queue.sent(len(load))
        if self._failing:
            log.info("%s: goes on", self.name)
        self._load, self._failing = None, ""
        self._backoff.reset()
        self.stats.delivered += 1
        self.stats.delivered_bytes += size
        self.stats.last_delivered_ms = int(self._clock() * 1000)
        return True

    def _failed(self, load: Load, problem: str, gone: OutgoingDropped | None) -> bool:
        self.stats.failures += 1
        if problem != self._failing:
            log.error("%s: %s", self.name, problem)
        self._failing = problem
        if gone is None:
            return False
        self.queue.drop(gone, len(load))
        self._load = None
        return True


async def _event(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, and for so long at most."""
    # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
