"""Connections that several exporters report, none of them as a half."""

from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowvis.aggregator.correlation.arrivals import SEVERAL, Arrivals
from flowvis.fields import EndReason, FlowType

from .exported import START_MS, counted
from .test_flows import NOW, Table, _leaf  # noqa: F401  both leaves

ONE, OTHER, THIRD = 11, 22, 33
FIXTURE = HealthCheck.function_scoped_fixture  # which leaf: the same for all examples


def seen(by: int, at_ms: int, octets: int, delta: int | None = None, **more: Any) -> dict[str, Any]:
    """What a host outside of clusters tells; its clock says its own start."""
    return {
        "observationDomainId": by,
        "flowStartMilliseconds": START_MS + by,
        "flowEndMilliseconds": START_MS + at_ms,
        "flowType": FlowType.UNSPECIFIED,
        **counted(octets, delta),
        **more,
    }


def sums(rows: list[dict[str, Any]], *suffixes: str) -> list[int]:
    return [sum(row[f"octetDeltaCount{suffix}"] for row in rows) for suffix in suffixes]


BOTH = ("", "FromSourceNode", "FromDestinationNode")


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_two_hosts_are_two_sides(together: bool) -> None:
    """Neither the counters of two hosts nor their clocks agree at any moment."""
    table, rows = Table(), []
    reported = [
        seen(ONE, 5000, 10_000),
        seen(OTHER, 5200, 9_900),
        seen(ONE, 10_000, 20_000, 10_000),
        seen(OTHER, 10_200, 19_900, 10_000),
        seen(ONE, 15_000, 20_300, 300, flowEndReason=EndReason.END),
        seen(OTHER, 15_100, 20_200, 300, flowEndReason=EndReason.END),
    ]
    for number, record in enumerate([reported] if together else [[one] for one in reported]):
        table.add(*record, now=NOW + 5000 * number)
        rows += table.due(NOW + 5000 * number)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "", "FromSourceNode") == [20_300, 20_300]
    # What was written of the first one alone stood for both sides.
    assert sums(rows, "FromDestinationNode") == [20_200 if together else 20_200 + 10_000]
    last = rows[-1]
    assert last["originalFlowsPresent"] == 2
    totals = [last[f"octetTotalCount{suffix}"] for suffix in BOTH]
    assert totals == [20_300, 20_300, 20_200]
    assert table.stats.restarted == table.stats.reused == table.stats.orphaned == 0


def test_one_host_alone_is_both_sides() -> None:
    table = Table()
    table.add(seen(ONE, 5000, 10_000))
    row = table.only()
    assert [row[f"octetTotalCount{suffix}"] for suffix in BOTH] == [10_000] * 3
    assert row["originalFlowsPresent"] == 1


def test_the_second_host_has_a_clock_of_its_own() -> None:
    table, rows = Table(), []
    for by, at_ms, octets, delta in (
        (ONE, 50_000, 10_000, 10_000),
        (OTHER, 30_000, 6000, 6000),
        (OTHER, 40_000, 8000, 2000),
        (ONE, 60_000, 12_000, 2000),
    ):
        table.add(seen(by, at_ms, octets, delta), now=NOW)
        rows += table.due(NOW)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "") == [12_000]
    assert rows[-1]["octetTotalCountFromDestinationNode"] == 8000
    assert table.stats.late == 0


def test_a_router_between_them_adds_nothing() -> None:
    table, rows = Table(), []
    for turn in range(1, 4):
        for by in (ONE, OTHER, THIRD):
            reported = seen(by, 5000 * turn + by, 1000 * turn + by, 1000 + by * (turn == 1))
            table.add(reported, now=NOW + 5000 * turn)
            rows += table.due(NOW + 5000 * turn)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "") == [rows[-1]["octetTotalCount"]] == [3000 + THIRD]


