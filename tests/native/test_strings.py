import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.errors import LimitExceeded
from flowvis.native import strings as compiled
from flowvis.native.reference import strings as reference
from flowvis.strings import MAX_STRING_BYTES, Strings

LEAVES = {"reference": reference, "compiled": compiled}


@pytest.fixture(params=LEAVES)
def table(request: pytest.FixtureRequest) -> Strings:
    return new(request.param)


def new(leaf: str, *limit: int) -> Strings:
    made: Strings = LEAVES[leaf].StringTable(*limit)
    return made


def test_the_compiled_leaf_is_compiled() -> None:
    assert (compiled.__file__ or "").endswith(".so")


def test_a_new_table_knows_the_empty_string(table: Strings) -> None:
    assert len(table) == 1
    assert table.size_bytes == 0
    assert table.intern(b"") == 0
    assert table.value(0) == b""


def test_equal_strings_have_one_code(table: Strings) -> None:
    codes = [table.intern(value) for value in (b"a", b"b", b"a", b"", b"b")]
    assert codes == [1, 2, 1, 0, 2]
    assert [table.value(code) for code in (1, 2)] == [b"a", b"b"]
    assert len(table) == 3
    assert table.size_bytes == 2


def test_strings_are_bytes(table: Strings) -> None:
    for value in (b"\0", b"\0\0", b"a\0", b"\xff\xfe", "Zürich".encode()):
        assert table.value(table.intern(value)) == value
    assert len(table) == 6


def test_texts_are_utf8_and_what_is_not_is_marked(table: Strings) -> None:
    codes = table.encode(["Zürich", "", "Zürich", "日本"])
    assert codes.dtype == np.uint32
    assert codes.tolist() == [1, 0, 1, 2]
    broken = table.intern(b"a\xffb")
    wanted = np.array([2, 1, 0, broken, 1], dtype=np.uint32)
    assert table.texts(wanted) == ["日本", "Zürich", "", "a�b", "Zürich"]
    assert table.texts(np.array([], dtype=np.uint32)) == []


@pytest.mark.parametrize("code", [-1, 2, 1 << 40])
def test_a_code_that_is_not_there(table: Strings, code: int) -> None:
    table.intern(b"a")
    with pytest.raises(IndexError):
        table.value(code)


def test_the_longest_string(table: Strings) -> None:
    longest = b"x" * MAX_STRING_BYTES
    assert table.value(table.intern(longest)) == longest
    with pytest.raises(LimitExceeded, match="65536 bytes") as caught:
        table.intern(longest + b"x")
    assert caught.value.reason == "string-length"
    assert len(table) == 2


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_full_table_keeps_what_it_has(leaf: str) -> None:
    table = new(leaf, 10)
    table.intern(b"12345")
    table.intern(b"abcde")
    with pytest.raises(LimitExceeded, match="full at 10 bytes") as caught:
        table.intern(b"z")
    assert caught.value.reason == "string-table"
    assert table.intern(b"abcde") == 2
    assert len(table) == 3


def test_packed_is_all_text_and_where_it_is(table: Strings) -> None:
    for value in (b"one", b"three", b"two"):
        table.intern(value)
    text, offsets = table.packed()
    assert text == b"onethreetwo"
    assert offsets.dtype == np.uint64
    assert offsets.tolist() == [0, 0, 3, 8, 11]


def test_it_grows(table: Strings) -> None:
    values = [b"pod-%d" % number for number in range(50_000)]
    assert [table.intern(value) for value in values] == list(range(1, 50_001))
    assert [table.intern(value) for value in values] == list(range(1, 50_001))
    assert table.value(31_234) == values[31_233]
    assert table.size_bytes == sum(map(len, values))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40)))
def test_compiled_and_reference_agree(values: list[bytes]) -> None:
    tables = [new(leaf) for leaf in LEAVES]
    codes = [[table.intern(value) for value in values] for table in tables]
    assert codes[0] == codes[1]
    assert [tables[1].value(code) for code in codes[1]] == values
    first, second = (table.packed() for table in tables)
    assert first[0] == second[0]
    assert first[1].tolist() == second[1].tolist()
