"""What was written and is not durable: batches by number, with the cycles that they are of.

A batch's mark is its number from here on, so destinations, which have them in order, say by the
oldest mark of theirs which are delivered. No I/O, no clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.kept import kept
from flowvis.backlog import UNBOUNDED
from flowvis.batch import SETTLED, Batch


class Keeper(Protocol):
    """Keeps the checkpoints of what is delivered, where no store has them."""

    @property
    def wanted(self) -> bool:
        """Whether they are to be kept."""

    def expect(self) -> None:
        """Rows are about to be delivered: they are to be kept as soon as they are."""

    def keep(self, rows: Sequence[NDArray[np.void]]) -> bool:
        """Keep rows of KEPT in their order; False: not now, they will come again."""


class _Nobody:
    wanted = False

    def expect(self) -> None:
        """Never told."""

    def keep(self, rows: Sequence[NDArray[np.void]]) -> bool:
        """Never asked."""
        return not rows


@dataclass(slots=True)
class _Written:
    number: int
    cycle: int
    rows: NDArray[np.void] | None


class UnderWay:
    """Numbers batches, and knows those that are not delivered, or delivered and not kept yet.

    Rows of theirs, at most `max_bytes`, wait here to be kept: beyond, the oldest are let go.
    """

    def __init__(self, max_bytes: int = UNBOUNDED) -> None:
        self.keeper: Keeper = _Nobody()
        self.unkept = 0
        """Checkpoints that were let go."""
        self.bytes = 0
        """What rows take that wait."""
        self._max_bytes = max_bytes
        self._number = 0
        self._written: deque[_Written] = deque()

    @property
    def mark(self) -> int:
        """The oldest cycle of what is not durable; SETTLED without any."""
        return min((written.cycle for written in self._written), default=SETTLED)

    @property
    def rows(self) -> list[NDArray[np.void]]:
        """The checkpoints that wait, in their order."""
        return [written.rows for written in self._written if written.rows is not None]

    def put(self, batch: Batch) -> None:
        """Number a batch that destinations are about to get."""
        self._number += 1
        rows = kept(batch) if self.keeper.wanted else None
        self._written.append(_Written(self._number, batch.mark, rows))
        batch.mark = self._number
        if rows is not None:
            self.bytes += rows.nbytes
            self._bound()
            self.keeper.expect()

    def settle(self, undelivered: int) -> None:
        """Forget what is delivered, all before a number, and have it kept."""
        delivered = []
        for written in self._written:
            if written.number >= undelivered:
                break
            delivered.append(written)
        rows = [written.rows for written in delivered if written.rows is not None]
        if rows and not self._keep(rows):
            self._let_go(undelivered)
            return
        for _ in delivered:
            self._written.popleft()

    def _let_go(self, undelivered: int) -> None:
        """Forget the first that are delivered and have no rows any more: nothing keeps them."""
        while self._written and self._written[0].number < undelivered:
            if self._written[0].rows is not None:
                break
            self._written.popleft()

    def _keep(self, rows: Sequence[NDArray[np.void]]) -> bool:
        if self.keeper.wanted and not self.keeper.keep(rows):
            return False
        self.bytes -= sum(part.nbytes for part in rows)
        return True

    def _bound(self) -> None:
        for written in self._written:
            if self.bytes <= self._max_bytes:
                break
            if written.rows is not None:
                self.bytes -= written.rows.nbytes
                self.unkept += len(written.rows)
                written.rows = None
