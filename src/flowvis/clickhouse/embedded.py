"""ClickHouse inside this process (chdb): no server to run, one directory of data.

Only one process can have the directory open. The engine is large: it is loaded only where a store
is made.
"""

import json
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from flowvis.batch import Batch
from flowvis.clickhouse.query import Cost, Piece, Query, QueryLimits, Result
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.books import Page, arrived, encode_page
from flowvis.clickhouse.schema.checkpoints import Answer, Wanted, answer, question, room_for
from flowvis.clickhouse.schema.encode import BatchId, encode, rows_of
from flowvis.clickhouse.schema.features import Features, probe
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.native_block import Block, frames, number_blocks
from flowvis.clickhouse.schema.partitions import Lost
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.schema.whole_days import alike_sql
from flowvis.clickhouse.statement import MAX_LENGTH, SYSTEM_TABLES, readable, streamable
from flowvis.clickhouse.store import (
    MAX_ROWS,
    REJECTIONS,
    StoreSettings,
)
from flowvis.clickhouse.stored_partitions import NO_ROOM, StoredPartitions
from flowvis.clickhouse.tokens import Tokens
from flowvis.errors import SettingsError, StoreError

READER = "reader"
LAST_ERRORS, RECENT_S = 3, 60
CANCELLED = (236, 394)  # ABORTED, QUERY_WAS_CANCELLED: never why a batch was not stored
_FORMAT = "JSONCompactEachRowWithNamesAndTypes"
_ANSWERS: dict[str, int | str] = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_validate_utf8": 1,
}
CACHED_BYTES = {
    "mark_cache_size": 128 << 20,
    "index_mark_cache_size": 32 << 20,
    "primary_index_cache_size": 32 << 20,
}
"""What the engine remembers of its parts, at most: by itself up to 15 GB, whatever the limit of the
process. A day of 24 million records has marks of some megabytes."""
MERGED_AT_ONCE = {"min_insert_block_size_rows": 131_072, "min_insert_block_size_bytes": 32 << 20}
"""What a merge puts together of each projection before it sums it: by itself 256 MB, of a day of
24 million records 1.6 GB for all of them; now half of it, for two thirds more CPU of such a merge.
"""
_CONFIGURATION = """<clickhouse>
{caches}
<users_config>{path}</users_config>
<profiles><default>{merged}</default></profiles>
<quotas><default/></quotas>
<roles>
<owner><grants><query>GRANT ALL ON *.*</query></grants></owner>
<{reader}><grants><query>GRANT SELECT, SHOW TABLES, SHOW COLUMNS, SHOW DATABASES ON *.*</query>
<query>REVOKE SELECT ON system.*</query>{granted}</grants></{reader}>
</roles>
<users><default><no_password/><networks><ip>::/0</ip></networks><profile>default</profile>
<quota>default</quota><grants><query>GRANT owner, {reader}</query></grants></default></users>
</clickhouse>
"""
_LOCKED = "Cannot lock file"
_CODE = re.compile(r"Code: (\d+)")


class EmbeddedStore:
    """A store in a directory; see `Store` for the methods."""

    def __init__(self, settings: StoreSettings, path: Path) -> None:
        # While chdb is imported the process has another working directory, so it is imported here:
        # before there are threads that open files.
        self._engine = _engine(path)
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
            _errors(self.name),
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
        return _EmbeddedQuery(
            self, readable(sql, max_length), self._settings.queries.limits, max_rows
        )

    def query(self, sql: str, *, max_rows: int = MAX_ROWS) -> Result:
        """Run one statement that only reads."""
        return self.ask(sql, max_rows=max_rows).result()

    @contextmanager
    def session(self, *statements: str) -> Iterator[Any]:
        """Give a session of its own that has executed these; what the engine raises is StoreError.

        The database is the one that records are in.
        """
        session = self._open()
        try:
            with _errors(self.name):
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
        with self._lock, _errors(self.name):
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
            self._session = self._open()
        return self._session

    def _open(self) -> Any:
        """Open the directory; StoreError says when another process has it."""
        try:
            return self._engine(f"{self._path}?config-file={_configuration()}")
        except RuntimeError as error:
            if _LOCKED in str(error) or (self._path / "status").exists():
                raise StoreError(
                    f"{self._path} is open in another process: ask that one"
                    " (flowctl sql does), or stop it",
                    retryable=True,
                ) from error
            raise StoreError(f"{self._path}: {_reason(error)}", retryable=False) from error


