"""Shards and replicas: real servers, two shards of two replicas each, and what happens to them."""

import asyncio
import itertools
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import chdb
import pytest

from flowvis.batch import Batch
from flowvis.clickhouse.monitor import Monitor, MonitorSettings
from flowvis.clickhouse.room import Limits, whole
from flowvis.clickhouse.schema import books, rolls, rollups
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.dropped import DROPPED, create_dropped
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.features import RECALCULATE_ONLY, Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.outlived import oldest_day_sql
from flowvis.clickhouse.schema.partitions import (
    View,
    disks_sql,
    drop_sql,
    partitions_sql,
    read_servers,
)
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.server import CLUSTER_INSERT, ROLLED_INSERT, running_sql
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.clickhouse.writer import Writer
from flowvis.errors import SettingsError, StoreError
from flowvis.native import StringTable
from flowvis.questions.completeness import completeness
from flowvis.questions.times import TimeRange
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Stage
from waiting import block_until, until

from .asking import carry_out
from .cluster import NAME, Cluster
from .conftest import admin
from .proxy import Fault, Proxy
from .samples import flows, random_batch

MODERN = Features("26.9.1.1", True, True, True, True, False)
EPOCH = 1_790_000_100
ROWS = 4000
SERVERS = [(0, 0), (0, 1), (1, 0), (1, 1)]

pytestmark = pytest.mark.clickhouse

Connect = Callable[..., Store]
_numbers = itertools.count()


@pytest.fixture
def database() -> str:
    return f"spread{next(_numbers)}"


