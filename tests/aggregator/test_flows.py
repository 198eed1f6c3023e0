from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flowvis import checkpoint
from flowvis.aggregator.correlation import arrivals as arrivals_module
from flowvis.aggregator.correlation import flows as flows_module
from flowvis.aggregator.correlation import rows as rows_module
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.key import OLDEST
from flowvis.aggregator.correlation.stats import FlowStats
from flowvis.batch import Batch, address_text
from flowvis.fields import FIELDS, EndReason, FlowType, Kind, RuleAction
from flowvis.native import StringTable
from flowvis.native import flows as index_leaf
from flowvis.native import halves as halves_leaf
from flowvis.native import merge as merge_leaf
from flowvis.native.contract.merge import FlowState
from flowvis.native.reference import flows as index_reference
from flowvis.native.reference import halves as halves_reference
from flowvis.native.reference import merge as merge_reference

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, counted, exported

NOW = START_MS + 60_500
Row = dict[str, Any]


@pytest.fixture(params=["reference", "compiled"], autouse=True)
def _leaf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = request.param == "compiled"
    index: ModuleType = index_leaf if compiled else index_reference
    merge: ModuleType = merge_leaf if compiled else merge_reference
    halves: ModuleType = halves_leaf if compiled else halves_reference
    monkeypatch.setattr(rows_module, "FlowIndex", index.FlowIndex)
    monkeypatch.setattr(arrivals_module, "sides", halves.sides)
    monkeypatch.setattr(arrivals_module, "correlation_keys", halves.correlation_keys)
    monkeypatch.setattr(flows_module, "Merger", merge.Merger)


class Table:
    """A flow table under test: its books are checked after every step."""

    def __init__(self, **settings: Any) -> None:
        self.flows = FlowTable(**({"max_flows": 64} | settings))

    @property
    def stats(self) -> FlowStats:
        return self.flows.stats

    def add(self, *rows: Row, now: int = NOW) -> None:
        self.flows.add(exported(self.flows.strings, *rows), now)
        self.check()

    def due(self, now: int = NOW, limit: int | None = None) -> list[Row]:
        return self.read(self.flows.due(now, limit))

    def flush(self, now: int = NOW) -> list[Row]:
        return self.read(self.flows.flush(now))

    def only(self, now: int = NOW) -> Row:
        (row,) = self.due(now)
        return row

    def read(self, batch: Batch) -> list[Row]:
        """The records as dicts by field name; addresses and text as strings."""
        self.check()
        beside = set(batch.columns) - {field.name for field in FIELDS}
        assert beside in (set(), set(checkpoint.COLUMNS))
        rows: list[Row] = [{} for _ in range(len(batch))]
        for field in FIELDS:
            column = batch[field.name]
            assert column.dtype == field.kind.dtype
            assert column.shape == (len(batch), *field.kind.shape)
            values: list[Any] = column.tolist()
            if field.kind is Kind.ADDRESS:
                values = [address_text(bytes(value)) for value in values]
            elif field.kind is Kind.TEXT:
                values = batch.texts(field.name)
            for row, value in zip(rows, values, strict=True):
                row[field.name] = value
        return rows

    def check(self) -> None:
        live = self.flows._live
        assert self.stats.imbalance == 0, self.stats
        assert self.stats.held == np.count_nonzero(live.state & FlowState.UNWRITTEN)
        assert len(live) == np.count_nonzero(live.state & FlowState.LIVE)
        assert not live.state[live.used :].any()
        blank = live.state == 0
        assert not live.bytes[blank].any()


def at(seconds: float) -> Row:
    """The end of a record, so many seconds after the start."""
    return {"flowEndMilliseconds": START_MS + round(seconds * 1000)}


def start(ms: int) -> Row:
    """The start of a record, so many ms after the usual one."""
    return {"flowStartMilliseconds": START_MS + ms}


ENDED = {"flowEndReason": EndReason.END, "tcpState": "TIME_WAIT"}
SIDES = ("SourceNode", "DestinationNode")


class TestWithoutCorrelation:
    def test_a_flow_within_a_node_is_due_at_once(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(6000))
        row = table.only()
        assert row["sourcePodName"] == "client"
        assert row["destinationPodName"] == "server"
        assert row["octetTotalCount"] == row["octetDeltaCount"] == 6000
        assert row["originalFlowsPresent"] == 1
        assert row["flowStartSeconds"] == START_MS // 1000
        assert row["flowEndMilliseconds"] == START_MS + 60_000
        assert row["clusterId"] == row["sourcePodLabels"] == row["destinationPodLabels"] == ""

    def test_it_fills_both_sides(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(6000))
        row = table.only()
        for side in SIDES:
            for counter, value in counted(6000).items():
                assert row[f"{counter}From{side}"] == value
            assert row[f"throughputFrom{side}"] == 800
            assert row[f"reverseThroughputFrom{side}"] == 400
            assert row[f"flowEndSecondsFrom{side}"] == (START_MS + 60_000) // 1000

    @pytest.mark.parametrize(
        "record",
        [
            {"flowType": FlowType.TO_EXTERNAL, "sourcePodName": "client"},
            {"flowType": FlowType.FROM_EXTERNAL, "destinationPodName": "server"},
            {"flowType": FlowType.FROM_EXTERNAL, "proxySnatIP": "::"},
            {"flowType": FlowType.UNSPECIFIED},
            {"flowType": FlowType.INTER_NODE, "sourcePodName": "a", "destinationPodName": "b"},
            {"flowType": FlowType.INTER_NODE},
            SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.DROP},
            SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.REJECT},
        ],
    )
    def test_what_no_other_node_reports_does_not_wait(self, record: Row) -> None:
        table = Table()
        table.add(record | counted(100))
        row = table.only()
        assert row["originalFlowsPresent"] == 1
        assert row["octetTotalCountFromSourceNode"] == 100
        assert row["octetTotalCountFromDestinationNode"] == 100

    def test_later_intervals_come_with_the_active_timeout(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(100))
        table.only()
        assert table.due(NOW + 60_000) == []
        table.add(INTRA_NODE | counted(300, 200) | at(61), now=NOW + 1_000)
        assert table.due(NOW + 59_999) == []
        row = table.only(NOW + 60_000)
        assert row["octetDeltaCount"] == 200
        assert row["octetTotalCount"] == 300
        assert row["monitoringIntervalStartMilliSeconds"] == START_MS + 60_000

    def test_intervals_accumulate_until_they_are_written(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(100))
        table.only()
        for step in (1, 2, 3):
            table.add(INTRA_NODE | counted(100 + step * 50, 50) | at(60 + step))
        row = table.only(NOW + 60_000)
        assert row["octetDeltaCount"] == row["octetDeltaCountFromSourceNode"] == 150
        assert table.stats.merged == 2


