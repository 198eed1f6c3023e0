"""The aggregator's HTTP API on its control socket.

    GET  /status                 what runs: version, sessions, flows, destinations, the books
    GET  /ledger                 the books alone
    GET  /flows?limit=&follow=1  the latest records, one JSON object a line; `follow` goes on;
                                 conditions: pod, namespace, node, service, ip, port, protocol,
                                 type; {"lost": n} says that a slow reader missed n records
    GET  /flowrecords?limit=     flows that are live in the table, in the same form
    POST /sql                    {"query": ..., "maxRows": n}: read-only, in the configured store:
                                 {"columns": [..], "types": [..], "rows": [[..]], "truncated": ..},
                                 and "error" where it broke off

Errors are {"error": text} with a fitting status. Rows of Python values are made here and nowhere
else.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from flowvis.aggregator.api import control
from flowvis.aggregator.api.latest import LatestRecords, TooManyFollowers
from flowvis.aggregator.api.listing import rows
from flowvis.aggregator.api.queries import Answers, TooManyQueries
from flowvis.aggregator.api.selection import Selection
from flowvis.aggregator.destinations.outbox import Outbox
from flowvis.batch import Batch
from flowvis.clickhouse.query import Query
from flowvis.errors import FlowvisError, StoreError

MAX_CONNECTIONS = 64  # at more, the oldest that is idle ends
MAX_REQUEST_BYTES = 1 << 20  # a query that people wrote
DEFAULT_FLOWS = 100
DEFAULT_ROWS = 10_000
MAX_ROWS = 1_000_000
AT_ONCE = 10_000  # live flows looked at in one go
LINES = 200  # records of one write to a follower: bounds the time that others wait


@dataclass(frozen=True)
class Views:
    """What the API shows; the callables run on the event loop and are quick.

    `query` runs in a thread.
    """

    status: Callable[[], dict[str, Any]]
    ledger: Callable[[], dict[str, Any]]
    flows: Callable[[int, int], Batch]
    """Up to so many live flows after having skipped so many."""
    history: LatestRecords
    query: Callable[[str, int], Query]
    """Prepares read-only SQL, up to so many rows; NoStore while there is none."""
    queries: Callable[[], int] = lambda: 2
    """How many queries may run at once."""


class NoStore(RuntimeError):
    """There is nothing to ask."""


class HttpApi:
    """Serves the views while it runs."""

    name = "control socket"

    def __init__(self, path: Path, views: Views) -> None:
        self.path = path
        self._views = views
        self._answers = Answers(views.queries)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket and serve."""
        connections = _Connections()
        application = web.Application(
            client_max_size=MAX_REQUEST_BYTES, middlewares=[connections.note, _errors_as_json]
        )
        application.add_routes(
            [
                web.get("/status", self._status),
                web.get("/ledger", self._ledger),
                web.get("/flows", self._flows),
                web.get("/flowrecords", self._flow_records),
                web.post("/sql", self._sql),
            ]
        )
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=2, handler_cancellation=True
        )
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp set up no server")
        connections.server = runner.server
        listener = control.bind(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(connections, sock=listener)
        self._runner = runner

    async def stop(self) -> None:
        """End the followers' streams, close, and remove the socket."""
        if self._server is not None:
            self._server.close()
        self._views.history.close()
        await self._answers.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.path.unlink(missing_ok=True)

    async def _status(self, _: web.Request) -> web.Response:
        return _json(self._views.status())

    async def _ledger(self, _: web.Request) -> web.Response:
        return _json(self._views.ledger())

    async def _flow_records(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        limit = _number(query.pop("limit", ""), DEFAULT_FLOWS, "limit")
        selection = Selection.parse(query)
        response = _lines()
        await response.prepare(request)
        seen = 0
        while limit and len(part := self._views.flows(AT_ONCE, seen)):
            seen += len(part)
            wanted = part.take(selection.mask(part)).take(slice(limit))
            limit -= len(wanted)
            await _write(response, wanted)
        await response.write_eof()
        return response

    async def _flows(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        limit = _number(query.pop("limit", ""), DEFAULT_FLOWS, "limit")
        follow = query.pop("follow", "") not in {"", "0", "false"}
        selection = Selection.parse(query)
        response = _lines()
        with self._views.history.follow() as coming, suppress(ConnectionResetError):
            latest = self._latest(limit, selection)  # before the first await: nothing comes twice
            await response.prepare(request)
            for batch in latest:
                await _write(response, batch)
            if follow:
                await _follow(response, coming, selection)
            await response.write_eof()
        return response

    def _latest(self, limit: int, selection: Selection) -> list[Batch]:
        """Up to `limit` of the latest records that are wanted, oldest first."""
        found: list[Batch] = []
        for batch in reversed(self._views.history.latest(self._views.history.size)):
            wanted = batch.take(selection.mask(batch))
            if limit and len(wanted):
                found.append(wanted.take(slice(max(len(wanted) - limit, 0), None)))
                limit -= len(found[-1])
        return found[::-1]

    async def _sql(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        match body:
            case {"query": str(query)}:
                limit = body.get("maxRows", DEFAULT_ROWS)
            case _:
                raise ValueError('a query is {"query": "SELECT ..."}')
        if type(limit) is not int or not 0 < limit <= MAX_ROWS:
            raise ValueError(f"maxRows {limit!r}: a number from 1 to {MAX_ROWS}")
        return await self._answers.stream(partial(self._views.query, query, limit), request)


class _Connections:
    """Makes the handlers of connections: who says nothing keeps nobody out."""

    def __init__(self) -> None:
        self.server: web.Server | None = None
        self._busy: set[asyncio.BaseProtocol] = set()

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the handler of a new one; at the limit the oldest that is idle ends."""
        if self.server is None:
            raise RuntimeError("connections before there is a server")
        standing = self.server.connections
        idle = [each for each in standing if each not in self._busy]
        for handler in idle[: max(len(standing) - MAX_CONNECTIONS + 1, 0)]:
            handler.force_close()
        return self.server()

    @web.middleware
    async def note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Know a connection as busy while it is answered."""
        self._busy.add(request.protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(request.protocol)


async def _follow(response: web.StreamResponse, coming: Outbox, selection: Selection) -> None:
    """Write what comes until the reader leaves or the aggregator stops."""
    reported = 0
    while (batch := await coming.take(LINES)) is not None:
        coming.sent(len(batch))
        lost = sum(coming.stage.dropped.values())
        if lost > reported:
            await response.write(_line({"lost": lost - reported}))
            reported = lost
        await _write(response, batch.take(selection.mask(batch)))


def _lines() -> web.StreamResponse:
    return web.StreamResponse(headers={"Content-Type": "application/jsonl"})


async def _write(response: web.StreamResponse, batch: Batch) -> None:
    for first in range(0, len(batch), LINES):
        part = batch.take(slice(first, first + LINES))
        await response.write(b"".join(_line(row) for row in rows(part)))


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json({"error": error.reason}, error.status)
    except (TooManyFollowers, TooManyQueries) as error:
        return _json({"error": str(error)}, 503)
    except NoStore as error:
        return _json({"error": str(error)}, 409)
    except (ValueError, StoreError) as error:
        return _json({"error": str(error)}, 400)
    except FlowvisError as error:
        return _json({"error": str(error)}, 500)


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.json_response(answer, status=status, dumps=_dumps)


def _dumps(answer: Any) -> str:
    """JSON; what it has no form for (times, addresses, decimals of a query) as text."""
    return json.dumps(answer, default=str, ensure_ascii=False)


def _line(answer: Any) -> bytes:
    return _dumps(answer).encode() + b"\n"


def _number(text: str, default: int, name: str) -> int:
    if text and not text.isdecimal():
        raise ValueError(f"{name} {text!r}: a number")
    return int(text) if text else default
