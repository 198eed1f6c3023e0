"""The aggregator over Debian's clickhouse-server, which goes away and comes back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickhouse.server import Server
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import StoreSettings, open_store
from waiting import block_until

from .harness import Aggregator, connection, deliver, exported, running

CLICKHOUSE = "flowvis_aggregator_clickhouse"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "clickhouse")
    server.start()
    yield server
    server.kill()


def sides(first: int, count: int, interval: int = 1) -> list[dict[str, object]]:
    return [
        connection(n, interval=interval, source=side)
        for n in range(first, first + count)
        for side in (True, False)
    ]


def problem_of(aggregator: Aggregator, destination: str) -> str:
    (found,) = (
        one["problem"]
        for one in aggregator.control.get("status")["destinations"]
        if one["name"].startswith(destination)
    )
    return str(found)


def records_of(aggregator: Aggregator) -> int:
    """How many records the monitor has seen in the store."""
    tables = aggregator.control.get("status")["store"].get("tables", ())
    return sum(int(one["rows"]) for one in tables if one["name"] == "flow_records")


def test_nothing_is_lost_or_doubled_when_the_server_dies(server: Server, tmp_path: Path) -> None:
    """kill -9 while records come; the external collector, stuck, changes nothing."""
    settings = {
        "clickHouse": {
            "enable": True,
            "databaseURL": server.url,
            "commitInterval": "1s",
            "monitor": {"execInterval": "1s", "storageSize": "32Mi"},
        },
        "flowCollector": {"enable": True, "address": "127.0.0.1:9", "maxPendingRecords": 20},
        "gracePeriod": "5s",
    }
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(*sides(0, 50)))
        aggregator.until("clickhouse", "sent", 50)
        server.kill()
        deliver(aggregator, exported(*sides(50, 50)))
        aggregator.until("clickhouse", "held", 50)
        block_until(lambda: problem_of(aggregator, "clickhouse"))  # an attempt has failed
        server.start()
        aggregator.until("clickhouse", "sent", 100)
        query = "SELECT count(), uniqExact(sourcePodName), sum(octetDeltaCount) FROM flows"
        assert aggregator.sql(query) == [[100, 100, 100_000]]
        block_until(lambda: records_of(aggregator) == 100)
        books = aggregator.books()
        assert books["ipfix"]["dropped"] == {"queue-full": 80}
        assert books["ipfix"]["held"] == 20
        assert "not connected" in {
            one["problem"] for one in aggregator.control.get("status")["destinations"]
        }
        assert aggregator.stop() == 0
    assert "stage=ipfix received=100 sent=0 merged=0" in aggregator.log()
    assert "gave up 20 records" in aggregator.log()


def test_what_is_spooled_survives_the_aggregator_and_is_stored_once(
    server: Server, tmp_path: Path
) -> None:
    """The store is away, the aggregator is killed, and killed again as it delivers."""
    spool = tmp_path / "spool"
    settings = {
        "clickHouse": {
            "enable": True,
            "databaseURL": server.url,
            "commitInterval": "1s",
            "spool": {"directory": str(spool), "after": "0s", "maxBytes": "64Mi"},
        },
        "gracePeriod": "5s",
    }

    def spooled() -> int:
        return sum(int(path.stem.partition("-")[2]) for path in spool.glob("*.batch"))

    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(*sides(0, 30)))
        aggregator.until("clickhouse", "sent", 30)
        server.kill()
        deliver(aggregator, exported(*sides(30, 40)))
        block_until(lambda: spooled() == 40)
        block_until(lambda: aggregator.metrics()[f"{CLICKHOUSE}_spooled_records"] == 40)
        status = aggregator.control.get("status")
        assert status["ledger"]["balanced"]
        (store,) = [one for one in status["destinations"] if one["name"].startswith("clickhouse")]
        assert (store["page"], store["records"], store["spooledRecords"]) == ("clickhouse", 40, 40)
        aggregator.stop(signal.SIGKILL)
    with running(tmp_path / "second", settings) as aggregator:
        aggregator.until("clickhouse", "received", 40)
        deliver(aggregator, exported(*sides(70, 10)))
        block_until(lambda: spooled() == 50)
        assert aggregator.stop() == 0
    assert "50 records stay in" in aggregator.log()
    server.start()
    with running(tmp_path / "third", settings) as aggregator:
        aggregator.until("clickhouse", "sent", 50)
        query = "SELECT count(), uniqExact(sourcePodName), sum(octetDeltaCount) FROM flows"
        assert aggregator.sql(query) == [[80, 80, 80_000]]
        assert aggregator.metrics()["flowvis_aggregator_clickhouse_spooled_bytes"] == 0
        assert aggregator.stop() == 0
    assert spooled() == 0


def test_the_store_cannot_be_written_to_by_queries(server: Server, tmp_path: Path) -> None:
    settings = {"clickHouse": {"enable": True, "databaseURL": server.url, "commitInterval": "1s"}}
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(*sides(0, 1)))
        aggregator.until("clickhouse", "sent", 1)
        for query in ("DROP TABLE flows", "INSERT INTO flows (sourceTransportPort) VALUES (1)"):
            with pytest.raises(Exception, match="query refused: "):
                aggregator.sql(query)
        assert aggregator.sql("SELECT count() FROM flows") == [[1]]
        assert aggregator.stop() == 0


def test_questions_and_the_history_of_the_books(server: Server, tmp_path: Path) -> None:
    """What is lost elsewhere is said by each answer, and stays in the store after the end."""
    settings = {
        "clickHouse": {"enable": True, "databaseURL": server.url, "commitInterval": "1s"},
        "flowCollector": {"enable": True, "address": "127.0.0.1:9", "maxPendingRecords": 4},
        "gracePeriod": "2s",
    }
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(*sides(0, 10)))
        aggregator.until("clickhouse", "sent", 10)
        found = aggregator.control.get(
            "api/v1/query",
            {"from": "-1d", "by": "dst.ip", "measure": "octets,records,connections"},
        )
        assert found["rows"] == [["10.200.0.1", 10_000, 10, 10]]
        answer = found["answer"]
        lost = {(each["stage"], each["reason"]): each["records"] for each in answer["missing"]}
        assert lost["ipfix", "queue-full"] == 6
        assert not answer["complete"]
        page = aggregator.control.get(
            "api/v1/flows", {"from": "-1d", "filter": "src.pod = client-3"}
        )
        assert len(page["rows"]) == 1
        drawn = aggregator.control.get("api/v1/graph", {"from": "-1d", "source": "src.pod"})
        assert sum(edge["octets"] for edge in drawn["edges"]) == 10_000
        store = open_store(StoreSettings(server.url))
        entry = BookEntry("collector", What.RECEIVED, 1)
        store.keep(Page(BatchId("other", int(time.time()) - 600), 60, [entry], "west"))
        for chosen, silent in (("", ["west"]), ("cluster = east", [])):
            asking = {"from": "-15m", "measure": "records", "filter": chosen}
            missing = aggregator.control.get("api/v1/query", asking)["answer"]["missing"]
            assert [m["cluster"] for m in missing if m["reason"] == "no-books"] == silent
        assert aggregator.stop() == 0
    kept = store.query(
        "SELECT stage, what, reason, sum(records) FROM flow_books"
        " WHERE node = '' AND clusterUUID = 'east' GROUP BY stage, what, reason"
    )
    store.close()
    books = {(stage, what, reason): records for stage, what, reason, records in kept.rows}
    assert books["correlator", "sent", ""] == books["clickhouse", "received", ""] == 10
    assert books["clickhouse", "sent", ""] == 10
    assert books["ipfix", "dropped", "queue-full"] == 6
