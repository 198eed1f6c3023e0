"""Creating and upgrading the schema, on both engines; and what a server has to go without."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flowvis.clickhouse.schema import rollups
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.ends import ENDS, NUMBERS, end_number_sql
from flowvis.clickhouse.schema.features import Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.retention import LONGEST_S
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS
from flowvis.clickhouse.server import ServerStore
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import StoreError

from .conftest import MakeStore, admin
from .samples import flows
from .server import Server

MODERN = Features("26.9.1.1", True, True, True, True, False)
BATCH = BatchId("test", 1_790_000_100)


@pytest.mark.clickhouse
def test_migrating_again_changes_nothing(store: Store, settings: StoreSettings) -> None:
    first = tables(store, settings)
    store.insert(flows(7), BATCH)
    store.migrate()
    assert tables(store, settings) == first
    count = f"SELECT count() FROM {settings.database}.flows"
    assert store.query(count).rows == [[7]]
    versions = f"SELECT count() FROM {settings.database}.{schema.VERSIONS}"
    assert store.query(versions).rows == [[1]]


def tables(store: Store, settings: StoreSettings) -> list[list[object]]:
    answer = store.query(
        "SELECT name, engine FROM system.tables"
        f" WHERE database = '{settings.database}' ORDER BY name"
    )
    return [list(row) for row in answer.rows]


@pytest.mark.clickhouse
def test_what_there_is(store: Store, settings: StoreSettings) -> None:
    rollups = [
        ["flow_hours", "AggregatingMergeTree"],
        ["flow_minutes", "AggregatingMergeTree"],
        ["flow_rolled", "MergeTree"],
    ]
    expected = [
        ["flow_books", "MergeTree"],
        *(rollups if settings.database_url.startswith("embedded") else []),
        ["flow_records", "MergeTree"],
        ["flows", "View"],
        ["flows_node_view", "View"],
        ["flows_pod_view", "View"],
        ["flows_policy_view", "View"],
        ["flowvis_schema", "MergeTree"],
    ]
    assert tables(store, settings) == sorted(expected)


@pytest.mark.clickhouse
def test_columns_of_a_newer_program_are_added(store: Store, settings: StoreSettings) -> None:
    """An older program's table: some columns are not there yet, and there are records."""
    store.insert(flows(7), BATCH)
    run = admin(store)
    table = f"{settings.database}.{schema.TABLE}"
    for name in (
        *NUMBERS.values(),
        *("proxySnatPort", "octetTotalCountFromSourceNodeResidual", "egressNodeName"),
        *("sourceWorkloadKind", "sourceWorkloadName", "destinationWorkloadKind"),
        *("sourceZone", "destinationRegion"),
    ):
        run(f"ALTER TABLE {table} DROP COLUMN {name}")
    run(f"DROP TABLE {settings.database}.flows_pod_view")
    store.migrate()
    batch = flows(5)
    batch["sourceWorkloadName"] = batch.strings.encode(["web"] * 5)
    batch["sourceZone"] = batch.strings.encode(["eu-1a"] * 5)
    store.insert(batch, BatchId("test", 1_790_000_100, 1))
    answer = store.query(
        "SELECT count(), sum(proxySnatPort), sum(octetTotalCount), any(egressNodeName),"
        " countIf(sourceWorkloadName = 'web'), countIf(sourceWorkloadName = ''),"
        " countIf(sourceZone = 'eu-1a'), countIf(sourceZone = '')"
        f" FROM {settings.database}.flows"
    )
    assert answer.rows == [[12, 0, 1200, "", 5, 7, 5, 7]]
    view = f"SELECT count() FROM {settings.database}.flows_pod_view"
    assert store.query(view).rows == [[12]]
    of_ends = [f"countIf({NUMBERS[end]} = {end_number_sql(end)})" for end in ENDS]
    assert run(f"SELECT {', '.join(of_ends)} FROM {table}") == [(12, 12)]


