"""What the API answers: a table of routes, from which requests are served and the document is made.

A module of `paths` has the routes of one noun. A handler is given who asks and the request, and
returns the answer, or raises a `Problem`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem

API = "/api/v1"
BODY_S = 10.0
MAX_BODY_BYTES = 256 << 10
"""Of a request: some times what a query may have (`statement.MAX_LENGTH`)."""

Schema = Mapping[str, Any]
"""A JSON Schema (draft 2020-12), as OpenAPI 3.1 has it."""

Handler = Callable[[Caller, web.Request], Awaitable[web.StreamResponse]]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}


def whole(least: int, most: int) -> Schema:
    """Return the schema of a whole number within bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


FLAG: Schema = {"type": "string", "enum": ["", "0", "1", "false", "true"]}
OBJECT: Schema = {"type": "object"}


class Needs(Enum):
    """What a caller must be before a handler is called."""

    NOTHING = "nothing"
    """Anybody: health, and what is in every package of ours."""
    CALLER = "caller"
    """Somebody who is known; the handler shows what they may see."""
    EVERYTHING = "everything"
    """Somebody who may see all namespaces."""


@dataclass(frozen=True)
class Parameter:
    """One that stands in the request's query."""

    name: str
    help: str
    schema: Schema = field(default_factory=lambda: TEXT)
    required: bool = False
    old: bool = False
    """Something else says it as well, and is to be used instead."""


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    help: str
    """What is answered, in a sentence."""
    parameters: tuple[Parameter, ...] | None = ()
    """Others are refused; None: whatever there is means nothing, and is let be."""
    body: Schema | None = None
    """Of the request, if it has one."""
    answer: Schema | None = None
    """Of an answer in JSON, or of each of its lines; None where it is something else."""
    kind: str = "application/json"
    status: int = 200
    """Of an answer; 204: it has nothing in it."""
    needs: Needs = Needs.CALLER
    also: tuple[str, ...] = ()
    """Older paths of the same."""

    def check(self, request: web.Request) -> None:
        """Refuse parameters that there are none of, or that are missing or given twice."""
        if self.parameters is None:
            return
        names = [parameter.name for parameter in self.parameters]
        for name in request.query:
            if name not in names:
                known = f"use {', '.join(names)}" if names else "there are none here"
                raise Problem("bad-request", f"unknown parameter {name[:80]!r}: {known}")
            if len(request.query.getall(name)) > 1:
                raise Problem("bad-request", f"{name}: given more than once")
        for parameter in self.parameters:
            if parameter.required and parameter.name not in request.query:
                raise Problem("bad-request", f"{parameter.name} is needed: {parameter.help}")


FILTER = Parameter("filter", "Which records, in the filter language; all by default")
FROM = Parameter("from", "Since when: epoch ms, ISO 8601, now, or relative (-15m)")
TO = Parameter("to", "Until when, in the same forms; now by default")


def number(request: web.Request, name: str, default: int, most: int | None = None) -> int:
    """Return a whole number of the query, from 0 on."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Problem("bad-request", f"{name} {text[:80]!r}: a whole number, 0 or more")
    value = int(text)
    if most is not None and value > most:
        raise Problem("bad-request", f"{name} {value}: {most} at most")
    return value


def flag(request: web.Request, name: str) -> bool:
    """Return whether something is asked for, as FLAG has it."""
    text = request.query.get(name, "")
    if text not in FLAG["enum"]:
        raise Problem("bad-request", f"{name} {text[:80]!r}: true or false")
    return text not in {"", "0", "false"}


async def json_object(request: web.Request, most: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """Return the body, of so many bytes at most, which is a JSON object in UTF-8 (RFC 8259 8.1)."""
    if "Content-Encoding" in request.headers:
        raise Problem("bad-request", "the body has a Content-Encoding: send it as it is")
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.content.iter_any():
                text += part
                if len(text) > most:
                    raise Problem("too-large", f"the body has more than {most} bytes")
        body = json.loads(text.decode())
    except TimeoutError as error:
        raise Problem("bad-request", f"the body did not come within {BODY_S:g} s") from error
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Problem("bad-request", "the body is JSON, but not an object")
    return body
