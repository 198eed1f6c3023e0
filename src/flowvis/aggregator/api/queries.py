"""Queries that run for people, so many at once, each in a thread of its own.

What people wrote is answered as it is found, piece by piece:

    {"columns": [..], "types": [..], "rows": [[..], ..], "truncated": false}

A reader that is slow slows down the engine; one that leaves ends the query there. What goes wrong
before the first rows is an error's answer; later the document says so at its end, with "error".

Questions, whose statements we compose, are answered as a whole (`Answers.answer`).

What runs at once is bounded; the rest waits for its turn (`QueryPlaces`): a page asks a few things
together, and has left others when a person asks for the next.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from aiohttp import web

from flowvis.aggregator.api.places import OURS, QueryPlaces
from flowvis.aggregator.api.problems import Problem, of_store_away
from flowvis.clickhouse.query import Cost, Query
from flowvis.clickhouse.statement import COMPOSED_LENGTH, bind
from flowvis.clickhouse.store import READ_ONLY
from flowvis.errors import FlowvisError, StoreError
from flowvis.questions.statement import Found, Plan, Statement

CLOSE_S = 0.05  # for one that is not in the engine's hands
CANCEL_AGAIN_S = 0.5  # for a query that had not begun when it was asked to end


_COSTLY = frozenset({158, 159, 160, 191, 241, 307, 396})
"""ClickHouse's codes of what a query may not use more of: TOO_MANY_ROWS, TIMEOUT_EXCEEDED,
TOO_SLOW, SET_SIZE_LIMIT_EXCEEDED, MEMORY_LIMIT_EXCEEDED, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES."""

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """What a plan made of what the store answered, and what that took."""

    value: T
    cost: Cost
    seconds: float


class Answers:
    """Runs queries, so many at once at most."""

    def __init__(self, at_once: Callable[[], int]) -> None:
        self._running: set[_Run] = set()
        self.places = QueryPlaces(at_once)

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    async def stream(
        self, prepare: Callable[[], Query], request: web.Request, owner: str = OURS
    ) -> web.StreamResponse:
        """Run a query of somebody's when it is its turn, and write its answer.

        Problem where that is not soon.
        """
        run = _Streamed(prepare)
        response = await self._in_turn(run, owner, partial(run.stream, request))
        # The answer's end comes last: who has read it may ask again at once.
        with suppress(ConnectionResetError):
            await response.write_eof()
        return response

    async def answer(
        self, plan: Plan[T], prepare: Callable[[str], Query], owner: str = OURS
    ) -> Answered[T]:
        """Carry a plan of somebody's out; Problem says why there is no answer.

        While too many run it waits, behind those of who has fewer and those that came before.
        """
        run = _Planned(plan, prepare)
        return await self._in_turn(run, owner, run.answer)

    async def close(self) -> None:
        """End what runs; its readers are told."""
        self.places.close()
        await asyncio.gather(*(run.cancel() for run in self._running))

    async def _in_turn(
        self, run: "_Run", owner: str, answer: Callable[[], Coroutine[Any, Any, A]]
    ) -> A:
        """Wait for a place, give the answer, and the place back; Problem where there is none."""
        await self.places.turn(owner)
        self._running.add(run)
        try:
            return await answer()
        finally:
            # Whatever ended this, the engine is to have ended the query before another may begin.
            ending = asyncio.ensure_future(run.end())
            ending.add_done_callback(lambda _: self._ended(run, owner))
            with suppress(asyncio.CancelledError):
                await asyncio.shield(ending)

    def _ended(self, run: "_Run", owner: str) -> None:
        self._running.discard(run)
        self.places.leave(owner)


class _Run:
    """Queries, one after the other, with the thread that they run in."""

    def __init__(self) -> None:
        self._query: Query | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="query")

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
        """Let go of what was begun; in the thread."""

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


class _Streamed(_Run):
    """One query, whose rows are written as they are found."""

    def __init__(self, prepare: Callable[[], Query]) -> None:
        super().__init__()
        self._prepare = prepare
        self._texts: Iterator[bytes] = iter(())

    async def stream(self, request: web.Request) -> web.StreamResponse:
        text = await self._call(self._begin)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the reader has left
            while text:
                await response.write(text)
                text = await self._call(next, self._texts, b"")
        return response

    def _begin(self) -> bytes:
        self._query = self._prepare()
        self._texts = _texts(self._query)
        return next(self._texts)

    def _close(self) -> None:
        if self._query is not None:
            self._texts.close()  # type: ignore[attr-defined]  # a generator


class _Planned(_Run, Generic[T]):
    """The statements of a plan."""

    def __init__(self, plan: Plan[T], prepare: Callable[[str], Query]) -> None:
        super().__init__()
        self._plan = plan
        self._prepare = prepare
        self._left = False

    async def answer(self) -> Answered[T]:
        answered: Answered[T] = await self._call(self._carry_out)
        return answered

    async def cancel(self) -> None:
        """Ask the engine to end the query, and ask it no other one."""
        self._left = True
        await super().cancel()

    def _carry_out(self) -> Answered[T]:
        began, cost = time.monotonic(), Cost()
        try:
            statement = next(self._plan)
            while True:
                found, more = self._ask(statement)
                cost += more
                statement = self._plan.send(found)
        except StopIteration as done:
            return Answered(done.value, cost, time.monotonic() - began)

    def _ask(self, statement: Statement) -> tuple[Found, Cost]:
        if self._left:
            raise Problem("unavailable", "the question was cancelled")
        sql = bind(statement.text, statement.parameters)
        if len(sql.encode()) > COMPOSED_LENGTH:
            raise Problem(
                "too-costly",
                f"this takes a statement of more than {COMPOSED_LENGTH} bytes, which a store does "
                "not read: a filter of fewer conditions or values",
            )
        try:
            self._query = self._prepare(sql)
            result = self._query.result()
        except StoreError as error:
            raise _problem(error) from error
        if result.truncated:
            raise Problem(
                "too-costly",
                "the answer is too large: a lower limit, longer intervals, a narrower filter or "
                "range",
            )
        return Found(result.rows, result.types), self._query.cost

    def _close(self) -> None:
        self._plan.close()


def _problem(error: StoreError) -> Problem:
    """Return the problem of a question that the store did not answer."""
    if error.code in _COSTLY:
        return Problem(
            "too-costly",
            f"more than a query may use (clickHouse.queries): a shorter range, a filter: {error}",
        )
    passes = error.retryable and error.code != READ_ONLY
    return of_store_away(error) if passes else Problem("failed", str(error))


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
