"""The verdict on made-up stores: what is right passes, and each way to be wrong is named."""

from dataclasses import replace
from itertools import permutations

import pytest

from flowvis.clickhouse.schema.tables import FLOWS_COLUMNS
from flowvis.lab import expectation
from flowvis.lab.expectation import SIDES
from flowvis.lab.measured import COUNTERS, INTERVAL, MEASURED, RATED, Row, Run
from flowvis.lab.plan import ORDERS
from flowvis.lab.rules import Tuple, WitnessCount
from flowvis.lab.scenarios import choose
from flowvis.lab.verdict import Finding, judge

(INTER_NODE,) = choose(["inter-node"])
SENT = WitnessCount(100, 20_000, 90, 150_000)


RUN = Run(began=1_700_000_000, ended=1_700_000_100)
START, END = RUN.began + 1, RUN.began + 10


def record(interval: int, delta: WitnessCount, total: WitnessCount, **changed: object) -> Row:
    row = {
        **expectation.exact(INTER_NODE, INTER_NODE.client_ports[0], ORDERS),
        "timeInserted": END + 2,
        "flowStartSeconds": START,
        "flowEndSeconds": END,
        "flowEndSecondsFromSourceNode": END,
        "flowEndSecondsFromDestinationNode": END,
        "flowEndReason": 3,
        "tcpState": "TIME_WAIT",
        INTERVAL: 1000 * END - 1000 + interval,
    }
    for name, one_delta, one_total in zip(COUNTERS, delta, total, strict=True):
        for side in ("", *SIDES):
            row[f"{name}DeltaCount{side}"] = one_delta
            row[f"{name}TotalCount{side}"] = one_total
    for rate in RATED:
        row[rate] = 8 * delta.octets
    return {**row, **changed}


def ends(at: int) -> dict[str, int]:
    return {f"flowEndSeconds{side}": at for side in ("", *SIDES)}


FIRST = WitnessCount(60, 12_000, 50, 90_000)
REST = WitnessCount(40, 8_000, 40, 60_000)
GOOD = [record(1, FIRST, FIRST), record(2, REST, SENT)]


def verdict(rows: list[Row], *, split: bool = False, run: Run = RUN) -> Finding:
    key = Tuple("tcp", INTER_NODE.client_address, INTER_NODE.client_ports[0], *INTER_NODE.server)
    run = replace(run, split=split)
    (finding,) = judge([INTER_NODE], {INTER_NODE.client.host: {key: SENT}}, rows, run)
    return finding


def test_what_is_right_passes() -> None:
    finding = verdict(GOOD)
    assert finding.ok
    assert not finding.problems
    assert finding.expected == finding.stored == SENT
    assert finding.records == 2