class TestHalves:
    @pytest.mark.parametrize("swapped", [False, True])
    def test_both_halves_become_one_record(self, swapped: bool) -> None:
        table = Table()
        first = SOURCE_HALF | counted(6000) | at(60)
        second = DESTINATION_HALF | counted(5800) | at(58) | start(4)
        if swapped:
            first, second = second, first
        table.add(first)
        assert table.due() == []
        assert table.stats.held == 1
        table.add(second, now=NOW + 700)
        row = table.only(NOW + 700)
        for name, value in (SOURCE_HALF | DESTINATION_HALF).items():
            assert row[name] == value, name
        assert row["originalFlowsPresent"] == 2
        assert row["octetTotalCount"] == row["octetDeltaCount"] == 6000
        assert row["octetTotalCountFromSourceNode"] == 6000
        assert row["octetDeltaCountFromDestinationNode"] == 5800
        assert row["flowEndSecondsFromDestinationNode"] == (START_MS + 58_000) // 1000
        assert row["throughputFromSourceNode"] == row["throughput"] == 6000 * 8000 // 60_000
        assert row["throughputFromDestinationNode"] == 5800 * 8000 // 57_996
        assert row["flowStartMilliseconds"] == START_MS
        assert table.stats.half_waits == 0

    def test_both_halves_in_one_batch(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(10), DESTINATION_HALF | counted(10))
        assert table.only()["originalFlowsPresent"] == 2

    def test_dropped_at_the_destination_still_has_two_halves(self) -> None:
        table = Table()
        dropped = {"ingressNetworkPolicyRuleAction": RuleAction.DROP}
        table.add(DESTINATION_HALF | dropped | counted(100))
        assert table.due() == []
        table.add(SOURCE_HALF | counted(100))
        row = table.only()
        assert row["ingressNetworkPolicyRuleAction"] == RuleAction.DROP
        assert row["originalFlowsPresent"] == 2

    def test_a_half_goes_out_alone_when_the_wait_ends(self) -> None:
        table = Table(correlation_wait_ms=20_000)
        table.add(SOURCE_HALF | counted(6000))
        assert table.flows.next_deadline() == NOW + 20_000
        assert table.due(NOW + 19_999) == []
        row = table.only(NOW + 20_000)
        assert row["originalFlowsPresent"] == 1
        assert row["octetDeltaCount"] == row["octetDeltaCountFromSourceNode"] == 6000
        assert row["octetTotalCountFromDestinationNode"] == 0
        assert row["destinationPodName"] == ""
        assert table.stats.half_waits == 1

    def test_by_default_the_wait_is_the_inactive_timeout(self) -> None:
        table = Table(inactive_timeout_ms=30_000)
        table.add(SOURCE_HALF | counted(6000))
        table.add(SOURCE_HALF | counted(9000, 3000) | at(80), now=NOW + 20_000)
        assert table.due(NOW + 29_999) == []
        assert table.only(NOW + 30_000)["octetDeltaCount"] == 9000

    def test_the_other_half_may_come_after_the_wait(self) -> None:
        table = Table(correlation_wait_ms=20_000)
        table.add(SOURCE_HALF | counted(6000))
        table.only(NOW + 20_000)
        table.add(DESTINATION_HALF | counted(6200) | at(61), now=NOW + 30_000)
        row = table.only(NOW + 30_000)
        assert row["originalFlowsPresent"] == 2
        assert row["octetTotalCount"] == 6200
        assert row["octetDeltaCount"] == 200
        assert row["octetDeltaCountFromDestinationNode"] == 6200
        assert row["octetDeltaCountFromSourceNode"] == 0
        assert table.stats.half_waits == 1

    def test_a_lonely_half_goes_on_with_the_active_timeout(self) -> None:
        table = Table(correlation_wait_ms=20_000)
        table.add(SOURCE_HALF | counted(6000))
        table.only(NOW + 20_000)
        table.add(SOURCE_HALF | counted(6500, 500) | at(90), now=NOW + 30_000)
        assert table.due(NOW + 79_999) == []
        assert table.only(NOW + 80_000)["octetDeltaCount"] == 500
        assert table.stats.half_waits == 1


CLIENT_HALF: Row = {
    "flowType": FlowType.FROM_EXTERNAL,
    "sourceIP": "198.51.100.7",
    "sourceTransportPort": 50_000,
    "sourceNodeName": "node-a",
    "proxySnatIP": "10.0.0.1",
    "proxySnatPort": 40_000,
    "destinationServicePortName": "back/server:http",
}


