"""Asks a store what a plan asks, as the API does."""

from collections.abc import Mapping
from typing import Any, TypeVar

from flowvis.clickhouse.statement import COMPOSED_LENGTH, bind
from flowvis.clickhouse.store import Store
from flowvis.filters import parse
from flowvis.filters.sql import condition
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.pages import PageQuestion
from flowvis.questions.statement import COMPOSED_ROWS, Found, Plan
from flowvis.questions.table import TableQuestion

T = TypeVar("T")
NOW_MS = 1_790_003_600_000


def carry_out(store: Store, plan: Plan[T]) -> T:
    """Return what a plan makes of a store's answers."""
    try:
        statement = next(plan)
        while True:
            sql = bind(statement.text, statement.parameters)
            result = store.ask(sql, max_rows=COMPOSED_ROWS, max_length=COMPOSED_LENGTH).result()
            assert not result.truncated
            statement = plan.send(Found(result.rows, result.types))
    except StopIteration as done:
        value: T = done.value
        return value


def ask(
    store: Store,
    kind: type[TableQuestion] | type[GraphQuestion] | type[PageQuestion],
    text: str = "",
    **parameters: str,
) -> dict[str, Any]:
    """Ask about what a filter chooses; `since` stands for from."""
    given: Mapping[str, str] = {
        "from" if name == "since" else name: value for name, value in parameters.items()
    }
    question = kind.parse({"from": "-1h", **given}, condition(parse(text)), NOW_MS)
    return carry_out(store, question.plan())