@pytest.fixture
def connect(cluster: Cluster, database: str) -> Iterator[Connect]:
    """Open a store on one of the servers; all are closed at the end."""
    cluster.mend()
    opened: list[Store] = []

    def to(shard: int = 0, replica: int = 0, **changes: object) -> Store:
        url = cluster.servers[shard, replica].url
        settings = StoreSettings(url, database=database, cluster=NAME, ttl_s=0)
        opened.append(open_store(replace(settings, **changes)))  # type: ignore[arg-type]
        return opened[-1]

    yield to
    for store in opened:
        store.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for servers that are away."""
    monkeypatch.setattr("flowvis.clickhouse.writer.LONGEST_PAUSE_S", 0.5)
    monkeypatch.setattr("flowvis.clickhouse.server.PATIENCE_S", 2)


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    proxy = Proxy(cluster.servers[0, 0].port)
    yield proxy
    proxy.close()


def count(store: Store, table: str = "flows") -> int:
    return int(store.query(f"SELECT count() FROM {table}").rows[0][0])


DDL = "system.zookeeper WHERE path = '/clickhouse/task_queue/ddl'"
"""What all servers of the cluster were asked to do: ON CLUSTER."""


def queued(store: Store) -> int:
    """How much that is."""
    return int(admin(store)(f"SELECT count() FROM {DDL}")[0][0])


def own(store: Store) -> int:
    """Records that the server has itself."""
    return count(store, "flow_records_local")


def until_all_have(connect: Connect, rows: int) -> None:
    """Wait until every server shows so many records, and the replicas of a shard the same."""

    def found() -> tuple[dict[tuple[int, int], int], ...]:
        stores = {server: connect(*server) for server in SERVERS}
        shown = {server: count(store) for server, store in stores.items()}
        return shown, {server: own(store) for server, store in stores.items()}

    def settled() -> bool:
        shown, have = found()
        alike = all(have[shard, 0] == have[shard, 1] for shard in (0, 1))
        return set(shown.values()) == {rows} and alike and have[0, 0] + have[1, 0] == rows

    # One that has just been started says no, and later than others on a busy machine.
    block_until(settled, found, despite=(StoreError,))


def writer_for(store: Store, **options: object) -> Writer:
    options = {"commit_interval_s": 0.02, "commit_records": 2000, "grace_s": 60.0, **options}
    return Writer(store, Stage("clickhouse"), **options)  # type: ignore[arg-type]


def test_what_there_is_on_every_server(connect: Connect, database: str) -> None:
    store = connect()
    assert all("repeated INSERT:" not in line for line in store.migrate())
    tables = f"SELECT name, engine FROM system.tables WHERE database = '{database}' ORDER BY name"
    views = ["flows", "flows_node_view", "flows_pod_view", "flows_policy_view"]
    expected = [
        ["flow_books", "Distributed"],
        ["flow_books_local", "ReplicatedMergeTree"],
        ["flow_records", "Distributed"],
        ["flow_records_local", "ReplicatedMergeTree"],
        ["flowvis_schema", "ReplicatedMergeTree"],
        *([name, "Distributed"] for name in views),
        *([f"{name}_local", "View"] for name in views),
    ]
    for server in SERVERS:
        assert connect(*server).query(tables).rows == sorted(expected)
    store.migrate()
    connect(1, 1).migrate()
    assert store.query(f"SELECT count() FROM {schema.VERSIONS}").rows == [[1]]


def test_every_record_is_there_once(connect: Connect) -> None:
    """Written through one server, read through any, spread by connection."""
    writer = writer_for(connect())

    async def write() -> None:
        await writer.start()
        strings = StringTable()
        for _ in range(8):
            writer.put(flows(2500, strings=strings))
        await writer.stop()

    asyncio.run(write())
    assert writer.stage.sent == 20_000
    assert writer.stage.imbalance == 0
    until_all_have(connect, 20_000)
    ports = [
        {row[0] for row in connect(shard).query(PORTS).rows} for shard in (0, 1)
    ]  # the connections of `flows` differ in nothing else
    assert ports[0]
    assert ports[1]
    assert not ports[0] & ports[1]
    grouped = connect(1, 1).query(
        "SELECT sourceTransportPort, count() FROM flows GROUP BY sourceTransportPort"
    )
    assert sorted(map(list, grouped.rows)) == [[port, 8] for port in range(2500)]


PORTS = "SELECT DISTINCT sourceTransportPort FROM flow_records_local"


def test_an_acknowledgement_that_is_lost(connect: Connect, proxy: Proxy) -> None:
    """The connection is cut at every stage; the batch is repeated through each of the servers."""
    direct = connect()
    direct.migrate()
    relayed = connect(database_url=f"tcp://127.0.0.1:{proxy.port}")
    batch = random_batch(ROWS)
    relayed.insert(flows(1), BatchId("steady", EPOCH))
    relayed.close()
    proxy.reset()
    relayed.insert(batch, BatchId("steady", EPOCH, 1))
    total = proxy.sent
    cuts = [Fault(700), Fault(total // 2), Fault(total - 1), Fault(total)]
    cuts += [Fault(total // 2, answered=True)] * 3
    for number, fault in enumerate(cuts, start=2):
        batch_id = BatchId("faulty", EPOCH, number)
        relayed.close()
        proxy.reset(fault)
        with pytest.raises(StoreError) as caught:
            relayed.insert(batch, batch_id)
        assert caught.value.retryable
        for server in SERVERS:
            insert_until_it_works(connect(*server), batch, batch_id)
    until_all_have(connect, 1 + (1 + len(cuts)) * ROWS)


def test_a_batch_is_known_for_longer_than_servers_remember_by_themselves(
    connect: Connect, database: str
) -> None:
    """As when it was spooled without an answer, or left, and others go on for hours."""
    store = connect()
    store.migrate()
    batch, batch_id = random_batch(ROWS), BatchId("spooled", EPOCH)
    store.insert(batch, batch_id)
    path = f"/clickhouse/tables/other/{database}"
    run = admin(store)
    run(
        f"CREATE TABLE {database}.other (n UInt32)"
        f" ENGINE = ReplicatedMergeTree('{path}', 'one') ORDER BY n"
    )
    others = itertools.count()

    def blocks() -> set[tuple[str]]:
        """Those of a table that remembers for as long as servers do; another one comes."""
        run(f"INSERT INTO {database}.other SELECT toUInt32({next(others)})")
        return set(run(f"SELECT name FROM system.zookeeper WHERE path = '{path}/blocks'"))

    first = blocks()
    block_until(lambda: not first & blocks())
    for number in range(8):  # each shard has some of them
        store.insert(random_batch(100, seed=number), BatchId("other", EPOCH, number))
    second = blocks()
    block_until(lambda: not second & blocks())
    insert_until_it_works(connect(1, 1), batch, batch_id)
    until_all_have(connect, ROWS + 800)


def insert_until_it_works(store: Store, batch: Batch, batch_id: BatchId) -> None:
    """A server may still be busy with the attempt whose connection is gone."""

    def stored() -> bool:
        store.insert(batch, batch_id, again=True)
        return True

    block_until(stored, despite=(StoreError,))


def test_attempts_at_the_same_time(connect: Connect) -> None:
    """One of them hangs in the network and arrives after all while the other is repeated."""
    connect().migrate()
    stores = [connect(*server) for server in SERVERS]
    with ThreadPoolExecutor(len(stores)) as pool:
        for number in range(3):
            batch, batch_id = random_batch(ROWS, seed=number), BatchId("test", EPOCH, number)
            list(pool.map(lambda store: store.insert(batch, batch_id, again=True), stores))  # noqa: B023
    until_all_have(connect, 3 * ROWS)


def test_servers_that_are_killed_and_come_back(
    connect: Connect, cluster: Cluster, proxy: Proxy, hasty: None
) -> None:
    """A replica goes, then the server that the writer is connected to; nothing is lost or twice."""
    store = connect(database_url=f"tcp://127.0.0.1:{proxy.port}")
    writer = writer_for(store)
    put = 0

    async def some() -> None:
        nonlocal put
        for _ in range(20):
            writer.put(flows(1000))
            put += 1000
            await asyncio.sleep(0.02)

    async def write() -> None:
        await writer.start()
        await some()
        await until(lambda: writer.stage.sent > 0)
        cluster.servers[1, 1].kill()
        await some()
        proxy.reset(Fault(20_000))  # within an insert: between two, the writer only connects anew
        await some()
        await until(lambda: writer.stats.failures > 0)
        cluster.servers[0, 0].kill()
        proxy.target = cluster.servers[1, 0].port  # as a Service sends us to one that is there
        proxy.reset()
        await some()
        for number in ((0, 0), (1, 1)):
            await asyncio.to_thread(cluster.servers[number].start)
        await until(lambda: writer.held() == 0)
        await writer.stop()

    try:
        asyncio.run(write())
    finally:
        cluster.start()
    assert writer.stage.sent == put == 80_000
    assert writer.stage.imbalance == 0
    until_all_have(connect, put)


def test_a_shard_that_is_away(connect: Connect, cluster: Cluster, hasty: None) -> None:
    """The writer keeps what it can, counts what it cannot, and says which server it misses."""
    connect().migrate()
    writer = writer_for(connect(), max_pending=10_000)
    missing = [cluster.servers[1, 0], cluster.servers[1, 1]]

    async def write() -> None:
        await writer.start()
        for server in missing:
            server.kill()
        for _ in range(15):
            writer.put(flows(1000))
        await until(lambda: writer.stats.failures > 1)
        assert not writer.healthy
        assert str(missing[0].port) in writer.stats.failing
        assert writer.held() >= 10_000
        for server in missing:
            await asyncio.to_thread(server.start)
        await until(lambda: writer.held() == 0)
        await writer.stop()

    try:
        asyncio.run(write())
    finally:
        cluster.start()
    dropped = writer.stage.dropped[OutgoingDropped.QUEUE_FULL]
    assert set(writer.stage.dropped) == {OutgoingDropped.QUEUE_FULL}
    assert writer.stage.sent == 15_000 - dropped >= 10_000
    until_all_have(connect, writer.stage.sent)


def test_the_schema_is_made_while_a_replica_is_away(
    connect: Connect, cluster: Cluster, hasty: None
) -> None:
    away = cluster.servers[1, 1]
    away.kill()
    try:
        store = connect()
        left_out = store.migrate()
        assert "not all servers of the cluster" in left_out[-1]
        store.insert(flows(ROWS), BatchId("test", EPOCH))
        asked = queued(store)
        assert asked > 0
        store.migrate()  # as after every fault: what is there is not asked of all again
        assert queued(store) == asked
    finally:
        cluster.start()
    until_all_have(connect, ROWS)


def test_several_aggregators_start_at_once(connect: Connect) -> None:
    stores = [connect(*server) for server in SERVERS]
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(lambda store: store.migrate(), stores))
        batch = flows(500)
        ids = [BatchId(f"writer{number}", EPOCH) for number in range(len(stores))]
        list(pool.map(lambda store, batch_id: store.insert(batch, batch_id), stores, ids))
    until_all_have(connect, 2000)


def test_columns_of_a_newer_program_are_added(connect: Connect, database: str) -> None:
    """By two aggregators at once, each trying again as the writer does."""
    store = connect()
    store.migrate()
    store.insert(flows(7), BatchId("test", EPOCH))
    run = admin(store)
    for name in ("proxySnatPort", "egressNodeName"):
        run(f"ALTER TABLE {database}.flow_records_local ON CLUSTER '{NAME}' DROP COLUMN {name}")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate_until_it_works, [connect(0, 1), connect(1, 0)]))
    batch = flows(5)
    batch["proxySnatPort"][:] = 9
    store.insert(batch, BatchId("test", EPOCH, 1))
    until_all_have(connect, 12)
    answer = connect(1, 1).query(
        "SELECT count(), sum(proxySnatPort), any(egressNodeName) FROM flows"
    )
    assert answer.rows == [[12, 45, ""]]
    assert count(store, "flows_pod_view") == 12


def test_books_of_an_older_program_get_their_cluster(connect: Connect, database: str) -> None:
    """The table itself and what shows that of all servers, by two aggregators at once."""
    store = connect()
    store.migrate()
    run, everywhere, older = admin(store), f"ON CLUSTER '{NAME}'", connect(1, 0)
    run(f"ALTER TABLE {database}.flow_books_local {everywhere} DROP COLUMN clusterUUID")
    run(f"DROP TABLE {database}.flow_books {everywhere}")
    run(
        f"CREATE TABLE {database}.flow_books {everywhere} AS {database}.flow_books_local"
        f" ENGINE = {TableLayout(database, NAME).distributed('flow_books', schema.BOOKS_SHARD_BY)}"
    )
    admin(older)(
        f"INSERT INTO {database}.flow_books (time, seconds, stage, what, records, writer)"
        f" SELECT toDateTime({EPOCH}), 60, 'collector', 'received', 3, 'older'"
    )
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate_until_it_works, [connect(0, 1), connect(1, 0)]))
    for number in range(4):  # by their writers they are of both shards
        entries = [books.BookEntry("collector", books.What.RECEIVED, 5)]
        batch_id = BatchId(f"w{number}", EPOCH + 60 * (number + 1))
        store.keep(books.Page(batch_id, 60, entries, f"c{number % 2}"))

    def on_each() -> list[int]:
        """What all shards have together, of their first replicas and of their second ones."""
        local = "SELECT sum(records) FROM flow_books_local"
        return [
            sum(int(connect(shard, replica).query(local).rows[0][0]) for shard in (0, 1))
            for replica in (0, 1)
        ]

    block_until(lambda: on_each() == [23, 23], on_each)  # whichever is asked has all
    found = "SELECT clusterUUID, sum(records) FROM flow_books GROUP BY clusterUUID ORDER BY 1"
    there = [list(row) for row in connect(1, 1).query(found).rows]
    assert there == [["", 3], ["c0", 10], ["c1", 10]]
    asked = TimeRange((EPOCH - 60) * 1000, (EPOCH + 240) * 1000)
    missing = carry_out(connect(0, 1), completeness(asked)).missing
    # Of c0 there are the first and the third minute, of c1 the second and the fourth.
    assert [(m.cluster, m.from_ms // 1000 - EPOCH) for m in missing] == [
        ("c0", 60), ("c0", 180), ("c1", 120),
    ]  # fmt: skip


def migrate_until_it_works(store: Store) -> None:
    def migrated() -> bool:
        store.migrate()
        return True

    block_until(migrated, despite=(StoreError,))


def test_a_server_that_joins_later_gets_the_schema(connect: Connect, database: str) -> None:
    store, new = connect(), connect(1, 1)
    store.migrate()
    run = admin(new)
    for name in schema.engines(TableLayout(database, NAME)):
        run(f"DROP TABLE {database}.{name}")
    other = admin(connect(1, 0))  # so that the shard has only the new one
    other(f"DROP TABLE {database}.flow_records_local")
    with pytest.raises(StoreError, match="flow_records_local") as caught:
        store.insert(flows(ROWS), BatchId("test", EPOCH))
    assert caught.value.retryable
    store.migrate()
    store.insert(flows(ROWS), BatchId("test", EPOCH), again=True)
    until_all_have(connect, ROWS)


def test_a_shard_that_gets_its_columns_later(connect: Connect, database: str) -> None:
    """Until it has them nothing is rejected for good, and nothing is stored twice after."""
    store = connect()
    store.migrate()
    run = admin(connect(1, 0))
    table, batch_id = f"{database}.flow_records_local", BatchId("test", EPOCH)
    run(f"ALTER TABLE {table} DROP COLUMN egressNodeName")
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            store.insert(flows(ROWS), batch_id, again=True)
        assert caught.value.retryable
    run(f"ALTER TABLE {table} ADD COLUMN egressNodeName LowCardinality(String)")
    insert_until_it_works(connect(0, 1), flows(ROWS), batch_id)
    until_all_have(connect, ROWS)


def test_one_server_s_tables_are_not_touched(connect: Connect, database: str) -> None:
    alone, spread = connect(cluster=""), connect()
    alone.migrate()
    alone.insert(flows(100), BatchId("test", EPOCH))
    with pytest.raises(StoreError, match=r"made for one server.*is flows-cluster") as caught:
        spread.migrate()
    assert not caught.value.retryable
    assert count(alone) == 100
    # What docs/clickhouse.md says about how the records get into another database.
    other = f"{database}_other"
    moved = connect(database=other)
    moved.migrate()
    names = ", ".join(column.name for column in schema.COLUMNS)
    admin(moved)("SET insert_distributed_sync = 1")
    admin(moved)(
        f"INSERT INTO {other}.flow_records ({names}) SELECT {names} FROM {database}.flow_records"
    )
    block_until(lambda: count(moved) == 100, lambda: count(moved))  # replicas follow each other


def test_a_cluster_s_tables_are_not_touched(connect: Connect) -> None:
    connect().migrate()
    with pytest.raises(StoreError, match="made for a cluster"):
        connect(cluster="").migrate()


def test_theia_s_tables_are_not_touched(connect: Connect, database: str) -> None:
    store = connect()
    run = admin(store)
    run(f"CREATE DATABASE {database}")
    run(f"CREATE TABLE {database}.flows_local (a Date) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(StoreError, match="RENAME TABLE flows_local TO flows_local_before"):
        store.migrate()


def test_a_cluster_that_the_servers_do_not_know(connect: Connect) -> None:
    with pytest.raises(StoreError, match="no-such-cluster"):
        connect(cluster="no-such-cluster").migrate()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (StoreSettings("tcp://ch", cluster="a'b"), "a name of letters"),
        (StoreSettings("embedded:///var/lib/x", cluster="a"), "no cluster"),
    ],
)
def test_bad_names(settings: StoreSettings, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        open_store(settings)


def statements(ttl_s: int) -> list[str]:
    """What the upgrade of an older schema on modern servers executes, but for questions."""
    layout = TableLayout("db", NAME)
    executed: list[str] = []

    def execute(sql: str) -> list[tuple[object, ...]]:
        if not sql.startswith("SELECT"):
            executed.append(sql)
        elif DROPPED in sql:
            return [(7, 2)]
        elif "compression_codec" in sql:
            return [(column.name, "CODEC(ZSTD(1))") for column in rollups.HOURS.columns]
        elif "FROM system.columns" in sql:
            return [(c.name,) for c in schema.COLUMNS if c.name != "trusted"]
        elif "engine_full" in sql:
            return [("ReplicatedMergeTree() TTL x + toIntervalSecond(5)",)]
        elif "FROM system.tables" in sql:
            return list(schema.engines(layout).items())
        return []

    features = replace(MODERN, recalculates_ttl=True)
    Migration(execute, layout, features, Retention(ttl_s, ttl_s, ttl_s)).run(renew=True)
    return executed


def test_the_modern_parser_takes_every_statement() -> None:
    made = [*statements(0), *statements(3600)]
    kinds = {" ".join(sql.split()[:2]) for sql in made}
    assert {"CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "ALTER TABLE", "DROP TABLE"} < kinds
    for text in (
        "ADD COLUMN trusted",
        "MODIFY COLUMN flowType",
        "REMOVE TTL",
        "MODIFY TTL",
        f"flow_records_local ON CLUSTER '{NAME}' MATERIALIZE TTL",
        f"flow_hours_local ON CLUSTER '{NAME}' MODIFY SETTING {RECALCULATE_ONLY} = 1",
        f"flow_records_local ON CLUSTER '{NAME}' MODIFY SETTING {schema.REMEMBERED_LONG}",
        f"flow_hours_local ON CLUSTER '{NAME}' MODIFY SETTING {schema.REMEMBERED_LONG}",
        "CODEC(",
        "Distributed(",
    ):
        assert any(text in sql for sql in made)
    for sql in dict.fromkeys(made):
        if not sql.startswith("INSERT"):
            assert f"ON CLUSTER '{NAME}'" in sql
            tree = str(chdb.query(f"EXPLAIN AST {sql}", "TabSeparated"))
            assert tree.split(maxsplit=1)[0] in {"CreateQuery", "AlterQuery", "DropQuery"}


class Killed(Exception):
    """The program ends between two statements."""


class Tables:
    """What servers have of columns, by table; some lack what a newer program has."""

    def __init__(self, layout: TableLayout, lacks: str) -> None:
        self.layout = layout
        tables = {schema.TABLE: schema.COLUMNS} | {one.name: one.columns for one in rollups.ROLLUPS}
        made = {name: [column.name for column in columns] for name, columns in tables.items()}
        made[schema.BOOKS] = list(books.COLUMNS)
        self.columns = {
            shown: [column for column in columns if column != lacks]
            for name, columns in made.items()
            for shown in (layout.own(name), name)
        }
        self.left = 1 << 20
        """Changes before it is killed."""
        self.recorded: list[tuple[object, ...]] = []
        """The last version of the schema, with the digest of its views."""

    def __call__(self, sql: str) -> list[tuple[object, ...]]:
        if sql.startswith("SELECT"):
            return self.found(sql)
        self.left -= 1
        if self.left < 0:
            raise Killed
        if recorded := re.search(r"SELECT (\d+), '(\w+)', now", sql):
            self.recorded = [(int(recorded[1]), recorded[2])]
        if not (match := re.match(r"\w+ TABLE (?:IF (?:NOT )?EXISTS )?db[.](\w+)", sql)):
            return []
        table = match[1]
        if sql.startswith("ALTER") and " COLUMN " in sql:
            self.columns[table] += re.findall(r"ADD COLUMN (\w+)", sql)
        elif sql.startswith("DROP"):
            self.columns.pop(table, None)
        elif copied := re.search(r"AS db[.](\w+) ENGINE", sql):
            self.columns.setdefault(table, list(self.columns.get(copied[1], ())))
        return []

    def found(self, sql: str) -> list[tuple[object, ...]]:
        if "SELECT version, views" in sql:
            return self.recorded
        if "compression_codec" in sql:
            return []
        if "FROM system.columns" in sql:
            (table,) = re.findall(r"table = '(\w+)'", sql)
            return [(name,) for name in self.columns.get(table, ())]
        if "FROM system.tables" in sql and "SELECT name, engine" in sql:
            every = schema.engines(self.layout)
            tables = {name: every.get(name, "Distributed") for name in self.columns}
            return list(tables.items())
        return [("",)] if "FROM system.tables" in sql else []


@pytest.mark.parametrize("lacks", ["sourceZone", "egressName", "sourceEndpointHash", "clusterUUID"])
def test_an_upgrade_that_is_killed_at_any_statement_goes_on(lacks: str) -> None:
    """What shows all servers' rows has in the end what they have, also what no view shows."""
    layout = TableLayout("db", NAME)
    kept = Retention(0, 0, 0)
    newest = Tables(layout, "")
    Migration(newest, layout, MODERN, kept).run()
    for changes in itertools.count():
        tables = Tables(layout, lacks)
        if lacks not in "".join(schema.shown(layout).values()):
            tables.recorded = newest.recorded
        tables.left = changes
        try:
            Migration(tables, layout, MODERN, kept).run(renew=True)
            killed = False
        except Killed:
            killed = True
        tables.left = 1 << 20
        Migration(tables, layout, MODERN, kept).run(renew=True)
        assert lacks in tables.columns[layout.own(schema.TABLE)]
        assert tables.columns[schema.BOOKS] == list(books.COLUMNS)
        for name in (schema.TABLE, schema.BOOKS, *(one.name for one in rollups.ROLLUPS)):
            assert tables.columns[name] == tables.columns[layout.own(name)], (name, changes)
        if not killed:
            break
    assert changes > 10


