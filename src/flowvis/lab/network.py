"""Builds the lab's network: namespaces, links, addresses, routes, neighbours, rules.

Nodes hang on a bridge in the lab's own namespace, which also routes to the outside host. Pods are
routed, not bridged, so that their node's conntrack sees every packet. Nothing is left to chance:
neighbours are set (no packet waits or dies for ARP), and senders make packets of wire size, so that
all who count see the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import NamedTuple

from pyroute2 import IPRoute

from flowvis.lab import namespaces, rules
from flowvis.lab.cni import Addresses
from flowvis.lab.plan import (
    BALANCER_NETWORK,
    BALANCER_NODE,
    CONTROL_ADDRESSES,
    NODE_NETWORK,
    NODES,
    OUTSIDE,
    OUTSIDE_ADDRESSES,
    OUTSIDE_GATEWAYS,
    OUTSIDE_NETWORK,
    LabNode,
    LabPod,
    hosts,
)


class Port(NamedTuple):
    """An interface in a network namespace; "" is the lab's own namespace."""

    namespace: str
    name: str


FABRIC = Port("", "fabric")

ANYWHERE: Addresses = ("0.0.0.0/0", "::/0")

IFA_F_NODAD = 0x02  # linux/if_addr.h: usable at once
NUD_PERMANENT = 0x80  # linux/neighbour.h
SCOPE_LINK = 253

HOST = {
    "net.ipv4.conf.all.rp_filter": 0,  # a new namespace may inherit the host's
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv6.conf.all.disable_ipv6": 0,
    "net.ipv6.conf.default.disable_ipv6": 0,
    "net.ipv4.tcp_tw_reuse": 1,  # the same connection again, when traffic is repeated
    "net.ipv6.conf.default.addr_gen_mode": 1,  # no link-local addresses: no background packets
}
ROUTER = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
TRACKER = {"net.netfilter.nf_conntrack_tcp_be_liberal": 1}
"""Else what comes when its window is over, as where two CPUs bring segments, passes uncounted."""


def build() -> None:
    """Build all of it; well under a second."""
    clients = (OUTSIDE, *hosts())
    nodes = [node.name for node in NODES]
    for name in (*nodes, *clients):
        namespaces.create(name)
    for name in ("", *nodes, *clients):
        namespaces.set_sysctls(name, HOST)
        _up(Port(name, "lo"))
    for name in ("", *nodes):
        namespaces.set_sysctls(name, ROUTER)
    _fabric()
    for node in NODES:
        _node(node)
    _outside()
    _add_routes(FABRIC, BALANCER_NETWORK, BALANCER_NODE.addresses)
    for pod in hosts().values():
        _pod(pod)
    for name in clients:
        namespaces.nft(name, ["-f", "-"], rules.host_rules())
    for name in nodes:
        namespaces.nft(name, ["-f", "-"], rules.witness_rules())


def _fabric() -> None:
    with IPRoute() as route:
        route.link("add", ifname=FABRIC.name, kind="bridge", address=_mac(CONTROL_ADDRESSES))
    _add_addresses(FABRIC, CONTROL_ADDRESSES, NODE_NETWORK)
    _up(FABRIC)


def _node(node: LabNode) -> None:
    uplink = Port(node.name, "eth0")
    _join(Port("", f"to-{node.name}"), uplink, node.addresses, master=FABRIC)
    _add_addresses(uplink, node.addresses, NODE_NETWORK)
    _add_neighbours(FABRIC, node.addresses)
    _add_neighbours(uplink, CONTROL_ADDRESSES)
    _add_routes(uplink, ANYWHERE, CONTROL_ADDRESSES)
    for other in NODES:
        if other is not node:
            _add_neighbours(uplink, other.addresses)
            _add_routes(uplink, other.pod_networks, other.addresses)
    namespaces.nft(node.name, ["-f", "-"], rules.node_rules(node))
    namespaces.set_sysctls(node.name, TRACKER)  # which are there once something tracks


