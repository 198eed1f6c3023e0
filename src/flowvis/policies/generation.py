"""The policies of one epoch, compiled: ends to classes, pairs of classes to verdicts.

An *atom* is one distinct peer of any rule (some Pods, an address block, some nodes). What an end of
a connection is to all policies is the set of atoms that it is in, its class: thousands of Pods make
tens of classes, and a verdict is found once for two classes and a class of ports.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flowvis.policies.antrea import APPLICATION, BASELINE_PRIORITY, TIERS
from flowvis.policies.model import (
    Action,
    Block,
    Direction,
    GroupName,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyType,
    Ports,
    Rule,
    Stage,
    Unknowable,
)
from flowvis.policies.networks import Blocks
from flowvis.policies.objects import NAME_LABEL, Labels, Snapshot
from flowvis.policies.ports import PortClasses
from flowvis.policies.selectors import Pair

MAX_DEPTH = 8  # groups in groups; Antrea allows one level
Anchor = tuple[str | None, Pair | None, Pair | None]


class Verdict(NamedTuple):
    """The policy and rule that decided, as a record has them."""

    name: str
    namespace: str
    type: PolicyType
    rule: str
    action: Action


NOTHING = Verdict("", "", PolicyType.NONE, "", Action.NONE)
"""No policy decided: the connection is allowed."""
UNKNOWN = Verdict("", "", PolicyType.NONE, "unknown", Action.NONE)
"""Not to be told from the objects; a record shows it as nothing."""


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
class _Peers:
    """The peers of a rule as atoms; None: everything."""

    plain: frozenset[int] | None
    related: tuple[tuple[int, tuple[str, ...]], ...] = ()
    unknowable: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    order: int
    stage: Stage
    action: Action
    peers: _Peers
    ports: tuple[Ports, ...] | None
    unknowable: bool
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class End:
    """A class of ends; two ends are of one class if no policy can tell them apart."""

    atoms: frozenset[int]
    namespace: str
    """Of a Pod, if rules compare namespaces."""
    ports: tuple[NamedPort, ...]
    """Those whose names rules have."""
    pod: bool
    rules: dict[Direction, list[_Rule]] = field(default_factory=dict, compare=False, hash=False)


class Generation:
    """The compiled state of one epoch."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._atoms: dict[Peer, int] = {}
        self._relational = False
        self._port_names: set[str] = set()
        self._by_subject: dict[Direction, dict[int, list[_Rule]]] = {}
        numbered: set[Ports] = set()
        for direction in Direction:
            self._by_subject[direction] = {}
            for order, (stage, policy, rule) in enumerate(self._ordered(direction)):
                self._compile(order, stage, policy, rule, direction)
                numbered.update(rule.ports or ())
        self._port_names = {ports.name for ports in numbered if ports.name}
        self.ports = PortClasses(numbered)
        self.blocks = Blocks({a: n for a, n in self._atoms.items() if isinstance(a, Block)})
        self._anchored: dict[Anchor, list[tuple[Pods, int]]] = {}
        for atom, number in self._atoms.items():
            if isinstance(atom, Pods):
                self._anchored.setdefault(_anchor(atom), []).append((atom, number))
        self._node_atoms = [(a, n) for a, n in self._atoms.items() if isinstance(a, Nodes)]
        self.nodes = {
            address: name for name, node in snapshot.nodes.items() for address in node.addresses
        }
        self._members: dict[Member, frozenset[int]] = {}

    def end(self, member: Member | None, blocks: int, address: bytes) -> End:
        """Return the class of an end: a Pod or None, its place in `blocks.sets`, its address."""
        atoms = self.blocks.sets[blocks]
        if member is None:
            node = self.nodes.get(address)
            return End(atoms | self._of_node(node) if node else atoms, "", (), pod=False)
        if member not in self._members:
            self._members[member] = frozenset(self._of_member(member))
        ports = tuple(port for port in member.ports if port.name in self._port_names)
        for port in ports:
            self.ports.set_apart(port.protocol, port.number)
        namespace = member.namespace if self._relational else ""
        return End(atoms | self._members[member], namespace, ports, pod=True)

    def decide(
        self, direction: Direction, source: End, destination: End, protocol: int, port: int
    ) -> Verdict:
        """Return what decides over a connection in one direction."""
        ends = (destination, source) if direction is Direction.INGRESS else (source, destination)
        subject, peer = ends
        if not subject.pod:
            return NOTHING
        if direction not in subject.rules:
            subject.rules[direction] = self._rules_of(subject, direction)
        stage = Stage.TIERS
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
            if rule.stage is Stage.BASELINE:
                return NOTHING
            stage = Stage(rule.stage + 1)
        return NOTHING

    def _ordered(self, direction: Direction) -> Iterator[tuple[Stage, Policy, Rule]]:
        """Go through all rules of one direction in their order of evaluation."""
        policies = sorted(self._snapshot.policies, key=self._precedence)
        stages: dict[Stage, list[Policy]] = {stage: [] for stage in Stage}
        for policy in policies:
            if policy.rules(direction) is not None:
                stages[self._stage(policy)].append(policy)
        for stage, those in stages.items():
            for policy in those:
                yield from ((stage, policy, rule) for rule in policy.rules(direction) or ())
            if stage is Stage.STANDARD:
                for policy in those:
                    yield stage, policy, Rule("", Action.DROP, policy.subjects, None, None)

    def _tier(self, policy: Policy) -> int:
        if isinstance(policy.tier, int):
            return policy.tier
        return self._snapshot.tiers.get(policy.tier, TIERS.get(policy.tier, TIERS[APPLICATION]))

    def _precedence(self, policy: Policy) -> tuple[int, float, str, str]:
        return self._tier(policy), policy.priority, policy.namespace, policy.name

    def _stage(self, policy: Policy) -> Stage:
        if policy.type is PolicyType.KUBERNETES:
            return Stage.STANDARD
        return Stage.BASELINE if self._tier(policy) >= BASELINE_PRIORITY else Stage.TIERS

    def _compile(
        self, order: int, stage: Stage, policy: Policy, rule: Rule, direction: Direction
    ) -> None:
        verdict = Verdict(policy.name, policy.namespace, policy.type, rule.name, rule.action)
        compiled = _Rule(
            order,
            stage,
            rule.action,
            self._peers(rule.peers),
            rule.ports,
            rule.unknowable,
            verdict,
        )
        for atom in self._peers(rule.subjects).plain or ():
            self._by_subject[direction].setdefault(atom, []).append(compiled)

    def _peers(self, peers: tuple[Peer, ...] | None) -> _Peers:
        if peers is None:
            return _Peers(None)
        plain, related, unknowable = set(), [], False
        for peer in self._expand(peers):
            if isinstance(peer, Unknowable):
                unknowable = True
                continue
            number = self._atoms.setdefault(peer, len(self._atoms))
            if isinstance(peer, Pods) and peer.same is not None:
                related.append((number, peer.same))
                self._relational = True
            else:
                plain.add(number)
        return _Peers(frozenset(plain), tuple(related), unknowable)

    def _expand(self, peers: Iterable[Peer], depth: int = 0) -> Iterator[Peer]:
        for peer in peers:
            if not isinstance(peer, GroupName):
                yield peer
                continue
            members = self._snapshot.groups.get((peer.namespace, peer.name), ())
            if depth == MAX_DEPTH:
                yield Unknowable("groups in groups")
            else:
                yield from self._expand(members, depth + 1)

    def _of_member(self, member: Member) -> Iterator[int]:
        labels = dict(member.labels)
        namespace = self._namespace(member.namespace)
        for own in (None, *member.labels):
            for anchor in (
                (member.namespace, own, None),
                *((None, own, pair) for pair in (None, *namespace.items())),
            ):
                for atom, number in self._anchored.get(anchor, ()):
                    if _selects(atom, member, labels, namespace):
                        yield number

    def _of_node(self, name: str) -> frozenset[int]:
        labels = self._snapshot.nodes[name].labels
        return frozenset(n for atom, n in self._node_atoms if atom.nodes.matches(labels))

    def _namespace(self, name: str) -> Labels:
        return self._snapshot.namespaces.get(name) or {NAME_LABEL: name}

    def _rules_of(self, subject: End, direction: Direction) -> list[_Rule]:
        by_subject = self._by_subject[direction]
        found = {rule.order: rule for atom in subject.atoms for rule in by_subject.get(atom, ())}
        return [found[order] for order in sorted(found)]

    def _fits(self, peers: _Peers, subject: End, peer: End) -> bool | None:
        """Whether a peer is one of a rule's; None: not to be told."""
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


def _anchor(atom: Pods) -> Anchor:
    """What an end must have to be in an atom: the few atoms of its anchors are tried, not all."""
    pair = atom.namespaces.pair if atom.namespace is None else None
    return atom.namespace, atom.pods.pair, pair


def _selects(atom: Pods, member: Member, labels: Mapping[str, str], namespace: Labels) -> bool:
    return (
        atom.account in {"", member.account}
        and atom.pods.matches(labels)
        and (atom.namespace is not None or atom.namespaces.matches(namespace))
    )


def _serves(ports: tuple[Ports, ...] | None, protocol: int, port: int, destination: End) -> bool:
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


def _named(some: Ports, protocol: int, port: int, destination: End) -> bool:
    return any(
        (own.name, own.protocol, own.number) == (some.name, protocol, port)
        for own in destination.ports
    )
