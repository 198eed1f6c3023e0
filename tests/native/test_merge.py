"""The merge leaf by itself; what it does to flow records is tested with the flow table."""

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flowvis.native import merge as compiled
from flowvis.native.contract.merge import (
    NEVER,
    Count,
    Counter,
    Flows,
    FlowState,
    Header,
    MergeOp,
    MergeStep,
    Program,
    Records,
    Sides,
    Tally,
    same_start,
)
from flowvis.native.reference import merge as reference
from flowvis.native.reference.merge import is_unset

FIRST = Header.SIZE
TALLIES = (
    Tally(FIRST, FIRST + 8),
    Tally(FIRST + 16, FIRST + 24, FIRST + 32, FIRST + 40),
    Tally(FIRST + 48, FIRST + 56, FIRST + 64, FIRST + 72),
)
TEXT, NAME = FIRST + 80, FIRST + 84
PROGRAM = Program(
    row_size=FIRST + 120,
    widths=(8, 8, 4, 16),
    steps=(
        MergeStep(MergeOp.FILL, 2, TEXT, 4),
        MergeStep(MergeOp.FILL_ADDRESS, 3, NAME, 16, Sides.SOURCE),
    ),
    counters=(Counter(0, 1, TALLIES[0], TALLIES[1:]),),
    end=FIRST + 104,
    reason=FIRST + 112,
    interval=(FIRST + 8, FIRST + 40),
)


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def new_flows(n: int = 3, program: Program = PROGRAM) -> Flows:
    return Flows(
        np.zeros((n, program.row_size), np.uint8),
        np.zeros(n, np.uint64),
        np.full(n, NEVER),
        np.full(n, NEVER),
        np.zeros(n, np.int64),
    )


def new_records(n: int = 1, **given: Any) -> Records:
    made = Records(
        [
            np.full(n, 100, np.uint64),
            np.full(n, 100, np.uint64),
            np.full(n, 7, np.uint32),
            np.ones((n, 16), np.uint8),
        ],
        starts=np.full(n, 1001, np.uint64),
        ends=np.full(n, 2000, np.uint64),
        reasons=np.zeros(n, np.uint8),
        sides=np.full(n, Sides.BOTH, np.uint8),
        slots=np.zeros(n, np.int64),
        exporters=np.zeros(n, np.uint32),
        reversed=np.zeros(n, bool),
    )
    return replace(made, **given)


def merger(leaf: ModuleType, flows: Flows, program: Program = PROGRAM) -> Any:
    counts = np.zeros(len(Count), np.int64)
    return leaf.Merger(program, flows, counts, 60_000, 90_000)


def test_the_compiled_leaf_is_compiled() -> None:
    assert (compiled.__file__ or "").endswith(".so")


def test_values_go_where_the_program_says(leaf: ModuleType) -> None:
    flows = new_flows()
    assert merger(leaf, flows).merge(new_records(slots=np.array([2])), 5000) == 1
    row = flows.rows[2]
    assert row[TEXT : TEXT + 4].view(np.uint32)[0] == 7
    assert (row[NAME : NAME + 16] == 1).all()
    assert row[TALLIES[2].rate :][:8].view(np.uint64)[0] == 100 * 8000 // 999
    assert not flows.rows[:2].any()
    assert flows.state.tolist() == [
        0,
        0,
        FlowState.LIVE | FlowState.UNWRITTEN | FlowState.SHARED | 6,
    ]
    assert flows.due.tolist() == [NEVER, NEVER, 5000]
    assert flows.seen.tolist() == [NEVER, NEVER, 5000]


def test_a_step_of_one_side_is_for_records_of_that_side(leaf: ModuleType) -> None:
    flows = new_flows()
    sides = np.array([Sides.CORRELATE | Sides.DESTINATION], np.uint8)
    merger(leaf, flows).merge(new_records(sides=sides), 5000)
    assert not flows.rows[0][NAME : NAME + 16].any()
    assert flows.due[0] == 95_000


def test_slots_below_zero_are_passed_over(leaf: ModuleType) -> None:
    flows = new_flows()
    assert merger(leaf, flows).merge(new_records(2, slots=np.array([-1, -1])), 5000) == 2
    assert not flows.state.any()


def test_it_stops_at_another_start_until_that_is_decided(leaf: ModuleType) -> None:
    flows = new_flows()
    records = new_records(
        3,
        starts=np.array([1001, 1777, 1001], np.uint64),
        ends=np.array([2000, 2001, 2002], np.uint64),
    )
    it = merger(leaf, flows)
    assert it.merge(records, 5000) == 1
    assert it.merge(records, 5000, 1) == 1
    records.slots[1] = 1
    assert it.merge(records, 5000, 1, 1) == 3
    ends = flows.rows[:, Header.END : Header.END + 8].view(np.uint64).ravel()
    assert ends.tolist() == [2002, 2001, 0]


def test_it_stops_where_an_earlier_connection_may_be_meant(leaf: ModuleType) -> None:
    flows = new_flows()
    flows.state[0] = FlowState.PREVIOUS
    it = merger(leaf, flows)
    assert it.merge(new_records(), 5000) == 0
    assert it.merge(new_records(), 5000, 0, 0) == 1


