"""A way out of a daemon, whose destination can be another one while records flow."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from flowvis.batch import SETTLED, Batch
from flowvis.delivery.destination import Destination
from flowvis.runtime.component import let_end, spawn
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger, Stage

log = logging.getLogger(__name__)

PACE_S = 1.0  # between two notes of when records came
MOMENTS = 86_400  # of a day; beyond, how far behind it is looks like a day


D = TypeVar("D", bound=Destination)


class Outlet(Generic[D]):
    """A component that is a destination to the correlator: the one it has now, or none.

    All its destinations, one after the other, write their books on the same page of the ledger. It
    is opened with the first one, and nothing goes there while there is none.
    """

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        source: Stage,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock_s = clock_s
        self.current: D | None = None
        self.former: D | None = None
        """The one that was replaced and still sends what it has."""
        self._ledger = ledger
        self._source = source
        self._stage: Stage | None = None
        self._hurry = asyncio.Event()
        self._moments: deque[tuple[int, float]] = deque(maxlen=MOMENTS)
        self._handover: asyncio.Task[Any] | None = None

    @property
    def stage(self) -> Stage:
        """The page of the ledger."""
        if self._stage is None:
            self._stage = self._ledger.stage(self.name, sources=[self._source])
        return self._stage

    def put(self, batch: Batch) -> None:
        """Pass a batch on, if there is a destination; what it raises is in its books already."""
        if self.current is None:
            return
        now_s = self._clock_s()
        if not self._moments or now_s - self._moments[-1][1] >= PACE_S:
            self._moments.append((self.stage.received, now_s))
        expected = self.stage.received + len(batch)
        try:
            self.current.put(batch)
        except Exception:
            self.stage.received = expected
            self.stage.drop(OutgoingDropped.FAILED, self.stage.imbalance)
            raise

    @property
    def destinations(self) -> list[D]:
        """The former destination, while it still sends, and the one that there is now."""
        return [one for one in (self.former, self.current) if one is not None]

    @property
    def required(self) -> bool:
        """Whether records are durable only when they are delivered here."""
        return any(one.required for one in self.destinations)

    @property
    def mark(self) -> int:
        """The oldest mark of what is not delivered; SETTLED when that is nothing."""
        return min((one.mark for one in self.destinations), default=SETTLED)

    @property
    def behind_s(self) -> float:
        """For how long the oldest record that is not delivered has been here; 0 without any.

        What it waits for others does not count.
        """
        held = self.held()
        delivered = self.stage.received - held
        while len(self._moments) > 1 and self._moments[1][0] <= delivered:
            self._moments.popleft()
        if not held or not self._moments:
            return 0.0
        waits_s = max(one.waits_s for one in self.destinations)
        return max(self._clock_s() - self._moments[0][1] - waits_s, 0.0)

    def held(self) -> int:
        """Records that the destination has, and the former one."""
        return sum(one.held() for one in self.destinations)

    def held_bytes(self) -> int:
        """About what these take in memory."""
        return sum(one.held_bytes() for one in self.destinations)

    def begin(self, destination: D | None) -> None:
        """Set the first destination, if there is one."""
        self.current = destination
        self._account()

    async def start(self) -> None:
        """Let the destination begin."""
        if self.current is not None:
            await self.current.start()

    async def replace(self, make: Callable[[D | None], D | None]) -> None:
        """Send to another destination, or to none, from now on; it is made from the one before.

        That one gets its grace period to send what it has. Then the other begins, with what is
        left. Returns before that, unless an earlier replacement is still under way.
        """
        if self._handover is not None:
            await asyncio.wait((self._handover,))
        other = make(self.current)
        if other is None and self.current is None:
            return
        self.former, self.current = self.current, other
        self._account()
        self._handover = spawn(f"handover of {self.name}", self._hand_over(self.former, other))
        let_end(self._handover)

    async def stop(self) -> None:
        """End a replacement that is under way, then stop the destination."""
        self._hurry.set()
        if self._handover is not None:
            await asyncio.wait((self._handover,))
        if self.current is not None:
            await self.current.stop()

    async def _hand_over(self, former: D | None, other: D | None) -> None:
        if former is not None:
            await former.retire(self._hurry)
            if other is None:
                former.abandon()
            else:
                if left := former.held():
                    log.warning("%s: %d records go to %s instead", former.name, left, other.name)
                other.succeed(former.remainder())
            self.former = None
        if other is not None:
            await other.start()

    def _account(self) -> None:
        """Have the books say where records go."""
        if self.current is not None:
            self.stage.reopen()
        elif self._stage is not None:
            self._stage.close()
        if self._stage is not None:
            self._stage.held = self.held
