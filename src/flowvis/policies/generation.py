"""The policies of one epoch: endpoints to classes, pairs of classes to verdicts.

What an end of a connection is to all policies is the set of atoms that it is in, its class:
thousands of Pods make tens of classes, and a verdict is found once for two classes and a class of
ports.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowvis.native import FlowIndex
from flowvis.policies.applicable import ApplicableRules
from flowvis.policies.model import Action, Direction, PolicyStage, Relation
from flowvis.policies.objects import Snapshot
from flowvis.policies.podsets import MAX_ALIKE
from flowvis.policies.ports import Answer, PortName, either
from flowvis.policies.rulebook import (
    EXEMPT,
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


GONE = Member("", ())
"""A Pod of which nothing is known but its address: it is gone, or has not come yet."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A class of endpoints; two endpoints are of one class if no policy can tell them apart."""

    atoms: frozenset[int]
    namespace: str
    """Of a Pod, if rules compare namespaces."""
    ports: tuple[NamedPort, ...]
    """Those whose names rules have."""
    pod: bool
    gone: bool = False
    """Whether it is a Pod of which nothing is known: it may be any."""
    rules: dict[Direction, ApplicableRules] = field(default_factory=dict, compare=False, hash=False)
    _names: dict[tuple[int, int], list[PortName]] = field(
        default_factory=dict, compare=False, hash=False
    )

    def names(self, protocol: int, port: int) -> Collection[PortName]:
        """Return the names that a port has: the first container that has a name has it."""
        if self.ports and not self._names:
            first: dict[PortName, NamedPort] = {}
            for own in self.ports:
                first.setdefault((own.protocol, own.name), own)
                first.setdefault((None, own.name), own)
            for name, own in first.items():
                self._names.setdefault((own.protocol, own.number), []).append(name)
        return self._names.get((protocol, port), ())


class Called(NamedTuple):
    """What a connection calls."""

    protocol: int
    port: int
    destination: Endpoint


