"""How much one caller may ask: requests in a second, and at one time."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from flowvis.aggregator.api.problems import Problem

MAX_REMEMBERED = 4096  # who asked lately


@dataclass
class _Bucket:
    tokens: float
    at_s: float


class Rates:
    """Token buckets, by name; who was forgotten begins with a full one."""

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, name: str) -> float:
        """Count one more of `name`; 0 where that is fine, else after how many seconds it is."""
        now_s = self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, now_s)
            if len(self._buckets) > MAX_REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        gained = (now_s - bucket.at_s) * self._per_second
        bucket.tokens, bucket.at_s = min(bucket.tokens + gained, self._burst), now_s
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / self._per_second


class CallerLimits:
    """The limits of each caller."""

    def __init__(
        self,
        per_second: float,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = Rates(per_second, max(2 * per_second, 1.0), clock)
        self._at_once = at_once
        self._running: Counter[str] = Counter()

    @contextmanager
    def request(self, caller: str) -> Iterator[None]:
        """Count a request while it lasts; Problem where there are too many."""
        if self._running[caller] >= self._at_once:
            raise Problem(
                "too-many",
                f"{self._at_once} requests of yours are being answered, and no more may be at once "
                "(apiServer.maxConcurrent): wait for one to end",
            )
        if wait_s := self._rates.wait_s(caller):
            raise too_fast(wait_s, "apiServer.requestsPerSecond")
        self._running[caller] += 1
        try:
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]


def too_fast(wait_s: float, limit: str) -> Problem:
    """Return what somebody is told who asks too often."""
    problem = Problem("too-many", f"too many requests in a short time ({limit}): wait a little")
    problem.headers["Retry-After"] = str(ceil(wait_s))
    return problem
