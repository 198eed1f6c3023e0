"""What a record is: one node's half of a connection, or all that there is to know about it.

The rules are those of Antrea's aggregator. A connection between nodes is seen by both; so is one
from outside that enters the cluster at another node than the Pod's, which the Pod's node sees as
coming from the first node (the proxy's SNAT); and so is what a Pod's own node masquerades on its
way to another Pod. What a policy stopped before it left the first node is seen by one node only.

One rule is not Antrea's: what the destination's node rejects waits for its other half, as what it
drops does. The client's node has sent it and knows it too; apart, they would be counted twice.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.relayed import mark_relayed
from flowvis.batch import Batch, is_unset
from flowvis.fields import FlowType, RuleAction
from flowvis.native import pack_keys
from flowvis.native.contract.merge import Sides


def sides(batch: Batch) -> NDArray[np.uint8]:
    """Return each record's `Half` bits."""
    flow_type = batch["flowType"]
    source_pod = batch["sourcePodName"] != 0
    destination_pod = batch["destinationPodName"] != 0
    between = (flow_type == FlowType.INTER_NODE) & (source_pod != destination_pod)
    client = (flow_type == FlowType.FROM_EXTERNAL) | (between & (batch["proxySnatPort"] != 0))
    client &= ~destination_pod
    at = np.flatnonzero(client)
    client[at] = ~is_unset(batch["proxySnatIP"][at])
    stopped = _stopped(batch)
    correlate = (between | client) & ~stopped
    bits = np.full(len(batch), Sides.BOTH, dtype=np.uint8)
    bits[correlate] = Sides.CORRELATE | Sides.DESTINATION
    bits[correlate & (client | source_pod)] = Sides.CORRELATE | Sides.SOURCE
    bits[client] |= Sides.CLIENT
    mark_relayed(batch, stopped, bits)
    return bits


def _stopped(batch: Batch) -> NDArray[np.bool_]:
    """Where a policy of the client kept the connection within its node."""
    action = batch["egressNetworkPolicyRuleAction"]
    return np.asarray((action == RuleAction.DROP) | (action == RuleAction.REJECT))


GENERATION = 4
"""Bytes at the end of a key that tell connections of one 5-tuple apart; 0 for the current one."""

KEY_SIZE = 16 + 16 + 2 + 2 + 1 + GENERATION


def correlation_keys(batch: Batch, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the keys under which both halves of a connection meet: (n, KEY_SIZE).

    Where the client is known, the other half knows only the address that the proxy gave it.
    """
    source: NDArray[Any] = batch["sourceIP"]
    port: NDArray[Any] = batch["sourceTransportPort"]
    client = np.flatnonzero(bits & Sides.CLIENT)
    if len(client):
        source, port = source.copy(), port.copy()
        source[client] = batch["proxySnatIP"][client]
        port[client] = batch["proxySnatPort"][client]
    generation = np.zeros(len(batch), dtype=np.uint32)
    packed: NDArray[np.uint8] = pack_keys(
        source,
        batch["destinationIP"],
        port,
        batch["destinationTransportPort"],
        batch["protocolIdentifier"],
        generation,
    )
    return packed
