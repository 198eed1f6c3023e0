"""What kubelet and Prometheus ask a daemon over HTTP.

    /metrics   Prometheus or OpenMetrics text
    /healthz   200 while the event loop runs and no root task has failed
    /readyz    200 while every readiness check passes, else 503 with a line for each that does not

It answers on the daemon's own event loop: a loop that hangs does not answer, which is what a
liveness probe is to find out; and books that are read between two callbacks balance.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from flowvis.runtime import exposition
from flowvis.runtime.component import Supervisor, supervisor
from flowvis.runtime.http import TEXT, Answer, HttpServer, Request, Response, failure
from flowvis.runtime.metrics import ReadingsCollector, StatsCollector
from flowvis.runtime.scrape import Scrapes

log = logging.getLogger(__name__)

BEAT_S = 0.5  # a stall shows by what of it is left at the next beat: most of one that matters
BEATS = 120  # how many are remembered: for longer than from scrape to scrape

Check = Callable[[], str]
"""Returns "" when ready, else why not."""


class StatusServer:
    """Serves metrics and health while it runs."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        host: str = "::",
        port: int = 0,
        ready: Mapping[str, Check] | None = None,
        name: str = "status",
    ) -> None:
        self.name = name
        self.http = HttpServer(self._respond, host=host, port=port)
        self._host = host
        self.registry = registry
        self._scrapes = Scrapes(registry)
        self._ready = dict(ready or {})
        self._roof: Supervisor | None = None
        self._heart: asyncio.TimerHandle | None = None
        self._lags: deque[float] = deque([0.0], maxlen=BEATS)
        readings = {"lag_seconds": ("Longest wait for the event loop lately", self.lag_s)}
        registry.register(ReadingsCollector("flowvis_loop", readings))
        registry.register(StatsCollector("flowvis_http", self.http.stats))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.http.port

    def lag_s(self) -> float:
        """By how much the event loop was late at worst, in the last minute."""
        return max(self._lags)

    async def start(self) -> None:
        """Listen."""
        self._roof = supervisor()
        await self.http.start()
        self._beat_later()
        log.info("metrics and health on %s port %d", self._host, self.port)

    async def stop(self) -> None:
        """Close."""
        await self.http.stop()
        await self._scrapes.stop()
        if self._heart is not None:
            self._heart.cancel()

    def _beat_later(self) -> None:
        # No task: two dozen of those a second are a tenth of what an exporter uses.
        loop = asyncio.get_running_loop()
        self._heart = loop.call_later(BEAT_S, self._beat, loop.time() + BEAT_S)

    def _beat(self, due_s: float) -> None:
        self._lags.append(max(asyncio.get_running_loop().time() - due_s, 0.0))
        self._beat_later()

    def _respond(self, request: Request, answer: Answer) -> None:
        if request.method not in {"GET", "HEAD"}:
            answer(Response(HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET and HEAD\n"))
        elif request.path == "/metrics":
            self._scrape(request.headers.get("accept", ""), answer)
        else:
            answer(self._page(request.path))

    def _scrape(self, accept: str, answer: Answer) -> None:
        kind, encode = exposition.choose(accept)

        def made(page: bytes | Exception) -> None:
            if isinstance(page, Exception):
                answer(failure(page))
            else:
                answer(Response(HTTPStatus.OK, kind, page))

        self._scrapes.ask(kind, encode, made)

    def _page(self, path: str) -> Response:
        if path == "/healthz":
            return _verdict(["a root task has failed"] if self._roof and self._roof.failed else [])
        if path == "/readyz":
            return _verdict(self._not_ready())
        pages = b"/metrics /healthz /readyz\n"
        return Response(HTTPStatus.OK if path == "/" else HTTPStatus.NOT_FOUND, TEXT, pages)

    def _not_ready(self) -> list[str]:
        problems = ["stopping"] if self._roof and self._roof.stopping else []
        found = ((name, check()) for name, check in self._ready.items())
        return problems + [f"{name}: {problem}" for name, problem in found if problem]


def _verdict(problems: list[str]) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return Response(status, TEXT, ("\n".join(problems or ["ok"]) + "\n").encode())
