"""Who one is, and sessions of browsers."""

from typing import Any

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.door import TcpDoor
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import API, TEXT, Needs, Route, json_object

MAX_BODY_BYTES = 32 << 10  # a token's, by whoever may reach us

ME = {
    "type": "object",
    "required": ["user", "namespaces", "may"],
    "properties": {
        "user": TEXT,
        "namespaces": {"oneOf": [{"const": "*"}, {"type": "array", "items": TEXT}]},
        "may": {
            "type": "object",
            "required": ["sql", "nodes"],
            "properties": {"sql": {"type": "boolean"}, "nodes": {"type": "boolean"}},
        },
    },
}


def routes() -> list[Route]:
    """Return the routes that there are on each listener."""

    async def me(caller: Caller, _: web.Request) -> web.Response:
        return answers.document(_described(caller))

    return [Route("GET", f"{API}/me", me, "Who one is, and what one may see", answer=ME)]


def browser_routes(door: TcpDoor) -> list[Route]:
    """Return the routes by which a browser begins and ends a session."""

    async def begin(_: Caller, request: web.Request) -> web.Response:
        body = await json_object(request, MAX_BODY_BYTES)
        token = body.get("token")
        if not isinstance(token, str):
            raise Problem("bad-request", 'a session begins with {"token": "..."}')
        caller, response = await door.begin_session(token, request)
        response.content_type = "application/json"
        response.text = answers.dumps(_described(caller))
        return response

    async def end(_: Caller, request: web.Request) -> web.Response:
        return door.end_session(request)

    path = f"{API}/session"
    body = {"type": "object", "required": ["token"], "properties": {"token": TEXT}}
    return [
        Route(
            "POST",
            path,
            begin,
            "Begins a session: the cookie stands for the token",
            body=body,
            answer=ME,
            needs=Needs.NOTHING,
        ),
        Route(
            "DELETE",
            path,
            end,
            "Ends the session of the cookie",
            status=204,
            needs=Needs.NOTHING,
        ),
    ]


def _described(caller: Caller) -> dict[str, Any]:
    visibility = caller.visibility
    namespaces = "*" if visibility.namespaces is None else sorted(visibility.namespaces)
    return {
        "user": caller.name,
        "namespaces": namespaces,
        "may": {"sql": visibility.all, "nodes": visibility.all},
    }