def test_the_same_ports_again() -> None:
    table, rows = Table(), []
    for turn, start in enumerate((0, 60_000)):
        for by in (ONE, OTHER):
            reported = seen(by, start + 5000 + by, 1000, flowEndReason=EndReason.END)
            reported["flowStartMilliseconds"] += start
            table.add(reported, now=NOW + start)
        rows += table.due(NOW + start)
        rows += table.flush(NOW + start + 100)
        assert len({row["flowStartMilliseconds"] for row in rows}) == turn + 1
    assert sums(rows, "") == [2000]


def test_a_client_that_two_nodes_see_as_it_is() -> None:
    """From outside without SNAT: the node where it comes in, and the Pod's."""
    table, rows = Table(), []
    pod = {"destinationPodName": "server", "destinationNodeName": "node-b"}
    for turn in range(1, 4):
        for by, name, lag in ((ONE, {}, 0), (OTHER, pod, 100)):
            reported = seen(
                by, 5000 * turn + lag, 1000 * turn - lag, 1000 - lag * (turn == 1), **name
            )
            table.add(reported | {"flowType": FlowType.FROM_EXTERNAL}, now=NOW + 5000 * turn)
            rows += table.due(NOW + 5000 * turn)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "", "FromSourceNode") == [3000, 3000]
    assert [rows[-1][f"octetTotalCount{suffix}"] for suffix in BOTH] == [3000, 3000, 2900]
    assert rows[-1]["destinationPodName"] == "server"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data(), st.integers(2, 6))
def test_any_number_of_exporters_count_once(data: st.DataObject, exporters: int) -> None:
    """Each reads the counters at moments of its own; the sum is what any of them saw."""
    table, rows = Table(), []
    reported = dict.fromkeys(range(1, exporters + 1), 0)
    moments = st.lists(
        st.tuples(st.sampled_from(sorted(reported)), st.integers(1, 900)), min_size=1, max_size=30
    )
    now = 0
    for by, pause in data.draw(moments):
        now += pause
        octets = 7 * now
        table.add(seen(by, now, octets, octets - reported[by]), now=NOW + now)
        reported[by] = octets
        if data.draw(st.booleans()):
            rows += table.due(NOW + now + data.draw(st.sampled_from([0, 61_000])))
    rows += table.flush(NOW + 600_000)
    assert sums(rows, "") == [max(reported.values())]
    assert sum(row["packetDeltaCount"] for row in rows) == rows[-1]["packetTotalCount"]
    assert table.stats.restarted == table.stats.reused == 0


def test_further_exporters_are_counted_and_go_on_where_the_first_stop() -> None:
    """Of four hosts on a way the first two crash: what the others see still counts."""
    table, rows, last = Table(), [], dict.fromkeys((1, 2, 3, 4), 0)
    for turn in range(1, 9):
        for by in (1, 2, 3, 4) if turn < 4 else (3, 4):
            octets = 1000 * turn + by
            at = 5000 * turn + by
            table.add(seen(by, at, octets, octets - last[by]), now=NOW + at)
            last[by] = octets
        rows += table.due(NOW + 5000 * turn + 70_000)
    rows += table.flush(NOW + 200_000)
    assert sums(rows, "", "FromSourceNode", "FromDestinationNode")[0] == 8004
    assert table.stats.further == 16


def test_a_further_exporter_that_lags_is_no_restart() -> None:
    table, rows = Table(), []
    for turn in range(1, 5):
        for by, lag in ((ONE, 0), (OTHER, 10), (THIRD, 700)):
            octets = 1000 * turn - lag
            reported = seen(by, 5000 * turn + by, octets, octets if turn == 1 else 1000)
            table.add(reported, now=NOW + 5000 * turn)
            rows += table.due(NOW + 5000 * turn)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "", "FromSourceNode", "FromDestinationNode") == [4000, 4000, 3990 + 1000]
    assert table.stats.restarted == 0
    assert table.stats.dropped["repeated"] == 4


