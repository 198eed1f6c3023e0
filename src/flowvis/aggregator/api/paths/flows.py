"""Records of the past, newest first, page by page."""

from functools import partial

from flowvis.aggregator.api.asking import SELECTING
from flowvis.aggregator.api.questions import Questions
from flowvis.aggregator.api.routes import API, FROM, OBJECT, TO, Parameter, Route, whole
from flowvis.questions.pages import DEFAULT_LIMIT, MAX_LIMIT, PageQuestion


def routes(questions: Questions) -> list[Route]:
    """Return the routes."""
    return [
        Route(
            "GET",
            f"{API}/flows",
            partial(questions.ask, PageQuestion.parse),
            "Flow records of the store, newest first",
            parameters=(
                FROM,
                TO,
                Parameter("columns", "Columns of `flows` with commas between; * (all) by default"),
                Parameter(
                    "limit",
                    f"Records, {DEFAULT_LIMIT} by default, {MAX_LIMIT} at most",
                    whole(1, MAX_LIMIT),
                ),
                Parameter("cursor", "Where the page before ended: its `cursor`; the range is its"),
                *SELECTING,
            ),
            answer=OBJECT,
        )
    ]
