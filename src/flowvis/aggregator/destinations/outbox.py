"""What waits for one destination: bounded, and with its losses in the books.

Every destination takes its records from an outbox, so none can stall the others and none can lose
records that nobody counts.
"""

import asyncio
from collections.abc import Sequence

from flowvis.backlog import UNBOUNDED, Backlog
from flowvis.batch import Batch
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage


class Outbox:
    """A queue of batches, bounded in records and bytes; when it is full the oldest records go.

    `stage` is the destination's page in the ledger: what is put is received there, and stays held
    until it is reported as sent or dropped.
    """

    def __init__(self, stage: Stage, capacity: int, max_bytes: int = UNBOUNDED) -> None:
        self.stage = stage
        self._backlog = Backlog(capacity, max_bytes)
        self._taken = 0
        self._closed = False
        self._wake = asyncio.Event()
        stage.held = self.__len__

    def __len__(self) -> int:
        """Records that wait or are taken and not yet reported."""
        return self._backlog.records + self._taken

    @property
    def bytes(self) -> int:
        """About what the records that wait take in memory."""
        return self._backlog.bytes

    @property
    def waiting(self) -> int:
        """Records that can be taken now."""
        return self._backlog.records

    @property
    def taken(self) -> int:
        """Records taken and not yet reported."""
        return self._taken

    @property
    def closed(self) -> bool:
        """Whether nothing more will be put."""
        return self._closed

    def put(self, batch: Batch) -> None:
        """Add a batch without ever waiting; records put after `close` are dropped."""
        count = len(batch)
        self.stage.received += count
        if self._closed:
            self.stage.drop(OutgoingDropped.CLOSED, count)
            return
        if count:
            self._backlog.put(batch)
            self._make_room()
            self._wake.set()

    async def ready(self) -> None:
        """Return when there is something to take, or never will be."""
        while not (len(self._backlog) or self._closed):
            self._wake.clear()
            await self._wake.wait()

    async def take(self, limit: int) -> Batch | None:
        """Wait for records and take up to `limit` of them; None when closed and empty."""
        await self.ready()
        if not len(self._backlog):
            return None
        batch = self._backlog.take(limit)
        self._taken += len(batch)
        return batch

    def sent(self, count: int) -> None:
        """Report taken records as delivered."""
        self._taken -= count
        self.stage.sent += count

    def dropped(self, reason: OutgoingDropped, count: int) -> None:
        """Report taken records as given up."""
        self._taken -= count
        self.stage.drop(reason, count)

    def close(self) -> None:
        """Take nothing more in; what waits can still be taken."""
        self._closed = True
        self._wake.set()

    def release(self) -> tuple[list[Batch], int]:
        """Let go of everything, for another outbox of the stage: what waits, how many are taken."""
        released = self._backlog.clear(), self._taken
        self._taken = 0
        return released

    def take_over(self, batches: Sequence[Batch], taken: int) -> None:
        """Take what another outbox released, before what is here, of which nothing is taken yet."""
        self._taken = taken
        self._backlog.put_back(batches)
        self._make_room()
        self._wake.set()

    def abandon(self, reason: OutgoingDropped) -> None:
        """Give up all that waits or is taken."""
        self.close()
        self.stage.drop(reason, len(self))
        self._backlog.clear()
        self._taken = 0

    def _make_room(self) -> None:
        self.stage.drop(OutgoingDropped.QUEUE_FULL, self._backlog.trim(self._taken))
