"""Lets one replica of the aggregator receive at a time, by a Lease of the API server.

`start` returns when the Lease is ours: what brings records in starts after it. It is renewed while
we run and given back in an orderly stop, when the last session has been drained, so that the next
replica begins at once. Without an answer of the API server (it is away, or we have no right) there
is no Lease to go by: then we work, and say so, as records that nobody receives are lost. Who has
seen another replica's Lease waits on: without the API server no exporter would be sent to it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowvis.aggregator.lease import Candidate, Elsewhere, decide, released
from flowvis.counts import count
from flowvis.errors import ApiError, FlowvisError
from flowvis.inventory.resources import LEASES
from flowvis.inventory.sources.access import Access
from flowvis.inventory.sources.written import NOT_FOUND, WrittenObjects
from flowvis.runtime.component import end, spawn
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

RENEWALS = 3  # within the Lease's duration
LOOK_S = 1.0  # of who waits, and of who could not renew: the Lease ends meanwhile
UNANSWERED_S = 10.0  # after which we start without a Lease
RELEASE_S = 2.0
UNAUTHORIZED, FORBIDDEN = 401, 403
REFUSALS = frozenset({UNAUTHORIZED, FORBIDDEN, NOT_FOUND})  # not another answer in a moment


class LeaseLost(FlowvisError):
    """Another replica receives now."""


@dataclass(slots=True)
class ReplicaStats:
    """What became of the Lease."""

    renewals: int = count("Times that the Lease was renewed")
    taken: int = count("Times that the Lease was taken")
    failures: int = count("Looks at the Lease that failed")


class Replica:
    """Start it before what receives, and stop it after."""

    name = "replica"

    def __init__(
        self,
        access: Callable[[], Access],
        us: Candidate,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats = ReplicaStats()
        self.holds = False
        """Whether the Lease is ours."""
        self._written = False
        """Whether the Lease may say that it is ours: also what was not answered may be written."""
        self._waiting = ""
        self._problem = ""
        self._objects = WrittenObjects(access)
        self._us, self._clock = us, clock
        self._list = f"{LEASES.paths()[0][1]}/namespaces/{us.namespace}/{LEASES.plural}"
        self._renew_s = us.duration_s / RENEWALS
        self._seen: tuple[Any, float, float] = (None, 0.0, 0.0)
        """The Lease, for how long it was as it is, and when it was looked at."""
        self._limited = LimitedLog(log)
        self._task: asyncio.Task[None] | None = None

    def waiting(self) -> str:
        """Say why we do not receive; "" while we do."""
        return self._waiting

    def problem(self) -> str:
        """Say what is wrong while we receive or wait; "" when nothing is."""
        return self._waiting or self._problem

    async def start(self) -> None:
        """Return when the Lease is ours, or cannot be asked for."""
        self._objects.open()
        try:
            await self._acquire()
        except BaseException:
            await self.stop()
            raise
        self._task = spawn(self.name, self._keep())

    async def stop(self) -> None:
        """Give the Lease back; does nothing where that was done."""
        await end(self._task)
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._release()
        except (ApiError, TimeoutError) as error:
            log.warning(
                "%s is not given back, so the next replica waits for %g s: %s",
                self._us, self._us.duration_s, str(error) or "no answer in time",
            )  # fmt: skip
        finally:
            self.holds = self._written = False
            await self._objects.close()

    async def _acquire(self) -> None:
        began = self._clock()
        while True:
            try:
                holder = await self._look()
            except ApiError as error:
                self._unknown(error)
                given_up = error.status in REFUSALS or self._clock() - began >= UNANSWERED_S
                if given_up and not self._waiting:
                    return
            else:
                if holder is None:
                    self._waiting = ""
                    return
                self._wait_for(holder)
            await asyncio.sleep(LOOK_S)

    def _wait_for(self, holder: str) -> None:
        waiting = (
            f"{holder} receives, as {self._us} says: the halves of a connection meet in one "
            "process, so one replica at a time is ready (set replicas: 1, and strategy Recreate "
            "or maxUnavailable: 1)"
        )
        if waiting != self._waiting:
            log.warning("waiting: %s", waiting)
        self._waiting = waiting

    def _unknown(self, error: ApiError) -> None:
        self.stats.failures += 1
        may = "; may it get, create and update leases there?" if error.status == FORBIDDEN else ""
        self._problem = f"no Lease, so nothing keeps a second replica from receiving: {error}{may}"
        self._limited.log(logging.WARNING, "api", "%s", self._problem)

    async def _keep(self) -> None:
        """Renew; LeaseLost, which stops the daemon in good order, where another one has it."""
        wait_s = self._renew_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self._renew_s
            try:
                holder = await self._look()
            except ApiError as error:
                self._unknown(error)
                if error.status not in REFUSALS:
                    wait_s = min(LOOK_S, self._renew_s)
                continue
            if holder is not None:
                self.holds = False
                raise LeaseLost(
                    f"{holder} has {self._us} and receives now: what is held here is written, "
                    "and after a restart this replica waits"
                )

    async def _look(self) -> str | None:
        """Have or renew the Lease; return who else has it, None where we do."""
        try:
            async with asyncio.timeout(self._renew_s):
                while True:
                    lease = await self._objects.get(self._list, self._us.lease)
                    unchanged_s, now = self._unchanged_s(lease), datetime.now(UTC)
                    step = decide(lease, self._us, unchanged_s=unchanged_s, now=now)
                    if isinstance(step, Elsewhere):
                        return step.holder
                    self._written = True
                    if await self._objects.write(self._list, step.item, creates=step.creates):
                        break
        except TimeoutError as error:
            raise ApiError(f"{self._list}/{self._us.lease}: no answer in time") from error
        self._problem = ""
        self.holds = True
        if step.reason:
            self.stats.taken += 1
            log.info("%s is taken: %s", self._us, step.reason)
        else:
            self.stats.renewals += 1
        return None

    def _unchanged_s(self, lease: dict[str, Any] | None) -> float:
        """Return for how long the Lease has been seen as it is.

        Between two looks no more than a renewal's time counts: while the API server is away, the
        holder cannot renew it either.
        """
        state = None if lease is None else lease.get("spec")
        before, unchanged_s, looked_s = self._seen
        now_s = self._clock()
        passed_s = min(now_s - looked_s, self._renew_s)
        self._seen = (state, unchanged_s + passed_s if state == before else 0.0, now_s)
        return self._seen[1]

    async def _release(self) -> None:
        if not self._written:
            return
        lease = await self._objects.get(self._list, self._us.lease)
        item = released(lease, self._us, datetime.now(UTC))
        if item is not None and await self._objects.write(self._list, item, creates=False):
            log.info("%s is given back", self._us)


@dataclass(slots=True)
class Taking:
    """The component that waits for its turn to receive, before what receives starts."""

    replica: Replica
    name: str = "replica"

    async def start(self) -> None:
        """Return when we may receive."""
        await self.replica.start()

    async def stop(self) -> None:
        """Nothing: the Lease is ours until all that was received is stored."""


@dataclass(slots=True)
class GivingBack:
    """The component whose stop lets the next one receive: after what stores has stopped.

    The next one asks the store what there is of a connection, so nothing may come there after it.
    """

    replica: Replica
    name: str = "lease"

    async def start(self) -> None:
        """Nothing: it is taken later."""

    async def stop(self) -> None:
        """Give the Lease back."""
        await self.replica.stop()