def _outside() -> None:
    inner, outer = Port(OUTSIDE, "eth0"), Port("", "to-outside")
    _join(outer, inner, OUTSIDE_ADDRESSES, OUTSIDE_GATEWAYS)
    _add_addresses(outer, OUTSIDE_GATEWAYS, OUTSIDE_NETWORK)
    _add_neighbours(outer, OUTSIDE_ADDRESSES)
    _add_addresses(inner, OUTSIDE_ADDRESSES, OUTSIDE_NETWORK)
    _add_neighbours(inner, OUTSIDE_GATEWAYS)
    _add_routes(inner, ANYWHERE, OUTSIDE_GATEWAYS)


def _pod(pod: LabPod) -> None:
    inner, outer = Port(pod.host, "eth0"), Port(pod.node.name, f"pod-{pod.number}")
    gateways = pod.node.gateways
    _join(outer, inner, pod.addresses, gateways)
    _add_addresses(outer, gateways)
    _add_routes(outer, pod.addresses)
    _add_neighbours(outer, pod.addresses)
    _add_addresses(inner, pod.addresses)
    _add_routes(inner, gateways)
    _add_routes(inner, ANYWHERE, gateways)
    _add_neighbours(inner, gateways)


def _join(
    outer: Port,
    inner: Port,
    inner_addresses: Addresses,
    outer_addresses: Addresses | None = None,
    master: Port | None = None,
) -> None:
    """Lay a veth between two namespaces, with MAC addresses made from the ends' addresses."""
    # One segment at a time: without this, TCP hands packets of up to 64 KiB to the hooks.
    wire = {"gso_max_segs": 1}
    peer = {"ifname": inner.name, "net_ns_fd": inner.namespace, "address": _mac(inner_addresses)}
    options = {"address": _mac(outer_addresses)} if outer_addresses else {}
    with namespaces.inside(outer.namespace), IPRoute() as route:
        route.link("add", ifname=outer.name, kind="veth", peer={**peer, **wire}, **options, **wire)
        if master:
            index, over = (route.link_lookup(ifname=port.name)[0] for port in (outer, master))
            route.link("set", index=index, master=over)
    _up(outer)
    _up(inner)


def _up(port: Port) -> None:
    with _open(port) as (route, index):
        route.link("set", index=index, state="up")


def _add_addresses(port: Port, addresses: Addresses, networks: Addresses | None = None) -> None:
    """Give a port its addresses: in their networks, or as single hosts."""
    with _open(port) as (route, index):
        for address, network in zip(addresses, networks or addresses, strict=True):
            size = ip_network(network).prefixlen
            route.addr("add", index=index, address=address, prefixlen=size, flags=IFA_F_NODAD)


def _add_routes(port: Port, to: Addresses, gateways: Addresses | None = None) -> None:
    """Route through a gateway, or directly onto the link."""
    with _open(port) as (route, index):
        for at, destination in enumerate(to):
            next_hop = {"gateway": gateways[at]} if gateways else {"scope": SCOPE_LINK}
            dst = ip_interface(destination).with_prefixlen
            route.route("add", dst=dst, oif=index, **next_hop)


def _add_neighbours(port: Port, addresses: Addresses) -> None:
    with _open(port) as (route, index):
        for address in addresses:
            route.neigh(
                "add", dst=address, lladdr=_mac(addresses), ifindex=index, state=NUD_PERMANENT
            )


@contextmanager
def _open(port: Port) -> Iterator[tuple[IPRoute, int]]:
    """Give a socket in the port's namespace, and the port's index."""
    with namespaces.inside(port.namespace), IPRoute() as route:
        yield route, route.link_lookup(ifname=port.name)[0]


def _mac(addresses: Addresses) -> str:
    """Return a locally administered MAC address that says the IPv4 address."""
    return "02:00:" + ":".join(f"{int(byte):02x}" for byte in addresses[0].split("."))
