"""Kubernetes NetworkPolicies (networking.k8s.io/v1)."""

from collections.abc import Mapping
from typing import Any

from flowvis.policies.model import (
    Action,
    Direction,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Rule,
    beyond,
    namespace_of,
    parse_block,
    parse_port,
    parse_protocol,
    rule_name,
    strange_rule,
    understood,
    unrecognized_keys,
)
from flowvis.policies.selectors import NotUnderstood, parse_selector

_PEER = frozenset({"ipBlock", "podSelector", "namespaceSelector"})
_PORT = frozenset({"protocol", "port", "endPort"})


def parse_network_policy(item: Mapping[str, Any]) -> Policy:
    """Read a NetworkPolicy."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = namespace_of(metadata)

    def selected(selector: Mapping[str, Any] | None) -> Peer:
        return Pods(namespace, pods=parse_selector(selector))

    subjects = (understood(selected, spec.get("podSelector"), within=namespace),)
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        PolicyType.KUBERNETES,
        namespace,
        metadata["name"],
        "",
        0.0,
        subjects,
        _rules(spec, Direction.INGRESS, namespace, subjects) if "Ingress" in types else None,
        _rules(spec, Direction.EGRESS, namespace, subjects) if "Egress" in types else None,
        "NetworkPolicy",
    )


def _rules(
    spec: Mapping[str, Any], direction: Direction, namespace: str, subjects: tuple[Peer, ...]
) -> tuple[Rule, ...]:
    side = "from" if direction is Direction.INGRESS else "to"

    def peers(rule: Mapping[str, Any]) -> tuple[Peer, ...] | None:
        strange = strange_rule(rule, frozenset({side, "ports"}))
        if strange:
            return strange
        chosen = rule.get(side) or ()
        return tuple(understood(lambda p: _peer(p, namespace), peer) for peer in chosen) or None

    return tuple(
        Rule(
            rule_name(rule, direction, place),
            Action.ALLOW,
            subjects,
            peers(rule),
            tuple(_ports(port) for port in rule.get("ports") or ()) or None,
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _peer(peer: Mapping[str, Any], namespace: str) -> Peer:
    strange = unrecognized_keys(peer, _PEER)
    if strange or not peer:
        raise NotUnderstood(f"peer with {strange or 'nothing'}")
    block = peer.get("ipBlock")
    if block is not None:
        return parse_block(block)
    pods = parse_selector(peer.get("podSelector"))
    if peer.get("namespaceSelector") is None:
        return Pods(namespace, pods=pods)
    return Pods(namespaces=parse_selector(peer["namespaceSelector"]), pods=pods)


def _ports(port: Mapping[str, Any]) -> Ports:
    found = parse_port(port.get("port"), port.get("endPort"), parse_protocol(port.get("protocol")))
    return beyond(found, unrecognized_keys(port, _PORT))
