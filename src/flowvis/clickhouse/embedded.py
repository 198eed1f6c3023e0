"""ClickHouse inside this process (chdb): no server to run, one directory of data.

Only one process can have the directory open.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowvis.batch import Batch
from flowvis.clickhouse.embedded_engine import Engine, engine_errors
from flowvis.clickhouse.embedded_query import EmbeddedQuery
from flowvis.clickhouse.query import Query, Result
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.books import Page, arrived, encode_page
from flowvis.clickhouse.schema.checkpoints import Answer, Wanted, answer, question, room_for
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId, encode, rows_of
from flowvis.clickhouse.schema.features import Features, probe
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.native_block import Block, frames, number_blocks
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.schema.whole_days import alike_sql
from flowvis.clickhouse.statement import MAX_LENGTH, readable
from flowvis.clickhouse.store import MAX_ROWS, StoreSettings
from flowvis.clickhouse.stored_partitions import NO_ROOM, StoredPartitions
from flowvis.clickhouse.tokens import Tokens
from flowvis.errors import StoreError

LAST_ERRORS, RECENT_S = 3, 60
CANCELLED = (236, 394)  # ABORTED, QUERY_WAS_CANCELLED: never why a batch was not stored


class EmbeddedStore:
    """A store in a directory; see `Store` for the methods."""

    def __init__(self, settings: StoreSettings, path: Path) -> None:
        # While chdb is imported the process has another working directory, so it is imported here:
        # before there are threads that open files.
        self._engine = Engine(path)
        self._settings = settings
        self._path = path
        self.name = f"{path}/{settings.database}"
        self._lock = threading.Lock()
        self._session: Any = None
        self._tokens = Tokens()
        self._features: Features | None = None
        self.settled: dict[str, int] = {}
        self.rollups: RollupTables | None = None
        self.ttls: Mapping[str, int] = {}
        self.begins: dict[str, int] = {}
        self.lost: Sequence[Lost] = ()
        self.partitions: StoredPartitions | None = None

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has."""
        return self._settings.kept.as_told(self.ttls).shortened(self.begins, int(time.time()))

    def migrate(self) -> list[str]:
        """Create or upgrade the schema; return what had to be left out for this engine."""
        features = self._probe()
        kept = self._settings.kept
        layout = TableLayout(self._settings.database)
        undone = Migration(self._execute, layout, features, kept).run()
        self.rollups = RollupTables(
            self._execute_beside, layout, alone=True, options=features.roll_options,
            late_projections=features.merges_projections,
        )  # fmt: skip
        self.partitions = StoredPartitions(self._execute_beside, layout, features)
        self.ttls = self.partitions.ttls()
        self.begins = self.partitions.begins()
        self.lost = self.partitions.lost()
        return [*features.left_out(kept.records_s), *undone]

    def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
        """Store a batch in one INSERT; see `Store.insert`."""
        self._probe()
        rows = rows_of(batch, batch_id)
        self._insert(schema.TABLE, encode(batch, batch_id), batch_id, rows, again=again)

    def keep(self, page: Page, *, again: bool = False) -> None:
        """Store a page of the books; see `Store.keep`."""
        self._probe()
        rows = arrived(page.batch_id)
        self._insert(schema.BOOKS, encode_page(page), page.batch_id, rows, again=again)

    def _insert(
        self, table: str, block: Block, batch_id: BatchId, rows: str, *, again: bool
    ) -> None:
        """Insert a block; `rows` is the condition of what it has.

        What the engine cannot store at the end, for lack of room above all, it does not tell. So
        there has to be a new block in the table, or the rows from an attempt before.
        """
        if again and self._is_there(table, rows):
            return
        last = self._last_block(table)
        names = ", ".join(column.name for column in block.columns)
        token = literal(self._tokens.of(batch_id))
        sql = (
            f"INSERT INTO {self._settings.database}.{table} ({names}) SETTINGS"
            f" async_insert = 0, insert_deduplication_token = {token}"
        )
        with (
            self._lock,
            engine_errors(self.name),
            self._connected().send_insert(sql, "Native") as inserter,
        ):
            for piece in frames(block.parts()):
                inserter.append(piece)
            inserter.finish()
        if self._last_block(table) == last and not self._is_there(table, rows):
            self._tokens.spend(batch_id)
            code, reasons = self._last_errors()
            text = f"{self.name}: {batch_id} was not stored: {reasons}"
            raise StoreError(text, retryable=True, code=code)
        self._tokens.forget(batch_id)

    def _is_there(self, table: str, rows: str) -> bool:
        there = f"SELECT count() FROM {self._settings.database}.{table} WHERE {rows}"
        return int(self._execute(there)[0][0]) > 0

    def _last_block(self, table: str) -> int:
        """Return the number of the youngest block of a table, merged or not."""
        rows = self._execute(
            "SELECT max(max_block_number) FROM system.parts WHERE"
            f" database = '{self._settings.database}' AND table = '{table}'"
        )
        return int(rows[0][0])

    def _last_errors(self) -> tuple[int, str]:
        """Return what the engine failed in just now, and the code of no room if that is there.

        It may be a query's failure; so nothing else is decided by it.
        """
        rows = self._execute(
            "SELECT code, last_error_message FROM system.errors"
            f" WHERE code NOT IN {CANCELLED} AND last_error_time > now() - {RECENT_S}"
            f" ORDER BY last_error_time DESC LIMIT {LAST_ERRORS}"
        )
        reasons = "; ".join(str(text) for _, text in rows)
        code = next((int(code) for code, _ in rows if int(code) in NO_ROOM), 0)
        return code, reasons or "the engine does not say why"

    def checkpoints(self, wanted: Wanted) -> Answer:
        """Return the last record of each connection; see `Store.checkpoints`.

        Nobody else inserts: the directory is open in this process alone.
        """
        sql = question(TableLayout(self._settings.database), wanted)
        options = ", ".join(f"{name} = {value}" for name, value in room_for(sql).items())
        with self.session(f"SET {options}") as session:
            found = session.query(sql, "Native").bytes()
        return answer(wanted, number_blocks(found))

    def ask(self, sql: str, *, max_rows: int = MAX_ROWS, max_length: int = MAX_LENGTH) -> Query:
        """Prepare one statement; see `Store.ask`."""
        statement = readable(sql, max_length)
        return EmbeddedQuery(self.session, statement, self._settings.queries.limits, max_rows)

    def query(self, sql: str, *, max_rows: int = MAX_ROWS) -> Result:
        """Run one statement that only reads."""
        return self.ask(sql, max_rows=max_rows).result()

    @contextmanager
    def session(self, *statements: str) -> Iterator[Any]:
        """Give a session of its own that has executed these; what the engine raises is StoreError.

        The database is the one that records are in.
        """
        session = self._engine.open()
        try:
            with engine_errors(self.name):
                for statement in (f"USE {self._settings.database}", *statements):
                    session.query(statement)
                yield session
        finally:
            session.close()

    def optimize(self) -> None:
        """Merge all parts of each partition into one, as the engine does by and by."""
        database = self._settings.database
        if self._probe().projections:  # merged is what has the same
            self._execute(f"{alike_sql(TableLayout(database))} SETTINGS mutations_sync = 1")
        for table in (schema.TABLE, *(rollup.name for rollup in ROLLUPS)):
            self._execute(f"OPTIMIZE TABLE {database}.{table} FINAL")

    def close(self) -> None:
        """Close the directory, so that another process may open it."""
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                session.close()

    def _probe(self) -> Features:
        if self._features is None:
            self._features = probe(self._execute)
        return self._features

    def _execute(self, sql: str) -> list[tuple[Any, ...]]:
        with self._lock, engine_errors(self.name):
            answer = self._connected().query(sql, "JSONCompact").bytes()
        return [tuple(row) for row in json.loads(answer)["data"]] if answer else []

    def _execute_beside(self, sql: str, options: Mapping[str, int | str]) -> list[tuple[Any, ...]]:
        """Execute in a session of its own, beside what is inserted."""
        settings = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        with self.session() as session:
            given = f"{sql} SETTINGS {settings}" if settings else sql
            answer = session.query(given, "JSONCompact").bytes()
        return [tuple(row) for row in json.loads(answer)["data"]] if answer else []

    def _connected(self) -> Any:
        if self._session is None:
            self._session = self._engine.open()
        return self._session