def test_a_further_exporter_may_be_the_first_with_the_next_connection() -> None:
    table, rows = Table(), []
    for turn, order in enumerate(((ONE, OTHER, THIRD), (THIRD, ONE, OTHER))):
        for by in order:
            reported = seen(by, 90_000 * turn + 5000 + by, 1000 + by, flowEndReason=EndReason.END)
            reported["flowStartMilliseconds"] += 90_000 * turn
            table.add(reported, now=NOW + 60_000 * turn)
        rows += table.flush(NOW + 60_000 * turn)
    assert sums(rows, "") == [2 * (1000 + THIRD)]
    assert table.stats.reused == 1


@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_hosts_that_only_their_starts_tell_apart(hosts: int) -> None:
    """One name, one address (a proxy's): but no kernel has two connections of one tuple at once."""
    table, rows = Table(), []
    for turn in range(1, 6):
        for host in range(hosts):
            octets = 1000 * turn + 137 * host
            reported = seen(ONE, 60_000 * turn + 200 * host, octets, octets if turn == 1 else 1000)
            reported["flowStartMilliseconds"] = START_MS + 3 * host
            table.add(reported, now=NOW + 60_000 * turn)
            rows += table.due(NOW + 60_000 * turn)
    rows += table.flush(NOW + 600_000)
    assert sums(rows, "") == [5000 + 137 * (hosts - 1)]
    assert table.stats.restarted == table.stats.reused == table.stats.orphaned == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"at_ms": 400, "flowEndReason": EndReason.END}, {"at_ms": 5000}),  # closed, opened again
        ({"at_ms": 400}, {"at_ms": 5000}),  # the end was not reported
        ({"at_ms": 5000, "flowEndReason": EndReason.END}, {"at_ms": 9000}),  # known by polls only
        ({"at_ms": 60_000}, {"at_ms": 3_000_000, "start": -3_600_000}),  # the clock was set back
    ],
)
def test_one_hosts_next_connection_is_not_another_hosts(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    table, rows = Table(), []
    for record in ({"start": 0} | first, {"start": 500} | second):
        reported = seen(ONE, octets=1000, **{n: v for n, v in record.items() if n != "start"})
        reported["flowStartMilliseconds"] = START_MS + record["start"]
        table.add(reported, now=NOW)
        rows += table.due(NOW)
    rows += table.flush(NOW)
    assert sums(rows, "") == [2000]


@pytest.mark.parametrize("lag", [0, 3], ids=["one start", "two starts"])
@pytest.mark.parametrize("routers", [(ONE,), (ONE, OTHER)], ids=["one router", "two routers"])
def test_a_router_reports_each_direction_by_itself(lag: int, routers: tuple[int, ...]) -> None:
    back = {
        "sourceIP": "10.0.1.1",
        "destinationIP": "10.0.0.1",
        "sourceTransportPort": 80,
        "destinationTransportPort": 40_000,
    }
    none = dict.fromkeys(
        (
            f"reverse{what}{kind}Count"
            for what in ("Octet", "Packet")
            for kind in ("Total", "Delta")
        ),
        0,
    )
    table, rows = Table(), []
    for turn in range(1, 5):
        for by in routers:
            for way, octets, late in (({}, 1000, 0), (back, 300, lag)):
                reported = seen(by, 5000 * turn + by - late, octets * turn, octets) | none | way
                reported["flowStartMilliseconds"] += late
                table.add(reported, now=NOW + 5000 * turn)
        rows += table.due(NOW + 5000 * turn)
    rows += table.flush(NOW + 60_000)
    assert sum(row["octetDeltaCount"] for row in rows if row["sourceIP"] == "10.0.0.1") == 4000
    assert sum(row["octetDeltaCount"] for row in rows if row["sourceIP"] == "10.0.1.1") == 1200
    assert not any(row["reverseOctetDeltaCount"] for row in rows)
    assert table.stats.restarted == 0


def test_two_hosts_that_saw_it_the_other_way_round() -> None:
    """No Pods, no types: the exporters have the sides, and one of them is reversed."""
    table, rows = Table(), []
    back = {
        "sourceIP": "10.0.1.1",
        "destinationIP": "10.0.0.1",
        "sourceTransportPort": 80,
        "destinationTransportPort": 40_000,
    }
    for turn in range(1, 4):
        one = seen(ONE, 5000 * turn, 1000 * turn, 1000)
        other = seen(OTHER, 5000 * turn + 9, 0) | back
        for forward, reverse in (("octet", "reverseOctet"), ("packet", "reversePacket")):
            for what in ("TotalCount", "DeltaCount"):
                other[f"{forward}{what}"] = one[f"{reverse}{what}"]
                other[f"{reverse}{what}"] = one[f"{forward}{what}"]
        table.add(one, other, now=NOW + 5000 * turn)
        rows += table.due(NOW + 5000 * turn)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "", "FromSourceNode", "FromDestinationNode") == [3000, 3000, 3000]
    assert sum(row["reverseOctetDeltaCount"] for row in rows) == 1500
    assert {row["sourceIP"] for row in rows} == {"10.0.0.1"}


