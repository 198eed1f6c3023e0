"""A small HTTP/1.1 server for probes and scrapers, which nobody can keep from answering.

A connection is one request: the answer says `Connection: close`, so that none is kept. Prometheus
and kubelets open another; a connection that stays open for the next scrape would be an idle one,
which only costs a place. What comes after the request, a body or further ones, is read and
forgotten until the client closes: to close on unread bytes would reset the connection and destroy
the answer on its way (RFC 9112 section 9.6).

There is room for connections that have not asked yet, and other room for those that take their
answer. Where it is used up the oldest of the address with most gives way (`Places`): who asks at
once, as probes do, is always answered.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, cast

from flowvis.counts import count, counts_by_reason
from flowvis.runtime.listeners import BACKLOG, listen
from flowvis.runtime.logs import LimitedLog
from flowvis.runtime.places import Places

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 8 << 10  # a line and some headers
WAITING = 64  # connections that have not asked yet: probes and scrapers do so at once
ANSWERING = 32  # of those that take their answer
REQUEST_S = 3.0  # for all of the request, from the connect on
ANSWER_S = 10.0  # for the answer, from the request on

TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """What a client asks for."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By name in lower case."""


class Response(NamedTuple):
    """What it gets."""

    status: HTTPStatus
    kind: str
    """The content's type."""
    body: bytes


@dataclass
class HttpStats:
    """Counts since the start."""

    requests: int = count("HTTP requests answered")
    closed: Counter[str] = counts_by_reason(
        "HTTP connections that we ended, as their request, or their end after it, did not come"
    )


Answer = Callable[[Response], None]


class HttpServer:
    """Listens, and lets `respond` answer; it may call its second argument later."""

    def __init__(
        self, respond: Callable[[Request, Answer], None], *, host: str = "::", port: int = 0
    ) -> None:
        self.stats = HttpStats()
        self.waiting: Places[Exchange] = Places(WAITING)
        self.answering: Places[Exchange] = Places(ANSWERING)
        self._respond = respond
        self._host, self._port = host, port
        self._servers: list[asyncio.Server] = []
        self._log = LimitedLog(log)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._servers[0].sockets[0].getsockname()[1]) if self._servers else self._port

    async def start(self) -> None:
        """Listen; SystemRefused says what is in the way."""
        loop = asyncio.get_running_loop()
        for listener in listen(self._host, self._port):
            made = loop.create_server(lambda: Exchange(self), sock=listener, backlog=BACKLOG)
            self._servers.append(await made)

    async def stop(self) -> None:
        """Take no more connections and close those that there are."""
        for server in self._servers:
            server.close()
        for exchange in [*self.waiting, *self.answering]:
            exchange.abort()

    def admit(self, exchange: "Exchange", places: Places["Exchange"]) -> None:
        """Give a connection a place; another may have to give way."""
        if places.full:
            self.close(places.to_give_way(exchange.address), "gave-way")
        places.add(exchange.address, exchange)

    def close(self, exchange: "Exchange", reason: str) -> None:
        """End a connection that is not through: its client has not asked, or not closed."""
        self.stats.closed[reason] += 1
        exchange.abort()

    def forget(self, exchange: "Exchange") -> None:
        """Note that a connection is over."""
        self.waiting.discard(exchange)
        self.answering.discard(exchange)

    def asked(self, exchange: "Exchange", request: bytes) -> None:
        """Answer; a defect of ours is an answer as well."""
        self.waiting.discard(exchange)
        self.admit(exchange, self.answering)
        try:
            self._respond(_parse(request), exchange.answer)
        except Exception as error:  # noqa: BLE001  logged, with a limit
            text = "an HTTP request met a defect of ours"
            self._log.log(logging.ERROR, exchange.address, text, error=error)
            exchange.answer(failure(error))


class Exchange(asyncio.Protocol):
    """One connection: a request, its answer, and the client's end."""

    def __init__(self, server: HttpServer) -> None:
        self.address = ""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._request: bytearray | None = bytearray()
        self._head_only = False
        self._answered = False
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        peer = transport.get_extra_info("peername") or ("",)  # it may have gone already
        self.address = peer[0].removeprefix("::ffff:")
        self._expect(REQUEST_S)
        self._server.admit(self, self._server.waiting)

    def data_received(self, data: bytes) -> None:
        """Take a part of the request, or forget what comes after it."""
        if self._request is None:
            return
        self._request += data
        end = self._request.find(b"\r\n\r\n")
        if 0 <= end <= MAX_REQUEST_BYTES:
            request, self._request = bytes(self._request[:end]), None
            self._head_only = request.startswith(b"HEAD ")
            self._expect(ANSWER_S)
            self._server.asked(self, request)
        elif end >= 0 or len(self._request) > MAX_REQUEST_BYTES:
            self._request = None
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            text = f"a request of more than {MAX_REQUEST_BYTES} bytes\n"
            self.answer(Response(status, TEXT, text.encode()))

    def eof_received(self) -> bool:
        """Close, once the answer is given: the client may end its side before."""
        self._ended = True
        return self._request is None and not self._answered

    def connection_lost(self, _: Exception | None) -> None:
        """Give the place back."""
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.forget(self)

    def answer(self, response: Response) -> None:
        """Send the answer, and wait for the client to close."""
        if self._transport is None or self._answered:
            return
        self._answered = True
        self._server.stats.requests += 1
        self._transport.write(_written(response, head_only=self._head_only))
        if self._ended:
            self._transport.close()
        else:
            self._transport.write_eof()

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()
        self._server.forget(self)

    def _expect(self, within_s: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(within_s, self._server.close, self, "timeout")


def failure(error: Exception) -> Response:
    """Return what a client gets when we have failed."""
    text = f"{type(error).__name__}, see the log\n".encode()
    return Response(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, text)


def _written(response: Response, *, head_only: bool) -> bytes:
    status, kind, body = response
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)


def _parse(request: bytes) -> Request:
    line, *fields = request.decode("latin-1").split("\r\n")
    method, target, *_ = [*line.split(" "), "", ""]
    if target[:7].lower() == "http://":  # as proxies are asked, which servers have to understand
        target = "/" + target[7:].partition("/")[2]
    pairs = (field.partition(":") for field in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(method, target.partition("?")[0], headers)
