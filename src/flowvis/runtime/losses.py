"""Losses are said: what a stage of the ledger gives up stands in the log, not only in the books.

The first of a reason within seconds, then once a minute for each reason with how many there were.
Drops that are no losses (`Reason.is_loss`) are logged in the same way, for those who debug.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from flowvis.runtime.component import end, spawn
from flowvis.runtime.dropped import reason_of
from flowvis.runtime.ledger import Ledger, Loss

log = logging.getLogger(__name__)

LOOK_S = 1.0
AGAIN_S = 60.0


@dataclass(slots=True)
class _Drops:
    """What one stage gave up for one reason."""

    seen: int = 0
    logged: int = 0
    logged_s: float | None = None


class Losses:
    """A component that looks at the books; the first to start, so that it is the last to stop."""

    name = "losses"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._drops: dict[tuple[str, str], _Drops] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Log what has not been."""
        await end(self._task)
        self.look(time.monotonic(), last=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(time.monotonic())

    def look(self, now_s: float, *, last: bool = False) -> None:
        """Note what was given up since the last look, and log what is due; or all, at the last."""
        for stage in self._ledger.stages.values():
            for reason, count in stage.dropped.items():
                drops = self._drops.setdefault((stage.name, reason), _Drops())
                if count > drops.seen:
                    drops.seen = count
                    if _is_loss(stage.name, reason):
                        self._ledger.losses[stage.name, reason] = Loss(count, now_s)
                due = drops.logged_s is None or now_s - drops.logged_s >= AGAIN_S
                if drops.seen > drops.logged and (due or last):
                    self._log(stage.name, reason, drops)
                    drops.logged, drops.logged_s = drops.seen, now_s

    def _log(self, stage: str, word: str, drops: _Drops) -> None:
        reason = reason_of(stage, word)
        log.log(
            logging.WARNING if _is_loss(stage, word) else logging.DEBUG,
            "%d records dropped: %s",
            drops.seen - drops.logged,
            reason.meaning if reason is not None else word,
            extra={"stage": stage, "reason": word, "total": drops.seen},
        )


def _is_loss(stage: str, word: str) -> bool:
    reason = reason_of(stage, word)
    return reason is None or reason.is_loss
