"""Halves of a connection that their type did not show to be halves.

The inventory may learn of a Pod later than its first connections are reported: the node of the
other Pod then takes it for a host outside. Or there is no inventory at all. What both nodes report
meets under one key all the same, and the endpoints that they name tell the sides: a record that
names one endpoint comes from that endpoint's node.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.aggregator.enrichment.endpoints import by_ranges
from flowvis.batch import Batch, Column
from flowvis.fields import FIELDS, Merge, Side
from flowvis.native.contract.merge import FlowState, Sides

_SIDES = ((Sides.SOURCE, Side.SOURCE), (Sides.DESTINATION, Side.DESTINATION))
_OF_SIDE = {
    half: [f.name for f in FIELDS if f.side is side and f.merge is not Merge.ADDED]
    for half, side in _SIDES
}
_NAMES = [f"{side.value}{what}Name" for _, side in _SIDES for what in ("Pod", "Node")]


class Unforeseen:
    """Finds in live flows the halves that were not known to be halves."""

    def __init__(self, live: LiveRows) -> None:
        self._live = live
        # What records of each slot were: halves, or whole ones that name one endpoint. Only a slot
        # that had both kinds, or both endpoints, is looked at; it may be another flow's by now.
        self._had = np.zeros(len(live.state), dtype=np.uint8)

    def recognise(self, batch: Batch, bits: NDArray[np.uint8], slots: NDArray[np.int64]) -> None:
        """Narrow records' `Half` bits, in place, to the sides that they turn out to be.

        A flow that waits for its other half has it in a record of the other endpoint's node,
        whatever type that record has. A flow that was thought whole, and names one endpoint, is
        the half of that endpoint when a record comes that names the other one.
        """
        whole = (bits & Sides.CORRELATE) == 0
        # Who reports a connection of the other types knows both endpoints.
        single = np.flatnonzero(whole & by_ranges(batch["flowType"]))
        named = _named(batch.columns, single)
        one = _is_one(named) & (slots[single] >= 0)
        single, named = single[one], named[one]
        halves = np.flatnonzero(~whole & (slots >= 0))
        had, at = self._had, slots[halves]
        known = halves[(had[at] & Sides.BOTH) != 0]
        had[at] |= Sides.CORRELATE
        at = slots[single]
        other = (had[at] & ~named) != 0
        had[at] |= named
        rows = np.concatenate([known, single[other]])
        if len(rows):
            self._look(batch, bits, slots, rows)

    def _look(
        self,
        batch: Batch,
        bits: NDArray[np.uint8],
        slots: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> None:
        at, half = slots[rows], _named(batch.columns, rows)
        whole = (bits[rows] & Sides.CORRELATE) == 0
        self._had[at] = np.where(whole, half, Sides.CORRELATE)
        state = self._live.state[at]
        live, waiting = (state & FlowState.LIVE) != 0, (state & FlowState.CORRELATE) != 0
        held = _named({name: self._live.rows[name] for name in _NAMES}, at)
        turned = live & ~waiting & _is_one(half) & (held == (Sides.BOTH ^ half))
        for side, _ in _SIDES:
            self._turn(np.unique(at[turned & (half == side)]), side)
        self._had[at[turned | waiting]] = Sides.CORRELATE
        found = turned | (live & waiting & whole)
        late = rows[found]
        bits[late] = bits[late] & Sides.CLIENT | Sides.CORRELATE | half[found]

    def _turn(self, slots: NDArray[np.int64], side: int) -> None:
        """Let flows wait for this side: what they have of it was reported by the other one."""
        state = self._live.state
        state[slots] &= ~np.uint64((1 << FlowState.SIDES | 1 << FlowState.ENDS) * side)
        state[slots] |= np.uint64(FlowState.CORRELATE)
        for name in _OF_SIDE[side]:
            self._live.rows[name][slots] = 0


def _named(columns: Mapping[str, Column], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the endpoints that records name, as `Half` bits."""
    named = np.zeros(len(rows), dtype=np.uint8)
    for half, side in _SIDES:
        pods, nodes = (columns[f"{side.value}{what}Name"][rows] for what in ("Pod", "Node"))
        named[(pods | nodes) != 0] |= half
    return named


def _is_one(named: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((named == Sides.SOURCE) | (named == Sides.DESTINATION))
