"""What policies select, in words."""

from flowvis.fields import PROTOCOLS
from flowvis.policies.model import (
    MAX_PORT,
    AddressBlock,
    GroupName,
    Nodes,
    Peer,
    Pods,
    Policy,
    Ports,
    Relation,
    ServicePods,
    Unknowable,
)
from flowvis.policies.selectors import Requirement, Selector

_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}


def policy_name(policy: Policy) -> str:
    """Name a policy as `kubectl` does: `NetworkPolicy shop/allow-web`."""
    return f"{policy.kind} {'/'.join(part for part in (policy.namespace, policy.name) if part)}"


def rule_words(policy: Policy, rule: str) -> str:
    """Name a rule of a policy; "" is its default isolation."""
    return f"{policy_name(policy)}, " + (f"rule {rule}" if rule else "default isolation")


def protocol_words(protocol: int) -> str:
    """Name a protocol."""
    return _PROTOCOLS.get(protocol, f"protocol {protocol}")


def requirement_words(requirement: Requirement) -> str:
    """Write what one label must be like, as `kubectl -l` does."""
    key, values = requirement.key, sorted(requirement.values)
    listed = f"({', '.join(values)})"
    match requirement.operator:
        case "In":
            return f"{key}={values[0]}" if len(values) == 1 else f"{key} in {listed}"
        case "NotIn":
            return f"{key}!={values[0]}" if len(values) == 1 else f"{key} notin {listed}"
        case "Exists":
            return key
        case _:
            return f"!{key}"


def selector_words(selector: Selector) -> str:
    """Write a selector; "" selects everything."""
    return ", ".join(map(requirement_words, selector.requirements))


def peer_words(peer: Peer) -> str:
    """Say whom a peer or a subject selects."""
    match peer:
        case Pods():
            return _pods(peer)
        case AddressBlock(network, parts):
            without = ", ".join(sorted(map(str, parts)))
            return f"{network} without {without}" if without else str(network)
        case Nodes(nodes):
            return f"nodes with {selector_words(nodes)}" if nodes.requirements else "every node"
        case GroupName(namespace, name):
            return f"Group {namespace}/{name}" if namespace else f"ClusterGroup {name}"
        case ServicePods(namespace, name):
            return f"Pods of Service {namespace}/{name}"
        case Unknowable(what):
            return what
    raise TypeError(f"{peer!r} is no peer")


def ports_words(ports: Ports) -> str:
    """Say which ports an entry has."""
    protocol = "" if ports.protocol is None else f"{protocol_words(ports.protocol)} "
    more = f" ({ports.unknowable})" if ports.unknowable else ""
    if ports.name:
        return f"{protocol}port named {ports.name}{more}"
    if (ports.low, ports.high) == (0, MAX_PORT):
        return f"{protocol}every port{more}" if protocol else f"every protocol{more}"
    span = str(ports.low) if ports.low == ports.high else f"{ports.low}-{ports.high}"
    return f"{protocol}{span}{more}"


def _pods(peer: Pods) -> str:
    labels = selector_words(peer.pods)
    who = f"Pods with {labels}" if labels else "Pods"
    if peer.account:
        who = f"{who} of service account {peer.account}"
    if peer.relation is not None:
        return f"{who} {_relation(peer.relation)}"
    if peer.namespace is not None:
        return f"{who} in namespace {peer.namespace}"
    chosen = selector_words(peer.namespaces)
    return f"{who} in namespaces with {chosen}" if chosen else f"{who} in every namespace"


def _relation(relation: Relation) -> str:
    if not relation.keys:
        return "in the same namespace"
    keys = ", ".join(relation.keys)
    same = "the same" if relation.same else "another"
    return f"in namespaces with {same} {keys}"