@pytest.mark.clickhouse
def test_books_of_an_older_program_get_their_cluster(store: Store, settings: StoreSettings) -> None:
    """What is there is of no cluster; such programs write on, beside newer ones."""
    run, table = admin(store), f"{settings.database}.{schema.BOOKS}"
    older = (
        f"INSERT INTO {table} (time, seconds, stage, node, what, reason, records, writer)"
        " SELECT toDateTime({}), 60, 'collector', '', 'received', '', 4, 'older'"
    )
    run(f"ALTER TABLE {table} DROP COLUMN clusterUUID")
    run(older.format(1_790_000_040))
    made = "SELECT count(), min(changed) FROM {}.{}"
    views = run(made.format(settings.database, schema.VERSIONS))
    for _ in range(2):
        store.migrate()
    run(older.format(1_790_000_100))
    page = Page(BATCH, 60, [BookEntry("collector", What.RECEIVED, 5)], "east")
    store.keep(page)
    found = store.query(f"SELECT clusterUUID, sum(records) FROM {table} GROUP BY clusterUUID")
    assert sorted(map(list, found.rows)) == [["", 8], ["east", 5]]
    assert run(made.format(settings.database, schema.VERSIONS)) == views  # nothing else is new


@pytest.mark.clickhouse
def test_roll_ups_of_an_older_program_are_compressed_as_new_ones(
    store: Store, settings: StoreSettings
) -> None:
    """But for what somebody else chose; and a server without GCD is not asked for it."""
    if store.rollups is None:
        return
    run = admin(store)
    for rollup in ROLLUPS:
        table = f"{settings.database}.{rollup.name}"

        def shown(table: str = table) -> str:
            return str(run(f"SHOW CREATE TABLE {table}")[0][0])

        made = shown()
        of_minutes, of_hours = (
            f"`time` DateTime CODEC({codec})" for codec in ("GCD, DoubleDelta, ZSTD(1)", "ZSTD(7)")
        )
        assert (of_minutes in made, of_hours in made) == (rollup is MINUTES, rollup is HOURS)
        run(f"ALTER TABLE {table} RESET SETTING min_compress_block_size")
        run(
            f"ALTER TABLE {table} MODIFY COLUMN time DateTime CODEC(Delta, ZSTD(1)),"
            " MODIFY COLUMN flowType UInt8 CODEC(ZSTD(1)),"
            " MODIFY COLUMN protocolIdentifier UInt8 CODEC(LZ4)"
        )
        store.migrate()
        chosen = made.replace(
            "`protocolIdentifier` UInt8 CODEC(ZSTD(7))", "`protocolIdentifier` UInt8 CODEC(LZ4)"
        )
        assert sorted(re.split(", |\n", shown())) == sorted(re.split(", |\n", chosen))
        run(f"ALTER TABLE {table} MODIFY SETTING min_compress_block_size = 100000")
        before = shown()
        store.migrate()
        assert shown() == before
        older = replace(MODERN, divides=False)
        assert "GCD" not in rollups.create(TableLayout("db"), older, rollup, 0)


@pytest.mark.clickhouse
def test_views_of_an_older_program_are_made_anew(store: Store, settings: StoreSettings) -> None:
    run = admin(store)
    run(f"DROP TABLE {settings.database}.flows")
    run(f"CREATE VIEW {settings.database}.flows AS SELECT 1 AS old")
    run(
        f"INSERT INTO {settings.database}.{schema.VERSIONS} SELECT {schema.VERSION}, 'older',"
        " toDateTime(4000000000)"
    )
    store.migrate()
    answer = store.query(f"SELECT * FROM {settings.database}.flows")
    assert tuple(answer.names) == schema.FLOWS_COLUMNS


WITH_RIGHTS = """
import json, sys
from flowvis.clickhouse import embedded_engine
from flowvis.clickhouse.schema.features import probe
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.store import StoreSettings, open_store

role = f"<roles><writer><grants><query>GRANT {sys.argv[2]} ON db.*</query></grants></writer>"
configuration = embedded_engine._CONFIGURATION.replace("<roles>", role)
embedded_engine._CONFIGURATION = configuration.replace("GRANT owner,", "GRANT owner, writer,")
store = open_store(StoreSettings(f"embedded://{sys.argv[1]}/store", database="db"))
session = store._engine.open()

def execute(sql):
    with embedded_engine.engine_errors("engine"):
        answer = session.query(sql, "JSONCompact").bytes()
    return [tuple(row) for row in json.loads(answer)["data"]] if answer else []

execute("SET ROLE writer")
migration = Migration(execute, TableLayout("db"), probe(execute), Retention(0, 0, 0))
undone = [migration.run()]
older = "SELECT version, 'older', now() + 9 FROM db.flowvis_schema"
store._execute(f"INSERT INTO db.flowvis_schema {older}")
store._execute("ALTER TABLE db.flow_records DROP COLUMN trusted")
undone.append(migration.run())
execute("INSERT INTO db.flow_records (flowEndSeconds, trusted) SELECT 1790000000, 1")
print(json.dumps([undone, execute("SELECT trusted FROM db.flows")]))
"""


