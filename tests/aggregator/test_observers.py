"""Connections that several exporters report, none of them as a half."""

from typing import Any

import pytest

from flowvis.fields import EndReason, FlowType

from .exported import START_MS, counted
from .test_flows import NOW, Table, _leaf  # noqa: F401  both leaves

ONE, OTHER, THIRD = 11, 22, 33


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
