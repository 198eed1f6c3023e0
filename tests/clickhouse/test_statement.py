"""Which statements are run for people, by the check alone and at the engines behind it."""

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.clickhouse import embedded, server
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.statement import MAX_LENGTH, Parameter, bind, readable
from flowvis.clickhouse.store import QuerySettings, Store, StoreSettings, open_store
from flowvis.errors import StoreError

from .samples import flows

# {out}: a file that is not to be; {file}: one that is not to be read; {port}: one that nobody is to
# connect to; {db}: the database.
WRITES_FILES = r"""
SELECT 1 INTO OUTFILE '{out}'
SELECT 1 INTO OUTFILE '{out}' TRUNCATE
SELECT 1 into/* */outfile '{out}'
SELECT 1 INTO -- x\nOUTFILE '{out}'
SELECT 1 # '\n INTO OUTFILE '{out}' -- '
SELECT 1 #! '\n INTO OUTFILE '{out}' -- '
SELECT $$'$$ INTO OUTFILE '{out}' -- '
SELECT $tag$ ' $tag$ INTO OUTFILE '{out}' -- '
SELECT 1 // '\n INTO OUTFILE '{out}' -- '
SELECT /* /* */ ' */ 1 INTO OUTFILE '{out}' -- '
SELECT /* ' /* */ */ 1 INTO OUTFILE '{out}' -- '
SELECT "\"" INTO OUTFILE '{out}' -- "
SELECT `\`` INTO OUTFILE '{out}' -- `
SELECT \N{RIGHT SINGLE QUOTATION MARK} ' \N{RIGHT SINGLE QUOTATION MARK} INTO OUTFILE '{out}' -- '
SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{out}'
(SELECT 1) INTO OUTFILE '{out}'
WITH 1 AS a SELECT a INTO OUTFILE '{out}' FORMAT CSV
EXPLAIN SELECT 1 INTO OUTFILE '{out}'
SHOW TABLES INTO OUTFILE '{out}'
DESCRIBE TABLE {db}.flows INTO OUTFILE '{out}'
INSERT INTO FUNCTION file('{out}', 'TSV', 'a Int8') SELECT 1
WITH 1 AS a INSERT INTO FUNCTION file('{out}', 'TSV', 'a Int8') SELECT a
CREATE TABLE {db}.x ENGINE = File(TSV, '{out}') AS SELECT 1 AS a
BACKUP TABLE {db}.flow_records TO File('{out}')
SELECT 1; SELECT 1 INTO OUTFILE '{out}'
"""
CALLS_FILE = """
SELECT file('{file}')
SELECT FILE('{file}')
SELECT `file`('{file}')
SELECT arrayMap(file, ['{file}'])
SELECT * APPLY file FROM (SELECT '{file}')
SELECT * APPLY(file) FROM (SELECT '{file}')
WITH file('{file}') AS x SELECT x
SELECT * FROM view(SELECT file('{file}'))
"""
READS_FILES = """
SELECT * FROM file('{file}', 'TSV', 's String')
SELECT * FROM "file"('{file}', 'TSV', 's String')
SELECT * FROM fileCluster('c', '{file}', 'TSV', 's String')
SELECT * FROM filesystem('{file}')
SELECT * FROM '{file}'
SELECT * FROM (SELECT 1) AS a, file('{file}', 'TSV', 's String') AS b
SELECT * FROM (SELECT 1 AS s) AS a JOIN file('{file}', 'TSV', 's String') AS b USING (s)
SELECT 1 WHERE 'a' IN file('{file}', 'TSV', 's String')
SELECT (SELECT s FROM file('{file}', 'TSV', 's String') LIMIT 1)
FROM file('{file}', 'TSV', 's String') SELECT *
WITH (SELECT 1) AS x FROM file('{file}', 'TSV', 's String') SELECT *
DESCRIBE TABLE file('{file}')
DESC file('{file}')
EXPLAIN SELECT * FROM file('{file}', 'TSV', 's String')
SELECT * FROM sqlite('{file}', 't')
SELECT * FROM executable('{file}', 'TSV', 's String')
SELECT * FROM Python(x)
SELECT catboostEvaluate('{file}', 1)
"""
CONNECTS = """
SELECT * FROM url('http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT * FROM urlCluster('c', 'http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT * FROM remote('127.0.0.1:{port}', system.one)
SELECT * FROM remote('127.0.0.1:{port}', 'system', 'one')
SELECT * FROM remoteSecure('127.0.0.1:{port}', system.one)
SELECT 1 WHERE 0 GLOBAL IN remote('127.0.0.1:{port}', system.one)
SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')
SELECT * FROM postgresql('127.0.0.1:{port}', 'd', 't', 'u', 'p')
SELECT * FROM mongodb('127.0.0.1:{port}', 'd', 't', 'u', 'p', 's String')
SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String, v String')
SELECT * FROM s3('http://127.0.0.1:{port}/b/k', 'TSV', 's String')
SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/f', 'TSV', 's String')
SELECT * FROM jdbc('http://127.0.0.1:{port}', 't')
SELECT * FROM odbc('DSN=x', 't')
SELECT * FROM iceberg('http://127.0.0.1:{port}/b/k')
SELECT * FROM deltaLake('http://127.0.0.1:{port}/b/k')
SELECT * FROM azureBlobStorage('http://127.0.0.1:{port}', 'c', 'b')
SELECT * FROM cluster('c', system.one)
SELECT * FROM clusterAllReplicas('c', system.one)
EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p') PARTITION BY a
SELECT 1 WHERE 1 IN hive('thrift://127.0.0.1:{port}', 'd', 't', 's String', 's')
SELECT aiGenerate('http://127.0.0.1:{port}')
SELECT dictGet('d', 'a', 1)
SELECT 1 AS distinct FROM url('http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT dummy distinct FROM remote('127.0.0.1:{port}', system.one)
SELECT is distinct FROM url('http://127.0.0.1:{port}/', 'TSV', 'is String')
SELECT * FROM (SELECT 1 AS distinct FROM remote('127.0.0.1:{port}', system.one))
SELECT * FROM {db}.flows AS limit, url('http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT * FROM {db}.flows AS select, url('http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT * FROM {db}.flows qualify, url('http://127.0.0.1:{port}/', 'TSV', 's String')
SELECT * FROM limit, remote('127.0.0.1:{port}', system.one)
SELECT * FROM {db}.flows AS array JOIN url('http://127.0.0.1:{port}/', 'TSV', 's String') USING s
"""
NO_RIGHT_COVERS = """
SELECT hasColumnInTable('127.0.0.1:{port}', 'u', 'p', 'system', 'one', 'dummy')
SELECT 1 WHERE "hascolumnintable"('127.0.0.1:{port}', 'system', 'one', 'dummy')
"""
"""What an old engine does for whoever may read."""
CHANGES = """
INSERT INTO {db}.flow_records (flowEndSeconds) VALUES (1)
DROP TABLE {db}.flow_records
(DROP TABLE {db}.flow_records)
TRUNCATE TABLE {db}.flow_records
ALTER TABLE {db}.flow_records DELETE WHERE 1
OPTIMIZE TABLE {db}.flow_records FINAL
CREATE TABLE {db}.x (a Int8) ENGINE = Memory
CREATE TEMPORARY TABLE x (a Int8)
RENAME TABLE {db}.flow_records TO {db}.x
DETACH TABLE {db}.flow_records
SELECT 1; DROP TABLE {db}.flow_records
SELECT 1 PARALLEL WITH DROP TABLE {db}.flow_records
EXPLAIN INSERT INTO {db}.flow_records (flowEndSeconds) VALUES (1)
KILL QUERY WHERE 1
SYSTEM STOP MERGES
SYSTEM SHUTDOWN
SET readonly = 0
SET ROLE owner
EXECUTE AS default SELECT 1
USE system
GRANT ALL ON *.* TO default
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_memory_usage = 0, max_execution_time = 0
"""
TELLS = """
SELECT * FROM system.users
SELECT * FROM `system`.`users`
SELECT * FROM "system" . /* */ users
SELECT * FROM "\\x73ystem".users
SELECT * FROM {db}.flows WHERE 1 IN (SELECT 1 FROM system.processes)
SELECT * FROM system.query_log
SELECT * FROM system.named_collections
SELECT * FROM system.grants
SELECT * FROM merge('system', '.*')
SELECT * FROM {db}.flows qualify, eval('SELECT * FROM system.users')
SELECT * FROM {db}.flows AS window, eval('SELECT * FROM system.users')
SHOW PROCESSLIST
SHOW GRANTS
SHOW ACCESS
SHOW USERS
SHOW CREATE USER default
SHOW CREATE QUOTA default
SHOW SETTINGS LIKE '%'
"""
ATTEMPTS = [
    line.replace("\\n", "\n").replace(r"\N{RIGHT SINGLE QUOTATION MARK}", "\u2019")
    for kind in (WRITES_FILES, CALLS_FILE, READS_FILES, CONNECTS, NO_RIGHT_COVERS, CHANGES, TELLS)
    for line in kind.strip().splitlines()
]

