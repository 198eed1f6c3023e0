"""What can be asked: the names of the filter language, and what is counted."""

from typing import Any

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.routes import API, TEXT, Route, Schema
from flowvis.filters.attributes import Kind
from flowvis.filters.vocabulary import NAMES, SIDES, Name, listed
from flowvis.questions.measures import MEASURES

FIELDS: Schema = {
    "type": "object",
    "required": ["names", "measures"],
    "properties": {
        "names": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "kind": {"type": "string", "enum": [kind.value for kind in Kind]},
                    "help": TEXT,
                    "sides": {"type": "boolean"},
                    "values": {"type": ["array", "null"], "items": TEXT},
                    "operators": {"type": "array", "items": TEXT},
                    "dimension": {"type": "boolean"},
                    "column": {"type": "boolean"},
                },
            },
        },
        "measures": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": TEXT, "unit": TEXT, "help": TEXT}},
        },
    },
}


def routes() -> list[Route]:
    """Return the routes."""

    async def answer(_: Caller, __: web.Request) -> web.Response:
        measures = [{"name": m.name, "unit": m.unit, "help": m.help} for m in MEASURES]
        return answers.document({"names": list(map(_about, listed())), "measures": measures})

    return [
        Route(
            "GET",
            f"{API}/fields",
            answer,
            "The names of the filter language, and what can be measured",
            answer=FIELDS,
        )
    ]


def _about(name: Name) -> dict[str, Any]:
    of_source = NAMES.get(f"{next(iter(SIDES))}.{name.name}", name)
    return {
        "name": name.name,
        "kind": name.kind.value,
        "help": name.help,
        "sides": name.sided,
        "values": list(name.known) or None,
        "operators": [operator.value for operator in name.operators],
        "dimension": of_source.expression is not None or name.label,
        "column": name.column,
    }
