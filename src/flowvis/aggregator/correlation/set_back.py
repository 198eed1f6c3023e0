"""Rows of what was told by a clock that was far ahead, and is right by now.

A record whose end is not after the last one of its side is late, and adds nothing. After one from
the year 2095 that would be all that is told of the connection as long as it lives: a node that
began without NTP, an agent that was given another time zone for a moment.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.layout import COUNTED, SIDES, last
from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.batch import Column
from flowvis.checkpoint import AHEAD_S
from flowvis.native.contract.merge import FlowState

AHEAD_MS = 1000 * AHEAD_S
_ENDS = ("flowEndMilliseconds", "flowEndSeconds", "intervalStart")
_NODES = ("Source", "Destination")


def follow_set_back(
    live: LiveRows,
    columns: Mapping[str, Column],
    slots: NDArray[np.int64],
    bits: NDArray[np.uint8],
    reversed_: NDArray[np.bool_],
    *,
    limit_ms: int,
) -> None:
    """Have rows end with records that go on after an end beyond the limit.

    These are not beyond it, and none of their totals is less than what their side reported last:
    what is late has less, and stays so. `reversed_` is which way round records are.
    """
    limit = np.uint64(limit_ms)
    ends = columns["flowEndMilliseconds"]
    at = np.flatnonzero((slots >= 0) & (ends <= limit))
    at = at[(live.rows["sideEnd"][slots[at]] > limit).any(axis=1)]
    state = live.state[slots[at]]
    alike = ((state & FlowState.REVERSED) != 0) == reversed_[at]
    at = at[alike & ((state & FlowState.LIVE) != 0)]
    for side, of in enumerate(SIDES):
        rows = at[(bits[at] >> side & 1) != 0]
        rows = rows[live.rows["sideEnd"][slots[rows], side] > limit]
        grown = np.zeros(len(rows), dtype=bool)
        less = np.zeros(len(rows), dtype=bool)
        for counter in COUNTED:
            before, total = live.rows[last(counter, of)][slots[rows]], columns[counter][rows]
            grown |= total > before
            less |= total < before
        rows = rows[grown & ~less]
        live.rows["sideEnd"][slots[rows], side] = ends[rows]
        _end_at(live, slots[rows], ends[rows], (*_ENDS, f"flowEndSecondsFrom{_NODES[side]}Node"))


def _end_at(
    live: LiveRows, slots: NDArray[np.int64], ends_ms: Column, names: Sequence[str]
) -> None:
    """Have rows end no later than at these times."""
    for name in names:
        ends = ends_ms // np.uint64(1000) if "Seconds" in name else ends_ms
        column = live.rows[name]
        column[slots] = np.minimum(column[slots], ends)