READS = [
    "SELECT 1;",
    "select 'a; # $$ INTO OUTFILE', \"x y\" FROM t -- INTO OUTFILE\n WHERE a IN (toDate('1'))",
    "SELECT EXTRACT(DAY FROM toDate(x)), trim(BOTH 'x' FROM lower(y)) FROM t",
    "SELECT a FROM t ARRAY JOIN range(3) AS x, array(1) AS y",
    "WITH x AS (SELECT 1) SELECT * FROM x, numbers(3), (SELECT 1) AS c",
    "SELECT format('{}', 1), url FROM d.t a JOIN (SELECT 1) b ON f(a.x) = g(b.y), u",
    "SELECT x, truncate(y) FROM t GROUP BY x, truncate(y) ORDER BY lower(x), upper(y) LIMIT 3",
    "SELECT a FROM t WHERE a IS NOT DISTINCT FROM lower(b) AND c IN tuple(1, 2)",
    "SELECT a IS DISTINCT FROM lower(b), URLHash(c), shardNum() FROM t AS x, u WHERE f(a), 1",
    "FROM t AS x SELECT a, lower(b) LIMIT 1 UNION ALL SELECT a, upper(b) FROM (SELECT 1 AS a)",
    "SELECT 0.5, 1e-5, 'it''s', 'it\\'s', [1], {'a': 1}, a != b FROM t",
    "(SELECT 1 FROM `d`.`t`) UNION ALL (SELECT count() FROM system.one)",
    "EXPLAIN indexes = 1 SELECT 1",
    "EXPLAIN AST SELECT 1",
    "SHOW TABLES LIKE '%flow%'",
    "SHOW CREATE TABLE flows",
    "DESCRIBE TABLE flows",
    "EXISTS TABLE d.flows",
]  # fmt: skip

