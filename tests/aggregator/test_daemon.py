import asyncio
import json
import signal
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from flowvis.errors import FlowvisError
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.runtime.component import SAME_S
from flowvis.transport.client import ConnectionLost
from waiting import PATIENCE_S, block_until, until

from .harness import Aggregator, connection, deliver, exported, running, send


def embedded(path: Path) -> dict[str, Any]:
    return {
        "enable": True,
        "databaseURL": f"embedded://{path}/store",
        "commitInterval": "1s",
        "debug": True,
    }


@pytest.fixture(scope="module")
def aggregator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aggregator]:
    """One for the tests that leave it as it was: the embedded engine takes its time to load."""
    path = tmp_path_factory.mktemp("aggregator")
    with running(path, {"clickHouse": embedded(path)}) as started:
        yield started


def both_halves(*numbers: int, interval: int = 1) -> list[dict[str, Any]]:
    return [
        connection(number, interval=interval, source=source)
        for number in numbers
        for source in (True, False)
    ]


def test_two_halves_become_one_record_in_the_store(aggregator: Aggregator) -> None:
    before = aggregator.settled(0)
    deliver(aggregator, exported(connection(1)))
    deliver(aggregator, exported(connection(1, source=False)))
    books = aggregator.settled(before["collector"]["received"] + 2)
    assert books["clickhouse"]["sent"] == before["clickhouse"]["sent"] + 1
    assert "committed 1 records in" in aggregator.log()
    columns = (
        "sourcePodName, destinationPodName, sourceNodeName, destinationNodeName, octetDeltaCount,"
        " octetDeltaCountFromSourceNode, octetDeltaCountFromDestinationNode, clusterUUID, sourceIP"
    )
    rows = aggregator.sql(f"SELECT {columns} FROM flows WHERE sourcePodName = 'client-1'")
    assert rows == [["client-1", "server-1", "n1", "n2", 1000, 1000, 1000, "east", "10.0.0.1"]]


def test_people_can_see_it(aggregator: Aggregator) -> None:
    before = aggregator.settled(0)["collector"]["received"]
    deliver(aggregator, exported(*both_halves(7)))
    aggregator.settled(before + 2)
    rows = list(aggregator.control.lines("flows", {"pod": "client-7"}))
    assert [row["destinationPodName"] for row in rows] == ["server-7"]
    live = list(aggregator.control.lines("api/v1/live", {"pod": "client-7"}))
    assert [row["octetTotalCount"] for row in live] == [1000]
    (store,) = aggregator.control.get("status")["destinations"]
    assert store["name"] == f"clickhouse {aggregator.path}/store/default"
    assert (store["page"], store["problem"], store["required"]) == ("clickhouse", "", True)
    assert store["records"] <= 2


def get(aggregator: Aggregator, page: str) -> str:
    with urlopen(f"http://127.0.0.1:{aggregator.status_port}/{page}", timeout=PATIENCE_S) as answer:
        return str(answer.read(), "utf-8")


def test_metrics_and_health(aggregator: Aggregator) -> None:
    before = aggregator.settled(0)["collector"]["received"]
    deliver(aggregator, exported(*both_halves(9)))
    books = aggregator.settled(before + 2)
    assert get(aggregator, "healthz") == "ok\n"
    assert get(aggregator, "readyz") == "ok\n"
    lines = get(aggregator, "metrics").splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    received = 'flowvis_ledger_records_total{reason="",stage="collector",what="received"}'
    assert float(values[received]) == books["collector"]["received"]
    assert float(values["flowvis_aggregator_ipfix_records_total"]) == float(values[received])
    assert float(values["flowvis_aggregator_clickhouse_commits_total"]) >= 1
    assert values['flowvis_ledger_imbalance_records{stage="correlator"}'] == "0.0"
    assert "flowvis_aggregator_live_flows" in values
    assert any(line.startswith("flowvis_build_info{") for line in values)


def raw_session(aggregator: Aggregator) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=aggregator.path / "ca.crt")
    context.load_cert_chain(aggregator.path / "client.crt", aggregator.path / "client.key")
    plain = socket.create_connection(("127.0.0.1", aggregator.port))
    return context.wrap_socket(plain, server_hostname="localhost")


def test_bad_peers_harm_nobody_else(aggregator: Aggregator) -> None:
    before = aggregator.settled(0)["collector"]["received"]
    records = [exported(*both_halves(number)) for number in range(100, 120)]

    async def play() -> bool:
        client = aggregator.client()
        await client.connect()
        with raw_session(aggregator) as garbage, raw_session(aggregator) as half:
            garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
            half.sendall(bytes.fromhex("000a00ff"))
            with socket.create_connection(("127.0.0.1", aggregator.port)) as plain:
                plain.sendall(bytes(1000))
            return await send(client, records)

    assert asyncio.run(play())
    books = aggregator.settled(before + 40)
    assert books["collector"]["received"] == before + 40
    log = aggregator.log()
    assert "the peer speaks HTTP, and this port takes IPFIX" in log
    assert "level=error" not in log


def test_records_are_seen_while_they_come(aggregator: Aggregator) -> None:
    before = aggregator.settled(0)["collector"]["received"]
    stream = aggregator.control.lines("flows", {"follow": "1", "limit": "0", "pod": "server-55"})
    assert isinstance(stream, Generator)
    sent = 0

    async def play() -> Any:
        nonlocal sent
        first = asyncio.ensure_future(asyncio.to_thread(next, stream))
        while not first.done():  # nobody says when it has begun to listen
            sent += 1
            halves = (half | {"sourceTransportPort": sent} for half in both_halves(55))
            await send(aggregator.client(), [exported(*halves)])
            await asyncio.wait((first,), timeout=0.5)
        return await first

    assert asyncio.run(play())["sourcePodName"] == "client-55"
    stream.close()
    aggregator.settled(before + 2 * sent)


