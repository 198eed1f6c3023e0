from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.denied_packets import T0, Row, packet, packets
from flowvis.batch import Batch, address_text
from flowvis.denials.prefixes import DenialVerdict
from flowvis.exporter.state import StateFile
from flowvis.exporter.tables import denied
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import ClusterNode, PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EXPORTED, EndReason, Kind, RuleAction
from flowvis.inventory.index import Inventory
from flowvis.runtime.ledger import Ledger
from flowvis.steady import SteadyTime
from inventory.kubernetes_objects import node, pod, service

KEEP_MS = 120_000  # TCP
IDLE, ACTIVE = EndReason.IDLE, EndReason.ACTIVE
FULL, FORCED = EndReason.LACK_OF_RESOURCES, EndReason.FORCED
EGRESS = DenialVerdict(RuleAction.REJECT, egress=True, name="out", type=3, rule="r")


class Table(DeniedTable):
    """A table with its ledger."""

    def __init__(self, **options: Any) -> None:
        self.ledger = Ledger()
        super().__init__(PlainHost(), Scope(("tcp", "udp")), ledger=self.ledger, **options)

    def put(self, *rows: Row, at: int = 0) -> None:
        self.add(packets(rows), T0 + at)

    def tell(self, at: int) -> list[dict[str, Any]]:
        return rows(self.due(T0 + at))

    def balanced(self) -> bool:
        return self.ledger.imbalance() == {}


def rows(batch: Batch) -> list[dict[str, Any]]:
    columns = {}
    for field in EXPORTED:
        column = batch[field.name]
        if field.kind is Kind.TEXT:
            columns[field.name] = batch.texts(field.name)
        elif field.kind is Kind.ADDRESS:
            columns[field.name] = [address_text(value.tobytes()) for value in column]
        else:
            columns[field.name] = column.tolist()
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def counts(row: dict[str, Any]) -> tuple[int, int, int, int, int]:
    names = ("packetTotalCount", "packetDeltaCount", "octetTotalCount", "octetDeltaCount")
    return (*(row[name] for name in names), row["flowEndReason"])


