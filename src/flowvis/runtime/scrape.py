"""Metrics as text: collected on the event loop, written out beside it, and not without end.

What one collector has is of one moment, between two callbacks, so books balance. Writing 10,000
series takes a fifth of a second: a thread does that, and the loop goes on. Who asks while a page is
being made waits for the next one, with all others who ask; and making them takes no more than a
part of the time, however often they are asked for.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

SHARE = 0.1  # of a core, at most, goes into collecting and writing
LONGEST_S = 5.0  # between two pages, whatever they cost: Prometheus waits no longer than 10 s
TURN_S = 0.005  # of collecting, after which others have theirs

Encoder = Callable[[CollectorRegistry], bytes]
Taker = Callable[[bytes | Exception], None]


class Scrapes:
    """Makes pages of a registry for those who ask."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._asked: dict[str, tuple[Encoder, list[Taker]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._cost_s = 0.0  # of the last pages, in CPU time

    def ask(self, kind: str, encode: Encoder, taker: Taker) -> None:
        """Call `taker` with a page that is made from now on, or with why there is none.

        `kind` is the content type; who asks for the same gets the same page.
        """
        self._asked.setdefault(kind, (encode, []))[1].append(taker)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._make(), name="scrape")

    async def stop(self) -> None:
        """Make no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _make(self) -> None:
        """Make pages as long as somebody asks."""
        try:
            while self._asked:
                await asyncio.sleep(max(self._next - time.monotonic(), 0))
                asked, self._asked = self._asked, {}
                self._cost_s = 0.0
                await self._serve(asked)
                pause_s = min(self._cost_s * (1 / SHARE - 1), LONGEST_S)
                self._next = time.monotonic() + pause_s
        finally:
            self._task = None

    async def _serve(self, asked: dict[str, tuple[Encoder, list[Taker]]]) -> None:
        moment = await self._collect()
        for encode, takers in asked.values():
            page: bytes | Exception
            if isinstance(moment, Exception):
                page = moment
            else:
                page, cost_s = await asyncio.to_thread(_encoded, encode, moment)
                self._cost_s += cost_s
            for taker in takers:
                taker(page)

    async def _collect(self) -> "_Moment | Exception":
        metrics = []
        began = time.thread_time()
        try:
            for metric in self._registry.collect():
                metrics.append(metric)
                spent = time.thread_time() - began
                if spent > TURN_S:
                    self._cost_s += spent
                    await asyncio.sleep(0)
                    began = time.thread_time()
            self._cost_s += time.thread_time() - began
            return _Moment(metrics)
        except Exception as error:
            log.exception("metrics cannot be collected")
            return error


def _encoded(encode: Encoder, moment: CollectorRegistry) -> tuple[bytes | Exception, float]:
    """Write a page; the CPU time that it took as well."""
    began = time.thread_time()
    page: bytes | Exception
    try:
        page = encode(moment)
    except Exception as error:
        log.exception("metrics cannot be written out")
        page = error
    return page, time.thread_time() - began


class _Moment(CollectorRegistry):
    """A registry's metrics as they were."""

    def __init__(self, metrics: list[Metric]) -> None:
        super().__init__()
        self.register(_Collected(metrics))


class _Collected(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Nothing: their names have been checked before."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._metrics
