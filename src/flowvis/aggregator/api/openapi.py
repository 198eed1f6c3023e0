"""The API's document (OpenAPI 3.1), made of the routes that are served."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from flowvis.aggregator.api.problems import STATUS
from flowvis.aggregator.api.routes import Needs, Parameter, Route

_NO_CONTENT = 204
_VARIABLE = re.compile(r"\{(\w+)(?::[^{}]*)?\}")

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "enum": sorted(STATUS)},
                "message": {"type": "string", "description": "A sentence for people"},
                "position": {
                    "type": "integer",
                    "description": "Where in the filter, in characters from 0",
                },
                "length": {"type": "integer", "description": "Of what is meant there"},
                "expected": {"type": "array", "items": {"type": "string"}},
                "suggestion": {"type": "string", "description": "What may have been meant"},
            },
        }
    },
}

DESCRIPTION = """\
Network flows of a cluster. Who may list the Pods of a namespace sees the flows with an end in it;
who may list those of all namespaces sees everything. Addresses are text, times are milliseconds
since 1970; but seconds in records as they come (`/flows`, `/api/v1/live`, `/api/v1/stream`), where
the name says so.
"""


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document; routes that take any parameters (files of the console) are left out."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.parameters is None:
            continue
        for path in (route.path, *route.also):
            operations = paths.setdefault(_VARIABLE.sub(r"{\1}", path), {})
            operations[route.method.lower()] = _operation(route, path, old=path != route.path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "flowvis", "version": version("flowvis"), "description": DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Of a user or ServiceAccount of the cluster, or from tokenFile",
                }
            },
        },
    }


def documentation(routes: Iterable[Route]) -> str:
    """Return the paths as a Markdown table."""
    lines = ["| Path | Parameters | Answer |", "|---|---|---|"]
    for route in sorted(routes, key=lambda route: (route.path, route.method)):
        if route.parameters is None:
            continue
        names = ", ".join(f"`{each.name}`" for each in route.parameters if not each.old)
        also = f"; also `{', '.join(route.also)}`" if route.also else ""
        who = _WHO[route.needs]
        lines.append(f"| {route.method} `{route.path}` | {names} | {route.help}{also}{who} |")
    return "\n".join(lines) + "\n"


_WHO = {
    Needs.NOTHING: ". Needs no token",
    Needs.CALLER: "",
    Needs.EVERYTHING: ". For who sees all namespaces",
}


def _operation(route: Route, path: str, *, old: bool) -> dict[str, Any]:
    variables = [Parameter(name, "", required=True) for name in _VARIABLE.findall(path)]
    made: dict[str, Any] = {
        "operationId": _identity(route.method, path),
        "summary": route.help,
        "parameters": [
            *(_parameter(each, "path") for each in variables),
            *(_parameter(each, "query") for each in route.parameters or ()),
        ],
        "responses": {
            str(route.status): {"description": route.help, **_answer(route)},
            "default": {
                "description": "What is wrong",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
        "security": [] if route.needs is Needs.NOTHING else [{"token": []}],
    }
    if route.needs is Needs.EVERYTHING:
        made["description"] = "Only for those who may list the Pods of all namespaces."
    if route.body is not None:
        content = {"application/json": {"schema": route.body}}
        made["requestBody"] = {"required": True, "content": content}
    if old:
        made["deprecated"] = True
    return made


def _parameter(parameter: Parameter, where: str) -> dict[str, Any]:
    made = {
        "name": parameter.name,
        "in": where,
        "description": parameter.help,
        "required": parameter.required,
        "schema": parameter.schema,
    }
    return made | ({"deprecated": True} if parameter.old else {})


def _answer(route: Route) -> dict[str, Any]:
    if route.status == _NO_CONTENT:
        return {}
    return {"content": {route.kind: {} if route.answer is None else {"schema": route.answer}}}


def _identity(method: str, path: str) -> str:
    """Return a name for an operation, as generators of clients make functions of them."""
    words = re.findall(r"[A-Za-z0-9]+", _VARIABLE.sub(r"\1", path))
    return method.lower() + "".join(word.capitalize() for word in words)
