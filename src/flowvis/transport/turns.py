"""The event loop's time, shared out: a session pays for what it costs and waits for its turn.

All that a turn of the loop spends on sessions is bounded, so that probes, timers and writers have
theirs soon, whatever peers do. Within it, who has cost least goes first (start-time fair queueing,
Goyal, Vin and Cheng, 1996): each has a virtual time that advances by what it costs, and who was
quiet begins at that of whoever is served, not before, so it goes ahead of those who are busy and
cannot save up. Sockets of those who wait are not read meanwhile, and their peers feel it.

Handshakes have queues of their own, where an address is what pays, as a session that ends costs
its peer nothing: they get what records leave of a turn, and one of them is done in any case. Those
of addresses that records came from go before those of strangers.
"""

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from flowvis.transport.stats import ServerStats

TURN_S = 0.001  # of CPU time for sessions in one turn of the loop
MAX_TAGS = 1024  # virtual times that are kept without a look at which of them still matter

Waiter = TypeVar("Waiter")


class FairQueue(Generic[Waiter]):
    """Who waits: of the key that has cost least, and of those who came first. Pure.

    Each `pop` is followed by a `charge` of its key.
    """

    def __init__(self) -> None:
        self.now = 0.0
        """The virtual time: that at which the last one began."""
        self._tags: dict[object, float] = {}
        self._waiting: dict[object, deque[Waiter]] = {}
        self._heap: list[tuple[float, int, object]] = []  # the keys of those who wait
        self._arrivals = 0
        self._count = 0
        self._most = MAX_TAGS

    def __len__(self) -> int:
        return self._count

    def start(self, key: object) -> float:
        """The virtual time at which a key's next piece of work begins."""
        return max(self._tags.get(key, 0.0), self.now)

    def push(self, key: object, waiter: Waiter) -> None:
        """Let somebody wait."""
        self._count += 1
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(waiter)
            return
        self._waiting[key] = deque((waiter,))
        self._line_up(key)

    def pop(self) -> tuple[object, Waiter]:
        """Return who is next, and the key."""
        tag, _, key = heapq.heappop(self._heap)
        self.now = max(self.now, tag)
        self._count -= 1
        return key, self._waiting[key].popleft()

    def is_next(self, key: object) -> bool:
        """Whether one who came now would be served before all who wait."""
        return not self._heap or (key not in self._waiting and self.start(key) < self._heap[0][0])

    def charge(self, key: object, cost: float) -> None:
        """Let a key pay for what has just been done for it."""
        ended = self.start(key) + cost
        self._tags[key] = ended
        waiting = self._waiting.get(key)
        if waiting:
            self._line_up(key)
        elif waiting is not None:
            del self._waiting[key]
        if not self._heap:  # nobody waits: what was done is settled
            self.now = max(self.now, ended)
        if len(self._tags) > self._most:
            self._tags = {who: tag for who, tag in self._tags.items() if tag > self.now}
            self._most = MAX_TAGS + 2 * len(self._tags)

    def _line_up(self, key: object) -> None:
        self._arrivals += 1
        heapq.heappush(self._heap, (self.start(key), self._arrivals, key))


class Session(Protocol):
    """What takes turns."""

    @property
    def address(self) -> str:
        """The peer's."""

    @property
    def open(self) -> bool:
        """Whether it still wants turns."""

    @property
    def known(self) -> bool:
        """Whether the handshake is through."""

    waiting: bool
    """Whether it waits, for a turn or by itself."""

    def work(self) -> bool:
        """Read once, or go on with what was read; True if there is more of that to do now."""

    def listen(self) -> None:
        """Be called again when there is something to read."""

    def rest(self) -> None:
        """Read nothing until `listen`."""

    def paid(self, cost_s: float) -> float:
        """Take note of what the last work cost; return what it is to pay for it."""


class Turns:
    """Whose turn it is."""

    def __init__(self, stats: ServerStats, knows: Callable[[str], bool]) -> None:
        self._stats = stats
        self._knows = knows
        self._left = TURN_S
        self._work: FairQueue[Session] = FairQueue()
        self._returning: FairQueue[Session] = FairQueue()
        self._strangers: FairQueue[Session] = FairQueue()
        self._crowd: Counter[str] = Counter()  # those who wait, by address
        self._next: asyncio.Handle | None = None

    def readable(self, session: Session) -> None:
        """Serve a session whose socket has something, now or when it is its turn."""
        if session.waiting:
            session.rest()  # asked again: epoll needs not tell it at each turn
            return
        ahead = session.known or not self._work  # handshakes come after records
        if ahead and self._left > 0 and self._queue(session).is_next(self._key(session)):
            self._serve(session, self._queue(session), self._key(session))
        else:
            self._stats.deferred += 1
            self._wait(session)
        self._come_again()

    def _queue(self, session: Session) -> FairQueue[Session]:
        if session.known:
            return self._work
        return self._returning if self._knows(session.address) else self._strangers

    def _key(self, session: Session) -> object:
        return session if session.known else session.address

    def _wait(self, session: Session) -> None:
        session.waiting = True
        self._crowd[session.address] += 1
        self._queue(session).push(self._key(session), session)

    def _come_again(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Give a new turn's time to those who wait."""
        self._next = None
        self._left = TURN_S
        while self._work and self._left > 0:
            self._serve_next(self._work)
        at_least = 1
        for handshakes in (self._returning, self._strangers):
            while handshakes and (self._left > 0 or at_least > 0):
                self._serve_next(handshakes)
                at_least -= 1
        if self._work or self._returning or self._strangers:
            self._come_again()

    def _serve_next(self, queue: FairQueue[Session]) -> None:
        key, session = queue.pop()
        session.waiting = False
        self._serve(session, queue, key)
        self._crowd[session.address] -= 1
        if not self._crowd[session.address]:
            del self._crowd[session.address]

    def _serve(self, session: Session, queue: FairQueue[Session], key: object) -> None:
        began = time.thread_time()
        more = session.open and session.work()
        cost = time.thread_time() - began
        self._left -= cost
        # Many sessions of one address are as one, where others wait as well.
        weight = max(self._crowd[session.address], 1)
        queue.charge(key, max(session.paid(cost), 0.0) * weight)
        if more:
            self._wait(session)
        elif session.open and not session.waiting:
            session.listen()
