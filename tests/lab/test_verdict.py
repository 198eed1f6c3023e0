"""The verdict on made-up stores: what is right passes, and each way to be wrong is named."""

import pytest

from flowvis.lab.plan import ORDERS
from flowvis.lab.rules import Count, Tuple
from flowvis.lab.scenarios import choose
from flowvis.lab.verdict import COUNTERS, INTERVAL, SIDES, judge

(INTER_NODE,) = choose(["inter-node"])
SENT = Count(100, 20_000, 90, 150_000)


def record(interval, delta, total, **changed):
    row = {
        "protocolIdentifier": 6,
        "sourceIP": INTER_NODE.client_address,
        "sourceTransportPort": INTER_NODE.client_ports[0],
        "destinationIP": ORDERS.addresses[0],
        "flowStartSeconds": "2026-01-01 00:00:00",
        "flowEndSeconds": "2026-01-01 00:00:09",
        "flowType": 2,
        "sourcePodName": "frontend-7d4b",
        "sourcePodNamespace": "shop",
        "sourceNodeName": "node-1",
        "destinationPodName": "orders-0",
        "destinationPodNamespace": "shop",
        "destinationNodeName": "node-2",
        "destinationServicePortName": "",
        "originalFlowsPresent": 2,
        INTERVAL: interval,
    }
    for name, one_delta, one_total in zip(COUNTERS, delta, total, strict=True):
        row[f"{name}DeltaCount"] = one_delta
        for side in ("", *SIDES):
            row[f"{name}TotalCount{side}"] = one_total
    return {**row, **changed}


FIRST = Count(60, 12_000, 50, 90_000)
REST = Count(40, 8_000, 40, 60_000)
GOOD = [record(1, FIRST, FIRST), record(2, REST, SENT)]


def verdict(rows, *, split=False):
    key = Tuple("tcp", INTER_NODE.client_address, INTER_NODE.client_ports[0], *INTER_NODE.server)
    (finding,) = judge([INTER_NODE], {INTER_NODE.client.host: {key: SENT}}, rows, split=split)
    return finding


def test_what_is_right_passes():
    finding = verdict(GOOD)
    assert finding.ok
    assert not finding.problems
    assert finding.expected == finding.stored == SENT
    assert finding.records == 2


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "no record"),
        (GOOD[:1], "deltas sum up to"),
        ([*GOOD, record(3, Count(0, 1, 0, 0), SENT)], "deltas sum up to"),
        ([GOOD[0], record(2, REST, FIRST)], "totals are"),
        ([GOOD[0], record(1, REST, SENT)], "2 records of 1 intervals"),
        ([GOOD[0], {**GOOD[1], "octetTotalCountFromDestinationNode": 0}], "FromDestinationNode"),
        ([GOOD[0], {**GOOD[1], "destinationPodName": ""}], "destinationPodName is ''"),
        ([GOOD[0], {**GOOD[1], "originalFlowsPresent": 1}], "originalFlowsPresent is 1"),
        ([GOOD[0], {**GOOD[1], "flowType": 1}], "flowType is 1"),
    ],
)
def test_what_is_wrong_is_named(rows, problem):
    finding = verdict(rows)
    assert not finding.ok
    assert any(problem in line for line in finding.problems), finding.problems


def test_a_client_that_sent_nothing_is_no_success():
    (finding,) = judge([INTER_NODE], {INTER_NODE.client.host: {}}, [])
    assert not finding.ok


def test_a_reused_tuple_has_totals_of_its_own():
    again = record(3, SENT, SENT, flowStartSeconds="2026-01-01 00:01:00")
    key = Tuple("tcp", INTER_NODE.client_address, INTER_NODE.client_ports[0], *INTER_NODE.server)
    twice = Count(*(2 * count for count in SENT))
    (finding,) = judge([INTER_NODE], {INTER_NODE.client.host: {key: twice}}, [*GOOD, again])
    assert finding.problems == []


def half(interval, delta, total, *, of):
    other = {side for side in SIDES if side != of}
    nothing = {f"{name}TotalCount{side}": 0 for name in COUNTERS for side in other}
    said = {"originalFlowsPresent": 1, "destinationServicePortName": "only one node knows"}
    return record(interval, delta, total, **nothing, **said)


SOURCE, DESTINATION = SIDES


@pytest.mark.parametrize(
    "rows",
    [
        [half(1, SENT, SENT, of=SOURCE), half(2, SENT, SENT, of=DESTINATION)],
        [half(1, FIRST, FIRST, of=SOURCE), record(2, REST, SENT)],
        [half(1, FIRST, FIRST, of=DESTINATION), half(2, REST, SENT, of=DESTINATION)],
    ],
    ids=["both", "then whole", "one of them"],
)
def test_halves_that_a_restart_has_split_count_once(rows):
    assert verdict(rows, split=True).problems == []
    assert verdict(rows, split=True).stored == SENT
    assert not verdict(rows).ok


def test_split_halves_can_lack_something():
    rows = [half(1, FIRST, FIRST, of=SOURCE), half(2, FIRST, FIRST, of=DESTINATION)]
    assert any("deltas sum up to" in line for line in verdict(rows, split=True).problems)