NO_REPLIES = {
    f"reverse{what}{kind}Count": 0 for what in ("Octet", "Packet") for kind in ("Total", "Delta")
}


def either_way(port: int, *, router: bool) -> list[dict[str, Any]]:
    """A connection as one router tells it, or two hosts of which one has it the other way round."""
    ends = {"sourceIP": "10.0.0.1", "destinationIP": "10.0.1.1"}
    ports = {"sourceTransportPort": port, "destinationTransportPort": 80}
    back = {
        "sourceIP": "10.0.1.1",
        "destinationIP": "10.0.0.1",
        "sourceTransportPort": 80,
        "destinationTransportPort": port,
    }
    one = seen(ONE, 5000, 1000) | ends | ports
    other = seen(ONE if router else OTHER, 5000, 500, 500) | back
    if router:
        return [one | NO_REPLIES, other | NO_REPLIES]
    for forward, reverse in (("octet", "reverseOctet"), ("packet", "reversePacket")):
        for what in ("TotalCount", "DeltaCount"):
            other[f"{forward}{what}"], other[f"{reverse}{what}"] = (
                one[f"{reverse}{what}"],
                one[f"{forward}{what}"],
            )
    return [one, other]


@pytest.mark.parametrize("router", [True, False], ids=["a router", "two hosts"])
def test_pairs_of_either_direction_are_looked_at_together(
    router: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All new connections of a router come so: each by itself took a thousand times longer."""
    looks = [0]
    orient = Arrivals.orient_from

    def looked(arrivals: Arrivals, first: int) -> bool:
        found = orient(arrivals, first)
        looks[0] += found
        return found

    monkeypatch.setattr(Arrivals, "orient_from", looked)
    table, pairs = Table(), [either_way(port, router=router) for port in range(1, 31)]
    table.add(*(record for pair in pairs for record in pair), now=NOW)
    assert looks[0] == SEVERAL
    rows = table.flush(NOW)
    assert len(rows) == (60 if router else 30)
    assert sum(row["octetDeltaCount"] for row in rows if row["sourceIP"] == "10.0.0.1") == 30_000
    back = sum(row["octetDeltaCount"] for row in rows if row["sourceIP"] == "10.0.1.1")
    replies = sum(row["reverseOctetDeltaCount"] for row in rows)
    assert (back, replies) == ((15_000, 0) if router else (0, 15_000))
    assert table.stats.reversed == (0 if router else 30)


@settings(max_examples=60, deadline=None, suppress_health_check=[FIXTURE])
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=30), st.randoms())
def test_together_they_become_what_they_do_one_by_one(
    kinds: list[tuple[bool, bool]], chance: Random
) -> None:
    records = []
    for port, (router, turned) in enumerate(kinds, 1):
        pair = either_way(port, router=router)
        records += pair[::-1] if turned else pair
    if chance.random() < 0.5:
        chance.shuffle(records)
    found = []
    for together in (True, False):
        table = Table()
        for batch in [records] if together else [[record] for record in records]:
            table.add(*batch, now=NOW)
        found.append(sorted(sorted(row.items()) for row in table.flush(NOW)))
        assert table.stats.imbalance == 0
    assert found[0] == found[1]
