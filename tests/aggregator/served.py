"""The API on a control socket, over views that a test can change."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from flowvis.aggregator.api.application import Application, LocalDoor
from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.listeners import ControlSocket
from flowvis.aggregator.api.paths import flows, latest, live, sql, stream
from flowvis.aggregator.api.paths import status as status_path
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.questions import Questions
from flowvis.batch import Batch
from flowvis.cli.client import ControlClient
from flowvis.clickhouse.query import Piece, Query, QueryLimits
from flowvis.errors import StoreError
from flowvis.questions.kept_books import Uncommitted
from flowvis.runtime.clock import now_ms

from .records import records

LIVE = records({"sourceIP": "10.0.0.1"}, {"sourceIP": "10.0.0.2"})


ROWS: list[list[Any]] = [[1, "a", "2026-01-02 00:00:00"], [2**64 - 1, "b", None]]


class Answered(Query):
    """A query with the answer ROWS; one of "broken" fails, at once or after the first rows.

    Of "away" nobody answers.
    """

    def _found(self) -> Iterator[Piece]:
        if self.statement.startswith("SELECT broken"):
            raise StoreError("no such table: broken", retryable=False)
        if self.statement.startswith("SELECT away"):
            raise StoreError("db:9000: Connection refused", retryable=True)
        self.names, self.types = ["n", "s", "t"], ["UInt64", "String", "DateTime"]
        yield [json.dumps(row).encode() for row in ROWS]
        if "broken" in self.statement:
            raise StoreError("broke off", retryable=False)

    def _cancel(self) -> None:
        pass


def query(sql: str, max_rows: int) -> Query:
    return Answered(sql, QueryLimits(), max_rows)


@contextlib.asynccontextmanager
async def served(
    path: Path,
    *,
    query: Callable[[str, int], Query] = query,
    answers: Answers | None = None,
    status: Callable[[], dict[str, Any]] = lambda: {"version": "1"},
    open_flows: Batch = LIVE,
) -> AsyncIterator[tuple[ControlSocket, LatestRecords, ControlClient]]:
    history = LatestRecords(10)
    running = answers or Answers(lambda: 2)

    async def end() -> None:
        history.close()
        await running.close()

    def storeless(_: str) -> Query:
        raise Problem("no-store", "no store is configured")

    questions = Questions(running, storeless, now_ms, lambda: Uncommitted(0, 0, ()))
    routes = [
        *stream.routes(history),
        *flows.routes(questions),
        *status_path.routes(status, lambda: {"balanced": True, "stages": []}),
        *latest.routes(history),
        *live.routes(lambda: iter([open_flows])),
        *sql.routes(query, running),
    ]
    api = ControlSocket(path / "control.sock", Application(routes, LocalDoor()), end)
    await api.start()
    try:
        yield api, history, ControlClient(api.path)
    finally:
        await api.stop()
