"""Cluster-wide policies of policy.networking.k8s.io.

v1alpha1: AdminNetworkPolicy and BaselineAdminNetworkPolicy; v1alpha2: ClusterNetworkPolicy.
"""

from collections.abc import Mapping
from typing import Any

from flowvis.policies.model import (
    PROTOCOLS,
    Action,
    AddressBlock,
    Direction,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Rule,
    Unknowable,
    parse_network,
    parse_port,
    parse_protocol,
    rule_name,
)
from flowvis.policies.selectors import parse_selector

# Among Antrea's tiers, as Antrea orders them: the application tier is 250, its baseline 253.
CLUSTER_ADMIN_TIER = 220
ADMIN_TIER = 251
BASELINE_TIER = 254

_ACTIONS = {
    "Allow": Action.ALLOW,
    "Accept": Action.ALLOW,
    "Deny": Action.DROP,
    "Pass": Action.PASS,
}


def parse_admin_policy(item: Mapping[str, Any]) -> Policy:
    """Read an AdminNetworkPolicy, a BaselineAdminNetworkPolicy or a ClusterNetworkPolicy."""
    spec = item.get("spec") or {}
    subjects = tuple(_pods(spec["subject"]))
    return Policy(
        PolicyType.KUBERNETES_CLUSTER,
        "",
        item["metadata"]["name"],
        _tier(item["kind"], spec),
        float(spec.get("priority") or 0),
        subjects,
        _rules(spec, Direction.INGRESS, subjects),
        _rules(spec, Direction.EGRESS, subjects),
    )


def _tier(kind: str, spec: Mapping[str, Any]) -> int:
    match kind, spec.get("tier"):
        case "AdminNetworkPolicy", _:
            return ADMIN_TIER
        case "BaselineAdminNetworkPolicy", _:
            return BASELINE_TIER
        case _, "Admin":
            return CLUSTER_ADMIN_TIER
        case _, "Baseline":
            return BASELINE_TIER
        case _, tier:
            raise ValueError(f"tier {tier!r}: allowed are Admin, Baseline")


def _rules(
    spec: Mapping[str, Any], direction: Direction, subjects: tuple[Peer, ...]
) -> tuple[Rule, ...]:
    side = "from" if direction is Direction.INGRESS else "to"
    return tuple(
        Rule(
            rule_name(rule, direction, place),
            _ACTIONS[rule["action"]],
            subjects,
            tuple(found for peer in rule.get(side) or () for found in _peers(peer)),
            _ports(rule),
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _pods(choice: Mapping[str, Any]) -> list[Peer]:
    if choice.get("namespaces") is not None:
        return [Pods(namespaces=parse_selector(choice["namespaces"]))]
    if choice.get("pods") is not None:
        pods = choice["pods"]
        return [
            Pods(
                namespaces=parse_selector(pods.get("namespaceSelector")),
                pods=parse_selector(pods.get("podSelector")),
            )
        ]
    return []


def _peers(peer: Mapping[str, Any]) -> list[Peer]:
    if peer.get("nodes") is not None:
        return [Nodes(parse_selector(peer["nodes"]))]
    if peer.get("networks"):
        return [AddressBlock(parse_network(network)) for network in peer["networks"]]
    return _pods(peer) or [Unknowable(", ".join(sorted(peer)) or "a peer of a newer kind")]


def _ports(rule: Mapping[str, Any]) -> tuple[Ports, ...] | None:
    found = [_port(port) for port in rule.get("ports") or ()]
    found += [_protocol(protocol) for protocol in rule.get("protocols") or ()]
    return tuple(found) or None


def _port(port: Mapping[str, Any]) -> Ports:
    """Read a port of v1alpha1."""
    if port.get("portNumber") is not None:
        number = port["portNumber"]
        return parse_port(number["port"], None, parse_protocol(number.get("protocol")))
    if port.get("portRange") is not None:
        span = port["portRange"]
        return parse_port(span["start"], span["end"], parse_protocol(span.get("protocol")))
    return Ports(None, name=port["namedPort"])


def _protocol(protocol: Mapping[str, Any]) -> Ports:
    """Read a protocol of v1alpha2."""
    for name, number in PROTOCOLS.items():
        match = protocol.get(name.lower())
        if match is not None:
            port = match.get("destinationPort") or {}
            span = port.get("range") or {}
            return parse_port(port.get("number", span.get("start")), span.get("end"), number)
    return Ports(None, name=protocol["destinationNamedPort"])