class Generation:
    """The state of one epoch; `rules` are those of its snapshot."""

    def __init__(self, snapshot: Snapshot, rules: Rulebook) -> None:
        self.rules = rules
        self.snapshot = snapshot
        self.nodes = snapshot.node_addresses()
        self._nodes = FlowIndex(16, max(len(self.nodes), 1))
        self._nodes.upsert(np.frombuffer(b"".join(self.nodes), dtype=np.uint8).reshape(-1, 16))
        self._members: dict[Member, frozenset[int]] = {}
        self._near: dict[str, set[str | int]] = {}
        self._rules_of: dict[tuple[Direction, frozenset[int]], ApplicableRules] = {}
        self._alike: dict[tuple[str, str, frozenset[Pair]], frozenset[int]] = {}

    def are_nodes(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which rows of an `(n, 16)` address column are nodes'."""
        return np.asarray(self._nodes.find(addresses) >= 0)

    def end(self, member: Member | None, blocks: int, address: bytes) -> Endpoint:
        """Return the class of an end: a Pod or None, its place in the blocks' sets, its address."""
        atoms = self.rules.blocks.sets[blocks]
        if member is None:
            node = self.nodes.get(address)
            return Endpoint(
                atoms | self._of_node(node, address) if node else atoms, "", (), pod=False
            )
        if member is GONE:
            return Endpoint(atoms, "", (), pod=True, gone=True)
        if member not in self._members:
            self._members[member] = self._of_member(member)
        ports = tuple(port for port in member.ports if port.name in self.rules.port_names)
        for port in ports:
            self.rules.ports.set_apart(port.protocol, port.number)
        namespace = member.namespace if self.rules.relational else ""
        return Endpoint(atoms | self._members[member], namespace, ports, pod=True)

    def decide(
        self,
        direction: Direction,
        source: Endpoint,
        called: Called,
        *,
        to_own_node: bool = False,
    ) -> PolicyVerdict:
        """Return what decides over a connection in one direction.

        `to_own_node` is whether a Pod's connection goes to the node that it runs on, which
        NetworkPolicies cannot forbid.
        """
        subject, peer = source, called.destination
        if direction is Direction.INGRESS:
            subject, peer = peer, subject
        if subject.gone or not subject.pod:
            return UNKNOWN if subject.gone and self.rules.guards(direction) else NOTHING
        rules = subject.rules.get(direction)
        if rules is None:
            rules = subject.rules[direction] = self._applicable(subject.atoms, direction)
        stage = PolicyStage.TIERS
        exempt = to_own_node and direction is Direction.EGRESS
        # That a NetworkPolicy is there at all exempts: then what it would match does not matter.
        possible = (
            rules
            if exempt or peer.gone
            else rules.possible(peer.atoms, called.protocol, called.port)
        )
        for rule in possible:
            if rule.stage < stage:
                continue
            if exempt and rule.stage is PolicyStage.STANDARD:
                return EXEMPT if rule.certain else UNKNOWN
            ports = rule.ports
            if ports.by_name:
                matches = self._matches_by_name(rule, subject, peer, called)
            else:
                serves = ports.numbered(called.protocol, called.port) if ports.by_number else True
                fits = serves is not False and self._fits(rule.peers, subject, peer)
                matches = fits if serves or fits is False else None
            if matches is False:
                continue
            if matches is None or not rule.certain:
                return UNKNOWN
            if rule.action is not Action.PASS:
                return rule.verdict
            if rule.stage is PolicyStage.BASELINE:
                return NOTHING
            stage = PolicyStage(rule.stage + 1)
        return NOTHING

    def _applicable(self, atoms: frozenset[int], direction: Direction) -> ApplicableRules:
        """Return the rules for what is in some atoms; once for all that have the same."""
        subjects = self.rules.subjects(atoms, direction)
        found = self._rules_of.get((direction, subjects))
        if found is None:
            found = ApplicableRules(self.rules.rules_for(subjects, direction))
            if len(self._rules_of) < MAX_ALIKE:
                self._rules_of[direction, subjects] = found
        return found

    def _matches_by_name(
        self, rule: CompiledRule, subject: Endpoint, peer: Endpoint, called: Called
    ) -> Answer:
        """Whether a rule with names of ports matches."""
        numbered = rule.ports.numbered(called.protocol, called.port)
        destination = called.destination
        names = destination.names(called.protocol, called.port)
        named = None if destination.gone else rule.ports.named(names)
        fits = self._fits(rule.peers, subject, peer)
        if not rule.names_of_pods:
            return _both(fits, either(numbered, named))
        as_pod = self._fits(rule.peers, subject, peer, as_pod=True)
        return either(_both(fits, numbered), _both(as_pod, named))

    def _of_member(self, member: Member) -> frozenset[int]:
        """Return a Pod's atoms; of Pods that nothing named tells apart they are found once."""
        sets = self.rules.pods
        labels = sets.named(member.labels)
        alike = (member.namespace, member.account, labels)
        found = self._alike.get(alike)
        if found is None:
            near = self._near.get(member.namespace)
            if near is None:
                named = self.snapshot.labels_of(member.namespace)
                near = self._near[member.namespace] = sets.near(member.namespace, named)
            found = frozenset(sets.of(near, member.account, labels))
            if len(self._alike) < MAX_ALIKE:
                self._alike[alike] = found
        return found

    def _of_node(self, name: str, address: bytes) -> frozenset[int]:
        node = self.snapshot.nodes[name]
        return frozenset(
            number
            for atom, number in self.rules.nodes
            if (atom.every or address in node.antrea) and atom.nodes.matches(node.labels)
        )

    def _fits(
        self, peers: RulePeers, subject: Endpoint, peer: Endpoint, *, as_pod: bool = False
    ) -> Answer:
        """Whether a peer is one of a rule's; `as_pod`: one that selects Pods as such."""
        if peers.plain is None or not (peers.pods if as_pod else peers.plain).isdisjoint(
            peer.atoms
        ):
            return True
        for atom, relation in peers.related:
            if atom in peer.atoms and self._related(relation, subject.namespace, peer.namespace):
                return True
        if peer.gone and (peers.pods or peers.related):
            return None
        return None if (peers.unknowable_pods if as_pod else peers.unknowable) else False

    def _related(self, relation: Relation, one: str, other: str) -> bool:
        """Whether two namespaces are in a relation; both must have all labels that it names."""
        if not relation.keys:
            return one == other
        mine, theirs = self.snapshot.labels_of(one), self.snapshot.labels_of(other)
        if not all(key in mine and key in theirs for key in relation.keys):
            return False
        return relation.same == all(mine[key] == theirs[key] for key in relation.keys)


def _both(one: Answer, other: Answer) -> Answer:
    return False if one is False or other is False else None if None in (one, other) else True
