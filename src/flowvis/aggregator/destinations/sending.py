"""What all external collectors have in common: a queue, a client, and one session after another."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from flowvis.backlog import UNBOUNDED
from flowvis.delivery.patience import Patience
from flowvis.delivery.queue import Queue
from flowvis.delivery.queued import QueuedDestination
from flowvis.runtime.component import end, ended, let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from flowvis.transport.client import Client, ConnectionLost

log = logging.getLogger(__name__)

GRACE_S = 8.0
CLOSING_S = 2.0  # of the grace period, kept for the end of the session
CUT_S = 0.5  # for a session that was cut to be noticed; less than between two attempts
PAUSE_S = 1.0  # after a defect, so that it does not fill the log


class Encoder(Protocol):
    """What makes the messages of one session."""

    @property
    def left(self) -> int:
        """How many records it has taken that are in no messages yet: for the next ones."""

    def opening(self) -> list[bytes]:
        """The messages that the session begins with; no records are in them."""

    def next_messages(self, queue: Queue) -> list[bytes]:
        """Take records that wait, as messages in which they have the order of what is taken.

        Where those have too many bytes, only the first ones; the others are `left`.
        """

    def records_in(self, unsent: Sequence[bytes]) -> int:
        """How many records are in the last messages, from these on."""


class CollectorDestination(QueuedDestination, ABC):
    """Records wait in a queue while the collector is away; those that never left go again.

    What the kernel took counts as sent: collectors acknowledge nothing.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        stage: Stage,
        *,
        capacity: int,
        max_bytes: int = UNBOUNDED,
        grace_s: float = GRACE_S,
        required: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            f"{name} {client.address}",
            stage,
            capacity=capacity,
            max_bytes=max_bytes,
            required=required,
        )
        self.client = client
        self.stats = client.stats
        self._grace_s = grace_s
        self._clock = clock
        self._retired = False
        self._patience = Patience(self.name)
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def _encoder(self) -> Encoder:
        """Return what makes messages for the client's session, as large as its path takes."""

    @property
    def problem(self) -> str:
        """Why nothing can be sent at the moment; "" when all is well."""
        return self._patience.problem if self.client.connected else "not connected"

    async def start(self) -> None:
        """Begin to send; whether the collector is there shows later."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Send what waits within the grace period, then close; the rest is dropped, counted."""
        await self._send_last(asyncio.Event())
        self.abandon()
        await self.client.close(self._closing_s)

    async def retire(self, hurry: asyncio.Event) -> None:
        """Send what waits within the grace period, or until `hurry`, then close; keep the rest."""
        let_end(self._task)
        await self._send_last(hurry)
        await self.client.close(self._closing_s)

    @property
    def _closing_s(self) -> float:
        """How long the collector may take to confirm the end of the session."""
        return min(CLOSING_S, self._grace_s / 2)

    async def _send_last(self, hurry: asyncio.Event) -> None:
        """Send what waits; then end the session, so that it is known what of it was sent."""
        self.queue.close()
        self.client.hurry()
        if self._task is None:
            return
        if len(self.queue):
            await ended(self._task, self._grace_s - self._closing_s, hurry)
        self._retired = True
        if len(self.queue):
            self.client.cut()
            await asyncio.wait((self._task,), timeout=CUT_S)  # it notes what it has not sent
        await end(self._task)

    async def _run(self) -> None:
        while not self._retired and (len(self.queue) or not self.queue.closed):
            try:
                await self.client.connect()
                await self._converse()
            except ConnectionLost:
                self.queue.rewind()  # whatever comes before they go again costs none of them
            except Exception:
                lost = self.queue.taken
                self.queue.drop(OutgoingDropped.FAILED, lost)
                log.exception("%s: a defect of ours; %d records are given up", self.name, lost)
                self.client.cut()
                await asyncio.sleep(PAUSE_S)

    async def _converse(self) -> None:
        """Fill one session; what never left the one before comes first."""
        encoder = self._encoder()
        self.queue.begin()
        await self.client.send(encoder.opening())
        while encoder.left or (await self._has_work() and self.queue.waiting):
            await self._deliver(encoder, encoder.next_messages(self.queue))
            await asyncio.sleep(0)  # sending does not wait while the kernel has room

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

    async def _deliver(self, encoder: Encoder, messages: Sequence[bytes]) -> None:
        try:
            with self._patience.waiting(f"take {self.queue.taken} records"):
                await self.client.send(messages)
        except ConnectionLost as lost:
            self.queue.sent(self.queue.taken - encoder.left - encoder.records_in(lost.unsent))
            raise
        self.queue.sent(self.queue.taken - encoder.left)

    def _now(self) -> int:
        return int(self._clock())
