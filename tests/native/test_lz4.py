"""Columns as LZ4 blocks, by either leaf; LZ4's own decompressor says whether they are any."""

from types import ModuleType

import lz4.block
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowvis.native import lz4 as compiled
from flowvis.native.contract.lz4 import MOST_WIDTH, TAIL, Part
from flowvis.native.reference import lz4 as reference

LEAVES = [reference, compiled]


@pytest.fixture(params=LEAVES, ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def whole(parts: list[Part]) -> bytes:
    return b"".join(bytes(data) for data, _ in parts)


def read(block: bytes, size: int) -> bytes:
    return bytes(lz4.block.decompress(block, uncompressed_size=size))


def columns() -> st.SearchStrategy[Part]:
    """Values of few distinct bytes in runs of any length: matches begin and end anywhere."""
    runs = st.tuples(st.binary(max_size=20), st.integers(0, 400))
    data = st.lists(runs, max_size=6).map(lambda some: b"".join(run * n for run, n in some))
    few = st.lists(st.sampled_from([0, 0, 0, 0, 0, 1, 255]), max_size=400).map(bytes)
    return st.tuples(data | few | st.binary(max_size=300), st.sampled_from([1, 3, 8, 16, 17, 300]))


@settings(max_examples=60)
@given(st.lists(columns(), max_size=5))
@example([(bytes(range(256)) * 3, 256)])
@example([(bytes(5000), 8)])
@example([(bytes(300), 8), (np.arange(600, dtype=np.uint8).tobytes(), 8), (bytes(300), 8)])
def test_what_is_packed_is_read_by_lz4_and_both_leaves_say_the_same(parts: list[Part]) -> None:
    blocks = [leaf.pack_columns(parts) for leaf in LEAVES]
    assert blocks[0] == blocks[1]
    assert read(blocks[1], len(whole(parts))) == whole(parts)


def test_a_block_ends_in_literals_as_the_format_wants(leaf: ModuleType) -> None:
    block = leaf.pack_columns([(bytes(1004), 8)])
    assert block[-TAIL:] == bytes(TAIL)
    assert block[-TAIL - 1] == TAIL << 4  # the last token: so many literals and no match


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.full(10_000, 1 << 40, np.uint64), 0.1),
        (np.arange(10_000, dtype=np.uint64) * np.uint64(13), 5.0),
        (np.repeat(np.arange(10, dtype=np.uint64), 1000), 0.1),
    ],
    ids=["constant", "small", "runs"],
)
def test_bytes_a_value(leaf: ModuleType, values: np.ndarray, most: float) -> None:
    assert len(leaf.pack_columns([(values.data.cast("B"), 8)])) / len(values) < most


def test_random_bytes_become_hardly_more(leaf: ModuleType) -> None:
    data = np.random.default_rng(1).bytes(100_000)
    assert len(leaf.pack_columns([(data, 8)])) < len(data) * 1.005 + 16


def test_nothing(leaf: ModuleType) -> None:
    assert read(leaf.pack_columns([]), 0) == b""
    assert read(leaf.pack_columns([(b"", 8)]), 0) == b""


@pytest.mark.parametrize("width", [0, -1, MOST_WIDTH + 1])
def test_a_width_that_no_match_reaches_is_an_error(leaf: ModuleType, width: int) -> None:
    with pytest.raises(ValueError, match=f"values of {width} bytes: need 1 to {MOST_WIDTH}"):
        leaf.pack_columns([(bytes(100), width)])
