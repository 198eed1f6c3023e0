"""Flows that are live in the table, as they would be written now, as JSON lines."""

from collections.abc import Callable, Iterator

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.asking import SELECTING, asked
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import chosen
from flowvis.aggregator.api.paths.latest import DEFAULT_FLOWS, LIMIT
from flowvis.aggregator.api.routes import API, OBJECT, Route, number
from flowvis.batch import Batch

AT_ONCE = 4096  # slots of flows looked at in one go: some 2 ms in which no session is read

Live = Callable[[], Iterator[Batch]]
"""Goes through live flows in parts; on the event loop, and quick. Others come and go between."""


def routes(live: Live) -> list[Route]:
    """Return the routes."""

    async def answer(caller: Caller, request: web.Request) -> web.StreamResponse:
        limit = number(request, "limit", DEFAULT_FLOWS)
        wanted = await asked(caller, request)
        response = answers.lines()
        for part in live():
            found = (await chosen(wanted, part)).take(slice(limit))
            limit -= len(found)
            if not response.prepared:
                await response.prepare(request)
            await answers.write(response, found)
            if not limit:
                break
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    return [
        Route(
            "GET",
            f"{API}/live",
            answer,
            "Flows that are live in the table, as they would be written now, a JSON object a line",
            parameters=(LIMIT, *SELECTING),
            answer=OBJECT,
            kind="application/jsonl",
        )
    ]
