"""How many connections nobody saw, where the kernel had to drop events.

A connection has two events, its beginning and its end. What is found later by a dump has lost its
beginning, what is listed no more its end, and those are known. Each two of the other lost events
are a connection that began and ended unseen. Events come of all that the kernel tracks, also of
what is not watched here: so the number is the most that it can be.
"""

POLLS = 3  # until what is listed no more is taken for ended


class Gap:
    """Counts while events are missing; one at a time."""

    def __init__(self) -> None:
        self._lost = 0
        self._found = 0
        self._until = 0

    def lose(self, events: int, poll: int) -> None:
        """Note events that were dropped before a poll."""
        self._lost += events
        self._until = poll + POLLS

    def find(self, events: int) -> None:
        """Note lost events that show otherwise; below 0 those that were not lost after all."""
        if self._lost:
            self._found += events

    def close(self, poll: int) -> int:
        """Return how many connections at the most nobody saw; 0 while that is not known yet."""
        if not self._lost or poll < self._until:
            return 0
        unseen = max(self._lost - max(self._found, 0) + 1, 0) // 2
        self._lost = self._found = 0
        return unseen
