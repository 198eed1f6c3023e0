"""The chain of a connection through kube-proxy, as the kernel's two tuples give it.

In iptables, nftables and IPVS mode the kernel has the same tuples: IPVS writes the backend into
the connection's reply tuple (net.ipv4.vs.conntrack, which kube-proxy turns on), and netfilter's
rules masquerade.
"""

from typing import NamedTuple

import pytest

from exporter.kernel_entries import Connection
from exporter.test_connections import IDLE, T0, poll, rows
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import ClusterNode
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import FlowType
from flowvis.inventory.index import Inventory
from inventory.kubernetes_objects import node, pod, service

HERE, NEAR, THERE = "10.0.1.10", "10.0.1.11", "10.0.2.20"
NODE_1, NODE_2, PUBLIC_1 = "192.0.2.1", "192.0.2.2", "203.0.113.1"
GATEWAY, FLANNEL = "10.0.1.1", "10.0.1.0"
CLIENT, OUTSIDE = "198.51.100.9", "198.51.100.80"
VIP, BALANCER, EXTERNAL = "10.96.0.1", "203.0.113.50", "203.0.113.60"
HTTP, NODE_PORT = "shop/web:http", 30080
INTRA, INTER = FlowType.INTRA_NODE, FlowType.INTER_NODE
OUT, IN = FlowType.TO_EXTERNAL, FlowType.FROM_EXTERNAL
NO_SNAT, NO_SERVICE = ("", 0), ("", "", 0)


class Chain(NamedTuple):
    """What is reported a connection, of those that are reported at all."""

    flow_type: int
    source: tuple[str, int]
    destination: tuple[str, int]
    snat: tuple[str, int]
    service: tuple[str, str, int]


def called(
    source: str, address: str, port: int, to: str, snat: tuple[str, int] | None = None
) -> Connection:
    """A connection that was sent to a backend's port 8080."""
    moved = Connection(source, address, destination_port=port, real=to, real_port=8080)
    return moved if snat is None else moved.at(snat=snat[0], snat_port=snat[1])


