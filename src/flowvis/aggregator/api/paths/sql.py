"""Read-only SQL in the configured store.

{"columns": [..], "types": [..], "rows": [[..]], "truncated": ..}, and "error" where it broke off.
"""

from collections.abc import Callable
from functools import partial

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.routes import API, OBJECT, TEXT, Needs, Route, json_object
from flowvis.clickhouse.query import Query

DEFAULT_ROWS = 10_000
MAX_ROWS = 1_000_000


def routes(query: Callable[[str, int], Query], answers: Answers) -> list[Route]:
    """Return the routes; `query` prepares SQL, up to so many rows, and runs in a thread."""

    async def answer(caller: Caller, request: web.Request) -> web.StreamResponse:
        body = await json_object(request)
        match body:
            case {"query": str(sql)}:
                limit = body.get("maxRows", DEFAULT_ROWS)
            case _:
                raise Problem("bad-request", 'a query is {"query": "SELECT ..."}')
        if type(limit) is not int or not 0 < limit <= MAX_ROWS:
            raise Problem("bad-request", f"maxRows {limit!r:.80}: a number from 1 to {MAX_ROWS}")
        return await answers.stream(partial(query, sql, limit), request, caller.name)

    return [
        Route(
            "POST",
            f"{API}/sql",
            answer,
            "The rows of a read-only query",
            body={
                "type": "object",
                "required": ["query"],
                "properties": {
                    "query": TEXT,
                    "maxRows": {"type": "integer", "minimum": 1, "maximum": MAX_ROWS},
                },
            },
            answer=OBJECT,
            needs=Needs.EVERYTHING,
            also=("/sql",),
        )
    ]
