"""Native blocks, byte by byte and as the engines read them."""

import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.clickhouse.schema.lz4_blocks import lz4_blocks
from flowvis.clickhouse.schema.native_block import (
    FRAME_BYTES,
    Block,
    Codes,
    Constant,
    Numbers,
    Texts,
    frames,
    number_blocks,
    varint,
)
from flowvis.native import StringTable


def test_a_block_byte_by_byte() -> None:
    strings = StringTable()
    codes = strings.encode(["b", "a", "b"])
    block = Block(
        [
            Numbers("n", "UInt16", np.array([1, 2, 0xFFFF], np.uint16)),
            Codes("s", codes),
            Constant("c", b"xy", 3),
        ],
        3,
        strings,
    )
    low_cardinality = b"\x16LowCardinality(String)"
    header = (1).to_bytes(8, "little") + (0x600).to_bytes(8, "little")
    expected = [
        b"\x03\x03",  # columns, rows
        b"\x01n\x06UInt16" + b"\x01\0\x02\0\xff\xff",
        b"\x01s" + low_cardinality + header + (2).to_bytes(8, "little") + b"\x01b\x01a",
        (3).to_bytes(8, "little") + b"\x00\x01\x00",
        b"\x01c" + low_cardinality + header + (1).to_bytes(8, "little") + b"\x02xy",
        (3).to_bytes(8, "little") + b"\0\0\0",
    ]
    assert b"".join(block.parts()) == b"".join(expected)
    flagged = b"".join(block.parts(custom_serialization=True))
    assert len(flagged) == len(b"".join(expected)) + 3
    assert b"UInt16\0" + b"\x01\0\x02\0" in flagged


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02"), (65535, b"\xff\xff\x03")],
)
def test_varint(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


@pytest.mark.parametrize(
    ("distinct", "width"), [(1, 1), (256, 1), (257, 2), (65536, 2), (65537, 4)]
)
def test_places_take_the_fewest_bytes(distinct: int, width: int) -> None:
    strings = StringTable()
    codes = strings.encode([f"{n}" for n in range(distinct)])
    data = b"".join(Codes("s", codes).data(Texts(strings)))
    flags = int.from_bytes(data[8:16], "little")
    assert {0x600: 1, 0x601: 2, 0x602: 4}[flags] == width
    assert int.from_bytes(data[16:24], "little") == distinct
    assert data.endswith((distinct - 1).to_bytes(width, "little"))


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=200),
    st.integers(0, 3000),
)
def test_a_dictionary_gives_back_every_code(values: list[int], unused: int) -> None:
    """One column after the other, on the same scratch memory."""
    strings = StringTable()
    codes = strings.encode([f"value {value}" for value in values])
    strings.encode([f"unused {n}" for n in range(unused)])
    texts = Texts(strings)
    for column in (codes, codes[::-1].copy(), codes):
        used, places = texts.dictionary(column)
        assert np.array_equal(used[places], column)
        assert len(set(used.tolist())) == len(used)


def test_strided_columns() -> None:
    table = np.arange(12, dtype=np.uint32).reshape(4, 3)
    data = b"".join(Numbers("n", "UInt32", table[:, 1]).data(Texts(StringTable())))
    assert np.frombuffer(data, np.uint32).tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize("sizes", [[0], [5], [FRAME_BYTES], [3, FRAME_BYTES * 2 + 7, 1], [1] * 50])
def test_frames(sizes: list[int]) -> None:
    parts = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    found = list(frames(parts))
    assert b"".join(found) == b"".join(parts)
    assert all(len(frame) == FRAME_BYTES for frame in found[:-1])


def test_what_goes_over_the_network_is_the_block() -> None:
    """Columns of all widths, short ones between those that are more than a frame."""
    rows = FRAME_BYTES // 16 + 5
    strings = StringTable()
    wide = np.arange(rows * 16, dtype=np.uint8).reshape(rows, 16)
    columns: list[Numbers | Codes] = [
        Numbers("a", "UInt64", np.arange(rows, dtype=np.uint64) ** np.uint64(3)),
        Codes("b", (np.arange(rows) % 2).astype(np.uint32) * np.uint32(strings.intern(b"x"))),
        Numbers("c", "FixedString(16)", wide),
        Numbers("d", "UInt64", np.zeros(rows, np.uint64)),
        Numbers("e", "UInt16", np.arange(rows).astype(np.uint16)),
    ]
    block = Block(columns, rows, strings)
    found = [
        lz4.block.decompress(packed, uncompressed_size=size)
        for packed, size in lz4_blocks(block.pieces(custom_serialization=True))
    ]
    assert b"".join(found) == b"".join(block.parts(custom_serialization=True))
    assert all(0 < len(part) < 2 * FRAME_BYTES for part in found)
    assert sum(len(part) for part in found) > 2 * FRAME_BYTES


def test_what_comes_in_several_blocks_is_read_block_by_block() -> None:
    strings, data = StringTable(), b""
    for first, rows in ((0, 3), (3, 1), (4, 300)):
        numbers = np.arange(first, first + rows, dtype=np.uint32)
        wide = np.repeat(numbers.astype(np.uint8), 16).reshape(rows, 16)
        columns = [Numbers("n", "UInt32", numbers), Numbers("w", "FixedString(16)", wide)]
        data += b"".join(Block(columns, rows, strings).parts())
    blocks = list(number_blocks(data))
    assert [len(block[0]) for block in blocks] == [3, 1, 300]
    assert np.concatenate([block[0] for block in blocks]).tolist() == list(range(304))
    assert (blocks[2][1] == blocks[2][0].astype(np.uint8)[:, None]).all()
    assert not list(number_blocks(b""))
