"""A table of flows that one peer fills: its own flows make room, and others' records come in."""

from typing import Any

from flowvis.batch import Batch
from flowvis.fields import EXPORTED
from flowvis.ipfix.exporter import ExporterSession
from flowvis.transport.server import Peer

from .harness import connection, exported
from .test_collector import Line

MAX_FLOWS = 640


class Session:
    """A session from one address, with its own observation domain."""

    def __init__(self, line: Line, address: str, domain: int) -> None:
        self.line = line
        self.exporter = ExporterSession(domain, EXPORTED)
        self.stream = line.collector.open(Peer(address, domain, "node"))
        self.stream.data_received(memoryview(b"".join(self.exporter.templates(1))))

    def send(self, batch: Batch) -> None:
        self.stream.data_received(memoryview(b"".join(self.exporter.encode(batch, 1))))
        self.line.collector.flush()


def halves(first: int, count: int, **more: Any) -> Batch:
    """Records whose other halves are waited for."""
    return exported(*(connection(number) | more for number in range(first, first + count)))


def dropped(line: Line) -> int:
    return line.ledger.stages["correlator"].dropped.get("full", 0)


async def test_who_fills_the_table_loses_and_the_others_do_not() -> None:
    line = Line(max_flows=MAX_FLOWS)
    # from several observation domains: it is the address that counts
    flood = [Session(line, "192.0.2.66", domain) for domain in range(4)]
    good = Session(line, "192.0.2.1", 99)
    good.send(halves(0, 30))
    poured = 0
    for turn in range(20):
        for one in flood:
            one.send(halves(10_000 + poured, 200))
            poured += 200
        before = dropped(line)
        good.send(halves(100 + turn * 5, 5))
        assert dropped(line) == before, "a record of another exporter was dropped"
        line.now_ms += 500
        await line.write()
        assert not line.ledger.imbalance()
    assert dropped(line) > 1000
    live = set(line.table.live().texts("sourcePodName"))
    assert {f"client-{number}" for number in range(30)} <= live
    written = {text for b in line.history.latest(10**6) for text in b.texts("sourcePodName")}
    assert not written & {f"client-{number}" for number in range(100)}, "written without their half"


async def test_what_all_fill_together_is_written_early_and_nothing_is_dropped() -> None:
    line = Line(max_flows=MAX_FLOWS)
    sessions = [Session(line, f"192.0.2.{last}", last) for last in range(1, 9)]
    for turn in range(20):
        for place, one in enumerate(sessions):
            one.send(halves(place * 10_000 + turn * 5, 5))
        line.now_ms += 500
        await line.write()
        assert not line.ledger.imbalance()
    assert dropped(line) == 0
    assert line.ledger.stages["correlator"].sent + line.table.stats.held == 20 * 8 * 5


async def test_known_flows_of_who_fills_the_table_go_on() -> None:
    line = Line(max_flows=MAX_FLOWS)
    flood = Session(line, "192.0.2.66", 1)
    flood.send(halves(0, 600))
    flood.send(halves(600, 600))
    refused = dropped(line)
    assert refused > 0
    flood.send(halves(0, 600, flowEndMilliseconds=line.now_ms, octetTotalCount=9000))
    assert dropped(line) == refused