class _EmbeddedQuery(Query):
    """A query in a session that has only the rights of a reader."""

    def __init__(
        self, store: EmbeddedStore, statement: str, limits: QueryLimits, max_rows: int
    ) -> None:
        super().__init__(statement, limits, max_rows)
        self._store = store
        self._mark = f"flowvis-{secrets.token_hex(8)}"
        """By which the engine knows it."""

    def _found(self) -> Iterator[Piece]:
        options = self.limits.options(self.max_rows) | _ANSWERS | {"log_comment": self._mark}
        settings = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        with self._store.session(
            f"SET ROLE {READER}", f"SET {settings}", "SET readonly = 1"
        ) as session:
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
        with self._store.session() as session:
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


@cache
def _configuration() -> str:
    """Return a file, in memory, that tells the engine who may do what, and how much it remembers.

    There is one user, with two roles: the owner of all, and a reader, who has no table function
    that reads files or the network, creates nothing, and sees of the engine's own tables only those
    that tell of the store.
    """
    granted = "".join(
        f"<query>GRANT SELECT ON system.{table}</query>" for table in sorted(SYSTEM_TABLES)
    )
    caches, merged = (
        "\n".join(f"<{name}>{size}</{name}>" for name, size in sizes.items())
        for sizes in (CACHED_BYTES, MERGED_AT_ONCE)
    )
    descriptor = os.memfd_create("configuration.xml")
    path = f"/proc/self/fd/{descriptor}"
    text = _CONFIGURATION.format(
        path=path, caches=caches, merged=merged, reader=READER, granted=granted
    )
    os.write(descriptor, text.encode())
    return path


def _engine(path: Path) -> Any:
    """Return chdb's session class; SettingsError where chdb is not installed or cannot begin."""
    with _scratch(path):
        try:
            from chdb.session import Session
        except ImportError as error:
            raise SettingsError(
                ["clickHouse.databaseURL: embedded:// needs chdb: pip install 'flowvis[embedded]'"]
            ) from error
        except RuntimeError as error:
            raise SettingsError(
                [f"clickHouse.databaseURL: the embedded engine: {_reason(error)}"]
            ) from error
    return Session


@contextmanager
def _scratch(path: Path) -> Iterator[None]:
    """Give the engine a temporary directory, which it writes to while it is imported.

    In a container /tmp is read-only, and the store's volume is what can be written. Where even that
    cannot, the engine could not begin: SettingsError.
    """
    volume = next(parent for parent in (path, *path.parents) if parent.is_dir())
    before = os.environ.get("TMPDIR")
    tried = [volume, *map(Path, filter(None, (before, "/tmp")))]  # noqa: S108  the engine's default
    made, refusals = None, []
    for directory in dict.fromkeys(tried):
        try:
            made = tempfile.TemporaryDirectory(
                prefix=".engine-", dir=directory, ignore_cleanup_errors=True
            )
            break
        except OSError as error:
            refusals.append(f"{directory} ({error.strerror})")
    if made is None:
        nowhere = f"embedded://{path}: the engine has nowhere to write: not {', '.join(refusals)}"
        raise SettingsError([f"clickHouse.databaseURL: {nowhere}; mount a volume at {path}"])
    with made as name:
        os.environ["TMPDIR"] = name
        try:
            yield
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before


def _reason(error: RuntimeError) -> str:
    """Return what the engine says in a line, without its version and stack."""
    text = re.split(r" \(version |,? Stack trace \(", str(error), maxsplit=1)[0]
    return " ".join(text.split()).rstrip(",. ")


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn what the engine raises into StoreError."""
    try:
        yield
    except RuntimeError as error:
        text = _reason(error)
        code = _CODE.search(text)
        rejected = code is not None and int(code[1]) in REJECTIONS
        number = int(code[1]) if code else 0
        raise StoreError(f"{name}: {text}", retryable=not rejected, code=number) from error
