"""The aggregator over Debian's clickhouse-server, which goes away and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clickhouse.server import Server
from waiting import block_until

from .harness import Aggregator, connection, deliver, exported, running


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


def test_nothing_is_lost_or_doubled_when_the_server_dies(server: Server, tmp_path: Path) -> None:
    """kill -9 while records come; the external collector, stuck, changes nothing."""
    settings = {
        "clickHouse": {"enable": True, "databaseURL": server.url, "commitInterval": "1s"},
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
        books = aggregator.books()
        assert books["ipfix"]["dropped"] == {"queue-full": 80}
        assert books["ipfix"]["held"] == 20
        assert "not connected" in {
            one["problem"] for one in aggregator.control.get("status")["destinations"]
        }
        assert aggregator.stop() == 0
    assert "stage=ipfix received=100 sent=0 merged=0" in aggregator.log()
    assert "gave up 20 records" in aggregator.log()


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
