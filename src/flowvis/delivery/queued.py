"""What destinations have in common whose records wait in a `Queue`."""

import logging

from flowvis.backlog import UNBOUNDED
from flowvis.batch import SETTLED, Batch
from flowvis.delivery.queue import Queue, Unsettled
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage

log = logging.getLogger(__name__)


class QueuedDestination:
    """The part of a `Destination` that is its queue's: what waits, what is handed over or given up.

    Subclasses say how it leaves.
    """

    waits_s = 0.0

    def __init__(
        self,
        name: str,
        stage: Stage,
        *,
        capacity: int,
        max_bytes: int = UNBOUNDED,
        required: bool = False,
    ) -> None:
        self.name = name
        self.queue = Queue(stage, capacity, max_bytes)
        self.required = required
        self._given_up = SETTLED  # the oldest mark of it

    @property
    def mark(self) -> int:
        """The oldest mark of what is not delivered, what a stop gave up included."""
        return min(self.queue.mark, self._given_up)

    @property
    def details(self) -> dict[str, int]:
        """Nothing but what all destinations have."""
        return {}

    def put(self, batch: Batch) -> None:
        """Take a batch; the oldest that wait are dropped when there are too many."""
        self.queue.put(batch)

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self.queue.bound(max_bytes)

    def held(self) -> int:
        """Records that wait or are on their way."""
        return len(self.queue)

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return self.queue.bytes

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
        self._given_up = self.mark
        self.queue.close()
        self.queue.abandon(OutgoingDropped.SHUTDOWN)
