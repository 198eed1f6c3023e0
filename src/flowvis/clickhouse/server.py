"""A ClickHouse server over its native protocol.

clickhouse-driver does the handshake, queries, errors and reading; blocks are written by us, in
frames of compressed bytes straight from the columns.
"""

import datetime
import errno
import json
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any

import numpy as np
from clickhouse_cityhash.cityhash import CityHash128
from clickhouse_driver import Client, errors
from clickhouse_driver.block import RowOrientedBlock
from clickhouse_driver.connection import Connection
from clickhouse_driver.reader import read_binary_bytes, read_binary_int32, read_binary_uint8
from clickhouse_driver.streams.compressed import CompressedBlockOutputStream
from clickhouse_driver.streams.native import BlockOutputStream
from clickhouse_driver.writer import write_binary_uint128

from flowvis.batch import Batch, Column
from flowvis.clickhouse.query import PIECE_ROWS, Cost, Piece, Query, QueryLimits, Result
from flowvis.clickhouse.rollups import RollupTables
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.books import Page, arrived, encode_page
from flowvis.clickhouse.schema.checkpoints import ANSWER, Answer, Wanted, answer, question, room_for
from flowvis.clickhouse.schema.encode import BatchId, encode, rows_of
from flowvis.clickhouse.schema.features import Features, probe
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.literals import literal
from flowvis.clickhouse.schema.lz4_blocks import lz4_blocks
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.native_block import Block, frames
from flowvis.clickhouse.schema.partitions import Lost, View
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.statement import MAX_LENGTH, readable
from flowvis.clickhouse.store import (
    MAX_ROWS,
    REJECTIONS,
    StoreSettings,
)
from flowvis.clickhouse.stored_partitions import StoredPartitions
from flowvis.clickhouse.tokens import Tokens
from flowvis.errors import StoreError

log = logging.getLogger(__name__)

# The driver logs with tracebacks what it also raises, and we report that.
logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60  # an INSERT is acknowledged within seconds, or the server is in trouble
ANSWER_BYTES = 32 << 20  # to what we ask for ourselves; answers to people have their own limit
RECEIVE_TIMEOUT_S = 30  # how long the server waits for the rest of a block that we stopped sending

# On a cluster an INSERT returns when each shard has its part, and repeated parts do nothing.
CLUSTER_INSERT: dict[str, int | str] = {"insert_distributed_sync": 1, "insert_deduplicate": 1}
# What a replica lacks would count twice: one that is behind is not asked, if another one may catch
# up soon.
FRESH: dict[str, int | str] = {"max_replica_delay_for_distributed_queries": 2}  # s; else 300
ONLY_FRESH: dict[str, int | str] = {"fallback_to_stale_replicas_for_distributed_queries": 0}
# What is asked one after the other is answered by the same replicas.
SAME_REPLICAS: dict[str, int | str] = {"load_balancing": "in_order"}
STALE_S = 60.0
_EPISODE_S = 120.0  # without an answer that all are behind
_STALE = 369  # ALL_REPLICAS_ARE_STALE
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

_LZ4 = 0x82
_FRAME_HEADER = 9  # method and both sizes, which the compressed size includes
_CUSTOM_SERIALIZATION = 54454  # protocol revision


def _custom_serialization(stream: BlockOutputStream) -> bool:
    return bool(stream.context.server_info.used_revision >= _CUSTOM_SERIALIZATION)


class _PlainOutput(BlockOutputStream):  # type: ignore[misc]  # the driver has no types
    """Writes our blocks as they are, any other as the driver does."""

    def write(self, block: Block | RowOrientedBlock) -> None:
        if not isinstance(block, Block):
            super().write(block)
            return
        RowOrientedBlock().info.write(self.fout)
        for piece in frames(block.parts(custom_serialization=_custom_serialization(self))):
            self.fout.write(piece)
        self.fout.flush()


class _CompressedOutput(CompressedBlockOutputStream):  # type: ignore[misc]  # as above
    """Writes our blocks as LZ4 frames, each with its checksum, any other as the driver does."""

    def write(self, block: Block | RowOrientedBlock) -> None:
        if not isinstance(block, Block):
            super().write(block)
            return
        RowOrientedBlock().info.write(self.compressor)
        info = [(self.compressor.get_value(), 0)]
        pieces = block.pieces(custom_serialization=_custom_serialization(self))
        for packed, size in lz4_blocks(chain(info, pieces)):
            self._frame(packed, size)
        self.raw_fout.flush()

    def _frame(self, packed: bytes, size: int) -> None:
        sizes = (len(packed) + _FRAME_HEADER).to_bytes(4, "little") + size.to_bytes(4, "little")
        frame = bytes([_LZ4]) + sizes + packed
        write_binary_uint128(CityHash128(frame), self.raw_fout)
        self.raw_fout.write(frame)


