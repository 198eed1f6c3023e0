"""Netlink attributes of many messages at once: each step takes one attribute of every message."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

MAX_ATTRIBUTES = 32  # of one message; the packet log has 21 kinds

_KIND_MASK = 0x3FFF  # NLA_TYPE_MASK of linux/netlink.h

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

Places = tuple[dict[int, Ints], dict[int, Ints]]
"""By kind: where the values are, and their sizes; size 0 is none."""


def attributes(raw: Bytes, starts: Ints, ends: Ints, wanted: Sequence[int]) -> Places:
    """Find the wanted attributes between each start, a multiple of 4, and its end.

    What comes after an attribute that does not fit is not looked at.
    """
    halves = np.frombuffer(raw.data[: len(raw) & ~1], dtype=np.uint16)
    at = {kind: np.zeros(len(starts), dtype=np.int64) for kind in wanted}
    size = {kind: np.zeros(len(starts), dtype=np.int64) for kind in wanted}
    rows = np.arange(len(starts))
    here = starts
    for _ in range(MAX_ATTRIBUTES):
        inside = here + 4 <= ends
        if not inside.all():
            rows, here, ends = rows[inside], here[inside], ends[inside]
        if not len(rows):
            break
        lengths = halves[here >> 1].astype(np.int64)
        kinds = halves[(here >> 1) + 1] & _KIND_MASK
        fits = (lengths >= 4) & (here + lengths <= ends)
        for kind in wanted:
            which = fits & (kinds == kind)
            at[kind][rows[which]] = here[which] + 4
            size[kind][rows[which]] = lengths[which] - 4
        here = np.where(fits, here + ((lengths + 3) & ~3), ends)
    return at, size


def gather(raw: Bytes, at: Ints, sizes: Ints, width: int) -> Bytes:
    """Return pieces of the bytes as rows of `width`, zero beyond their sizes."""
    used = int(sizes.max(initial=0))
    pieces = np.zeros((len(at), width), dtype=np.uint8)
    if not used:
        return pieces
    if int(at.max()) + used > len(raw):
        raw = np.concatenate([raw, np.zeros(used, dtype=np.uint8)])
    windows = as_strided(raw, (len(raw) - used + 1, used), (1, 1), writeable=False)
    pieces[:, :used] = windows[at]
    short = np.flatnonzero(sizes < used)
    if len(short):
        beyond = np.arange(used) >= sizes[short][:, None]
        pieces[short, :used] = np.where(beyond, np.uint8(0), pieces[short, :used])
    return pieces


def number(raw: Bytes, at: Ints, sizes: Ints, width: int) -> Ints:
    """Return numbers in network order; -1 where there is none of that width."""
    there = sizes >= width
    pieces = gather(raw, np.where(there, at, 0), np.where(there, width, 0), width)
    values = pieces.view(f">u{width}")[:, 0].astype(np.int64)
    return np.where(there, values, -1)