def test_sigterm_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Exporters send as fast as they can; every record that the aggregator confirmed is stored."""
    count, sessions = 400, 6
    sent = [0] * sessions

    async def exporter(aggregator: Aggregator, number: int) -> None:
        client = aggregator.client()
        await client.connect()
        session = ExporterSession(number, EXPORTED, max_message=1400)
        await client.send(session.templates(1))
        interval = 0
        flows = range(number * count, (number + 1) * count)
        while True:
            interval += 1
            batch = exported(
                *(connection(flow, interval=interval) | {"flowType": 1} for flow in flows)
            )
            messages = session.encode(batch, 1)
            try:
                await client.send(messages)
            except ConnectionLost as lost:
                left = session.records_from(lost.unsent)
                sent[number] = interval * count - left
                break
            sent[number] = interval * count
            await asyncio.sleep(0)  # sending to a buffer with room does not wait
        await client.close()

    async def play(aggregator: Aggregator) -> int:
        tasks = [asyncio.create_task(exporter(aggregator, n)) for n in range(sessions)]
        await until(lambda: min(sent) >= 5 * count, "five intervals of each")
        stopping = asyncio.create_task(asyncio.to_thread(aggregator.stop))
        await asyncio.gather(*tasks)
        return await stopping

    with running(tmp_path, {"clickHouse": embedded(tmp_path)}) as aggregator:
        assert asyncio.run(play(aggregator)) == 0, aggregator.log()
        aggregator.start()
        stored = aggregator.sql("SELECT sum(octetDeltaCount), sum(packetDeltaCount) FROM flows")
        assert stored == [[sum(sent) * 1000, sum(sent) * 10]]
        assert aggregator.stop() == 0
    assert sum(sent) > sessions * count


def test_halves_that_wait_are_written_at_the_end(tmp_path: Path) -> None:
    settings = {"clickHouse": embedded(tmp_path), "inactiveFlowRecordTimeout": "90s"}
    with running(tmp_path, settings) as aggregator:
        deliver(aggregator, exported(connection(1)))
        assert aggregator.until("correlator", "held", 1)["correlator"]["sent"] == 0
        assert aggregator.stop() == 0
        aggregator.start()
        query = "SELECT sourcePodName, destinationPodName, originalFlowsPresent FROM flows"
        assert aggregator.sql(query) == [["client-1", "", 1]]
        # After a restart deltas go on: history is not repeated.
        deliver(
            aggregator, exported(connection(1, interval=2), connection(1, interval=2, source=False))
        )
        aggregator.settled(2)
        assert aggregator.sql("SELECT sum(octetDeltaCount) FROM flows") == [[2000]]
        assert aggregator.stop() == 0


def test_a_store_that_is_away_is_waited_for_and_counted(tmp_path: Path) -> None:
    """Without a store records wait; what cannot be written at the end is in the books."""
    away = {"enable": True, "databaseURL": "tcp://127.0.0.1:9", "commitInterval": "1s"}
    with running(tmp_path, {"clickHouse": away, "gracePeriod": "5s"}) as aggregator:
        deliver(aggregator, exported(*both_halves(1)))
        aggregator.until("clickhouse", "held", 1)
        problem = aggregator.control.get("status")["destinations"][0]["problem"]
        assert "127.0.0.1" in problem
        with pytest.raises(FlowvisError):
            aggregator.sql("SELECT 1")
        assert aggregator.stop() == 0
        assert "gave up 1 records" in aggregator.log()
        assert "stage=clickhouse received=1 sent=0 merged=0" in aggregator.log()


def test_a_second_signal_has_it_hurry(tmp_path: Path) -> None:
    away = {"enable": True, "databaseURL": "tcp://127.0.0.1:9"}
    with running(tmp_path, {"clickHouse": away, "gracePeriod": "60s"}) as aggregator:
        deliver(aggregator, exported(*both_halves(1)))
        process = aggregator._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        aggregator.logged("SIGTERM: stopping")
        time.sleep(SAME_S)  # what comes within that is the same request
        assert aggregator.stop() == 1
        aggregator.logged("SIGTERM: in a hurry")


def test_not_ready_while_it_stops(tmp_path: Path) -> None:
    away = {"enable": True, "databaseURL": "tcp://127.0.0.1:9"}
    with running(tmp_path, {"clickHouse": away, "gracePeriod": "8s"}) as aggregator:
        deliver(aggregator, exported(*both_halves(1)))
        process = aggregator._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        with pytest.raises(HTTPError, match="503"):
            block_until(lambda: not get(aggregator, "readyz"))  # it may not have observed of it yet
        assert process.wait(PATIENCE_S) == 0


def test_what_is_in_the_way_is_said_at_the_start(tmp_path: Path) -> None:
    with running(tmp_path / "a", {}) as first:
        config = {"listen": {"address": "127.0.0.1", "port": first.port}}
        second = Aggregator(tmp_path / "b", config)
        with pytest.raises(AssertionError, match="cannot listen on"):
            second.start()
        second.end()
        third = Aggregator(tmp_path / "c", {"controlSocket": str(first.path / "control.sock")})
        with pytest.raises(AssertionError, match="another flow-aggregator listens"):
            third.start()
        third.end()
        assert json.loads(json.dumps(first.control.get("status")))["ready"]


def test_logs_are_json_where_that_is_wanted(tmp_path: Path) -> None:
    with running(tmp_path, {"log": {"format": "json"}}) as aggregator:
        assert aggregator.stop() == 0
    for line in aggregator.log().splitlines():
        assert json.loads(line)["msg"]
