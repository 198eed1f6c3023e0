import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowvis.native import flows as compiled
from flowvis.native.reference import flows as reference


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def keys_of(numbers: list[int] | range, size: int = 5) -> NDArray[np.uint8]:
    text = b"".join(number.to_bytes(size, "big") for number in numbers)
    return np.frombuffer(text, dtype=np.uint8).reshape(len(numbers), size)


def test_the_compiled_leaf_is_compiled() -> None:
    assert (compiled.__file__ or "").endswith(".so")


def test_upsert_finds_or_adds(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 10)
    slots, new = index.upsert(keys_of([7, 8, 7, 9]))
    assert slots.tolist() == [0, 1, 0, 2]
    assert new.tolist() == [True, True, False, True]
    assert new.dtype == bool
    assert len(index) == 3
    assert index.find(keys_of([9, 5, 8])).tolist() == [2, -1, 1]


def test_full_index_refuses_new_keys_and_still_finds_old_ones(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 2)
    slots, new = index.upsert(keys_of([1, 2, 3, 1]))
    assert slots.tolist() == [0, 1, -1, 0]
    assert new.tolist() == [True, True, False, False]


def test_the_lowest_free_slot_comes_first(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 200)
    index.upsert(keys_of(range(200)))
    index.remove(np.array([150, 3, 70]))
    assert index.upsert(keys_of([900, 901, 902, 903]))[0].tolist() == [3, 70, 150, -1]


def test_keys_come_back(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 10)
    index.upsert(keys_of([7, 8, 9]))
    assert (index.keys(np.array([2, 0])) == keys_of([9, 7])).all()
    assert index.keys(np.array([], dtype=np.int64)).shape == (0, 5)


@pytest.mark.parametrize("slot", [-1, 1, 10, 1 << 40])
def test_a_slot_without_a_key_is_refused(leaf: ModuleType, slot: int) -> None:
    index = leaf.FlowIndex(5, 10)
    index.upsert(keys_of([7]))
    with pytest.raises(ValueError, match=f"slot {slot} holds no key"):
        index.remove(np.array([slot]))
    with pytest.raises(ValueError, match=f"slot {slot} holds no key"):
        index.keys(np.array([slot]))
    assert len(index) == 1


def test_removing_twice_is_refused(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 10)
    index.upsert(keys_of([7]))
    with pytest.raises(ValueError, match="slot 0 holds no key"):
        index.remove(np.array([0, 0]))
    assert len(index) == 0


def test_clear_forgets_everything(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(5, 10)
    index.upsert(keys_of([7, 8]))
    index.clear()
    assert len(index) == 0
    assert index.find(keys_of([7])).tolist() == [-1]
    assert index.upsert(keys_of([8]))[0].tolist() == [0]


def test_without_memory_to_clear_with_all_stays(leaf: ModuleType) -> None:
    """In a process of its own, which gets no more memory from the system meanwhile."""
    program = f"""
import resource

import numpy as np

from {leaf.__name__} import FlowIndex

index = FlowIndex(256, 1 << 22)
keys = np.eye(2, 256, dtype=np.uint8)
index.upsert(keys)
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 26, limits[1]))
try:
    index.clear()
except MemoryError:
    pass
resource.setrlimit(resource.RLIMIT_AS, limits)
kept = len(index)
print(kept in (0, 2), index.upsert(1 - keys)[0].tolist() == [kept, kept + 1])
index.clear()
print(len(index), index.upsert(keys)[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["True True", "0 [0, 1]", ""], done


@pytest.mark.parametrize("shape", [(2, 4), (5,), (1, 5, 1)])
def test_keys_of_another_shape_are_refused(leaf: ModuleType, shape: tuple[int, ...]) -> None:
    index = leaf.FlowIndex(5, 10)
    with pytest.raises(ValueError, match="need uint8"):
        index.upsert(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="need uint8"):
        index.find(np.zeros((1, 5), dtype=np.uint16))


@pytest.mark.parametrize(("key_size", "capacity"), [(0, 1), (257, 1), (5, 0), (5, 1 << 31)])
def test_impossible_sizes_are_refused(leaf: ModuleType, key_size: int, capacity: int) -> None:
    with pytest.raises(ValueError, match=r"key_size|capacity"):
        leaf.FlowIndex(key_size, capacity)


def test_no_key_is_lost_while_the_index_grows_and_shrinks(leaf: ModuleType) -> None:
    index = leaf.FlowIndex(37, 20_000)
    keys = keys_of(range(20_000), 37)
    slots, new = index.upsert(keys)
    assert new.all()
    assert (slots == np.arange(20_000)).all()
    index.remove(slots[::2])
    assert (index.find(keys) == np.where(np.arange(20_000) % 2, slots, -1)).all()
    assert len(index) == 10_000


keys = st.lists(st.integers(0, 40), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(keys, st.lists(st.integers(0, 23), max_size=8)), max_size=12))
def test_compiled_and_reference_agree(steps: list[tuple[list[int], list[int]]]) -> None:
    indexes = [leaf.FlowIndex(3, 24) for leaf in (reference, compiled)]
    for added, removed in steps:
        outcomes = [index.upsert(keys_of(added, 3)) for index in indexes]
        assert outcomes[0][0].tolist() == outcomes[1][0].tolist()
        assert outcomes[0][1].tolist() == outcomes[1][1].tolist()
        live = {slot for slot in indexes[0].find(keys_of(range(41), 3)).tolist() if slot >= 0}
        gone = np.array(sorted(live.intersection(removed)), dtype=np.int64)
        for index in indexes:
            index.remove(gone)
        everything = [index.find(keys_of(range(41), 3)).tolist() for index in indexes]
        assert everything[0] == everything[1]
        assert len(indexes[0]) == len(indexes[1]) == sum(slot >= 0 for slot in everything[0])


def test_pack_keys_puts_bytes_side_by_side(leaf: ModuleType) -> None:
    table = np.zeros(3, dtype=[("port", "<u2"), ("address", "u1", (16,)), ("protocol", "u1")])
    table["port"] = [1, 258, 3]
    table["address"][:, 15] = [7, 8, 9]
    table["protocol"] = 6
    packed = leaf.pack_keys(table["address"], table["port"], table["protocol"])
    assert packed.shape == (3, 19)
    assert packed.dtype == np.uint8
    assert packed.flags.c_contiguous
    assert packed[1].tobytes() == bytes(15) + b"\x08" + b"\x02\x01" + b"\x06"


def test_pack_keys_takes_columns_strided_both_ways(leaf: ModuleType) -> None:
    wide = np.arange(64, dtype=np.uint8).reshape(4, 16)
    packed = leaf.pack_keys(wide[::2, ::4], np.arange(4, dtype=np.uint32)[::-2])
    assert packed.tolist() == [[0, 4, 8, 12, 3, 0, 0, 0], [32, 36, 40, 44, 1, 0, 0, 0]]


def test_pack_keys_of_no_rows(leaf: ModuleType) -> None:
    assert leaf.pack_keys(np.zeros((0, 16), np.uint8), np.zeros(0, np.uint16)).shape == (0, 18)


def test_pack_keys_needs_columns_of_one_length(leaf: ModuleType) -> None:
    with pytest.raises(ValueError, match="need one length"):
        leaf.pack_keys(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="need one length"):
        leaf.pack_keys()
