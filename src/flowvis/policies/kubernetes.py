"""Kubernetes NetworkPolicies (networking.k8s.io/v1)."""

from collections.abc import Mapping
from typing import Any

from flowvis.policies.model import (
    Action,
    AddressBlock,
    Direction,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Rule,
    parse_network,
    parse_port,
    parse_protocol,
    rule_name,
)
from flowvis.policies.selectors import parse_selector


def parse_network_policy(item: Mapping[str, Any]) -> Policy:
    """Read a NetworkPolicy."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = metadata["namespace"]
    subjects = (Pods(namespace, pods=parse_selector(spec.get("podSelector"))),)
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        PolicyType.KUBERNETES,
        namespace,
        metadata["name"],
        "",
        0.0,
        subjects,
        _rules(spec, Direction.INGRESS, subjects) if "Ingress" in types else None,
        _rules(spec, Direction.EGRESS, subjects) if "Egress" in types else None,
    )


def _rules(
    spec: Mapping[str, Any], direction: Direction, subjects: tuple[Pods, ...]
) -> tuple[Rule, ...]:
    side = "from" if direction is Direction.INGRESS else "to"
    return tuple(
        Rule(
            rule_name(rule, direction, place),
            Action.ALLOW,
            subjects,
            tuple(_peer(peer, subjects[0].namespace) for peer in rule.get(side) or ()) or None,
            tuple(_ports(port) for port in rule.get("ports") or ()) or None,
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _peer(peer: Mapping[str, Any], namespace: str | None) -> Peer:
    block = peer.get("ipBlock")
    if block is not None:
        parts = frozenset(parse_network(part) for part in block.get("except") or ())
        return AddressBlock(parse_network(block["cidr"]), parts)
    pods = parse_selector(peer.get("podSelector"))
    if peer.get("namespaceSelector") is None:
        return Pods(namespace, pods=pods)
    return Pods(namespaces=parse_selector(peer["namespaceSelector"]), pods=pods)


def _ports(port: Mapping[str, Any]) -> Ports:
    return parse_port(port.get("port"), port.get("endPort"), parse_protocol(port.get("protocol")))
