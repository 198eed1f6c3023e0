"""What waits to be rolled into one roll-up, and when it is time."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from flowvis.clickhouse.schema import rolls
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, Rollup


@dataclass(frozen=True, slots=True)
class Pace:
    """When batches are rolled into one of the tables."""

    every_s: int
    """So often, unless there are enough before."""
    after_s: int
    """So long after the beginning of a step: what is of the step before is stored by then."""
    late_s: int
    """A batch with a record that is older is rolled at once: the more recent ones are settled."""
    left_s: int
    """What another writer has not rolled for so long, it never will."""


PACES: Mapping[str, Pace] = {
    MINUTES.name: Pace(300, 0, 900, 900),
    HOURS.name: Pace(3600, 120, 2 * 3600, 2 * 3600 + 600),
}


class RollQueue:
    """What is to be rolled into one table."""

    def __init__(self, rollup: Rollup, pace: Pace) -> None:
        self.rollup = rollup
        self.pace = pace
        self.waiting: dict[BatchId, StoredBatch] = {}
        self.others: list[StoredBatch] = []
        """Batches of other writers, which are theirs to roll."""
        self.begun: list[Roll] = []
        """Rolls that were tried, or noted by a process before: to be repeated as they were."""
        self.new: set[str] = set()
        """Names of those among them that nothing was noted of yet."""
        self.claimed: AbstractSet[BatchId] = frozenset()
        """Batches that others may roll as well, and that we have the first claim of."""
        self.claimed_at_s = 0.0
        """When we claimed them, by the monotonic clock."""
        self.last_step = 0

    @property
    def records(self) -> int:
        """How many records are to be rolled."""
        begun = sum(roll.records for roll in self.begun)
        return begun + sum(batch.records for batch in self.waiting.values())

    @property
    def unrolled(self) -> Iterator[StoredBatch]:
        """The batches that are to be rolled."""
        yield from self.waiting.values()
        for roll in self.begun:
            yield from roll.batches

    def lacks_from_s(self) -> int | None:
        """Return the earliest flowEndSeconds of a record that the table lacks."""
        return min((batch.first_s for batch in (*self.unrolled, *self.others)), default=None)

    def step(self, now_s: int) -> int:
        """Return the number of the interval between rolls."""
        return (now_s - self.pace.after_s) // self.pace.every_s

    def take(self, now_s: int, *, everything: bool) -> Sequence[StoredBatch]:
        """Return the batches of the next roll, none if it is not time."""
        late = [b for b in self.waiting.values() if b.first_s < now_s - self.pace.late_s]
        due = everything or self.step(now_s) != self.last_step
        enough = sum(batch.records for batch in self.waiting.values()) >= rolls.ROLL_RECORDS
        candidates = list(self.waiting.values()) if due or enough else late
        taken: list[StoredBatch] = []
        records = 0
        for batch in candidates:
            records += batch.records
            if (taken and records > rolls.ROLL_RECORDS) or len(taken) == rolls.ROLL_BATCHES:
                return taken
            taken.append(batch)
        if due:
            self.last_step = self.step(now_s)
        return taken
