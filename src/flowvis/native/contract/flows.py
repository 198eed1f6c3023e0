"""The contract of the flow leaf: what keys are."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CAPACITY = (1 << 31) - 1  # the compiled index refers to slots with 32 bits


def check_index(key_size: int, capacity: int) -> None:
    """Raise ValueError for sizes that an index cannot have."""
    if not 0 < key_size <= 256:
        raise ValueError(f"key_size {key_size}: 1 to 256 bytes")
    if not 0 < capacity <= MAX_CAPACITY:
        raise ValueError(f"capacity {capacity}: 1 to {MAX_CAPACITY} keys")


def check_keys(keys: NDArray[Any], key_size: int) -> None:
    """Raise ValueError unless `keys` is `(n, key_size)` uint8."""
    if keys.ndim != 2 or keys.shape[1] != key_size or keys.dtype != np.uint8:
        raise ValueError(f"keys {keys.dtype}{keys.shape}: need uint8 (n, {key_size})")


def check_columns(columns: tuple[NDArray[Any], ...]) -> None:
    """Raise ValueError unless there are columns and all have the same length."""
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise ValueError(f"{len(columns)} columns of lengths {sorted(lengths)}: need one length")


def width(column: NDArray[Any]) -> int:
    """Bytes of one row of a column."""
    return column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
