"""Records on their way to the collector, in their order; bounded, with what is dropped counted."""

from collections import deque

from flowvis.batch import Batch, concat
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Ledger

SMALL = 1024  # rows up to which batches are joined: an empty batch alone takes some 5 KB


class Pending:
    """A queue of records, at most `max_records`; at more the oldest are dropped.

    Its books: records are `received` when they are made and `sent` when they are the kernel's.
    """

    def __init__(self, max_records: int, ledger: Ledger | None = None) -> None:
        self.stage = (ledger or Ledger()).stage("records", held=self.__len__)
        self._max = max_records
        self._batches: deque[Batch] = deque()
        self._records = 0
        self._out = 0

    def __len__(self) -> int:
        """How many records it has, those that were taken and not settled included."""
        return self._records + self._out

    def put(self, batch: Batch) -> None:
        """Add records that were made just now."""
        self.stage.received += len(batch)
        if not len(batch):
            return
        last = self._batches[-1] if self._batches else None
        if last is not None and len(last) + len(batch) <= SMALL and last.strings is batch.strings:
            self._batches[-1] = concat([last, batch])
        else:
            self._batches.append(batch)
        self._records += len(batch)
        self._trim()

    def take(self) -> Batch | None:
        """Take the oldest batch out, to be settled before the next; None when there is none."""
        if not self._batches:
            return None
        batch = self._batches.popleft()
        self._records -= len(batch)
        self._out = len(batch)
        return batch

    def settle(self, unsent: Batch | None = None) -> None:
        """Note that what was taken has been sent, but for what comes back to be sent first."""
        back = len(unsent) if unsent is not None else 0
        self.stage.sent += self._out - back
        self._out = 0
        if unsent is not None and back:
            self._batches.appendleft(unsent)
            self._records += back
            self._trim()

    def drop(self, reason: ExportDropped, count: int) -> None:
        """Note that records of what was taken are given up."""
        self.stage.drop(reason, count)
        self._out -= count

    def abandon(self, reason: ExportDropped) -> int:
        """Give up everything; return how many records that were."""
        left = len(self)
        self.stage.drop(reason, left)
        self._batches.clear()
        self._records = self._out = 0
        return left

    def _trim(self) -> None:
        over = self._records - self._max
        if over <= 0:
            return
        self.stage.drop(ExportDropped.PENDING_FULL, over)
        self._records -= over
        while over:
            oldest = self._batches.popleft()
            if len(oldest) > over:
                self._batches.appendleft(oldest.take(slice(over, None)))
                return
            over -= len(oldest)
