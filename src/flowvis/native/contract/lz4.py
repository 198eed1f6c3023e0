"""The contract of the LZ4 leaf: what it takes, and what of the format both leaves go by."""

from collections.abc import Sequence

Part = tuple[bytes | memoryview, int]
"""A column's bytes, side by side, and how wide a value of it is."""

MOST_WIDTH = 0xFFFF
"""How far back a match can be."""

MIN_MATCH = 4

TAIL = 12
"""Bytes at a block's end in which no match may begin. Each part has them, as it may be the last."""

WORD = 8
"""Bytes that are compared at a time."""


def check_parts(parts: Sequence[Part]) -> int:
    """Return how many bytes the parts have together; ValueError for a width that is none."""
    for _, width in parts:
        if not 1 <= width <= MOST_WIDTH:
            raise ValueError(f"values of {width} bytes: need 1 to {MOST_WIDTH}")
    return sum(len(data) for data, _ in parts)