class TestFromOutside:
    @pytest.mark.parametrize("swapped", [False, True])
    def test_the_client_and_the_pod_meet_by_the_proxys_address(self, swapped: bool) -> None:
        table = Table()
        halves = [CLIENT_HALF | counted(500), DESTINATION_HALF | counted(600) | start(2)]
        if swapped:
            halves.reverse()
        for half in halves:
            assert table.due() == []
            table.add(half)
        row = table.only()
        assert row["sourceIP"] == "198.51.100.7"
        assert row["sourceTransportPort"] == 50_000
        assert row["proxySnatIP"] == "10.0.0.1"
        assert row["proxySnatPort"] == 40_000
        assert row["flowType"] == FlowType.FROM_EXTERNAL
        assert row["destinationPodName"] == "server"
        assert row["destinationServicePortName"] == "back/server:http"
        assert row["originalFlowsPresent"] == 2
        assert row["octetTotalCountFromSourceNode"] == 500
        assert row["octetTotalCountFromDestinationNode"] == 600

    @pytest.mark.parametrize("swapped", [False, True])
    def test_a_pod_that_its_node_masquerades_meets_the_other_in_the_same_way(
        self, swapped: bool
    ) -> None:
        table = Table()
        client = {**CLIENT_HALF, **SOURCE_HALF, "sourceIP": "10.0.9.9"}
        halves = [client | counted(500), DESTINATION_HALF | counted(600) | start(2)]
        for half in halves[::-1] if swapped else halves:
            assert table.due() == []
            table.add(half)
        row = table.only()
        assert (row["sourceIP"], row["sourceTransportPort"]) == ("10.0.9.9", 50_000)
        assert (row["proxySnatIP"], row["proxySnatPort"]) == ("10.0.0.1", 40_000)
        assert (row["sourcePodName"], row["destinationPodName"]) == ("client", "server")
        assert row["flowType"] == FlowType.INTER_NODE
        assert row["originalFlowsPresent"] == 2

    def test_later_records_of_the_pods_node_leave_the_client_alone(self) -> None:
        table = Table()
        table.add(CLIENT_HALF | counted(500), DESTINATION_HALF | counted(500))
        table.only()
        table.add(DESTINATION_HALF | counted(900, 400) | at(70))
        row = table.only(NOW + 60_000)
        assert row["sourceIP"] == "198.51.100.7"
        assert row["sourceTransportPort"] == 50_000
        assert row["flowType"] == FlowType.FROM_EXTERNAL

    def test_through_the_pods_own_node_there_is_one_record(self) -> None:
        table = Table()
        table.add(CLIENT_HALF | {"destinationPodName": "server"} | counted(500))
        row = table.only()
        assert row["sourceIP"] == "198.51.100.7"
        assert row["originalFlowsPresent"] == 1


class TestRepeatedAndLate:
    def test_a_repeated_record_changes_nothing(self) -> None:
        table = Table()
        record = INTRA_NODE | counted(600)
        table.add(record, record)
        table.only()
        table.add(record)
        assert table.due(NOW + 60_000) == []
        assert table.stats.repeated == 2

    def test_a_late_record_changes_nothing(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600) | at(60))
        table.add(INTRA_NODE | counted(900, 300) | at(59))
        row = table.only()
        assert row["octetTotalCount"] == row["octetDeltaCount"] == 600
        assert row["flowEndMilliseconds"] == START_MS + 60_000
        assert table.stats.late == 1

    def test_larger_counters_at_the_same_end_count(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600))
        table.add(INTRA_NODE | counted(800, 200))
        assert table.only()["octetDeltaCount"] == 800

    def test_lateness_is_a_matter_of_each_node(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(600) | at(60), DESTINATION_HALF | counted(500) | at(40))
        table.add(DESTINATION_HALF | counted(550, 50) | at(50) | {"tcpState": "SYN_SENT"})
        row = table.only()
        assert row["octetTotalCountFromDestinationNode"] == 550
        assert row["tcpState"] == "ESTABLISHED"
        assert table.stats.late == 0

    def test_an_end_that_repeats_everything_else_counts_once(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600))
        table.only()
        table.add(INTRA_NODE | counted(600, 0) | ENDED)
        row = table.only()
        assert row["flowEndReason"] == EndReason.END
        assert row["octetDeltaCount"] == 0
        table.add(INTRA_NODE | counted(600, 0) | ENDED)
        assert table.due(NOW + 60_000) == []


