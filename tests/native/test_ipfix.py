"""The IPFIX leaf itself: what it refuses, and that both forms run any program alike."""

from struct import pack
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowvis.native import ipfix as compiled
from flowvis.native import strings as compiled_strings
from flowvis.native.contract.ipfix import VARIABLE, DecodeOp, Program, Stop
from flowvis.native.reference import ipfix as reference
from flowvis.native.reference import strings as reference_strings

TABLES = {reference: reference_strings.StringTable, compiled: compiled_strings.StringTable}


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def program(*steps: tuple[int, int, int]) -> Program:
    return np.array(steps, dtype=np.uint32).reshape(-1, 3)


def columns(rows: int = 4) -> list[NDArray[Any]]:
    """Columns 0 to 3: of 1, 2, 4 and 8 bytes; 4: text; 5: addresses."""
    kinds = (np.uint8, np.uint16, np.uint32, np.uint64, np.uint32)
    return [*(np.zeros(rows, kind) for kind in kinds), np.zeros((rows, 16), np.uint8)]


def target_of(leaf: ModuleType, arrays: list[NDArray[Any]]) -> Any:
    return leaf.RecordTarget(arrays, TABLES[leaf]())


def message(*bodies: bytes, templates: int = 1) -> bytes:
    """Sets of bodies, whose templates take turns."""
    sets = b"".join(
        pack(">HH", 256 + at % templates, 4 + len(body)) + body for at, body in enumerate(bodies)
    )
    return pack(">HHIII", 10, 16 + len(sets), 0, 0, 1) + sets


def test_the_compiled_leaf_is_compiled() -> None:
    assert (compiled.__file__ or "").endswith(".so")


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        (program(), "records of no bytes"),
        (program((DecodeOp.CONSTANT, 1, 0), (DecodeOp.SKIP, 0, 0)), "records of no bytes"),
        (program((DecodeOp.UNSIGNED, 0, 0)), "unknown"),
        (program((DecodeOp.UNSIGNED, 9, 3)), "unknown"),
        (program((99, 1, 0)), "unknown"),
        (program((DecodeOp.SKIP, 65536, 0)), "at most 65535"),
        (np.zeros((2, 2), np.uint32), "need uint32"),
        (np.zeros((2, 3), np.int64), "need uint32"),
    ],
)
def test_programs_that_are_none(leaf: ModuleType, steps: Program, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        leaf.RecordDecoder(65535, 100).learn(1, 256, steps)
    with pytest.raises(ValueError, match=what):
        leaf.RecordEncoder(1, 256, steps)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ((DecodeOp.UNSIGNED, 2, 0), ValueError),  # two bytes into one
        ((DecodeOp.UNSIGNED, 8, 5), ValueError),
        ((DecodeOp.TEXT, VARIABLE, 3), ValueError),
        ((DecodeOp.ADDRESS4, 0, 3), ValueError),
        ((DecodeOp.SET_ADDRESS6, 0, 4), ValueError),
        ((DecodeOp.MILLISECONDS, 5, 3), ValueError),
        ((DecodeOp.SECONDS, 3, 5), ValueError),
        ((DecodeOp.UNSIGNED, 1, 6), IndexError),
        ((DecodeOp.CONSTANT, 0, 2**31), IndexError),
        ((DecodeOp.MILLISECONDS, 6, 3), IndexError),
    ],
)
def test_steps_that_do_not_suit_their_columns(
    leaf: ModuleType, step: tuple[int, int, int], error: type[Exception]
) -> None:
    decoder = leaf.RecordDecoder(65535, 100)
    decoder.learn(1, 256, program((DecodeOp.SKIP, 1, 0), step))
    with pytest.raises(error):
        decoder.run(message(b"\0" * 40), target_of(leaf, columns()))


def test_targets(leaf: ModuleType) -> None:
    for arrays in ([], [np.zeros(0, np.uint8)], [np.zeros(2, np.uint8), np.zeros(3, np.uint8)]):
        with pytest.raises(ValueError, match="columns"):
            target_of(leaf, arrays)
    with pytest.raises(ValueError, match="contiguous"):
        target_of(leaf, [np.zeros(8, np.uint8)[::2]])
    with pytest.raises(ValueError, match="writeable"):  # such as the memory of a bytes object
        target_of(leaf, [np.frombuffer(bytes(8), np.uint8)])
    decoder = leaf.RecordDecoder(65535, 100)
    decoder.learn(1, 256, program((DecodeOp.UNSIGNED, 4, 0)))
    with pytest.raises(ValueError, match="float32"):
        decoder.run(message(b"\0" * 4), target_of(leaf, [np.zeros(4, np.float32)]))
    with pytest.raises(ValueError, match="need unsigned numbers"):  # the other byte order
        decoder.run(
            message(b"\0" * 4), target_of(leaf, [np.zeros(4, np.dtype(np.uint32).newbyteorder())])
        )


