"""What records add up to: totals, groups and what is left of them, series, and a comparison."""

from functools import partial

from flowvis.aggregator.api.asking import SELECTING
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import API, FROM, OBJECT, TO, Parameter, Route, whole
from flowvis.questions.measures import BY_NAME
from flowvis.questions.table import DEFAULT_LIMIT, MAX_LIMIT, TableQuestion

COMPARE = Parameter("compare", "With what: previous, or how much earlier, as -1d")


def routes(questions: Questions) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/query",
            partial(questions.ask, TableQuestion.parse),
            "What records add up to, in groups and intervals",
            parameters=(
                FROM,
                TO,
                Parameter("by", "Names to group by, with commas between; all together by default"),
                Parameter(
                    "measure", f"What of: {', '.join(BY_NAME)}; the first one sorts, octets if none"
                ),
                Parameter(
                    "limit",
                    f"Groups: {DEFAULT_LIMIT} if not given, at most {MAX_LIMIT}",
                    whole(1, MAX_LIMIT),
                ),
                Parameter("interval", "Of series: none, auto, or a length as 60s, 5m"),
                COMPARE,
                *SELECTING,
            ),
            answer=OBJECT,
        )
    ]
