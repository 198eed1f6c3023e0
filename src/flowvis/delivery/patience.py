"""Waiting for others that may never answer: said after some seconds, not when a timeout ends it."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

PATIENCE_S = 5.0


class Patience:
    """Watches what one task waits for, one thing at a time."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._since_s: float | None = None

    @property
    def problem(self) -> str:
        """For how long there has been no answer, once that is a problem; else ""."""
        waited_s = 0.0 if self._since_s is None else time.monotonic() - self._since_s
        return f"no answer for {waited_s:.0f} s" if waited_s >= PATIENCE_S else ""

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Wait inside of this; on the event loop. `what` is asked for, as "take 5 records"."""
        self._since_s = time.monotonic()
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._complain, what)
        try:
            yield
        finally:
            if problem := self.problem:
                log.info("%s: over after %s", self._who, problem)
            timer.cancel()
            self._since_s = None

    def _complain(self, what: str) -> None:
        log.warning("%s: no answer for %g s, asked to %s", self._who, PATIENCE_S, what)
