"""Correlation keys and bits of `Sides` of records that go in the other way than they came.

What a record is the halves leaf decides; its reference in plain Python has the rules.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.halves import GENERATION, WAY
from flowvis.native.contract.merge import Sides

_OPPOSITES = (
    (Sides.SOURCE, Sides.DESTINATION),
    (Sides.CLIENT, Sides.SERVER),
    (Sides.SOURCE << Sides.LEANS, Sides.DESTINATION << Sides.LEANS),
)


def reversed_sides(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bits of the same records with client and server exchanged."""
    turned = bits & (Sides.CORRELATE | Sides.AGAIN)
    for one, other in _OPPOSITES:
        turned |= np.where(bits & one, other, 0).astype(np.uint8)
        turned |= np.where(bits & other, one, 0).astype(np.uint8)
    return np.asarray(turned)


def second_way(keys: NDArray[np.uint8], turned: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the keys of records that are the second direction; `turned` as the leaf gives it."""
    other = keys.copy()
    other[:, -GENERATION - WAY] = 1 + turned
    return other
