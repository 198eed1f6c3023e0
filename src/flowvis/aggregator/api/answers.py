"""Answers in JSON: documents, and lines that are written as they come."""

import json
from typing import Any

from aiohttp import web

from flowvis.aggregator.api.listing import rows
from flowvis.batch import Batch

LINES = 200  # records of one write: bounds the time that others wait


def document(answer: Any, status: int = 200) -> web.Response:
    """Return a JSON document."""
    return web.json_response(answer, status=status, dumps=dumps)


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
