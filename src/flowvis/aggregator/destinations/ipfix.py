"""Sends the written records to an external IPFIX collector."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowvis.aggregator.destinations.outbox import Outbox
from flowvis.backlog import UNBOUNDED
from flowvis.batch import Batch
from flowvis.fields import AGGREGATED, Field
from flowvis.ipfix.exporter import ExporterSession
from flowvis.runtime.component import end, ended, let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.runtime.patience import Patience
from flowvis.transport.client import Client, ConnectionLost

log = logging.getLogger(__name__)

AT_ONCE = 8192  # records encoded in one go: 4 MB, 10 ms; what comes in has its turn in between
GRACE_S = 8.0
CUT_S = 0.5  # for a session that was cut to be noticed; less than between two attempts
PAUSE_S = 1.0  # after a defect, so that it does not fill the log


@dataclass(frozen=True)
class UnsentRecords:
    """What one destination could not send and another one may."""

    messages: list[bytes]
    batches: list[Batch]
    taken: int
    """How many records are in the messages."""
    fields: tuple[Field, ...]
    """What the records in the messages are made of."""


class IpfixDestination:
    """Records wait in an outbox while the collector is away; messages that never left go again.

    What the kernel took counts as sent: IPFIX over TCP has no acknowledgements.
    """

    def __init__(
        self,
        client: Client,
        stage: Stage,
        *,
        domain: Callable[[], int],
        capacity: int,
        max_bytes: int = UNBOUNDED,
        fields: Sequence[Field] = AGGREGATED,
        max_message: int = 65535,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"IPFIX collector {client.address}"
        self.outbox = Outbox(stage, capacity, max_bytes)
        self.put = self.outbox.put
        self.client = client
        self._domain = domain
        self._number = 0  # the domain's, for good: the collector knows us by it
        self._fields = tuple(fields)
        self._max_message = max_message
        self._grace_s = grace_s
        self._clock = clock
        self._unsent: list[bytes] = []  # messages with the records that the outbox has as taken
        self._retired = False
        self._log = LimitedLog(log)
        self._patience = Patience(self.name)
        self._task: asyncio.Task[None] | None = None

    def held(self) -> int:
        """Records that wait or are on their way."""
        return len(self.outbox)

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return self.outbox.bytes + sum(map(len, self._unsent))

    @property
    def problem(self) -> str:
        """Why nothing can be sent at the moment; "" when all is well."""
        return self._patience.problem if self.client.connected else "not connected"

    async def start(self) -> None:
        """Begin to send; whether the collector is there shows later."""
        self._number = self._domain()
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Send what waits within the grace period, then close; the rest is dropped, counted."""
        self.outbox.close()
        self.client.hurry()
        if self._task is not None and len(self.outbox):
            await asyncio.wait((self._task,), timeout=self._grace_s)
        await end(self._task)
        self.abandon()
        await self.client.close()

    async def retire(self, hurry: asyncio.Event) -> None:
        """Send what waits within the grace period, or until `hurry`, then close; keep the rest."""
        self.outbox.close()
        self.client.hurry()
        if self._task is not None:
            let_end(self._task)
            if len(self.outbox):
                await ended(self._task, self._grace_s, hurry)
            self._retired = True
            if len(self.outbox):
                self.client.cut()
            await asyncio.wait((self._task,), timeout=CUT_S)  # it notes what it has not sent
            await end(self._task)
        await self.client.close()

    def remainder(self) -> UnsentRecords:
        """Take out what was kept when it was retired."""
        messages, self._unsent = self._unsent, []
        return UnsentRecords(messages, *self.outbox.release(), self._fields)

    def succeed(self, remainder: UnsentRecords) -> None:
        """Take over what another one has kept; before `start`."""
        self.outbox.take_over(remainder.batches, remainder.taken)
        if remainder.fields == self._fields:
            self._unsent = remainder.messages
        else:
            self.outbox.dropped(OutgoingDropped.OTHER_TEMPLATE, remainder.taken)

    def abandon(self) -> None:
        """Give up what waits, counted."""
        if len(self.outbox):
            log.error("%s: gave up %d records at shutdown", self.name, len(self.outbox))
            self.outbox.abandon(OutgoingDropped.SHUTDOWN)

    async def _run(self) -> None:
        while not self._retired and (len(self.outbox) or not self.outbox.closed):
            try:
                await self.client.connect()
                await self._converse()
            except ConnectionLost:
                continue
            except Exception:
                lost, self._unsent = self.outbox.taken, []
                self.outbox.dropped(OutgoingDropped.FAILED, lost)
                log.exception("%s: a defect of ours; %d records are given up", self.name, lost)
                self.client.cut()
                await asyncio.sleep(PAUSE_S)

    async def _converse(self) -> None:
        """Fill one session: templates, what never left the one before, then what comes."""
        session = ExporterSession(self._number, self._fields, max_message=self._max_message)
        await self.client.send(session.templates(self._now()))
        self._unsent = session.resume(self._unsent, self.outbox.taken)
        await self._deliver(session)
        while await self._has_work() and (batch := await self.outbox.take(AT_ONCE)) is not None:
            oversize = session.stats.oversize
            shortened = session.stats.shortened
            self._unsent = session.encode(batch, self._now())
            self._say_shortened(session.stats.shortened - shortened)
            self.outbox.dropped(OutgoingDropped.OVERSIZE, session.stats.oversize - oversize)
            await self._deliver(session)
            await asyncio.sleep(0)  # sending does not wait while the kernel has room

    def _say_shortened(self, count: int) -> None:
        if count:
            text = "%d records have shortened texts, as they fit into no message of %d bytes"
            self._log.log(logging.WARNING, self.name, text, count, self._max_message)

    async def _has_work(self) -> bool:
        """Wait for records; False when the session is lost meanwhile: the next is to be ready."""
        if self.outbox.waiting:
            return self.client.connected
        waits = [
            asyncio.ensure_future(self.outbox.ready()),
            asyncio.ensure_future(self.client.lost()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.client.connected

    async def _deliver(self, session: ExporterSession) -> None:
        try:
            with self._patience.waiting(f"take {self.outbox.taken} records"):
                await self.client.send(self._unsent)
        except ConnectionLost as lost:
            self._unsent = lost.unsent
            self.outbox.sent(self.outbox.taken - session.records_from(lost.unsent))
            raise
        self._unsent = []
        self.outbox.sent(self.outbox.taken)

    def _now(self) -> int:
        return int(self._clock())
