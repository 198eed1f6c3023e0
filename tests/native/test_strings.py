import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.native import strings as compiled
from flowvis.native.reference import strings as reference
from flowvis.strings import LARGEST_TABLE, MAX_TEXT_BYTES, Strings, shortened

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


def test_a_text_that_is_too_long_is_shortened_between_characters(table: Strings) -> None:
    longest = b"x" * MAX_TEXT_BYTES
    assert table.value(table.intern(longest)) == longest
    assert table.shortened == 0
    text = "xx" + "日" * (MAX_TEXT_BYTES // 3)  # the limit is inside of the last character
    assert table.value(table.encode([text])[0]) == text[:-1].encode()
    assert table.intern(longest + b"x") == 1
    assert table.shortened == 2
    assert table.refused == 0


def test_what_no_utf8_has_is_marked(table: Strings) -> None:
    assert table.texts(table.encode(["a\ud800b"])) == ["a?b"]


def full(leaf: str, texts: int) -> Strings:
    """A table with room for so many texts of 36 bytes."""
    return new(leaf, texts * 100)


def text(number: int) -> bytes:
    return b"%036d" % number


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_full_table_keeps_what_it_has_and_refuses_the_rest(leaf: str) -> None:
    table = full(leaf, 10)
    assert [table.intern(text(number)) for number in range(12)] == [*range(1, 11), 0, 0]
    assert table.memory_bytes == table.max_bytes == 1000
    assert table.refused == 2
    assert table.intern(text(3)) == 4
    assert table.intern(b"") == 0
    assert table.refused == 2
    assert len(table) == 11


@pytest.mark.parametrize("leaf", LEAVES)
def test_who_fills_a_table_leaves_as_much_to_others(leaf: str) -> None:
    table = full(leaf, 800)
    found = {}
    for payer, first in ((7, 1000), (300, 3000)):
        table.payer = payer
        for number in range(first, first + 800):
            table.intern(text(number))
        found[payer] = table.charged(payer)
    assert found == {7: 35_000, 300: 17_500}  # half of what an eighth leaves, and half of the rest
    assert table.refused == 1600 - 525
    table.payer = 9  # another one's are not refused
    assert table.intern(text(1))
    assert table.intern(text(2))
    table.payer = 7
    assert table.intern(text(1)), "what is there already costs nothing"
    assert table.intern(text(3)) == 0
    table.payer = 0  # we ourselves may use all
    assert all(table.intern(text(number)) for number in range(5000, 5200))
    assert table.charged(7) == 35_000
    assert table.charged(0) == 20_000
    assert table.charged(60_000) == 0


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_payer_has_a_little_while_there_is_room(leaf: str) -> None:
    table = full(leaf, 800)
    for payer in range(1, 13):
        table.payer = payer
        for number in range(100):
            table.intern(text(1000 * payer + number))
    assert {table.charged(payer) >= 1200 for payer in range(1, 13)} == {True}


@pytest.mark.parametrize("leaf", LEAVES)
def test_what_is_carried_over_is_paid_by_who_brought_it(leaf: str) -> None:
    old, fresh = full(leaf, 100), full(leaf, 20)
    for payer in (1, 2):
        old.payer = payer
        for number in range(25):
            assert old.intern(text(100 * payer + number))
    fresh.intern(text(210))
    codes = np.array([0, 11, 36, 36, 27, 12])
    assert fresh.carry(old, codes).tolist() == [0, 2, 1, 1, 3, 4]
    assert fresh.texts(np.array([2, 3, 4])) == old.texts(np.array([11, 27, 12]))
    assert [fresh.charged(payer) for payer in (0, 1, 2)] == [100, 200, 100]
    assert fresh.carry(old, np.arange(1, 26)).tolist()[-1] == 0  # no more than the table holds
    assert fresh.memory_bytes == 2000
    assert fresh.refused == 25 - 18
    with pytest.raises(IndexError):
        fresh.carry(old, np.array([51]))


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("bound", [0, -1, LARGEST_TABLE + 1])
def test_a_bound_that_codes_cannot_have(leaf: str, bound: int) -> None:
    with pytest.raises(ValueError, match="at most 17179869184"):
        new(leaf, bound)


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (b"short", 5, b"short"),
        (b"longer", 5, b"longe"),
        ("aé".encode(), 2, b"a"),
        ("日本".encode(), 5, "日".encode()),
        (b"\x80" * 9, 5, b""),
        (b'{"a":"1","b":"2"}', 16, b'{"a":"1"}'),
        (b'{"a":"1","b":"2"}', 8, b"{}"),
        (b'{"a":[1,2],"b":{}}', 17, b'{"a":[1,2]}'),
        (b'{"a":"1","b":"2"}', 1, b""),
        (b'{"a":"1","b":"2"x}', 12, b'{"a":"1","b"'),
        (b"{" * 99_999 + b"}", 4, b"{{{{"),
    ],
)
def test_shortened(value: bytes, limit: int, expected: bytes) -> None:
    assert shortened(value, limit) == expected


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
@given(st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([0, 1, 2, 40]))))
def test_compiled_and_reference_agree(brought: list[tuple[bytes, int]]) -> None:
    tables = [new(leaf, 2000) for leaf in LEAVES]
    codes: list[list[int]] = [[], []]
    for table, given_codes in zip(tables, codes, strict=True):
        for value, table.payer in brought:
            given_codes.append(table.intern(value))
    assert codes[0] == codes[1]
    known = [(code, value) for code, (value, _) in zip(codes[1], brought, strict=True) if code]
    assert [tables[1].value(code) for code, _ in known] == [value for _, value in known]
    first, second = (table.packed() for table in tables)
    assert first[0] == second[0]
    assert first[1].tolist() == second[1].tolist()
    assert tables[0].refused == tables[1].refused
    for payer in (0, 1, 2, 40):
        assert tables[0].charged(payer) == tables[1].charged(payer)
    fresh = [new(leaf, 1500) for leaf in LEAVES]
    carried = [
        one.carry(table, np.array(codes[0])) for one, table in zip(fresh, tables, strict=True)
    ]
    assert carried[0].tolist() == carried[1].tolist()
    assert fresh[0].memory_bytes == fresh[1].memory_bytes <= 1500
