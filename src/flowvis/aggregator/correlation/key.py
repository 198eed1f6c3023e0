"""Correlation keys: of the connections of one tuple, and of records that go in the other way.

What a record is the halves leaf decides; its reference in plain Python has the rules.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.native.contract.halves import GENERATION, WAY
from flowvis.native.contract.merge import Sides

PREVIOUS = 1  # generation of the connection before the current one, which is 0
OLDEST = 31  # the last of those that are kept; orphans have later ones

_EARLIER = np.arange(PREVIOUS, OLDEST + 1, dtype=np.uint32)

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


def generation(keys: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """The key, or the keys, of other connections of the same tuples; 0 is the current one."""
    others = keys.copy()
    others[..., -GENERATION:] = np.frombuffer(np.uint32(number).tobytes(), dtype=np.uint8)
    return others


def earlier(keys: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The keys `(n, OLDEST, KEY_SIZE)` of all connections before the current ones."""
    others = np.repeat(keys[:, None], OLDEST, axis=1)
    others[..., -GENERATION:] = _EARLIER.view(np.uint8).reshape(OLDEST, GENERATION)
    return others


def is_current(keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which keys are those of the current connections of their tuples."""
    return np.asarray(~keys[..., -GENERATION:].any(axis=-1))
