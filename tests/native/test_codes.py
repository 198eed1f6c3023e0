"""Which codes a column has, by either leaf."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.native import codes as compiled
from flowvis.native.reference import codes as reference

LEAVES = [reference, compiled]


@pytest.fixture(params=LEAVES, ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def column(*codes: int) -> np.ndarray:
    return np.array(codes, np.uint32)


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), max_size=200), min_size=1, max_size=3))
def test_both_leaves_say_the_same_again_and_again(columns: list[list[int]]) -> None:
    scratches = [np.zeros(41, np.uint32) for _ in LEAVES]
    for values in columns:
        codes = column(*values)
        found = [
            leaf.distinct(codes, scratch) for leaf, scratch in zip(LEAVES, scratches, strict=True)
        ]
        for used, places in found:
            assert used.tolist() == list(dict.fromkeys(values))
            assert used[places].tolist() == values
            assert used.dtype == places.dtype == np.uint32
        assert not any(scratch.any() for scratch in scratches)


def test_a_column_of_rows(leaf: ModuleType) -> None:
    table = np.arange(12, dtype=np.uint32).reshape(4, 3)
    used, places = leaf.distinct(table[:, 1], np.zeros(12, np.uint32))
    assert (used.tolist(), places.tolist()) == ([1, 4, 7, 10], [0, 1, 2, 3])


@pytest.mark.parametrize("code", [3, 4, 2**32 - 1])
def test_a_code_beyond_the_table_is_an_error_and_leaves_nothing(
    leaf: ModuleType, code: int
) -> None:
    scratch = np.zeros(3, np.uint32)
    with pytest.raises(IndexError, match=f"code {code} of a table of 3"):
        leaf.distinct(column(1, 0, code, 2), scratch)
    assert not scratch.any()
    assert leaf.distinct(column(2, 2, 1), scratch)[0].tolist() == [2, 1]