class TestCounters:
    def test_a_counter_that_starts_again_is_a_new_baseline(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600))
        table.only()
        table.add(INTRA_NODE | counted(100) | at(70))
        row = table.only(NOW + 60_000)
        assert row["octetDeltaCount"] == row["octetDeltaCountFromSourceNode"] == 100
        assert row["octetTotalCount"] == 700
        assert row["throughput"] == 100 * 8000 // 10_000
        assert table.stats.restarted == 1

    def test_all_counters_of_a_record_start_again_together(self) -> None:
        """Those that are 0 by then, and those that are larger than they were."""
        table = Table()
        table.add(INTRA_NODE | counted(600) | {"reverseOctetTotalCount": 50})
        table.add(INTRA_NODE | counted(100) | at(70) | {"reverseOctetTotalCount": 0})
        table.add(INTRA_NODE | counted(150) | at(80) | {"reverseOctetTotalCount": 60})
        table.add(INTRA_NODE | counted(10) | at(90) | {"reverseOctetTotalCount": 70})
        row = table.only()
        assert row["octetTotalCount"] == 600 + 150 + 10
        assert row["reverseOctetTotalCount"] == 50 + 60 + 70
        assert table.stats.restarted == 2

    def test_a_smaller_counter_at_the_same_end_is_no_restart(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600) | {"reverseOctetTotalCount": 50})
        table.add(INTRA_NODE | counted(500) | {"reverseOctetTotalCount": 90})
        row = table.only()
        assert row["octetTotalCount"] == 600
        assert row["reverseOctetTotalCount"] == 90
        assert table.stats.restarted == 0

    def test_a_restarted_aggregator_does_not_repeat_history(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(10_000, 700), DESTINATION_HALF | counted(9_900, 800))
        row = table.only()
        assert row["octetTotalCount"] == 10_000
        assert row["octetDeltaCount"] == 10_000 - 9_300  # what the source had reported before
        assert row["octetDeltaCountFromDestinationNode"] == 800
        assert row["octetDeltaCountFromSourceNode"] == 700

    @pytest.mark.parametrize("swapped", [False, True])
    def test_the_deltas_of_two_aggregators_sum_up(self, swapped: bool) -> None:
        """Halves reported up to different moments when the first one stopped."""
        old, new = Table(), Table()
        order = -1 if swapped else 1
        before = [SOURCE_HALF | counted(500), DESTINATION_HALF | counted(300)]
        old.add(*before[::order])
        after = [
            SOURCE_HALF | counted(900, 400) | at(61),
            DESTINATION_HALF | counted(850, 550) | at(61),
        ]
        new.add(*after[::order])
        assert old.only()["octetDeltaCount"] + new.only()["octetDeltaCount"] == 900

    def test_a_delta_above_its_total_is_clamped(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(600) | {"octetDeltaCount": 1 << 63})
        assert table.only()["octetDeltaCount"] == 600

    def test_counters_stop_at_their_largest(self) -> None:
        table = Table()
        most = (1 << 64) - 1
        huge = {"octetTotalCount": most, "octetDeltaCount": most}
        table.add(INTRA_NODE | huge)
        table.add(INTRA_NODE | {"octetTotalCount": 5} | at(61))
        row = table.only()
        assert row["octetTotalCount"] == row["octetDeltaCount"] == most
        assert row["throughput"] == 5 * 8

    def test_rates_are_over_the_sides_own_interval(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(6000) | at(60), DESTINATION_HALF | counted(6000) | at(61))
        table.only()
        table.add(SOURCE_HALF | counted(7000, 1000) | at(60.5))
        table.add(DESTINATION_HALF | counted(9000, 3000) | at(63))
        row = table.only(NOW + 60_000)
        assert row["throughputFromSourceNode"] == 1000 * 8000 // 500
        assert row["throughputFromDestinationNode"] == 3000 * 8000 // 2000
        assert row["throughput"] == row["throughputFromDestinationNode"]
        assert row["reverseThroughput"] == 1500 * 8000 // 2000

    def test_no_time_is_no_rate(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(6000) | at(0))
        row = table.only()
        assert row["throughput"] == row["throughputFromSourceNode"] == 0
        assert row["octetDeltaCount"] == 6000

    def test_an_end_before_the_start_is_no_rate(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(6000) | at(-5))
        assert table.only()["throughput"] == 0

    @pytest.mark.parametrize("better_first", [True, False])
    def test_the_common_rate_of_a_whole_connection_is_the_better_measured_sides(
        self, better_first: bool
    ) -> None:
        """One node knows when it closed, the other when it was polled."""
        table = Table()
        known = SOURCE_HALF | counted(1000) | at(0.25) | ENDED
        polled = DESTINATION_HALF | counted(1000) | at(4) | ENDED
        table.add(*((known, polled) if better_first else (polled, known)))
        row = table.only()
        assert row["throughputFromSourceNode"] == 1000 * 8 * 4
        assert row["throughputFromDestinationNode"] == 1000 * 8 // 4
        assert row["throughput"] == row["throughputFromSourceNode"]

    def test_the_common_rate_is_always_one_of_the_sides(self) -> None:
        """One side reported a whole connection as idle, then as ended; the other in one record."""
        for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
            table = Table()
            records = [
                SOURCE_HALF | counted(1000) | at(0.25) | {"flowEndReason": EndReason.IDLE},
                SOURCE_HALF | counted(1000, 0) | at(3) | ENDED,
                DESTINATION_HALF | counted(1000) | at(4) | ENDED,
            ]
            table.add(*(records[place] for place in order))
            row = table.only()
            sides = {row[f"throughputFrom{side}Node"] for side in ("Source", "Destination")}
            assert row["throughput"] in sides, order

    def test_an_interval_that_nobody_saw_begin_has_no_rate(self) -> None:
        """A flow that the table has forgotten, or never had, goes on."""
        table = Table()
        table.add(SOURCE_HALF | counted(10**13, 1250) | at(60))
        table.add(DESTINATION_HALF | counted(10**13, 1250) | at(60))
        row = table.only()
        assert (row["throughput"], row["throughputFromSourceNode"]) == (0, 0)
        assert row["octetDeltaCount"] == 1250
        table.add(SOURCE_HALF | counted(10**13 + 2500, 2500) | at(80))
        row = table.only(NOW + 60_000)
        assert (row["throughput"], row["throughputFromSourceNode"]) == (1000, 1000)

    def test_the_rate_of_a_huge_count(self) -> None:
        table = Table()
        table.add(INTRA_NODE | {"octetTotalCount": 1 << 62} | at(1000))
        assert table.only()["throughput"] == (1 << 62) * 8000 // 1_000_000
        table.add(INTRA_NODE | {"octetTotalCount": 1 << 63} | at(1000.001))
        assert table.only(NOW + 60_000)["throughput"] == (1 << 64) - 1


def test_flows_that_no_kernel_counts_are_counted() -> None:
    table = Table()
    assert table.flows.uncounted() == 0
    for port, octets in ((1, 0), (2, 0), (3, 100)):
        table.add(INTRA_NODE | counted(octets) | {"sourceTransportPort": port})
    assert table.flows.uncounted() == 2
    table.add(INTRA_NODE | counted(100) | {"sourceTransportPort": 1} | at(61))
    assert table.flows.uncounted() == 1
    table.due(NOW)
    assert table.flows.uncounted() == 1
    table.due(NOW + 90_000)
    assert table.flows.uncounted() == 0


