"""Antrea's policies (crd.antrea.io): NetworkPolicy, ClusterNetworkPolicy, groups and tiers."""

from collections.abc import Callable, Mapping
from typing import Any

from flowvis.policies.model import (
    Action,
    AddressBlock,
    Direction,
    GroupName,
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

APPLICATION = "application"
BASELINE_PRIORITY = 253
"""From this priority on tiers come after Kubernetes NetworkPolicies."""
TIERS = {
    "emergency": 50,
    "securityops": 100,
    "networkops": 150,
    "platform": 200,
    APPLICATION: 250,
    "baseline": BASELINE_PRIORITY,
}
"""The tiers that every Antrea has."""

_ACTIONS = {
    "Allow": Action.ALLOW,
    "Drop": Action.DROP,
    "Reject": Action.REJECT,
    "Pass": Action.PASS,
}
_ICMP = (1, 58)
_IGMP = 2


def parse_antrea_policy(item: Mapping[str, Any]) -> Policy:
    """Read an Antrea NetworkPolicy or ClusterNetworkPolicy."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = "" if item["kind"] == "ClusterNetworkPolicy" else metadata["namespace"]
    subjects = _peers(spec.get("appliedTo") or (), namespace)
    return Policy(
        PolicyType.ANTREA if namespace else PolicyType.ANTREA_CLUSTER,
        namespace,
        metadata["name"],
        str(spec.get("tier") or APPLICATION).lower(),
        float(spec.get("priority") or 0),
        subjects,
        _rules(spec, Direction.INGRESS, namespace, subjects),
        _rules(spec, Direction.EGRESS, namespace, subjects),
    )


def parse_group(item: Mapping[str, Any]) -> tuple[Peer, ...]:
    """Read a Group or ClusterGroup: its members."""
    spec = item.get("spec") or {}
    namespace = "" if item["kind"] == "ClusterGroup" else item["metadata"]["namespace"]
    blocks = [spec["ipBlock"]] if spec.get("ipBlock") else spec.get("ipBlocks") or ()
    members: list[Peer] = [_block(block) for block in blocks]
    members += [GroupName(namespace, str(child)) for child in spec.get("childGroups") or ()]
    if spec.get("serviceReference"):
        members.append(Unknowable("serviceReference"))
    return (*members, *_peers([spec], namespace)) if not members else tuple(members)


def parse_tier(item: Mapping[str, Any]) -> int:
    """Read a Tier: its priority."""
    return int(item["spec"]["priority"])


def _rules(
    spec: Mapping[str, Any],
    direction: Direction,
    namespace: str,
    subjects: tuple[Peer, ...],
) -> tuple[Rule, ...]:
    side = "from" if direction is Direction.INGRESS else "to"
    return tuple(
        Rule(
            rule_name(rule, direction, place),
            _ACTIONS[rule["action"]],
            _peers(rule.get("appliedTo") or (), namespace) or subjects,
            _peers(rule.get(side) or (), namespace) or None,
            _ports(rule),
            _unknowable(rule),
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _peers(choices: Any, namespace: str) -> tuple[Peer, ...]:
    return tuple(_peer(choice, namespace) for choice in choices)


def _peer(choice: Mapping[str, Any], namespace: str) -> Peer:
    for key, read in _READERS.items():
        if choice.get(key) not in (None, ""):
            return read(choice[key], namespace)
    if choice.get("scope") not in {None, "Cluster"}:
        return Unknowable(f"scope {choice['scope']}")
    selectors = [choice.get(key) for key in ("podSelector", "namespaceSelector", "namespaces")]
    if all(selector is None for selector in selectors):
        return Unknowable(", ".join(sorted(choice)) or "nothing")
    return _pods(choice, namespace)


def _pods(choice: Mapping[str, Any], namespace: str) -> Pods:
    pods = parse_selector(choice.get("podSelector"))
    relation = choice.get("namespaces")
    if relation is not None:
        same = () if relation.get("match") else tuple(relation["sameLabels"])
        return Pods(pods=pods, same=same)
    if choice.get("namespaceSelector") is not None:
        return Pods(namespaces=parse_selector(choice["namespaceSelector"]), pods=pods)
    return Pods(namespace or None, pods=pods)


def _account(account: Mapping[str, Any], namespace: str) -> Pods:
    return Pods(account.get("namespace") or namespace, account=account["name"])


def _block(block: Mapping[str, Any]) -> AddressBlock:
    parts = frozenset(parse_network(part) for part in block.get("except") or ())
    return AddressBlock(parse_network(block["cidr"]), parts)


def _ports(rule: Mapping[str, Any]) -> tuple[Ports, ...] | None:
    found = [
        parse_port(port.get("port"), port.get("endPort"), parse_protocol(port.get("protocol")))
        for port in rule.get("ports") or ()
    ]
    for protocol in rule.get("protocols") or ():
        found += [Ports(number) for number in (_ICMP if "icmp" in protocol else (_IGMP,))]
    return tuple(found) or None


def _unknowable(rule: Mapping[str, Any]) -> bool:
    icmp = [protocol.get("icmp") for protocol in rule.get("protocols") or ()]
    sources = [port.get("sourcePort") for port in rule.get("ports") or ()]
    return bool(rule.get("toServices")) or any(icmp) or any(port is not None for port in sources)


_READERS: dict[str, Callable[[Any, str], Peer]] = {
    "ipBlock": lambda block, _: _block(block),
    "group": lambda name, namespace: GroupName(namespace, str(name)),
    "nodeSelector": lambda selector, _: Nodes(parse_selector(selector)),
    "serviceAccount": _account,
}
"""What names its members by something else than Pods' labels."""
