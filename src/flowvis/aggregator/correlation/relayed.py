"""Halves that an aggregator in Proxy mode passes on, each with both Pods filled in.

Which half one is cannot be told from its Pods: flowDirection tells it, egress of the source's node
and ingress of the destination's. A record is known as relayed by its original observation domain.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, is_unset
from flowvis.fields import FlowType
from flowvis.ipfix.origin import DIRECTION, EGRESS, INGRESS, ORIGINAL_DOMAIN
from flowvis.native.contract.merge import Sides


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
