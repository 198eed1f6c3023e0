"""What other aggregators pass on: halves with both Pods filled in, and records of both nodes.

Which half one is cannot be told from its Pods: flowDirection tells it, egress of the source's node
and ingress of the destination's. A record is known as relayed by its original observation domain.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, is_unset
from flowvis.fields import FIELDS, FlowType, Merge, Side
from flowvis.ipfix.origin import AGGREGATED, DIRECTION, EGRESS, INGRESS, ORIGINAL_DOMAIN
from flowvis.native.contract.merge import Sides

SIDES = ("Source", "Destination")
COUNTERS = tuple(
    field.name
    for field in FIELDS
    if field.merge in {Merge.TOTAL, Merge.DELTA} and field.side is Side.COMMON
)


def mark_relayed(batch: Batch, stopped: NDArray[np.bool_], bits: NDArray[np.uint8]) -> None:
    """Set the `Half` bits of relayed records between nodes, in place.

    `stopped` are those that never left the source's node: there is no other half of them.
    """
    if ORIGINAL_DOMAIN not in batch:
        return
    between = (batch[ORIGINAL_DOMAIN] != 0) & (batch["flowType"] == FlowType.INTER_NODE)
    between &= ~stopped
    source = between & (batch[DIRECTION] == EGRESS)
    bits[source] = Sides.CORRELATE | Sides.SOURCE
    bits[between & (batch[DIRECTION] == INGRESS)] = Sides.CORRELATE | Sides.DESTINATION
    at = np.flatnonzero(source & (batch["proxySnatPort"] != 0))
    bits[at[~is_unset(batch["proxySnatIP"][at])]] |= Sides.CLIENT


def counted_by_both(batch: Batch) -> NDArray[np.int64]:
    """The records between nodes that have the counters of each: from an Aggregate mode."""
    if AGGREGATED not in batch:
        return np.empty(0, dtype=np.int64)
    both = (batch[AGGREGATED] != 0) & (batch["flowType"] == FlowType.INTER_NODE)
    at = np.flatnonzero(both)
    for side in SIDES:
        at = at[batch[f"octetTotalCountFrom{side}Node"][at] != 0]
    return at


def as_counted_by(side: str, batch: Batch, rows: NDArray[np.int64] | slice) -> Batch:
    """The batch with the counters of one node in place of the common ones, in these records."""
    columns = dict(batch.columns)
    for name in COUNTERS:
        columns[name] = columns[name].copy()
        columns[name][rows] = batch[f"{name}From{side}Node"][rows]
    return Batch(columns, batch.strings)
