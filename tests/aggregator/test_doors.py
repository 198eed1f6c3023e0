"""A real aggregator under attack at its doors: exporters get in, probes are answered."""

import socket
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
from benchmarks.attacks import doors

from waiting import PATIENCE_S, block_until

from .harness import Aggregator, connection, deliver, exported, running

ATTACKS = (doors.idle_from_one_address, doors.templates_redefined)


def healthy(aggregator: Aggregator) -> bool:
    with urlopen(
        f"http://127.0.0.1:{aggregator.status_port}/healthz", timeout=PATIENCE_S
    ) as answer:
        return bool(answer.status == 200)


def test_exporters_and_probes_get_through(tmp_path: Path) -> None:
    settings = {"listen": {"address": "0.0.0.0", "port": 0}, "log": {"level": "warning"}}
    with running(tmp_path, settings) as aggregator:
        for number, attack in enumerate(ATTACKS):
            before = aggregator.metrics()
            stop = doors.start(attack.__name__, aggregator.port, tmp_path)
            try:
                block_until(partial(under_way, aggregator, before))
                deliver(aggregator, exported(connection(number)))
                assert healthy(aggregator)
                if attack is doors.templates_redefined:
                    aggregator.logged("it is slowed down")
            finally:
                stop()
        books = aggregator.settled(len(ATTACKS))
        assert books["collector"]["received"] == len(ATTACKS)
        assert aggregator.stop() == 0
        lines = aggregator.log().splitlines()
    assert len(lines) < 500


def under_way(aggregator: Aggregator, before: dict[str, float]) -> bool:
    """Whether an attack has begun to show: in what gave way, or was changed."""

    def shown(metrics: dict[str, float]) -> float:
        names = ("gave-way", "templates_changed_total")
        return sum(value for name, value in metrics.items() if any(each in name for each in names))

    return shown(aggregator.metrics()) - shown(before) > 50


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.9"])
def test_probes_get_through_idle_connections(tmp_path: Path, source: str) -> None:
    settings = {"status": {"address": "0.0.0.0", "port": 0}}
    with running(tmp_path, settings) as aggregator:
        target = ("127.0.0.1", aggregator.status_port)
        idle = [socket.create_connection(target, 20, (source, 0)) for _ in range(400)]
        try:
            assert all(healthy(aggregator) for _ in range(5))
            assert aggregator.metrics()['flowvis_http_closed_total{reason="gave-way"}'] >= 300
        finally:
            for sock in idle:
                sock.close()
        assert aggregator.stop() == 0
