"""What a record is: one node's half of a connection, or all that there is to know about it.

The rules are those of Antrea's aggregator. A connection between nodes is seen by both; so is one
from outside that enters the cluster at another node than the Pod's, which the Pod's node sees as
coming from the first node (the proxy's SNAT); and so is what a Pod's own node masquerades on its
way to another Pod. What a policy stopped before it left the first node is seen by one node only.

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

from flowvis.batch import Batch, is_unset
from flowvis.fields import ICMP, FlowType, RuleAction
from flowvis.native import order_endpoints, pack_keys
from flowvis.native.contract.merge import Sides


def sides(batch: Batch) -> NDArray[np.uint8]:
    """Return each record's `Half` bits."""
    flow_type = batch["flowType"]
    source_pod = batch["sourcePodName"] != 0
    destination_pod = batch["destinationPodName"] != 0
    between = (flow_type == FlowType.INTER_NODE) & (source_pod != destination_pod)
    entering = flow_type == FlowType.FROM_EXTERNAL
    leaving = between | ((flow_type == FlowType.TO_EXTERNAL) & source_pod)
    leaving &= (batch["proxySnatPort"] != 0) | _is_icmp(batch)
    client = _with_address((entering | leaving) & ~destination_pod, batch["proxySnatIP"])
    called = (entering | between) & destination_pod & (batch["destinationServicePort"] != 0)
    server = _with_address(called & ~source_pod, batch["destinationServiceIP"])
    correlate = (between | (client & entering)) & ~_stopped(batch)
    bits = np.full(len(batch), Sides.BOTH, dtype=np.uint8)
    bits[source_pod & ~destination_pod] |= Sides.SOURCE << Sides.LEANS
    bits[destination_pod & ~source_pod] |= Sides.DESTINATION << Sides.LEANS
    bits[correlate] = Sides.CORRELATE | Sides.DESTINATION
    bits[correlate & (client | source_pod)] = Sides.CORRELATE | Sides.SOURCE
    bits[client] |= Sides.CLIENT
    bits[server] |= Sides.SERVER
    return bits


def reversed_halves(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the `Half` bits of the same records with client and server exchanged."""
    turned = bits & Sides.CORRELATE
    for one, other in _OPPOSITES:
        turned |= np.where(bits & one, other, 0).astype(np.uint8)
        turned |= np.where(bits & other, one, 0).astype(np.uint8)
    return np.asarray(turned)


_OPPOSITES = (
    (Sides.SOURCE, Sides.DESTINATION),
    (Sides.CLIENT, Sides.SERVER),
    (Sides.SOURCE << Sides.LEANS, Sides.DESTINATION << Sides.LEANS),
)


def _with_address(wanted: NDArray[np.bool_], addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Those of the wanted records that have an address; `wanted` is narrowed in place."""
    at = np.flatnonzero(wanted)
    wanted[at] = ~is_unset(addresses[at])
    return wanted


def _is_icmp(batch: Batch) -> NDArray[np.bool_]:
    protocol = batch["protocolIdentifier"]
    return np.asarray((protocol == ICMP[0]) | (protocol == ICMP[1]))


def _stopped(batch: Batch) -> NDArray[np.bool_]:
    """Where a policy of the client kept the connection within its node."""
    action = batch["egressNetworkPolicyRuleAction"]
    return np.asarray((action == RuleAction.DROP) | (action == RuleAction.REJECT))


ENDPOINT = 16 + 2
"""Bytes of an address and its port, with two of which a key begins: the smaller comes first."""

WAY = 1
"""Bytes of a key, before its generation, that tell the two directions of a connection apart where
one exporter reports each by itself: 0 for the first, else 1 or 2 (see `second_way`)."""

GENERATION = 4
"""Bytes at the end of a key that tell connections of one tuple apart; 0 for the current one."""

KEY_SIZE = 2 * ENDPOINT + 1 + 4 + WAY + GENERATION


def correlation_keys(
    batch: Batch, bits: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the keys under which the halves of a connection meet, `(n, KEY_SIZE)`.

    And which records have their source as the second endpoint of their key.
    """
    source, source_port = _seen_as(batch, bits, Sides.CLIENT, "source", "proxySnat")
    destination, port = _seen_as(batch, bits, Sides.SERVER, "destination", "destinationService")
    flow_id: NDArray[Any] = np.zeros(len(batch), dtype=np.uint32)
    icmp = np.flatnonzero(_is_icmp(batch))
    if len(icmp):
        flow_id[icmp] = batch["flowId"][icmp].astype(np.uint32)
    packed: NDArray[np.uint8] = pack_keys(
        source,
        source_port,
        destination,
        port,
        batch["protocolIdentifier"],
        flow_id,
        np.zeros(len(batch), dtype=np.uint8),
        np.zeros(len(batch), dtype=np.uint32),
    )
    return packed, order_endpoints(packed, ENDPOINT)


def _seen_as(
    batch: Batch, bits: NDArray[np.uint8], better: int, name: str, between: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """An endpoint's addresses and ports as the other node sees them.

    Where a half knows the endpoint `better`, the other knows only what is `between` the nodes.
    """
    address: NDArray[Any] = batch[f"{name}IP"]
    port: NDArray[Any] = batch[f"{name}TransportPort"]
    at = np.flatnonzero(bits & better)
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
