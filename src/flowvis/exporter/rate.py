"""How many of something may pass in a second."""


class Rate:
    """Lets `per_second` pass, and as many at once after a quiet second. Has no clock."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at_ms = 0

    def change(self, per_second: int) -> None:
        """Let another number pass from now on."""
        self._per_second = per_second

    def left(self, now_ms: int) -> float:
        """Return how many may pass now; none when it is not above 0."""
        passed = max(now_ms - self._at_ms, 0)
        self._left = min(self._left + passed * self._per_second / 1000, float(self._per_second))
        self._at_ms = now_ms
        return self._left

    def spend(self, count: int) -> None:
        """Note what has passed; more than was left is made up for later, a second at most.

        One line of a log may stand for a million: who makes it must not hide all others for long.
        """
        self._left = max(self._left - count, -float(self._per_second))
