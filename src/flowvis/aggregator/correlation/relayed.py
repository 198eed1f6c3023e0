"""What other aggregators pass on: halves with both Pods filled in, and records of both nodes.

Which half one is cannot be told from its Pods: flowDirection tells it, egress of the source's node
and ingress of the destination's. A record is known as relayed by its original observation domain.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.exporters import Exporters
from flowvis.batch import Batch
from flowvis.fields import FIELDS, FlowType, Merge, RuleAction, Side
from flowvis.ipfix.buffer import DOMAIN
from flowvis.ipfix.origin import (
    AGGREGATED,
    ORIGINAL_DOMAIN,
    ORIGINAL_EXPORTER,
)
from flowvis.native.contract.merge import Sides

STOPPED = (RuleAction.DROP, RuleAction.REJECT)
SIDES = ("Source", "Destination")
COUNTERS = tuple(
    field.name
    for field in FIELDS
    if field.merge in {Merge.TOTAL, Merge.DELTA} and field.side is Side.COMMON
)
"""What counts a connection: totals and deltas, of both directions."""


def number_originals(batch: Batch, exporters: Exporters) -> None:
    """Let relayed records be of the exporters that made them, in place, not of who relays them."""
    rows = np.flatnonzero(batch[ORIGINAL_DOMAIN])
    if not len(rows):
        return
    numbers = np.stack([batch[DOMAIN][rows], batch[ORIGINAL_DOMAIN][rows]], axis=1)
    whole = np.concatenate([numbers.view(np.uint8), batch[ORIGINAL_EXPORTER][rows]], axis=1)
    _, first, places = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    addresses = batch[ORIGINAL_EXPORTER][rows[first]]
    given = [
        exporters.original(relay, address.tobytes(), domain)
        for (relay, domain), address in zip(numbers[first].tolist(), addresses, strict=True)
    ]
    batch[DOMAIN][rows] = np.array(given, dtype=np.uint32)[places.reshape(-1)]


def by_node(batch: Batch, bits: NDArray[np.uint8]) -> tuple[Batch, NDArray[np.uint8]]:
    """Return records and their `Half` bits with those of an aggregator as the nodes' halves.

    A record between nodes that both counted is two, one after the other: what the source's node
    counted, and, `AGAIN`, what the destination's did. Where one node did, it is that node's half;
    but what a policy kept within the source's node has no other half.
    """
    if AGGREGATED not in batch:
        return batch, bits
    at = np.flatnonzero(batch[AGGREGATED])
    at = at[batch["flowType"][at] == FlowType.INTER_NODE]
    at = at[bits[at] & (Sides.BOTH | Sides.CORRELATE) == Sides.BOTH]
    if not len(at):
        return batch, bits
    kept = np.isin(batch["egressNetworkPolicyRuleAction"][at], STOPPED)
    source, destination = [
        np.asarray(batch[f"packetTotalCountFrom{side}Node"][at] != 0) for side in SIDES
    ]
    at, source, destination = (part[~kept | destination] for part in (at, source, destination))
    bits[at[source]] = Sides.CORRELATE | Sides.SOURCE
    bits[at[destination & ~source]] = Sides.CORRELATE | Sides.DESTINATION
    return _twice(batch, bits, at[source & destination])


def _twice(
    batch: Batch, bits: NDArray[np.uint8], both: NDArray[np.int64]
) -> tuple[Batch, NDArray[np.uint8]]:
    """The records with `both` twice, with the counters of one node each in place of the common."""
    if not len(both):
        return batch, bits
    times = np.ones(len(batch), dtype=np.int64)
    times[both] = 2
    rows = np.repeat(np.arange(len(batch)), times)
    first = both + np.arange(len(both))
    doubled, bits = batch.take(rows), bits[rows]
    for name in COUNTERS:
        for side, at in zip(SIDES, (first, first + 1), strict=True):
            doubled[name][at] = batch[f"{name}From{side}Node"][both]
    bits[first + 1] = Sides.CORRELATE | Sides.DESTINATION | Sides.AGAIN
    return doubled, bits