def test_a_full_target_waits_for_a_larger_one(leaf: ModuleType) -> None:
    decoder = leaf.RecordDecoder(65535, 100)
    decoder.learn(1, 256, program((DecodeOp.UNSIGNED, 1, 0)))
    data = message(b"\1\2\3", b"\4\5")
    small, large = (target_of(leaf, [np.zeros(n, np.uint8)]) for n in (2, 4))
    assert decoder.run(data, small) is Stop.FULL
    assert decoder.run(data, small) is Stop.FULL
    assert decoder.run(data, large) is Stop.END
    assert (small.rows, small.columns[0].tolist()) == (2, [1, 2])
    assert (large.rows, large.columns[0].tolist()) == (3, [3, 4, 5, 0])
    assert decoder.rewind() == len(data)
    assert decoder.records == 5


def test_forgotten_programs_do_not_run(leaf: ModuleType) -> None:
    decoder, target = leaf.RecordDecoder(65535, 100), target_of(leaf, columns())
    decoder.learn(1, 256, program((DecodeOp.UNSIGNED, 1, 0)))
    assert decoder.run(message(b"\1"), target) is Stop.END
    decoder.rewind()
    decoder.forget(1, 256)
    with pytest.raises(KeyError):
        decoder.forget(1, 256)
    assert decoder.run(message(b"\1"), target) is Stop.GAP
    assert decoder.run(message(b"\1"), target) is Stop.SET
    assert target.rows == 1


def test_the_compiled_leaf_takes_its_own_string_table_only() -> None:
    with pytest.raises(TypeError, match="StringTable"):
        compiled.RecordTarget(columns(), reference_strings.StringTable())


def test_codes_are_remembered_for_one_table_only(leaf: ModuleType) -> None:
    """Sessions may go back and forth between targets, each with a table of its own."""
    decoder = leaf.RecordDecoder(65535, 100)
    decoder.learn(1, 256, program((DecodeOp.TEXT, VARIABLE, 4)))
    decoder.learn(1, 257, program((DecodeOp.TEXT, VARIABLE, 4)))
    first, second = (target_of(leaf, columns(50)) for _ in range(2))
    names = [b"pod-1", b"pod-2", b"a-longer-name", b"x"]
    for target, template, count in ((first, 256, 1), (second, 257, 4), (first, 256, 4)) * 2:
        body = b"".join(bytes([len(name)]) + name for name in names[:count])
        raw = message(body)
        raw = raw[:16] + pack(">H", template) + raw[18:]
        while decoder.run(raw, target) is not Stop.END:  # the sequence number goes back
            pass
        decoder.rewind()
    for target, expected in ((first, 10), (second, 8)):
        texts = target.strings.texts(target.columns[4][: target.rows])
        assert len(texts) == expected
        assert set(texts) == {name.decode() for name in names}


def encode(leaf: ModuleType, arrays: list[NDArray[Any]], rows: list[int], **options: int) -> Any:
    encoder = leaf.RecordEncoder(
        1, 256, program((DecodeOp.UNSIGNED, 8, 3), (DecodeOp.ADDRESS6, 0, 5))
    )
    header = {"export_time": 0, "sequence": 0, "max_message": 65535} | options
    return encoder.encode(arrays, TABLES[leaf](), np.array(rows, np.int64), **header)


def test_what_cannot_be_encoded(leaf: ModuleType) -> None:
    for rows in ([-1], [4], [0, 9]):
        with pytest.raises(ValueError, match="rows"):
            encode(leaf, columns(), rows)
    for size in (20, 65536):
        with pytest.raises(ValueError, match="21 to 65535"):
            encode(leaf, columns(), [0], max_message=size)
    arrays = columns()
    with pytest.raises(IndexError):
        encode(leaf, arrays[:5], [0])
    with pytest.raises(ValueError, match="ADDRESS6"):
        encode(leaf, [*arrays[:5], arrays[3]], [0])
    with pytest.raises(ValueError, match="UNSIGNED"):
        encode(leaf, [*arrays[:3], arrays[5], arrays[4], arrays[5]], [0])
    with pytest.raises(ValueError, match="side by side"):
        encode(leaf, [*arrays[:5], np.zeros((4, 32), np.uint8)[:, ::2]], [0])
    with pytest.raises(ValueError, match="float64"):
        encode(leaf, [*arrays[:3], np.zeros(4), arrays[4], arrays[5]], [0])
    for op in (DecodeOp.SKIP, DecodeOp.CONSTANT, DecodeOp.SET_ADDRESS4, DecodeOp.MILLISECONDS):
        with pytest.raises(ValueError, match="cannot be encoded"):
            leaf.RecordEncoder(1, 256, program((DecodeOp.UNSIGNED, 1, 0), (op, 1, 0)))
    # A text is written with its length, for which a fixed one leaves no room.
    with pytest.raises(ValueError, match="cannot be encoded"):
        leaf.RecordEncoder(1, 256, program((DecodeOp.UNSIGNED, 1, 0), (DecodeOp.TEXT, 0, 4)))


