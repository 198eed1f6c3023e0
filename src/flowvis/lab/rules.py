"""The nft rules of the lab: what kube-proxy and a CNI would do on a node, and a client's witness.

A witness counts packets and octets of each 5-tuple without conntrack, in the client's own network
namespace, keyed as the client sees the connection in both directions.
"""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from flowvis.fields import RuleAction
from flowvis.lab.namespaces import nft
from flowvis.lab.plan import (
    NODES,
    OUTSIDE_NETWORK,
    PODS,
    SERVER_PORT,
    SERVICES,
    SILENT_PORT,
    LabNode,
    LabPod,
    Service,
)
from flowvis.lab.policies import Answer, egress_answer, ingress_answer

FAMILIES = ("ip", "ip6")
KINDS = ("ipv4_addr", "ipv6_addr")

FROM_OUTSIDE = 0x4000
"""kube-proxy's mark for connections that need source NAT."""

DENIED_GROUP = 5
"""The NFLOG group that rules of policies log to."""


class Tuple(NamedTuple):
    """A connection as its client sees it; `protocol` is tcp or udp."""

    protocol: str
    client: str
    client_port: int
    server: str
    server_port: int


class WitnessCount(NamedTuple):
    """Packets and octets of IP, both ways."""

    packets: int = 0
    octets: int = 0
    reverse_packets: int = 0
    reverse_octets: int = 0

    @property
    def forward(self) -> "WitnessCount":
        """What the client sent, without what came back."""
        return WitnessCount(self.packets, self.octets)

    @property
    def first(self) -> "WitnessCount":
        """The first packet of the client's, where all are alike."""
        return WitnessCount(min(self.packets, 1), self.octets // max(self.packets, 1))


def node_rules(node: LabNode) -> str:
    """Return the rules of a node: Services by DNAT, masquerade for what leaves, policies."""
    nat = [rule for service in SERVICES for rule in _service(node, service)]
    pairs = product(PODS, repeat=2)
    denials = [rule for client, server in pairs for rule in _denials(node, client, server)]
    masquerade = [
        f"{family} saddr {pods} {family} daddr {outside} masquerade"
        for family, pods, outside in zip(FAMILIES, node.pod_networks, OUTSIDE_NETWORK, strict=True)
    ]
    return _table(
        "nodes",
        _chain("services", "nat", "prerouting", "dstnat", nat),
        _chain("own", "nat", "output", "-100", nat),
        _chain(
            "leave",
            "nat",
            "postrouting",
            "srcnat",
            [f"mark {FROM_OUTSIDE} masquerade", *masquerade],
        ),
        _chain("policies", "filter", "forward", "filter", denials),
    )


def _service(node: LabNode, service: Service) -> Iterator[str]:
    """Choose a backend in turn, wherever the Service is called."""
    for at, family in enumerate(FAMILIES):
        for match in _called(node, service, at) if not service.headless else ():
            for left, pod in zip(
                range(len(service.backends), 0, -1), service.backends, strict=True
            ):
                turn = f"numgen inc mod {left} 0 " if left > 1 else ""
                target = pod.addresses[at] if family == "ip" else f"[{pod.addresses[at]}]"
                yield f"{match} {turn}dnat {family} to {target}:{SERVER_PORT}"


def _called(node: LabNode, service: Service, at: int) -> Iterator[str]:
    """Match the Service at its own addresses, the node's, and the load balancer's."""
    family, mark = FAMILIES[at], "" if service.local else f" mark set {FROM_OUTSIDE}"
    places = [(service.addresses, service.port, "")]
    if service.node_port:
        places.append((node.addresses, service.node_port, mark))
    if service.balancer:
        places.append((service.balancer_addresses, service.port, mark))
    for addresses, port, marked in places:
        yield f"{family} daddr {addresses[at]} {service.protocol} dport {port}{marked}"


def _denials(node: LabNode, client: LabPod, server: LabPod) -> Iterator[str]:
    """Log and deny what policies do not allow: egress on the client's node, ingress beyond."""
    for direction, answer, enforced in (
        ("egress", egress_answer(client, server), client.node),
        ("ingress", ingress_answer(client, server), server.node),
    ):
        if answer.denies and node == enforced:
            for family, source, to in zip(
                FAMILIES, client.addresses, server.addresses, strict=True
            ):
                log = f'log prefix "{_prefix(direction, answer)}" group {DENIED_GROUP}'
                yield f"{family} saddr {source} {family} daddr {to} {log} {_VERBS[answer.action]}"


_VERBS = {RuleAction.DROP: "drop", RuleAction.REJECT: "meta l4proto tcp reject with tcp reset"}


def _prefix(direction: str, answer: Answer) -> str:
    verb = "reject" if answer.action == RuleAction.REJECT else "drop"
    return f"flowvis:{verb}:{direction}:{answer.namespace}/{answer.name}:{answer.rule}"


def host_rules() -> str:
    """Return the rules of a Pod or the outside host: its witness, and the port of silence."""
    silence = [f"meta l4proto {{ tcp, udp }} th dport {SILENT_PORT} drop"]
    chain = _chain("arriving", "filter", "input", "filter", silence)
    return witness_rules() + _table("silence", chain)


def witness_rules() -> str:
    """Return the rules that count every packet of TCP and UDP that leaves or arrives.

    They see what the client does: before a node's DNAT (priority -100), and after it is undone.
    """
    sets = [
        _counting(way, family, kind)
        for family, kind in zip(FAMILIES, KINDS, strict=True)
        for way in ("sent", "received")
    ]
    sent = [_count("sent", family, "s", "d") for family in FAMILIES]
    received = [_count("received", family, "d", "s") for family in FAMILIES]
    return _table(
        "witness",
        *sets,
        _chain("leaving", "filter", "output", "-110", sent),
        _chain("arriving", "filter", "input", "110", received),
    )


def _counting(name: str, family: str, kind: str) -> str:
    """Return a set that counts the packets of each 5-tuple."""
    key = f"{kind} . inet_proto . inet_service . {kind} . inet_service"
    return f"set {name}_{family} {{ type {key}; flags dynamic; size 65535; }}"


def _count(name: str, family: str, client: str, server: str) -> str:
    """Return the rule that counts a packet in such a set.

    `client` is which end of the packet is the client's, "s" (source) or "d" (destination).
    """
    return (
        f"meta l4proto {{ tcp, udp }} update @{name}_{family} {{ {family} {client}addr"
        f" . meta l4proto . th {client}port . {family} {server}addr . th {server}port counter }}"
    )


REFUSE = (
    "add rule inet full arriving "
    'iifname "pod-*" tcp flags & (syn | ack) == syn ct state new goto refuse'
)
REFUSE_NOTHING = "flush chain inet full arriving"


def full_table_rules() -> str:
    """Return a node's rules for a full table: REFUSE drops and counts what begins a connection.

    Of TCP, whose clients try again, and from the node's own Pods: no other node has counted it.
    """
    sets = [_counting("refused", *one) for one in zip(FAMILIES, KINDS, strict=True)]
    refuse = [_count("refused", family, "s", "d") for family in FAMILIES]
    body = "\n".join(f"    {rule}" for rule in [*refuse, "drop"])
    return _table(
        "full",
        *sets,
        f"chain refuse {{\n{body}\n  }}",
        _chain("arriving", "filter", "prerouting", "-150", []),  # after conntrack, before DNAT
    )


def read_witness(host: str) -> dict[Tuple, WitnessCount]:
    """Return what a host's witness has counted so far."""
    counts: dict[Tuple, WitnessCount] = {}
    for name, key, packets, octets in _counted(host, "witness"):
        so_far = counts.get(key, WitnessCount())
        if name.startswith("sent"):
            counts[key] = so_far._replace(packets=packets, octets=octets)
        else:
            counts[key] = so_far._replace(reverse_packets=packets, reverse_octets=octets)
    return counts


def read_refused() -> dict[Tuple, WitnessCount]:
    """Return what nodes refused so far as their tables were full; nothing where none ever was."""
    tables = {node.name: nft(node.name, ["list", "tables", "inet"]) for node in NODES}
    return {
        key: WitnessCount(packets, octets)
        for node, found in tables.items()
        if "inet full" in found
        for _, key, packets, octets in _counted(node, "full")
    }


def _counted(host: str, table: str) -> Iterator[tuple[str, Tuple, int, int]]:
    """Yield the elements of a table's sets: the set, the connection, packets and octets."""
    for item in json.loads(nft(host, ["--json", "list", "table", "inet", table]))["nftables"]:
        found = item.get("set", {})
        for element in found.get("elem", ()):
            yield (found["name"], *_element(element["elem"]))


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