def test_a_connection_is_reported_of_once_when_idle() -> None:
    table = Table()
    table.put(packet(at=T0 + 5), packet(at=T0 + 9), at=10)
    table.put(packet(at=T0 + 1000), at=1010)
    assert table.tell(16_009) == []
    (row,) = table.tell(16_010)
    assert counts(row) == (3, 3, 180, 180, IDLE)
    assert (row["sourceIP"], row["sourceTransportPort"]) == ("10.0.0.1", 1000)
    assert (row["destinationIP"], row["destinationTransportPort"]) == ("10.0.0.2", 80)
    assert row["protocolIdentifier"] == 6
    assert (row["flowStartMilliseconds"], row["flowEndMilliseconds"]) == (T0 + 5, T0 + 1000)
    assert (row["flowStartSeconds"], row["flowEndSeconds"]) == (T0 // 1000, T0 // 1000 + 1)
    assert (row["reversePacketTotalCount"], row["tcpState"]) == (0, "")
    assert table.tell(60_000) == []
    assert table.balanced()


def test_the_policy_that_decided() -> None:
    table = Table()
    table.put(packet(1), packet(2, verdict=EGRESS), packet(3, verdict=DenialVerdict()))
    found = {
        row["sourceTransportPort"]: [row[name] for name in denied.POLICY_FIELDS]
        for row in table.tell(20_000)
    }
    none: list[Any] = ["", "", 0, "", 0]
    assert found == {
        1: ["deny-all", "shop", 1, "0", RuleAction.DROP, *none],
        2: [*none, "out", "", 3, "r", RuleAction.REJECT],
        3: ["", "", 0, "", RuleAction.DROP, *none],
    }


def test_the_last_policy_counts() -> None:
    table = Table()
    later = DenialVerdict(name="later")
    table.put(packet(), packet(verdict=later))
    table.put(packet(verdict=EGRESS))
    (row,) = table.tell(20_000)
    assert (row["ingressNetworkPolicyName"], row["ingressNetworkPolicyType"]) == ("later", 0)
    assert row["egressNetworkPolicyName"] == "out"
    assert row["packetTotalCount"] == 3


def test_while_packets_come_it_is_reported_of_at_most_once_per_active_timeout() -> None:
    table = Table(active_timeout_ms=60_000)
    reported = []
    for at in range(0, 130_000, 10_000):
        table.put(packet(), at=at)
        reported += [(at, *counts(row)) for row in table.tell(at)]
    assert reported == [(60_000, 7, 7, 420, 420, ACTIVE), (120_000, 13, 6, 780, 360, ACTIVE)]


def test_a_client_that_tries_again_stays_one_connection() -> None:
    table = Table()
    tries = (0, 1000, 3000, 7000, 15_000, 31_000, 63_000)
    reported = []
    for at in range(0, 90_000, 500):
        if at in tries:
            table.put(packet(at=T0 + at), at=at)
        reported += table.tell(at)
    assert [counts(row)[:2] + counts(row)[4:] for row in reported] == [
        (5, 5, IDLE),
        (6, 1, IDLE),
        (7, 1, IDLE),
    ]
    assert {row["flowStartMilliseconds"] for row in reported} == {T0}
    assert sum(row["octetDeltaCount"] for row in reported) == 420
    assert table.balanced()


def test_it_is_forgotten_after_a_while() -> None:
    table = Table()
    table.put(packet())
    assert len(table.tell(15_000)) == 1
    assert table.tell(KEEP_MS - 1) == []
    assert len(table) == 1
    assert table.tell(KEEP_MS) == []
    assert len(table) == 0
    assert table.next_deadline() is None
    table.put(packet(at=T0 + KEEP_MS), at=KEEP_MS)
    (row,) = table.tell(KEEP_MS + 15_000)
    assert (row["packetTotalCount"], row["flowStartMilliseconds"]) == (1, T0 + KEEP_MS)
    assert table.balanced()


def test_several_packets_in_one_row() -> None:
    table = Table()
    table.put(packet(packets=7, octets=420), packet())
    (row,) = table.tell(20_000)
    assert counts(row) == (8, 8, 480, 480, IDLE)
    assert (table.packets.received, table.packets.sent, table.packets.merged) == (8, 1, 7)


def test_what_is_left_out_is_counted() -> None:
    table = Table()
    table.put(
        packet(verdict=None),
        packet(protocol=132),
        packet(source="127.0.0.1", packets=2),
        packet(),
    )
    table.lost(5)
    table.malformed(3)
    assert table.packets.dropped == {
        "not-denied": 1,
        "out-of-scope": 3,
        "lost": 5,
        "malformed": 3,
    }
    assert table.packets.received == 13
    assert table.balanced()


def test_the_rate() -> None:
    table = Table(max_packets_per_second=10)
    table.put(*(packet(port) for port in range(1, 16)))
    assert len(table) == 10
    assert table.packets.dropped == {"rate-limit": 5}
    table.put(*(packet(port) for port in range(1, 16)), at=500)
    assert table.packets.dropped == {"rate-limit": 15}
    table.put(packet(1, packets=100), at=600)
    table.put(packet(1), at=1000)
    assert table.packets.dropped == {"rate-limit": 16}
    assert table.balanced()


def test_a_flood_in_one_line_hides_others_for_a_second() -> None:
    table = Table(max_packets_per_second=20_000)
    table.put(packet(1, packets=1_000_000))
    table.put(packet(2), at=900)
    table.put(packet(3), at=1100)
    assert table.packets.dropped == {"rate-limit": 1}
    assert len(table) == 2
    assert table.balanced()


def test_a_full_table_evicts_what_is_idle_longest() -> None:
    table = Table(max_connections=3)
    for port in (1, 2, 3):
        table.put(packet(port), at=port)
    table.put(packet(1), at=4)
    table.put(packet(4), packet(4), packet(5), at=5)
    reported = {row["sourceTransportPort"]: counts(row)[0:5:4] for row in table.tell(6)}
    assert reported == {2: (1, FULL), 3: (1, FULL)}
    assert table.stats.evicted == 2
    assert len(table) == 3
    assert table.balanced()


def test_what_comes_at_once_does_not_evict_itself() -> None:
    table = Table(max_connections=3)
    table.put(*(packet(port) for port in range(1, 6)), packet(5))
    assert len(table) == 3
    assert table.packets.dropped == {"table-full": 3}
    assert table.balanced()


def test_what_was_reported_of_leaves_a_full_table_silently() -> None:
    table = Table(max_connections=2)
    table.put(packet(1), packet(2))
    table.tell(15_000)
    table.put(packet(3), packet(4), at=15_001)
    assert table.tell(15_001) == []
    assert len(table) == 2
    assert table.balanced()


def test_records_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denied, "MAX_DEPARTED", 4)
    table = Table(max_connections=3)
    for port in range(1, 11):
        table.put(packet(port), at=port)
    assert table.packets.dropped == {"table-full": 3}
    assert table.balanced()
    assert table.next_deadline() == 0
    assert len(table.tell(11)) == 4
    table.put(packet(20), at=20)
    assert len(table.tell(20)) == 1
    assert table.balanced()