def test_settings_of_tables_and_inserts_that_the_modern_engine_knows() -> None:
    known = "SELECT count() FROM system.{} WHERE name IN ({})"
    for table, names in (
        (
            "merge_tree_settings",
            ["replicated_deduplication_window", schema.REMEMBERED_LONG.split(" ", 1)[0]],
        ),
        (
            "settings",
            [
                "insert_distributed_sync",
                "insert_deduplicate",
                "insert_deduplication_token",
                "distributed_ddl_task_timeout",
            ],
        ),
    ):
        wanted = ", ".join(f"'{name}'" for name in names)
        assert str(chdb.query(known.format(table, wanted))).strip() == str(len(names))


ENGINE = """<clickhouse><tcp_port>9000</tcp_port>
<macros><shard>7</shard><replica>b</replica></macros><remote_servers><{name}><shard>
<internal_replication>true</internal_replication>{replicas}</shard></{name}></remote_servers>
</clickhouse>"""
ITSELF = "<replica><host>localhost</host><port>9000</port></replica>"
"""A server of the cluster that is the process itself: nothing listens."""
AGAIN = "<replica><host>127.0.0.1</host><port>9000</port></replica>"
"""The same, known as another."""
AWAY = "<replica><host>127.0.0.1</host><port>1</port></replica>"

