"""Of what interval rates are, by either leaf."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowvis.native import rates as compiled
from flowvis.native.contract.rates import LARGE_INTERVAL, LARGE_RATE
from flowvis.native.reference import rates as reference

LEAVES = [reference, compiled]
LARGEST = 2**64 - 1
NUMBER = (
    st.integers(0, 50)
    | st.integers(0, LARGEST)
    | st.sampled_from([LARGE_RATE - 1, LARGE_RATE, LARGE_INTERVAL - 1, LARGE_INTERVAL, LARGEST])
)


@pytest.fixture(params=LEAVES, ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def column(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def rate(octets: int, interval: int) -> int:
    return octets * 8000 % 2**64 // interval if interval else 0


@settings(max_examples=60)
@given(st.lists(st.tuples(*[NUMBER] * 5), max_size=40))
@example([(5, 7, 0, 0, 0), (0, 0, 0, 0, 0), (10**6, 133_333, 10**5, 13_333, 60_000)])
def test_rates_come_back_and_both_leaves_say_the_same(rows: list[tuple[int, ...]]) -> None:
    columns = [column(*(row[place] for row in rows)) for place in range(5)]
    for known in (columns[4], None):
        answers = [
            [found.tolist() for found in leaf.explain(*columns[:4], known)] for leaf in LEAVES
        ]
        assert answers[0] == answers[1]
        for row, interval, *residuals in zip(rows, *answers[0], strict=True):
            for at, residual in zip((0, 2), residuals, strict=True):
                assert (rate(row[at], interval) + residual) % 2**64 == row[at + 1]


def test_one_interval_for_both_directions(leaf: ModuleType) -> None:
    octets, replies = [10**6, 0, 3 * 10**9, 4_000], [2 * 10**7, 10**6, 10**5, 10]
    own, guess = 60_731, column(*[60_731] * 3, 5_000)
    table = np.array(
        [[o, rate(o, own), r, rate(r, own)] for o, r in zip(octets, replies, strict=True)],
        np.uint64,
    )  # columns of rows, as the aggregator's table has them
    interval, *residuals = leaf.explain(*table.T, guess)
    assert interval[:3].tolist() == [own] * 3
    assert interval[3] != 5_000
    assert [found.tolist() for found in residuals] == [[0] * 4] * 2
    alone, *_ = leaf.explain(*table.T, None)
    assert alone.tolist()[0] == 20_000_000 * 8000 // rate(20_000_000, own)


def test_columns_that_do_not_fit_are_an_error(leaf: ModuleType) -> None:
    two, three = column(1, 2), column(1, 2, 3)
    for columns in ([two, two, two, three, None], [two, two, two, two, three]):
        with pytest.raises(ValueError, match=r"uint64\(3,\): need uint64\(2,\)"):
            leaf.explain(*columns)
    with pytest.raises(ValueError, match=r"int64\(2,\): need uint64\(2,\)"):
        leaf.explain(two, two, two, np.zeros(2, np.int64), None)
