"""Which records a request asks for, of those that its caller may see.

The filter language has it all; `CONDITIONS` are beside it.
"""

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import read
from flowvis.aggregator.api.conditions import CONDITIONS
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import FILTER, Parameter
from flowvis.filters import EVERYTHING, Filter, FilterError, parse, quote

SELECTING = (FILTER, *(Parameter(name, text, old=True) for name, text in CONDITIONS.items()))
"""The parameters that `asked` reads."""


async def asked(caller: Caller, request: web.Request) -> Filter:
    """Return which records a request asks for, within what its caller may see.

    This is the only way from a request to a filter. FilterError says what is wrong with its text.
    """
    text = request.query.get("filter", "")
    chosen = await read(parse, text) if text else EVERYTHING
    for name in CONDITIONS:
        if value := request.query.get(name, ""):
            chosen &= _compared(name, value)
    return caller.visibility.restrict(chosen)


def _compared(name: str, value: str) -> Filter:
    try:
        return parse(f"{name} = {quote(value)}")
    except FilterError as error:  # its position is in a text that nobody wrote
        words = f"expected {', '.join(error.expected)}" if error.expected else error.message
        raise Problem("bad-request", f"{name} {value[:80]!r}: {words}") from error
