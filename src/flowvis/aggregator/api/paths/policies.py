"""Policies: what each of their rules let through or stopped, and what none decided over."""

from collections.abc import Mapping

from aiohttp import web

from flowvis.aggregator.api.asking import SELECTING
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import API, FROM, OBJECT, TO, Parameter, Route, whole
from flowvis.filters.sql import Condition
from flowvis.policies import Policies
from flowvis.questions.planner import Stored
from flowvis.questions.policies import DEFAULT_LIMIT, MAX_LIMIT, PoliciesQuestion, with_policies


def routes(questions: Questions, policies: Policies) -> list[Route]:
    """Return the routes."""

    async def answer(caller: Caller, request: web.Request) -> web.Response:
        def parse(
            parameters: Mapping[str, str], condition: Condition, now_ms: int, stored: Stored
        ) -> PoliciesQuestion:
            there = policies.as_of(now_ms)
            # Policies of the cluster are for those who see all of it; records may name them still.
            seen = [one for one in there.policies if caller.visibility.sees(one.namespace)]
            known, since = with_policies(there, seen), policies.since()
            return PoliciesQuestion.parse(
                parameters, condition, now_ms, known, since, stored=stored
            )

        # Another cluster has policies of its own, also by the same names.
        return await questions.ask(parse, caller, request, own=True)

    return [
        Route(
            "GET",
            f"{API}/policies",
            answer,
            "What each policy and rule let through or stopped, which are unused, and what no "
            "policy decided over",
            parameters=(
                FROM,
                TO,
                Parameter(
                    "limit",
                    f"Policies, {DEFAULT_LIMIT} by default, {MAX_LIMIT} at most",
                    whole(1, MAX_LIMIT),
                ),
                *SELECTING,
            ),
            answer=OBJECT,
        )
    ]
