"""The users of the manifests' ClickHouse: one writes, one reads."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ErrorCodes, ServerException

from clickhouse.server import Server
from deploy.rendered import OPERATED, configuration, of, secret_keys, workload
from flowvis.clickhouse.store import StoreSettings, open_store

WRITER, READER = "flowvis", "flowvis_queries"
PASSWORDS = {WRITER: "a&b<c>\"d'e]]> $(id) %s ö", READER: "reader's"}
SECRETS = {"clickhouse-secret": WRITER, "clickhouse-queries": READER}
MANY = "SELECT number FROM system.numbers LIMIT"


def environment() -> dict[str, str]:
    """What the server's container gets: hashes, by the names that users.xml has."""
    (container,) = workload("clickhouse")["spec"]["template"]["spec"]["containers"]
    found = {}
    for variable in container["env"]:
        ((secret, key),) = secret_keys(variable)
        assert key == "password_sha256_hex"
        password = PASSWORDS[SECRETS[secret]]
        found[variable["name"]] = hashlib.sha256(password.encode()).hexdigest()
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("users")
    one = Server(path)
    (path / "users.d").mkdir()
    users = configuration("", "users.xml")
    # Debian's server is from before the root was renamed, and before grants and constraints.
    (path / "users.d" / "flowvis.xml").write_text(users.replace("clickhouse>", "yandex>"))
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment().items():
            patched.setenv(name, value)
        one.start()
    settings = StoreSettings(one.url, username=WRITER, password=PASSWORDS[WRITER])
    store = open_store(settings)
    try:
        store.migrate()
    finally:
        store.close()
    yield one
    one.kill()


def ask(
    server: Server, sql: str, user: str = READER, settings: dict[str, Any] | None = None
) -> Any:
    password = PASSWORDS.get(user, "")
    client = Client("127.0.0.1", server.port, user=user, password=password, settings=settings)
    try:
        return client.execute(sql)
    finally:
        client.disconnect()


@pytest.mark.clickhouse
def test_one_writes_the_other_reads_what_is_written(server: Server) -> None:
    ask(server, "CREATE TABLE t (x UInt8) ENGINE = Memory", WRITER)
    ask(server, "INSERT INTO t SELECT 7", WRITER)
    assert ask(server, "SELECT x FROM t") == [(7,)]
    assert ask(server, "SELECT count() FROM flows") == [(0,)]


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO flow_records (clusterUUID) SELECT 'x'",
        "CREATE TABLE mine (x UInt8) ENGINE = Memory",
        "CREATE TABLE mine (x UInt8) ENGINE = File(CSV)",
        "CREATE TEMPORARY TABLE mine (x UInt8)",
        "DROP TABLE flow_records",
        "TRUNCATE TABLE flow_records",
        "DETACH TABLE flow_records",
        "ALTER TABLE flow_records DELETE WHERE 1",
        "RENAME TABLE flow_records TO mine",
        "OPTIMIZE TABLE flow_records",
        "SYSTEM RELOAD CONFIG",
        "SET readonly = 0",
        "SET max_memory_usage = 9999999999999",
        "SELECT 1 SETTINGS max_memory_usage = 9999999999999",
        "SELECT * FROM file('x.csv', 'CSV', 'a UInt8')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a UInt8')",
        "SELECT * FROM remote('127.0.0.1', 'default', 'flow_records', 'flowvis', '')",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT 1 WHERE 1 IN (SELECT a FROM file('x.csv', 'CSV', 'a UInt8'))",
    ],
)
def test_the_reader_can_do_no_more_than_read(server: Server, sql: str) -> None:
    with pytest.raises(ServerException) as refused:
        ask(server, sql)
    assert refused.value.code == ErrorCodes.READONLY, sql


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    ("sql", "code"),
    [
        (f"{MANY} 1100000", ErrorCodes.TOO_MANY_ROWS_OR_BYTES),
        (
            f"SELECT length(groupArray(number)) FROM ({MANY} 300000000)",
            ErrorCodes.MEMORY_LIMIT_EXCEEDED,
        ),
    ],
)
def test_its_queries_have_limits(server: Server, sql: str, code: int) -> None:
    with pytest.raises(ServerException) as refused:
        ask(server, sql)
    assert refused.value.code == code


@pytest.mark.clickhouse
def test_the_server_knows_all_limits(server: Server) -> None:
    limits = parsed(configuration("", "users.xml")).find(f"profiles/{READER}")
    assert limits is not None
    known = dict(ask(server, "SELECT name, value FROM system.settings"))
    wanted = profile(limits)
    assert len(wanted) == 11
    assert {name: known[name] for name in wanted} == wanted


@pytest.mark.clickhouse
def test_its_settings_cannot_be_lifted_by_the_protocol(server: Server) -> None:
    """Drivers send settings beside the query, which is not a SET."""
    sql = "SELECT name, value FROM system.settings WHERE name IN ('readonly', 'max_memory_usage')"
    before = dict(ask(server, sql))
    assert before["readonly"] == "1"
    lifted = {"readonly": 0, "max_memory_usage": 10**15, "max_execution_time": 10**6}
    assert dict(ask(server, sql, settings=lifted)) == before
    with pytest.raises(ServerException):
        ask(server, "DROP TABLE flow_records", settings={"readonly": 0})


@pytest.mark.clickhouse
@pytest.mark.parametrize("user", ["default", "root"])
def test_there_is_nobody_else(server: Server, user: str) -> None:
    with pytest.raises(ServerException) as refused:
        ask(server, "SELECT 1", user)
    assert refused.value.code == ErrorCodes.UNKNOWN_USER


