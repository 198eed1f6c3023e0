"""What a record is: one node's half of a connection, or all that there is to know about it.

The rules are those of Antrea's aggregator. A connection between nodes is seen by both; so is one
from outside that enters the cluster at another node than the Pod's, which the Pod's node sees as
coming from the first node (the proxy's SNAT); and so is what a Pod's own node masquerades on its
way to another Pod. What a policy stopped before it left the first node is seen by one node only.

An exporter names the endpoint that is its own node's: a Pod, or the node itself. A record that
names both has no other half, as that of a Pod's connection with a node, of which the node's
exporter reports nothing. What another aggregator relays names both all the same, and says which is
the exporter's own.

One rule is not Antrea's: what the destination's node rejects waits for its other half, as what it
drops does. The client's node has sent it and knows it too; apart, they would be counted twice.

Halves meet under the tuple that is on the wire between the two nodes: the client's after what its
node translates, the server's before what its node does (a node's port that a Pod of another node
calls). Either node may have seen the first packet the other way round, so the two endpoints of the
key are in order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.relayed import relayed
from flowvis.batch import Batch, is_unset
from flowvis.fields import ICMP, FlowType, RuleAction
from flowvis.native import order_endpoints, pack_keys
from flowvis.native.contract.flows import ENDPOINT
from flowvis.native.contract.merge import Sides


def sides(batch: Batch) -> NDArray[np.uint8]:
    """Return each record's `Half` bits."""
    flow_type = batch["flowType"]
    source_pod = batch["sourcePodName"] != 0
    destination_pod = batch["destinationPodName"] != 0
    source = source_pod | (batch["sourceNodeName"] != 0)
    destination = destination_pod | (batch["destinationNodeName"] != 0)
    inter_node = flow_type == FlowType.INTER_NODE
    egress, ingress = relayed(batch, inter_node)
    for one, other in ((source_pod, destination_pod), (source, destination)):
        one[egress], other[egress] = True, False
        one[ingress], other[ingress] = False, True
    client_only, server_only = source_pod & ~destination_pod, destination_pod & ~source_pod
    entering = flow_type == FlowType.FROM_EXTERNAL
    leaving = (inter_node | (flow_type == FlowType.TO_EXTERNAL)) & client_only
    leaving &= (batch["proxySnatPort"] != 0) | _is_icmp(batch)
    client = np.flatnonzero((entering & ~destination_pod) | leaving)
    client = client[~is_unset(batch["proxySnatIP"][client])]
    called = server_only & (entering | inter_node) & (batch["destinationServicePort"] != 0)
    server = np.flatnonzero(called)
    server = server[~is_unset(batch["destinationServiceIP"][server])]
    correlate = inter_node & (source != destination)
    correlate[client] |= entering[client]
    # A node's address is as good as none: it may stand for one of its Pods.
    correlate[server] |= inter_node[server]
    correlate &= ~_stopped(batch)
    kind = correlate.view(np.uint8) << 2 | server_only.view(np.uint8) << 1
    bits: NDArray[np.uint8] = _BITS[kind | client_only.view(np.uint8)]
    named = np.flatnonzero(correlate & ~client_only & ~server_only & destination)
    bits[named] = Sides.CORRELATE | Sides.DESTINATION
    bits[client] |= Sides.CLIENT
    bits[server] |= Sides.SERVER
    return bits


_BITS = np.array(
    [
        Sides.BOTH,
        Sides.BOTH | Sides.SOURCE << Sides.LEANS,
        Sides.BOTH | Sides.DESTINATION << Sides.LEANS,
        Sides.BOTH,
        Sides.CORRELATE | Sides.SOURCE,
        Sides.CORRELATE | Sides.SOURCE,
        Sides.CORRELATE | Sides.DESTINATION,
        0,
    ],
    dtype=np.uint8,
)
"""By bits: only the client's Pod is named; only the server's; another node has the other half."""


def reversed_sides(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the `Half` bits of the same records with client and server exchanged."""
    turned = bits & (Sides.CORRELATE | Sides.AGAIN)
    for one, other in _OPPOSITES:
        turned |= np.where(bits & one, other, 0).astype(np.uint8)
        turned |= np.where(bits & other, one, 0).astype(np.uint8)
    return np.asarray(turned)


_OPPOSITES = (
    (Sides.SOURCE, Sides.DESTINATION),
    (Sides.CLIENT, Sides.SERVER),
    (Sides.SOURCE << Sides.LEANS, Sides.DESTINATION << Sides.LEANS),
)


def _is_icmp(batch: Batch) -> NDArray[np.bool_]:
    protocol = batch["protocolIdentifier"]
    return np.asarray((protocol == ICMP[0]) | (protocol == ICMP[1]))


def _stopped(batch: Batch) -> NDArray[np.bool_]:
    """Where a policy of the client kept the connection within its node."""
    action = batch["egressNetworkPolicyRuleAction"]
    return np.asarray((action == RuleAction.DROP) | (action == RuleAction.REJECT))


WAY = 1
"""Bytes of a key, before its generation, that tell the two directions of a connection apart where
one exporter reports each by itself: 0 for the first, else 1 or 2 (see `second_way`)."""

GENERATION = 4
"""Bytes at the end of a key that tell connections of one tuple apart; 0 for the current one."""

_FLOW_ID = 2 * ENDPOINT + 1
_NO_TAIL = np.zeros(4 + WAY + GENERATION, dtype=np.uint8)

KEY_SIZE = _FLOW_ID + len(_NO_TAIL)


def correlation_keys(
    batch: Batch, bits: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the keys under which the halves of a connection meet, `(n, KEY_SIZE)`.

    And which records have their source as the second endpoint of their key.
    """
    source, source_port = _seen_as(batch, bits, Sides.CLIENT, "source", "proxySnat")
    destination, port = _seen_as(batch, bits, Sides.SERVER, "destination", "destinationService")
    packed: NDArray[np.uint8] = pack_keys(
        source,
        source_port,
        destination,
        port,
        batch["protocolIdentifier"],
        np.broadcast_to(_NO_TAIL, (len(batch), len(_NO_TAIL))),
    )
    icmp = np.flatnonzero(_is_icmp(batch))
    if len(icmp):
        flow_id = batch["flowId"][icmp].astype(np.uint32)
        packed[icmp, _FLOW_ID : _FLOW_ID + 4] = flow_id.view(np.uint8).reshape(-1, 4)
    return packed, order_endpoints(packed)


def _seen_as(
    batch: Batch, bits: NDArray[np.uint8], better: int, name: str, between: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """An endpoint's addresses and ports as the other node sees them.

    Where a half knows the endpoint `better`, the other knows only what is `between` the nodes.
    """
    address: NDArray[Any] = batch[f"{name}IP"]
    port: NDArray[Any] = batch[f"{name}TransportPort"]
    at = np.flatnonzero((bits & better) != 0)
    if len(at):
        address, port = address.copy(), port.copy()
        address[at] = batch[f"{between}IP"][at]
        port[at] = batch[f"{between}Port"][at]
    return address, port


def second_way(correlation_keys: NDArray[np.uint8], turned: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The keys of records that are the second direction; `turned` as `keys` returns it."""
    other = correlation_keys.copy()
    other[:, -GENERATION - WAY] = 1 + turned
    return other