BATCH = BatchId("test", 1_790_000_100)


def test_there_are_many_attempts() -> None:
    assert len(ATTEMPTS) >= 100
    assert len(set(ATTEMPTS)) == len(ATTEMPTS)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_does_more_than_read_is_refused(attempt: str) -> None:
    with pytest.raises(StoreError, match="query refused: ") as caught:
        readable(attempt)
    assert not caught.value.retryable
    assert str(caught.value).isprintable()


PIECES = [
    "SELECT", "FROM", "AS", "JOIN", "ARRAY", "DISTINCT", "IS", "NOT", "WHERE", "LIMIT", "WINDOW",
    "QUALIFY", "TABLE", "UNION", "IN", "t", "a", "1", ",", "(", ")", ".", "*",
]  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES)),
    st.sampled_from(["url", "`remote`", '"S3Cluster"', "bigquery"]),
    st.lists(st.sampled_from(PIECES)),
)
def test_a_function_of_elsewhere_is_called_nowhere(
    before: list[str], name: str, after: list[str]
) -> None:
    """Any keyword can be somebody's name, so there are no places where it would be harmless."""
    with pytest.raises(StoreError, match="query refused: "):
        readable(f"SELECT {' '.join(before)} {name} ('x') {' '.join(after)}")


@pytest.mark.parametrize("query", ["SELECT '\ud800'", "\udfff", "SELECT 1 -- \udc80"])
def test_what_is_no_text_is_refused(query: str) -> None:
    with pytest.raises(StoreError, match="surrogate"):
        readable(query)