def test_known_connections_may_be_evicted_by_those_that_come_with_them() -> None:
    table = Table(max_connections=2)
    table.put(packet(1))
    table.put(packet(2), at=1)
    table.put(packet(3), packet(1), packet(4), at=2)
    reported = [(row["sourceTransportPort"], counts(row)[0]) for row in table.tell(20_000)]
    assert sorted(reported) == [(1, 2), (2, 1), (3, 1)]
    assert table.packets.dropped == {"table-full": 1}
    assert table.balanced()


def test_many_due_are_reported_of_in_parts() -> None:
    table = Table()
    table.put(*(packet(port) for port in range(10)))
    sizes = [len(table.due(T0 + 20_000, live=4)) for _ in range(4)]
    assert sizes == [4, 4, 2, 0]


def test_flush() -> None:
    table = Table(max_connections=4)
    table.put(packet(1))
    table.tell(15_000)
    table.put(*(packet(port) for port in (2, 3, 4)), at=15_000)
    table.put(packet(5), packet(6), at=15_001)
    reported = []
    while len(batch := table.flush(live=2)):
        reported += rows(batch)
    assert sorted(row["sourceTransportPort"] for row in reported) == [2, 3, 4, 5, 6]
    assert sorted(row["flowEndReason"] for row in reported) == [*[FORCED] * 4, FULL]
    assert not len(table.flush())
    assert table.balanced()


def test_strings_do_not_pile_up() -> None:
    table = Table(max_connections=100)
    for step in range(300):
        verdicts = (DenialVerdict(name=f"policy-{step}-{number}") for number in range(50))
        table.put(*(packet(n, verdict=v) for n, v in enumerate(verdicts)), at=step * 400_000)
        reported = table.tell(step * 400_000 + 15_000)
        assert {row["ingressNetworkPolicyName"] for row in reported} == {
            f"policy-{step}-{number}" for number in range(50)
        }
        table.tell(step * 400_000 + 399_000)
    assert len(table.due(T0).strings) < 10_000


def test_a_clusters_node_tells_of_its_own_pods() -> None:
    ledger, inventory = Ledger(), Inventory()
    local, remote, outside = "10.0.1.5", "10.0.2.6", "198.51.100.1"
    inventory.replace(
        [
            node("node-1", "192.0.2.1", "10.0.1.0/24"),
            node("node-2", "192.0.2.2", "10.0.2.0/24"),
            pod("web", local, node="node-1"),
            service("shop", ["10.96.0.1"], {"name": "http", "port": 80}),
        ],
        0,
    )
    table = DeniedTable(ClusterNode("node-1", inventory), Scope(), ledger=ledger)
    table.add(
        packets(
            [
                packet(1, source=remote, destination=local),
                packet(2, source=local, destination=outside, verdict=EGRESS),
                packet(3, source=remote, destination=outside),
                packet(4, source=local, destination=remote, to=8080, called=("10.96.0.1", 80)),
            ]
        ),
        T0,
    )
    reported = {row["sourceTransportPort"]: row for row in rows(table.due(T0 + 20_000))}
    assert reported.keys() == {1, 2, 4}
    assert (reported[1]["destinationPodName"], reported[1]["flowType"]) == ("web", 2)
    assert (reported[2]["sourcePodName"], reported[2]["flowType"]) == ("web", 3)
    assert reported[1]["destinationServicePortName"] == ""
    assert reported[4]["destinationServicePortName"].endswith("/shop:http")
    assert (reported[4]["destinationServiceIP"], reported[4]["destinationServicePort"]) == (
        "10.96.0.1",
        80,
    )
    assert reported[4]["destinationTransportPort"] == 8080
    assert table.packets.dropped == {"not-local": 1}
    assert ledger.imbalance() == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), max_size=8),
            st.integers(0, 40_000),
            st.booleans(),
        ),
        max_size=20,
    ),
    st.integers(1, 5),
)
def test_deltas_add_up(steps: list[tuple[list[tuple[int, int]], int, bool]], room: int) -> None:
    table = Table(max_connections=room, max_packets_per_second=50)
    at, reported = 0, 0
    for batch, pause, taken in steps:
        at += pause
        table.put(*(packet(port, packets=n) for port, n in batch), at=at)
        if taken:
            reported += sum(row["packetDeltaCount"] for row in table.tell(at))
        assert table.balanced()
    reported += sum(row["packetDeltaCount"] for row in rows(table.flush()))
    assert reported == table.packets.received - sum(table.packets.dropped.values())
    assert table.balanced()
    assert not len(table.flush())


