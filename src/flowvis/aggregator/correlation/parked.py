"""Records that wait until the store has said what was written of their connections before.

A record without a row may be of a connection that another aggregator, or this one before its start,
has written of. It waits with all that comes of the same key after it, in order, so that nothing is
merged into a row that does not know the past. Bounded: when it is full, nothing more is to be
taken in.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import SETTLED, Batch, Column
from flowvis.native import FlowIndex
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.strings import Strings

MAX_KEYS = 1 << 18
MAX_BYTES = 64 << 20
KEY_BYTES = KEY_SIZE + 32
LOOK_BACK_S = 600
"""How long before a record's end the last one of its connection is looked for."""
LONGEST_S = 7200
"""How far back at most, where a record comes for the first time: clocks may be wrong."""
REPEATED_S = 86_400
"""The same where one comes again: so long an exporter may keep what was stored, as its node is cut
off."""
_NEVER_S = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The connections that the store is to be asked for."""

    keys: NDArray[np.uint8]
    since_s: int
    """Records that end before this are not looked at."""
    patient: bool = True
    """Whether any may have been written by another aggregator, or comes again: then they wait for
    as long as it takes. Else they only may be late, and are not to hold the others up for long."""
    crowded: bool = False
    """Whether one answer has no room for all that was written, as tuples were used again and again:
    only their last connections are asked for."""

    def smaller(self) -> "tuple[Inquiry, ...]":
        """Return what to ask for instead where one answer has no room; each stands by itself."""
        if not self.crowded:
            return (replace(self, crowded=True),)
        middle = len(self.keys) // 2
        return replace(self, keys=self.keys[:middle]), replace(self, keys=self.keys[middle:])


class Parked:
    """Batches that wait, with the keys that are to be asked for, and those that were."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_keys: int = MAX_KEYS) -> None:
        self.records = 0
        self._max_bytes = max_bytes
        self._max_keys = max_keys
        self._bytes = 0
        self._batches: deque[tuple[Batch, int]] = deque()
        self._index = FlowIndex(KEY_SIZE, max_keys)
        self._answered = FlowIndex(KEY_SIZE, max_keys)
        self._answered_ms = 0  # when the first of them was
        self._outdated = FlowIndex(KEY_SIZE, max_keys)
        self._new: list[NDArray[np.uint8]] = []  # keys that are not asked for yet
        self._oldest_s = _NEVER_S  # the earliest of `told_s` since the last inquiry
        self._repeated_s = _NEVER_S  # the same of what comes again
        self._patient = False

    @property
    def keys(self) -> int:
        """How many keys something waits for, or is about to."""
        return len(self._index)

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        keys = len(self._index) + len(self._answered) + len(self._outdated)
        return self._bytes + KEY_BYTES * keys

    @property
    def full(self) -> bool:
        """Whether no more records are to be taken in."""
        return self.bytes >= self._max_bytes or 2 * len(self._index) >= self._max_keys

    @property
    def mark(self) -> int:
        """The oldest cycle of which something waits; SETTLED where nothing does."""
        return min((cycle for _, cycle in self._batches), default=SETTLED)

    def waits(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which records have keys that something waits for."""
        return np.asarray(self._index.find(keys) >= 0)

    def answered(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the keys the store has answered for, as far as that is remembered."""
        return np.asarray(self._answered.find(keys) >= 0)

    def forget_answers(self, at_ms: int, after_ms: int) -> None:
        """Forget answers before the rows that were made of them may be gone."""
        if at_ms - self._answered_ms >= after_ms:
            self._answered.clear()
            self._answered_ms = at_ms

    def forget_rows(self, keys: NDArray[np.uint8]) -> None:
        """Note that rows are forgotten, of which the store is to be asked from now on.

        An answer to what was asked before may be from before their last records were written.
        """
        if len(self._answered):
            self._drop(self._answered, keys)
        if len(self._index):
            self._outdated.upsert(keys[self.waits(keys)])

    def outdated(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Of which keys rows were forgotten since they were asked for."""
        return np.asarray(self._outdated.find(keys) >= 0)

    @staticmethod
    def _drop(index: FlowIndex, keys: NDArray[np.uint8]) -> None:
        slots = index.find(keys)
        index.remove(np.unique(slots[slots >= 0]))

    def want(
        self,
        keys: NDArray[np.uint8],
        told_s: NDArray[np.uint32],
        repeated: NDArray[np.bool_],
        *,
        patient: bool = True,
    ) -> None:
        """Let keys be asked for, from about where all of them was told back.

        `repeated`: which of the records may come again.
        """
        self._patient |= patient
        self._repeated_s = min(self._repeated_s, int(told_s[repeated].min(initial=_NEVER_S)))
        _, new = self._index.upsert(keys)
        if new.any():
            self._new.append(keys[new])
            self._oldest_s = min(self._oldest_s, int(told_s[new].min()))

    def put(self, batch: Batch, cycle: int) -> None:
        """Let records wait; the batch's columns are ours from now on."""
        self._batches.append((batch, cycle))
        self.records += len(batch)
        self._bytes += sum(column.nbytes for column in batch.columns.values())

    def columns(self, names: Iterable[str]) -> list[Column]:
        """Return columns of what waits, as far as they are there: whoever asks may change them."""
        batches = [batch for batch, _ in self._batches]
        return [batch[name] for name in names for batch in batches if name in batch]

    def move(self, strings: Strings) -> None:
        """Have the texts of all that waits in this table, where their codes have been moved to."""
        for batch, _ in self._batches:
            batch.strings = strings

    def inquiry(self, now_s: int) -> Inquiry | None:
        """Return what is to be asked for next, once; None if there is nothing."""
        if not self._new:
            return None
        keys = np.concatenate(self._new)
        since_s = max(self._oldest_s - LOOK_BACK_S, now_s - LONGEST_S, 0)
        again_s = max(self._repeated_s - LOOK_BACK_S, now_s - REPEATED_S, 0)
        since_s = min(since_s, again_s)
        patient = self._patient
        self._new, self._patient = [], False
        self._oldest_s = self._repeated_s = _NEVER_S
        if len(self._outdated):
            self._outdated.clear()
        return Inquiry(keys, since_s, patient)

    def release(
        self, inquiry: Inquiry, without_room: NDArray[np.uint8]
    ) -> Iterator[tuple[Batch, int]]:
        """Take out all that waits, in its order; what was answered waits no more.

        What is of keys that are not answered yet is to be put back. Those of which something was
        written and that find no room, or whose answer is outdated, are asked for again.
        """
        keys = inquiry.keys
        again = self.outdated(keys)
        if len(without_room):
            lacking = FlowIndex(KEY_SIZE, len(without_room))
            lacking.upsert(without_room)
            again |= lacking.find(keys) >= 0
        if again.any():
            self._new.append(keys[again])
            self._repeated_s = min(self._repeated_s, inquiry.since_s + LOOK_BACK_S)
            self._patient |= inquiry.patient
            keys = keys[~again]
        self._drop(self._index, keys)  # of what was given up meanwhile nothing waits any more
        if len(self._answered) + len(keys) > self._max_keys:
            self._answered.clear()
        self._answered.upsert(keys[: self._max_keys])
        batches = list(self._batches)
        self._batches.clear()
        self.records = self._bytes = 0
        yield from batches

    def give_up(self) -> list[tuple[Batch, int]]:
        """Take out all that waits, and ask for nothing more."""
        batches = list(self._batches)
        self._batches.clear()
        self._index.clear()
        self._new, self._oldest_s, self._repeated_s = [], _NEVER_S, _NEVER_S
        self.records = self._bytes = 0
        return batches
