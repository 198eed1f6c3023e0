"""What waits for one destination: bounded, in order, and with its losses in the books.

Records are *waiting*, then *taken* to be sent, then *sent*. Without acknowledgement what is sent
is settled at once. With it, what is sent stays until the peer says that it is durable; when the
session ends before, it comes back, to be taken first by the next one.

    repeated = queue.begin(acknowledged=True)    # a session
    batch = queue.take(limit)
    queue.sent(len(batch))                       # the kernel has them
    queue.acknowledge(count)                     # so many of this session's records are durable

Batches keep their marks: `mark` is the oldest of all that is not settled. Who numbers what it puts,
by cycle or by place in a file, knows by it what it may forget.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowvis.backlog import UNBOUNDED, Backlog
from flowvis.batch import Batch
from flowvis.counts import count
from flowvis.runtime.dropped import ExportDropped, OutgoingDropped, Reason
from flowvis.runtime.ledger import Stage

SMALL = 1024  # records up to which batches are joined: an empty one takes 9 KB


@dataclass(slots=True)
class QueueStats:
    """What became of records after they were taken; the rest is in the ledger."""

    sent: int = count("Records handed to the kernel, each time that they were")
    sent_again: int = count("Of these, records that a session before had sent")
    acknowledged: int = count("Records that the collector said are durable")


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What one queue let go of, for another one of its stage."""

    batches: list[Batch]
    repeated: int = 0
    """How many of the first records were sent before."""
    doubtful: int = 0
    """How many of these, the last of them, may just as well not have been: a process before this
    one had them."""

    def __len__(self) -> int:
        return sum(map(len, self.batches))


