"""A real aggregator that is sent more text than it may hold."""

import os
import socket
import time
from pathlib import Path

import pytest

from flowvis.errors import FlowvisError
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from waiting import PATIENCE_S

from .harness import Aggregator, connection, deliver, exported, running

LIMIT = 256 << 20
NAMES = ("sourcePodName", "destinationPodName", "ingressNetworkPolicyName")


class Flood:
    """A session from an address of its own, whose texts nobody has seen before."""

    def __init__(self, aggregator: Aggregator, address: str) -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", aggregator.port), source_address=(address, 0), timeout=PATIENCE_S
        )
        self._session = ExporterSession(9, EXPORTED)
        self._socket.sendall(b"".join(self._session.templates(1)))
        self.sent = 0

    def pour(self, records: int, size: int = 16_380) -> int:
        """Send records of three texts; return the bytes."""
        rows = []
        for number in range(self.sent, self.sent + records):
            texts = {name: os.urandom(size // 2).hex() for name in NAMES}
            rows.append(connection(1_000_000 + number) | {"flowType": 1} | texts)
        data = b"".join(self._session.encode(exported(*rows), int(time.time())))
        self._socket.sendall(data)
        self.sent += records
        return len(data)

    def close(self) -> None:
        self._socket.close()


def test_text_that_does_not_fit_costs_who_sends_it(tmp_path: Path) -> None:
    settings = {
        "aggregatorTransportProtocol": "TCP",
        "memory": {"limit": "256Mi"},
        "activeFlowRecordTimeout": "10s",
        "inactiveFlowRecordTimeout": "20s",
    }
    with running(tmp_path, settings) as aggregator:
        flood = Flood(aggregator, "127.0.0.9")
        good = Flood(aggregator, "127.0.0.1")
        octets = 0
        while octets < 16 << 20:
            octets += flood.pour(32)
            good.pour(1, size=30)
        received = flood.sent + good.sent
        aggregator.until("collector", "received", received)
        flood.close()
        good.close()
        memory = aggregator.control.get("status")["memory"]
        assert memory["limitBytes"] == LIMIT
        assert memory["residentBytes"] < LIMIT
        for share in memory["shares"]:
            assert share["bytes"] <= share["limitBytes"], share
        values = aggregator.metrics()
        name = 'flowvis_aggregator_memory_share_bytes{share="text"}'
        # For a moment two tables may have the same.
        assert 1 << 20 < values[name] < 0.75 * octets
        assert values["flowvis_aggregator_ipfix_refused_texts_total"] > 500
        assert aggregator.books()["correlator"]["dropped"] == {}
        assert "those of 127.0.0.9 " in aggregator.log()
        assert "those of 127.0.0.1 " not in aggregator.log()
        assert aggregator.stop() == 0


def test_queries_of_an_embedded_store_are_part_of_the_process(tmp_path: Path) -> None:
    """They have less than `maxMemoryMiB` where the process has little."""
    store = {"enable": True, "databaseURL": f"embedded://{tmp_path}/store"}
    with running(tmp_path, {"clickHouse": store, "memory": {"limit": "512Mi"}}) as aggregator:
        deliver(aggregator, exported(connection(1) | {"flowType": 1}))
        aggregator.until("clickhouse", "sent", 1)
        with pytest.raises(FlowvisError, match=r"(?i)memory limit"):
            aggregator.sql("SELECT length(groupArray(number)) FROM numbers(20000000)")  # 160 MB
        assert aggregator.sql("SELECT count() FROM flows") == [[1]]
        assert aggregator.stop() == 0
