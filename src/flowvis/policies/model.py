"""Policies of all kinds in one form: rules in order, the first that matches decides.

A Kubernetes NetworkPolicy is put into this form as rules that allow, and one that drops the rest
behind those of all its kind: default isolation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from flowvis import addresses
from flowvis.fields import TRANSPORTS
from flowvis.policies.selectors import EVERYTHING, NotUnderstood, Selector

Network = IPv4Network | IPv6Network

MAX_PORT = 65535
_BLOCK = frozenset({"cidr", "except"})


class Direction(Enum):
    """Which end of a connection a policy guards."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Action(IntEnum):
    """What a rule does: values of the element RuleAction, and one that no record has."""

    NONE = 0
    ALLOW = 1
    DROP = 2
    REJECT = 3
    PASS = 255


class PolicyType(IntEnum):
    """Values of ingressNetworkPolicyType and egressNetworkPolicyType."""

    NONE = 0
    KUBERNETES = 1
    ANTREA = 2
    ANTREA_CLUSTER = 3
    KUBERNETES_CLUSTER = 4


class PolicyStage(IntEnum):
    """The order of evaluation; Pass goes on with the next stage."""

    TIERS = 0
    STANDARD = 1
    BASELINE = 2


@dataclass(frozen=True, slots=True)
class Relation:
    """What a peer's namespace has to do with the subject's."""

    keys: tuple[str, ...] = ()
    """Labels that both namespaces must have; (): it is the subject's own namespace."""
    same: bool = True
    """Whether all their values are the same; else at least one is another."""


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods, by namespace, labels and service account."""

    namespace: str | None = None
    """The only namespace, or None: those that `namespaces` selects."""
    namespaces: Selector = EVERYTHING
    pods: Selector = EVERYTHING
    account: str = ""
    relation: Relation | None = None

    def select(
        self, namespace: str, named: Mapping[str, str], labels: Mapping[str, str], account: str
    ) -> bool:
        """Whether a Pod is one, by a namespace with labels `named`; but for the relation."""
        near = (
            self.namespaces.matches(named)
            if self.namespace is None
            else self.namespace == namespace
        )
        return near and self.account in {"", account} and self.pods.matches(labels)


@dataclass(frozen=True, slots=True)
class AddressBlock:
    """Addresses of a network without some of its parts."""

    network: Network
    parts: frozenset[Network] = frozenset()


@dataclass(frozen=True, slots=True)
class Nodes:
    """Addresses of the nodes that have labels."""

    nodes: Selector
    every: bool = True
    """Whether all addresses of a node count, or only those that Antrea takes."""


@dataclass(frozen=True, slots=True)
class GroupName:
    """Members of a Group of a namespace, or of a ClusterGroup ("")."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ServicePods:
    """The Pods that a Service selects; none where it is missing or has no selector."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Unknowable:
    """What the objects do not tell: domain names, external entities, other clusters."""

    what: str
    unrecognized: bool = False
    """Whether it is a part of the object that is not understood, as of a newer API."""
    namespace: str | None = None
    """Where the Pods are that it may select; None: anywhere."""
    pods: bool = True
    """Whether it may select Pods as such, rather than addresses."""


Peer = Pods | AddressBlock | Nodes | GroupName | ServicePods | Unknowable


@dataclass(frozen=True, slots=True)
class Ports:
    """Destination ports of a protocol, or ports by the name that the destination's Pod gives."""

    protocol: int | None
    """None: every protocol."""
    low: int = 0
    high: int = MAX_PORT
    name: str = ""
    unknowable: str = ""
    """What else it asks for that no record tells: source ports, ICMP types; "" nothing."""
    unrecognized: bool = False
    """Whether that is a part of the object that is not understood."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `peers` and `ports` of None match everything."""

    name: str
    action: Action
    subjects: tuple[Peer, ...]
    peers: tuple[Peer, ...] | None
    ports: tuple[Ports, ...] | None
    names_of_pods: bool = False
    """Whether port names are those of Pods that peers select as such, and no other peer has any."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy; a direction of None is one that it does not speak of."""

    type: PolicyType
    namespace: str
    name: str
    tier: str | int
    """The name of a Tier, or the priority of one."""
    priority: float
    subjects: tuple[Peer, ...]
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    kind: str
    """The kind of the object: a type may have several."""

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


