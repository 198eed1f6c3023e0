"""Asks what was written of connections before their records came to this aggregator."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flowvis.aggregator.correlation.checkpoint import NONE, Flows, flows
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.parked import Inquiry
from flowvis.aggregator.correlator import Correlator
from flowvis.checkpoint import tuple_hashes
from flowvis.clickhouse.schema.checkpoints import TooManyRows, Wanted, restore
from flowvis.clickhouse.store import Store
from flowvis.counts import count
from flowvis.errors import FlowvisError
from flowvis.runtime.clock import now_ms
from flowvis.runtime.component import end, spawn
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

TICK_S = 0.1  # how long records wait for company, before the store is asked for all of them
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
DEFECTS = 3  # attempts that may end in an error that no store gives; then records go on without
PATIENCE_S = 60.0
"""How long records wait that only may be late: they hold up what is acknowledged after them. That
is several commits, so in this time a store that is there has what we wrote."""


@dataclass(slots=True)
class BaselineStats:
    """What was asked."""

    questions: int = count("Questions about connections that were answered")
    connections: int = count("Connections that were asked for")
    unanswered: int = count(
        "Connections that went on without an answer, late or by a defect of ours"
    )
    failures: int = count("Questions that failed; each is asked again")
    seconds: float = count("Seconds spent in questions that were answered")


class Past(Protocol):
    """Who knows what was written."""

    async def ready(self) -> None:
        """Wait until it has what we wrote and know no more, and what who was before us wrote."""

    async def last_written(self, inquiry: Inquiry) -> Flows:
        """Return what was written of connections; FlowvisError where that cannot be said now."""


class StoredPast:
    """A store that is written to; `commits` is the page of the books of the way there.

    `awaits` says whether it still lacks what an aggregator before us has left, or may be leaving,
    `clusters` which ids the records of our cluster have; of any cluster, where there are none.
    """

    def __init__(
        self,
        store: Store,
        commits: Stage | None,
        table: FlowTable,
        tick_s: float = TICK_S,
        *,
        awaits: Callable[[], bool] = bool,
        clusters: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._store, self._commits, self._table = store, commits, table
        self._tick_s = tick_s
        self._awaits, self._clusters = awaits, clusters

    async def ready(self) -> None:
        """Wait until the store has what we wrote of flows that are forgotten here.

        And what an aggregator before us has left in the spool, which comes first.
        """
        while self._awaits():  # noqa: ASYNC110  as a lock of another process has no event
            await asyncio.sleep(self._tick_s)
        commits = self._commits
        if commits is None or not self._table.forgets:
            return
        written = commits.received
        while commits.received - commits.held() < written:  # noqa: ASYNC110  as books have no event
            await asyncio.sleep(self._tick_s)

    async def last_written(self, inquiry: Inquiry) -> Flows:
        """Ask; StoreError."""
        hashes, of = tuple_hashes(inquiry.keys), self._clusters()
        wanted = Wanted(hashes, inquiry.since_s, inquiry.crowded, of)
        return await asyncio.to_thread(_last_written, self._store, wanted)


class Baseline:
    """A component: whatever is parked in the table is asked for, and merged with the answer.

    `past` is who is asked, None where there is nobody: then what is parked is merged as it is.
    """

    name = "baseline"

    def __init__(
        self,
        correlator: Correlator,
        past: Callable[[], Past | None],
        *,
        clock: Callable[[], int] = now_ms,
        tick_s: float = TICK_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self.stats = BaselineStats()
        self._problem = ""
        self._correlator, self._table = correlator, correlator.table
        self._past = past
        self._clock = clock
        self._tick_s = tick_s
        self._log = LimitedLog(log, burst=1)
        self._task: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why records wait longer than a question takes; "" when all is well."""
        return self._problem

    async def start(self) -> None:
        """Begin to ask."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Ask no more; what is parked stays."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            inquiry = self._table.parked.inquiry(self._clock() // 1000)
            waiting = [inquiry] if inquiry is not None else []
            while waiting:
                part = waiting.pop()
                try:
                    stored = await self._answer_to(part)
                except TooManyRows:
                    waiting += part.smaller()
                else:
                    self._correlator.answer(part, stored)

    async def _answer_to(self, inquiry: Inquiry) -> Flows:
        """Ask for as long as it takes, or as records may wait that are only late."""
        try:
            async with asyncio.timeout(None if inquiry.patient else self._patience_s):
                return await self._ask(inquiry)
        except TimeoutError:
            self._problem = ""
            self.stats.unanswered += len(inquiry.keys)
            text = (
                "%d connections go on without what was written of them, as the store has not said "
                "it for %g s; what two nodes told far apart may count twice"
            )
            values = (len(inquiry.keys), self._patience_s)
            self._log.log(logging.WARNING, "unanswered", text, *values)
            return NONE

    async def _ask(self, inquiry: Inquiry) -> Flows:
        """Ask until there is an answer, or nobody to ask any more; TooManyRows: ask for less."""
        pause_s = FIRST_PAUSE_S
        defects = 0
        while (past := self._past()) is not None:
            try:
                await past.ready()
                began = time.monotonic()
                stored = await past.last_written(inquiry)
            except TooManyRows:
                raise
            except Exception as error:
                self.stats.failures += 1
                if not isinstance(error, FlowvisError):
                    log.exception("a defect of ours in asking what was written of connections")
                    defects += 1
                    if defects == DEFECTS:
                        break
                self._problem = str(error) or type(error).__name__
                text = (
                    "records wait, as it cannot be said what was written of their connections: %s"
                )
                self._log.log(logging.WARNING, "past", text, self._problem)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  apart
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            self.stats.questions += 1
            self.stats.connections += len(inquiry.keys)
            self.stats.seconds += time.monotonic() - began
            self._problem = ""
            return stored
        self._problem = ""
        if defects == DEFECTS:
            self.stats.unanswered += len(inquiry.keys)
        return NONE


def _last_written(store: Store, wanted: Wanted) -> Flows:
    return flows(restore(store.checkpoints(wanted)))
