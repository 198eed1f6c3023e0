"""Where the API is served: on the control socket, and on TCP.

Who says nothing keeps nobody out. A connection that has not asked, or whose answer is through, is
idle: it ends after a while. When room is needed the oldest of the address with most gives way,
those of known callers last; also in the midst of a request whose sender is not known, or of an
answer that is made. Those stay for which a known caller's request is worked on, of which each may
have so many. One whose reader takes nothing of an answer ends as well.

Who says nothing costs nothing either: a handshake begins with the first byte. Who was refused is
answered a moment later, so that asking again and again is no faster than that; a body that is not
wanted is not read, the connection ends.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from flowvis.aggregator.api import control
from flowvis.aggregator.api.application import (
    MAX_LINE_BYTES,
    Application,
    Handling,
    caller_of_request,
)
from flowvis.aggregator.api.door import TcpDoor
from flowvis.aggregator.api.headers import add_headers
from flowvis.counts import count, counts_by_reason
from flowvis.errors import SettingsError
from flowvis.runtime.component import end, spawn
from flowvis.runtime.listeners import Acceptor, listen
from flowvis.runtime.logs import LimitedLog
from flowvis.runtime.places import Places
from flowvis.transport.keepalive import keep_alive
from flowvis.transport.tls import TlsReloader

log = logging.getLogger(__name__)

MAX_LOCAL = 64  # connections to the control socket
HANDSHAKE_S = 5.0
FIRST_REQUEST_S = 10.0  # from the handshake on
NEXT_REQUEST_S = 75.0
STALLED_S = 30.0  # in which a reader takes nothing
LOOK_S = 5.0
SHUTDOWN_S = 2.0
REFUSED_S = 0.25
LINGER_S = 1.0  # for an answer to arrive, before what is still sent meets a closed connection
REFUSED = frozenset({401, 413, 429})
UNKNOWN_REFUSED = REFUSED | {400, 403, 404}
"""Answers that wait so long, on TCP; who is known has limits, which also count mistakes."""

Ending = Callable[[], Awaitable[None]]
"""Lets what is under way come to its end, as the aggregator stops."""


@dataclass
class ConnectionStats:
    """Counts since the start."""

    connections: int = count("Connections to the HTTP API on TCP")
    closed: Counter[str] = counts_by_reason("Connections that we ended or refused, by reason")


@dataclass(eq=False)
class _Guest:
    """A connection."""

    address: str
    sock: socket.socket
    since_s: float
    """Of its last change: connected, asked, answered."""
    silent: bool = True
    """Nothing has come yet."""
    known: bool = False
    """It has asked for somebody whom we know."""
    opening: "asyncio.Task[None] | None" = None
    handler: web.RequestHandler | None = None
    busy: bool = False
    """A request is being answered, to the last byte."""
    answered: bool = False
    waiting_bytes: int = 0
    stalled_s: float = 0.0

    def abort(self) -> None:
        """End it, wherever it is."""
        if self.silent:
            asyncio.get_running_loop().remove_reader(self.sock)
            self.sock.close()
        elif self.opening is not None:
            self.opening.cancel()
        elif self.handler is not None and self.handler.transport is not None:
            self.handler.transport.abort()

    @property
    def left(self) -> bool:
        """Whether it has ended."""
        gone = self.handler is None or self.handler.transport is None
        return not self.silent and self.opening is None and gone


class _Handler(web.RequestHandler):
    """aiohttp's, but what is no request is answered, counted and kept out of the log as others."""

    __slots__ = ("_application",)

    def __init__(self, server: web.Server, application: Application) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=NEXT_REQUEST_S,
            lingering_time=0,
            max_line_size=MAX_LINE_BYTES,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp itself gives it
            auto_decompress=False,  # what is not what it says would end in aiohttp's own log
        )
        self._application = application

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  what came is nothing to repeat
    ) -> web.StreamResponse:
        """Return the answer."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer was broken off")
        response = self._application.malformed(request, status, exc)
        response.force_close()
        return response


class Connections:
    """The connections of one listener, and aiohttp's server behind them."""

    def __init__(
        self,
        name: str,
        application: Application,
        most: int,
        ending: Ending,
        refused_s: float = 0.0,
    ) -> None:
        self.stats = ConnectionStats()
        self._name, self._application, self._most, self._ending = name, application, most, ending
        self._refused_s = refused_s
        self._acceptor = Acceptor(self._admit, self._cannot_accept)
        self._guests: set[_Guest] = set()
        self._behind: dict[asyncio.BaseProtocol, _Guest] = {}
        self._strangers: Places[_Guest] = Places(most)
        self._known: Places[_Guest] = Places(most)
        """All that give way when room is needed."""
        self._context: Callable[[], ssl.SSLContext | None] = lambda: None
        self._runner: web.AppRunner | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._limited = LimitedLog(log)

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def port(self) -> int | None:
        """The port that it listens on, None while there is none."""
        return self._acceptor.port

    async def start(
        self,
        listeners: list[socket.socket],
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
        *,
        prepare: Callable[[web.Application], None] = lambda _: None,
    ) -> None:
        """Serve what comes through listening sockets, by TLS where there is a context."""
        self._context = context
        made = self._application.made(self._note, recognised=self._recognised)
        prepare(made)
        self._runner = web.AppRunner(
            made,
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,
        )
        await self._runner.setup()
        self._acceptor.start(listeners)
        self._keeper = spawn(f"{self._name} housekeeping", self._keep_house())

    async def stop(self) -> None:
        """Take nobody any more, and end what is under way."""
        await end(self._keeper)
        self._acceptor.close()
        await self._ending()
        for guest in list(self._guests):
            if guest.silent or guest.opening is not None:
                guest.abort()
        if self._runner is not None:
            await self._runner.cleanup()

    def _admit(self, sock: socket.socket, address: str, _: int) -> None:
        self.stats.connections += 1
        if len(self) >= self._most:
            self._purge()
        if len(self) >= self._most and not self._make_room(address):
            self.stats.closed["full"] += 1
            self._limited.log(logging.WARNING, address, "%s: all connections are busy", self._name)
            sock.close()
            return
        if address:
            keep_alive(sock)
        guest = _Guest(address, sock, self._now_s())
        self._guests.add(guest)
        self._rest(guest)
        asyncio.get_running_loop().add_reader(sock, self._begin, guest)

    def _begin(self, guest: _Guest) -> None:
        """Begin with a connection from which something has come, or the end."""
        asyncio.get_running_loop().remove_reader(guest.sock)
        guest.silent = False
        guest.opening = asyncio.ensure_future(self._open(guest))
        guest.opening.add_done_callback(partial(self._opened, guest))

    def _cannot_accept(self, error: OSError) -> None:
        self._limited.log(logging.WARNING, self._name, "cannot accept connections: %s", error)

    async def _open(self, guest: _Guest) -> None:
        """Bring a connection to aiohttp, through the handshake if there is one."""
        context = self._context()

        def handler() -> asyncio.BaseProtocol:
            if self._runner is None or self._runner.server is None:
                raise RuntimeError("connections before there is a server")
            guest.handler = _Handler(self._runner.server, self._application)
            self._behind[guest.handler] = guest
            return guest.handler

        await asyncio.get_running_loop().connect_accepted_socket(
            handler,
            guest.sock,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S if context else None,
        )

    def _opened(self, guest: _Guest, opening: "asyncio.Task[None]") -> None:
        """Note how that went; a task that was cancelled may not even have begun."""
        guest.opening, guest.since_s = None, self._now_s()
        if opening.cancelled() or (error := opening.exception()) is not None:
            guest.sock.close()
            self._forget(guest)
        if not opening.cancelled() and error is not None:
            self.stats.closed["handshake"] += 1
            if not isinstance(error, OSError | EOFError):  # what TLS has are OSErrors
                text = "a connection met a defect of ours"
                self._limited.log(logging.ERROR, guest.address, text, error=error)

    async def _note(self, request: web.Request, handler: Handling) -> web.StreamResponse:
        """Know a connection as busy until its answer is written."""
        guest = self._behind.get(request.protocol)
        if guest is None:  # it gave way, and what it had sent before is still read
            raise ConnectionResetError("the connection has ended")
        guest.busy = True
        try:
            return await self._answered(guest, request, handler)
        finally:
            guest.busy, guest.answered, guest.since_s = False, True, self._now_s()
            guest.waiting_bytes, guest.stalled_s = 0, 0.0

    async def _answered(
        self, guest: _Guest, request: web.Request, handler: Handling
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        finally:
            self._strangers.discard(guest)
            self._known.discard(guest)
            guest.known = bool(caller_of_request())
            if guest in self._guests:
                self._rest(guest)
        refused = REFUSED if guest.known else UNKNOWN_REFUSED
        if self._refused_s and response.status in refused and not response.prepared:
            await asyncio.sleep(self._refused_s)
        if not request.content.is_eof():
            await _turn_away(request, response)
        else:
            with suppress(ConnectionError):  # the reader has left
                await response.prepare(request)
                await response.write_eof()
        return response

    def _recognised(self, request: web.Request) -> None:
        """Let a connection give way to nobody while a known caller's request is worked on."""
        if (guest := self._behind.get(request.protocol)) is not None:
            self._strangers.discard(guest)
            self._known.discard(guest)

    def _make_room(self, address: str) -> bool:
        """End a connection that gives way; False where there is none."""
        for places in (self._strangers, self._known):
            if len(places):
                self._end(places.to_give_way(address), "gave-way")
                return True
        return False

    def _rest(self, guest: _Guest) -> None:
        """Note that a connection gives way from now on."""
        places = self._known if guest.known else self._strangers
        places.add(guest.address, guest)

    def _end(self, guest: _Guest, reason: str) -> None:
        self.stats.closed[reason] += 1
        guest.abort()
        self._forget(guest)

    def _forget(self, guest: _Guest) -> None:
        self._guests.discard(guest)
        self._strangers.discard(guest)
        self._known.discard(guest)
        if guest.handler is not None:
            self._behind.pop(guest.handler, None)

    def _purge(self) -> None:
        """Forget those that have left."""
        for guest in [guest for guest in self._guests if guest.left]:
            self._forget(guest)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._purge()
            now_s = self._now_s()
            for guest in [*self._strangers, *self._known]:
                patience_s = NEXT_REQUEST_S if guest.answered else FIRST_REQUEST_S
                idle = guest.opening is None and not guest.busy
                if idle and now_s - guest.since_s > patience_s:
                    self._end(guest, "idle")
            for guest in list(self._guests):
                if guest.busy and self._stalled(guest):
                    self._end(guest, "stalled")

    def _stalled(self, guest: _Guest) -> bool:
        transport = guest.handler.transport if guest.handler is not None else None
        waiting = transport.get_write_buffer_size() if transport is not None else 0
        moved = not waiting or waiting != guest.waiting_bytes
        guest.stalled_s = 0.0 if moved else guest.stalled_s + LOOK_S
        guest.waiting_bytes = waiting
        return guest.stalled_s >= STALLED_S

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


async def _turn_away(request: web.Request, response: web.StreamResponse) -> None:
    """Answer, and end a connection with a body that nobody has read.

    To close it would be to read on: TLS takes all that comes until the client closes as well.
    """
    transport = request.transport
    if not response.prepared:
        response.force_close()
        await response.prepare(request)
    await response.write_eof()
    await asyncio.sleep(LINGER_S)
    if transport is not None:
        transport.abort()


class ControlSocket:
    """Serves the API on a UNIX socket, for whoever may open it."""

    name = "control socket"

    def __init__(self, path: Path, application: Application, ending: Ending) -> None:
        self.path = path
        self.application = application
        self._connections = Connections(self.name, application, MAX_LOCAL, ending)

    async def start(self) -> None:
        """Bind the socket and serve."""
        listener = control.bind(self.path)
        listener.listen(MAX_LOCAL)
        await self._connections.start([listener])

    async def stop(self) -> None:
        """End what is under way, close, and remove the socket."""
        await self._connections.stop()
        self.path.unlink(missing_ok=True)


class TcpApi:
    """Serves the API on a TCP port, by HTTPS where there is a certificate."""

    name = "HTTP API"

    def __init__(
        self,
        host: str,
        port: int,
        application: Application,
        door: TcpDoor,
        ending: Ending,
        *,
        certificates: TlsReloader | None,
        patient: bool = False,
        max_connections: int = 256,
        refused_s: float = REFUSED_S,
    ) -> None:
        """`patient`: the certificate may come later, and connections wait for it.

        `refused_s`: after how long who is refused is answered.
        """
        self._host, self._port = host, port
        self._door = door
        self._certificates, self._patient = certificates, patient
        self.connections = Connections(self.name, application, max_connections, ending, refused_s)
        self._listeners: list[socket.socket] = []
        self._keeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listeners[0].getsockname()[1]) if self._listeners else self._port

    async def start(self) -> None:
        """Listen; SystemRefused or SettingsError say what is in the way."""
        self._load()
        await self._door.start()
        self._listeners = listen(self._host, self._port)
        if self._certificates is None or self._certificates.loaded:
            await self._serve()
        self._keeper = spawn(f"{self.name} certificates", self._keep())

    async def stop(self) -> None:
        """Take nobody any more, and end what is under way."""
        await end(self._keeper)
        await self.connections.stop()
        for listener in self._listeners:  # nothing was served yet
            listener.close()
        self._listeners = []
        await self._door.stop()

    def _load(self) -> None:
        try:
            if self._certificates is not None:
                self._certificates.context()
        except SettingsError:
            if not self._patient:
                raise

    async def _serve(self) -> None:
        certificates = self._certificates
        await self.connections.start(
            self._listeners,
            certificates.context if certificates else lambda: None,
            prepare=add_headers,
        )
        kind = "HTTPS" if certificates else "HTTP"
        log.info("%s listens on %s port %d, %s", self.name, self._host, self.port, kind)

    async def _keep(self) -> None:
        """Serve when there are certificates, and take up new ones."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._certificates is None:
                continue
            if self.connections.port is None:
                self._load()
                if self._certificates.loaded:
                    await self._serve()
                continue
            try:
                if self._certificates.refresh():
                    log.info("%s: a new certificate serves new connections", self.name)
            except SettingsError as error:
                log.warning("%s: new certificate is bad, the old one serves: %s", self.name, error)
