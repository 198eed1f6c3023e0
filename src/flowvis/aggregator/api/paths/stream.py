"""Records as they come, as server-sent events.

    event: flows          data: [{record}, ...], with an id
    event: lost           data: {"lost": n}: so many records went by before who reads took them
    event: live           data: {"wholeSinceSeconds": s}: after what it was to begin with

`wholeSinceSeconds`: for so long back all that went out is remembered; null: since the start.
Who comes back with the id of the last event (Last-Event-ID) gets what came since, as far as it is
remembered, and is told how much is not. Ids and losses are of all records, chosen or not.
"""

import asyncio
import re
import secrets
from contextlib import suppress

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.asking import SELECTING, asked
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import chosen
from flowvis.aggregator.api.latest import LatestRecords, TooManyFollowers
from flowvis.aggregator.api.listing import rows
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import API, WHOLE, Parameter, Route, number
from flowvis.batch import Batch
from flowvis.filters import Filter

ALIVE_S = 15.0  # proxies end what is silent for longer
RETRY_MS = 2000
_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})")


def routes(history: LatestRecords) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/stream",
            _Streams(history).answer,
            "Records as they come, as server-sent events: flows, and lost",
            parameters=(
                *SELECTING,
                Parameter(
                    "latest",
                    "With how many of the latest records to begin, as far as remembered; 0",
                    WHOLE,
                ),
                Parameter(
                    "seconds", "Also with those of so many seconds, as far as remembered", WHOLE
                ),
            ),
            kind="text/event-stream",
        )
    ]


class _Streams:
    def __init__(self, history: LatestRecords) -> None:
        self._history = history
        self._life = secrets.token_hex(4)
        """Tells the ids of this process from those of the one before."""

    async def answer(self, caller: Caller, request: web.Request) -> web.StreamResponse:
        wanted = await asked(caller, request)
        latest = number(request, "latest", 0, self._history.size)
        if seconds := number(request, "seconds", 0):
            latest = max(latest, self._history.put_within(seconds))
        try:
            with self._history.follow(caller.name) as coming:
                # Before any await, so that nothing comes twice or is missed.
                begun = self._history.put_records
                whole_since_s = self._history.whole_since_s
                missed, lost = self._since(request.headers.get("Last-Event-ID", ""), latest)
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                with suppress(ConnectionResetError):  # the reader has left
                    await response.prepare(request)
                    events = _Events(response, self._life, wanted)
                    await events.begin(begun, missed, lost)
                    if "latest" in request.query or "seconds" in request.query:
                        await events.live(whole_since_s)
                    while True:
                        taken = asyncio.timeout_at(events.written_s + ALIVE_S)
                        with suppress(TimeoutError):
                            async with taken:
                                batch = await coming.next(answers.LINES)
                        if taken.expired():
                            await events.alive()
                            continue
                        if batch is None:
                            break
                        coming.sent(len(batch))
                        gone = sum(coming.stage.dropped.values())
                        await events.lost(gone - events.reported)
                        await events.flows(batch, begun + coming.stage.sent + gone)
                    await response.write_eof()
        except TooManyFollowers as error:
            raise Problem("too-many", str(error)) from error
        return response

    def _since(self, last: str, latest: int) -> tuple[list[Batch], int]:
        """Return what came since an event, and how many records of it are forgotten."""
        put = self._history.put_records
        found = _ID.fullmatch(last)
        if not last:
            return self._history.latest(latest), 0
        if found is None or found[1] != self._life or int(found[2]) > put:
            # Of another life: of what it had after that, and of ours, only this is known.
            remembered = self._history.latest(self._history.size)
            return remembered, max(put - sum(map(len, remembered)), 1)
        missed = put - int(found[2])
        remembered = self._history.latest(missed)
        return remembered, missed - sum(map(len, remembered))


class _Events:
    """What is written to one reader."""

    def __init__(self, response: web.StreamResponse, life: str, wanted: Filter) -> None:
        self.reported = 0
        """Records that the reader was told to have missed while reading."""
        self.written_s = _now_s()
        """When something was written last, by the loop's clock."""
        self._response, self._life, self._wanted = response, life, wanted
        self._position = 0

    async def begin(self, position: int, batches: list[Batch], lost: int) -> None:
        """Write what came before `position`."""
        await self._write(f"retry: {RETRY_MS}\n\n".encode())
        if lost:
            await self._write(_event("lost", {"lost": lost}))
        position -= sum(map(len, batches))
        for batch in batches:
            for first in range(0, len(batch), answers.LINES):
                part = batch.take(slice(first, first + answers.LINES))
                position += len(part)
                await self.flows(part, position)
        self._position = position
        await self.alive()

    async def flows(self, batch: Batch, position: int) -> None:
        """Write what is chosen of the records up to a position; after a while where it stands."""
        self._position = position
        found = await chosen(self._wanted, batch)
        if len(found):
            event = _event("flows", list(rows(found)))
            await self._write(f"id: {self._life}-{position}\n".encode() + event)
        elif _now_s() >= self.written_s + ALIVE_S:
            await self.alive()

    async def lost(self, count: int) -> None:
        """Write that records went by."""
        if count:
            self.reported += count
            await self._write(_event("lost", {"lost": count}))

    async def live(self, whole_since_s: float | None) -> None:
        """Write that what follows is new."""
        await self._write(_event("live", {"wholeSinceSeconds": whole_since_s}))

    async def alive(self) -> None:
        """Write where it stands: nothing that is chosen has come."""
        await self._write(f"id: {self._life}-{self._position}\n\n".encode())

    async def _write(self, text: bytes) -> None:
        await self._response.write(text)
        self.written_s = _now_s()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {answers.dumps(data)}\n\n".encode()
