"""What Antrea's aggregator in Proxy mode passes on: both nodes' halves, each with both Pods."""

import random
from struct import pack
from typing import Any

import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.fields import AGGREGATED, EXPORTED, FIELDS
from flowvis.ipfix import CollectorSession, ExporterSession, RecordBuffer
from ipfix import wire
from ipfix.records import records_of

from .exported import START_MS
from .records import records
from .test_collector import Line
from .test_flows import _leaf  # noqa: F401  both leaves

START_S = START_MS // 1000
ANTREA = wire.ANTREA
NODES = {1: (0xA1, "192.0.2.11"), 0: (0xB2, "192.0.2.12")}  # by flowDirection

TEMPLATE = (
    *[(0, 150, 4), (0, 151, 4), (0, 8, 4), (0, 12, 4), (0, 7, 2), (0, 11, 2), (0, 4, 1)],
    *[(0, 85, 8), (0, 1, 8), (ANTREA, 137, 1), (ANTREA, 140, 1)],
    *[(ANTREA, 101, 65535), (ANTREA, 103, 65535), (ANTREA, 172, 2), (ANTREA, 170, 4)],
    *[(0, 405, 4), (0, 403, 4), (0, 404, 16), (0, 61, 1)],
)


def address(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


class Relay:
    """A session with such an aggregator, and the flow table behind it."""

    def __init__(self) -> None:
        self.table = FlowTable()
        self._buffer = RecordBuffer(EXPORTED, self.table.strings)
        self._session = CollectorSession("relay", self._buffer)
        self._session.receive(wire.message(wire.templates(wire.template(256, *TEMPLATE))))
        self._sequence = 0
        self.rows: list[dict[str, int | str]] = []

    def half(
        self,
        direction: int,
        total: int,
        delta: int,
        after_s: int,
        *,
        flow_type: int = 2,
        action: int = 0,
        source: tuple[str, int] = ("10.0.1.5", 40000),
        snat: tuple[str, int] = ("0.0.0.0", 0),
    ) -> None:
        domain, exporter = NODES.get(direction, NODES[1])
        body = (
            pack(">II", START_S, START_S + after_s)
            + address(source[0])
            + address("10.0.2.6")
            + pack(">HHB", source[1], 80, 6)
            + pack(">QQBB", total, delta, flow_type, action)
            + wire.text("client")
            + wire.text("server")
            + pack(">H", snat[1])
            + address(snat[0])
            + pack(">I", domain)
            + address(exporter)
            + bytes(16)
            + bytes([direction])
        )
        self._session.receive(wire.message(wire.set_of(256, body), sequence=self._sequence))
        self._sequence += 1
        now = START_MS + 1000 * after_s
        self.table.add(self._buffer.batch(), now)
        self._buffer.clear()
        self.rows += records_of(self.table.due(now), FIELDS)

    def finish(self) -> int:
        self.rows += records_of(self.table.flush(START_MS + 10_000_000), FIELDS)
        return sum(int(row.get("octetDeltaCount", 0)) for row in self.rows)


@pytest.mark.parametrize("first", [0, 1], ids=["ingress first", "egress first"])
def test_both_halves_become_one_record(first: int) -> None:
    relay = Relay()
    for k in range(1, 5):
        relay.half(first, 1000 * k - 100 * first, 1000, 60 * k)
        relay.half(1 - first, 1000 * k - 100 * (1 - first), 1000, 60 * k + 1)
    assert relay.finish() == 4000
    assert {row["originalFlowsPresent"] for row in relay.rows} == {2}
    last = relay.rows[-1]
    assert last["octetTotalCount"] == 4000
    assert last["octetTotalCountFromSourceNode"] == 3900
    assert last["octetTotalCountFromDestinationNode"] == 4000
    assert relay.table.stats.repeated == relay.table.stats.late == 0


def test_a_half_alone_goes_out_after_the_wait() -> None:
    relay = Relay()
    relay.half(1, 700, 700, 60)
    assert relay.rows == []
    assert relay.finish() == 700
    assert relay.rows[0]["originalFlowsPresent"] == 1
    assert "octetTotalCountFromDestinationNode" not in relay.rows[0]


def test_behind_the_clients_masquerading_they_meet_too() -> None:
    relay = Relay()
    relay.half(1, 900, 900, 60, snat=("192.0.2.11", 61000))
    relay.half(0, 900, 900, 61, source=("192.0.2.11", 61000))
    assert relay.finish() == 900
    (row,) = relay.rows
    assert (row["sourceIP"], row["originalFlowsPresent"]) == ("10.0.1.5", 2)


@pytest.mark.parametrize(
    ("direction", "options"),
    [(255, {"flow_type": 1}), (1, {"flow_type": 3}), (1, {"action": 2})],
    ids=["within a node", "to external", "dropped at the source"],
)
def test_what_has_no_other_half_does_not_wait(direction: int, options: dict[str, int]) -> None:
    relay = Relay()
    relay.half(direction, 700, 700, 60, **options)  # type: ignore[arg-type]
    assert [row["octetDeltaCount"] for row in relay.rows] == [700]


def test_the_origin_is_in_the_decoded_batch() -> None:
    buffer = RecordBuffer(EXPORTED, FlowTable().strings)
    session = CollectorSession("relay", buffer)
    fields = [(0, 8, 4), (0, 405, 4), (0, 404, 16), (0, 61, 1)]
    exporter = bytes.fromhex("20010db8000000000000000000000007")
    body = bytes([10, 0, 0, 1]) + pack(">I", 77) + exporter + b"\1"
    plain = wire.set_of(257, bytes([10, 0, 0, 2]))
    known = wire.templates(wire.template(256, *fields))
    session.receive(
        wire.message(
            known, wire.templates(wire.template(257, (0, 8, 4))), wire.set_of(256, body), plain
        )
    )
    batch = buffer.batch()
    assert batch["originalObservationDomainId"].tolist() == [77, 0]
    assert batch["flowDirection"].tolist() == [1, 0]
    assert batch["originalExporterIP"].tobytes() == exporter + bytes(16)


COUNTERS = [
    f"{direction}{unit}{kind}Count"
    for direction in ("", "reverse")
    for unit in ("octet", "packet")
    for kind in ("Total", "Delta")
]


def counter(name: str) -> str:
    """As elements are named: reverseOctetTotalCount."""
    return name if not name.startswith("reverse") else name[:7] + name[7].upper() + name[8:]


NAMES = [counter(name) for name in COUNTERS]


class Upstream:
    """A session with an aggregator in Aggregate mode, whose records count 100 octets a packet."""

    def __init__(self) -> None:
        self.table = FlowTable()
        self._session = ExporterSession(9, AGGREGATED)
        buffer = RecordBuffer(EXPORTED, self.table.strings)
        self._buffer, self._collector = buffer, CollectorSession("upstream", buffer)
        for message in self._session.templates(0):
            self._collector.receive(message)
        self.rows: list[dict[str, int | str]] = []

    def record(self, source: int, destination: int, *, after_s: int, delta: int) -> None:
        row = self.row(0, after_s, source, destination, delta=delta)
        self.receive(row, after_s=after_s)

    def row(
        self, start_s: int, lasts_s: int, source: int, destination: int = -1, *, delta: int = 1000
    ) -> dict[str, Any]:
        """What two nodes counted of a connection, the same if only one of them is given."""
        destination = source if destination < 0 else destination
        row: dict[str, Any] = {
            "sourceIP": "10.0.1.5", "destinationIP": "10.0.2.6", "protocolIdentifier": 6,
            "flowType": 2, "sourcePodName": "client", "destinationPodName": "server",
            "flowStartSeconds": START_S + start_s, "flowEndSeconds": START_S + start_s + lasts_s,
        }  # fmt: skip
        sides = (("", max(source, destination)), ("FromSourceNode", source))
        for suffix, total in (*sides, ("FromDestinationNode", destination)):
            for name in NAMES:
                scale = 100 if "acket" in name else 1
                value = min(delta, total) if "Delta" in name else total
                row[name + suffix] = value // scale
        return row

    def receive(self, *rows: dict[str, Any], after_s: int) -> None:
        made = records(*rows, fields=AGGREGATED)
        for message in self._session.encode(made, START_S + after_s):
            self._collector.receive(message)
        now = START_MS + 1000 * after_s
        self.table.add(self._buffer.batch(), now)
        self._buffer.clear()
        self.rows += records_of(self.table.due(now), FIELDS)
        assert self.table.stats.imbalance == 0


def test_the_counters_of_both_nodes_are_kept() -> None:
    upstream = Upstream()
    for k in range(1, 5):
        upstream.record(1000 * k, 1000 * k - 300, after_s=60 * k, delta=1000)
        upstream.record(1000 * k, 1000 * k - 300, after_s=60 * k, delta=1000)  # once more
    upstream.rows += records_of(upstream.table.flush(START_MS + 10**7), FIELDS)
    assert sum(int(row["octetDeltaCount"]) for row in upstream.rows) == 4000
    last = upstream.rows[-1]
    for name in NAMES:
        if "Total" in name:
            scale = 100 if "acket" in name else 1
            assert last[name] == last[f"{name}FromSourceNode"] == 4000 // scale, name
            assert last[f"{name}FromDestinationNode"] == 3700 // scale, name
    assert {row["originalFlowsPresent"] for row in upstream.rows} == {2}
    assert sum(int(row["octetDeltaCountFromDestinationNode"]) for row in upstream.rows) == 3700
    stats = upstream.table.stats
    assert (stats.received, stats.repeated, stats.imbalance) == (8, 4, 0)


@pytest.mark.parametrize("counts", [(900, 0), (0, 900)], ids=["source", "destination"])
def test_a_record_that_one_node_counted_is_that_nodes_half(counts: tuple[int, int]) -> None:
    upstream = Upstream()
    upstream.record(*counts, after_s=60, delta=900)
    assert upstream.rows == []  # it waits for the other one
    (row,) = records_of(upstream.table.flush(START_MS + 10**7), FIELDS)
    assert (row["octetDeltaCount"], row["originalFlowsPresent"]) == (900, 1)
    sides = [row.get(f"octetTotalCountFrom{side}Node", 0) for side in ("Source", "Destination")]
    assert sides == list(counts)


def test_what_only_the_second_node_adds_is_held_once() -> None:
    upstream = Upstream()
    upstream.record(1000, 700, after_s=60, delta=1000)
    upstream.record(1000, 1000, after_s=60, delta=300)
    assert upstream.table.stats.held == 1
    assert upstream.table.stats.repeated == 0
    assert upstream.table.stats.received == 2


def test_other_records_of_the_session_are_untouched_by_room_used_before() -> None:
    """Where there are no counters of nodes their columns have what was there before."""
    upstream = Upstream()
    upstream.record(1000, 700, after_s=60, delta=1000)
    fields = [(0, 8, 4), (0, 85, 8), (wire.ANTREA, 137, 1)]
    body = bytes([10, 0, 0, 9]) + pack(">QB", 5000, 2)
    upstream._collector.receive(
        wire.message(wire.templates(wire.template(300, *fields)), wire.set_of(300, body), domain=5)
    )
    upstream.table.add(upstream._buffer.batch(), START_MS + 61_000)
    (row,) = records_of(upstream.table.due(START_MS + 61_000), FIELDS)
    assert row["octetTotalCountFromSourceNode"] == 5000
    assert row["octetTotalCountFromDestinationNode"] == 5000


def test_connections_of_one_tuple_that_come_as_they_like() -> None:
    """Each is one, over reuse, old records and those that come twice; a batch may have several."""
    choose = random.Random(7)
    for _ in range(60):
        upstream, sent, truth = Upstream(), [], 0
        for start in range(0, 200, 50):
            totals = [1000 * k for k in range(1, choose.randint(2, 5))]
            truth += totals[-1]
            late = choose.choice([0, 0, 60, 130])
            sent += [(start + late + 5 * k, start, 5 * k, n) for k, n in enumerate(totals)]
        sent.sort()
        while sent:
            some = sent[: choose.randint(1, 4)]
            sent = sent[len(some) :]
            upstream.receive(*(upstream.row(*one) for _, *one in some), after_s=some[-1][0])
        upstream.rows += records_of(upstream.table.flush(START_MS + 10**7), FIELDS)
        for suffix in ("", "FromSourceNode", "FromDestinationNode"):
            name = f"octetDeltaCount{suffix}"
            assert sum(int(row.get(name, 0)) for row in upstream.rows) == truth, name
        assert {row["originalFlowsPresent"] for row in upstream.rows} == {2}


def test_another_aggregator_saw_client_and_server_exchanged() -> None:
    upstream = Upstream()
    back = {"sourceIP": "10.0.2.6", "destinationIP": "10.0.1.5"}
    names = {"sourcePodName": "server", "destinationPodName": "client"}
    upstream.receive(upstream.row(0, 60, 1000), after_s=60)
    upstream.receive(upstream.row(0, 120, 1000) | back | names, after_s=120)
    upstream.rows += records_of(upstream.table.flush(START_MS + 10**7), FIELDS)
    assert sum(int(row["octetDeltaCount"]) for row in upstream.rows) == 1000
    assert {row["sourcePodName"] for row in upstream.rows} == {"client"}
    assert upstream.table.stats.reversed == 1


async def test_two_exporters_behind_one_relay_are_two() -> None:
    """Hosts without Pods, whose sides nothing else tells apart."""
    line = Line()
    fields = [(0, 8, 4), (0, 12, 4), (0, 4, 1), (0, 85, 8), (0, 1, 8), (0, 405, 4), (0, 403, 4)]
    session = line.open()
    known = wire.templates(wire.template(300, *fields))
    both = b""
    for domain, host, octets in ((9, "192.0.2.11", 10_000), (9, "192.0.2.12", 9900)):
        both += address("192.0.2.1") + address("192.0.2.9") + b"\6" + pack(">QQ", octets, octets)
        both += pack(">I", domain) + address(host)
    message = wire.message(known, wire.set_of(300, both), domain=1, sequence=0)
    session.data_received(memoryview(message))
    line.collector.flush()
    row = line.table.flush(line.now_ms)
    assert row["originalFlowsPresent"].tolist() == [2]
    assert row["octetDeltaCount"].tolist() == [10_000]
    assert row["octetTotalCountFromDestinationNode"].tolist() == [9900]