@pytest.mark.parametrize("lacks", ["", ", DROP"])
def test_the_rights_of_the_pages_suffice_for_an_upgrade(lacks: str, tmp_path: Path) -> None:
    """Without one that they had not had, records are written on, and what is not done is said."""
    page = Path(__file__).parents[2] / "docs" / "clickhouse.md"
    match = re.search(r"rights \(([A-Z, ]+) on one database", page.read_text())
    assert match is not None
    rights = match[1].replace(lacks, "") if lacks else match[1]
    done = subprocess.run(
        [sys.executable, "-c", WITH_RIGHTS, tmp_path, rights], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (first, second), shown = json.loads(done.stdout.splitlines()[-1])
    assert (first, shown) == ([], [[1]])
    assert len(second) == bool(lacks)
    assert all("DROP VIEW ON db.flows" in line for line in second)


@pytest.mark.clickhouse
def test_a_newer_schema_is_refused(store: Store, settings: StoreSettings) -> None:
    admin(store)(
        f"INSERT INTO {settings.database}.{schema.VERSIONS} SELECT"
        f" {schema.VERSION + 1}, 'newer', now()"
    )
    with pytest.raises(StoreError, match="upgrade the flow-aggregator") as caught:
        store.migrate()
    assert not caught.value.retryable


@pytest.mark.clickhouse
def test_a_foreign_flows_table_is_not_touched(
    make_store: MakeStore, settings: StoreSettings
) -> None:
    store = make_store()
    run = admin(store)
    run(f"CREATE DATABASE {settings.database}")
    run(
        f"CREATE TABLE {settings.database}.flows (timeInserted DateTime, sourceIP String)"
        " ENGINE = MergeTree ORDER BY timeInserted"
    )
    with pytest.raises(StoreError, match="RENAME TABLE flows TO flows_before") as caught:
        store.migrate()
    assert not caught.value.retryable
    assert tables(store, settings) == [["flows", "MergeTree"]]


@pytest.mark.clickhouse
def test_what_an_old_server_goes_without(server_settings: StoreSettings) -> None:
    store = open_store(replace(server_settings, ttl_s=3600))
    try:
        left_out = store.migrate()
    finally:
        store.close()
    assert [line.split(" has no ")[-1].split(":")[0] for line in left_out[:2]] == [
        "column codecs",
        "TTL",
    ]
    assert "repeated INSERT" in left_out[2]
    assert all("18.16" in line for line in left_out)


@pytest.mark.clickhouse
def test_a_server_that_another_version_has_replaced_is_asked_what_it_can(
    server_settings: StoreSettings,
) -> None:
    store = open_store(server_settings)
    assert isinstance(store, ServerStore)
    try:
        store._features = MODERN  # as that one said
        assert any("18.16" in line for line in store.migrate())
        store.insert(flows(3), BATCH)
        assert store.query("SELECT count() FROM flows").rows == [[3]]
    finally:
        store.close()


@pytest.mark.clickhouse
def test_the_modern_engine_goes_without_nothing(
    make_store: MakeStore, settings: StoreSettings
) -> None:
    if settings.database_url.startswith("embedded"):
        assert make_store(ttl_s=3600).migrate() == []


@pytest.mark.clickhouse
def test_a_store_says_how_long_it_keeps_records(
    make_store: MakeStore, settings: StoreSettings
) -> None:
    store = make_store(ttl_s=3600)
    left_out = store.migrate()
    assert store.kept.records_s == (0 if any("TTL" in line for line in left_out) else 3600)
    assert settings.database_url.startswith("embedded") == (store.kept.records_s == 3600)


@pytest.mark.clickhouse
def test_records_that_ended_after_their_commit_expire_as_well(embedded: Store) -> None:
    """By clocks that differ; also in a table that an older program made."""
    database = embedded.name.rsplit("/", 1)[1]
    run, table = admin(embedded), f"{database}.{schema.TABLE}"
    before = f"{schema.INSERTED_SQL} + toIntervalSecond(3600)"
    run(f"ALTER TABLE {table} MODIFY TTL {before} SETTINGS materialize_ttl_after_modify = 0")
    young_s = int(time.time())

    def insert(number: int) -> None:
        """Store two records that ended before they were, one then, and two after it; two times."""
        for at_s in (BATCH.inserted_s, young_s):
            embedded.insert(flows(5, end_s=at_s - 2), BatchId("test", at_s, number))

    def there() -> list[tuple[int, int]]:
        run(f"OPTIMIZE TABLE {table} FINAL")
        sql = f"SELECT toUInt32(timeInserted) AS at, count() FROM {database}.flows"
        return [(int(at), int(n)) for at, n in run(f"{sql} GROUP BY at ORDER BY at")]

    insert(0)
    store = open_store(replace(embedded._settings, ttl_s=3600))  # type: ignore[attr-defined]
    store.migrate()
    there()
    run(f"ALTER TABLE {table} MATERIALIZE TTL SETTINGS mutations_sync = 2")  # as the changelog says
    assert there() == [(young_s, 5)]
    insert(1)
    store.migrate()
    assert there() == [(young_s, 10)]
    store.close()


@pytest.mark.clickhouse
def test_ttl_follows_the_settings(make_store: MakeStore, settings: StoreSettings) -> None:
    if not settings.database_url.startswith("embedded"):
        return
    for ttl_s in (3600, 7200, 0, 60):
        books_s = ttl_s and 3 * ttl_s
        ttls = {schema.TABLE: ttl_s, schema.BOOKS: books_s}
        ttls |= {MINUTES.name: ttl_s and 2 * ttl_s, HOURS.name: books_s}
        store = make_store(
            ttl_s=ttl_s, minutes_ttl_s=ttls[MINUTES.name], hours_ttl_s=ttls[HOURS.name]
        )
        store.migrate()
        engine = f"SELECT engine_full FROM system.tables WHERE database = '{settings.database}'"
        for table, kept_s in ttls.items():
            found = str(store.query(f"{engine} AND name = '{table}'").rows[0][0])
            assert (f"toIntervalSecond({kept_s})" in found) == bool(kept_s)
            assert (" TTL " in found) == bool(kept_s)
    store.insert(flows(5), BATCH)  # long ago
    store.keep(Page(BATCH, 60, [BookEntry("collector", What.RECEIVED, 5)]))
    for table in (schema.TABLE, schema.BOOKS):
        admin(store)(f"OPTIMIZE TABLE {settings.database}.{table} FINAL")
        assert store.query(f"SELECT count() FROM {settings.database}.{table}").rows == [[0]]


@pytest.mark.clickhouse
def test_the_longest_ttl_keeps_all(make_store: MakeStore, settings: StoreSettings) -> None:
    ttls = dict.fromkeys(("ttl_s", "minutes_ttl_s", "hours_ttl_s"), LONGEST_S)
    store = make_store(**ttls)
    store.migrate()
    store.insert(flows(5), BATCH)
    store.keep(Page(BATCH, 60, [BookEntry("collector", What.RECEIVED, 5)]))
    for table, rows in ((schema.TABLE, 5), (schema.BOOKS, 1)):
        admin(store)(f"OPTIMIZE TABLE {settings.database}.{table} FINAL")
        assert store.query(f"SELECT count() FROM {settings.database}.{table}").rows == [[rows]]


@pytest.mark.clickhouse
def test_credentials(server: Server, server_settings: StoreSettings) -> None:
    good = open_store(replace(server_settings, username="writer", password="secret"))
    bad = open_store(replace(server_settings, username="writer", password="wrong"))
    try:
        good.migrate()
        with pytest.raises(StoreError, match="Wrong password"):
            bad.migrate()
    finally:
        good.close()
        bad.close()
    assert "secret" not in repr(server_settings)
    assert "wrong" not in repr(replace(server_settings, password="wrong"))


def test_ddl_mentions_every_column_and_codec() -> None:
    ddl = schema.create_table(TableLayout("db"), MODERN, 3600)
    for column in schema.COLUMNS:
        default = f" DEFAULT {column.default}" if column.default else ""
        assert f"    {column.name} {column.type}{default} CODEC({column.codec})" in ddl
    assert "TTL" in ddl
    assert "non_replicated_deduplication_window" in ddl
    old = schema.create_table(
        TableLayout("db"), Features("18.16.1", False, False, False, False, True), 3600
    )
    assert "CODEC" not in old
    assert "TTL" not in old


def test_documentation_has_every_column() -> None:
    table = schema.documentation()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(
        schema.FLOWS_COLUMNS
    )
