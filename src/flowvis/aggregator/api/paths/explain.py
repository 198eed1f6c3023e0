"""Why a connection is, or would be, allowed or denied."""

from collections.abc import Callable, Mapping

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import API, FILTER, FROM, OBJECT, TO, Parameter, Route
from flowvis.aggregator.explanations import (
    Asked,
    Explanations,
    NotVisible,
    Place,
    UnknownEnd,
    parse_protocol,
)
from flowvis.filters.sql import Condition
from flowvis.policies.explanation.document import Sees, everything
from flowvis.questions.pages import PageQuestion
from flowvis.questions.planner import Stored
from flowvis.questions.problem import QuestionError
from flowvis.questions.times import parse_moment

SOURCE, DESTINATION = "source", "destination"
ASKED = (
    Parameter(SOURCE, "Who connects: namespace/name of a Pod, or an address"),
    Parameter(
        DESTINATION,
        "Who is called: namespace/name of a Pod or a Service, or an address; with :port or not",
    ),
    Parameter("port", "The port that is called, by number or by the name that the Pod gives it"),
    Parameter("protocol", "tcp (by default), udp, sctp, icmp, icmpv6 or a number"),
    Parameter("at", "When: epoch ms, ISO 8601 or relative (-15m); now by default"),
)
STORED = (FILTER, FROM, TO)
"""In place of those: the newest record that matches."""


def routes(
    explanations: Explanations, questions: Questions, now_ms: Callable[[], int]
) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/explain",
            _Explain(explanations, questions, now_ms).answer,
            "Why policies allow or deny a connection: the rules on its way, at both ends; of one "
            "that is named, or of the newest stored record that a filter chooses",
            parameters=(*ASKED, *STORED),
            answer=OBJECT,
        )
    ]


class _Explain:
    def __init__(
        self, explanations: Explanations, questions: Questions, now_ms: Callable[[], int]
    ) -> None:
        self._explanations, self._questions, self._now_ms = explanations, questions, now_ms

    async def answer(self, caller: Caller, request: web.Request) -> web.Response:
        _check(request.query)
        if SOURCE in request.query:
            asked = _named(request.query, self._now_ms())
        else:
            asked = await self._stored(caller, request)
        try:
            found = await self._explanations.answer(asked, self._now_ms(), seen_by(caller))
        except UnknownEnd as error:
            raise Problem("not-found", str(error)) from error
        except NotVisible as error:
            raise Problem("forbidden", str(error)) from error
        return answers.document(found)

    async def _stored(self, caller: Caller, request: web.Request) -> Asked:
        """Find the newest record that is asked for, of the cluster whose policies we know."""

        def parse(
            parameters: Mapping[str, str], condition: Condition, now_ms: int, stored: Stored
        ) -> PageQuestion:
            return PageQuestion.parse({**parameters, "limit": "1"}, condition, now_ms, stored)

        page = await self._questions.found(parse, caller, request, own=True)
        if not page["rows"]:
            raise Problem(
                "not-found",
                "no record of this range matches: take a longer one (from, to; flowctl: --since)",
            )
        names = (column["name"] for column in page["columns"])
        return Asked.of(dict(zip(names, page["rows"][0], strict=True)))


def _check(query: Mapping[str, str]) -> None:
    """Refuse what is neither one way of naming a connection nor the other."""
    named = [one.name for one in ASKED if one.name in query]
    stored = [one.name for one in STORED if one.name in query]
    if named and stored:
        raise Problem(
            "bad-request",
            f"{stored[0]} and {named[0]}: either a connection that is named ({SOURCE}, "
            f"{DESTINATION}), or a record (filter, from, to)",
        )
    if not stored and (SOURCE not in query or DESTINATION not in query):
        raise Problem(
            "bad-request", f"name a connection by {SOURCE} and {DESTINATION}, or a record by filter"
        )


def _named(query: Mapping[str, str], now_ms: int) -> Asked:
    at = query.get("at", "")
    try:
        at_ms = parse_moment("at", at, now_ms) if at not in {"", "now"} else None
    except QuestionError as error:
        raise Problem(error.code, str(error)) from error
    return Asked(
        Place.parse(SOURCE, query[SOURCE]),
        Place.parse(DESTINATION, query[DESTINATION]),
        parse_protocol(query.get("protocol", "")),
        query.get("port", ""),
        at_ms,
    )


def seen_by(caller: Caller) -> Sees:
    """Return which namespaces somebody may see; what is in none, an address, is everybody's."""
    visibility = caller.visibility
    if visibility.all:
        return everything
    return lambda namespace: not namespace or visibility.sees(namespace)
