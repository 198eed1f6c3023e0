"""One query of the embedded engine, in a session of its own: its rows as JSON, within limits."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from flowvis.clickhouse.embedded_engine import READER
from flowvis.clickhouse.query import Cost, Piece, Query, QueryLimits
from flowvis.clickhouse.statement import streamable

_FORMAT = "JSONCompactEachRowWithNamesAndTypes"
_ANSWERS: dict[str, int | str] = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_validate_utf8": 1,
}

Sessions = Callable[..., AbstractContextManager[Any]]
"""Gives a session of its own that has executed some statements."""


class EmbeddedQuery(Query):
    """A query in a session that has only the rights of a reader."""

    def __init__(
        self, session: Sessions, statement: str, limits: QueryLimits, max_rows: int
    ) -> None:
        super().__init__(statement, limits, max_rows)
        self._session = session
        self._mark = f"flowvis-{secrets.token_hex(8)}"
        """By which the engine knows it."""

    def _found(self) -> Iterator[Piece]:
        options = self.limits.options(self.max_rows) | _ANSWERS | {"log_comment": self._mark}
        settings = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        with self._session(f"SET ROLE {READER}", f"SET {settings}", "SET readonly = 1") as session:
            if not streamable(self.statement):  # EXPLAIN, SHOW: short
                yield self._body(session.query(self.statement, _FORMAT).bytes())
                return
            with session.send_query(self.statement, _FORMAT) as stream:
                first = stream.fetch()
                if first is None:  # the engine's stream has no heading without rows
                    self._describe(session)
                    yield ()
                    return
                part = first
                while part is not None:
                    self.cost = Cost(part.storage_rows_read(), part.storage_bytes_read())
                    yield self._body(part.bytes())
                    part = stream.fetch()

    def _cancel(self) -> None:
        with self._session() as session:
            session.query(f"KILL QUERY WHERE Settings['log_comment'] = '{self._mark}' ASYNC")

    def _body(self, answer: bytes) -> Piece:
        """Take the heading off a part of the answer, each of which has one."""
        if not answer:  # of what has no columns
            return ()
        names, types, *rows = answer.split(b"\n")[:-1]
        self.names, self.types = json.loads(names), json.loads(types)
        return rows

    def _describe(self, session: Any) -> None:
        answer = session.query(f"DESCRIBE ({self.statement})", "JSONCompactEachRow").bytes()
        columns = [json.loads(line) for line in answer.split(b"\n")[:-1]]
        self.names = [name for name, *_ in columns]
        self.types = [kind for _, kind, *_ in columns]
