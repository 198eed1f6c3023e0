"""Antrea's policies (crd.antrea.io): NetworkPolicy, ClusterNetworkPolicy, groups and tiers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flowvis.policies.model import (
    Action,
    Direction,
    GroupName,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Relation,
    Rule,
    ServicePods,
    Unknowable,
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
_RULE = frozenset({"name", "action", "ports", "protocols", "l7Protocols", "toServices"})
_RULE |= {"appliedTo", "enableLogging", "logLabel"}
_SELECTORS = frozenset({"podSelector", "namespaceSelector", "externalEntitySelector"})
_APPLIED_TO = _SELECTORS | {"group", "serviceAccount", "service", "nodeSelector"}
_PEER = _SELECTORS | {
    "ipBlock",
    "group",
    "fqdn",
    "serviceAccount",
    "nodeSelector",
    "scope",
    "namespaces",
}
_GROUP = _SELECTORS | {"ipBlock", "ipBlocks", "serviceReference", "childGroups", "nodeSelector"}
_PORT = frozenset({"protocol", "port", "endPort", "sourcePort", "sourceEndPort"})
_WITHOUT_PORTS = {
    "icmp": ((1, 58), frozenset({"icmpType", "icmpCode"})),
    "igmp": ((2,), frozenset({"igmpType", "groupAddress"})),
}
"""Protocol numbers, and what else can be asked of them, which no record tells."""
_PROTOCOL = frozenset(_WITHOUT_PORTS)


def parse_antrea_policy(item: Mapping[str, Any]) -> Policy:
    """Read an Antrea NetworkPolicy or ClusterNetworkPolicy."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = "" if item["kind"] == "ClusterNetworkPolicy" else namespace_of(metadata)
    subjects = _subjects(spec.get("appliedTo") or (), namespace)
    return Policy(
        PolicyType.ANTREA if namespace else PolicyType.ANTREA_CLUSTER,
        namespace,
        metadata["name"],
        str(spec.get("tier") or APPLICATION).lower(),
        float(spec.get("priority") or 0),
        subjects,
        _rules(spec, Direction.INGRESS, namespace, subjects),
        _rules(spec, Direction.EGRESS, namespace, subjects),
        item["kind"],
    )


