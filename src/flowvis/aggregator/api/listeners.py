"""Where the API is served: the control socket."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from flowvis.aggregator.api import control
from flowvis.aggregator.api.application import Handling, LocalDoor, application
from flowvis.aggregator.api.routes import Route

MAX_CONNECTIONS = 64  # at more, the oldest that is idle ends

Ending = Callable[[], Awaitable[None]]
"""Lets what is under way come to its end, as the aggregator stops."""


class ControlSocket:
    """Serves routes on a UNIX socket while it runs."""

    name = "control socket"

    def __init__(self, path: Path, routes: Sequence[Route], ending: Ending) -> None:
        self.path = path
        self._routes, self._ending = routes, ending
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket and serve."""
        connections = _Connections()
        runner = web.AppRunner(
            application(self._routes, LocalDoor(), connections.note),
            access_log=None,
            shutdown_timeout=2,
            handler_cancellation=True,
        )
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp set up no server")
        connections.server = runner.server
        listener = control.bind(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(connections, sock=listener)
        self._runner = runner

    async def stop(self) -> None:
        """End what is under way, close, and remove the socket."""
        if self._server is not None:
            self._server.close()
        await self._ending()
        if self._runner is not None:
            await self._runner.cleanup()
        self.path.unlink(missing_ok=True)


class _Connections:
    """Makes the handlers of connections: who says nothing keeps nobody out."""

    def __init__(self) -> None:
        self.server: web.Server | None = None
        self._busy: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the handler of a new one; at the limit the oldest that is idle ends."""
        if self.server is None:
            raise RuntimeError("connections before there is a server")
        standing = self.server.connections
        idle = [each for each in standing if each not in self._busy]
        for handler in idle[: max(len(standing) - MAX_CONNECTIONS + 1, 0)]:
            handler.force_close()
        return self.server()

    @web.middleware
    async def note(self, request: web.Request, handler: Handling) -> web.StreamResponse:
        """Know a connection as busy while it is answered."""
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)
