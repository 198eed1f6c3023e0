"""The latest records, for people who look: a ring of batches, and followers of what comes."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from flowvis.aggregator.destinations.outbox import Outbox
from flowvis.batch import Batch
from flowvis.runtime.ledger import Stage

MAX_FOLLOWERS = 16  # each holds up to `size` records: people look, programs use a collector


class TooManyFollowers(RuntimeError):
    """No more may follow."""


class LatestRecords:
    """The last `size` records that went out."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._batches: deque[Batch] = deque()
        self._count = 0
        self._followers: set[Outbox] = set()

    def __len__(self) -> int:
        return min(self._count, self.size)

    def put(self, batch: Batch) -> None:
        """Remember a batch and pass it to the followers."""
        if not len(batch):
            return
        self._batches.append(batch)
        self._count += len(batch)
        while self._count - len(self._batches[0]) >= self.size:
            self._count -= len(self._batches.popleft())
        for follower in self._followers:
            follower.put(batch)

    def latest(self, limit: int) -> list[Batch]:
        """Return up to `limit` of the latest records, oldest first."""
        found: list[Batch] = []
        left = min(limit, self.size)
        for batch in reversed(self._batches):
            if left <= 0:
                break
            found.append(batch.take(slice(max(len(batch) - left, 0), None)))
            left -= len(found[-1])
        return found[::-1]

    @contextmanager
    def follow(self) -> Iterator[Outbox]:
        """Subscribe to what is put from now on; what the follower misses is in its stage."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise TooManyFollowers(f"{MAX_FOLLOWERS} followers are connected: end one first")
        outbox = Outbox(Stage("follower"), self.size)
        self._followers.add(outbox)
        try:
            yield outbox
        finally:
            self._followers.discard(outbox)

    def close(self) -> None:
        """Let the followers come to their end."""
        for follower in self._followers:
            follower.close()