def test_intervals_of_one_second_are_in_the_order_of_what_they_count() -> None:
    """Exporters were restarted in it: what both of them forced to its end comes before the end."""
    more = WitnessCount(20, 4_000, 20, 30_000)
    rows = [
        record(1000 + number, delta, total, flowEndReason=reason, tcpState=state)
        for number, delta, total, reason, state in (
            (1, FIRST, FIRST, 4, "ESTABLISHED"),
            (5, more, WitnessCount(80, 16_000, 70, 120_000), 4, "ESTABLISHED"),
            (5, more, SENT, 3, "TIME_WAIT"),
        )
    ]
    for given in permutations(rows):
        run = replace(RUN, deaf=(END - 1, END + 1))
        assert not verdict([*given], run=run).problems
    again = verdict([*rows, rows[-1]], run=run)
    assert any("same intervals" in problem for problem in again.problems)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "no record"),
        (GOOD[:1], "deltas sum up to"),
        ([*GOOD, record(3, WitnessCount(0, 1, 0, 0), SENT)], "deltas sum up to"),
        ([GOOD[0], record(2, REST, FIRST)], "totals are"),
        ([GOOD[0], record(1, REST, SENT)], "same intervals"),
        ([GOOD[0], {**GOOD[1], "octetTotalCountFromDestinationNode": 0}], "FromDestinationNode"),
        ([GOOD[0], {**GOOD[1], "destinationPodName": ""}], "destinationPodName is ''"),
        ([GOOD[0], {**GOOD[1], "originalFlowsPresent": 1}], "originalFlowsPresent is 1"),
        ([GOOD[0], {**GOOD[1], "flowType": 1}], "flowType is 1"),
        ([GOOD[0], {**GOOD[1], "ingressNetworkPolicyName": ""}], "PolicyName is ''"),
        ([GOOD[0], {**GOOD[1], "sourcePodLabels": "{}"}], "sourcePodLabels is '{}'"),
        ([GOOD[0], {**GOOD[1], "proxySnatPort": 1}], "proxySnatPort is 1"),
        ([GOOD[0], {**GOOD[1], "flowStartSeconds": START - 9}], "not in order within the run"),
        ([GOOD[0], {**GOOD[1], "timeInserted": END - 1}], "not in order within the run"),
        ([GOOD[0], {**GOOD[1], "flowEndSecondsFromSourceNode": 0}], "flowEndSeconds of the nodes"),
        ([GOOD[0], {**GOOD[1], INTERVAL: 1000 * START - 9000}], f"{INTERVAL} is"),
        ([{**GOOD[0], **ends(END - 4)}, {**GOOD[1], INTERVAL: 1000 * START}], "overlaps"),
        ([GOOD[0], {**GOOD[1], "flowEndReason": 2}], "flowEndReason is 2 at the end"),
        ([{**GOOD[0], "flowEndReason": 4}, GOOD[1]], "flowEndReason is [4, 3]"),
        ([GOOD[0], {**GOOD[1], "tcpState": "ESTABLISHED"}], "'ESTABLISHED' at the end"),
        ([{**GOOD[0], "tcpState": "ELSEWHERE"}, GOOD[1]], "tcpState is"),
        ([GOOD[0], {**GOOD[1], "throughput": 5}], "throughput is 5"),
        ([GOOD[0], {**GOOD[1], "octetDeltaCountFromSourceNode": 1}], "CountFromSourceNode sums up"),
    ],
)
def test_what_is_wrong_is_named(rows: list[Row], problem: str) -> None:
    finding = verdict(rows)
    assert not finding.ok
    assert any(problem in line for line in finding.problems), finding.problems


def test_every_column_is_checked() -> None:
    known = expectation.exact(INTER_NODE, INTER_NODE.client_ports[0], ORDERS).keys()
    assert sorted((*known, *MEASURED)) == sorted(FLOWS_COLUMNS)


def test_a_client_that_sent_nothing_is_no_success() -> None:
    (finding,) = judge([INTER_NODE], {INTER_NODE.client.host: {}}, [], RUN)
    assert not finding.ok


def test_a_reused_tuple_has_totals_of_its_own() -> None:
    (reused,) = choose(["reused"])
    rows = [
        {
            **record(interval, SENT, SENT),
            "sourceTransportPort": reused.client_ports[0],
            "flowStartSeconds": START + interval,
        }
        for interval in (1, 2)
    ]
    key = Tuple("tcp", reused.client_address, reused.client_ports[0], *reused.server)
    twice = WitnessCount(*(2 * count for count in SENT))
    (finding,) = judge([reused], {reused.client.host: {key: twice}}, rows, RUN)
    assert finding.problems == []


def half(interval: int, delta: WitnessCount, total: WitnessCount, *, of: str) -> Row:
    other = {side for side in SIDES if side != of}
    nothing = {
        f"{name}{kind}Count{side}": 0
        for name in COUNTERS
        for kind in ("Delta", "Total")
        for side in other
    }
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
def test_halves_that_a_restart_has_split_count_once(rows: list[Row]) -> None:
    assert verdict(rows, split=True).problems == []
    assert verdict(rows, split=True).stored == SENT
    assert not verdict(rows).ok


def test_split_halves_can_lack_something() -> None:
    rows = [half(1, FIRST, FIRST, of=SOURCE), half(2, FIRST, FIRST, of=DESTINATION)]
    assert any("deltas sum up to" in line for line in verdict(rows, split=True).problems)
