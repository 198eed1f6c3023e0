"""The checkpoint where no store is: what was delivered of each connection, in a directory."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.checkpoint_files import CheckpointFiles, look_up
from flowvis.aggregator.correlation.checkpoint import Flows
from flowvis.aggregator.correlation.kept import HASH, KEPT, MOST_ROWS, last_written
from flowvis.aggregator.correlation.parked import LONGEST_S, Inquiry
from flowvis.aggregator.under_way import UnderWay
from flowvis.checkpoint import tuple_hashes
from flowvis.counts import count, gauge
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.directory import HANDOVER_S, Handover
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

LOOK_S = 1.0
AGAIN_S = 30.0  # after files could not be merged, which reads them all
AT_ONCE_S = 0.02  # what was delivered in the last moment before a kill is told twice


@dataclass(slots=True)
class CheckpointStats:
    """How the directory fares."""

    rows: int = gauge("Rows of checkpoints on disk, those that later ones supersede included")
    bytes: int = gauge("Bytes of the files of checkpoints")
    merged: int = count("Times that files became one, without superseded rows")
    failures: int = count("Times that the directory could not be read or written")
    damaged: int = count("Parts of files that were not as they were written, left out")
    forgotten: int = count("Checkpoints of connections that were given up for want of room on disk")
    unkept: int = count("Checkpoints that were let go as they could not be written for too long")


class Checkpoints:
    """Component: keeps what is delivered, and answers what was written of connections.

    `stored`: whether a store is there. Then it is the checkpoint, and nothing is kept here.
    `undelivered`: the oldest mark of what destinations have.
    """

    name = "checkpoints"

    def __init__(
        self,
        files: CheckpointFiles,
        under_way: UnderWay,
        stored: Callable[[], bool],
        undelivered: Callable[[], int],
        *,
        look_s: float = LOOK_S,
        wait_s: float = HANDOVER_S,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.stats = CheckpointStats()
        self._files = files
        self._under_way = under_way
        self._stored = stored
        self._undelivered = undelivered
        self._look_s = look_s
        self._handover = Handover(wait_s)
        self._clock = clock
        self._problem = ""
        self._merge_at_s = self._write_at_s = 0.0  # not before, by the monotonic clock
        self._reading = asyncio.Lock()
        self._expected = asyncio.Event()
        self._log = LimitedLog(log, burst=1)
        self._task: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why nothing is kept; "" when all is well."""
        return self._problem

    @property
    def wanted(self) -> bool:
        """Whether this is the place for checkpoints."""
        return not self._stored()

    @property
    def memory_bytes(self) -> int:
        """What the index takes, and what waits to be kept."""
        return self._files.memory_bytes + self._under_way.bytes

    async def start(self) -> None:
        """Read what there is."""
        await self._open()
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Keep what destinations have delivered as they stopped, and let go of the directory."""
        await end(self._task)
        self._write_at_s = 0.0
        self._under_way.settle(self._undelivered())
        async with self._reading:
            self._files.close()

    def keep(self, rows: Sequence[NDArray[np.void]]) -> bool:
        """Append rows of KEPT; False where that cannot be at the moment.

        A disk that is full is not tried at once again: all that waits would be made ready for it,
        and who sends records would wait for that.
        """
        if not self._files.is_open or time.monotonic() < self._write_at_s:
            return False
        try:
            for few in _joined(rows):
                self._files.append(few)
        except OSError as error:
            self._write_at_s = time.monotonic() + self._look_s
            self._fail(error)
            return False
        self._problem = ""
        self._measure()
        return True

    def expect(self) -> None:
        """Look for what is delivered at short intervals, as there will be something."""
        self._expected.set()

    async def ready(self) -> None:
        """Wait for whoever else has the directory; not for ever."""
        while not self._files.is_open and self._handover.goes_on():  # noqa: ASYNC110  as a lock has no event
            await asyncio.sleep(AT_ONCE_S)

    async def last_written(self, inquiry: Inquiry) -> Flows:
        """Return what was written of connections, as far as it can be read."""
        hashes = tuple_hashes(inquiry.keys)
        waiting = [rows[np.isin(rows[HASH], hashes)] for rows in self._under_way.rows]
        async with self._reading:
            try:
                found = await asyncio.to_thread(look_up, self._files.views(), hashes)
            except OSError as error:
                self._fail(error)
                found = np.zeros(0, dtype=KEPT)
        rows = np.concatenate([found, *waiting])
        return last_written(rows[rows["flowEndSeconds"] >= inquiry.since_s])

    async def _run(self) -> None:
        while True:
            await self._keep_delivered()
            if not self._files.is_open:
                await self._open()
            elif not self.wanted:
                await self._clear()
            elif self._files.is_long and time.monotonic() >= self._merge_at_s:
                await self._merge()
            self._measure()

    async def _keep_delivered(self) -> None:
        """Have what is under way kept as it is delivered, until it is time to look round."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_s):
                while True:
                    await self._expected.wait()
                    await asyncio.sleep(AT_ONCE_S)
                    self._under_way.settle(self._undelivered())
                    if not self._under_way.bytes:
                        self._expected.clear()

    async def _open(self) -> None:
        async with self._reading:
            try:
                await asyncio.to_thread(self._files.open)
            except BlockingIOError:
                self._problem = f"{self._files.path}: another process has it"
                self._log.log(logging.WARNING, "open", "checkpoints: %s", self._problem)
            except OSError as error:
                self._handover.give_up()  # nobody has it
                self._fail(error)
            else:
                self._problem = ""
        self._measure()

    async def _merge(self) -> None:
        """Make one file of all, without what is superseded."""
        async with self._reading:
            sealed = self._files.sealed()
            since_s = max(self._clock() // 1000 - LONGEST_S, 0)
            try:
                merged = await asyncio.to_thread(self._files.merge, sealed, since_s)
            except OSError as error:
                self._files.keep_unmerged()
                self._merge_at_s = time.monotonic() + AGAIN_S
                self._fail(error)
                return
            self._files.replace(sealed, merged)
            self._files.sweep()
        self.stats.merged += 1

    async def _clear(self) -> None:
        """Keep nothing that a store has gone on from."""
        if self._files.bytes:
            async with self._reading:
                self._files.clear()
                self._files.sweep()

    def _fail(self, error: OSError) -> None:
        self.stats.failures += 1
        self._problem = f"{self._files.path}: {error.strerror or error}"
        text = "checkpoints: what is delivered may be told twice after a kill: %s"
        self._log.log(logging.WARNING, "failed", text, self._problem)

    def _measure(self) -> None:
        stats, files = self.stats, self._files
        stats.rows, stats.bytes = files.rows, files.bytes
        stats.damaged, stats.forgotten = files.damaged, files.forgotten
        stats.unkept = self._under_way.unkept


def _joined(rows: Sequence[NDArray[np.void]]) -> Iterator[NDArray[np.void]]:
    """Join rows to as many as a frame has: where these are not taken the others are not touched."""
    few: list[NDArray[np.void]] = []
    count = 0
    for part in rows:
        few.append(part)
        count += len(part)
        if count >= MOST_ROWS:
            yield np.concatenate(few)
            few, count = [], 0
    if few:
        yield np.concatenate(few)
