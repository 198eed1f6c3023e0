"""What other aggregators pass on: halves with both Pods filled in, and records of both nodes.

Which half one is cannot be told from its Pods: flowDirection tells it, egress of the source's node
and ingress of the destination's. A record is known as relayed by its original observation domain.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, is_unset
from flowvis.fields import FIELDS, FlowType, Merge, RuleAction, Side
from flowvis.ipfix.origin import AGGREGATED, DIRECTION, EGRESS, INGRESS, ORIGINAL_DOMAIN
from flowvis.native.contract.merge import Sides

STOPPED = (RuleAction.DROP, RuleAction.REJECT)
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


def mark_counted(batch: Batch, bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Set the `Half` bits of an aggregator's records between nodes, in place, by who counted.

    Where one node did, it is that node's half; but what a policy kept within the source's node has
    no other half. Where both did, it becomes the source's; those are returned, and are to be merged
    as the destination's as well.
    """
    if AGGREGATED not in batch:
        return np.empty(0, dtype=np.int64)
    between = (batch[AGGREGATED] != 0) & (batch["flowType"] == FlowType.INTER_NODE)
    at = np.flatnonzero(between & (bits == Sides.BOTH))
    kept = np.isin(batch["egressNetworkPolicyRuleAction"][at], STOPPED)
    source, destination = [
        np.asarray(batch[f"packetTotalCountFrom{side}Node"][at] != 0) for side in SIDES
    ]
    at, source, destination = (part[~kept | destination] for part in (at, source, destination))
    bits[at[source]] = Sides.CORRELATE | Sides.SOURCE
    bits[at[destination & ~source]] = Sides.CORRELATE | Sides.DESTINATION
    return np.asarray(at[source & destination])


def as_counted_by(side: str, batch: Batch, rows: NDArray[np.int64] | slice) -> Batch:
    """The batch with the counters of one node in place of the common ones, in these records."""
    columns = dict(batch.columns)
    for name in COUNTERS:
        columns[name] = columns[name].copy()
        columns[name][rows] = batch[f"{name}From{side}Node"][rows]
    return Batch(columns, batch.strings)
