"""The latest records, as JSON lines, and those that come (`follow`).

{"lost": n} in between says that a slow reader missed n records.
"""

from collections.abc import Sequence
from contextlib import nullcontext, suppress

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.asking import SELECTING, asked
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import chosen
from flowvis.aggregator.api.latest import LatestRecords, TooManyFollowers
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import FLAG, OBJECT, WHOLE, Parameter, Route, flag, number
from flowvis.batch import Batch
from flowvis.delivery.queue import Queue
from flowvis.filters import Filter

DEFAULT_FLOWS = 100
LIMIT = Parameter("limit", f"How many; {DEFAULT_FLOWS} by default", WHOLE)


def routes(history: LatestRecords) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            "/flows",
            _Latest(history).answer,
            "The latest records, a JSON object a line, oldest first",
            parameters=(
                LIMIT,
                Parameter("follow", "Whether to go on with what comes", FLAG),
                *SELECTING,
            ),
            answer=OBJECT,
            kind="application/jsonl",
        )
    ]


class _Latest:
    def __init__(self, history: LatestRecords) -> None:
        self._history = history

    async def answer(self, caller: Caller, request: web.Request) -> web.StreamResponse:
        limit = number(request, "limit", DEFAULT_FLOWS)
        wanted = await asked(caller, request)
        response = answers.lines()
        follows = flag(request, "follow")
        following = self._history.follow(caller.name) if follows else nullcontext()
        try:
            with following as coming, suppress(ConnectionResetError):
                latest = self._history.latest(self._history.size)  # at once: nothing comes twice
                found = await _latest(latest, limit, wanted)
                await response.prepare(request)
                for batch in found:
                    await answers.write(response, batch)
                if coming is not None:
                    await _follow(response, coming, wanted)
                await response.write_eof()
        except TooManyFollowers as error:
            raise Problem("too-many", str(error)) from error
        return response


async def _latest(batches: Sequence[Batch], limit: int, wanted: Filter) -> list[Batch]:
    """Return up to `limit` of the latest records that are wanted, oldest first."""
    found: list[Batch] = []
    for batch in reversed(batches):
        if not limit:
            break
        part = await chosen(wanted, batch)
        if len(part):
            found.append(part.take(slice(max(len(part) - limit, 0), None)))
            limit -= len(found[-1])
    return found[::-1]


async def _follow(response: web.StreamResponse, coming: Queue, wanted: Filter) -> None:
    """Write what comes until the reader leaves or the aggregator stops."""
    reported = 0
    while (batch := await coming.next(answers.LINES)) is not None:
        coming.sent(len(batch))
        lost = sum(coming.stage.dropped.values())
        if lost > reported:
            await response.write(answers.line({"lost": lost - reported}))
            reported = lost
        await answers.write(response, await chosen(wanted, batch))