class _BoundedSocket:
    """A socket whose peer may send only so much until we are done with it, or send again.

    The driver keeps a text until it is whole, whatever its length.
    """

    def __init__(self, plain: socket.socket, most: int) -> None:
        self._socket = plain
        self._most = most
        self._received = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv_into(self, buffer: bytearray) -> int:
        """Receive; OSError where the answer is too long."""
        count = self._socket.recv_into(buffer)
        self._received += count
        if self._received > self._most:
            text = f"an answer of more than {self._most} bytes: is it ClickHouse?"
            raise OSError(errno.EMSGSIZE, text)  # the driver shows the second one
        return count

    def sendall(self, data: bytes | memoryview) -> None:
        """Send, after which another answer may come."""
        self.done()
        self._socket.sendall(data)

    def done(self) -> None:
        """What was received is used up: as much may come again."""
        self._received = 0


class _ServerConnection(Connection):  # type: ignore[misc]  # as above
    """The driver's connection with our block writers, and answers of bounded length."""

    def __init__(self, host: str, port: int | None, *, answer_bytes: int, **options: Any) -> None:
        self._answer_bytes = answer_bytes
        super().__init__(host, port, **options)

    def _create_socket(self, host: str, port: int) -> _BoundedSocket:
        return _BoundedSocket(super()._create_socket(host, port), self._answer_bytes)

    def disconnect(self) -> None:
        """Close the socket, from another thread as well.

        A thread that waits for an answer then fails as where the server is gone, and closes it too.
        The driver's own takes away what the other one of the two is using.
        """
        opened, self.connected, self.is_query_executing = self.socket, False, False
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def receive_exception(self) -> errors.ServerException:
        """Read why the server gave up.

        It may quote a text of a record, which is anybody's; the driver takes UTF-8 alone.
        """
        code = read_binary_int32(self.fin)
        name, message, _ = (read_binary_bytes(self.fin).decode(errors="replace") for _ in range(3))
        nested = self.receive_exception() if read_binary_uint8(self.fin) else None
        said = message if name == "DB::Exception" else f"{name}. {message}"
        return errors.ServerException(said, code, nested=nested)

    def get_block_out_stream(self) -> BlockOutputStream:
        if not self.compression:
            return _PlainOutput(self.fout, self.context)
        return _CompressedOutput(
            self.compressor_cls, self.compress_block_size, self.fout, self.context
        )


class _Client(Client):  # type: ignore[misc]  # as above
    """The driver's client over our connection, with an INSERT of one ready block."""

    def __init__(self, connection: Connection, settings: dict[str, Any]) -> None:
        self.own = connection
        super().__init__(connection.hosts[0][0], settings=settings)

    def get_connection(self) -> Connection:
        self.connections = deque([self.own])
        return super().get_connection()

    def insert_block(self, sql: str, block: Block, query_id: str, settings: dict[str, Any]) -> None:
        """Send one block; it is stored when this returns."""
        with self.disconnect_on_error(sql, settings):
            self.connection.send_query(sql, query_id=query_id)
            self.connection.send_external_tables(None)
            self.receive_sample_block()
            self.connection.send_data(block)
            self.receive_profile_events()
            self.connection.send_data(RowOrientedBlock())
            self.receive_profile_events()
            self.receive_end_of_insert_query()


class _Behind:
    """Whether all replicas are behind, and for how long."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._last_s = 0.0

    @property
    def for_long(self) -> bool:
        """Whether none has had all that was asked for, for so long that less has to do."""
        now_s = time.monotonic()
        since_s = self._since_s
        return since_s is not None and since_s <= now_s - STALE_S and not self._is_past(now_s)

    def over(self) -> None:
        """There was an answer."""
        self._since_s = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note when the server says that they are."""
        try:
            yield
        except errors.ServerException as error:
            now_s = time.monotonic()
            if error.code == _STALE:
                if self._since_s is None or self._is_past(now_s):
                    self._since_s = now_s
                self._last_s = now_s
            raise

    def _is_past(self, now_s: float) -> bool:
        return now_s - self._last_s > _EPISODE_S