SEEN_TWICE = np.array(
    [Sides.CORRELATE | Sides.SOURCE, Sides.CORRELATE | Sides.DESTINATION | Sides.AGAIN], np.uint8
)


@pytest.mark.parametrize(
    ("totals", "written", "expected"),
    [
        ((200, 200), False, Count.MERGED),
        ((100, 200), False, Count.MERGED),
        ((200, 100), False, Count.MERGED),
        ((100, 100), False, Count.REPEATED),
        ((100, 100), True, Count.REPEATED),
        ((100, 200), True, Count.HELD),
        ((200, 200), True, Count.HELD),
        ((200, 100), True, Count.HELD),
    ],
)
def test_what_two_nodes_counted_is_one_record(
    leaf: ModuleType, totals: tuple[int, int], *, written: bool, expected: Count
) -> None:
    flows, counts = new_flows(), np.zeros(len(Count), np.int64)
    it = leaf.Merger(PROGRAM, flows, counts, 60_000, 90_000)
    first = new_records(2, sides=SEEN_TWICE)
    assert it.merge(first, 5000) == 2
    assert counts.tolist() == [1, *[0] * (len(Count) - 1)]
    if written:
        flows.state[0] ^= FlowState.UNWRITTEN | FlowState.WRITTEN | FlowState.COMPLETE
    counts[:] = 0
    columns = [np.array(totals, np.uint64), *first.columns[1:]]
    assert it.merge(replace(first, columns=columns), 5000) == 2
    assert {Count(at): int(n) for at, n in enumerate(counts) if n} == {expected: 1}
    sides = [flows.rows[0, tally.total :][:8].view(np.uint64)[0] for tally in TALLIES]
    assert sides == [max(totals), *totals]


def test_what_the_other_node_counted_goes_where_the_record_went(leaf: ModuleType) -> None:
    flows = new_flows()
    it = merger(leaf, flows)
    it.merge(new_records(sides=np.array([Sides.CORRELATE | Sides.DESTINATION], np.uint8)), 5000)
    starts = np.full(2, 1777, np.uint64)  # not what the destination's was
    assert it.merge(new_records(2, sides=SEEN_TWICE, starts=starts), 5000) == 2
    assert flows.state[0] >> FlowState.SIDES & Sides.BOTH == Sides.BOTH


def test_strided_columns(leaf: ModuleType) -> None:
    flows = new_flows(4)
    columns = [
        np.arange(16, dtype=np.uint64)[::4],
        np.arange(16, dtype=np.uint64)[::-4],
        np.arange(8, dtype=np.uint32)[1::2],
        np.arange(128, dtype=np.uint8).reshape(4, 32)[:, ::2],
    ]
    merger(leaf, flows).merge(new_records(4, columns=columns, slots=np.arange(4)), 5000)
    words = flows.rows[:, TEXT : TEXT + 4].copy().view(np.uint32).ravel()
    assert words.tolist() == [1, 3, 5, 7]
    assert (flows.rows[3, NAME : NAME + 16] == np.arange(96, 128, 2)).all()
    assert flows.rows[1, FIRST : FIRST + 8].view(np.uint64)[0] == 4


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"slots": np.array([3])}, "slot 3"),
        ({"slots": np.array([0, 1])}, "columns"),
        ({"sides": np.zeros(2, np.uint8)}, "differ in length"),
        ({"columns": [np.zeros(1, np.uint64)] * 4}, "need 1 values"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    leaf: ModuleType, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        merger(leaf, new_flows()).merge(new_records(**given), 5000)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (MergeStep(MergeOp.FILL, 2, Header.SIZE - 4, 4), "outside"),
        (MergeStep(MergeOp.FILL, 2, PROGRAM.row_size - 2, 4), "outside"),
        (MergeStep(MergeOp.FILL, 0, TEXT, 4), "as wide as the column"),
        (MergeStep(MergeOp.FILL, 3, NAME, 16), "sizes are"),
        (MergeStep(MergeOp.REASON, 2, TEXT, 4), "sizes are"),
    ],
)
def test_unsound_steps_are_refused(leaf: ModuleType, step: MergeStep, complaint: str) -> None:
    program = replace(PROGRAM, steps=(step,))
    with pytest.raises(ValueError, match=complaint):
        merger(leaf, new_flows(), program)


def test_unsound_counters_are_refused(leaf: ModuleType) -> None:
    counter = Counter(0, 2, TALLIES[0], TALLIES[1:])
    with pytest.raises(ValueError, match="not 8 bytes wide"):
        merger(leaf, new_flows(), replace(PROGRAM, counters=(counter,)))


def test_arrays_that_do_not_fit_are_refused(leaf: ModuleType) -> None:
    flows = new_flows()
    with pytest.raises(ValueError, match="rows of shape"):
        merger(leaf, replace(flows, rows=flows.rows[:, 1:]))
    with pytest.raises(ValueError, match="differ in length"):
        merger(leaf, replace(flows, due=flows.due[1:]))


