"""Answers in JSON: documents, and lines that are written as they come."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from flowvis.aggregator.api.listing import rows
from flowvis.batch import Batch

LINES = 200  # records of one write: bounds the time that others wait
AT_ONCE = 50  # items of a list that are made text at once, for the same reason


def document(answer: Any, status: int = 200) -> web.Response:
    """Return a JSON document."""
    return web.json_response(answer, status=status, dumps=dumps)


async def large(answer: Mapping[str, Any]) -> web.Response:
    """Return a JSON document that may be long: made in a thread, which lets others go on."""
    body = await asyncio.to_thread(lambda: b"".join(encoded(answer)))
    return web.Response(body=body, content_type="application/json")


def encoded(answer: Any) -> Iterator[bytes]:
    """Go through the pieces of a JSON text, each of which takes no time to make."""
    if isinstance(answer, Mapping):
        for number, (name, value) in enumerate(answer.items()):
            yield f"{', ' if number else '{'}{dumps(str(name))}: ".encode()
            yield from encoded(value)
        yield b"}" if answer else b"{}"
    elif isinstance(answer, list) and _is_deep(answer):
        for number, part in enumerate(answer):
            yield b", " if number else b"["
            yield from encoded(part)
        yield b"]"
    elif isinstance(answer, list) and len(answer) > AT_ONCE:
        for first in range(0, len(answer), AT_ONCE):
            part = dumps(answer[first : first + AT_ONCE])
            yield f"{', ' if first else '['}{part[1:-1]}".encode()
        yield b"]"
    else:
        yield dumps(answer).encode()


def _is_deep(answer: list[Any]) -> bool:
    """Whether a list is of lists of lists, as series are, so that a few of its items are long."""
    first = answer[0] if answer else None
    return isinstance(first, list) and bool(first) and isinstance(first[0], list)


def dumps(answer: Any) -> str:
    """JSON; what it has no form for (times, addresses, decimals of a query) as text."""
    return json.dumps(answer, default=str, ensure_ascii=False)


def line(answer: Any) -> bytes:
    """Return a JSON line."""
    return dumps(answer).encode() + b"\n"


def lines() -> web.StreamResponse:
    """Return an answer that JSON lines can be written to."""
    return web.StreamResponse(headers={"Content-Type": "application/jsonl"})


async def write(response: web.StreamResponse, batch: Batch) -> None:
    """Write records, a line each."""
    for first in range(0, len(batch), LINES):
        part = batch.take(slice(first, first + LINES))
        await response.write(b"".join(line(row) for row in rows(part)))