@pytest.mark.parametrize("statement", READS)
def test_what_only_reads_is_run_as_it_is(statement: str) -> None:
    without = statement.replace("-- INTO OUTFILE", " ").rstrip(";")
    assert readable(statement) == without


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("", "empty"),
        (" ;; ", "empty"),
        ("-- only this", "empty"),
        ("SELECT 'x", "'...' does not end"),
        ("SELECT 1 /* x", "a comment does not end"),
        ("SELECT \0 1", r"'\\x00' stands only in"),
        ("SELECT \N{NO-BREAK SPACE}1", r"'\\xa0' stands only in"),
        ("SELECT " + "(" * MAX_LENGTH, "longer than 32768 bytes"),
        ("SELECT \ud800", "half of a surrogate pair is no character"),
        ("SELECT 1 FORMAT CSV", "leave FORMAT out"),
        ("SELECT 1 SETTINGS a = 1", "limits are set by clickHouse.queries"),
        ("SELECT * FROM s3('x')", r"s3\(...\) reads from elsewhere"),
        ("SELECT * FROM system.users", "system.users: only"),
    ],
)
def test_a_refusal_names_the_piece_and_the_remedy(statement: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        readable(statement)


@pytest.mark.parametrize("piece", ["(", "/*", "--\n", "'a'", "a.", "SELECT ", "IN url", '"', "'\\"])
def test_long_statements_take_no_time(piece: str) -> None:
    """The check is linear: this would take hours if it were not."""
    with contextlib.suppress(StoreError):
        readable("SELECT " + piece * ((MAX_LENGTH - 10) // len(piece)))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def attempt_all(
    store: Store, attempts: list[str], settings: StoreSettings, path: Path, listener: socket.socket
) -> list[str]:
    """Attempt each; return those that were answered."""
    secret = path / "secret"
    secret.write_text("secret\n")
    values = {
        "out": path / "out",
        "file": secret,
        "port": listener.getsockname()[1],
        "db": settings.database,
    }
    answered = []
    for attempt in attempts:
        sql = attempt
        for name, value in values.items():
            sql = sql.replace(f"{{{name}}}", str(value))
        try:
            result = store.query(sql)
        except StoreError:
            continue
        assert "secret" not in str(result.rows), sql
        answered.append(attempt)
    return answered


def check_untouched(
    store: Store, settings: StoreSettings, path: Path, listener: socket.socket
) -> None:
    assert not (path / "out").exists()
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert store.query(f"SELECT count() FROM {settings.database}.flows").rows == [[3]]
    tables = store.query(f"SELECT name FROM system.tables WHERE database = '{settings.database}'")
    assert ["x"] not in tables.rows


@pytest.mark.clickhouse
def test_attempts_at_both_engines(
    store: Store, settings: StoreSettings, tmp_path: Path, listener: socket.socket
) -> None:
    store.insert(flows(3), BATCH)
    assert attempt_all(store, ATTEMPTS, settings, tmp_path, listener) == []
    check_untouched(store, settings, tmp_path, listener)


@pytest.mark.clickhouse
@pytest.mark.parametrize("user", ["limited", "fixed"])
def test_attempts_of_the_user_for_queries(
    server_settings: StoreSettings, tmp_path: Path, listener: socket.socket, user: str
) -> None:
    """An old server lets who has readonly = 2 call table functions: the check refuses them."""
    store = open_store(replace(server_settings, queries=QuerySettings(user, user)))
    store.migrate()
    store.insert(flows(3), BATCH)
    assert attempt_all(store, ATTEMPTS, server_settings, tmp_path, listener) == []
    check_untouched(store, server_settings, tmp_path, listener)
    store.close()


@pytest.mark.clickhouse
def test_what_the_check_would_overlook_has_no_rights(
    store: Store,
    settings: StoreSettings,
    tmp_path: Path,
    listener: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind the check: changes, and tables of elsewhere, are refused by the engine as well."""
    store.insert(flows(3), BATCH)
    with monkeypatch.context() as patch:
        for module in (embedded, server):
            patch.setattr(module, "readable", lambda sql, *_: sql)
        kinds = [CONNECTS, *([READS_FILES] if "embedded" in settings.database_url else [])]
        attempts = [
            line
            for kind in (*kinds, CHANGES)
            for line in kind.strip().splitlines()
            # What changes a session that is over at once, or what its user may: nothing.
            if not line.startswith(("SET", "USE", "KILL", "SYSTEM", "SELECT 1;"))
        ]
        answered = attempt_all(store, attempts, settings, tmp_path, listener)
    assert [line for line in answered if "EXPLAIN" not in line] == []
    check_untouched(store, settings, tmp_path, listener)


PARAMETERS: dict[str, Parameter] = {
    "a": "it's \\ {a:String}\n\t\x00 日本",
    "b": (b"", b"\xff\xfe", b"plain"),
    "c": 2**64 - 1,
    "d": (1, 2),
    "e": bytes(range(0, 256, 17)),
    "f": "a' OR '1' = '1",
}


def test_parameters_are_bound_as_they_are(store: Store) -> None:
    parts = {
        "{a:String}": "hex({})",
        "{c:UInt64}": "toString({})",
        "{e:FixedString(16)}": "hex({})",
        "{f:String}": "hex({})",
    }
    columns = [form.format(text) for text, form in parts.items()]
    columns += ["unhex('FFFE') IN {b:Array(String)}", "2 IN {d:Array(UInt64)}", "'{a:String}'"]
    named = (f"{column} AS c{place}" for place, column in enumerate(columns))
    text = bind(f"SELECT {', '.join(named)}", PARAMETERS)
    (row,) = store.query(text).rows  # people's statements may have all of it as well
    a, e, f = str(PARAMETERS["a"]).encode(), PARAMETERS["e"], str(PARAMETERS["f"]).encode()
    assert isinstance(e, bytes)
    assert list(row) == [
        a.hex().upper(),
        str(2**64 - 1),
        e.hex().upper(),
        f.hex().upper(),
        1,
        1,
        "{a:String}",
    ]


@given(st.binary(max_size=30) | st.text(max_size=30), st.booleans())
def test_no_text_gets_out_of_its_quotes(value: bytes | str, listed: bool) -> None:
    if isinstance(value, str):
        value = value.encode(errors="replace").decode()
    kind = "Array(String)" if listed else "String"
    wanted: Parameter = [str(value)] if listed and isinstance(value, str) else value
    wanted = [wanted] if listed and isinstance(wanted, bytes) else wanted
    bound = bind(f"SELECT {{p:{kind}}} AS x", {"p": wanted})
    tokens = re.findall(r"'(?:[^'\\]|\\.)*'|\w+|[^\s\w]", bound, re.DOTALL)
    literal = tokens[2 if listed else 1]
    assert tokens == ["SELECT", *(["(", literal, ")"] if listed else [literal]), "AS", "x"]
    found = re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), literal.encode())
    assert found[1:-1] == (value.encode() if isinstance(value, str) else value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{p:UInt64}", -1),
        ("{p:UInt64}", 2**64),
        ("{p:UInt64}", "1"),
        ("{p:UInt64}", True),
        ("{p:String}", 1),
        ("{p:String}", ("a",)),
        ("{p:Array(String)}", "abc"),
        ("{p:Array(String)}", ()),
        ("{p:Array(UInt64)}", ("a",)),
        ("{p:FixedString(16)}", b"short"),
        ("{p:FixedString(2)}", "ab"),
        ("{p:Float64}", 1.5),
        ("{q:String}", "a"),
        ("'{p:String}'", "a"),
    ],
)
def test_parameters_that_do_not_fit_are_defects(text: str, value: Parameter) -> None:
    with pytest.raises(ValueError, match="p"):
        bind(f"SELECT {text}", {"p": value})