class TestEnds:
    def test_the_end_of_a_flow_stays(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(10) | at(30) | ENDED)
        table.add(DESTINATION_HALF | counted(10) | at(31))
        row = table.only()
        assert row["flowEndReason"] == EndReason.END
        assert row["tcpState"] == "ESTABLISHED"

    def test_when_both_nodes_say_so_it_is_written_at_once(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(10) | at(1), DESTINATION_HALF | counted(10) | at(1))
        table.only()
        table.add(SOURCE_HALF | counted(20, 10) | at(2) | ENDED)
        assert table.due() == []
        table.add(DESTINATION_HALF | counted(20, 10) | at(2) | ENDED)
        row = table.only()
        assert row["octetDeltaCount"] == 10
        assert row["tcpState"] == "TIME_WAIT"

    def test_what_has_ended_is_remembered_for_the_inactive_timeout(self) -> None:
        table = Table()
        record = INTRA_NODE | counted(10) | ENDED
        table.add(record)
        table.only()
        table.add(record, now=NOW + 10_000)
        assert table.due(NOW + 99_999) == []
        assert len(table.flows) == 1
        assert table.flows.next_deadline() == NOW + 100_000
        assert table.due(NOW + 100_000) == []
        assert len(table.flows) == 0
        assert table.stats.expired == 1
        assert table.flows.next_deadline() is None

    def test_an_idle_flow_is_written_before_it_is_forgotten(self) -> None:
        table = Table(active_timeout_ms=200_000)
        table.add(INTRA_NODE | counted(10))
        table.only()
        table.add(INTRA_NODE | counted(30, 20) | at(61))
        assert table.only(NOW + 90_000)["octetDeltaCount"] == 20
        assert len(table.flows) == 0


