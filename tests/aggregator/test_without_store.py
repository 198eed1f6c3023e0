"""An aggregator without a store that is killed: collectors hear of nothing twice."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from waiting import until

from .harness import Aggregator, connection
from .test_json_collector import Reader, listening
from .test_restart import KeepingExporter, halves


def octets(reader: Reader) -> Counter[str]:
    """What the collector has heard of, by client."""
    found: Counter[str] = Counter()
    for event in reader.events:
        found[event["ipfix"]["sourceIPv4Address"]] += event["ipfix"]["octetDeltaCount"]
    return found


def settings(port: int, directory: Path) -> dict[str, Any]:
    collector = {"enable": True, "address": f"127.0.0.1:{port}:tcp", "recordFormat": "JSON"}
    kept = {"directory": str(directory)}
    return {"flowCollector": collector, "correlationTimeout": "30s", "checkpoint": kept}


@pytest.mark.slow
async def test_what_was_delivered_and_comes_again_is_told_once(tmp_path: Path) -> None:
    """A half that waits keeps all from being acknowledged, so all of it is sent again."""
    reader = Reader()
    async with listening(reader) as port:
        aggregator = Aggregator(tmp_path, settings(port, tmp_path / "kept")).start()
        exporter = KeepingExporter(aggregator)
        try:
            await exporter.connect()
            await exporter.send(connection(9), *halves(1))
            await until(lambda: len(reader.events) == 3)
            rows = "flowvis_aggregator_checkpoints_rows"
            await until(lambda: aggregator.metrics()[rows] == 3)
            assert len(exporter.kept) == 7
            await asyncio.to_thread(aggregator.stop, signal.SIGKILL)
            aggregator.start()
            await exporter.connect()
            await exporter.send(*halves(2), connection(9, source=False))
            await until(lambda: not exporter.kept)
            assert octets(reader) == {f"10.0.0.{n}": 2000 for n in (1, 2, 3)} | {"10.0.0.9": 1000}
            aggregator.books()
            await exporter.close()
            # An orderly stop leaves what it has delivered to the next one as well.
            await asyncio.to_thread(aggregator.stop)
            aggregator.start()
            assert aggregator.metrics()[rows] >= 4
            await exporter.connect()
            await exporter.send(*halves(3))
            await until(lambda: not exporter.kept)
            assert octets(reader)["10.0.0.1"] == 3000
            await exporter.close()
            await asyncio.to_thread(aggregator.stop)
            await until(lambda: reader.ended == reader.sessions)
        finally:
            aggregator.end()
