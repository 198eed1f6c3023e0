"""Both stores: what is inserted comes back, queries only read, errors say what to do."""

import contextlib
import socket
import subprocess
import sys
import threading
from ipaddress import IPv6Address

import numpy as np
import pytest

from flowvis.batch import Batch, address_text
from flowvis.clickhouse.native_client import BoundedSocket
from flowvis.clickhouse.schema import tables as schema
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import SettingsError, StoreError
from flowvis.fields import FIELDS, Kind
from waiting import PATIENCE_S

from .conftest import MakeStore, admin, migrate, place
from .samples import STORED, flows, random_batch

EPOCH = 1_790_000_100
BATCH = BatchId("test", EPOCH)


def count(store: Store, settings: StoreSettings) -> int:
    return int(store.query(f"SELECT count() FROM {settings.database}.flows").rows[0][0])


@pytest.mark.clickhouse
@pytest.mark.parametrize("name", [field.name for field in STORED])
def test_every_field_round_trips(name: str, round_trip: tuple[Batch, list[dict[str, str]]]) -> None:
    batch, rows = round_trip
    field = next(field for field in FIELDS if field.name == name)
    found = [row[schema.shown_name(field)] for row in rows]
    if field.kind is Kind.TEXT:
        assert found == batch.texts(name)
    elif field.kind is Kind.ADDRESS:
        expected = [address_text(row.tobytes()) for row in batch[name]]
        assert [canonical(text) for text in found] == expected
    else:
        assert [int(text) for text in found] == batch[name].tolist()


def canonical(text: str) -> str:
    return str(IPv6Address(text)) if ":" in text else text


@pytest.fixture(scope="module", params=["server", "embedded", "cluster"])
def round_trip(request: pytest.FixtureRequest) -> tuple[Batch, list[dict[str, str]]]:
    """A batch of values at random, and what the store shows of it, in the batch's order."""
    settings = place(request, "round_trip")
    batch = random_batch(700)
    # A column that tells which row is which.
    batch["packetDeltaCount"] = np.arange(700, dtype=np.uint64)
    shown = [
        f"toString(toUInt32({name}))"
        if field and field.kind is Kind.SECONDS
        else f"toString({name})"
        for name in schema.FLOWS_COLUMNS
        for field in [next((f for f in FIELDS if schema.shown_name(f) == name), None)]
    ]
    with contextlib.closing(open_store(settings)) as store:
        migrate(store)
        store.insert(batch, BATCH)
        if request.param == "cluster":
            request.getfixturevalue("cluster").sync("round_trip")
        answer = store.query(
            f"SELECT {', '.join(shown)} FROM round_trip.flows ORDER BY packetDeltaCount"
        )
    return batch, [dict(zip(schema.FLOWS_COLUMNS, row, strict=True)) for row in answer.rows]


@pytest.mark.clickhouse
def test_insertion_time_is_the_batch_s(store: Store, settings: StoreSettings) -> None:
    store.insert(flows(10), BATCH)
    rows = store.query(
        f"SELECT DISTINCT toUInt32(timeInserted), trusted FROM {settings.database}.flows"
    ).rows
    assert rows == [[EPOCH, 0]]


@pytest.mark.clickhouse
def test_star_shows_the_documented_columns_first(store: Store, settings: StoreSettings) -> None:
    store.insert(flows(1), BATCH)
    answer = store.query(f"SELECT * FROM {settings.database}.flows")
    assert tuple(answer.names) == schema.FLOWS_COLUMNS
    assert answer.names[: len(schema.DOCUMENTED)] == list(schema.DOCUMENTED)
    assert len(schema.DOCUMENTED) == 53


@pytest.mark.clickhouse
def test_every_stored_field_is_a_column(store: Store, settings: StoreSettings) -> None:
    described = {row[0] for row in store.query(f"DESCRIBE TABLE {settings.database}.flows").rows}
    assert {schema.shown_name(field) for field in STORED} <= described


@pytest.mark.clickhouse
def test_the_same_batch_again_is_not_doubled(store: Store, settings: StoreSettings) -> None:
    batch = flows(1000)
    store.insert(batch, BATCH)
    store.insert(batch, BATCH, again=True)
    assert count(store, settings) == 1000
    store.insert(batch, BatchId("test", EPOCH, 1))
    store.insert(batch, BatchId("other", EPOCH))
    assert count(store, settings) == 3000


@pytest.mark.clickhouse
def test_again_stores_what_had_not_arrived(store: Store, settings: StoreSettings) -> None:
    store.insert(flows(1000), BATCH, again=True)
    assert count(store, settings) == 1000