class TestReuse:
    """A 5-tuple that another connection uses after the first."""

    def test_a_newer_start_is_another_connection(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(500))
        table.add(INTRA_NODE | counted(70) | start(90_000) | at(100))
        first, second = sorted(table.due(), key=lambda row: row["flowStartMilliseconds"])
        assert first["octetTotalCount"] == first["octetDeltaCount"] == 500
        assert second["octetTotalCount"] == second["octetDeltaCount"] == 70
        assert second["flowStartMilliseconds"] == START_MS + 90_000
        assert table.stats.reused == 1

    def test_within_the_same_second(self) -> None:
        table = Table()
        table.add(
            INTRA_NODE | counted(500) | at(0.1) | ENDED,
            INTRA_NODE | counted(600) | start(200) | at(0.3) | ENDED,
            INTRA_NODE | counted(700) | start(400) | at(0.5) | ENDED,
        )
        assert sorted(row["octetTotalCount"] for row in table.due()) == [500, 600, 700]
        assert table.stats.reused == 2

    def test_what_the_old_connection_had_left_is_written_at_once(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(500))
        table.only()
        table.add(INTRA_NODE | counted(800, 300) | at(62))
        table.add(INTRA_NODE | counted(70) | start(90_000) | at(100))
        deltas = [row["octetDeltaCount"] for row in table.due()]
        assert sorted(deltas) == [70, 300]

    def test_whole_seconds_are_not_another_connection(self) -> None:
        table = Table()
        whole = {"flowStartMilliseconds": START_MS // 1000 * 1000}
        table.add(INTRA_NODE | counted(500))
        table.add(INTRA_NODE | whole | counted(600, 100) | at(61))
        table.add(INTRA_NODE | counted(650, 50) | at(62))
        assert table.only()["octetDeltaCount"] == 650
        assert table.stats.reused == 0

    def test_whole_seconds_apart_are(self) -> None:
        table = Table()
        table.add(INTRA_NODE | {"flowStartMilliseconds": START_MS - 123} | counted(5))
        table.add(INTRA_NODE | {"flowStartMilliseconds": START_MS + 877} | counted(6))
        assert len(table.due()) == 2

    def test_an_unknown_start_fits_any(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(5) | {"flowStartMilliseconds": 0})
        table.add(INTRA_NODE | counted(9, 4) | at(61))
        assert table.only()["octetTotalCount"] == 9

    def test_nodes_clocks_may_differ(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(5), DESTINATION_HALF | counted(5) | start(-3_000))
        assert table.only()["originalFlowsPresent"] == 2
        table.add(SOURCE_HALF | counted(9, 4) | at(61))
        table.add(DESTINATION_HALF | counted(9, 4) | start(-3_000) | at(61))
        assert table.only(NOW + 60_000)["octetDeltaCount"] == 4
        assert table.stats.reused == 0

    def test_the_old_connections_last_words_reach_it(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(5), DESTINATION_HALF | counted(5) | start(4))
        table.only()
        table.add(SOURCE_HALF | counted(50) | start(70_000) | at(75))
        table.add(DESTINATION_HALF | counted(9, 4) | start(4) | at(61) | ENDED)
        row = table.only(NOW + 60_000)
        assert row["octetTotalCount"] == 9
        assert row["octetDeltaCountFromDestinationNode"] == 4
        assert row["sourcePodName"] == "client"
        table.add(DESTINATION_HALF | counted(50) | start(70_004) | at(75))
        row = table.only(NOW + 60_000)
        assert row["octetTotalCount"] == row["octetTotalCountFromSourceNode"] == 50
        assert row["originalFlowsPresent"] == 2

    def test_the_old_connections_late_half_finds_it(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(5) | at(1) | ENDED)
        table.add(SOURCE_HALF | counted(50) | start(5_000) | at(6) | ENDED)
        table.add(DESTINATION_HALF | counted(5) | start(9) | at(1) | ENDED)
        table.add(DESTINATION_HALF | counted(50) | start(5_009) | at(6) | ENDED)
        rows = table.due()
        assert sorted(row["octetTotalCountFromDestinationNode"] for row in rows) == [5, 50]
        for row in rows:
            assert row["originalFlowsPresent"] == 2
            assert row["octetTotalCount"] == row["octetTotalCountFromDestinationNode"]

    def test_both_halves_of_the_new_one_may_come_first(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(5) | at(1) | ENDED)
        table.add(SOURCE_HALF | counted(50) | start(5_000) | at(6))
        table.add(DESTINATION_HALF | counted(50) | start(5_009) | at(6))
        table.add(DESTINATION_HALF | counted(5) | start(9) | at(1) | ENDED)
        assert sorted(row["octetTotalCount"] for row in table.due()) == [5, 50]
        assert table.stats.half_waits == 0

    def test_an_older_connection_that_nobody_knew_gets_its_own_record(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(70) | start(90_000) | at(100))
        table.only()
        old = INTRA_NODE | counted(500) | ENDED
        table.add(old, old)
        assert table.only()["octetTotalCount"] == 500
        assert table.stats.orphaned == 1
        assert table.stats.repeated == 1

    def test_older_than_all_that_is_known(self) -> None:
        table = Table()
        table.add(INTRA_NODE | counted(1) | start(20_000) | at(25))
        table.add(INTRA_NODE | counted(2) | start(90_000) | at(95))
        table.due()
        live = len(table.flows)
        table.add(INTRA_NODE | counted(3) | at(1))
        assert table.only()["octetTotalCount"] == 3
        assert len(table.flows) == live + 1  # as it may come again
        table.add(INTRA_NODE | counted(3) | at(1))
        assert not table.due(NOW + 1_000)
        assert table.stats.orphaned == 1

    def test_of_one_that_is_older_than_all_the_halves_meet(self) -> None:
        table = Table()
        for began in (20_000, 90_000):
            over = start(began) | at(began // 1000 + 1) | ENDED
            table.add(SOURCE_HALF | counted(1) | over, DESTINATION_HALF | counted(1) | over)
        table.due()
        old = counted(30) | at(1) | ENDED
        table.add(SOURCE_HALF | old, DESTINATION_HALF | old)
        row = table.only()
        assert (row["octetDeltaCount"], row["originalFlowsPresent"]) == (30, 2)

    @pytest.mark.parametrize(
        "first", [SOURCE_HALF, DESTINATION_HALF], ids=["source", "destination"]
    )
    @pytest.mark.parametrize("connections", [3, 4, 8])
    def test_each_finds_its_half_when_one_node_reports_many_before_the_other(
        self, connections: int, first: Row
    ) -> None:
        other = DESTINATION_HALF if first is SOURCE_HALF else SOURCE_HALF

        def reused(half: Row, number: int, skew: int) -> Row:
            over = at(5 * number + 1) | ENDED
            return half | counted(100 * number) | start(5_000 * number + skew) | over

        table = Table()
        numbers = range(1, connections + 1)
        table.add(*(reused(first, number, 0) for number in numbers))
        for number in numbers:
            table.add(reused(other, number, 9))
        rows = table.due()
        assert sorted(row["octetDeltaCount"] for row in rows) == [100 * n for n in numbers]
        assert {row["originalFlowsPresent"] for row in rows} == {2}
        # A session that ended before all was acknowledged sends it all again.
        table.add(
            *(reused(half, n, skew) for half, skew in ((first, 0), (other, 9)) for n in numbers)
        )
        assert not table.due(NOW + 1_000)
        assert table.stats.orphaned == 0

    def test_of_too_many_what_is_written_goes_first_then_the_oldest_is_written(self) -> None:
        table = Table()  # of 64
        for number in range(1, OLDEST + 4):
            table.add(SOURCE_HALF | counted(number) | start(5_000 * number) | at(5 * number + 1))
        assert sorted(row["octetTotalCount"] for row in table.due()) == [1, 2]
        rest = range(3, OLDEST + 4)
        assert sorted(row["octetTotalCount"] for row in table.flush()) == [*rest]

    def test_full_of_connections_to_write_there_is_no_room_for_another(self) -> None:
        table = Table(max_flows=1)
        table.add(INTRA_NODE | counted(1))
        table.add(INTRA_NODE | counted(2) | start(5_000) | at(70))
        assert table.stats.full == 1
        assert table.only()["octetTotalCount"] == 1
        table.add(INTRA_NODE | counted(2) | start(5_000) | at(70))
        assert table.only()["octetTotalCount"] == 2


def numbered(port: int) -> Row:
    return INTRA_NODE | {"sourceTransportPort": port} | counted(100 + port)


class TestLimits:
    def test_a_full_table_forgets_what_is_idle_longest(self) -> None:
        table = Table(max_flows=4)
        for port in range(4):
            table.add(numbered(port), now=NOW + port)
        assert len(table.due(NOW + 4)) == 4
        table.add(numbered(0) | counted(500) | at(70), now=NOW + 5)
        table.add(numbered(8), now=NOW + 6)
        assert len(table.flows) == 4
        assert table.stats.evicted == 1
        table.add(numbered(1), now=NOW + 7)
        assert table.stats.repeated == 0
        assert table.stats.full == 0

    def test_what_is_to_be_written_is_never_forgotten(self) -> None:
        table = Table(max_flows=2)
        table.add(*(SOURCE_HALF | {"sourceTransportPort": port} | counted(9) for port in (1, 2)))
        table.add(numbered(3))
        assert table.stats.full == 1
        assert len(table.due()) == 1, "one of the waiting was asked to go"
        table.add(numbered(3))
        assert table.stats.evicted == 1
        assert {row["sourceTransportPort"] for row in table.flush()} & {3}

    def test_more_new_flows_than_room(self) -> None:
        table = Table(max_flows=3)
        table.add(*(numbered(port) for port in range(10)))
        assert table.stats.full == 7
        assert len(table.due()) == 3

    def test_batches_can_be_taken_in_parts(self) -> None:
        table = Table()
        table.add(*(numbered(port) for port in range(10)))
        parts = [table.due(limit=4) for _ in range(4)]
        assert [len(part) for part in parts] == [4, 4, 2, 0]
        ports = {row["sourceTransportPort"] for part in parts for row in part}
        assert ports == set(range(10))

    def test_a_part_looks_only_at_what_it_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With all that is left at each part the work would grow with its square."""
        looked: list[int] = []
        look = FlowTable._due_and_idle

        def counting(table: FlowTable, slots: Any, at_ms: int) -> Any:
            due, idle = look(table, slots, at_ms)
            looked.append(len(due))
            return due, idle

        table = Table()
        table.add(*(numbered(port) for port in range(60)))
        with monkeypatch.context() as patch:
            patch.setattr(FlowTable, "_due_and_idle", counting)
            parts = [table.due(limit=2) for _ in range(30)]
        assert [len(part) for part in parts] == [2] * 30
        assert looked == [60] + [2] * 29

    def test_what_comes_between_two_parts_is_in_one_of_the_next(self) -> None:
        """And what is no longer due in none, nor is anything written twice."""
        table = Table()
        ports = [INTRA_NODE | {"sourceTransportPort": port} for port in range(1, 7)]
        table.add(*(port | counted(5) for port in ports))
        first = table.due(limit=2)
        table.add(ports[0] | counted(9, 4) | at(61), ports[5] | counted(9, 4) | at(61))
        late = INTRA_NODE | {"sourceTransportPort": 7}
        table.add(late | counted(5))
        rest = [row for _ in range(4) for row in table.due(limit=2)]
        written = [row["sourceTransportPort"] for row in first + rest]
        assert sorted(written) == [1, 2, 3, 4, 5, 6, 7]
        assert {row["octetTotalCount"] for row in rest if row["sourceTransportPort"] == 6} == {9}
        assert table.due(limit=2) == []
        (again,) = table.due(NOW + 60_000, limit=2)
        assert again["sourceTransportPort"] == 1

    def test_flush_writes_what_waits_and_nothing_twice(self) -> None:
        table = Table()
        table.add(SOURCE_HALF | counted(6000), numbered(7))
        assert len(table.flush()) == 2
        assert table.flush() == []
        assert table.stats.held == 0


class TestStrings:
    def test_a_batch_over_another_table_is_moved(self) -> None:
        table = Table()
        other = StringTable()
        other.intern(b"something else first")
        table.flows.add(exported(other, INTRA_NODE), NOW)
        assert table.only()["sourcePodName"] == "client"

    def test_dead_strings_are_left_behind(self) -> None:
        table = Table(compact_bytes=4_000, inactive_timeout_ms=10_000)
        batches = []
        for step in range(20):
            pods = [{"sourcePodName": f"pod-{step}-{port}"} for port in range(40)]
            more = at(step) | counted(100 * (step + 1), 100)
            rows = [numbered(port) | pod | more for port, pod in enumerate(pods)]
            table.add(*rows, now=NOW + step * 11_000)
            batches.append(table.flows.due(NOW + step * 11_000))
        batches.append(table.flows.flush(NOW))
        assert table.stats.compactions > 5
        assert len(table.flows.strings) < 200
        assert "pod-0-7" in batches[0].texts("sourcePodName")
        assert "pod-19-7" in batches[-1].texts("sourcePodName")

    def test_live_text_survives_a_move_and_the_old_table_is_still_taken(self) -> None:
        table = Table(compact_bytes=0)
        old = table.flows.strings
        table.add(SOURCE_HALF | counted(5))
        assert table.due() == []
        assert table.flows.strings is not old
        assert table.stats.compactions == 1
        table.flows.add(exported(old, DESTINATION_HALF | counted(5)), NOW)
        row = table.only()
        assert row["sourcePodName"] == "client"
        assert row["destinationPodName"] == "server"
        assert row["egressNetworkPolicyName"] == "out"

    def test_a_table_that_is_alive_is_not_moved_again(self) -> None:
        table = Table(compact_bytes=0)
        table.add(SOURCE_HALF | counted(5))
        table.due()
        moved = table.flows.strings
        table.due()
        assert table.flows.strings is moved


def test_no_flows_no_deadline() -> None:
    table = Table()
    table.add()
    assert table.flows.next_deadline() is None
    assert table.due() == []
    assert table.flush() == []


def test_next_deadline_is_when_there_is_something_to_do() -> None:
    table = Table()
    table.add(INTRA_NODE | counted(10))
    assert table.flows.next_deadline() == NOW
    table.due()
    table.add(INTRA_NODE | counted(20, 10) | at(61), now=NOW + 10)
    assert table.flows.next_deadline() == NOW + 60_000


def test_policies_are_remembered_when_a_half_does_not_know_them() -> None:
    table = Table()
    table.add(SOURCE_HALF | counted(5), DESTINATION_HALF | counted(5))
    table.only()
    forgetful = {"flowType": FlowType.INTER_NODE, "sourcePodName": "client"}
    table.add(forgetful | counted(9, 4) | at(61))
    row = table.only(NOW + 60_000)
    assert row["egressNetworkPolicyName"] == "out"
    assert row["destinationServicePort"] == 8080
    assert row["destinationServiceIP"] == "10.96.0.1"


def test_a_flow_may_turn_out_to_have_another_half() -> None:
    table = Table()
    table.add({"flowType": FlowType.TO_EXTERNAL, "sourcePodName": "client"} | counted(5))
    table.only()
    table.add(SOURCE_HALF | counted(9, 4) | at(61))
    table.add(DESTINATION_HALF | counted(9, 9) | at(61) | start(3))
    row = table.only(NOW + 60_000)
    assert row["originalFlowsPresent"] == 2
    assert row["octetDeltaCount"] == 4
    assert row["octetTotalCount"] == row["octetTotalCountFromDestinationNode"] == 9
    assert row["flowType"] == FlowType.INTER_NODE


def test_the_live_flows_can_be_read_without_changing_them() -> None:
    table = Table()
    table.add(SOURCE_HALF | counted(5), INTRA_NODE | {"sourceTransportPort": 7} | counted(6))
    for _ in range(2):
        rows = table.read(table.flows.live())
        assert sorted(row["octetDeltaCount"] for row in rows) == [5, 6]
    assert len(table.due()) == 1
    assert len(table.flows.live()) == 2
    assert table.stats.written == 1


def test_what_stays_is_in_one_part_whatever_goes_meanwhile() -> None:
    """As many as went before it were skipped, so that a flow that is open was not shown."""

    def flow(port: int) -> Row:
        return INTRA_NODE | {"sourceTransportPort": port}

    table = Table()
    table.add(*(flow(port) | counted(5) for port in range(1, 10)))
    table.due()
    parts = table.flows.live_parts(3)
    seen = next(parts)["sourceTransportPort"].tolist()
    assert seen == [1, 2, 3]
    stay = (3, 4, 5, 6, 7, 9)
    table.add(*(flow(port) | counted(9, 4) | at(80) for port in stay), now=NOW + 80_000)
    table.due(NOW + 100_000)  # the others are forgotten
    assert sorted(table.flows.live()["sourceTransportPort"].tolist()) == list(stay)
    table.add(flow(99) | counted(5) | at(99), now=NOW + 100_000)
    seen += [port for part in parts for port in part["sourceTransportPort"].tolist()]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 9]
    assert [len(part) for part in table.flows.live_parts(3)] == [2, 3, 2]


def test_another_active_timeout_is_that_of_flows_that_wait() -> None:
    table = Table(active_timeout_ms=60_000)
    table.add(INTRA_NODE | counted(100))
    assert len(table.due(NOW)) == 1
    later = {"flowEndMilliseconds": START_MS + 70_000}
    table.add(INTRA_NODE | counted(200, 100) | later, now=NOW + 1000)
    assert table.due(NOW + 10_000) == []
    table.flows.retime(NOW + 10_000, active_timeout_ms=11_000, inactive_timeout_ms=90_000)
    assert table.due(NOW + 10_999) == []
    assert len(table.due(NOW + 11_000)) == 1
    table.add(
        INTRA_NODE | counted(300, 100) | {"flowEndMilliseconds": START_MS + 80_000},
        now=NOW + 12_000,
    )
    assert table.due(NOW + 21_999) == []
    assert len(table.due(NOW + 22_000)) == 1


def test_another_wait_for_the_other_half() -> None:
    table = Table(inactive_timeout_ms=90_000, correlation_wait_ms=60_000)
    table.add(SOURCE_HALF | counted(100))
    table.flows.retime(
        NOW + 1000, active_timeout_ms=60_000, inactive_timeout_ms=90_000, correlation_wait_ms=5_000
    )
    assert table.due(NOW + 4_999) == []
    assert len(table.due(NOW + 5_000)) == 1


def test_what_is_due_stays_due_and_idle_flows_go_by_the_new_timeout() -> None:
    table = Table(inactive_timeout_ms=90_000)
    table.add(INTRA_NODE | counted(100))
    table.flows.retime(
        NOW, active_timeout_ms=600_000, inactive_timeout_ms=5_000, correlation_wait_ms=1
    )
    assert len(table.due(NOW)) == 1
    assert len(table.flows) == 1
    table.due(NOW + 5_000)
    assert len(table.flows) == 0


@pytest.mark.parametrize("leap", [-3_600_000, 3_600_000, -36_000_000])
def test_a_clock_that_is_set_neither_stops_nor_hurries_anything(leap: int) -> None:
    table, written = Table(), []
    for second in range(0, 240, 10):
        now = NOW + 1000 * second + (leap if second >= 90 else 0)
        if second < 120:
            record = {"flowEndMilliseconds": START_MS + 1000 * second + 1000}
            table.add(INTRA_NODE | counted(100 * second + 100) | record, now=now)
        written += [second for _ in table.due(now)]
        if not len(table.flows):
            break
    assert written == [0, 60, 120]
    assert second == 200  # 90 s after the last record
    assert table.stats.evicted == 0


def test_a_decision_over_one_record_does_not_look_at_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who sends many records that need one would keep all other exporters waiting."""
    looked_at = 0
    against = arrivals_module.Arrivals._against

    def counting(arrivals: arrivals_module.Arrivals, rows: Any) -> Any:
        nonlocal looked_at
        looked_at += len(rows)
        return against(arrivals, rows)

    monkeypatch.setattr(arrivals_module.Arrivals, "_against", counting)
    table = Table()
    starts = [{"flowStartMilliseconds": START_MS + 5000 * number} for number in range(40)]
    table.add(*(INTRA_NODE | counted(100) | start for start in starts))
    assert table.stats.reused == 39
    assert looked_at <= 3 * len(starts)


@pytest.mark.parametrize("told", [False, True], ids=["the first record", "the other node's next"])
def test_what_a_flushed_kernel_ended_goes_on(told: bool) -> None:
    """Its exporter reports the end of what it knew; the connection has none yet."""
    table = Table()
    anew = start(71_000)
    table.add(SOURCE_HALF | counted(600) | at(60), now=NOW)
    table.add(DESTINATION_HALF | counted(600) | at(60), now=NOW)
    assert table.only()["flowEndReason"] == EndReason.ACTIVE
    table.add(DESTINATION_HALF | counted(700, 100) | at(70) | ENDED, now=NOW + 10_000)
    if told:
        table.add(DESTINATION_HALF | anew | counted(400) | at(110), now=NOW + 50_000)
    table.add(SOURCE_HALF | counted(1200, 600) | at(120), now=NOW + 60_000)
    table.add(DESTINATION_HALF | anew | counted(600) | at(130), now=NOW + 70_000)
    reasons = [row["flowEndReason"] for row in table.due(NOW + 120_000)]
    assert reasons == [EndReason.ACTIVE]
    table.add(SOURCE_HALF | counted(1800, 600) | at(180), now=NOW + 130_000)
    table.add(DESTINATION_HALF | anew | counted(1100, 500) | at(179), now=NOW + 130_000)
    assert table.only(NOW + 180_500)["flowEndReason"] == EndReason.ACTIVE
    table.add(SOURCE_HALF | counted(1900, 100) | at(190) | ENDED, now=NOW + 190_000)
    assert table.due(NOW + 190_100) == []  # the other node has not told of its end
    table.add(DESTINATION_HALF | anew | counted(1200, 100) | at(190) | ENDED, now=NOW + 191_000)
    (last,) = table.due(NOW + 191_000)
    assert (last["flowEndReason"], last["octetTotalCount"]) == (EndReason.END, 1900)
