"""The policies of one epoch: endpoints to classes, pairs of classes to verdicts.

What an end of a connection is to all policies is the set of atoms that it is in, its class:
thousands of Pods make tens of classes, and a verdict is found once for two classes and a class of
ports.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flowvis.policies.model import Action, Direction, Pods, PolicyStage, Ports
from flowvis.policies.objects import NAME_LABEL, Labels, Snapshot
from flowvis.policies.rulebook import (
    NOTHING,
    UNKNOWN,
    CompiledRule,
    PolicyVerdict,
    Rulebook,
    RulePeers,
)
from flowvis.policies.selectors import Pair


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A container's port that has a name."""

    name: str
    protocol: int
    number: int


@dataclass(frozen=True, slots=True)
class Member:
    """What policies can ask of a Pod."""

    namespace: str
    labels: tuple[Pair, ...]
    account: str = ""
    ports: tuple[NamedPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A class of endpoints; two endpoints are of one class if no policy can tell them apart."""

    atoms: frozenset[int]
    namespace: str
    """Of a Pod, if rules compare namespaces."""
    ports: tuple[NamedPort, ...]
    """Those whose names rules have."""
    pod: bool
    rules: dict[Direction, list[CompiledRule]] = field(
        default_factory=dict, compare=False, hash=False
    )


class Generation:
    """The state of one epoch; `rules` are those of its snapshot."""

    def __init__(self, snapshot: Snapshot, rules: Rulebook) -> None:
        self.rules = rules
        self._namespaces = snapshot.namespaces
        self._nodes = snapshot.nodes
        self.nodes = {
            address: name for name, node in snapshot.nodes.items() for address in node.addresses
        }
        self._members: dict[Member, frozenset[int]] = {}

    def end(self, member: Member | None, blocks: int, address: bytes) -> Endpoint:
        """Return the class of an end: a Pod or None, its place in the blocks' sets, its address."""
        atoms = self.rules.blocks.sets[blocks]
        if member is None:
            node = self.nodes.get(address)
            return Endpoint(atoms | self._of_node(node) if node else atoms, "", (), pod=False)
        if member not in self._members:
            self._members[member] = frozenset(self._of_member(member))
        ports = tuple(port for port in member.ports if port.name in self.rules.port_names)
        for port in ports:
            self.rules.ports.set_apart(port.protocol, port.number)
        namespace = member.namespace if self.rules.relational else ""
        return Endpoint(atoms | self._members[member], namespace, ports, pod=True)

    def decide(
        self,
        direction: Direction,
        source: Endpoint,
        destination: Endpoint,
        protocol: int,
        port: int,
    ) -> PolicyVerdict:
        """Return what decides over a connection in one direction."""
        endpoints = (
            (destination, source) if direction is Direction.INGRESS else (source, destination)
        )
        subject, peer = endpoints
        if not subject.pod:
            return NOTHING
        if direction not in subject.rules:
            subject.rules[direction] = self.rules.rules_for(subject.atoms, direction)
        stage = PolicyStage.TIERS
        for rule in subject.rules[direction]:
            if rule.stage < stage or not _serves(rule.ports, protocol, port, destination):
                continue
            fits = self._fits(rule.peers, subject, peer)
            if fits is False:
                continue
            if fits is None or rule.unknowable:
                return UNKNOWN
            if rule.action is not Action.PASS:
                return rule.verdict
            if rule.stage is PolicyStage.BASELINE:
                return NOTHING
            stage = PolicyStage(rule.stage + 1)
        return NOTHING

    def _of_member(self, member: Member) -> Iterator[int]:
        labels = dict(member.labels)
        namespace = self._namespace(member.namespace)
        for own in (None, *member.labels):
            for anchor in (
                (member.namespace, own, None),
                *((None, own, pair) for pair in (None, *namespace.items())),
            ):
                for atom, number in self.rules.pods.get(anchor, ()):
                    if _selects(atom, member, labels, namespace):
                        yield number

    def _of_node(self, name: str) -> frozenset[int]:
        labels = self._nodes[name].labels
        return frozenset(n for atom, n in self.rules.nodes if atom.nodes.matches(labels))

    def _namespace(self, name: str) -> Labels:
        return self._namespaces.get(name) or {NAME_LABEL: name}

    def _fits(self, peers: RulePeers, subject: Endpoint, peer: Endpoint) -> bool | None:
        """Whether a peer is one of a rule's; None: not to be known."""
        if peers.plain is None or not peers.plain.isdisjoint(peer.atoms):
            return True
        for atom, keys in peers.related:
            if atom in peer.atoms and self._same(keys, subject.namespace, peer.namespace):
                return True
        return None if peers.unknowable else False

    def _same(self, keys: tuple[str, ...], one: str, other: str) -> bool:
        if not keys:
            return one == other
        mine, theirs = self._namespace(one), self._namespace(other)
        return all(key in mine and mine[key] == theirs.get(key) for key in keys)


def _selects(atom: Pods, member: Member, labels: Mapping[str, str], namespace: Labels) -> bool:
    return (
        atom.account in {"", member.account}
        and atom.pods.matches(labels)
        and (atom.namespace is not None or atom.namespaces.matches(namespace))
    )


def _serves(
    ports: tuple[Ports, ...] | None, protocol: int, port: int, destination: Endpoint
) -> bool:
    if ports is None:
        return True
    for some in ports:
        if some.protocol is not None and some.protocol != protocol:
            continue
        if (
            _named(some, protocol, port, destination)
            if some.name
            else some.low <= port <= some.high
        ):
            return True
    return False


def _named(some: Ports, protocol: int, port: int, destination: Endpoint) -> bool:
    return any(
        (own.name, own.protocol, own.number) == (some.name, protocol, port)
        for own in destination.ports
    )
