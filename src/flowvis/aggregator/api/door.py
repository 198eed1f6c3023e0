"""Who is behind a request that comes over TCP: a bearer token, or a browser's session for one.

What a browser sends by itself, without the page having asked for it in our words, does not count:
a cookie needs the header X-Flowvis (or, for what only reads, the browser's own word that the page
is ours), and no request may come from a page of another origin.
"""

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.limits import Rates, too_fast
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.sessions import IDLE_S, Sessions
from flowvis.aggregator.api.settings import is_loopback

HEADER = "X-Flowvis"
MAX_TOKEN_CHARS = 8000  # HTTP servers take no longer headers
NEW_TOKENS_PER_S = 5.0  # of one address, that have to be found out about
NEW_TOKENS = 20
READING = ("GET", "HEAD")


class Authenticator(Protocol):
    """Knows whose a token is."""

    async def start(self) -> None:
        """Prepare."""

    async def stop(self) -> None:
        """Let go of what it has."""

    def knows(self, token: str) -> bool:
        """Whether it can tell at once, without asking anybody."""

    async def identify(self, token: str) -> Caller | None:
        """Return whose a token is, None if nobody's; Problem where that cannot be found out."""


class TcpDoor:
    """Asks authenticators, one after the other."""

    def __init__(self, authenticators: Sequence[Authenticator], *, secure: bool) -> None:
        """`secure`: whether requests come by TLS."""
        self._authenticators = authenticators
        self._secure = secure
        self.sessions = Sessions()
        self._new_tokens = Rates(NEW_TOKENS_PER_S, NEW_TOKENS)

    async def start(self) -> None:
        """Prepare to tell who asks."""
        for authenticator in self._authenticators:
            await authenticator.start()

    async def stop(self) -> None:
        """Let go of what that takes."""
        for authenticator in self._authenticators:
            await authenticator.stop()

    async def caller(self, request: web.Request) -> Caller:
        """Return who sent a request; Problem where that is nobody we know."""
        self.check_origin(request)
        if "Authorization" in request.headers:
            return await self.identify(_bearer(request), request)
        key = request.cookies.get(self._cookie(request), "")
        if not key:
            raise _unknown("a token is needed: Authorization: Bearer TOKEN")
        _check_asked_by_page(request)
        token = self.sessions.token(key)
        if token is None:
            raise _unknown("the session has ended: log in again")
        try:
            return await self.identify(token, request)
        except Problem as problem:
            if problem.code == "unauthenticated":
                self.sessions.end(key)
            raise

    async def identify(self, token: str, request: web.Request) -> Caller:
        """Return whose a token is; Problem if nobody's, or who sends it guesses too fast."""
        known = any(authenticator.knows(token) for authenticator in self._authenticators)
        if not known and (wait_s := self._new_tokens.wait_s(request.remote or "")):
            raise too_fast(wait_s, "tokens that have to be checked")
        for authenticator in self._authenticators:
            caller = await authenticator.identify(token)
            if caller is not None:
                return caller
        raise _unknown("the token is not valid, or has expired")

    def check_origin(self, request: web.Request) -> None:
        """Refuse what a page of another origin sends, or one that has another name for us."""
        host = request.headers.get("Host", "")
        if not host or len(request.headers.getall("Host")) > 1:
            raise Problem("bad-request", "one Host header is needed")
        if not self._secure and not is_loopback(_name(host)):
            raise Problem(
                "forbidden", f"{host[:200]!r} is not this machine: without TLS, use 127.0.0.1"
            )
        origin = request.headers.get("Origin")
        if origin is not None and _netloc(origin).lower() != host.lower():
            raise Problem("forbidden", f"a page of {origin[:200]!r} may not ask {host[:200]!r}")

    async def begin_session(self, token: str, request: web.Request) -> tuple[Caller, web.Response]:
        """Return who has a token, and an answer that gives the browser a session for it."""
        self.check_origin(request)
        _check_asked_by_page(request)
        if not token or len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise _unknown("the token is not valid, or has expired")
        caller = await self.identify(token, request)
        self._forget(request)
        response = web.Response()
        response.set_cookie(
            self._cookie(request),
            self.sessions.begin(caller.name, token),
            max_age=int(IDLE_S),
            path="/",
            httponly=True,
            secure=self._secure,
            samesite="Strict",
        )
        return caller, response

    def end_session(self, request: web.Request) -> web.Response:
        """End the session of a request, and have the browser forget it."""
        self.check_origin(request)
        _check_asked_by_page(request)
        self._forget(request)
        response = web.Response(status=204)
        response.del_cookie(
            self._cookie(request),
            path="/",
            httponly=True,
            secure=self._secure,
            samesite="Strict",
        )
        return response

    def _forget(self, request: web.Request) -> None:
        if key := request.cookies.get(self._cookie(request), ""):
            self.sessions.end(key)

    def _cookie(self, request: web.Request) -> str:
        """Cookies are for all ports of a host: forwarded ports are told apart by the name."""
        port = request.host.rpartition(":")[2]
        name = f"flowvis-{port}" if port.isascii() and port.isdecimal() else "flowvis"
        return f"__Host-{name}" if self._secure else name


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers["Authorization"].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(request.headers.getall("Authorization")) > 1:
        raise _unknown("one header is needed: Authorization: Bearer TOKEN")
    if len(token) > MAX_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
        raise _unknown("the token is not valid, or has expired")
    return token


def _check_asked_by_page(request: web.Request) -> None:
    """Refuse what a browser may have sent without a page of ours."""
    if request.headers.get(HEADER) == "1":
        return
    if request.method in READING and request.headers.get("Sec-Fetch-Site") == "same-origin":
        return
    raise Problem("forbidden", f"a session needs the header {HEADER}: 1 with each request")


def _netloc(origin: str) -> str:
    """Return host and port of an origin; "" where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _unknown(message: str) -> Problem:
    problem = Problem("unauthenticated", message)
    problem.headers["WWW-Authenticate"] = 'Bearer realm="flowvis"'
    return problem
