"""Changes of a running aggregator's configuration file, and what comes of them."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clickhouse.server import Server
from flowvis.cli.flowctl import main as flowctl
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import FlowvisError
from flowvis.fields import AGGREGATED, EXPORTED
from flowvis.ipfix.exporter import ExporterSession, least_message
from waiting import PATIENCE_S, block_until

from .harness import Aggregator, connection, deliver, exported, running, send
from .test_ipfix_destination import Collector

RELOADS = "flowvis_aggregator_config_reloads_total"
RESTART = "flowvis_aggregator_config_restart_required"
PROBLEMS = "flowvis_aggregator_config_problems"


def store(url: str, **more: Any) -> dict[str, Any]:
    return {"enable": True, "databaseURL": url, "commitInterval": "1s", **more}


def flow(number: int, interval: int = 1) -> dict[str, Any]:
    """One record of a connection within a node: it waits for no other."""
    return connection(number, interval=interval) | {"flowType": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "clickhouse")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def aggregator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aggregator]:
    """One for the tests that set back what they change."""
    with running(tmp_path_factory.mktemp("aggregator"), {}) as started:
        yield started


async def stream(aggregator: Aggregator, stop: asyncio.Event) -> int:
    """Send connections of one record, each its own, until `stop`; return how many."""
    count = 0
    while not stop.is_set():
        await send(aggregator.client(), [exported(*(flow(count + n) for n in range(20)))])
        count += 20
    return count


async def while_records_flow(aggregator: Aggregator, *changes: dict[str, Any]) -> int:
    """Change the configuration, again and again, while records come; return how many came."""
    stop = asyncio.Event()
    sending = asyncio.create_task(stream(aggregator, stop))
    for change in changes:
        await asyncio.sleep(1.5)  # with records that are on every way when it changes
        await asyncio.to_thread(aggregator.configure, change)
    await asyncio.sleep(1.5)  # and some after the last change
    stop.set()
    return await sending


def numbers(url: str) -> list[str]:
    """The connections that a store has, as often as it has them."""
    opened = open_store(StoreSettings(url))
    try:
        rows = opened.query("SELECT sourcePodName FROM flows", max_rows=100_000).rows
    finally:
        opened.close()
    return [row[0] for row in rows]


@pytest.mark.clickhouse
def test_another_store_while_records_flow(server: Server, tmp_path: Path) -> None:
    """From a server to the embedded engine, to another directory of it, and off."""
    one, two = f"embedded://{tmp_path}/one", f"embedded://{tmp_path}/two"
    with running(tmp_path / "aggregator", {"clickHouse": store(server.url)}) as aggregator:
        changes = [{"clickHouse": store(url)} for url in (one, two)]
        count = asyncio.run(while_records_flow(aggregator, *changes))
        books = aggregator.settled(count)
        assert books["clickhouse"]["sent"] == count
        assert "level=error" not in aggregator.log()
        last = [row[0] for row in aggregator.sql("SELECT sourcePodName FROM flows")]
        assert aggregator.metrics()["flowvis_aggregator_clickhouse_healthy"] == 1
        aggregator.configure({"clickHouse": {"enable": False}})
        aggregator.logged("clickHouse.enable: true -> false")
        with pytest.raises(FlowvisError, match="no store is configured"):
            aggregator.sql("SELECT 1")
        deliver(aggregator, exported(flow(-1 & 0xFFFF)))
        assert aggregator.settled(count + 1)["clickhouse"]["received"] == count
        block_until(lambda: aggregator.control.get("status")["destinations"] == [])  # not at once
        aggregator.configure({"clickHouse": store(two)})
        aggregator.logged("clickHouse.enable: false -> true")
        deliver(aggregator, exported(flow(0xFFFE)))
        assert aggregator.settled(count + 2)["clickhouse"]["sent"] == count + 1
        assert ["client-65534"] in aggregator.sql("SELECT sourcePodName FROM flows")
        assert aggregator.stop() == 0
    first, second = numbers(server.url), numbers(one)
    assert min(map(len, (first, second, last))) > 0
    assert sorted(first + second + last) == sorted(f"client-{n}" for n in range(count))


@pytest.mark.clickhouse
def test_what_a_wrong_address_kept_goes_to_the_right_one(server: Server, tmp_path: Path) -> None:
    settings = {"clickHouse": store("tcp://127.0.0.1:9"), "gracePeriod": "5s"}
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(*(flow(n) for n in range(50))))
        aggregator.until("clickhouse", "held", 50)
        aggregator.configure({"clickHouse": store(server.url)})
        aggregator.logged("50 records go to")
        deliver(aggregator, exported(*(flow(n) for n in range(50, 60))))
        books = aggregator.settled(60)["clickhouse"]
        assert (books["sent"], books["dropped"]) == (60, {})
        assert aggregator.sql("SELECT count(), uniqExact(sourcePodName) FROM flows") == [[60, 60]]
        assert aggregator.stop() == 0


@pytest.mark.clickhouse
def test_other_credentials_are_another_destination(server: Server, tmp_path: Path) -> None:
    bad = store(server.url, username="writer", password="wrong")
    with running(tmp_path / "aggregator", {"clickHouse": bad}) as aggregator:
        deliver(aggregator, exported(flow(1)))
        aggregator.until("clickhouse", "held", 1)
        aggregator.configure({"clickHouse": bad | {"password": "secret"}})
        assert aggregator.settled(1)["clickhouse"]["sent"] == 1
        assert "clickHouse.password: '***' -> '***'" in aggregator.log()
        assert aggregator.stop() == 0
    assert "wrong" not in aggregator.log()


def test_a_stop_in_the_middle_of_a_change_hands_over_too(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/store"
    settings = {"clickHouse": store("tcp://127.0.0.1:9"), "gracePeriod": "20s"}
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(flow(1)))
        aggregator.until("clickhouse", "held", 1)
        aggregator.configure({"clickHouse": store(url)})
        aggregator.logged("clickHouse.databaseURL")
        left = aggregator.control.get("status")["destinations"]
        assert [one["problem"] for one in left] == ["replaced, 1 records left", "begins then"]
        assert aggregator.stop() == 0
    assert numbers(url) == ["client-1"]


async def test_another_collector_while_records_flow(tmp_path: Path) -> None:
    first, second = Collector(), Collector()
    await first.start()
    await second.start()

    def to(collector: Collector, **more: Any) -> dict[str, Any]:
        address = f"127.0.0.1:{collector.port}:tcp"
        return {"flowCollector": {"enable": True, "address": address, **more}}

    with running(tmp_path, to(first)) as aggregator:
        changes = [to(second), to(first, observationDomainID=5), to(second)]
        count = await while_records_flow(aggregator, *changes)
        books = await asyncio.to_thread(aggregator.settled, count)
        assert (books["ipfix"]["sent"], books["ipfix"]["dropped"]) == (count, {})
        sessions = aggregator.metrics()["flowvis_aggregator_flow_collector_sessions_total"]
        assert sessions == 4
        assert await asyncio.to_thread(aggregator.stop) == 0
    await first.stop()
    await second.stop()
    names = [c.buffer.batch().texts("sourcePodName") for c in (first, second)]
    assert all(names)
    assert sorted(names[0] + names[1]) == sorted(f"client-{n}" for n in range(count))


async def test_what_a_dead_collector_kept_goes_to_the_next(tmp_path: Path) -> None:
    collector = Collector()
    await collector.start()
    dead = {"enable": True, "address": "127.0.0.1:9"}
    with running(tmp_path, {"flowCollector": dead, "gracePeriod": "5s"}) as aggregator:
        await send(aggregator.client(), [exported(*(flow(n) for n in range(50)))])
        await asyncio.to_thread(aggregator.until, "ipfix", "held", 50)
        aggregator.configure({"flowCollector": dead | {"address": f"127.0.0.1:{collector.port}"}})
        books = await asyncio.to_thread(aggregator.settled, 50)
        assert (books["ipfix"]["sent"], books["ipfix"]["dropped"]) == (50, {})
        assert await asyncio.to_thread(aggregator.stop) == 0
    await collector.stop()
    assert len(set(collector.buffer.batch().texts("sourcePodName"))) == 50


def test_a_broken_file_changes_nothing(
    aggregator: Aggregator, capsys: pytest.CaptureFixture[str]
) -> None:
    before = aggregator.metrics()
    aggregator.configure({"clusterID": "south", "activeFlowRecordTimeout": 5, "maxFlow": 1})
    aggregator.logged("activeFlowRecordTimeout: 5 is not allowed here: a duration")
    aggregator.logged("maxFlow: unknown key; did you mean maxFlows?")
    after = aggregator.metrics()
    assert after[RELOADS + '{result="invalid"}'] == before[RELOADS + '{result="invalid"}'] + 1
    assert after[PROBLEMS] == 2
    assert flowctl(["--socket", str(aggregator.path / "control.sock"), "status"]) == 0
    assert "configuration not taken: " in capsys.readouterr().out
    assert flow_record(aggregator)["clusterId"] == "east"
    aggregator._document.pop("maxFlow")
    aggregator.configure({"clusterID": "east", "activeFlowRecordTimeout": "500ms"})
    wait_for(aggregator, PROBLEMS, 0)


async def test_a_message_size_below_the_template_leaves_the_collector_as_it_is(
    tmp_path: Path,
) -> None:
    collector = Collector()
    await collector.start()
    good = {"enable": True, "address": f"127.0.0.1:{collector.port}"}
    with running(tmp_path, {"flowCollector": good}) as aggregator:
        aggregator.configure({"flowCollector": good | {"maxIPFIXMsgSize": 520}})
        await asyncio.to_thread(
            aggregator.logged,
            f"flowCollector.maxIPFIXMsgSize: 520: 0, or {least_message(AGGREGATED)} (what a",
        )
        await send(aggregator.client(), [exported(*(flow(n) for n in range(20)))])
        books = await asyncio.to_thread(aggregator.settled, 20)
        assert (books["ipfix"]["sent"], books["ipfix"]["dropped"]) == (20, {})
        assert await asyncio.to_thread(aggregator.stop) == 0
    await collector.stop()
    assert len(collector.buffer) == 20


def test_what_needs_a_restart_is_said(
    aggregator: Aggregator, capsys: pytest.CaptureFixture[str]
) -> None:
    aggregator.configure({"maxFlows": 1234, "clusterID": "north"})
    aggregator.logged("maxFlows: 1000000 -> 1234 needs a restart")
    assert aggregator.metrics()[RESTART] == 1
    assert aggregator.control.get("status")["configuration"] == {
        "restartRequired": ["maxFlows"],
        "problems": [],
    }
    assert flowctl(["--socket", str(aggregator.path / "control.sock"), "status"]) == 0
    assert "changed, and needs a restart: maxFlows" in capsys.readouterr().out
    assert flow_record(aggregator)["clusterId"] == "north"  # what is live was taken up
    aggregator.configure({"maxFlows": 1_000_000, "clusterID": "east"})
    wait_for(aggregator, RESTART, 0)


def test_timeouts(aggregator: Aggregator) -> None:
    """A half that waits for the other one goes out when the wait is over."""
    aggregator.configure({"correlationTimeout": "1h", "inactiveFlowRecordTimeout": "2h"})
    aggregator.logged("correlationTimeout: null -> 1h")
    deliver(aggregator, exported(connection(7000)))
    aggregator.until("correlator", "held", 1)
    time.sleep(1)  # nothing comes of it meanwhile
    assert aggregator.books()["correlator"]["held"] == 1
    aggregator.configure({"correlationTimeout": None, "inactiveFlowRecordTimeout": "2s"})
    aggregator.until("correlator", "held", 0)


def test_the_number_of_sessions(aggregator: Aggregator) -> None:
    listen = aggregator._document["listen"]
    aggregator.configure({"listen": listen | {"maxSessions": 1}})
    aggregator.logged("listen.maxSessions: 10000 -> 1")

    async def play() -> bool:
        one, two = aggregator.client(), aggregator.client()
        await one.connect()
        session, received = (
            ExporterSession(1, EXPORTED),
            aggregator.books()["collector"]["received"],
        )
        await one.send([*session.templates(1), *session.encode(exported(flow(7)), 1)])
        # Who has sent no record gives way.
        await asyncio.to_thread(aggregator.until, "collector", "received", received + 1)
        connecting = asyncio.create_task(two.connect())
        await asyncio.to_thread(block_until, lambda: aggregator.metrics().get(refused, 0) > before)
        assert not connecting.done()
        connecting.cancel()
        await asyncio.wait((connecting,))
        return await one.close(PATIENCE_S)

    refused = 'flowvis_aggregator_server_refused_total{reason="sessions-per-address"}'
    before = aggregator.metrics().get(refused, 0)
    assert asyncio.run(play())
    aggregator.configure({"listen": listen})
    aggregator.logged("listen.maxSessions: 1 -> 10000")


def test_the_log_and_without_being_reported(aggregator: Aggregator) -> None:
    """Without SIGHUP it looks by itself."""
    aggregator.configure({"log": {"level": "debug", "format": "json"}}, reported=False)

    def reported_more() -> bool:
        deliver(aggregator, exported(flow(9000)))
        return '"level": "debug"' in aggregator.log()

    block_until(reported_more)
    aggregator.configure({"log": {}})
    aggregator.logged("log.level: debug -> info")


def flow_record(aggregator: Aggregator) -> dict[str, Any]:
    """The record of a fresh connection as it goes out."""
    number = aggregator.books()["collector"]["received"] + 20_000
    received = aggregator.books()["collector"]["received"]
    deliver(aggregator, exported(flow(number)))
    aggregator.settled(received + 1)
    (row,) = aggregator.control.lines("flows", {"pod": f"client-{number}"})
    return dict(row)


def wait_for(aggregator: Aggregator, metric: str, value: float) -> None:
    block_until(lambda: aggregator.metrics()[metric] == value, aggregator.log)
