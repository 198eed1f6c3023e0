"""Why a connection is, or would be, allowed or denied."""

from collections.abc import Callable

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import API, OBJECT, Parameter, Route
from flowvis.aggregator.explanations import (
    Asked,
    Explanations,
    NotVisible,
    Place,
    UnknownEnd,
    parse_protocol,
)
from flowvis.policies.explanation.document import Sees
from flowvis.questions.times import parse_moment

PARAMETERS = (
    Parameter("source", "Who connects: namespace/name of a Pod, or an address", required=True),
    Parameter(
        "destination",
        "Who is called: namespace/name of a Pod or a Service, or an address; with :port or not",
        required=True,
    ),
    Parameter("port", "The port that is called, by number or by the name that the Pod gives it"),
    Parameter("protocol", "tcp (by default), udp, sctp, icmp, icmpv6 or a number"),
    Parameter("at", "When: epoch ms, ISO 8601 or relative (-15m); now by default"),
)


def routes(explanations: Explanations, now_ms: Callable[[], int]) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/explain",
            _Explain(explanations, now_ms).answer,
            "Why policies allow or deny a connection: the rules on its way, at both ends",
            parameters=PARAMETERS,
            answer=OBJECT,
        )
    ]


class _Explain:
    def __init__(self, explanations: Explanations, now_ms: Callable[[], int]) -> None:
        self._explanations, self._now_ms = explanations, now_ms

    async def answer(self, caller: Caller, request: web.Request) -> web.Response:
        now_ms, query = self._now_ms(), request.query
        at = query.get("at", "")
        asked = Asked(
            Place.parse("source", query["source"]),
            Place.parse("destination", query["destination"]),
            parse_protocol(query.get("protocol", "")),
            query.get("port", ""),
            parse_moment("at", at, now_ms) if at not in {"", "now"} else None,
        )
        try:
            found = await self._explanations.answer(asked, now_ms, seen_by(caller))
        except UnknownEnd as error:
            raise Problem("not-found", str(error)) from error
        except NotVisible as error:
            raise Problem("forbidden", str(error)) from error
        return answers.document(found)


def seen_by(caller: Caller) -> Sees:
    """Return which namespaces somebody may see; what is in none, an address, is everybody's."""
    namespaces = caller.visibility.namespaces
    return lambda namespace: namespaces is None or not namespace or namespace in namespaces
