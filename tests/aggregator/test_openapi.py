"""The API's document is valid, and says what the API does."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flowvis.aggregator.api import openapi
from flowvis.aggregator.api.routes import Needs, Route
from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.settings import AggregatorSettings

from .opened import ADMIN, Opened, opened


@pytest.fixture(autouse=True)
def _log_level_stays() -> Iterator[None]:
    """/loglevel sets the process's own."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def every_route() -> list[Route]:
    """What a real aggregator serves."""
    return Aggregator(AggregatorSettings()).api.routes


def schemas(document: Any) -> Iterator[Any]:
    """Go through all schemas of a document, wherever they are."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "schema":
                yield value
            else:
                yield from schemas(value)
    elif isinstance(document, list):
        for value in document:
            yield from schemas(value)


def test_the_document_of_all_routes() -> None:
    document = openapi.document(every_route())
    assert document["openapi"] == "3.1.0"
    assert json.loads(json.dumps(document)) == document, "all of it is JSON"
    paths = document["paths"]
    for path in ("query", "graph", "flows", "stream", "complete", "fields", "me", "sql", "status"):
        assert f"/api/v1/{path}" in paths
    identities = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(set(identities)) == len(identities)
    for schema in [*schemas(paths), *document["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["summary"][0].isupper(), path
            names = [each["name"] for each in operation["parameters"]]
            assert len(set(names)) == len(names), path
            assert all(each["description"] for each in operation["parameters"]), path


def test_routes_say_who_may() -> None:
    document = openapi.document(every_route())
    opened_to_all = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if not operation["security"]
    }
    assert opened_to_all == {"/healthz", "/livez", "/readyz"}
    assert {route.path for route in every_route() if route.needs is Needs.NOTHING} == {
        "/healthz",
        "/livez",
        "/readyz",
        "/",
        "/assets/{name}",
        "/{name:[^/]+[.](?:svg|png|ico|webmanifest|txt)}",
    }


async def test_answers_are_as_described(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        status, document = await it.ask("/api/v1/openapi.json", ADMIN)
        assert status == 200
        asked = 0
        for path, operations in document["paths"].items():
            operation = operations.get("get")
            if operation is None or path == "/api/v1/stream":
                continue
            await check(it, document, path, {}, 200)
            asked += 1
        assert asked > 10
        await check(it, document, "/api/v1/sql", {}, 200, method="post", json={"query": "SELECT"})
        await check(it, document, "/api/v1/sql", {}, 400, method="post", json={"query": 1})


async def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(
    tmp_path: Path,
) -> None:
    """RFC 9110 15.5.6."""
    async with opened(tmp_path) as it:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        for path, method, allowed in (
            ("/flows", "POST", "GET"),
            ("/loglevel", "DELETE", "GET, PUT"),
            ("/api/v1/session", "GET", "DELETE, POST"),
        ):
            async with it.http.request(method, f"{it.url}{path}", headers=headers) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, allowed)
                problem = (await answer.json())["error"]
                assert problem == {
                    "code": "not-allowed",
                    "message": f"{method} {path}: use {allowed}",
                }


async def test_the_document_says_what_numbers_and_flags_there_are(tmp_path: Path) -> None:
    described = openapi.document(every_route())["paths"]
    limits = {
        path: parameter["schema"]
        for path, operations in described.items()
        for parameter in operations.get("get", {}).get("parameters", ())
        if parameter["name"] == "limit"
    }
    for path in ("query", "graph", "flows", "policies"):
        assert limits[f"/api/v1/{path}"]["minimum"] == 1
        assert limits[f"/api/v1/{path}"]["maximum"] >= 1000
    assert limits["/flows"] == {"type": "integer", "minimum": 0}
    async with opened(tmp_path) as it:
        served = (await it.ask("/api/v1/openapi.json", ADMIN))[1]["paths"]
        assert list(served["/api/v1/session"]["delete"]["responses"]) == ["204", "default"]
        headers = {"X-Flowvis": "1"}
        assert (await it.ask("/api/v1/session", method="DELETE", headers=headers))[0] == 204
        for text in ("no", "False", "2"):
            status, answer = await it.ask(f"/flows?follow={text}", ADMIN)
            assert (status, answer["error"]["message"]) == (400, f"follow '{text}': true or false")


async def check(
    it: Opened,
    document: dict[str, Any],
    path: str,
    query: dict[str, str],
    status: int | None = None,
    *,
    method: str = "get",
    **arguments: Any,
) -> None:
    """Ask, and compare the answer with the document."""
    described = document["paths"][path][method]["responses"]
    headers = {"Authorization": f"Bearer {ADMIN}"}
    url = f"{it.url}{path}"
    async with it.http.request(
        method.upper(), url, params=query, headers=headers, **arguments
    ) as answer:
        assert answer.status < 500, (path, query, await answer.text())
        assert status in {None, answer.status}, (path, query)
        content = described.get(str(answer.status), described["default"])["content"]
        assert answer.content_type in content, (path, query)
        schema = content[answer.content_type].get("schema")
        if schema == {"$ref": "#/components/schemas/Error"}:
            schema = document["components"]["schemas"]["Error"]
        if schema is None:
            return
        text = await answer.text()
        lines = [text] if answer.content_type == "application/json" else text.splitlines()
        for line in lines:
            Draft202012Validator(schema).validate(json.loads(line))


ODD = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        ["src.pod = ", "namespace = shop", "(", "'", "a or", "x ~ '('", "\x00", "..", "%00", "-1"]
    ),
)


@pytest.fixture
async def it(tmp_path: Path) -> Any:
    async with opened(tmp_path) as one:
        yield one


async def test_odd_parameters_are_answered(it: Opened) -> None:
    """Whatever stands in a parameter, the answer is one of the document's."""
    _, document = await it.ask("/api/v1/openapi.json", ADMIN)
    tried = [
        (path, [parameter["name"] for parameter in operations["get"]["parameters"]])
        for path, operations in document["paths"].items()
        if "get" in operations and operations["get"]["parameters"] and path != "/api/v1/stream"
    ]
    drawn: list[tuple[str, dict[str, str]]] = []

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        path, names = data.draw(st.sampled_from(tried))
        names = [name for name in names if name != "follow"]
        query = data.draw(st.dictionaries(st.sampled_from([*names, "odd"]), ODD, max_size=3))
        drawn.append((path, query))

    draw()
    for path, query in drawn:
        await check(it, document, path, query)
