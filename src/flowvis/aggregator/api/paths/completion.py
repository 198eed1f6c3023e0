"""What the text of a filter may go on with."""

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import of_filter
from flowvis.aggregator.api.routes import API, TEXT, WHOLE, Parameter, Route, Schema, number
from flowvis.aggregator.api.values import KnownValues

COMPLETION: Schema = {
    "type": "object",
    "required": ["from", "to", "options", "error"],
    "properties": {
        "from": WHOLE,
        "to": WHOLE,
        "options": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": TEXT,
                    "kind": {"type": "string", "enum": ["name", "operator", "value", "word"]},
                    "help": TEXT,
                    "count": {"type": ["integer", "null"]},
                },
            },
        },
        "error": {"type": ["object", "null"]},
    },
}


def routes(known: KnownValues) -> list[Route]:
    """Return the routes."""

    async def answer(caller: Caller, request: web.Request) -> web.Response:
        text = request.query.get("text", "")
        position = number(request, "position", len(text))
        found = await known.complete(text, position, caller)
        options = [
            {"text": each.text, "kind": each.kind, "help": each.help, "count": each.count}
            for each in found.options
        ]
        error = None if found.error is None else of_filter(found.error).document()["error"]
        return answers.document(
            {"from": found.start, "to": found.end, "options": options, "error": error}
        )

    return [
        Route(
            "GET",
            f"{API}/complete",
            answer,
            "Names, operators and values that may stand at a place of a filter's text",
            parameters=(
                Parameter("text", "The filter so far; empty by default"),
                Parameter("position", "Where the cursor is, in characters; at the end", WHOLE),
            ),
            answer=COMPLETION,
        )
    ]
