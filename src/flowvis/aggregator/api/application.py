"""The API as one web application: each request passes the door, and each error has one form.

The same routes are served on each listener, which differ in who is behind a request (`Door`). What
takes long is ended when who asked for it is no longer who they were.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Middleware

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import ANYBODY, LOCAL, Caller
from flowvis.aggregator.api.limits import CallerLimits
from flowvis.aggregator.api.problems import Problem, of_filter, of_status, of_store_away
from flowvis.aggregator.api.routes import Needs, Route
from flowvis.counts import count, counts_by_reason
from flowvis.errors import FlowvisError, StoreError
from flowvis.filters import FilterError
from flowvis.filters.tokens import MAX_LENGTH
from flowvis.runtime.logs import LimitedLog

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20  # a query that people wrote
MAX_LINE_BYTES = 4 * MAX_LENGTH
"""Of a request's first line: the longest filter, of which an address has each byte as three."""
RECHECK_S = 15.0  # a token that is revoked ends what goes on within a minute
AUDITED = frozenset({"unauthenticated", "forbidden", "too-many", "too-large", "too-costly"})

Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]
Passing = Callable[[web.Request, Handling], Awaitable[web.StreamResponse]]
"""What a request passes on its way."""


@dataclass
class _Progress:
    """How far a request has come."""

    caller: str = ""
    begun: web.StreamResponse | None = None
    """The answer, once its head is on its way."""


_PROGRESS: ContextVar[_Progress] = ContextVar("progress")


def caller_of_request() -> str:
    """Return who sent the request that is being answered, "" as long as that is not known."""
    progress = _PROGRESS.get(None)
    return progress.caller if progress is not None else ""


@dataclass
class ApiStats:
    """What was asked, on all listeners."""

    requests: int = count("Requests to the HTTP API")
    refused: Counter[str] = counts_by_reason("Requests answered with an error, by its code")
    ended: int = count("Answers broken off, as who asked may no longer see them")


class Door(Protocol):
    """Finds out who asks."""

    async def caller(self, request: web.Request) -> Caller:
        """Return who sent a request; Problem where that is nobody we know."""


class LocalDoor:
    """Whoever could open the control socket is its owner."""

    async def caller(self, _: web.Request) -> Caller:
        """Return the owner."""
        return LOCAL


