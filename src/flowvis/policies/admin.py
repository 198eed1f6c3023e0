"""Cluster-wide policies of policy.networking.k8s.io.

v1alpha1: AdminNetworkPolicy and BaselineAdminNetworkPolicy; v1alpha2: ClusterNetworkPolicy. Under
v1alpha1 there are two forms of peers: until network-policy-api v0.1.1 `namespaces` held one of
`namespaceSelector`, `sameLabels` and `notSameLabels`, and `pods` held `namespaces` of that form;
since then `namespaces` is itself a selector. Both are read, by what an object has.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flowvis.fields import TRANSPORTS
from flowvis.policies.model import (
    Action,
    AddressBlock,
    Direction,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Relation,
    Rule,
    Unknowable,
    beyond,
    parse_network,
    parse_port,
    parse_protocol,
    rule_name,
    strange_rule,
    unrecognized_keys,
)
from flowvis.policies.selectors import EVERYTHING, NotUnderstood, Selector, parse_selector

# Among Antrea's tiers, as Antrea orders them: the application tier is 250, its baseline 253.
CLUSTER_ADMIN_TIER = 220
ADMIN_TIER = 251
BASELINE_TIER = 254
BASELINE_PRIORITY = 1.0  # of the one BaselineAdminNetworkPolicy, which has none of its own

_ACTIONS = {
    "Allow": Action.ALLOW,
    "Accept": Action.ALLOW,
    "Deny": Action.DROP,
    "Pass": Action.PASS,
}


_RULE = frozenset({"name", "action", "ports", "protocols"})
_SUBJECT = frozenset({"namespaces", "pods"})
_PEER = _SUBJECT | {"nodes", "networks", "domainNames"}
_PODS = frozenset({"namespaceSelector", "namespaces", "podSelector"})
_OLDER = frozenset({"namespaceSelector", "sameLabels", "notSameLabels"})
_PORT = {
    "portNumber": frozenset({"protocol", "port"}),
    "portRange": frozenset({"protocol", "start", "end"}),
    "namedPort": frozenset[str](),
}
_DESTINATION = frozenset({"number", "range"})


def parse_admin_policy(item: Mapping[str, Any]) -> Policy:
    """Read an AdminNetworkPolicy, a BaselineAdminNetworkPolicy or a ClusterNetworkPolicy."""
    spec = item.get("spec") or {}
    subjects = tuple(_understood(_pods, spec["subject"]))
    return Policy(
        PolicyType.KUBERNETES_CLUSTER,
        "",
        item["metadata"]["name"],
        _tier(item["kind"], spec),
        _priority(item["kind"], spec),
        subjects,
        _rules(spec, Direction.INGRESS, subjects),
        _rules(spec, Direction.EGRESS, subjects),
        item["kind"],
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


def _priority(kind: str, spec: Mapping[str, Any]) -> float:
    return (
        BASELINE_PRIORITY
        if kind == "BaselineAdminNetworkPolicy"
        else float(spec.get("priority") or 0)
    )


def _rules(
    spec: Mapping[str, Any], direction: Direction, subjects: tuple[Peer, ...]
) -> tuple[Rule, ...]:
    side = "from" if direction is Direction.INGRESS else "to"
    return tuple(
        Rule(
            rule_name(rule, direction, place),
            _ACTIONS[rule["action"]],
            subjects,
            strange_rule(rule, _RULE | {side})
            or tuple(found for peer in rule.get(side) or () for found in _understood(_peers, peer)),
            _ports(rule),
        )
        for place, rule in enumerate(spec.get(direction.value) or ())
    )


def _understood(
    read: Callable[[Mapping[str, Any]], list[Peer]], choice: Mapping[str, Any]
) -> list[Peer]:
    try:
        return read(choice)
    except NotUnderstood as error:
        return [Unknowable(str(error), unrecognized=True)]


def _pods(choice: Mapping[str, Any], known: frozenset[str] = _SUBJECT) -> list[Peer]:
    strange = unrecognized_keys(choice, known)
    if strange:
        raise NotUnderstood(f"peer or subject with {strange}")
    namespaces = choice.get("namespaces")
    if namespaces is not None:
        if _OLDER.isdisjoint(namespaces):
            return [Pods(namespaces=parse_selector(namespaces))]
        return _of_namespaces(namespaces, EVERYTHING)
    pods = choice.get("pods")
    if pods is None:
        raise NotUnderstood("peer or subject with nothing")
    strange = unrecognized_keys(pods, _PODS)
    if strange:
        raise NotUnderstood(f"pods with {strange}")
    selected = parse_selector(pods.get("podSelector"))
    if pods.get("namespaces") is None:
        return [Pods(namespaces=parse_selector(pods.get("namespaceSelector")), pods=selected)]
    if pods.get("namespaceSelector") is not None:
        raise NotUnderstood("pods with namespaces, namespaceSelector")
    return _of_namespaces(pods["namespaces"], selected)


def _of_namespaces(choice: Mapping[str, Any], pods: Selector) -> list[Peer]:
    """Read the older form of a choice of namespaces."""
    given = sorted(key for key, value in choice.items() if value is not None)
    if len(given) != 1 or given[0] not in _OLDER:
        raise NotUnderstood(f"namespaces with {', '.join(given) or 'nothing'}")
    (way,) = given
    if way == "namespaceSelector":
        return [Pods(namespaces=parse_selector(choice[way]), pods=pods)]
    keys = tuple(sorted({str(key) for key in choice[way]}))
    # No label is compared: no namespace is selected.
    return [Pods(pods=pods, relation=Relation(keys, same=way == "sameLabels"))] if keys else []


def _peers(peer: Mapping[str, Any]) -> list[Peer]:
    strange = unrecognized_keys(peer, _PEER)
    if strange:
        raise NotUnderstood(f"peer with {strange}")
    if peer.get("nodes") is not None:
        return [Nodes(parse_selector(peer["nodes"]))]
    if peer.get("networks"):
        return [AddressBlock(parse_network(network)) for network in peer["networks"]]
    if peer.get("domainNames"):
        return [Unknowable("domainNames", pods=False)]
    return _pods(peer, _PEER)


def _ports(rule: Mapping[str, Any]) -> tuple[Ports, ...] | None:
    found = [_port(port) for port in rule.get("ports") or ()]
    found += [_protocol(protocol) for protocol in rule.get("protocols") or ()]
    return tuple(found) or None


def _port(port: Mapping[str, Any]) -> Ports:
    """Read a port of v1alpha1."""
    way = next((key for key in _PORT if port.get(key) is not None), None)
    others = unrecognized_keys(port, frozenset({way} if way else ()))
    if way is None or others:
        return beyond(Ports(None), others or "nothing")
    if way == "namedPort":
        return Ports(None, name=str(port[way]))
    span = port[way]
    low, high = (span["port"], None) if way == "portNumber" else (span["start"], span["end"])
    found = parse_port(low, high, parse_protocol(span.get("protocol")))
    return beyond(found, unrecognized_keys(span, _PORT[way]))


def _protocol(protocol: Mapping[str, Any]) -> Ports:
    """Read a protocol of v1alpha2."""
    names = {name.lower(): number for name, number in TRANSPORTS.items()}
    given = [key for key, value in protocol.items() if value is not None]
    if given == ["destinationNamedPort"]:
        return Ports(None, name=str(protocol["destinationNamedPort"]))
    if len(given) != 1 or given[0] not in names:
        return beyond(Ports(None), ", ".join(sorted(given)) or "nothing")
    match = protocol[given[0]]
    port = match.get("destinationPort") or {}
    span = port.get("range") or {}
    found = parse_port(port.get("number", span.get("start")), span.get("end"), names[given[0]])
    strange = unrecognized_keys(match, frozenset({"destinationPort"}))
    return beyond(found, strange or unrecognized_keys(port, _DESTINATION))
