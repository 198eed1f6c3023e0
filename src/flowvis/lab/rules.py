"""The nft rules of the lab: what kube-proxy would do on a node, and the witness of a client.

A witness counts packets and octets of each 5-tuple without conntrack, in the client's own network
namespace, keyed as the client sees the connection in both directions.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from flowvis.lab.namespaces import nft
from flowvis.lab.plan import OUTSIDE_NETWORK, SERVER_PORT, SERVICES, Node, Service

FAMILIES = ("ip", "ip6")

FROM_OUTSIDE = 0x4000
"""kube-proxy's mark for connections that need source NAT."""


class Tuple(NamedTuple):
    """A connection as its client sees it; `protocol` is tcp or udp."""

    protocol: str
    client: str
    client_port: int
    server: str
    server_port: int


class Count(NamedTuple):
    """Packets and octets of IP, both ways."""

    packets: int = 0
    octets: int = 0
    reverse_packets: int = 0
    reverse_octets: int = 0


def node_rules(node: Node) -> str:
    """Return the rules of a node: Services by DNAT, masquerade for what leaves the cluster."""
    nat = [rule for service in SERVICES for rule in _service(node, service)]
    masquerade = [
        f"{family} saddr {pods} {family} daddr {outside} masquerade"
        for family, pods, outside in zip(FAMILIES, node.pod_networks, OUTSIDE_NETWORK, strict=True)
    ]
    return _table(
        "nodes",
        _chain("services", "nat", "prerouting", "dstnat", nat),
        _chain(
            "leave",
            "nat",
            "postrouting",
            "srcnat",
            [f"mark {FROM_OUTSIDE} masquerade", *masquerade],
        ),
    )


def _service(node: Node, service: Service) -> Iterator[str]:
    """Choose a backend in turn, at the Service's addresses and at the node's own."""
    for at, family in enumerate(FAMILIES):
        cluster = f"{family} daddr {service.addresses[at]} {service.protocol} dport {service.port}"
        at_node = (
            f"{family} daddr {node.addresses[at]} {service.protocol} dport {service.node_port} "
            f"mark set {FROM_OUTSIDE}"
        )
        for match in [cluster, at_node] if service.node_port else [cluster]:
            for left, pod in zip(
                range(len(service.backends), 0, -1), service.backends, strict=True
            ):
                turn = f"numgen inc mod {left} 0 " if left > 1 else ""
                target = pod.addresses[at] if family == "ip" else f"[{pod.addresses[at]}]"
                yield f"{match} {turn}dnat {family} to {target}:{SERVER_PORT}"


def witness_rules() -> str:
    """Return the rules that count every packet of TCP and UDP that leaves or arrives."""
    parts = []
    for family, kind in zip(FAMILIES, ("ipv4_addr", "ipv6_addr"), strict=True):
        key = f"{kind} . inet_proto . inet_service . {kind} . inet_service"
        parts += [
            f"set {way}_{family} {{ type {key}; flags dynamic; size 65535; }}"
            for way in ("sent", "received")
        ]
    sent = [
        f"meta l4proto {{ tcp, udp }} update @sent_{family} "
        f"{{ {family} saddr . meta l4proto . th sport . {family} daddr . th dport counter }}"
        for family in FAMILIES
    ]
    received = [
        f"meta l4proto {{ tcp, udp }} update @received_{family} "
        f"{{ {family} daddr . meta l4proto . th dport . {family} saddr . th sport counter }}"
        for family in FAMILIES
    ]
    return _table(
        "witness",
        *parts,
        _chain("leaving", "filter", "output", "filter", sent),
        _chain("arriving", "filter", "input", "filter", received),
    )


def read_witness(host: str) -> dict[Tuple, Count]:
    """Return what a host's witness has counted so far."""
    listing = json.loads(nft(host, ["--json", "list", "table", "inet", "witness"]))
    counts: dict[Tuple, Count] = {}
    for item in listing["nftables"]:
        found = item.get("set")
        if found is None:
            continue
        for element in found.get("elem", ()):
            key, packets, octets = _element(element["elem"])
            so_far = counts.get(key, Count())
            if found["name"].startswith("sent"):
                counts[key] = so_far._replace(packets=packets, octets=octets)
            else:
                counts[key] = so_far._replace(reverse_packets=packets, reverse_octets=octets)
    return counts


def _element(element: Any) -> tuple[Tuple, int, int]:
    client, protocol, client_port, server, server_port = element["val"]["concat"]
    key = Tuple(protocol, client, client_port, server, server_port)
    return key, element["counter"]["packets"], element["counter"]["bytes"]


def _chain(name: str, kind: str, hook: str, priority: str, rules: list[str]) -> str:
    body = "\n".join(f"    {rule}" for rule in rules)
    return f"chain {name} {{\n    type {kind} hook {hook} priority {priority};\n{body}\n  }}"


def _table(name: str, *parts: str) -> str:
    body = "\n".join(f"  {part}" for part in parts)
    return f"table inet {name} {{\n{body}\n}}\n"