IN_THE_ENGINE = """
import json, sys
from chdb.session import Session
session = Session(sys.argv[1] + "/store?config-file=" + sys.argv[1] + "/engine.xml")
answers = [str(session.query(sql, "TabSeparated")) for sql in json.load(sys.stdin)]
json.dump(answers, sys.stdout)
"""


def in_the_engine(
    path: Path, layout: TableLayout, statements: Sequence[str], replicas: str = ITSELF
) -> list[str]:
    """Execute in a modern engine that is a cluster of itself: all but replication, and Keeper."""
    written = [
        re.sub(r"Replicated(\w*MergeTree)\(.*?\)", r"\1", sql)
        .replace(f", {schema.REMEMBERED_LONG}", "")
        .replace(" replicated_dedup", " non_replicated_dedup")
        .replace(layout.everywhere, "")
        for sql in statements
    ]
    (path / "engine.xml").write_text(ENGINE.format(name=NAME, replicas=replicas))
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_ENGINE, path],
        input=json.dumps(["CREATE DATABASE db", *written]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[str] = json.loads(done.stdout)
    return answers


def test_the_modern_engine_shows_what_is_written_and_where(tmp_path: Path) -> None:
    """With the schema's own statements, all but replication, which the embedded engine has not."""
    layout = TableLayout("db", NAME)
    tables = [schema.create_table(layout, MODERN, 0), books.create_books(layout, MODERN, 0)]
    made = [*tables, *schema.shown(layout).values()]
    insert = (
        "INSERT INTO db.flow_records (flowEndSeconds, sourcePodName, octetDeltaCount)"
        " SETTINGS insert_distributed_sync = 1, insert_deduplication_token = '{}'"
        " VALUES (1790000000, 'a', 5), (1790000000, 'b', 6)"
    )
    ask = (
        "SELECT sourcePodName, sum(octetDeltaCount) FROM {} WHERE"
        " flowEndSeconds > toDateTime(1780000000) GROUP BY sourcePodName ORDER BY sourcePodName"
    )
    asked = [ask.format(f"db.{name}") for name in ("flows", "flows_pod_view")]
    again = [insert.format("batch"), insert.format("batch"), insert.format("another")]
    view = View.of(layout, replace(MODERN, all_replicas=True))
    options = ", ".join(f"{name} = {value}" for name, value in view.options.items())
    where = [
        f"{sql} SETTINGS {options}"
        for sql in (partitions_sql(layout, view), disks_sql(layout, view))
    ]
    where.append(oldest_day_sql(layout))
    statements = [*made, *again, *where, *asked, "SELECT * FROM db.flows"]
    *_, partitions, disks, oldest, flows, pods, everything = in_the_engine(
        tmp_path, layout, statements
    )
    assert oldest == "20260921\n"
    assert flows == pods == "a\t10\nb\t12\n"
    assert [len(line.split("\t")) for line in everything.splitlines()] == [
        len(schema.FLOWS_COLUMNS)
    ] * 4
    rows = [[line.split("\t") for line in text.splitlines()] for text in (partitions, disks)]
    (server,) = read_servers(layout, *rows)
    assert (server.shard, server.name) == ("7", "b")
    (partition,) = server.partitions
    assert (partition.table, partition.rows) == (schema.TABLE, 4)
    assert partition.begin_s <= 1_790_000_000 < partition.end_s == partition.begin_s + 3600
    assert server.disks[0].total > server.disks[0].free > 0
    drop = drop_sql(layout, partition)
    assert f".flow_records_local ON CLUSTER '{NAME}' DROP PARTITION ID" in drop
    for sql in (drop, create_dropped(layout)):
        tree = str(chdb.query(f"EXPLAIN AST {sql}", "TabSeparated"))
        assert tree.split(maxsplit=1)[0] in {"CreateQuery", "AlterQuery"}


def test_an_insert_of_any_replica_is_seen_also_while_one_is_away(tmp_path: Path) -> None:
    """Who begins reads what was written once none is under way; its server may be another one.

    The INSERT that is seen is the one that stores what was seen.
    """
    layout = TableLayout("db", NAME)
    view = View.of(layout, replace(MODERN, all_replicas=True))
    options = ", ".join(f"{name} = {value}" for name, value in view.options.items())
    statements = [
        "CREATE TABLE db.flow_records_seen (number UInt8) ENGINE = Memory",
        f"INSERT INTO db.flow_records_seen {running_sql(view)} SETTINGS {options}",
        "SELECT number FROM db.flow_records_seen",
    ]
    *_, seen = in_the_engine(tmp_path, layout, statements, replicas=ITSELF + AWAY + AGAIN)
    assert seen == "2\n"


def test_the_modern_engine_rolls_up_once_over_distributed_tables(tmp_path: Path) -> None:
    layout = TableLayout("db", NAME)
    tables = [schema.create_table(layout, MODERN, 0), books.create_books(layout, MODERN, 0)]
    tables += [*schema.shown(layout).values(), rolls.create_rolled(layout)]
    for rollup in rollups.ROLLUPS:
        tables += [rollups.create(layout, MODERN, rollup, 0), rollups.over_all(layout, rollup)]
    insert = (
        "INSERT INTO db.flow_records (flowEndSeconds, timeInsertedResidual, writer, batchNumber,"
        " sourcePodName, octetDeltaCount) SELECT toDateTime(1790000000) + number % 7200,"
        " 100000 - number % 7200, 'w', {}, toString(number % 7), number FROM numbers(10000)"
    )
    inserts = [insert.format(number) for number in (1, 2)]
    batch_ids = [BatchId("w", 1_790_100_000, number) for number in (1, 2)]
    batches = tuple(
        rolls.StoredBatch(one, 10_000, 1_790_000_000, 1_790_007_199) for one in batch_ids
    )
    rolled = []
    for rollup in rollups.ROLLUPS:
        for part in (batches[:1], batches[1:]):
            roll = rolls.Roll(rollup, f"r{part[0].batch_id.number}", part)
            options = {**rolls.WHOLE_BLOCK, **CLUSTER_INSERT, **ROLLED_INSERT}
            options["insert_deduplication_token"] = roll.token
            settings = ", ".join(f"{name} = {value!r}" for name, value in options.items())
            once = f"{rolls.roll_sql(layout, roll)} SETTINGS {settings}"
            notes = [rolls.note_sql(layout, roll, done=done) for done in (False, True)]
            rolled += [notes[0], once, once, notes[1]]
    spans = [
        rollups.sums_sql(layout, table, 0, 2_000_000_000)
        for table in (schema.TABLE, *(rollup.name for rollup in rollups.ROLLUPS))
    ]
    found = in_the_engine(
        tmp_path,
        layout,
        [
            *tables,
            *inserts,
            rolls.batches_sql(layout, 0, {}),
            *rolled,
            *spans,
            rolls.batches_sql(layout, 0, {}),
        ],
    )
    before = found[1 + len(tables) + len(inserts)]
    *_, records, minutes, hours, after = found
    assert records == minutes == hours
    assert records.split("\t")[:5] == ["99990000", "0", "0", "0", "20000"]
    assert (before.count("\n"), after) == (2, "")


def hours_on(store: Store, first: int) -> list[int]:
    """The hours of insertion of what a server has itself, from `first` on."""
    hour = "intDiv(toUInt32(timeInserted), 3600)"
    rows = store.query(f"SELECT DISTINCT {hour} AS hour FROM flows_local ORDER BY hour").rows
    return [int(row[0]) - first for row in rows]


def test_oldest_hours_go_on_all_servers(
    connect: Connect,
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two aggregators that see the same, and with a replica that is away."""
    stores = [connect(), connect(1, 1)]
    for store in stores:
        store.migrate()
    first, hours = EPOCH // 3600, 4
    for n in range(hours):
        stores[0].insert(flows(ROWS), BatchId("test", (first + n) * 3600 + 5))
    until_all_have(connect, hours * ROWS)
    partitions = stores[0].partitions
    assert partitions is not None
    assert {each.shard for each in partitions.servers()} == {"0", "1"}
    sizes = [each.bytes for each in partitions.servers() if each.shard == "0"]
    settings = MonitorSettings(limits=Limits(1.0, 0.0, int(max(sizes) * 0.7)), skip_rounds=2)
    now_s = (first + hours) * 3600
    gone = min(whole(partitions.servers()).values(), key=lambda each: each.end_s)
    monitors = [Monitor(store, settings, clock=lambda: now_s) for store in stores]
    with caplog.at_level(logging.WARNING, "flowvis.clickhouse.monitor"):
        asyncio.run(monitors[0].look())
    until_all_have(connect, (hours - 2) * ROWS)
    for server in SERVERS:
        assert hours_on(connect(*server), first) == [2, 3]
    stats = monitors[0].stats
    assert (stats.dropped_partitions, stats.dropped_records) == (2, 2 * ROWS), "replicas count once"
    assert f"{ROWS} rows" in caplog.text
    assert "storageSize" in caplog.text
    assert partitions.drop(gone), "as one who looked at the same moment would: nothing happens"
    monitors[1]._settings = replace(settings, limits=Limits(1.0, 0.0, 1))
    for _ in range(2):
        asyncio.run(monitors[1].look())
        assert monitors[1].stats.dropped_partitions == 0, "another aggregator has just made room"
    assert stores[1].begins == stores[0].begins == {schema.TABLE: (first + 2) * 3600}
    away = cluster.servers[0, 1]
    away.kill()
    try:
        with monkeypatch.context() as patched:
            patched.setattr("flowvis.clickhouse.stored_partitions.PATIENCE_S", 2)
            asyncio.run(monitors[1].look())
        block_until(lambda: hours_on(connect(1, 0), first) == [3])  # the newest stays
        assert "all else is of the newest hour" in monitors[1].problem
        assert monitors[1].stats.short_bytes > 0
    finally:
        away.start()

    def dropped() -> bool:
        """At the next look at the latest: a shard whose leader was away may have done nothing."""
        monitors[1]._skip = 0
        asyncio.run(monitors[1].look())
        return all(hours_on(connect(*server), first) == [3] for server in SERVERS)

    block_until(dropped, despite=(StoreError,))
    until_all_have(connect, ROWS)
