"""Who talks to whom: nodes, and the edges between them."""

from functools import partial

from flowvis.aggregator.api.asking import SELECTING
from flowvis.aggregator.api.paths.query import COMPARE
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import API, FROM, OBJECT, TO, Parameter, Route, whole
from flowvis.questions.graph import DEFAULT_LIMIT, MAX_LIMIT, GraphQuestion


def routes(questions: Questions) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/graph",
            partial(questions.ask, GraphQuestion.parse),
            "Who talks to whom: the largest edges, and what is left",
            parameters=(
                FROM,
                TO,
                Parameter("source", "Names that sources are grouped by; src.workload by default"),
                Parameter("target", "Names that targets are grouped by; dst.workload by default"),
                Parameter(
                    "limit",
                    f"Edges: {DEFAULT_LIMIT} if not given, at most {MAX_LIMIT}",
                    whole(1, MAX_LIMIT),
                ),
                COMPARE,
                *SELECTING,
            ),
            answer=OBJECT,
        )
    ]
