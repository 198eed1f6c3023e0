"""Whatever happens to the connection or the server: every batch is stored, and once."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver.errors import ServerException

from flowvis.batch import Batch
from flowvis.clickhouse.native_client import NativeClient, store_errors
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.native_block import Block
from flowvis.clickhouse.server import ServerStore
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.clickhouse.writer import Writer
from flowvis.errors import StoreError
from flowvis.runtime.ledger import Stage
from waiting import block_until, until

from .conftest import admin
from .proxy import Fault, Proxy
from .samples import flows, random_batch
from .server import Server

EPOCH = 1_790_000_100
ROWS = 20_000
STAGES = ("hello", "query", "first byte", "a quarter", "half", "nearly all", "all", "answered")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def direct(server_settings: StoreSettings) -> Iterator[Store]:
    store = open_store(server_settings)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def relayed(proxy: Proxy, server_settings: StoreSettings) -> Iterator[Store]:
    url = f"tcp://127.0.0.1:{proxy.port}"
    store = open_store(replace(server_settings, database_url=url))
    yield store
    store.close()


def count(store: Store) -> int:
    return int(store.query("SELECT count() FROM flows").rows[0][0])


@pytest.mark.clickhouse
def test_a_connection_cut_at_every_stage(direct: Store, relayed: Store, proxy: Proxy) -> None:
    batch = random_batch(ROWS)
    total = rehearse(relayed, proxy, batch)
    cuts = {
        "hello": Fault(10),
        "query": Fault(700),  # the text of the INSERT, which names every column, is longer
        "first byte": Fault(8000),
        "a quarter": Fault(total // 4),
        "half": Fault(total // 2),
        "nearly all": Fault(total - 1),
        "all": Fault(total),
        "answered": Fault(total // 2, answered=True),
    }
    assert tuple(cuts) == STAGES
    stored = ROWS
    arrived = []
    for number, (stage, fault) in enumerate(cuts.items()):
        batch_id = BatchId("faulty", EPOCH, number)
        relayed.close()
        proxy.reset(fault)
        with pytest.raises(StoreError) as caught:
            relayed.insert(batch, batch_id)
        assert caught.value.retryable, stage
        settle(direct)
        if count(direct) > stored:
            arrived.append(stage)
        proxy.reset()
        relayed.insert(batch, batch_id, again=True)
        stored += ROWS
        assert count(direct) == stored, stage
    assert "answered" in arrived
    assert "half" not in arrived


def rehearse(relayed: Store, proxy: Proxy, batch: Batch) -> int:
    """Insert once without a fault; return how many bytes it takes."""
    relayed.migrate()
    relayed.close()
    proxy.reset()
    relayed.insert(batch, BatchId("steady", EPOCH))
    relayed.close()
    return proxy.sent


def settle(store: Store) -> None:
    """Wait until the server has noticed what became of its connections."""
    running = "SELECT count() FROM system.processes"
    block_until(lambda: admin(store)(running)[0][0] <= 1)


@pytest.mark.clickhouse
@pytest.mark.parametrize("part", [0.5, 1.0])
def test_an_insert_that_the_server_still_waits_for_is_not_repeated(
    direct: Store, relayed: Store, proxy: Proxy, part: float
) -> None:
    """Our side is gone, the server does not know it: whether the batch is stored is still open."""
    batch = random_batch(ROWS)
    total = rehearse(relayed, proxy, batch)
    proxy.reset(Fault(int(total * part) - 1, abandon=True))
    batch_id = BatchId("faulty", EPOCH)
    with pytest.raises(StoreError):
        relayed.insert(batch, batch_id)
    proxy.reset()
    with pytest.raises(StoreError, match="still running") as caught:
        relayed.insert(batch, batch_id, again=True)
    assert caught.value.retryable
    for held in proxy.abandoned:
        held.close()
    settle(direct)
    relayed.insert(batch, batch_id, again=True)
    assert count(direct) == 2 * ROWS


@pytest.mark.clickhouse
def test_a_repetition_that_the_server_only_takes_for_one_is_stored(
    direct: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a newer one does that was killed between noting a batch and giving its part a name."""
    assert isinstance(direct, ServerStore)
    batch, batch_id = random_batch(ROWS), BatchId("test", EPOCH)
    noted = {str(batch_id)}
    insert = NativeClient.insert_block

    def newer(
        client: NativeClient, sql: str, block: Block, name: str, options: dict[str, Any]
    ) -> None:
        token = str(options.pop("insert_deduplication_token"))
        if token not in noted:
            noted.add(token)
            insert(client, sql, block, name, options)

    monkeypatch.setattr(NativeClient, "insert_block", newer)
    direct._features = replace(direct._probe(), deduplication=True)
    with pytest.raises(StoreError, match="is not there") as caught:
        direct.insert(batch, batch_id, again=True)
    assert caught.value.retryable
    for _ in range(3):
        direct.insert(batch, batch_id, again=True)
    assert count(direct) == ROWS


@pytest.mark.clickhouse
def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    server = Server(tmp_path / "killed")
    server.start()
    store = open_store(StoreSettings(server.url, database="faults", ttl_s=0))
    try:
        store.migrate()
        batch = flows(30_000)
        failures = 0
        for number in range(6):
            batch_id = BatchId("killed", EPOCH, number)
            killer = threading.Timer(0.004 * number, server.kill)
            killer.start()
            try:
                store.insert(batch, batch_id)
            except StoreError:
                failures += 1
            killer.join()
            server.start()
            store.close()
            insert_until_it_works(store, batch_id)
        assert failures
        assert count(store) == 6 * 30_000
    finally:
        store.close()
        server.kill()


def insert_until_it_works(store: Store, batch_id: BatchId) -> None:
    def stored() -> bool:
        store.insert(flows(30_000), batch_id, again=True)
        return True

    block_until(stored, despite=(StoreError,))


@pytest.mark.clickhouse
async def test_what_a_view_of_somebody_refuses_is_stored_and_no_loss(
    direct: Store, server_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is that of bad data, and the table has the records before its views are asked."""
    admin(direct)(
        f"CREATE MATERIALIZED VIEW {server_settings.database}.mistaken ENGINE = Memory AS"
        " SELECT toUInt8(concat('no number: ', toString(sourcePodName))) AS number"
        f" FROM {server_settings.database}.flow_records"
    )
    writer = Writer(direct, Stage("clickhouse"), commit_interval_s=0.02)
    await writer.start()
    writer.put(flows(11))
    await until(lambda: writer.held() == 0)
    await writer.stop()
    assert (writer.stage.sent, writer.stage.dropped) == (11, {})
    assert count(direct) == 11
    assert "mistaken" in caplog.text


@pytest.mark.parametrize(("code", "passes"), [(117, False), (164, True), (243, True)])
def test_what_a_server_refuses_for_ever_and_what_passes(code: int, passes: bool) -> None:
    """Bad data does not become better; a user that may only read, and a full disk, may pass."""
    with pytest.raises(StoreError) as caught, store_errors("server"):
        raise ServerException("no", code)
    assert caught.value.retryable == passes
    assert caught.value.code == code
