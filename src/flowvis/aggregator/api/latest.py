"""The latest records, for people who look: a ring of batches, and followers of what comes."""

from collections.abc import Iterator
from contextlib import contextmanager

from flowvis.aggregator.destinations.outbox import Outbox
from flowvis.backlog import UNBOUNDED, Backlog
from flowvis.batch import Batch
from flowvis.runtime.ledger import Stage

SMALL = 256  # records up to which batches are joined
MAX_FOLLOWERS = 16  # each holds up to `size` records: people look, programs use a collector


class TooManyFollowers(RuntimeError):
    """No more may follow."""


class LatestRecords:
    """The last `size` records that went out, as far as they fit into half of `max_bytes`.

    The other half is for what waits for followers.
    """

    def __init__(self, size: int, max_bytes: int = UNBOUNDED) -> None:
        self.size = size
        self._backlog = Backlog(UNBOUNDED, max_bytes // 2, join=SMALL)
        self._follower_bytes = max_bytes // 2 // MAX_FOLLOWERS
        self._followers: set[Outbox] = set()

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
        backlog.put(batch)
        while backlog.records - len(backlog.oldest) >= self.size:
            backlog.take()
        backlog.trim()
        for follower in self._followers:
            follower.put(batch)

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
    def follow(self) -> Iterator[Outbox]:
        """Subscribe to what is put from now on; what the follower misses is in its stage."""
        if len(self._followers) >= MAX_FOLLOWERS:
            raise TooManyFollowers(f"{MAX_FOLLOWERS} followers are connected: end one first")
        outbox = Outbox(Stage("follower"), self.size, self._follower_bytes)
        self._followers.add(outbox)
        try:
            yield outbox
        finally:
            self._followers.discard(outbox)

    def close(self) -> None:
        """Let the followers come to their end."""
        for follower in self._followers:
            follower.close()
