"""What runs: version, sessions, flows, destinations, and the books."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.routes import API, OBJECT, Needs, Route

View = Callable[[], dict[str, Any]]
"""Runs on the event loop and is quick."""


def routes(status: View, ledger: View) -> list[Route]:
    """Return the routes; both show raw data of nodes."""
    return [
        Route(
            "GET",
            f"{API}/status",
            _showing(status),
            "What runs: version, sessions, flows, destinations, the books",
            answer=OBJECT,
            needs=Needs.EVERYTHING,
            also=("/status",),
        ),
        Route(
            "GET",
            f"{API}/ledger",
            _showing(ledger),
            "The books alone",
            answer=OBJECT,
            needs=Needs.EVERYTHING,
            also=("/ledger",),
        ),
    ]


def _showing(view: View) -> Callable[[Caller, web.Request], Any]:
    async def show(_: Caller, __: web.Request) -> web.Response:
        return answers.document(view())

    return show
