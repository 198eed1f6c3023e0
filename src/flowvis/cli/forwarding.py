"""A console for one browser of this machine: its requests go on to an aggregator as ours.

Whoever may open the control socket, or has a kubeconfig, does not have to give a browser any of
that. It gets a token of its own, which is worth something only here and while this runs, and comes
through the door that the API has on TCP.
"""

import asyncio
import hmac
import http.client
import secrets
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from flowvis.aggregator.api.application import MAX_LINE_BYTES, Application
from flowvis.aggregator.api.caller import LOCAL, Caller
from flowvis.aggregator.api.door import TcpDoor
from flowvis.aggregator.api.headers import add_headers
from flowvis.aggregator.api.paths import console, session
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import Needs, Route
from flowvis.cli.client import Way
from flowvis.errors import FlowvisError

HOST = "127.0.0.1"
AT_ONCE = 64  # requests; a page has a stream and a few questions
PIECE = 64 << 10
FORWARDED = ("Content-Type", "Accept", "Accept-Encoding", "If-None-Match", "Last-Event-ID")
"""What of a browser's request goes on; who it is and whose page it comes from stays here."""
RETURNED = (
    "Content-Type", "Content-Encoding", "Content-Security-Policy", "Content-Disposition",
    "Cache-Control", "ETag", "Retry-After", "Vary",
)  # fmt: skip


class _OneToken:
    """Knows the token of the browser that was opened."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def start(self) -> None:
        """Nothing is to be prepared."""

    async def stop(self) -> None:
        """Nothing is open."""

    def knows(self, token: str) -> bool:
        """Whether it is the one."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    async def identify(self, token: str) -> Caller | None:
        """Return us, if it is the one; what we may see the aggregator decides."""
        return LOCAL if self.knows(token) else None


class _Passed(Route):
    """A route whose parameters the aggregator checks."""

    def check(self, request: web.Request) -> None:
        """Leave it to the aggregator."""


class Forwarding:
    """Passes requests on to an aggregator."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="forwarding")

    def routes(self) -> list[Route]:
        """Return the routes: the console's pages for anybody who gets here, for the browser all."""
        paths = [("GET", path, Needs.NOTHING) for path in console.PATHS]
        paths += [(method, "/{path:.+}", Needs.CALLER) for method in ("GET", "POST")]
        return [
            _Passed(method, path, self._pass, "Passed on", needs=needs)
            for method, path, needs in paths
        ]

    async def _pass(self, _: Caller, request: web.Request) -> web.StreamResponse:
        body = await request.read() if request.body_exists else None
        loop = asyncio.get_running_loop()
        connection: http.client.HTTPConnection | None = None
        response = web.StreamResponse()
        try:
            connection = self._way.connection(None)
            answer = await loop.run_in_executor(
                self._threads, _asked, connection, self._way, request, body
            )
            response.set_status(answer.status)
            for name in RETURNED:
                if value := answer.getheader(name):
                    response.headers[name] = value
            with suppress(ConnectionResetError):  # the browser has left
                await response.prepare(request)
                while piece := await loop.run_in_executor(self._threads, answer.read1, PIECE):
                    await response.write(piece)
                await response.write_eof()
        except (OSError, http.client.HTTPException, FlowvisError) as error:
            if response.prepared:
                raise ConnectionResetError(str(error)) from error
            raise Problem("unavailable", f"{self._way.where}: {error}") from error
        finally:
            if connection is not None:
                _end(connection)
        return response

    def close(self) -> None:
        """Let the threads go; what they wait for ends with its connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def forwarding(way: Way, port: int = 0) -> AsyncIterator[str]:
    """Serve a console of an aggregator; give the link that opens it, logged in."""
    token = secrets.token_urlsafe(32)
    door = TcpDoor([_OneToken(token)], secure=False)
    passing = Forwarding(way)
    routes = [*session.browser_routes(door), *passing.routes()]
    application = Application(routes, door).made()
    add_headers(application)
    runner = web.AppRunner(
        application,
        access_log=None,
        shutdown_timeout=0.1,
        handler_cancellation=True,
        max_line_size=MAX_LINE_BYTES,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        bound = runner.addresses[0][1]
        yield f"http://{HOST}:{bound}/#token={token}"
    finally:
        await runner.cleanup()
        passing.close()


def _asked(
    connection: http.client.HTTPConnection, way: Way, request: web.Request, body: bytes | None
) -> http.client.HTTPResponse:
    """Ask, in a thread."""
    headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
    connection.request(request.method, request.path_qs, body, {**headers, **way.headers()})
    return connection.getresponse()


def _end(connection: http.client.HTTPConnection) -> None:
    """End a connection, and whoever waits for it in a thread."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
