"""Whether the aggregator lives: the one thing that needs no token."""

from collections.abc import Callable

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import Handler, Needs, Route


def routes(unready: Callable[[], str]) -> list[Route]:
    """Return the routes; `unready` says why it is not ready, "" when it is."""

    async def alive(_: Caller, __: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: Caller, __: web.Request) -> web.Response:
        if unready():
            raise Problem("unavailable", "not ready")  # why is for those who may know
        return web.Response(text="ok")

    served: tuple[tuple[str, Handler, str], ...] = (
        ("/healthz", alive, "Whether the aggregator lives"),
        ("/livez", alive, "The same"),
        ("/readyz", ready, "Whether it takes records"),
    )
    return [
        Route("GET", path, handler, text, kind="text/plain", needs=Needs.NOTHING)
        for path, handler, text in served
    ]
