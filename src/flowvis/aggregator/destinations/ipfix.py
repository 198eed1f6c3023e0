"""Sends the written records to an external IPFIX collector."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from flowvis.backlog import UNBOUNDED
from flowvis.delivery.messages import all_but, encode_next
from flowvis.delivery.patience import Patience
from flowvis.delivery.queue import Queue, Unsettled
from flowvis.fields import AGGREGATED, Field
from flowvis.ipfix.exporter import ExporterSession, least_message
from flowvis.runtime.component import end, ended, let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.runtime.logs import LimitedLog
from flowvis.transport.client import Client, ConnectionLost

log = logging.getLogger(__name__)

AT_ONCE = 8192  # records encoded in one go: 4 MB, 10 ms; what comes in has its turn in between
GRACE_S = 8.0
CUT_S = 0.5  # for a session that was cut to be noticed; less than between two attempts
PAUSE_S = 1.0  # after a defect, so that it does not fill the log


class IpfixDestination:
    """Records wait in a queue while the collector is away; those that never left go again.

    What the kernel took counts as sent: IPFIX has no acknowledgements.

    `template_refresh_s` is for UDP, where templates go out again and again; None: only at first.
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
        template_refresh_s: int | None = None,
        grace_s: float = GRACE_S,
        required: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"IPFIX collector {client.address}"
        self.queue = Queue(stage, capacity, max_bytes)
        self.put = self.queue.put
        self.bound = self.queue.bound
        self.client = client
        self.stats = client.stats
        self.required = required
        self._domain = domain
        self._number = 0  # the domain's, for good: the collector knows us by it
        self._fields = tuple(fields)
        self._max_message = max_message
        self._template_refresh_s = template_refresh_s
        self._grace_s = grace_s
        self._clock = clock
        self._retired = False
        self._log = LimitedLog(log)
        self._patience = Patience(self.name)
        self._task: asyncio.Task[None] | None = None

    def held(self) -> int:
        """Records that wait or are on their way."""
        return len(self.queue)

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return self.queue.bytes

    @property
    def problem(self) -> str:
        """Why nothing can be sent at the moment; "" when all is well."""
        return self._patience.problem if self.client.connected else "not connected"

    @property
    def mark(self) -> int:
        """The oldest mark of what has not been handed to the kernel."""
        return self.queue.mark

    async def start(self) -> None:
        """Begin to send; whether the collector is there shows later."""
        self._number = self._domain()
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Send what waits within the grace period, then close; the rest is dropped, counted."""
        self.queue.close()
        self.client.hurry()
        if self._task is not None and len(self.queue):
            await asyncio.wait((self._task,), timeout=self._grace_s)
        await end(self._task)
        self.abandon()
        await self.client.close()

    async def retire(self, hurry: asyncio.Event) -> None:
        """Send what waits within the grace period, or until `hurry`, then close; keep the rest."""
        self.queue.close()
        self.client.hurry()
        if self._task is not None:
            let_end(self._task)
            if len(self.queue):
                await ended(self._task, self._grace_s, hurry)
            self._retired = True
            if len(self.queue):
                self.client.cut()
            await asyncio.wait((self._task,), timeout=CUT_S)  # it notes what it has not sent
            await end(self._task)
        await self.client.close()

    def remainder(self) -> Unsettled:
        """Take out what was kept when it was retired."""
        return self.queue.release()

    def succeed(self, remainder: Unsettled) -> None:
        """Take over what another one has kept; before `start`."""
        self.queue.take_over(remainder)

    def abandon(self) -> None:
        """Give up what waits, counted."""
        if len(self.queue):
            log.error("%s: gave up %d records at shutdown", self.name, len(self.queue))
        self.queue.close()
        self.queue.abandon(OutgoingDropped.SHUTDOWN)

    async def _run(self) -> None:
        while not self._retired and (len(self.queue) or not self.queue.closed):
            try:
                await self.client.connect()
                await self._converse()
            except ConnectionLost:
                continue
            except Exception:
                lost = self.queue.taken
                self.queue.drop(OutgoingDropped.FAILED, lost)
                log.exception("%s: a defect of ours; %d records are given up", self.name, lost)
                self.client.cut()
                await asyncio.sleep(PAUSE_S)

    async def _converse(self) -> None:
        """Fill one session: templates, then what comes, what never left the one before first."""
        session = self._session()
        self.queue.begin()
        await self.client.send(session.templates(self._now()))
        while await self._has_work() and self.queue.waiting:
            shortened = session.stats.shortened
            messages = encode_next(
                self.queue, session, self._now(), oversize=OutgoingDropped.OVERSIZE, limit=AT_ONCE
            )
            self._say_shortened(session.stats.shortened - shortened, session.max_message)
            await self._deliver(session, messages)
            await asyncio.sleep(0)  # sending does not wait while the kernel has room

    def _session(self) -> ExporterSession:
        """Return what makes messages for the client's session, as large as its path takes.

        Where that takes not even a template, the client says so.
        """
        size = min(self._max_message, self.client.max_message)
        return ExporterSession(
            self._number,
            self._fields,
            max_message=max(size, least_message(self._fields)),
            template_refresh=self._template_refresh_s if self.client.datagrams else None,
        )

    def _say_shortened(self, count: int, size: int) -> None:
        if count:
            text = "%d records have shortened texts, as they fit into no message of %d bytes"
            self._log.log(logging.WARNING, self.name, text, count, size)

    async def _has_work(self) -> bool:
        """Wait for records; False when the session is lost meanwhile: the next is to be ready."""
        if self.queue.waiting:
            return self.client.connected
        waits = [
            asyncio.ensure_future(self.queue.ready()),
            asyncio.ensure_future(self.client.lost()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.client.connected

    async def _deliver(self, session: ExporterSession, messages: Sequence[bytes]) -> None:
        try:
            with self._patience.waiting(f"take {self.queue.taken} records"):
                await self.client.send(messages)
        except ConnectionLost as lost:
            all_but(self.queue, session, lost.unsent)
            raise
        all_but(self.queue, session, ())

    def _now(self) -> int:
        return int(self._clock())
