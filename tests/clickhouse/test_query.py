"""Queries on their way, at both engines: pieces, limits, and an end at any time."""

import json
import threading
from dataclasses import replace

import pytest

from flowvis.clickhouse import server as server_module
from flowvis.clickhouse.query import PIECE_ROWS, QueryLimits
from flowvis.clickhouse.store import QuerySettings, Store, StoreSettings, open_store
from flowvis.errors import StoreError
from waiting import PATIENCE_S, block_until

from .conftest import MakeStore, admin

HEAVY = "SELECT groupArray(number) FROM (SELECT number FROM system.numbers LIMIT 100000000)"
ENDLESS = "SELECT count() FROM system.numbers"


def limited(make_store: MakeStore, **limits: int) -> Store:
    store = make_store(queries=QuerySettings(limits=QueryLimits(**limits)))
    store.migrate()
    return store


@pytest.mark.clickhouse
def test_rows_come_in_pieces_and_all_of_them(store: Store) -> None:
    query = store.ask("SELECT number, toString(number) FROM system.numbers", max_rows=30_000)
    pieces = list(query.pieces())
    assert max(map(len, pieces)) <= PIECE_ROWS
    rows = [json.loads(row) for piece in pieces for row in piece]
    assert rows == [[n, str(n)] for n in range(30_000)]
    assert query.truncated
    assert list(query.types) == ["UInt64", "String"]


@pytest.mark.clickhouse
def test_no_rows_have_a_heading(store: Store, settings: StoreSettings) -> None:
    result = store.query(f"SELECT octetDeltaCount AS o, tcpState FROM {settings.database}.flows")
    assert (list(result.names), list(result.rows)) == (["o", "tcpState"], [])
    assert result.types[0] == "UInt64"


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    "statement", ["SHOW TABLES", "DESCRIBE TABLE flows", "EXISTS TABLE flows", "DESC flows"]
)
def test_what_is_no_select_is_answered_too(store: Store, statement: str) -> None:
    assert store.query(statement).rows


@pytest.mark.clickhouse
def test_values_that_json_does_not_have(store: Store) -> None:
    result = store.query("SELECT nan AS a, inf AS b, [1.5, -inf] AS c, 'a\x1b\n' AS d")
    assert result.rows == [[None, None, [1.5, None], "a\x1b\n"]]


@pytest.mark.clickhouse
def test_a_reason_quotes_texts_that_are_no_utf_8(server_settings: StoreSettings) -> None:
    """As a record's text: the reason and its code are told all the same, and what is next runs."""
    store = open_store(replace(server_settings, database="default"))
    with pytest.raises(StoreError, match=r"Cannot parse.*\ufffd") as caught:
        store.query("SELECT toUInt16(unhex('C328'))")
    assert caught.value.code == 6
    assert store.query("SELECT 4").rows == [[4]]
    store.close()


@pytest.mark.clickhouse
def test_memory_is_limited(make_store: MakeStore) -> None:
    store = limited(make_store, memory_bytes=50 << 20)
    with pytest.raises(StoreError, match=r"(?i)memory limit"):
        store.query(HEAVY)
    assert store.query("SELECT 1").rows == [[1]]


@pytest.mark.clickhouse
@pytest.mark.parametrize("statement", ["SELECT\n{}", "select\t{}", "WITH\n1 AS a SELECT {}"])
def test_rows_come_as_they_are_found_however_it_is_written(
    make_store: MakeStore, statement: str
) -> None:
    """So an answer may have more than a query may have in memory."""
    store = limited(make_store, memory_bytes=100 << 20)
    rows = 300_000
    text = f"concat('{'x' * 500}', toString(number))"
    written = statement.format(f"{text} FROM system.numbers LIMIT {rows}")
    query = store.ask(written, max_rows=rows)
    assert sum(map(len, query.pieces())) == rows


@pytest.mark.clickhouse
def test_time_is_limited(make_store: MakeStore) -> None:
    store = limited(make_store, seconds=1)
    with pytest.raises(StoreError, match=r"(?i)timeout exceeded"):
        store.query(ENDLESS)


@pytest.mark.clickhouse
def test_an_answer_is_cut_where_it_is_too_large(make_store: MakeStore) -> None:
    store = limited(make_store, answer_bytes=1000)
    result = store.query("SELECT 'x' AS text FROM system.numbers", max_rows=100_000)
    assert len(result.rows) == 1000 // len('["x"]')
    assert result.truncated


@pytest.mark.clickhouse
def test_what_an_answer_takes_on_its_way_does_not_cut_it(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digit is eight bytes there and one in the answer, and progress is told between."""
    queries = QuerySettings(limits=QueryLimits(answer_bytes=1 << 20))
    store = make_store(queries=queries, compress=False)
    statement = "SELECT toUInt64(number % 10) FROM system.numbers LIMIT 300000"
    store.migrate()
    monkeypatch.setattr(server_module, "ANSWER_BYTES", 1 << 17)
    result = store.query(statement, max_rows=400_000)
    assert (len(result.rows), result.truncated) == (300_000, False)


def running(store: Store, what: str) -> int:
    """How many queries of this kind the engine has, apart from this one."""
    sql = f"SELECT count() FROM system.processes WHERE query LIKE '%{what}%'"
    found = admin(store)(sql + " AND query NOT LIKE '%processes%'")
    return int(found[0][0])


@pytest.mark.clickhouse
def test_a_query_that_is_cancelled_ends_at_the_engine(store: Store) -> None:
    query = store.ask(ENDLESS + " WHERE number != 4711")
    ended: list[BaseException] = []

    def run() -> None:
        try:
            query.result()
        except StoreError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    block_until(lambda: running(store, "4711") == 1)
    query.cancel()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert ended
    block_until(lambda: running(store, "4711") == 0)


@pytest.mark.clickhouse
def test_one_that_nobody_reads_on_ends_at_the_engine(store: Store) -> None:
    pieces = store.ask("SELECT number, 4711 FROM system.numbers", max_rows=1 << 40).pieces()
    assert len(next(pieces)) + len(next(pieces)) > 0
    block_until(lambda: running(store, "4711") == 1)
    pieces.close()  # type: ignore[attr-defined]
    block_until(lambda: running(store, "4711") == 0)


@pytest.mark.clickhouse
@pytest.mark.parametrize("user", ["limited", "fixed"])
def test_a_server_s_own_user_for_queries(server_settings: StoreSettings, user: str) -> None:
    """Users that may only read: with readonly = 2 they take our limits, with 1 their own."""
    queries = QuerySettings(user, user, QueryLimits(seconds=7))
    store = open_store(replace(server_settings, queries=queries))
    store.migrate()
    rows = store.query("SELECT name, value FROM system.settings WHERE name LIKE 'max_%'").rows
    found = {str(name): value for name, value in rows}
    assert found["max_memory_usage"] == "100000000"
    assert found["max_execution_time"] == ("7" if user == "limited" else "0")
    assert store.query("SELECT count() FROM flows").rows == [[0]]
    assert store.query("SELECT number FROM system.numbers", max_rows=3).truncated
    with pytest.raises(StoreError, match=r"(?i)memory limit"):
        store.query(HEAVY)
    store.close()
    mistaken = open_store(replace(server_settings, queries=QuerySettings(user, "wrong")))
    with pytest.raises(StoreError, match="Wrong password"):
        mistaken.query("SELECT 1")
