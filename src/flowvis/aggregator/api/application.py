"""The API as one web application: each request passes the door, and each error has one form.

The same routes are served on each listener, which differ in who is behind a request (`Door`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import ANYBODY, LOCAL, Caller
from flowvis.aggregator.api.problems import Problem, of_status
from flowvis.aggregator.api.routes import Needs, Route
from flowvis.errors import FlowvisError, StoreError

MAX_REQUEST_BYTES = 1 << 20  # a query that people wrote

Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door(Protocol):
    """Finds out who asks."""

    async def caller(self, request: web.Request) -> Caller:
        """Return who sent a request; Problem where that is nobody we know."""


class LocalDoor:
    """Whoever could open the control socket is its owner."""

    async def caller(self, _: web.Request) -> Caller:
        """Return the owner."""
        return LOCAL


def application(
    routes: Sequence[Route], door: Door, *before: Any, after: Sequence[Any] = ()
) -> web.Application:
    """Return an application of routes; middlewares may come before all, and after the errors."""
    made = web.Application(
        client_max_size=MAX_REQUEST_BYTES, middlewares=[*before, _errors_as_json, *after]
    )
    for route in routes:
        for path in (route.path, *route.also):
            made.router.add_route(route.method, path, _handling(route, door))
    return made


def _handling(route: Route, door: Door) -> Handling:
    async def handle(request: web.Request) -> web.StreamResponse:
        if route.needs is Needs.NOTHING:
            caller = ANYBODY
        else:
            caller = await door.caller(request)
        if route.needs is Needs.EVERYTHING:
            caller.require_everything(route.path)
        route.check(request)
        return await route.handler(caller, request)

    return handle


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handling) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        problem = of_status(error.status, f"{request.path[:200]}: {error.reason}")
    except Problem as error:
        problem = error
    except StoreError as error:
        problem = Problem("bad-query", str(error))
    except ValueError as error:
        problem = Problem("bad-request", str(error))
    except FlowvisError as error:
        problem = Problem("failed", str(error))
    response = answers.document(problem.document(), problem.status)
    response.headers.update(problem.headers)
    return response
