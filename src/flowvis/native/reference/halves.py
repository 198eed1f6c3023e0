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

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.fields import ICMP, FlowType, RuleAction
from flowvis.native.contract.halves import (
    EGRESS,
    ENDPOINT,
    ENDPOINTS,
    INGRESS,
    KEY_SIZE,
    NEITHER,
    RELAYED,
    WIDTHS,
    Columns,
    check_bits,
    check_columns,
    check_endpoints,
    check_made,
)
from flowvis.native.contract.merge import Sides

_UNSET = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))
_STOPPED = (RuleAction.DROP, RuleAction.REJECT)

_Record = Mapping[str, Any]


def sides(columns: Columns) -> NDArray[np.uint8]:
    """Return each record's bits of `Sides`."""
    n = check_columns(columns)
    return np.array([_sides(_record(columns, at)) for at in range(n)], dtype=np.uint8)


def correlation_keys(
    columns: Columns, bits: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the keys under which the halves of a connection meet, `(n, KEY_SIZE)`.

    And which records have their source as the second endpoint of their key.
    """
    n = check_columns(columns)
    check_bits(bits, n)
    keys = np.zeros((n, KEY_SIZE), dtype=np.uint8)
    turned = np.zeros(n, dtype=bool)
    for at in range(n):
        key, turned[at] = _key(_record(columns, at), int(bits[at]))
        keys[at] = np.frombuffer(key, dtype=np.uint8)
    return keys, turned


def made_of(
    columns: Columns, keys: NDArray[np.uint8], turned: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return by which endpoints keys were made, `(n,)`: CLIENT and SERVER as in `Sides`.

    Those are set where only what is between the nodes is what the key has; NEITHER where that of
    the record is not, nor the endpoint itself. Without anything between the nodes no bit is set.
    """
    check_made(columns, keys, turned)
    made = np.zeros(len(keys), dtype=np.uint8)
    for at, (key, reversed_) in enumerate(zip(keys, turned, strict=True)):
        ends = [key[:ENDPOINT].tobytes(), key[ENDPOINT : 2 * ENDPOINT].tobytes()]
        met = reversed(ends) if reversed_ else ends
        for names, end, better in zip(ENDPOINTS, met, (Sides.CLIENT, Sides.SERVER), strict=True):
            address, port, between, between_port = (columns[name][at].tobytes() for name in names)
            if any(between + between_port) and address + port != end:
                made[at] |= better if between + between_port == end else NEITHER
    return made


def order_endpoints(keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bring the two endpoints that keys begin with in order; return which keys were turned.

    The one with the smaller bytes comes first. In place.
    """
    check_endpoints(keys)
    turned = np.zeros(len(keys), dtype=bool)
    for at, key in enumerate(keys):
        one, other = key[:ENDPOINT].copy(), key[ENDPOINT : 2 * ENDPOINT].copy()
        if one.tobytes() > other.tobytes():
            key[:ENDPOINT], key[ENDPOINT : 2 * ENDPOINT] = other, one
            turned[at] = True
    return turned


def _record(columns: Columns, at: int) -> _Record:
    """One record: numbers, and addresses as bytes."""
    names = [*WIDTHS, *(RELAYED if RELAYED.keys() <= columns.keys() else ())]
    values = {name: columns[name][at] for name in names}
    return {name: value.tobytes() if value.ndim else int(value) for name, value in values.items()}


def _sides(record: _Record) -> int:
    kind = record["flowType"]
    inter_node, entering = kind == FlowType.INTER_NODE, kind == FlowType.FROM_EXTERNAL
    source_pod, destination_pod = record["sourcePodName"] != 0, record["destinationPodName"] != 0
    source = source_pod or record["sourceNodeName"] != 0
    destination = destination_pod or record["destinationNodeName"] != 0
    if inter_node and record.get("originalObservationDomainId"):
        if record["flowDirection"] == EGRESS:
            source_pod, destination_pod, source, destination = True, False, True, False
        elif record["flowDirection"] == INGRESS:
            source_pod, destination_pod, source, destination = False, True, False, True
    client_only, server_only = source_pod > destination_pod, destination_pod > source_pod
    leaving = (inter_node or kind == FlowType.TO_EXTERNAL) and client_only
    leaving = leaving and (record["proxySnatPort"] != 0 or _has_no_ports(record))
    client = (entering and not destination_pod) or leaving
    client = client and record["proxySnatIP"] not in _UNSET
    server = server_only and (entering or inter_node) and record["destinationServicePort"] != 0
    server = server and record["destinationServiceIP"] not in _UNSET
    correlate = inter_node and source != destination
    # A node's address is as good as none: it may stand for one of its Pods.
    correlate = correlate or (client and entering) or (server and inter_node)
    known: int = Sides.CLIENT * client | Sides.SERVER * server
    if correlate and record["egressNetworkPolicyRuleAction"] not in _STOPPED:
        of_destination = server_only or (destination and not client_only)
        return known | Sides.CORRELATE | (Sides.DESTINATION if of_destination else Sides.SOURCE)
    leans: int = Sides.SOURCE * client_only | Sides.DESTINATION * server_only
    return known | Sides.BOTH | leans << Sides.LEANS


def _key(record: _Record, bits: int) -> tuple[bytes, bool]:
    """A record's key, and whether its source is the second endpoint there.

    Where a half knows an endpoint better, the other knows only what is between the nodes.
    """
    source = _endpoint(record, "proxySnatIP", "proxySnatPort")
    if not bits & Sides.CLIENT:
        source = _endpoint(record, "sourceIP", "sourceTransportPort")
    destination = _endpoint(record, "destinationServiceIP", "destinationServicePort")
    if not bits & Sides.SERVER:
        destination = _endpoint(record, "destinationIP", "destinationTransportPort")
    turned = source > destination
    if turned:
        source, destination = destination, source
    flow_id = record["flowId"] & 0xFFFFFFFF if _has_no_ports(record) else 0
    tail = bytes([record["protocolIdentifier"]]) + np.uint32(flow_id).tobytes()
    return (source + destination + tail).ljust(KEY_SIZE, b"\0"), turned


def _endpoint(record: _Record, address: str, port: str) -> bytes:
    endpoint: bytes = record[address] + np.uint16(record[port]).tobytes()
    return endpoint


def _has_no_ports(record: _Record) -> bool:
    return record["protocolIdentifier"] in ICMP
