"""IPFIX of routers, probes and hosts, from the wire to what is written: the sums are the truth."""

import random
from struct import pack

import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.fields import EXPORTED, FIELDS
from flowvis.ipfix import CollectorSession, RecordBuffer
from ipfix import wire
from ipfix.records import records_of

from .exported import START_MS
from .test_flows import _leaf  # noqa: F401  both leaves

KEY = ((0, 8, 4), (0, 12, 4), (0, 7, 2), (0, 11, 2), (0, 4, 1), (0, 152, 8), (0, 153, 8))


class Site:
    """One exporter's session and the flow table behind it."""

    def __init__(self, *fields: tuple[int, int, int]) -> None:
        self.table = FlowTable()
        self.now = START_MS
        self._buffer = RecordBuffer(EXPORTED, self.table.strings)
        self._session = CollectorSession("router", self._buffer)
        self._template = wire.templates(wire.template(256, *KEY, *fields))
        self._lengths = [length for _, _, length in fields]
        self._sequences: dict[int, int] = {}
        self.rows: list[dict[str, int | str]] = []

    def export(
        self,
        *values: int,
        start: int = START_MS,
        end: int = 0,
        reply: bool = False,
        port: int = 40,
        by: int = 1,
    ) -> None:
        """One record, whose values are those of the template's last fields, and what is due."""
        end = end or self.now
        if by not in self._sequences:
            self._sequences[by] = 0
            self._session.receive(wire.message(self._template, domain=by))
        ends = [(bytes([192, 0, 2, 1]), port), (bytes([192, 0, 2, 9]), 443)]
        (source, sport), (destination, dport) = reversed(ends) if reply else ends
        key = source + destination + pack(">HHBQQ", sport, dport, 6, start, end)
        body = b"".join(v.to_bytes(n) for n, v in zip(self._lengths, values, strict=True))
        sent = self._sequences[by]
        self._sequences[by] += 1
        self._session.receive(wire.message(wire.set_of(256, key + body), sequence=sent, domain=by))
        self.table.add(self._buffer.batch(), self.now)
        self._buffer.clear()
        self.rows += records_of(self.table.due(self.now), FIELDS)

    def pass_by(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1000
            self.rows += records_of(self.table.due(self.now), FIELDS)

    def total(self, name: str) -> int:
        self.rows += records_of(self.table.flush(self.now), FIELDS)
        assert self.table.stats.imbalance == 0
        return sum(int(row.get(name, 0)) for row in self.rows)


DELTAS = ((0, 1, 8), (0, 2, 4))
TOTALS = ((0, 85, 8), (0, 86, 8))


def test_successive_deltas_of_one_flow_add_up() -> None:
    choose = random.Random(2)
    site, truth, packets = Site(*DELTAS), 0, 0
    for _ in range(40):
        octets = choose.choice([0, 1, 1500, 2**33])
        truth, packets = truth + octets, packets + octets // 1000
        site.export(octets, octets // 1000)
        site.pass_by(choose.choice([0, 1, 20, 61]))
    assert site.total("octetDeltaCount") == truth
    assert site.total("packetDeltaCount") == packets
    assert site.rows[-1]["octetTotalCount"] == truth
    assert site.table.stats.restarted == 0


def test_deltas_that_come_late_or_at_one_moment_count_too() -> None:
    site = Site(*DELTAS)
    site.pass_by(100)
    for age in (0, 30, 0, 60, 10):
        site.export(100, 1, end=site.now - 1000 * age)
    assert site.total("octetDeltaCount") == 500
    assert site.table.stats.late == site.table.stats.repeated == 0
    assert site.rows[-1]["flowEndMilliseconds"] == site.now


def test_deltas_of_intervals_that_each_have_a_start_of_their_own() -> None:
    """As a router's cache does that begins a new entry after the active timeout."""
    site, truth = Site(*DELTAS), 0
    for _ in range(10):
        start = site.now
        site.pass_by(60)
        site.export(1000, 10, start=start, end=site.now - 1)
        truth += 1000
    assert site.total("octetDeltaCount") == truth


def test_totals_of_one_flow_count_once() -> None:
    site = Site(*TOTALS)
    for total in (500, 500, 500, 1700, 1700):
        site.export(total, total // 100)
        site.pass_by(61)
    assert site.total("octetDeltaCount") == 1700
    assert site.total("packetDeltaCount") == 17
    assert site.rows[-1]["octetTotalCount"] == 1700


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (((0, 1, 4), (29305, 1, 4)), (900, 70)),
        (((0, 85, 4), (29305, 85, 4)), (900, 70)),
        (((0, 231, 8), (0, 232, 8)), (900, 70)),
    ],
    ids=["deltas", "totals", "initiator"],
)
def test_both_directions_in_one_record(
    fields: tuple[tuple[int, int, int], ...], values: tuple[int, int]
) -> None:
    site = Site(*fields)
    site.export(*values)
    assert site.total("octetDeltaCount") == 900
    assert site.total("reverseOctetDeltaCount") == 70
    assert len(site.rows) == 1
    assert (site.rows[0]["octetTotalCount"], site.rows[0]["reverseOctetTotalCount"]) == (900, 70)


def test_a_record_for_each_direction() -> None:
    site = Site(*DELTAS)
    for k in (1, 2, 3):
        site.pass_by(30)
        site.export(100 * k, k)
        site.export(7000 * k, 7 * k, reply=True)
    assert site.total("octetDeltaCount") == 600 + 42_000


def test_many_flows_of_one_moment() -> None:
    site = Site(*DELTAS)
    for k in range(200):
        site.export(10 + k, 1, port=1000 + k % 50)
    assert site.total("octetDeltaCount") == sum(range(10, 210))


@pytest.mark.parametrize("fields", [DELTAS, TOTALS], ids=["deltas", "totals"])
@pytest.mark.parametrize("routers", [2, 3, 5])
def test_routers_on_one_way_count_once(
    fields: tuple[tuple[int, int, int], ...], routers: int
) -> None:
    """Each by itself, at moments of its own; those after the second add nothing."""
    site = Site(*fields)
    for turn in range(1, 7):
        octets = 500 if fields is DELTAS else 500 * turn
        for by in range(1, routers + 1):
            site.export(octets, octets // 100, by=by)
            site.pass_by(7)
    assert site.total("octetDeltaCount") == 3000
    assert site.total("packetDeltaCount") == 30
    assert site.rows[-1]["octetTotalCount"] == 3000
    assert site.table.stats.further == 6 * (routers - 2)


def test_deltas_of_both_directions_that_turn_round() -> None:
    """A cache that was emptied takes the next packet for the first; it has replies all the same."""
    site = Site((0, 231, 8), (0, 232, 8))
    site.pass_by(30)
    site.export(900, 70)
    site.pass_by(61)
    site.export(40, 600, reply=True)
    site.pass_by(61)
    site.export(3, 2)
    assert site.total("octetDeltaCount") == 900 + 600 + 3
    assert site.total("reverseOctetDeltaCount") == 70 + 40 + 2
    assert {row["sourceIP"] for row in site.rows} == {"192.0.2.1"}


def test_a_router_of_each_direction() -> None:
    """As where the way back is another one: what the second one counts are the replies."""
    site = Site(*DELTAS)
    for k in (1, 2, 3):
        site.pass_by(30)
        site.export(100 * k, k, by=1)
        site.export(7000 * k, 7 * k, by=2, reply=True)
    assert site.total("octetDeltaCount") == 600
    assert site.total("reverseOctetDeltaCount") == 42_000


def test_deltas_after_the_last_of_them_was_written_are_a_record() -> None:
    """Nothing else of them is new: neither their end nor a total."""
    site = Site(*DELTAS)
    site.pass_by(30)
    for _ in range(3):
        site.export(100, 1, end=START_MS + 20_000)
        site.pass_by(70)
    assert [row["octetDeltaCount"] for row in site.rows] == [100, 100, 100]
    assert site.table.stats.unchanged == 0
