"""Records on their way to the collector, in their order; bounded, with what is dropped counted."""

from flowvis.backlog import UNBOUNDED, Backlog
from flowvis.batch import Batch
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger

SMALL = 1024  # rows up to which batches are joined


class Pending:
    """A queue of records, at most `max_records` and `max_bytes`; at more the oldest are dropped.

    Its books: records are `received` when they are made and `sent` when they are the kernel's.
    """

    def __init__(
        self, max_records: int, ledger: Ledger | None = None, max_bytes: int = UNBOUNDED
    ) -> None:
        self.stage = (ledger or Ledger()).stage("records", held=self.__len__)
        self._backlog = Backlog(max_records, max_bytes, join=SMALL)
        self._out = 0

    def __len__(self) -> int:
        """How many records it has, those that were taken and not settled included."""
        return self._backlog.records + self._out

    @property
    def bytes(self) -> int:
        """About what the records that wait take in memory."""
        return self._backlog.bytes

    def put(self, batch: Batch) -> None:
        """Add records that were made just now."""
        self.stage.received += len(batch)
        if len(batch):
            self._backlog.put(batch)
            self._trim()

    def take(self) -> Batch | None:
        """Take the oldest batch out, to be settled before the next; None when there is none."""
        if not len(self._backlog):
            return None
        batch = self._backlog.take()
        self._out = len(batch)
        return batch

    def settle(self, unsent: Batch | None = None) -> None:
        """Note that what was taken has been sent, but for what comes back to be sent first."""
        back = len(unsent) if unsent is not None else 0
        self.stage.sent += self._out - back
        self._out = 0
        if unsent is not None and back:
            self._backlog.put_back([unsent])
            self._trim()

    def drop(self, reason: ExportDropped, count: int) -> None:
        """Note that records of what was taken are given up."""
        self.stage.drop(reason, count)
        self._out -= count

    def abandon(self, reason: ExportDropped) -> int:
        """Give up everything; return how many records that were."""
        left = len(self)
        self.stage.drop(reason, left)
        self._backlog.clear()
        self._out = 0
        return left

    def _trim(self) -> None:
        self.stage.drop(ExportDropped.PENDING_FULL, self._backlog.trim())