class Queue:
    """Batches on their way, bounded in records and bytes; when it is full the oldest records go.

    `stage` is the destination's page in the ledger: what is put is received there, and stays held
    until it is settled. What is taken and not yet sent is never dropped.
    """

    def __init__(
        self,
        stage: Stage,
        max_records: int,
        max_bytes: int = UNBOUNDED,
        *,
        full: Reason = OutgoingDropped.QUEUE_FULL,
        unconfirmed: Reason = ExportDropped.UNCONFIRMED,
    ) -> None:
        """`full` is why waiting records go, `unconfirmed` why those do that were sent."""
        self.stage = stage
        self.stats = QueueStats()
        self._full, self._unconfirmed = full, unconfirmed
        self._max_records, self._max_bytes = max_records, max_bytes
        self._waiting = Backlog(UNBOUNDED, join=SMALL)
        self._taken = Backlog(UNBOUNDED)
        self._sent = Backlog(UNBOUNDED, join=SMALL)
        self._acknowledged = False  # whether this session's peer acknowledges
        self._gone = 0  # of this session's sent records: acknowledged, or forgotten
        self._forgotten = 0  # of these, forgotten and not acknowledged: nobody can send them again
        self._early = 0  # acknowledged before `sent` was called for them
        self._repeated = 0  # of the first that wait: sent by a session before
        self._doubtful = 0  # of these, the last: perhaps they were not sent
        self._taken_repeated = 0  # the same of what is taken
        self._taken_doubtful = 0
        self._closed = False
        self._wake = asyncio.Event()
        stage.held = lambda: len(self) + self._forgotten

    def __len__(self) -> int:
        """Records that are not settled."""
        return self._waiting.records + self._taken.records + self._sent.records

    @property
    def bytes(self) -> int:
        """About what they take in memory."""
        return self._bytes_but(self._newest)

    def _bytes_but(self, *batches: Batch | None) -> int:
        """About what they take in memory, without the string tables of some."""
        but = {batch.strings for batch in batches if batch is not None}
        tables = {table for part in self._parts for table in part.tables} - but
        columns = sum(part.column_bytes for part in self._parts)
        return columns + sum(table.memory_bytes for table in tables)

    @property
    def _newest(self) -> Batch | None:
        """The batch whose string table is still in use where the records were made."""
        return next((part.newest for part in reversed(self._parts) if len(part)), None)

    @property
    def _oldest(self) -> Batch | None:
        return next((part.oldest for part in self._parts if len(part)), None)

    @property
    def mark(self) -> int:
        """The oldest mark of what is not settled; SETTLED without any."""
        return min(part.mark for part in self._parts)

    @property
    def waiting(self) -> int:
        """Records that can be taken now."""
        return self._waiting.records

    @property
    def taken(self) -> int:
        """Records taken and not yet sent."""
        return self._taken.records

    @property
    def unsent(self) -> Batch | None:
        """The oldest batch of what is taken and not yet sent; None without any."""
        return self._taken.oldest if len(self._taken) else None

    @property
    def leaving(self) -> int:
        """Records that `sent` is still to be told of: taken ones, and what of these is durable."""
        return self._taken.records + self._early

    @property
    def unacknowledged(self) -> int:
        """Records sent and not yet acknowledged."""
        return self._sent.records

    @property
    def acknowledgeable(self) -> int:
        """The most that `acknowledge` takes."""
        return self._gone + self._sent.records + self._taken.records

    @property
    def closed(self) -> bool:
        """Whether nothing more will be put."""
        return self._closed

    @property
    def _parts(self) -> tuple[Backlog, Backlog, Backlog]:
        """All that is held, the oldest first."""
        return self._sent, self._taken, self._waiting

    @property
    def _taken_again(self) -> int:
        """Of what is taken, the records that a session before had sent."""
        return max(self._taken_repeated - self._early, 0)

    def put(self, batch: Batch) -> None:
        """Add a batch without ever waiting; records put after `close` are dropped."""
        size = len(batch)
        self.stage.received += size
        if self._closed:
            self.stage.drop(OutgoingDropped.CLOSED, size)
        elif size:
            self._waiting.put(batch)
            self._make_room()
            self._wake.set()

    def bound(self, max_bytes: int) -> None:
        """Keep within so many bytes from now on."""
        self._max_bytes = max_bytes
        self._make_room()

    def keep_marks_apart(self) -> None:
        """Have the mark of each record be its own batch's: those of others are not joined."""
        self._waiting.marks_apart = self._sent.marks_apart = True

    async def ready(self) -> None:
        """Return when there is something to take, or never will be."""
        while not (len(self._waiting) or self._closed):
            self._wake.clear()
            await self._wake.wait()

    def take(self, limit: int = UNBOUNDED) -> Batch | None:
        """Take the oldest batch, or its first `limit` records; None when nothing waits.

        What was sent before is never in one batch with what was not: who sends a batch in another
        order still sends the former first.
        """
        if not len(self._waiting):
            return None
        batch = self._waiting.take(min(limit, self._repeated or UNBOUNDED))
        doubtful = self._doubtful
        self._taken_repeated += self._forget_repeated(len(batch))
        self._taken_doubtful += doubtful - self._doubtful
        self._taken.put(batch)
        return batch

    async def next(self, limit: int = UNBOUNDED) -> Batch | None:
        """Wait for records and take them; None when it is closed and nothing waits."""
        await self.ready()
        return self.take(limit)

    def rewrite(self, batch: Batch, reason: Reason | None = None) -> None:
        """Have `batch` in the place of all that is taken: the same records in another order.

        Or fewer of them: the others are dropped, for the reason.
        """
        lost = self._taken.records - len(batch)
        if lost < 0 or (lost and reason is None):
            raise ValueError(f"{len(batch)} records in the place of {self._taken.records}")
        batch.mark = min(batch.mark, self._taken.mark)
        self._taken.clear()
        if len(batch):
            self._taken.put(batch)
        if reason is not None:
            self.stage.drop(reason, lost)
        self._taken_repeated = min(self._taken_repeated, len(batch))

    def sent(self, number: int) -> None:
        """Note that the kernel has the first records of what is `leaving`."""
        self.stats.sent += number
        again = min(self._taken_repeated, number)
        self.stats.sent_again += again
        self._taken_repeated -= again
        number, self._early = max(number - self._early, 0), max(self._early - number, 0)
        for batch in _first(self._taken, number):
            if self._acknowledged:
                self._sent.put(batch)
            else:
                self.stage.sent += len(batch)

    def acknowledge(self, total: int) -> bool:
        """Note that the first `total` records of this session are durable; whether that was news.

        Records count from the moment that they are taken, as an answer may come before `send`
        returns. ValueError for more than that.
        """
        number = total - self._gone
        if not self._acknowledged or number > self._sent.records + self._taken.records:
            raise ValueError(f"{total} records acknowledged, of fewer that were sent")
        self._confirm_forgotten(total)
        if number <= 0:
            return False
        self._gone = total
        early = max(number - self._sent.records, 0)
        _first(self._sent, number - early)
        _first(self._taken, early)
        self._early += early
        self.stage.sent += number
        self.stats.acknowledged += number
        return True

    def _confirm_forgotten(self, total: int) -> None:
        """Settle what was forgotten, and is durable after all."""
        number = min(max(total - self._gone + self._forgotten, 0), self._forgotten)
        self._forgotten -= number
        self.stage.sent += number
        self.stats.acknowledged += number

    def drop(self, reason: Reason, number: int) -> None:
        """Note that the first records of what is taken are given up."""
        _first(self._taken, number)
        self._taken_repeated = min(self._taken_repeated, self._taken.records)
        self.stage.drop(reason, number)

    def begin(self, *, acknowledged: bool = False) -> int:
        """Begin a session, whose peer acknowledges or not; all that is not settled waits again.

        Return how many of the first records may have been received before.
        """
        self.rewind()
        self._acknowledged = acknowledged
        return self._repeated

    def rewind(self) -> None:
        """Have what was taken or sent come first again, in its order: the session is over.

        What was sent and forgotten remains unconfirmed.
        """
        self.stage.drop(self._unconfirmed, self._forgotten)
        self._forgotten = 0
        self._doubtful += min(self._taken_doubtful, self._taken_again)
        self._repeated += self._sent.records + self._taken_again
        self._gone = self._early = self._taken_repeated = self._taken_doubtful = 0
        back = [*self._sent.clear(), *self._taken.clear()]
        self._waiting.put_back(back)
        if back:
            self._wake.set()

    def keep_from_repeating(self, *, read: bool) -> int:
        """Send nothing again that sessions before have sent; return how many records that were.

        For after `begin`. What the peer has `read` counts as sent, else it is unconfirmed. What may
        not have been sent is.
        """
        number = self._repeated - self._doubtful
        self._repeated = self._doubtful = 0
        _first(self._waiting, number)
        if read:
            self.stage.sent += number
        else:
            self.stage.drop(self._unconfirmed, number)
        return number

    def close(self) -> None:
        """Take nothing more in; what waits can still be taken."""
        self._closed = True
        self._wake.set()

    def release(self) -> Unsettled:
        """Let go of everything, for another queue of the stage."""
        self.rewind()
        released = Unsettled(self._waiting.clear(), self._repeated, self._doubtful)
        self._repeated = self._doubtful = 0
        return released

    def take_over(self, released: Unsettled) -> None:
        """Take what another queue let go of, before what is here, of which nothing is taken yet."""
        self._waiting.put_back(released.batches)
        self._repeated, self._doubtful = released.repeated, released.doubtful
        self._make_room()
        self._wake.set()

    def abandon(self, reason: Reason) -> int:
        """Give up all that is not settled; return how many records that were.

        What was sent, in this session or one before, is unconfirmed.
        """
        left = self.stage.held()
        unconfirmed = self._sent.records + self._repeated + self._taken_again + self._forgotten
        self.stage.drop(self._unconfirmed, unconfirmed)
        self.stage.drop(reason, left - unconfirmed)
        for part in self._parts:
            part.clear()
        self._repeated = self._doubtful = self._taken_repeated = self._early = 0
        self._forgotten = self._taken_doubtful = 0
        return left

    def give_up(self, reason: Reason, *, unless: Callable[[int], bool], read: bool) -> int:
        """Give up what waits, `unless` its mark says otherwise; return how many records are lost.

        For after `rewind`. What was sent before is unconfirmed; what the peer has `read` counts as
        sent. What may not have been sent is lost then.
        """
        certain = self._repeated - self._doubtful
        kept: list[Batch] = []
        place = given_up = sent = doubtful = 0
        for batch in self._waiting.clear():
            start, place = place, place + len(batch)
            if unless(batch.mark):
                kept.append(batch)
                continue
            given_up += len(batch)
            sent += max(min(place, certain) - start, 0)
            doubtful += max(min(place, self._repeated) - max(start, certain), 0)
        self._waiting.put_back(kept)
        self._repeated -= sent + doubtful
        self._doubtful -= doubtful
        if read:
            self.stage.sent += sent
            self.stage.drop(reason, given_up - sent)
            return given_up - sent
        self.stage.drop(self._unconfirmed, sent + doubtful)
        self.stage.drop(reason, given_up - sent - doubtful)
        return given_up

    def _forget_repeated(self, taken: int) -> int:
        """Note that so many of the first records do not wait any more; return how many repeat."""
        repeated = min(self._repeated, taken)
        self._repeated -= repeated
        self._doubtful = min(self._doubtful, self._repeated)
        return repeated

    def _make_room(self) -> None:
        """Drop what is too much: what was sent, then what waits; the oldest of each.

        The oldest's string table may be large, and stays with what is taken: what waits has no less
        room for it (see `flowvis.backlog`).
        """
        while (excess := len(self) - self._max_records) > 0 and self._drop_oldest(excess):
            pass
        while self._bytes_but(self._newest, self._oldest) > self._max_bytes and self._drop_oldest(
            UNBOUNDED
        ):
            pass

    def _drop_oldest(self, limit: int) -> bool:
        """Drop the oldest batch that may go, or its first records; whether there was one."""
        if len(self._sent):
            lost = len(self._sent.take(limit))
            self._gone += lost
            self._forgotten += lost
        elif len(self._waiting):
            lost = len(self._waiting.take(limit))
            repeated = self._forget_repeated(lost)
            self.stage.drop(self._unconfirmed, repeated)
            self.stage.drop(self._full, lost - repeated)
        else:
            return False
        return True


def _first(backlog: Backlog, number: int) -> Sequence[Batch]:
    """Take out the first records of a backlog, in batches."""
    found = []
    while number > 0:
        found.append(backlog.take(number))
        number -= len(found[-1])
    return found
