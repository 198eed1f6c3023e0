"""The books: every stage says what came in and what became of it, and the two are equal.

    received = sent + merged + dropped (by named reason) + held

Counts are plain integers that the stages' owners add to in whole batches. Read the books where
the stages run (on the event loop): between two additions of one batch they do not balance.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowvis.runtime.dropped import Reason

log = logging.getLogger(__name__)


def _nothing() -> int:
    return 0


@dataclass(slots=True)
class Stage:
    """One place that records pass; all counts are records since the start."""

    name: str
    received: int = 0
    sent: int = 0
    merged: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    held: Callable[[], int] = _nothing
    """How many it has now; asked when the books are read."""
    sources: tuple["Stage", ...] = ()
    """The stages whose `sent` together is this one's `received`, while it is open."""
    passed: int = 0
    """What the sources sent while this stage was not open, less what it has inherited."""
    inherited: int = 0
    """What a process before has left, of all that was received."""
    closed_at: int | None = None
    """What the sources had sent when it was closed; None while it is open."""

    def drop(self, reason: Reason, count: int) -> None:
        """Count records given up for a reason."""
        if count:
            self.dropped[reason.value] = self.dropped.get(reason.value, 0) + count

    def inherit(self, count: int) -> None:
        """Take in records that no source of ours sent: a process before has left them."""
        self.received += count
        self.passed -= count
        self.inherited += count

    def close(self) -> None:
        """Note that what the sources send from now on goes past this stage."""
        if self.closed_at is None:
            self.closed_at = self._offered

    def reopen(self) -> None:
        """Note that what the sources send from now on comes here again."""
        if self.closed_at is not None:
            self.passed += self._offered - self.closed_at
            self.closed_at = None

    @property
    def _offered(self) -> int:
        return sum(source.sent for source in self.sources)

    @property
    def imbalance(self) -> int:
        """Records received of which nobody can say what became: 0 in good books."""
        return self.received - self.sent - self.merged - sum(self.dropped.values()) - self.held()

    @property
    def missing(self) -> int:
        """Records that the stages before sent and this one did not receive: 0 in good books."""
        offered = self._offered if self.closed_at is None else self.closed_at
        return offered - self.passed - self.received if self.sources else 0

    def as_dict(self) -> dict[str, Any]:
        """The stage as JSON has it."""
        return {
            "stage": self.name,
            "received": self.received,
            "sent": self.sent,
            "merged": self.merged,
            "dropped": dict(sorted(self.dropped.items())),
            "held": self.held(),
            "imbalance": self.imbalance,
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class Loss:
    """What a stage has lost for one reason, as `losses.Losses` last saw it."""

    records: int
    last_s: float
    """When the last ones were lost, of the monotonic clock."""


class Ledger:
    """The stages of one daemon, in the order that records pass them."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}
        self.losses: dict[tuple[str, str], Loss] = {}
        """By stage and reason."""

    def stage(
        self, name: str, *, held: Callable[[], int] = _nothing, sources: Sequence[Stage] = ()
    ) -> Stage:
        """Open a stage: what its sources have sent before is none of it.

        ValueError if there is one of that name.
        """
        if name in self.stages:
            raise ValueError(f"the ledger has a stage {name!r} already")
        before = sum(source.sent for source in sources)
        stage = Stage(name, held=held, sources=tuple(sources), passed=before)
        self.stages[name] = stage
        return stage

    def imbalance(self) -> dict[str, int]:
        """The stages whose books do not balance, with by how much; {} when all do."""
        wrong = {}
        for stage in self.stages.values():
            if stage.imbalance or stage.missing:
                wrong[stage.name] = stage.imbalance or stage.missing
        return wrong

    def as_dict(self) -> dict[str, Any]:
        """The books as JSON has them."""
        return {
            "balanced": not self.imbalance(),
            "stages": [stage.as_dict() for stage in self.stages.values()],
        }

    def losses_as_dicts(self, now_s: float) -> list[dict[str, Any]]:
        """What was lost, and how long ago for the last time, as JSON has it."""
        return [
            {
                "stage": stage,
                "reason": reason,
                "records": loss.records,
                "lastSeconds": round(now_s - loss.last_s, 1),
            }
            for (stage, reason), loss in self.losses.items()
        ]

    def close(self) -> bool:
        """Log the books at the end; whether they balance and nothing is held any more."""
        wrong = self.imbalance()
        for stage in self.stages.values():
            log.info("books of %s", stage.name, extra=stage.as_dict())
        if wrong:
            log.error("the books do not balance: %s", wrong)
        return not wrong
