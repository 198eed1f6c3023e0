"""How many connections nobody saw, where the kernel had to drop events.

A connection has two events, its beginning and its end. What is found later by a dump has lost its
beginning, what is listed no more its end, and those are known. Each two of the other lost events
are a connection that began and ended unseen. Events come of all that the kernel tracks, also of
what is not watched here: so the number is the most that it can be.
"""

POLLS = 3  # until what is listed no more is taken for ended


class Gap:
    """Counts while events are missing; what was lost is settled some polls later, also where more
    is lost all the time."""

    def __init__(self) -> None:
        self._lost: dict[int, int] = {}  # by the poll before
        self._found = 0

    def lose(self, events: int, poll: int) -> None:
        """Note events that were dropped after a poll."""
        self._lost[poll] = self._lost.get(poll, 0) + events

    def find(self, events: int) -> None:
        """Note lost events that show otherwise; below 0 those that were not lost after all."""
        if self._lost:
            self._found += events

    def close(self, poll: int) -> int:
        """Return how many connections at the most nobody saw, of what is known by this poll.

        What was found may be of later losses: these then count when it is their turn.
        """
        due = [before for before in self._lost if before + POLLS <= poll]
        if not due:
            return 0
        lost = sum(self._lost.pop(before) for before in due)
        found = min(max(self._found, 0), lost)
        left = lost - found
        if not self._lost:
            self._found = 0
            return (left + 1) // 2
        self._found -= found
        if left % 2:  # half a connection, of which the other event is among the later ones
            self._lost[min(self._lost)] += 1
        return left // 2