def unrecognized_keys(part: Mapping[str, Any], known: frozenset[str]) -> str:
    """Return what a part of an object has besides known keys; "" if nothing."""
    return ", ".join(sorted(k for k, value in part.items() if k not in known and value is not None))


def understood(read: Callable[[Any], Peer], choice: Any, *, within: str = "") -> Peer:
    """Return the peer that a choice is; what has parts that we do not know may select anybody.

    `within` is the namespace of what it can select, where it has to be in one.
    """
    try:
        return read(choice)
    except NotUnderstood as error:
        return Unknowable(str(error), unrecognized=True, namespace=within or None)


def strange_rule(rule: Mapping[str, Any], known: frozenset[str]) -> tuple[Unknowable, ...]:
    """Return whom a rule that has parts which we do not know may be of: anybody; else nothing."""
    strange = unrecognized_keys(rule, known)
    return (Unknowable(f"rule with {strange}", unrecognized=True),) if strange else ()


def unrecognized_parts(value: Policy | tuple[Peer, ...]) -> tuple[str, ...]:
    """Return what is not understood of a policy or a group, as it is named there."""
    found: dict[str, None] = {}
    groups = [value] if isinstance(value, tuple) else [value.subjects]
    if isinstance(value, Policy):
        for rule in (*(value.ingress or ()), *(value.egress or ())):
            groups += [rule.subjects, rule.peers or ()]
            found |= {p.unknowable: None for p in rule.ports or () if p.unrecognized}
    for peers in groups:
        found |= {p.what: None for p in peers if isinstance(p, Unknowable) and p.unrecognized}
    return tuple(found)


def namespace_of(metadata: Mapping[str, Any]) -> str:
    """Return the namespace of an object that has to be in one."""
    namespace = metadata.get("namespace")
    if not namespace:
        raise ValueError("metadata.namespace is missing")
    return str(namespace)


def parse_network(text: Any) -> Network:
    """Read a CIDR as API servers have taken it; an address alone is a network of its own."""
    try:
        return addresses.parse_network(text)
    except ValueError:
        return ip_network(str(text), strict=False)


def parse_block(block: Mapping[str, Any]) -> AddressBlock:
    """Read an ipBlock; NotUnderstood if it has more than a network and exceptions."""
    strange = unrecognized_keys(block, _BLOCK)
    if strange:
        raise NotUnderstood(f"ipBlock with {strange}")
    parts = frozenset(parse_network(part) for part in block.get("except") or ())
    return AddressBlock(parse_network(block["cidr"]), parts)


def beyond(ports: Ports, strange: str) -> Ports:
    """Return ports that also ask for what we do not know, if there is such."""
    if not strange:
        return ports
    return replace(ports, unknowable=f"port with {strange}", unrecognized=True)


def parse_protocol(value: Any) -> int:
    """Read a protocol's name; TCP where there is none."""
    try:
        return TRANSPORTS[value or "TCP"]
    except (KeyError, TypeError):
        raise ValueError(f"protocol {value!r}: allowed are {', '.join(TRANSPORTS)}") from None


def parse_port(value: Any, last: Any, protocol: int | None) -> Ports:
    """Read an IntOrString port and the end of its range."""
    if value is None:
        return Ports(protocol)
    if isinstance(value, str):
        return Ports(protocol, name=value)
    low, high = int(value), int(value if last is None else last)
    if not 0 <= low <= high <= MAX_PORT:
        raise ValueError(f"ports {low}-{high}: at most 0-{MAX_PORT}")
    return Ports(protocol, low, high)


def rule_name(rule: dict[str, Any], direction: Direction, place: int) -> str:
    """The rule's name; one without is named by its place."""
    return str(rule.get("name") or f"{direction.value}[{place}]")