class Application:
    """Routes behind a door."""

    def __init__(
        self,
        routes: Sequence[Route],
        door: Door,
        stats: ApiStats | None = None,
        limits: CallerLimits | None = None,
    ) -> None:
        self.routes = routes
        self.stats = stats or ApiStats()
        self._door, self._limits = door, limits
        self._limited = LimitedLog(log)

    def made(
        self, *middlewares: Passing, recognised: Callable[[web.Request], None] = lambda _: None
    ) -> web.Application:
        """Return what aiohttp serves; the middlewares come before all else.

        `recognised` is told of a request when it is one of a known caller that will be worked on.
        """
        made = web.Application(
            client_max_size=MAX_REQUEST_BYTES,
            middlewares=[_passed(each) for each in (*middlewares, self._errors_as_json)],
        )
        made.on_response_prepare.append(_note_begun)
        for route in self.routes:
            handling = self._handling(route, recognised)
            for path in (route.path, *route.also):
                made.router.add_route(route.method, path, handling, expect_handler=_go_on)
                if route.method == "GET" and route.needs is Needs.NOTHING:
                    made.router.add_route("HEAD", path, handling, expect_handler=_go_on)
        return made

    def _handling(self, route: Route, recognised: Callable[[web.Request], None]) -> Handling:
        async def handle(request: web.Request) -> web.StreamResponse:
            _check_body(request)
            if route.needs is Needs.NOTHING:
                route.check(request)
                return await route.handler(ANYBODY, request)
            caller = await self._door.caller(request)
            _PROGRESS.get().caller = caller.name
            with self._limits.request(caller.name) if self._limits else nullcontext():
                if route.needs is Needs.EVERYTHING:
                    caller.require_everything(request.path)
                route.check(request)
                recognised(request)
                return await self._answered(route, caller, request)

        return handle

    async def _answered(
        self, route: Route, caller: Caller, request: web.Request
    ) -> web.StreamResponse:
        """Return the answer, as long as the caller stays who they are."""
        answering = asyncio.ensure_future(route.handler(caller, request))
        try:
            while not (await asyncio.wait((answering,), timeout=RECHECK_S))[0]:
                await self._check_again(caller, request)
        finally:
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,))
            if not answering.cancelled():
                answering.exception()  # seen, also where nobody is left to be told
        return answering.result()

    async def _check_again(self, caller: Caller, request: web.Request) -> None:
        """Refuse to go on where the caller is not who they were."""
        try:
            now = await self._door.caller(request)
        except Problem:
            self.stats.ended += 1
            raise
        if now != caller:
            self.stats.ended += 1
            raise Problem("forbidden", "what you may see has changed: ask again")

    async def _errors_as_json(self, request: web.Request, handler: Handling) -> web.StreamResponse:
        self.stats.requests += 1
        _PROGRESS.set(_Progress())
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            problem = of_status(error.status, f"{error.method} {request.path[:200]}: use {allowed}")
            problem.headers["Allow"] = allowed
        except web.HTTPException as error:
            problem = of_status(error.status, f"{request.path[:200]}: {error.reason}")
        except Problem as error:
            problem = error
        except StoreError as error:
            away = error.retryable and not error.code  # nobody answered: it is not the query
            problem = of_store_away(error) if away else Problem("bad-query", str(error))
        except FilterError as error:
            problem = of_filter(error)
        except ValueError as error:
            problem = Problem("bad-request", str(error))
        except FlowvisError as error:
            problem = Problem("failed", str(error))
        except ConnectionError as error:  # the reader has left
            problem = Problem("failed", str(error))
        except Exception as error:  # noqa: BLE001  logged, with a limit
            text = "a request met a defect of ours"
            self._limited.log(logging.ERROR, request.path[:200], text, error=error)
            problem = Problem("failed", f"{type(error).__name__}, see the log")
        return self._refused(request, problem)

    def malformed(
        self, request: web.BaseRequest, status: int, error: BaseException | None
    ) -> web.Response:
        """Return the answer to what came in place of a request, or to one that we failed at."""
        if status < 500:
            problem = of_status(status, "that is not HTTP/1.1 as we take it, or a head is too long")
        else:
            text = "a request met a defect of ours, outside of its handler"
            self._limited.log(logging.ERROR, request.remote or "local", text, error=error)
            problem = Problem("failed", f"{type(error).__name__}, see the log")
        self.stats.requests += 1
        self.stats.refused[problem.code] += 1
        response = answers.document(problem.document(), status)
        response.headers["Server"] = "flowvis"  # aiohttp names itself, and Python
        return response

    def _refused(self, request: web.Request, problem: Problem) -> web.StreamResponse:
        progress = _PROGRESS.get()
        self.stats.refused[problem.code] += 1
        if problem.code in AUDITED:
            self._limited.log(
                logging.WARNING,
                request.remote or "local",
                "refused: %s",
                problem.code,
                caller=progress.caller,
                request=f"{request.method} {request.path[:200]}",
            )
        if (
            progress.begun is not None
        ):  # too late for another answer: let it be seen that this is not all
            if request.transport is not None:
                request.transport.abort()
            return progress.begun
        response = answers.document(problem.document(), problem.status)
        response.headers.update(problem.headers)
        return response


def _check_body(request: web.Request) -> None:
    """Refuse a body that we would not take, before any of it is read."""
    if request.content_length is None and request.body_exists:
        raise Problem("bad-request", "a body needs a Content-Length")
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise Problem("too-large", f"a body has at most {MAX_REQUEST_BYTES} bytes")


async def _go_on(request: web.Request) -> None:
    """Have a body sent that a client asks about; others may be let be (RFC 9110 10.1.1).

    An error here would pass by all that answers errors.
    """
    if (
        request.headers.get("Expect", "").lower() == "100-continue"
        and request.version >= HttpVersion11
        and request.transport is not None
    ):
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _note_begun(_: web.Request, response: web.StreamResponse) -> None:
    progress = _PROGRESS.get(None)
    if progress is not None:  # else aiohttp's own: it did not expect what the client expects
        progress.begun = response


def _passed(passing: Passing) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handling) -> web.StreamResponse:
        return await passing(request, handler)

    return middleware