@pytest.mark.clickhouse
def test_large_batches_become_one_part(store: Store, settings: StoreSettings) -> None:
    batch = flows(300_000)
    store.insert(batch, BATCH)
    assert count(store, settings) == 300_000
    parts = store.query(
        "SELECT count() FROM system.parts WHERE active"
        f" AND database = '{settings.database}' AND table = '{schema.TABLE}'"
    )
    assert parts.rows == [[1]]


@pytest.mark.clickhouse
def test_many_names(store: Store, settings: StoreSettings) -> None:
    """Dictionaries of every index width: 1, 2 and 4 bytes."""
    batch = flows(70_000)
    batch["destinationPodName"] = batch.strings.encode([f"d{n}" for n in range(70_000)])
    batch["sourceNodeName"] = batch.strings.encode([f"n{n % 300}" for n in range(70_000)])
    batch["tcpState"] = batch.strings.encode([f"t{n % 256}" for n in range(70_000)])
    store.insert(batch, BATCH)
    answer = store.query(
        "SELECT uniqExact(destinationPodName), uniqExact(sourceNodeName), uniqExact(tcpState),"
        f" countIf(destinationPodName = 'd69999') FROM {settings.database}.flows"
    )
    assert answer.rows == [[70_000, 300, 256, 1]]


@pytest.mark.clickhouse
def test_few_records_of_a_large_string_table(store: Store, settings: StoreSettings) -> None:
    batch = flows(5)
    batch.strings.encode([f"unused-{n}" for n in range(10_000)])
    batch["tcpState"] = batch.strings.encode(["a", "b", "a", "", "c"])
    store.insert(batch, BATCH)
    answer = store.query(f"SELECT tcpState FROM {settings.database}.flows ORDER BY flowEndSeconds")
    assert answer.rows == [["a"], ["b"], ["a"], [""], ["c"]]


@pytest.mark.clickhouse
def test_uncompressed(make_store: MakeStore, settings: StoreSettings) -> None:
    store = make_store(compress=False)
    store.migrate()
    store.insert(flows(5000), BATCH)
    assert count(store, settings) == 5000


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {db}.flow_records (flowEndSeconds) VALUES (1)",
        "DROP TABLE {db}.flow_records",
        "ALTER TABLE {db}.flow_records DELETE WHERE 1",
        "SELECT 1 INTO OUTFILE '/tmp/should-not-exist'",
        "SELECT 1 into/* */outfile '/tmp/should-not-exist'",
        "SELECT * FROM file('/etc/hostname', 'TSV', 's String')",
        "SET readonly = 0",
        "SELECT 1; DROP TABLE {db}.flow_records",
        "",
        " ; ",
    ],
)
def test_queries_only_read(store: Store, settings: StoreSettings, statement: str) -> None:
    store.insert(flows(3), BATCH)
    with pytest.raises(StoreError):
        store.query(statement.format(db=settings.database))
    assert count(store, settings) == 3


@pytest.mark.clickhouse
def test_results_are_bounded(store: Store) -> None:
    answer = store.query("SELECT number FROM system.numbers LIMIT 1000", max_rows=10)
    assert [row[0] for row in answer.rows] == list(range(10))
    assert answer.truncated
    answer = store.query("SELECT number FROM system.numbers LIMIT 10", max_rows=10)
    assert len(answer.rows) == 10
    assert not answer.truncated


@pytest.mark.clickhouse
def test_results_are_json_able(store: Store) -> None:
    answer = store.query(
        "SELECT toDateTime(0, 'UTC') AS t, 18446744073709551615 AS big, 'ü' AS s, [1, 2] AS a,"
        " toUInt8(1) = 1 AS yes, NULL AS nothing"
    )
    assert answer.rows == [["1970-01-01 00:00:00", 2**64 - 1, "ü", [1, 2], 1, None]]
    assert answer.names == ["t", "big", "s", "a", "yes", "nothing"]


@pytest.mark.clickhouse
def test_what_is_wrong_with_a_query(store: Store) -> None:
    with pytest.raises(StoreError, match="Syntax error"):
        store.query("SELECT 1 +")
    with pytest.raises(StoreError, match="leave FORMAT out"):
        store.query("SELECT 1 FORMAT CSV")
    assert store.query("SELECT 'FORMAT CSV'").rows == [["FORMAT CSV"]]


@pytest.mark.clickhouse
def test_a_batch_without_a_field_is_our_mistake(store: Store) -> None:
    batch = flows(3)
    with pytest.raises(KeyError, match="tcpState"):
        store.insert(batch.select([name for name in batch.columns if name != "tcpState"]), BATCH)