class ServerStore:
    """A store on a server; see `Store` for the methods."""

    def __init__(
        self, settings: StoreSettings, host: str, port: int | None, *, secure: bool
    ) -> None:
        self._settings = settings
        self._host, self._port, self._secure = host, port, secure
        self.name = f"{host}:{port or (9440 if secure else 9000)}/{settings.database}"
        self._client: _Client | None = None
        self._features: Features | None = None
        self._tokens = Tokens()
        self._complete = False
        """As far as we know all servers of the cluster have the schema."""
        self._away = ""
        self._behind, self._behind_beside = _Behind(), _Behind()
        self.settled: dict[str, int] = {}
        self.rollups: RollupTables | None = None
        self.begins: dict[str, int] = {}
        self.lost: Sequence[Lost] = ()
        self.partitions: StoredPartitions | None = None
        self._beside: _Client | None = None
        self._lock_beside = threading.Lock()

    @property
    def kept(self) -> Retention:
        """How long each table keeps what it has; for ever where there is no TTL."""
        features = self._features
        known = features is None or features.ttl
        kept = self._settings.kept if known else Retention(0, 0, 0)
        return kept.shortened(self.begins, int(time.time()))

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
            with _errors(self.name):
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
            with _errors(self.name), self._behind.noting():
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

    def _of_replicas(self, behind: "_Behind") -> dict[str, int | str]:
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
        return _ServerQuery(self.name, client, statement, queries.limits, max_rows)

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
        with _errors(self.name):
            rows: list[tuple[Any, ...]] = self._connected().execute(sql, settings=options)
        return rows

    def _execute_beside(self, sql: str, options: Mapping[str, int | str]) -> list[tuple[Any, ...]]:
        """Execute on a connection of its own, beside what is inserted."""
        settings = {**self._of_replicas(self._behind_beside), **options}
        if self._settings.cluster:
            settings = SAME_REPLICAS | settings
        with self._lock_beside, _errors(self.name), self._behind_beside.noting():
            if self._beside is None:
                self._beside = self._make_client()
            rows: list[tuple[Any, ...]] = self._beside.execute(sql, settings=settings)
        return rows

    def _connected(self) -> _Client:
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
    ) -> _Client:
        """Make a client, which connects on use; no database: ours may not be there yet."""
        settings = self._settings
        username, password = user or (settings.username, settings.password)
        connection = _ServerConnection(
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
        return _Client(connection, {"strings_as_bytes": True} if as_bytes else {})


class _ServerQuery(Query):
    """A query on a connection of its own; closing that ends it at the server."""

    def __init__(
        self, name: str, client: _Client, statement: str, limits: QueryLimits, max_rows: int
    ) -> None:
        super().__init__(statement, limits, max_rows)
        self._name = name
        self._client = client

    def _found(self) -> Iterator[Piece]:
        try:
            with _errors(self._name):
                settings = self._permitted()
                found = self._client.execute_iter(
                    self.statement, with_column_types=True, settings=settings
                )
                columns = next(found, ())
                self.names = [name for name, _ in columns]
                self.types = [kind for _, kind in columns]
                yield ()
                while rows := [_as_json(row) for row in islice(found, PIECE_ROWS)]:
                    self._client.own.socket.done()
                    yield rows
                read = self._client.last_query.progress
                self.cost = Cost(read.rows, read.bytes)
        finally:
            self._client.disconnect()

    def _permitted(self) -> dict[str, int | str]:
        """Return the limits that the user may set, which are not tighter already.

        A user who may write is made one who only reads; one with readonly = 2 may set limits, and
        one with readonly = 1 has those of its profile.
        """
        wanted = self.limits.options(self.max_rows)
        names = ", ".join(f"'{name}'" for name in ("readonly", *wanted))
        found = self._client.execute(
            f"SELECT name, value FROM system.settings WHERE name IN ({names})"
        )
        present = dict(found)
        if present.get("readonly") == "1":
            return {}
        chosen = {
            name: value for name, value in wanted.items() if _tighter(value, present.get(name))
        }
        return chosen if present.get("readonly") == "2" else chosen | {"readonly": 1}

    def _cancel(self) -> None:
        connection = self._client.own
        with suppress(OSError, EOFError, AttributeError):  # not connected, or not any more
            # The server looks for the word more often than for the end of the connection.
            connection.send_cancel()
            connection.socket.shutdown(socket.SHUT_WR)


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


def _tighter(wanted: int | str, present: str | None) -> bool:
    """Whether a limit is less than the present one; 0 is none."""
    if isinstance(wanted, str) or not (present or "").isdecimal():
        return True
    return int(present or 0) == 0 or wanted < int(present or 0)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Turn what the driver raises into StoreError."""
    try:
        yield
    except errors.ServerException as error:
        text = str(error.message).split("Stack trace:", maxsplit=1)[0].strip()
        raise StoreError(
            f"{name}: {text} (code {error.code})",
            retryable=error.code not in REJECTIONS,
            code=error.code,
        ) from error
    except (errors.Error, OSError, EOFError) as error:
        text = str(error) or type(error).__name__
        raise StoreError(f"{name}: {text}", retryable=True) from error


def _as_json(row: Sequence[Any]) -> bytes:
    """Write a row as a JSON array."""
    try:
        text = json.dumps(row, default=_plain, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):  # NaN, keys that are no texts
        text = json.dumps(_known(row), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")


def _plain(value: Any) -> Any:
    """Return a value that JSON knows for one that it does not."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode(errors="replace")
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    return str(value)


def _known(value: Any) -> Any:
    """Return a value with all of its parts as JSON has them; numbers that are none are null."""
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    if isinstance(value, dict):
        return {str(_known(key)): _known(item) for key, item in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else _plain(value)
