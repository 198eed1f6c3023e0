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
from flowvis.runtime.component import Supervisor, end, spawn, supervisor
from flowvis.runtime.listeners import listen
from flowvis.runtime.metrics import ReadingsCollector

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 8 << 10  # a line and some headers
MAX_CONNECTIONS = 32  # probes and a few Prometheus servers
REQUEST_S = 5.0  # for a client to ask and to take the answer
BEAT_S = 1.0
BEATS = 60  # how long a stall is remembered: longer than from scrape to scrape

TEXT = "text/plain; charset=utf-8"

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
        self._registry = registry
        self._host, self._port = host, port
        self._ready = dict(ready or {})
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._roof: Supervisor | None = None
        self._heart: asyncio.Task[None] | None = None
        self._lags: deque[float] = deque([0.0], maxlen=BEATS)
        readings = {"lag_seconds": ("Longest wait for the event loop lately", self.lag_s)}
        registry.register(ReadingsCollector("flowvis_loop", readings))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._servers[0].sockets[0].getsockname()[1]) if self._servers else self._port

    def lag_s(self) -> float:
        """By how much the event loop was late at worst, in the last minute."""
        return max(self._lags)

    async def start(self) -> None:
        """Listen."""
        self._roof = supervisor()
        for listener in listen(self._host, self._port):
            server = await asyncio.start_server(self._serve, sock=listener, limit=MAX_REQUEST_BYTES)
            self._servers.append(server)
        self._heart = spawn("heartbeat", self._beat())
        log.info("metrics and health on %s port %d", self._host, self.port)

    async def stop(self) -> None:
        """Close."""
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            await end(task)
        await end(self._heart)

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            before = clock()
            await asyncio.sleep(BEAT_S)
            self._lags.append(max(clock() - before - BEAT_S, 0.0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(request))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client's affair; TimeoutError is an OSError
        finally:
            self._connections.discard(task)
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        """Return the whole response to a request."""
        line, *fields = request.decode("latin-1").split("\r\n")
        method, target, *_ = [*line.split(" "), "", ""]
        status, kind, body = self._page(target.partition("?")[0], _headers(fields))
        if method not in {"GET", "HEAD"}:
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET and HEAD\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else body)

    def _page(self, path: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            kind, encode = exposition.choose(headers.get("accept", ""))
            return HTTPStatus.OK, kind, encode(self._registry)
        if path == "/healthz":
            return _verdict(["a root task has failed"] if self._roof and self._roof.failed else [])
        if path == "/readyz":
            return _verdict(self._not_ready())
        pages = b"/metrics /healthz /readyz\n"
        return (HTTPStatus.OK if path == "/" else HTTPStatus.NOT_FOUND), TEXT, pages

    def _not_ready(self) -> list[str]:
        problems = ["stopping"] if self._roof and self._roof.stopping else []
        found = ((name, check()) for name, check in self._ready.items())
        return problems + [f"{name}: {problem}" for name, problem in found if problem]


def _verdict(problems: list[str]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return status, TEXT, ("\n".join(problems or ["ok"]) + "\n").encode()


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