@pytest.mark.clickhouse
def test_only_one_process_has_the_embedded_store(
    store: Store, settings: StoreSettings, request: pytest.FixtureRequest
) -> None:
    if not settings.database_url.startswith("embedded"):
        return
    code = (
        "from flowvis.clickhouse.store import *\n"
        "from flowvis.errors import StoreError\n"
        f"store = open_store(StoreSettings({settings.database_url!r}))\n"
        "try: store.migrate()\n"
        "except StoreError as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "is open in another process" in answer.stdout


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://ch:8123", "HTTP is not supported"),
        ("ch:9000", "use tcp://"),
        ("tcp://:9000", "host is missing"),
        ("tcp://ch:99999", "port"),
        ("tcp://[fd00::1:9000", "no URL: Invalid IPv6 URL"),
        ("tcp://c\u2100h:9000", "no URL"),
        ("tcp://a..b:9000", "the host is no name"),
        (f"tcp://{'n' * 64}:9000", "the host is no name"),
        ("tcp://ch:9000/flows", "no path"),
        ("tcp://user:word@ch", "CH_USERNAME"),
        ("embedded://relative", "absolute path"),
    ],
)
def test_bad_urls(url: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        open_store(StoreSettings(url))


@pytest.mark.parametrize(
    "url",
    [
        "tcp://flow:hunter2@ch:9000",
        "tcp://flow:hunter2?@ch:9000",
        "tcp://flow:hun@ter2@ch:9000",
        "http://flow:hunter2@ch:8123/",
        "flow:hunter2@ch:9000",
        "flow:hunter2@ch://9000",
        "tcp://flow:hunter2@c\u2100h:9000",
        "tcp://flow:hunter2@[fd00::1:9000",
        "tcp://ch:9000?user=flow&password=hunter2",
        "tcp://ch:9000/#hunter2@",
    ],
)
def test_a_password_in_a_url_is_in_no_message(url: str) -> None:
    with pytest.raises(SettingsError, match="databaseURL: '") as caught:
        open_store(StoreSettings(url))
    for piece in ("hun", "ter2", "flow"):
        assert piece not in str(caught.value).replace("flow-", "")


def test_bad_database() -> None:
    with pytest.raises(SettingsError, match="letters"):
        open_store(StoreSettings("tcp://ch", database="a; DROP"))


def test_nobody_there(unused_port: int) -> None:
    store = open_store(StoreSettings(f"tcp://127.0.0.1:{unused_port}"))
    with pytest.raises(StoreError, match="refused") as caught:
        store.migrate()
    assert caught.value.retryable


def test_who_closes_it_ends_what_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits has closed the connection before the other one goes on."""
    failed: list[StoreError] = []

    def wait_for_an_answer() -> None:
        try:
            store.migrate()
        except StoreError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait_for_an_answer)

    def shutdown(self: BoundedSocket, how: int) -> None:
        self._socket.shutdown(how)
        if threading.current_thread() is not waiting:
            waiting.join(PATIENCE_S)

    monkeypatch.setattr(BoundedSocket, "shutdown", shutdown, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store(StoreSettings(f"tcp://127.0.0.1:{silent.getsockname()[1]}"))
        waiting.start()
        with silent.accept()[0] as accepted:
            assert accepted.recv(1)  # it has said who it is
            store.close()
            waiting.join(PATIENCE_S)
            assert [error.retryable for error in failed] == [True]
            while accepted.recv(1 << 10):  # to the end: nothing keeps it open
                pass


@pytest.mark.clickhouse
def test_queries_run_while_batches_are_inserted(store: Store, settings: StoreSettings) -> None:
    batch = flows(20_000)

    def insert() -> None:
        for number in range(8):
            store.insert(batch, BatchId("test", EPOCH, number))

    writer = threading.Thread(target=insert)
    writer.start()
    counts = []
    while writer.is_alive():
        counts.append(count(store, settings))
    writer.join()
    assert count(store, settings) == 160_000
    assert counts == sorted(counts)
    assert all(found % 20_000 == 0 for found in counts), "a batch is seen as a whole or not at all"


@pytest.mark.clickhouse
def test_partitions_are_hours_that_can_be_dropped(store: Store, settings: StoreSettings) -> None:
    for day in range(3):
        store.insert(flows(10 + day), BatchId("test", EPOCH + day * 86_400))
    dropped = f"('2026-09-21', {EPOCH // 3600})"
    admin(store)(f"ALTER TABLE {settings.database}.{schema.TABLE} DROP PARTITION {dropped}")
    answer = store.query(
        f"SELECT DISTINCT toString(toDate(timeInserted)) AS day FROM {settings.database}.flows"
        " ORDER BY day"
    )
    assert answer.rows == [["2026-09-22"], ["2026-09-23"]]
