"""The latest records, for people who look: a ring of batches, and followers of what comes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowvis.backlog import UNBOUNDED, Backlog
from flowvis.batch import Batch
from flowvis.delivery.queue import Queue
from flowvis.runtime.ledger import Stage

SMALL = 256  # records up to which batches are joined
MAX_FOLLOWERS = 16  # each holds up to `size` records: people look, programs use a collector
PACE_S = 1.0
MAX_OF_ONE = 8  # followers of one caller
FIRST_ONES = 4  # places that only who follows nothing yet may take


class TooManyFollowers(RuntimeError):
    """No more may follow."""


class LatestRecords:
    """The last `size` records that went out, as far as they fit into half of `max_bytes`.

    The other half is for what waits for followers.
    """

    def __init__(
        self,
        size: int,
        max_bytes: int = UNBOUNDED,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self._clock_s = clock_s
        self._put: deque[tuple[int, float]] = deque()
        """How many records had gone out at moments PACE_S apart at least: the last one before the
        oldest record that is remembered, and those after it."""
        self._backlog = Backlog(UNBOUNDED, max_bytes // 2, join=SMALL)
        self._follower_bytes = max_bytes // 2 // MAX_FOLLOWERS
        self._followers: dict[Queue, str] = {}
        """Each with whose it is."""
        self.put_records = 0
        """How many records went out since the start."""

    def __len__(self) -> int:
        return min(self._backlog.records, self.size)

    @property
    def bytes(self) -> int:
        """About what it takes in memory, followers included."""
        return self._backlog.bytes + sum(follower.bytes for follower in self._followers)

    def put(self, batch: Batch) -> None:
        """Remember a batch and pass it to the followers."""
        if not len(batch):
            return
        backlog = self._backlog
        self._note_moment()
        self.put_records += len(batch)
        backlog.put(batch)
        while backlog.records - len(backlog.oldest) >= self.size:
            backlog.take()
        backlog.trim()
        for follower in self._followers:
            follower.put(batch)

    @property
    def whole_since_s(self) -> float | None:
        """For how many seconds back all that went out is remembered; None: since the start."""
        forgotten = self.put_records - len(self)
        if not forgotten:
            return None
        moment = next((at for count, at in self._put if count >= forgotten), self._clock_s())
        return self._clock_s() - moment

    def put_within(self, seconds: float) -> int:
        """Return how many records went out in the last seconds, or some more; as remembered."""
        since_s = self._clock_s() - seconds
        before = max((count for count, at in self._put if at <= since_s), default=0)
        return min(self.put_records - before, len(self))

    def _note_moment(self) -> None:
        now_s = self._clock_s()
        if not self._put or now_s - self._put[-1][1] >= PACE_S:
            self._put.append((self.put_records, now_s))
        forgotten = self.put_records - len(self)
        while len(self._put) > 1 and self._put[1][0] <= forgotten:
            self._put.popleft()

    def latest(self, limit: int) -> list[Batch]:
        """Return up to `limit` of the latest records, oldest first."""
        found: list[Batch] = []
        left = min(limit, self.size)
        for batch in reversed(self._backlog):
            if left <= 0:
                break
            found.append(batch.take(slice(max(len(batch) - left, 0), None)))
            left -= len(found[-1])
        return found[::-1]

    @contextmanager
    def follow(self, owner: str = "") -> Iterator[Queue]:
        """Subscribe to what is put from now on; what the follower misses is in its stage."""
        own = list(self._followers.values()).count(owner)
        if own >= MAX_OF_ONE:
            raise TooManyFollowers(f"{MAX_OF_ONE} followers of yours are connected: end one first")
        if len(self._followers) >= MAX_FOLLOWERS - (FIRST_ONES if own else 0):
            left = ", and what is left is for others" if own else ""
            text = f"{len(self._followers)} followers are connected{left}: end one first"
            raise TooManyFollowers(text)
        queue = Queue(Stage("follower"), self.size, self._follower_bytes)
        self._followers[queue] = owner
        try:
            yield queue
        finally:
            del self._followers[queue]

    def close(self) -> None:
        """Let the followers come to their end."""
        for follower in self._followers:
            follower.close()
