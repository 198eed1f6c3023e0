"""Nodes: what came from each, what is missing of it, and how its clock goes."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.routes import API, OBJECT, Needs, Route

View = Callable[[], list[dict[str, Any]]]
"""Runs on the event loop and is quick."""


def routes(nodes: View) -> list[Route]:
    """Return the routes."""

    async def show(_: Caller, __: web.Request) -> web.Response:
        return answers.document({"nodes": nodes()})

    return [
        Route(
            "GET",
            f"{API}/nodes",
            show,
            "Nodes and their exporters: when something came last, how much, and what is missing",
            answer=OBJECT,
            needs=Needs.EVERYTHING,
        )
    ]
