"""What sessions have sent by which cycle, so that they hear how much of it is durable.

A session's records are counted as they are taken in. When the watermark has passed a cycle, all
that a session had sent by then is durable, and it is told the count: nothing is kept per record.
No I/O, no clock.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

JOINED_MS = 250  # what was taken in within so much time is acknowledged together
MAX_STEPS = 4096  # 17 minutes at full resolution; half as fine where a store is away for longer
MAX_COUNTS = 1 << 18  # of all steps, some 80 bytes each: the same where there are many sessions


class Acknowledgeable(Protocol):
    """A session whose exporter waits to hear what is durable."""

    def taken(self) -> int:
        """How many of its data records have been taken in so far."""

    def acknowledge(self, count: int) -> None:
        """Say that so many of its first data records are durable; a session that is over is not
        told."""


@dataclass(slots=True)
class _Step:
    """What was taken in until the end of a cycle."""

    cycle: int
    began_ms: int
    counts: dict[Acknowledgeable, int] = field(default_factory=dict)


class Acknowledgements:
    """How far each session is, by cycle.

    At most `max_steps` of them are kept apart, and of these no more than what has `max_counts`
    numbers in all, but for the last.
    """

    def __init__(
        self,
        *,
        joined_ms: int = JOINED_MS,
        max_steps: int = MAX_STEPS,
        max_counts: int = MAX_COUNTS,
    ) -> None:
        self._steps: deque[_Step] = deque()
        self._counts = 0  # of all steps
        self._joined_ms = joined_ms
        self._max_steps, self._max_counts = max_steps, max_counts

    def __len__(self) -> int:
        return len(self._steps)

    def note(self, cycle: int, sessions: Iterable[Acknowledgeable], now_ms: int) -> None:
        """Note that all that sessions have sent by now was taken in by the end of a cycle."""
        counts = {session: session.taken() for session in sessions}
        if not counts:
            return
        newest = self._steps[-1] if self._steps else None
        if newest is None or not 0 <= now_ms - newest.began_ms < self._joined_ms:
            newest = _Step(cycle, now_ms)
            self._steps.append(newest)
        newest.cycle = cycle
        self._counts -= len(newest.counts)
        newest.counts |= counts
        self._counts += len(newest.counts)
        while self._are_too_many():
            self._join()

    def settle(self, watermark: int) -> None:
        """Tell sessions what of theirs is durable, now that all before the watermark is."""
        durable: dict[Acknowledgeable, int] = {}
        while self._steps and self._steps[0].cycle < watermark:
            counts = self._steps.popleft().counts
            self._counts -= len(counts)
            durable |= counts
        for session, count in durable.items():
            session.acknowledge(count)

    def forget(self, session: Acknowledgeable) -> None:
        """Keep nothing of a session that is over."""
        for step in self._steps:
            self._counts -= step.counts.pop(session, None) is not None

    def _are_too_many(self) -> bool:
        if len(self._steps) > self._max_steps:
            return True
        return self._counts > self._max_counts and len(self._steps) > 1

    def _join(self) -> None:
        """Keep every other step: what is of the one before waits for it."""
        steps = list(self._steps)
        for one, other in zip(steps[::2], steps[1::2], strict=False):
            other.counts = one.counts | other.counts
        rest = steps[1::2] + steps[len(steps) - len(steps) % 2 :]
        self._steps = deque(rest)
        self._counts = sum(len(step.counts) for step in rest)