def profile(element: ElementTree.Element) -> dict[str, str]:
    return {setting.tag: str(setting.text) for setting in element if not len(setting)}


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314  ours


MODERN = """
import json, sys
import chdb
connection = chdb.connect(sys.argv[1] + "?config-file=" + sys.argv[2])
for statement in json.load(sys.stdin):
    try:
        print(json.dumps(str(connection.query(statement)).strip()))
    except Exception as error:
        print(json.dumps(str(error)))
"""
REFUSED = {
    "SELECT * FROM file('x.csv', 'CSV', 'a UInt8')": "READ ON FILE",
    "SELECT * FROM file('/etc/hostname', 'LineAsString', 'a String')": "READ ON FILE",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a UInt8')": "READ ON URL",
    "SELECT * FROM remote('127.0.0.1', 'default', 'flow_records')": "READ ON REMOTE",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV', 'a UInt8')": "READ ON S3",
    "SELECT * FROM executable('id', 'CSV', 'a String')": "CREATE TEMPORARY TABLE",
    "CREATE TABLE t (x UInt8) ENGINE = Memory": "CREATE TABLE",
    "INSERT INTO flow_records (clusterUUID) SELECT 'x'": "INSERT",
    "SELECT count() FROM system.users": "SHOW USERS",
    "SET readonly = 0": "readonly mode",
    "SELECT 1 SETTINGS max_memory_usage = 9000000000000": "readonly mode",
    "SELECT length(groupArray(number)) FROM numbers(300000000)": "memory limit exceeded",
}


def test_a_modern_engine_grants_as_little(tmp_path: Path) -> None:
    """The embedded one has a single user: it gets what users.xml says of the reader."""
    store = open_store(StoreSettings(f"embedded://{tmp_path}/data"))
    store.migrate()
    store.close()
    text = configuration("", "users.xml")
    users = parsed(text).find("users")
    profiles = parsed(text).find("profiles")
    assert users is not None
    assert profiles is not None
    reader = users.find(READER)
    assert reader is not None
    reader.remove(reader.find("password_sha256_hex"))  # type: ignore[arg-type]  # it has one
    reader.tag = "default"
    ElementTree.SubElement(reader, "no_password")
    for other in [user for user in users if user is not reader]:
        users.remove(other)
    root = ElementTree.Element("clickhouse")
    root.extend([users, profiles])
    ElementTree.SubElement(profiles, "default")
    ElementTree.SubElement(ElementTree.SubElement(root, "quotas"), "default")
    ElementTree.ElementTree(root).write(tmp_path / "users.xml")
    config = tmp_path / "config.xml"
    config.write_text(f"<clickhouse><users_config>{tmp_path}/users.xml</users_config></clickhouse>")
    done = subprocess.run(
        [sys.executable, "-c", MODERN, f"{tmp_path}/data", str(config)],
        input=json.dumps(["SELECT count() FROM flows", *REFUSED]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first, *others = map(json.loads, done.stdout.splitlines())
    assert first == "0"
    for (statement, reason), answer in zip(REFUSED.items(), others, strict=True):
        assert "Exception" in answer, statement
        assert reason in answer, (statement, answer)


def test_newer_servers_let_clients_lower_the_limits_and_not_raise_them() -> None:
    limits = parsed(configuration("", "users.xml")).find(f"profiles/{READER}")
    constraints = parsed(configuration("", "changeable.xml")).find(f"profiles/{READER}/constraints")
    assert limits is not None
    assert constraints is not None
    values = profile(limits)
    changeable = {each.tag: each for each in constraints}
    replace = "access_control_improvements/settings_constraints_replace_previous"
    assert parsed(configuration("", "server.xml")).findtext(replace) == "true"
    (servers,) = of("overlays/clickhouse-operator", OPERATED[0])
    assert servers["spec"]["configuration"]["settings"][replace] == "true"
    assert not {"readonly", "allow_ddl", "max_memory_usage_for_user"} & set(changeable)
    for name, each in changeable.items():
        assert each.find("changeable_in_readonly") is not None
        if name in values:
            assert each.findtext("max") == values[name]


def test_only_what_is_granted_is_readable_on_newer_servers() -> None:
    user = parsed(configuration("", "users.xml")).find(f"users/{READER}")
    assert user is not None
    assert [q.text for q in user.findall("grants/query")] == ["GRANT SELECT ON default.*"]
    # These may not stand beside grants.
    assert user.find("allow_databases") is None
    assert user.find("access_management") is None


def test_the_operator_s_users_are_the_same() -> None:
    written = parsed(configuration("", "users.xml"))
    (servers,) = of("overlays/clickhouse-operator", OPERATED[0])
    configured = servers["spec"]["configuration"]
    limits = written.find(f"profiles/{READER}")
    assert limits is not None
    theirs = {key.split("/", 1)[1]: str(v) for key, v in configured["profiles"].items()}
    assert theirs == profile(limits)
    changeable = parsed(configured["files"]["users.d/changeable.xml"])
    ours = parsed(configuration("", "changeable.xml"))
    assert ElementTree.tostring(changeable).split() == ElementTree.tostring(ours).split()
    users = configured["users"]
    for name in (WRITER, READER):
        user = written.find(f"users/{name}")
        assert user is not None
        assert users[f"{name}/networks/ip"] == [ip.text for ip in user.findall("networks/ip")]
        assert users[f"{name}/profile"] == user.findtext("profile")
        ((secret, key),) = secret_keys(users[f"{name}/password_sha256_hex"])
        assert (SECRETS[secret], key) == (name, "password_sha256_hex")
    assert users[f"{READER}/grants/query"] == ["GRANT SELECT ON default.*"]
