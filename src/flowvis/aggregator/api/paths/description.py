"""What the API says of itself."""

from collections.abc import Sequence

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.openapi import document
from flowvis.aggregator.api.routes import API, OBJECT, Route


def routes(others: Sequence[Route]) -> list[Route]:
    """Return the route of the document, which describes the others and itself."""
    own: list[Route] = []

    async def answer(_: Caller, __: web.Request) -> web.Response:
        return answers.document(document([*others, *own]))

    help_text = "This document (OpenAPI 3.1)"
    own.append(Route("GET", f"{API}/openapi.json", answer, help_text, answer=OBJECT))
    return own
