"""The contract of the rates leaf: what it takes."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]

BITS_PER_OCTET_MS = 8000
"""Octets in a millisecond to bits in a second."""

LARGE_RATE, LARGE_INTERVAL = 1 << 40, 1 << 24
"""A terabit a second, four hours (ms): the product of less than these is of 64 bits."""


def check(*columns: Numbers | None) -> None:
    """Raise ValueError unless all columns that there are have 64-bit numbers of as many rows."""
    given = [column for column in columns if column is not None]
    shape = (len(given[0]),)
    for column in given:
        if column.dtype != np.uint64 or column.shape != shape:
            raise ValueError(f"{column.dtype}{column.shape}: need uint64{shape}")