def test_numbers_in_fewer_bytes(leaf: ModuleType) -> None:
    arrays = columns(1)
    arrays[2][0] = 0x01020304
    encoder = leaf.RecordEncoder(
        1, 256, program((DecodeOp.UNSIGNED, 3, 2), (DecodeOp.UNSIGNED, 8, 2))
    )
    header = {"export_time": 9, "sequence": 5, "max_message": 100}
    (raw,), written = encoder.encode(arrays, TABLES[leaf](), np.array([0]), **header)
    assert written == 1
    assert raw == pack(">HHIII", 10, 31, 9, 5, 1) + pack(">HH", 256, 15) + bytes.fromhex(
        "020304 0000000001020304"
    )


WIDTHS = {0: 1, 1: 2, 2: 4, 3: 8}
CONSTANTS = st.one_of(
    st.tuples(st.just(DecodeOp.CONSTANT), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5])),
    st.sampled_from([(DecodeOp.CONSTANT, 0, 4), (DecodeOp.CONSTANT, 0, 5)]),
)
LENGTH = st.one_of(st.integers(0, 6), st.just(VARIABLE))
STEPS = st.one_of(
    st.sampled_from(sorted(WIDTHS)).flatmap(
        lambda column: st.tuples(
            st.just(DecodeOp.UNSIGNED), st.integers(1, WIDTHS[column]), st.just(column)
        )
    ),
    st.tuples(st.just(DecodeOp.TEXT), LENGTH, st.just(4)),
    st.tuples(st.just(DecodeOp.SKIP), LENGTH, st.just(0)),
    st.tuples(st.sampled_from([DecodeOp.ADDRESS4, DecodeOp.ADDRESS6]), st.just(0), st.just(5)),
    st.tuples(
        st.sampled_from([DecodeOp.SET_ADDRESS4, DecodeOp.SET_ADDRESS6]), st.just(0), st.just(5)
    ),
    CONSTANTS,
    st.just((DecodeOp.MILLISECONDS, 1, 3)),
    st.just((DecodeOp.SECONDS, 3, 3)),
    st.tuples(
        st.sampled_from([DecodeOp.COPY, DecodeOp.ADD, DecodeOp.SUBTRACT]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
)
PROGRAMS = st.tuples(st.lists(CONSTANTS, max_size=4), st.lists(STEPS, max_size=7)).map(
    lambda parts: [*parts[0], (DecodeOp.UNSIGNED, 1, 0), *parts[1]]
)
CLEARED = [(DecodeOp.CONSTANT, 0, column) for column in range(6)]
COMPLETE = PROGRAMS.map(lambda steps: [*CLEARED, *steps])
"""Those that give each column a value: what a bad record has written is then not seen."""
BODIES = st.lists(
    st.lists(st.sampled_from([b"\0", b"\1", b"\2a", b"\xff", b"\0\4", b"pod"])).map(b"".join),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(
    programs=st.one_of(st.tuples(PROGRAMS), st.tuples(COMPLETE, COMPLETE)),
    bodies=BODIES,
    fill=st.sampled_from([0, 0xEE]),
    room=st.sampled_from([1, 3, 200]),
)
def test_any_programs_run_alike(
    programs: tuple[list[tuple[int, int, int]], ...], bodies: list[bytes], fill: int, room: int
) -> None:
    """Templates in turn, into targets that may be full at any record."""
    outcomes = []
    for leaf in (reference, compiled):
        decoder = leaf.RecordDecoder(65535, 3)
        targets: list[Any] = []
        for at, steps in enumerate(programs):
            decoder.learn(1, 256 + at, program(*steps))
        data = message(*bodies, templates=len(programs))
        stops: list[tuple[Any, ...]] = []
        while not stops or stops[-1][0] is not Stop.END:
            if not targets or stops[-1][0] is Stop.FULL:
                targets.append(target_of(leaf, columns(room)))
                for column in targets[-1].columns:
                    column.view(np.uint8).fill(fill)
            stop = decoder.run(data, targets[-1])
            stops.append((stop, decoder.place, decoder.set_id, decoder.set_end))
        texts = [t.strings.texts(t.columns[4][: t.rows]) for t in targets if fill == 0]
        arrays = [[column[: t.rows].tolist() for column in t.columns] for t in targets]
        counts = (decoder.records, decoder.ignored, decoder.truncated, decoder.rewind())
        outcomes.append((stops, texts, arrays, counts))
    assert outcomes[0] == outcomes[1]


def test_texts_of_any_length_are_written_whole(leaf: ModuleType) -> None:
    """And nothing beside them: the next one begins where they end."""
    lengths = [*range(1, 70), 253, 254, 255, 256, 1000]
    texts = [bytes(1 + (at + length) % 255 for at in range(length)) for length in lengths]
    strings = TABLES[leaf]()
    codes = np.array([strings.intern(text) for text in texts], np.uint32)
    encoder = leaf.RecordEncoder(1, 256, program((DecodeOp.TEXT, VARIABLE, 0)))
    rows = np.arange(len(codes))
    (message,), written = encoder.encode(
        [codes], strings, rows, export_time=0, sequence=0, max_message=65535
    )
    assert written == len(texts)
    prefixes = [
        bytes([length]) if length < 255 else b"\xff" + length.to_bytes(2) for length in lengths
    ]
    assert message[20:] == b"".join(a + b for a, b in zip(prefixes, texts, strict=True))
