"""Policies of all kinds in one form: rules in order, the first that matches decides.

A Kubernetes NetworkPolicy is put into this form as rules that allow, and one that drops the rest
behind those of all its kind: default isolation.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from flowvis.policies.selectors import EVERYTHING, Selector

Network = IPv4Network | IPv6Network

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
MAX_PORT = 65535


class Direction(Enum):
    """Which end of a connection a policy guards."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Action(IntEnum):
    """What a rule does; the first four are values of the element RuleAction."""

    NONE = 0
    ALLOW = 1
    DROP = 2
    REJECT = 3
    PASS = 4


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
class Pods:
    """Pods, by namespace, labels and service account."""

    namespace: str | None = None
    """The only namespace, or None: those that `namespaces` selects."""
    namespaces: Selector = EVERYTHING
    pods: Selector = EVERYTHING
    account: str = ""
    same: tuple[str, ...] | None = None
    """Labels that the namespace shares with the subject's; (): it is the subject's own."""


@dataclass(frozen=True, slots=True)
class AddressBlock:
    """Addresses of a network without some of its parts."""

    network: Network
    parts: frozenset[Network] = frozenset()


@dataclass(frozen=True, slots=True)
class Nodes:
    """Addresses of the nodes that have labels."""

    nodes: Selector


@dataclass(frozen=True, slots=True)
class GroupName:
    """Members of a Group of a namespace, or of a ClusterGroup ("")."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Unknowable:
    """What the objects do not tell: domain names, external entities, other clusters."""

    what: str


Peer = Pods | AddressBlock | Nodes | GroupName | Unknowable


@dataclass(frozen=True, slots=True)
class Ports:
    """Destination ports of a protocol, or ports by the name that the destination's Pod gives."""

    protocol: int | None
    """None: every protocol."""
    low: int = 0
    high: int = MAX_PORT
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `peers` and `ports` of None match everything."""

    name: str
    action: Action
    subjects: tuple[Peer, ...]
    peers: tuple[Peer, ...] | None
    ports: tuple[Ports, ...] | None
    unknowable: bool = False
    """It asks for more than a record tells (source ports, ICMP types, the Service called)."""


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

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


def parse_network(text: Any) -> Network:
    """Read a CIDR; bits behind the prefix count for nothing."""
    return ip_network(str(text), strict=False)


def parse_protocol(value: Any) -> int:
    """Read a protocol's name; TCP where there is none."""
    try:
        return PROTOCOLS[value or "TCP"]
    except (KeyError, TypeError):
        raise ValueError(f"protocol {value!r}: allowed are {', '.join(PROTOCOLS)}") from None


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