def test_other_timeouts_are_those_of_connections_that_are_known() -> None:
    table = Table(active_timeout_ms=60_000, idle_timeout_ms=15_000)
    table.put(packet(1))
    table.put(packet(2))
    assert [row["flowEndReason"] for row in table.tell(15_000)] == [IDLE, IDLE]  # both asleep
    table.put(packet(2), at=16_000)
    table.retime(60_000, 1_000)
    assert table.next_deadline() == T0 + 17_000
    assert [row["flowEndReason"] for row in table.tell(17_000)] == [IDLE]
    for second in range(18, 30):
        table.put(packet(2), at=second * 1000)
    table.retime(5_000, 20_000)
    assert [row["flowEndReason"] for row in table.tell(30_000)] == [ACTIVE]
    table.tell(15_000 + KEEP_MS)
    assert len(table) == 1  # the one that slept has gone when it would have
    assert table.balanced()


def test_another_rate() -> None:
    table = Table(max_packets_per_second=1000)
    table.limit(2)
    table.put(*(packet(n) for n in range(1, 6)))
    assert len(table) == 2
    assert table.packets.dropped == {"rate-limit": 3}


async def successor(first: DeniedTable, tmp_path: Path) -> Table:
    await StateFile(tmp_path, "node-1", first, "denied").stop()
    second = Table()
    await StateFile(tmp_path, "node-1", second, "denied").start()
    return second


async def test_a_client_that_goes_on_trying_stays_one_connection_over_a_restart(
    tmp_path: Path,
) -> None:
    first = Table()
    first.put(packet(), packet(at=T0 + 1000), packet(port=2), at=1000)
    assert len(first.flush()) == 2
    second = await successor(first, tmp_path)
    second.put(packet(at=T0 + 9000), packet(port=3, at=T0 + 9000), at=9000)
    reported = second.tell(30_000)
    assert [counts(row) for row in reported] == [(3, 1, 180, 60, IDLE), (1, 1, 60, 60, IDLE)]
    assert [row["flowStartMilliseconds"] for row in reported] == [T0, T0 + 9000]
    assert [row["ingressNetworkPolicyName"] for row in reported] == ["deny-all"] * 2
    assert second.balanced()
    assert not len(second.flush())
    third = await successor(second, tmp_path)
    third.put(packet(at=T0 + 40_000), packet(port=2, at=T0 + 40_000), at=40_000)
    assert [counts(row)[:2] for row in third.tell(60_000)] == [(4, 1), (2, 1)]


async def test_what_is_over_is_handed_on_to_nobody(tmp_path: Path) -> None:
    """The file, and what is remembered, grew with each client, restart after restart."""
    table, day = Table(), 86_400_000
    for number in range(3):
        table.put(packet(port=2 * number + 1, at=T0 + number * day), at=number * day)
        table.put(packet(port=2 * number + 2, at=T0 + number * day + 1000), at=number * day + 1000)
        assert len(table.flush()) == 2
        assert len(table.reported()) == 2
        table = await successor(table, tmp_path)
        assert len(table.reported()) == 2  # it has not looked yet


async def test_what_was_quiet_for_long_is_another_connection(tmp_path: Path) -> None:
    first = Table()
    first.put(packet())
    first.flush()
    later = T0 + KEEP_MS
    second = await successor(first, tmp_path)
    second.add(packets([packet(at=later)]), later)
    (row,) = rows(second.due(later + 30_000))
    assert (row["flowStartMilliseconds"], row["packetTotalCount"]) == (later, 1)


@pytest.mark.parametrize("leap", [-3_600_000, 3_600_000, -86_400_000])
def test_a_clock_that_is_set_neither_stops_nor_hurries_anything(leap: int) -> None:
    table, reported = Table(), []
    for second in range(0, 200, 5):
        at = 1000 * second + (leap if second >= 40 else 0)
        table.put(packet(at=T0 + at), at=at)
        reported += [
            (second, *counts(row)[:2], row["flowStartMilliseconds"]) for row in table.tell(at)
        ]
    assert reported == [(60, 13, 13, T0), (120, 25, 12, T0), (180, 37, 12, T0)]


