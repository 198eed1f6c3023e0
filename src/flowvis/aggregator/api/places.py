"""Places for queries, shared fairly.

Who has fewest is next, and nobody has all of them while others ask.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flowvis.aggregator.api.problems import Problem

MAX_WAITING = 64  # questions that wait for others: some pages' worth
WAIT_S = 30.0
OTHERS_S = 60.0  # for so long after somebody asked the last place is not another's
MAX_REMEMBERED = 256  # who asked lately
OURS = ""
"""The owner of what the aggregator asks by itself."""


@dataclass(eq=False)
class _Waiting:
    owner: str
    place: "asyncio.Future[None]"


class QueryPlaces:
    """So many queries at once, of owners, as callers are named."""

    def __init__(
        self, at_once: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once, self._clock = at_once, clock
        self._taken: Counter[str] = Counter()
        """Of those that run, and of those that were called and are about to."""
        self._waiting: list[_Waiting] = []
        self._asked_s: OrderedDict[str, float] = OrderedDict()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken.total()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    async def turn(self, owner: str) -> None:
        """Take a place when there is one; Problem where that is not soon."""
        self._note(owner)
        if self._room_for(owner):
            self._taken[owner] += 1
            return
        own = sum(each.owner == owner for each in self._waiting)
        if own >= max(MAX_WAITING // 2, 1) or len(self._waiting) >= MAX_WAITING:
            raise _too_many(f"{len(self._waiting)} questions wait for those that run")
        waiting = _Waiting(owner, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(WAIT_S):
                await waiting.place
        except BaseException as error:
            if waiting.place.done() and not waiting.place.cancelled():
                self.leave(owner)  # called as it left
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
            if isinstance(error, TimeoutError):
                text = f"{self.taken} queries run, and none ended in {WAIT_S:g} s"
                raise _too_many(text) from None
            raise

    def leave(self, owner: str) -> None:
        """Give a place back, to who has fewest of those that wait; of these to the first."""
        self._taken[owner] -= 1
        self._taken += Counter()  # drops those that have none
        while True:
            fitting = [each for each in self._waiting if self._room_for(each.owner)]
            if not fitting:
                return
            following = min(fitting, key=lambda each: self._taken[each.owner])
            self._waiting.remove(following)
            if not following.place.done():
                self._taken[following.owner] += 1
                following.place.set_result(None)

    def close(self) -> None:
        """Let nobody wait any more."""
        for waiting in self._waiting:
            waiting.place.cancel()

    def _note(self, owner: str) -> None:
        if owner == OURS:
            return
        self._asked_s[owner] = self._clock()
        self._asked_s.move_to_end(owner)
        if len(self._asked_s) > MAX_REMEMBERED:
            self._asked_s.popitem(last=False)

    def _room_for(self, owner: str) -> bool:
        most = self._at_once()
        if most > 1 and self._others_ask(owner):
            return self.taken < most and self._taken[owner] < most - 1
        return self.taken < most

    def _others_ask(self, owner: str) -> bool:
        """Whether somebody else asked lately: the last two that did are enough to know."""
        since_s = self._clock() - OTHERS_S
        last = list(self._asked_s.items())[-2:]
        return any(other != owner and at_s >= since_s for other, at_s in last)


def _too_many(what: str) -> Problem:
    return Problem("too-many", f"{what} (clickHouse.queries.maxConcurrent): wait for one to end")
