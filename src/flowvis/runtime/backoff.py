"""Waits between attempts to connect: longer each time, up to a cap, and never in step."""

import random
from collections.abc import Callable


class Backoff:
    """Doubles from `first_s` to `cap_s`; each wait is drawn from its upper half."""

    def __init__(
        self,
        first_s: float = 0.5,
        cap_s: float = 30.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first_s, self._cap_s, self._draw = first_s, cap_s, draw
        self._next_s = first_s

    def reset(self) -> None:
        """Begin again: a session stood."""
        self._next_s = self._first_s

    def wait_s(self) -> float:
        """Return how long to wait before the next attempt."""
        longest, self._next_s = self._next_s, min(self._next_s * 2, self._cap_s)
        return longest * (0.5 + 0.5 * self._draw())