async def test_no_record_ends_before_the_one_before_though_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    first = Table()
    first.put(packet(), packet(at=T0 + 9000), at=9000)
    assert len(first.flush()) == 1
    second = await successor(first, tmp_path)
    second.put(packet(at=T0 - 600_000), at=-600_000)
    (row,) = second.tell(-570_000)
    assert counts(row)[:2] == (3, 1)
    assert (row["flowStartMilliseconds"], row["flowEndMilliseconds"]) == (T0, T0 + 9000)


async def test_a_client_that_goes_on_trying_stays_one_connection_over_a_crash(
    tmp_path: Path,
) -> None:
    """What an orderly stop left earlier is not taken for what is exported now."""
    first = Table()
    first.put(packet())
    assert len(first.flush()) == 1
    second = await successor(first, tmp_path)
    for second_ in range(1, 60, 5):
        second.put(packet(at=T0 + 1000 * second_), at=1000 * second_)
    assert [counts(row)[:2] for row in second.tell(90_000)] == [(13, 12)]
    third = Table()  # the second is killed
    await StateFile(tmp_path, "node-1", third, "denied").start()
    third.put(packet(at=T0 + 100_000), at=100_000)
    (row,) = third.tell(120_000)
    assert (*counts(row)[:2], row["flowStartMilliseconds"]) == (14, 1, T0)


@pytest.mark.parametrize(("protocol", "kept_s"), [(17, 30), (6, 120), (17, 7), (6, 200)])
def test_what_comes_when_the_client_is_forgotten_is_another_connection(
    protocol: int, kept_s: int
) -> None:
    table = Table()
    table.kept_for({protocol: kept_s})
    last = 1000 * kept_s - 1
    again = last + 1000 * kept_s
    for at in (0, last, again, again + 10):
        table.put(packet(protocol=protocol, at=T0 + at), at=at)
    reported = [
        (*counts(row), row["flowStartMilliseconds"] - T0) for row in table.tell(again + 15_010)
    ]
    assert reported == [(2, 2, 120, 120, EndReason.END, 0), (2, 2, 120, 120, IDLE, again)]
    assert table.balanced()


def test_packets_that_waited_together_are_of_the_connections_of_their_times() -> None:
    """As when the audit log is read for the first time; their wall time is not now."""
    table = Table()
    times = [0, 5_000, 36_000, 40_000, 400_000]
    table.put(*(packet(protocol=17, at=T0 + at) for at in times), at=3_600_000)
    reported = [(*counts(row)[:2], row["flowEndReason"]) for row in table.tell(3_615_000)]
    assert reported == [(2, 2, EndReason.END), (2, 2, EndReason.END), (1, 1, IDLE)]
    assert table.balanced()


def test_ends_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denied, "MAX_DEPARTED", 3)
    table = Table()
    for at in range(0, 600_000, 60_000):
        table.put(packet(protocol=17, at=T0 + at), at=at)
    reported = table.tell(600_000)
    assert len(reported) == 4
    assert sum(row["packetDeltaCount"] for row in reported) == 10
    assert table.balanced()


def test_pings_are_reported_apart_by_their_identifiers() -> None:
    table = DeniedTable(PlainHost(), Scope(("icmp",)))
    pings = [
        packet(0, to=0, protocol=1, octets=84, flow_id=8 << 24 | number) for number in (7, 8, 7)
    ]
    table.add(packets(pings), T0)
    reported = sorted(rows(table.due(T0 + 15_000)), key=lambda row: int(row["flowId"]))
    assert [row["flowId"] for row in reported] == [8 << 24 | 7, 8 << 24 | 8]
    assert [row["octetTotalCount"] for row in reported] == [168, 84]


def test_lines_from_before_the_machine_booted_are_reported_apart_too() -> None:
    """Their steady time, the monotonic clock's, is below 0."""
    table = Table(steady=SteadyTime(lambda: 1000))
    table.put(*(packet(protocol=17, at=T0 + at) for at in (0, 5_000, 60_000)), at=900_000)
    reported = [counts(row)[:2] for row in rows(table.flush())]
    assert reported == [(2, 2), (1, 1)]
