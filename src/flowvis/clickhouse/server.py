"""A ClickHouse server over its native protocol."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flowvis.batch import Batch, Column
from flowvis.clickhouse.native_client import BoundedConnection, NativeClient, store_errors
from flowvis.clickhouse.query import Query, Result
from flowvis.clickhouse.replicas import FRESH, ONLY_FRESH, SAME_REPLICAS, Behind
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.books import Page, arrived, encode_page
from flowvis.clickhouse.schema.checkpoints import ANSWER, Answer, Wanted, answer, question, room_for
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId, encode, rows_of
from flowvis.clickhouse.schema.features import Features, probe
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.native_block import Block
from flowvis.clickhouse.schema.partitions import View
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.server_query import ServerQuery
from flowvis.clickhouse.statement import MAX_LENGTH, readable
from flowvis.clickhouse.store import MAX_ROWS, StoreSettings
from flowvis.clickhouse.stored_partitions import StoredPartitions
from flowvis.clickhouse.tokens import Tokens
from flowvis.errors import StoreError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60  # an INSERT is acknowledged within seconds, or the server is in trouble
ANSWER_BYTES = 32 << 20  # to what we ask for ourselves; answers to people have their own limit
RECEIVE_TIMEOUT_S = 30  # how long the server waits for the rest of a block that we stopped sending

# On a cluster an INSERT returns when each shard has its part, and repeated parts do nothing.
CLUSTER_INSERT: dict[str, int | str] = {"insert_distributed_sync": 1, "insert_deduplicate": 1}
# A roll is gathered and split by one server, so that its parts are the same in each attempt.
ROLLED_INSERT: dict[str, int | str] = {"parallel_distributed_insert_select": 0}
# What an INSERT meets while another server of the cluster does not have the schema yet, or dies:
# NOT_FOUND_COLUMN_IN_BLOCK, NO_SUCH_COLUMN_IN_TABLE, NUMBER_OF_COLUMNS_DOESNT_MATCH,
# CANNOT_READ_ALL_DATA, ILLEGAL_COLUMN, UNKNOWN_TABLE, UNKNOWN_DATABASE.
_PASSING = frozenset({10, 16, 20, 33, 44, 60, 81})
# For all servers of a cluster to change their tables, and once it has shown that one is away. Even:
# 18.16 reads what the driver sends as half of it, and as "for ever" if it is odd.
PATIENCE_S = 10
SHORT_PATIENCE_S = 2
_TIMEOUT = 159  # TIMEOUT_EXCEEDED


class ServerStore:
    """A store on a server; see `Store` for the methods."""

    def __init__(
        self, settings: StoreSettings, host: str, port: int | None, *, secure: bool
    ) -> None:
        self._settings = settings
        self._host, self._port, self._secure = host, port, secure
        self.name = f"{host}:{port or (9440 if secure else 9000)}/{settings.database}"
        self._client: NativeClient | None = None
        self._features: Features | None = None
        self._tokens = Tokens()
        self._complete = False
        """As far as we know all servers of the cluster have the schema."""
        self._away = ""
        self._behind, self._behind_beside = Behind(), Behind()
        self.settled: dict[str, int] = {}
        self.rollups: RollupTables | None = None
        self.ttls: Mapping[str, int] = {}
        self.begins: dict[str, int] = {}
        self.lost: Sequence[Lost] = ()
        self.partitions: StoredPartitions | None = None
        self._beside: NativeClient | None = None
        self._lock_beside = threading.Lock()

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has; for ever where there is no TTL."""
        features = self._features
        known = features is None or features.ttl
        kept = self._settings.kept if known else Retention(0, 0, 0)
        return kept.as_told(self.ttls).shortened(self.begins, int(time.time()))

    def migrate(self) -> list[str]:
        """Create or upgrade the schema; return what had to be left out for this server."""
        self._features = None  # it may be another one by now, of another version
        features = self._probe()
        kept = self._settings.kept
        layout = TableLayout(self._settings.database, self._settings.cluster)
        clustered = bool(layout.cluster)
        self._away = ""
        execute = self._execute_on_cluster if clustered else self._execute
        migration = Migration(execute, layout, features, kept)
        undone = migration.run(renew=clustered and not self._complete)
        self._complete = True
        options = features.roll_options | (CLUSTER_INSERT | ROLLED_INSERT if clustered else {})
        rollups = RollupTables(
            self._execute_beside, layout, alone=False, options=options,
            late_projections=features.merges_projections,
        )  # fmt: skip
        self.rollups = rollups if features.rollups else None
        self.partitions = StoredPartitions(self._execute_beside, layout, features)
        self.ttls = self.partitions.ttls()
        self.begins = self.partitions.begins()
        self.lost = self.partitions.lost()
        return [
            *features.left_out(kept.records_s, replicated=clustered),
            *undone,
            *filter(None, (self._away,)),
        ]

    def insert(self, batch: Batch, batch_id: BatchId, *, again: bool = False) -> None:
        """Store a batch in one INSERT; see `Store.insert`."""
        self._insert(
            schema.TABLE,
            lambda: encode(batch, batch_id),
            batch_id,
            lambda: rows_of(batch, batch_id),
            again=again,
        )

    def keep(self, page: Page, *, again: bool = False) -> None:
        """Store a page of the books; see `Store.keep`."""
        self._insert(
            schema.BOOKS,
            lambda: encode_page(page),
            page.batch_id,
            lambda: arrived(page.batch_id),
            again=again,
        )

    def _insert(
        self,
        table: str,
        encoded: Callable[[], Block],
        batch_id: BatchId,
        condition: Callable[[], str],
        *,
        again: bool,
    ) -> None:
        """Insert a block; `condition` is that of its rows, `again` that an attempt came before."""
        features, cluster = self._probe(), self._settings.cluster
        if again and not cluster and self._arrived(table, batch_id, condition()):
            return
        block = encoded()
        names = ", ".join(column.name for column in block.columns)
        sql = f"INSERT INTO {self._settings.database}.{table} ({names}) VALUES"
        options: dict[str, Any] = {"receive_timeout": RECEIVE_TIMEOUT_S}
        if features.asynchronous:
            options["async_insert"] = 0
        if features.deduplication:
            options["insert_deduplication_token"] = self._tokens.of(batch_id)
        if cluster:
            options |= CLUSTER_INSERT
        try:
            with store_errors(self.name):
                self._connected().insert_block(sql, block, str(batch_id), options)
        except StoreError as error:
            if not cluster and not error.retryable and self._is_there(table, condition()):
                log.warning("%s is stored, though not in all views of it: %s", batch_id, error)
                self._tokens.forget(batch_id)
                return
            if not cluster or error.code not in _PASSING:
                raise
            self._complete = False
            raise StoreError(str(error), retryable=True, code=error.code) from error
        if again and not cluster and not self._is_there(table, condition()):
            self._tokens.spend(batch_id)
            text = f"{self.name}: {batch_id} was acknowledged as a repetition, and is not there"
            raise StoreError(text, retryable=True)
        self._tokens.forget(batch_id)

    def checkpoints(self, wanted: Wanted) -> Answer:
        """Return the last record of each connection; see `Store.checkpoints`."""
        settings = self._settings
        most = ANSWER_BYTES + ANSWER.itemsize * wanted.most_rows
        client = self._make_client(answer_bytes=most, as_bytes=True)
        layout = TableLayout(settings.database, settings.cluster)
        sql = question(layout, wanted)
        try:
            with store_errors(self.name), self._behind.noting():
                view = View.of(layout, self._features or probe(client.execute))
                running = client.execute(running_sql(view), settings=dict(view.options))
                if running[0][0]:
                    raise StoreError(f"{self.name}: an INSERT is still running", retryable=True)
                options = {**room_for(sql), **self._of_replicas(self._behind)}
                columns = client.execute(sql, columnar=True, settings=options)
            self._behind.over()
        finally:
            client.disconnect()
        try:
            return answer(wanted, [list(_arrays(columns))] if columns else [])
        except (ValueError, TypeError, OverflowError) as error:
            raise StoreError(
                f"{self.name}: no answer to what was asked: {error}", retryable=True
            ) from error

    def _of_replicas(self, behind: Behind) -> dict[str, int | str]:
        """Return which replicas are to answer: those that have all, until none had for long.

        What one that is gone had alone would else be waited for until it is back.
        """
        if not self._settings.cluster:
            return {}
        return FRESH if behind.for_long else FRESH | ONLY_FRESH

    def ask(self, sql: str, *, max_rows: int = MAX_ROWS, max_length: int = MAX_LENGTH) -> Query:
        """Prepare one statement, for a connection of its own; see `Store.ask`."""
        settings = self._settings
        queries = settings.queries
        client = self._make_client(
            settings.database,
            (queries.username, queries.password) if queries.username else None,
            answer_bytes=ANSWER_BYTES + queries.limits.answer_bytes,  # of one piece
        )
        statement = readable(sql, max_length)
        return ServerQuery(self.name, client, statement, queries.limits, max_rows)

    def query(self, sql: str, *, max_rows: int = MAX_ROWS) -> Result:
        """Run one statement that only reads."""
        return self.ask(sql, max_rows=max_rows).result()

    def close(self) -> None:
        """Close the connection."""
        clients, self._client, self._beside = (self._client, self._beside), None, None
        for client in clients:
            if client is not None:
                client.disconnect()

    def _arrived(self, table: str, batch_id: BatchId, rows: str) -> bool:
        """Ask whether an attempt that failed for us has stored the batch after all.

        The server has the query in its process list before we send data, and until the data is
        either stored or given up; so when it is not there any more, the table has the truth.
        """
        running = self._execute(
            f"SELECT count() FROM system.processes WHERE query_id = {literal(str(batch_id))}"
        )
        if running[0][0]:
            raise StoreError(
                f"{self.name}: an earlier attempt to insert {batch_id} is still running",
                retryable=True,
            )
        return self._is_there(table, rows)

    def _is_there(self, table: str, rows: str) -> bool:
        found = self._execute(f"SELECT count() FROM {self._settings.database}.{table} WHERE {rows}")
        return bool(found[0][0])

    def _probe(self) -> Features:
        if self._features is None:
            self._features = probe(self._execute)
        return self._features

    def _execute_on_cluster(self, sql: str) -> list[tuple[Any, ...]]:
        """Execute; a server that is away makes a change when it is back, and is not waited for."""
        patience_s = SHORT_PATIENCE_S if self._away else PATIENCE_S
        try:
            return self._execute(sql, distributed_ddl_task_timeout=patience_s)
        except StoreError as error:
            if error.code != _TIMEOUT or " ON CLUSTER " not in sql:
                raise
            self._away = f"not all servers of the cluster changed their tables yet: {error}"
            return []

    def _execute(self, sql: str, **options: Any) -> list[tuple[Any, ...]]:
        if self._features and self._features.experimental_low_cardinality:
            options["allow_experimental_low_cardinality_type"] = 1
        with store_errors(self.name):
            rows: list[tuple[Any, ...]] = self._connected().execute(sql, settings=options)
        return rows

    def _execute_beside(self, sql: str, options: Mapping[str, int | str]) -> list[tuple[Any, ...]]:
        """Execute on a connection of its own, beside what is inserted."""
        settings = {**self._of_replicas(self._behind_beside), **options}
        if self._settings.cluster:
            settings = SAME_REPLICAS | settings
        with self._lock_beside, store_errors(self.name), self._behind_beside.noting():
            if self._beside is None:
                self._beside = self._make_client()
            rows: list[tuple[Any, ...]] = self._beside.execute(sql, settings=settings)
        return rows

    def _connected(self) -> NativeClient:
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _make_client(
        self,
        database: str = "",
        user: tuple[str, str] | None = None,
        *,
        answer_bytes: int | None = None,
        as_bytes: bool = False,
    ) -> NativeClient:
        """Make a client, which connects on use; no database: ours may not be there yet."""
        settings = self._settings
        username, password = user or (settings.username, settings.password)
        connection = BoundedConnection(
            self._host,
            self._port,
            answer_bytes=answer_bytes or ANSWER_BYTES,
            database=database,
            user=username,
            password=password,
            client_name="flowvis",
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=ANSWER_TIMEOUT_S,
            compression="lz4" if settings.compress else False,
            secure=self._secure,
            verify=not settings.insecure_skip_verify,
            ca_certs=str(settings.ca_cert) if settings.ca_cert else None,
        )
        return NativeClient(connection, {"strings_as_bytes": True} if as_bytes else {})


INSERTS_RECORDS = rf"^INSERT INTO [^ ]*[.]{schema.TABLE}"
"""A statement that inserts records; one that reads them, to roll them up, does not."""


def running_sql(view: View) -> str:
    """Ask how many INSERTs of records are under way, also of writers that are gone."""
    return f"SELECT count() {view.from_('processes')} WHERE match(query, '{INSERTS_RECORDS}')"


def _arrays(columns: Sequence[Sequence[Any]]) -> Iterator[Column]:
    """Yield the columns of an answer as ANSWER has them."""
    for name, values in zip(ANSWER.names or (), columns, strict=True):
        kind = ANSWER[name]
        if kind.shape:
            yield np.frombuffer(b"".join(values), kind.base).reshape(len(values), *kind.shape)
        else:
            yield np.array(values, kind)
