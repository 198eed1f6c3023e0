"""Asks the store for whoever sent a question, and says what the answer is worth."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from flowvis.aggregator.api import answers
from flowvis.aggregator.api.asking import asked
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.choosing import conditioned
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answered, Answers
from flowvis.aggregator.api.visibility import of_cluster
from flowvis.clickhouse.query import Query
from flowvis.clickhouse.schema.tables import FLOWS, TABLE
from flowvis.filters.clusters import named_clusters
from flowvis.filters.sql import Condition
from flowvis.questions.completeness import completeness
from flowvis.questions.kept_books import Uncommitted
from flowvis.questions.missing import Completeness
from flowvis.questions.planner import RECORDS_ONLY, Reading, Stored
from flowvis.questions.problem import QuestionError
from flowvis.questions.statement import Plan, Records
from flowvis.questions.times import TimeRange, apart


class Question(Protocol):
    """A kind of question."""

    @property
    def records(self) -> Records:
        """Which records it is about."""

    @property
    def compared(self) -> TimeRange | None:
        """The range that theirs is compared with, if it is."""

    def plan(self) -> Plan[dict[str, Any]]:
        """Return the plan of its answer."""


Parse = Callable[[Mapping[str, str], Condition, int, Stored], Question]
"""Reads a question: parameters, which records, the time, and what the store has; QuestionError says
what is wrong."""


@dataclass(frozen=True)
class Questions:
    """Answers questions of any kind."""

    answers: Answers
    prepare: Callable[[str], Query]
    """Prepares a statement of ours; runs in a thread."""
    now_ms: Callable[[], int]
    uncommitted: Callable[[], Uncommitted]
    """What is not in the store's books yet; on the event loop."""
    stored: Callable[[], Stored] = lambda: RECORDS_ONLY
    """What the store has; on the event loop."""
    cluster: Callable[[], str] = lambda: ""
    """The id of our own cluster; "" while that is not known."""

    async def ask(
        self, parse: Parse, caller: Caller, request: web.Request, *, own: bool = False
    ) -> web.Response:
        """Answer a request; see `found`."""
        return await answers.large(await self.found(parse, caller, request, own=own))

    async def found(
        self, parse: Parse, caller: Caller, request: web.Request, *, own: bool = False
    ) -> dict[str, Any]:
        """Return the answer of a request; `own`: of no records but those of our own cluster."""
        wanted = await asked(caller, request)
        if own:
            wanted = of_cluster(wanted, self.cluster())
        wanted = caller.visibility.of_store(wanted)
        chosen = await conditioned(wanted)
        try:
            question = parse(request.query, chosen, self.now_ms(), self.stored())
            span = question.records.range
            spans = [span] if question.compared is None else [span, question.compared]
            plan = _with_books(
                question.plan(), apart(spans), self.uncommitted(), named_clusters(wanted)
            )
            answered = await self.answers.answer(plan, self.prepare, caller.name)
        except QuestionError as error:  # some only show when the store has answered
            suggestion = error.suggestion or None
            raise Problem(error.code, str(error), suggestion=suggestion) from error
        found, tables, books = answered.value
        return found | {"answer": _answer(caller, span, answered, tables, books)}


def _with_books(
    plan: Plan[dict[str, Any]],
    spans: Sequence[TimeRange],
    uncommitted: Uncommitted,
    clusters: AbstractSet[str] | None,
) -> Plan[tuple[dict[str, Any], list[str], Completeness]]:
    """Return a plan of the same, of which tables were read for it, and of what is missing."""
    readings: list[Reading] = []
    try:
        statement = next(plan)
        while True:
            readings.append(statement.reading)
            statement = plan.send((yield statement))
    except StopIteration as done:
        found = done.value
    finally:
        plan.close()
    first, *others = spans
    books = yield from completeness(first, uncommitted, readings, clusters)
    for span in others:
        books = books.with_more((yield from completeness(span, uncommitted, (), clusters)))
    tables = dict.fromkeys(table for reading in readings for table in reading.tables)
    return found, list(tables), books


def _answer(
    caller: Caller,
    span: TimeRange,
    answered: Answered[Any],
    tables: Sequence[str],
    books: Completeness,
) -> dict[str, Any]:
    """Say what was asked, what it cost, and whether it is all there is."""
    visible = books if caller.visibility.all else books.without_nodes()
    return {
        "from": span.from_ms,
        "to": span.to_ms,
        "table": ", ".join(FLOWS if table == TABLE else table for table in sorted(tables)) or FLOWS,
        "rowsRead": answered.cost.rows,
        "bytesRead": answered.cost.octets,
        "seconds": round(answered.seconds, 4),
        **visible.as_dict(),
    }
