"""What goes over the network to ClickHouse: the pieces of a block, compressed.

LZ4's own compressor takes half of the CPU of an INSERT, and most of that for columns of wide
values, which differ from one row to the next in a few bytes. These have a leaf of their own.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import lz4.block

from flowvis.clickhouse.schema.native_block import FRAME_BYTES, frames
from flowvis.native import pack_columns

_WIDE = 8  # of narrower values too few bytes are the same


def lz4_blocks(pieces: Iterable[tuple[bytes | memoryview, int]]) -> Iterator[tuple[bytes, int]]:
    """Yield LZ4 blocks that are together the pieces of a `Block`, and how much is in each.

    None has more than 2 FRAME_BYTES.
    """
    for wide, group in groupby(pieces, lambda piece: piece[1] >= _WIDE):
        if wide:
            yield from _column_blocks(group)
            continue
        for frame in frames(piece for piece, _ in group):
            yield lz4.block.compress(frame, store_size=False), len(frame)


def _column_blocks(
    pieces: Iterable[tuple[bytes | memoryview, int]],
) -> Iterator[tuple[bytes, int]]:
    parts: list[tuple[memoryview, int]] = []
    size = 0
    for piece, width in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), FRAME_BYTES):
            part = view[start : start + FRAME_BYTES]
            parts.append((part, width))
            size += len(part)
            if size >= FRAME_BYTES:
                yield pack_columns(parts), size
                parts, size = [], 0
    if parts:
        yield pack_columns(parts), size