CASES = {
    "pod to cluster IP, other node": (
        called(HERE, VIP, 80, THERE),
        Chain(INTER, (HERE, 40000), (THERE, 8080), NO_SNAT, (HTTP, VIP, 80)),
    ),
    "pod to cluster IP, same node": (
        called(HERE, VIP, 80, NEAR),
        Chain(INTRA, (HERE, 40000), (NEAR, 8080), NO_SNAT, (HTTP, VIP, 80)),
    ),
    "hairpin: pod to itself by the cluster IP": (
        called(HERE, VIP, 80, HERE, (GATEWAY, 40000)),
        Chain(INTRA, (HERE, 40000), (HERE, 8080), (GATEWAY, 40000), (HTTP, VIP, 80)),
    ),
    "pod to cluster IP with masqueradeAll": (
        called(HERE, VIP, 80, THERE, (FLANNEL, 6000)),
        Chain(INTER, (HERE, 40000), (THERE, 8080), (FLANNEL, 6000), (HTTP, VIP, 80)),
    ),
    "the same at the backend's node": (
        Connection(NODE_2, HERE, source_port=6000, destination_port=8080),
        Chain(INTER, (NODE_2, 6000), (HERE, 8080), NO_SNAT, NO_SERVICE),
    ),
    "pod to the load balancer's IP, short-cut on its node": (
        called(HERE, BALANCER, 80, THERE, (NODE_1, 6000)),
        Chain(INTER, (HERE, 40000), (THERE, 8080), (NODE_1, 6000), (HTTP, BALANCER, 80)),
    ),
    "pod to an external IP": (
        called(HERE, EXTERNAL, 80, NEAR, (GATEWAY, 6000)),
        Chain(INTRA, (HERE, 40000), (NEAR, 8080), (GATEWAY, 6000), (HTTP, EXTERNAL, 80)),
    ),
    "pod to its own node's node port": (
        called(HERE, NODE_1, NODE_PORT, THERE, (NODE_1, 6000)),
        Chain(INTER, (HERE, 40000), (THERE, 8080), (NODE_1, 6000), (HTTP, NODE_1, NODE_PORT)),
    ),
    "pod to another node's node port": (
        Connection(HERE, NODE_2, destination_port=NODE_PORT, snat=NODE_1, snat_port=6000),
        Chain(INTER, (HERE, 40000), (NODE_2, NODE_PORT), (NODE_1, 6000), NO_SERVICE),
    ),
    "client to a node port, pod here": (
        called(CLIENT, NODE_1, NODE_PORT, HERE, (GATEWAY, 6000)),
        Chain(IN, (CLIENT, 40000), (HERE, 8080), (GATEWAY, 6000), (HTTP, NODE_1, NODE_PORT)),
    ),
    "client to a node port, pod on another node": (
        called(CLIENT, NODE_1, NODE_PORT, THERE, (NODE_1, 6000)),
        Chain(IN, (CLIENT, 40000), (THERE, 8080), (NODE_1, 6000), (HTTP, NODE_1, NODE_PORT)),
    ),
    "client to a node port of the node's public address": (
        called(CLIENT, PUBLIC_1, NODE_PORT, HERE, (GATEWAY, 6000)),
        Chain(IN, (CLIENT, 40000), (HERE, 8080), (GATEWAY, 6000), (HTTP, PUBLIC_1, NODE_PORT)),
    ),
    "client to a node port, externalTrafficPolicy Local": (
        called(CLIENT, NODE_1, NODE_PORT, HERE),
        Chain(IN, (CLIENT, 40000), (HERE, 8080), NO_SNAT, (HTTP, NODE_1, NODE_PORT)),
    ),
    "client to the load balancer's IP, pod on another node": (
        called(CLIENT, BALANCER, 80, THERE, (NODE_1, 6000)),
        Chain(IN, (CLIENT, 40000), (THERE, 8080), (NODE_1, 6000), (HTTP, BALANCER, 80)),
    ),
    "client to the load balancer's IP, externalTrafficPolicy Local": (
        called(CLIENT, BALANCER, 80, HERE),
        Chain(IN, (CLIENT, 40000), (HERE, 8080), NO_SNAT, (HTTP, BALANCER, 80)),
    ),
    "client to an external IP": (
        called(CLIENT, EXTERNAL, 80, HERE, (GATEWAY, 6000)),
        Chain(IN, (CLIENT, 40000), (HERE, 8080), (GATEWAY, 6000), (HTTP, EXTERNAL, 80)),
    ),
    "another node as the client, pod here": (
        called(NODE_2, NODE_1, NODE_PORT, HERE, (GATEWAY, 6000)),
        Chain(INTER, (NODE_2, 40000), (HERE, 8080), (GATEWAY, 6000), (HTTP, NODE_1, NODE_PORT)),
    ),
    "another node as the client, pod on a third": (
        called(NODE_2, NODE_1, NODE_PORT, THERE, (NODE_1, 6000)),
        Chain(IN, (NODE_2, 40000), (THERE, 8080), (NODE_1, 6000), (HTTP, NODE_1, NODE_PORT)),
    ),
    "pod to the outside, masqueraded": (
        Connection(HERE, OUTSIDE, snat=NODE_1, snat_port=6000),
        Chain(OUT, (HERE, 40000), (OUTSIDE, 80), (NODE_1, 6000), NO_SERVICE),
    ),
    "pod to the outside, with its own address": (
        Connection(HERE, OUTSIDE),
        Chain(OUT, (HERE, 40000), (OUTSIDE, 80), NO_SNAT, NO_SERVICE),
    ),
    "pod to a Service of endpoints outside": (
        called(HERE, VIP, 80, OUTSIDE, (NODE_1, 6000)),
        Chain(OUT, (HERE, 40000), (OUTSIDE, 8080), (NODE_1, 6000), (HTTP, VIP, 80)),
    ),
}


@pytest.fixture(scope="module")
def enricher() -> ClusterNode:
    public = node("node-1", NODE_1, "10.0.1.0/24")
    public["status"]["addresses"].append({"type": "ExternalIP", "address": PUBLIC_1})
    inventory = Inventory()
    inventory.replace(
        [
            public,
            node("node-2", NODE_2, "10.0.2.0/24"),
            pod("here", HERE),
            pod("near", NEAR),
            service(
                "web",
                [VIP],
                {"name": "http", "port": 80, "nodePort": NODE_PORT},
                balancer=[BALANCER],
                externalIPs=[EXTERNAL],
            ),
        ],
        0,
    )
    return ClusterNode("node-1", inventory)


@pytest.mark.parametrize("case", CASES)
def test_chain(enricher: ClusterNode, case: str) -> None:
    connection, expected = CASES[case]
    table = ConnectionTable(enricher, Scope())
    poll(table, T0, connection.at(1, 100, 1, 100))
    batch = table.due(T0 + IDLE)
    ends = ("source", "destination")
    ((source, source_port, destination, port, snat, snat_port, address, called_port, type_),) = (
        rows(
            batch,
            *(f"{end}{what}" for end in ends for what in ("IP", "TransportPort")),
            *("proxySnatIP", "proxySnatPort", "destinationServiceIP", "destinationServicePort"),
            "flowType",
        )
    )
    (name,) = batch.texts("destinationServicePortName")
    found = Chain(
        type_,
        (source, source_port),
        (destination, port),
        (snat, snat_port),
        (name, address, called_port),
    )
    assert found == expected