def parse_group(item: Mapping[str, Any]) -> tuple[Peer, ...]:
    """Read a Group or ClusterGroup: its members, by the first of the ways to name them."""
    spec = item.get("spec") or {}
    namespace = "" if item["kind"] == "ClusterGroup" else namespace_of(item["metadata"])
    strange = unrecognized_keys(spec, _GROUP)
    if strange:
        what = f"members by {strange}"
        return (Unknowable(what, unrecognized=True, namespace=namespace or None),)
    if spec.get("childGroups"):
        return tuple(GroupName(namespace, str(child)) for child in spec["childGroups"])
    blocks = [spec["ipBlock"]] if spec.get("ipBlock") else spec.get("ipBlocks")
    if blocks:
        return tuple(understood(parse_block, block) for block in blocks)
    service = spec.get("serviceReference")
    if service:
        return (ServicePods(str(service.get("namespace") or namespace), str(service["name"])),)
    return (understood(lambda spec: _peer(spec, namespace, _GROUP), spec, within=namespace),)


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

    def peers(rule: Mapping[str, Any]) -> tuple[Peer, ...] | None:
        strange = strange_rule(rule, _RULE | {side})
        if strange:
            return strange
        if rule.get("toServices"):
            return (Unknowable("toServices", pods=False),)
        return _peers(rule.get(side) or (), namespace) or None

    return tuple(
        Rule(
            rule_name(rule, direction, place),
            _ACTIONS[rule["action"]],
            _subjects(rule.get("appliedTo") or (), namespace) or subjects,
            peers(rule),
            _ports(rule),
            names_of_pods=direction is Direction.EGRESS,
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _peers(choices: Any, namespace: str) -> tuple[Peer, ...]:
    return tuple(understood(lambda c: _peer(c, namespace, _PEER), choice) for choice in choices)


def _subjects(choices: Any, namespace: str) -> tuple[Peer, ...]:
    return tuple(
        understood(lambda c: _peer(c, namespace, _APPLIED_TO), choice, within=namespace)
        for choice in choices
    )


def _peer(choice: Mapping[str, Any], namespace: str, known: frozenset[str]) -> Peer:
    strange = unrecognized_keys(choice, known)
    if strange:
        raise NotUnderstood(f"peer or appliedTo with {strange}")
    for key, read in _READERS.items():
        if choice.get(key) not in (None, ""):
            return read(choice[key], namespace)
    if choice.get("scope") not in {None, "", "Cluster"}:
        return Unknowable(f"scope {choice['scope']}")
    selectors = [choice.get(key) for key in ("podSelector", "namespaceSelector", "namespaces")]
    if all(selector is None for selector in selectors):
        return Unknowable(", ".join(sorted(choice)) or "nothing")
    return _pods(choice, namespace)


def _pods(choice: Mapping[str, Any], namespace: str) -> Pods:
    pods = parse_selector(choice.get("podSelector"))
    if choice.get("namespaces") is not None:
        return Pods(pods=pods, relation=_relation(choice["namespaces"]))
    if choice.get("namespaceSelector") is not None:
        return Pods(namespaces=parse_selector(choice["namespaceSelector"]), pods=pods)
    return Pods(namespace or None, pods=pods)


def _relation(namespaces: Mapping[str, Any]) -> Relation:
    match namespaces:
        case {"match": "Self", **rest} if not any(rest.values()):
            return Relation()
        case {"sameLabels": [_, *_] as keys, **rest} if not any(rest.values()):
            return Relation(tuple(sorted({str(key) for key in keys})))
    given = ", ".join(f"{key} {value}" for key, value in sorted(namespaces.items()))
    raise NotUnderstood(f"namespaces with {given or 'nothing'}")


def _account(account: Mapping[str, Any], namespace: str) -> Pods:
    return Pods(str(account.get("namespace") or namespace), account=str(account["name"]))


def _ports(rule: Mapping[str, Any]) -> tuple[Ports, ...] | None:
    found = [_port(port) for port in rule.get("ports") or ()]
    for protocol in rule.get("protocols") or ():
        found += _protocol(protocol)
    return tuple(found) or None


def _port(port: Mapping[str, Any]) -> Ports:
    found = parse_port(port.get("port"), port.get("endPort"), parse_protocol(port.get("protocol")))
    if port.get("sourcePort") is not None:
        found = replace(found, unknowable="sourcePort")
    return beyond(found, unrecognized_keys(port, _PORT))


def _protocol(protocol: Mapping[str, Any]) -> list[Ports]:
    """Read what has no ports; an entry may have several, each of which matches."""
    strange = unrecognized_keys(protocol, _PROTOCOL)
    if strange or not protocol:
        return [beyond(Ports(None), strange or "nothing")]
    found = []
    for name, (numbers, known) in _WITHOUT_PORTS.items():
        types = protocol.get(name)
        if types is not None:
            asked = ", ".join(sorted(key for key, value in types.items() if value is not None))
            strange = unrecognized_keys(types, known)
            found += [beyond(Ports(number, unknowable=asked), strange) for number in numbers]
    return found


_READERS: dict[str, Callable[[Any, str], Peer]] = {
    "ipBlock": lambda block, _: parse_block(block),
    "group": lambda name, namespace: GroupName(namespace, str(name)),
    "nodeSelector": lambda selector, _: Nodes(parse_selector(selector), every=False),
    "serviceAccount": _account,
    "externalEntitySelector": lambda *_: Unknowable("externalEntitySelector"),
    "service": lambda *_: Unknowable("service"),
    "fqdn": lambda *_: Unknowable("fqdn", pods=False),
}
"""What names its members by something else than Pods' labels."""
