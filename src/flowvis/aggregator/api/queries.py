"""Answers to queries, as they are found: made in a thread of the query's own, piece by piece.

    {"columns": [..], "types": [..], "rows": [[..], ..], "truncated": false}

A reader that is slow slows down the engine; one that leaves ends the query there. What goes wrong
before the first rows is an error's answer; later the document says so at its end, with "error".
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from aiohttp import web

from flowvis.aggregator.api.problems import Problem
from flowvis.clickhouse.query import Query
from flowvis.errors import FlowvisError

CLOSE_S = 0.05  # for one that is not in the engine's hands
CANCEL_AGAIN_S = 0.5  # for a query that had not begun when it was asked to end


class Answers:
    """Runs queries, so many at once at most."""

    def __init__(self, at_once: Callable[[], int]) -> None:
        self._at_once = at_once
        self._running: set[_Run] = set()

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    async def stream(
        self, prepare: Callable[[], Query], request: web.Request
    ) -> web.StreamResponse:
        """Run a query and write its answer."""
        if self.running >= self._at_once():
            raise Problem(
                "too-many",
                f"{self.running} queries run, and no more may at once"
                " (clickHouse.queries.maxConcurrent): wait for one to end",
            )
        run = _Run(prepare)
        self._running.add(run)
        try:
            return await run.stream(request)
        finally:
            # Whatever ended this, the engine is to have ended the query before another may begin.
            ending = asyncio.ensure_future(run.end())
            ending.add_done_callback(lambda _: self._running.discard(run))
            with suppress(asyncio.CancelledError):
                await asyncio.shield(ending)

    async def close(self) -> None:
        """End what runs; its readers are told."""
        await asyncio.gather(*(run.cancel() for run in self._running))


class _Run:
    """One query with the thread that it runs in."""

    def __init__(self, prepare: Callable[[], Query]) -> None:
        self._prepare = prepare
        self._query: Query | None = None
        self._texts: Iterator[bytes] = iter(())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="query")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        text = await self._call(self._begin)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the reader has left
            while text:
                await response.write(text)
                text = await self._call(next, self._texts, b"")
            await response.write_eof()
        return response

    def _begin(self) -> bytes:
        self._query = self._prepare()
        self._texts = _texts(self._query)
        return next(self._texts)

    async def end(self) -> None:
        """End the query, by force where it is in the engine's hands."""
        closed = asyncio.ensure_future(self._call(self._close))
        await asyncio.wait((closed,), timeout=CLOSE_S)
        while not closed.done():
            await self.cancel()
            await asyncio.wait((closed,), timeout=CANCEL_AGAIN_S)
        self._thread.shutdown(wait=False)

    async def cancel(self) -> None:
        """Ask the engine to end the query."""
        if self._query is not None:
            with suppress(FlowvisError):
                await asyncio.to_thread(self._query.cancel)

    def _close(self) -> None:
        if self._query is not None:
            self._texts.close()  # type: ignore[attr-defined]  # a generator

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _texts(query: Query) -> Iterator[bytes]:
    """Make the document, in pieces; the first one may raise a FlowvisError."""
    pieces = query.pieces()
    try:
        piece = next(pieces)
        heading = json.dumps({"columns": query.names, "types": query.types}, ensure_ascii=False)
        yield f'{heading[:-1]}, "rows": [\n'.encode() + b",\n".join(piece)
        begun = bool(piece)
        problem: Problem | None = None
        try:
            for piece in pieces:
                if piece:
                    yield b",\n" * begun + b",\n".join(piece)
                    begun = True
        except FlowvisError as error:
            problem = Problem("bad-query", str(error))
        ending = {"truncated": query.truncated} | (problem.document() if problem else {})
        yield f"\n], {json.dumps(ending, ensure_ascii=False)[1:]}".encode()
    finally:
        pieces.close()  # type: ignore[attr-defined]  # a generator