@pytest.mark.parametrize(
    ("known", "start", "same"),
    [
        (5123, 5123, True),
        (5123, 5124, False),
        (5000, 5999, True),
        (5999, 5000, True),
        (5000, 6000, False),
        (0, 5123, True),
        (5123, 0, True),
    ],
)
def test_starts_of_one_connection(known: int, start: int, same: bool) -> None:
    assert same_start(known, start) is same


@pytest.mark.parametrize(
    ("address", "unset"),
    [
        (bytes(16), True),
        (bytes(10) + b"\xff\xff" + bytes(4), True),
        (bytes(10) + b"\xff\xff\x0a\0\0\1", False),
        (bytes(15) + b"\1", False),
        (bytes(10) + b"\xff\0" + bytes(4), False),
        (b"\xfd" + bytes(15), False),
        (bytes(8) + b"\1" + bytes(7), False),
    ],
)
def test_addresses_that_say_nothing(leaf: ModuleType, address: bytes, unset: bool) -> None:
    assert is_unset(address) is unset
    flows = new_flows()
    columns = new_records().columns
    columns = [*columns[:3], np.frombuffer(address, np.uint8).reshape(1, 16)]
    merger(leaf, flows).merge(new_records(columns=columns), 5000)
    assert flows.rows[0, NAME : NAME + 16].any() == (not unset)


def test_what_is_written_is_copied_and_its_next_interval_begins(leaf: ModuleType) -> None:
    rng = np.random.default_rng(7)
    flows = new_flows(4)
    flows.rows[:] = rng.integers(0, 256, flows.rows.shape, np.uint8)
    flows.rows[:, PROGRAM.reason] = [0, 3, 1, 2]
    both = Sides.BOTH << FlowState.SIDES
    live = FlowState.LIVE | FlowState.UNWRITTEN
    flows.state[:] = [
        live | FlowState.SOURCE | FlowState.OVER,
        live | both,
        live | FlowState.SHARED | FlowState.ONCE,
        live,
    ]
    flows.due[:] = 17
    state = flows.state.copy()
    tallies = TALLIES[1:]
    for tally in tallies:
        flows.rows[:2, tally.last : tally.last + 8] = flows.rows[:2, tally.total : tally.total + 8]
    flows.rows[1, tallies[1].last + 7] ^= 128
    rows = flows.rows.copy()
    copies, before, anew = merger(leaf, flows).write(np.array([2, 0, 1]), 5000)
    assert anew.tolist() == [True, False, True]
    assert copies.tobytes() == rows[[2, 0, 1]].tobytes()
    assert before.tolist() == state[[2, 0, 1]].tolist()
    written = live & ~FlowState.UNWRITTEN | FlowState.WRITTEN
    assert flows.state.tolist() == [
        written | FlowState.SOURCE,
        written | both | FlowState.COMPLETE | FlowState.OVER,
        written | FlowState.SHARED | FlowState.ONCE | FlowState.COMPLETE | FlowState.OVER,
        state[3],
    ]
    assert flows.due.tolist() == [NEVER, NEVER, NEVER, 17]
    expected = rows.copy()
    for at in range(3):
        row = expected[at]
        row[slice(*PROGRAM.interval)] = 0
        row[Header.WRITTEN_AT :][:8].view(np.int64)[:] = 5000
        row[Header.INTERVAL_START :][:8] = row[PROGRAM.end :][:8]
        row[Header.WRITTEN :][:4].view(np.uint32)[:] += np.uint32(1)
    assert flows.rows.tobytes() == expected.tobytes()


def test_writing_nothing_is_nothing(leaf: ModuleType) -> None:
    copies, state, anew = merger(leaf, new_flows()).write(np.empty(0, np.int64), 5000)
    assert copies.shape == (0, PROGRAM.row_size)
    assert state.shape == anew.shape == (0,)


@pytest.mark.parametrize("slots", [[-1], [0, 3], [1 << 40]])
def test_what_is_not_of_the_flows_is_not_written(leaf: ModuleType, slots: list[int]) -> None:
    flows = new_flows(3)
    with pytest.raises(ValueError, match="there are 3"):
        merger(leaf, flows).write(np.array(slots), 5000)
    assert not flows.rows.any()


def test_a_flow_is_of_the_cycle_of_its_oldest_record_that_is_not_written(leaf: ModuleType) -> None:
    flows = new_flows(2)
    it = merger(leaf, flows)
    both = np.array([0, 1])
    it.merge(new_records(cycle=5), 5000)
    it.merge(new_records(2, slots=both, ends=np.full(2, 2001, np.uint64), cycle=6), 5000)
    assert flows.cycle.tolist() == [5, 6]
    it.write(np.array([0]), 5000)
    it.merge(new_records(2, slots=both, ends=np.full(2, 1500, np.uint64), cycle=9), 5000)
    assert flows.cycle.tolist() == [5, 6]
    assert not flows.state[0] & FlowState.UNWRITTEN
    grown = [np.full(2, 300, np.uint64), *new_records(2).columns[1:]]
    ends = np.full(2, 2002, np.uint64)
    it.merge(new_records(2, columns=grown, slots=both, ends=ends, cycle=7), 5000)
    assert flows.cycle.tolist() == [7, 6]
