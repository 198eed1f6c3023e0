"""The schema of each released version, with records in place, becomes today's: nothing changes.

`schemas/` has what a program of each version made: its tables and views as the server showed them,
the stored rows, and what `flows` showed of them. Files are of the modern engine, embedded,
or of 18.16.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.rollup_tables import differences
from flowvis.clickhouse.schema import books
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rollups import HOURS, ROLLUPS
from flowvis.clickhouse.store import Store, StoreSettings, open_store

from .conftest import FOREVER, admin
from .samples import random_batch

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.json"))
ENTRIES = [books.BookEntry("collector", books.What.RECEIVED, 5)]
_numbers = itertools.count()


@pytest.fixture(params=SCHEMAS, ids=lambda path: path.stem)
def dumped(request: pytest.FixtureRequest) -> Iterator[tuple[Store, dict[str, Any]]]:
    """A store as an older program has left it, and the dump that it was made of."""
    dump = json.loads(request.param.read_text())
    modern = request.param.stem.endswith("modern")
    url = (
        f"embedded://{request.getfixturevalue('directory')}"
        if modern
        else request.getfixturevalue("server").url
    )
    database = f"older{next(_numbers)}"
    store = open_store(StoreSettings(url, database=database, **FOREVER))
    store._probe()  # type: ignore[attr-defined]
    run = admin(store)
    run(f"CREATE DATABASE {database}")
    for statement in dump["statements"]:
        run(statement.format(database=database))
    for table, data in dump["data"].items():
        run(insert_sql(f"{database}.{table}", data["columns"], data["rows"]))
    for moment_s in (1_790_000_100, 1_790_000_160):  # as all of these programs did
        run(
            f"INSERT INTO {database}.{schema.BOOKS}"
            " (time, seconds, stage, node, what, reason, records, writer)"
            f" SELECT toDateTime({moment_s}), 60, 'collector', '', 'received', '', 7, 'older'"
        )
    yield store, dump
    store.close()


def insert_sql(
    table: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]]
) -> str:
    selects = []
    for row in rows:
        values = (literal(of, value) for (_, of), value in zip(columns, row, strict=True))
        selects.append(f"SELECT {', '.join(values)}")
    names = ", ".join(name for name, _ in columns)
    return f"INSERT INTO {table} ({names}) {' UNION ALL '.join(selects)}"


def literal(of: str, value: Any) -> str:
    if of.startswith("FixedString"):
        return f"toFixedString(unhex('{value}'), 16)"
    if "String" in of:
        escaped = str(value).replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"'{escaped}'"
    return f"to{of}({value})" if of != "UInt64" else f"toUInt64('{value}')"


@pytest.mark.clickhouse
def test_a_released_schema_becomes_todays(dumped: tuple[Store, dict[str, Any]]) -> None:
    store, dump = dumped
    store.migrate()
    run, database = admin(store), store.name.rsplit("/", 1)[1]
    shown = f"SELECT {', '.join(dump['flows']['columns'])} FROM {database}.flows"
    assert sorted([*map(str, row)] for row in run(shown)) == dump["flows"]["rows"]
    assert {row[0] for row in run(columns(database))} == {column.name for column in schema.COLUMNS}
    assert [row[0] for row in run(columns(database, schema.BOOKS))] == list(books.COLUMNS)
    of_books = f"SELECT * FROM {database}.{schema.BOOKS}"
    assert [list(row)[-1] for row in run(of_books)] == ["", ""]
    store.keep(books.Page(BatchId("newer", 1_790_007_400), 60, ENTRIES, "east"))
    clusters = f"SELECT clusterUUID, count() FROM {database}.{schema.BOOKS} GROUP BY clusterUUID"
    assert sorted(run(clusters)) == [("", 2), ("east", 1)]
    # What comes now lies beside it, and both are rolled up.
    batch = random_batch(30, seed=1)
    store.insert(batch, BatchId("newer", 1_790_007_400))
    assert run(f"SELECT count() FROM {database}.flows") == [(42,)]
    if store.rollups is None:
        return
    asyncio.run(Roller(store, "newer").look(everything=True))
    for rollup in ROLLUPS:
        assert run(f"SELECT sum(records) FROM {database}.{rollup.name}") == [(42,)]
    assert not differences(store.rollups, 0, 3600 * 1_000_000)
    before = run(f"SHOW CREATE TABLE {database}.flow_minutes")
    hours = str(run(f"SHOW CREATE TABLE {database}.flow_hours"))
    assert all(f"PROJECTION {projection.name}" in hours for projection in HOURS.projections)
    store.migrate()
    assert run(f"SHOW CREATE TABLE {database}.flow_minutes") == before
    assert str(run(f"SHOW CREATE TABLE {database}.flow_hours")) == hours


def columns(database: str, table: str = schema.TABLE) -> str:
    return f"SELECT name FROM system.columns WHERE database = '{database}' AND table = '{table}'"


@pytest.mark.clickhouse
def test_there_are_dumps_of_both_engines() -> None:
    assert {path.stem.rsplit("-", 1)[1] for path in SCHEMAS} == {"modern", "18.16"}
    assert len(SCHEMAS) >= 4
