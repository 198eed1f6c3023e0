"""Policies, groups and tiers compiled: rules in their order, by whom they apply to.

An *atom* is one distinct peer of any rule: some Pods, an address block, some nodes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flowvis.policies.model import (
    Action,
    AddressBlock,
    Direction,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyStage,
    PolicyType,
    Ports,
    Relation,
    Rule,
    ServicePods,
    Unknowable,
)
from flowvis.policies.networks import Blocks
from flowvis.policies.objects import Snapshot
from flowvis.policies.order import EvaluationOrder
from flowvis.policies.podsets import PodSets
from flowvis.policies.ports import AskedPorts, PortClasses


class PolicyVerdict(NamedTuple):
    """The policy and rule that decided, as a record has them."""

    name: str
    namespace: str
    type: PolicyType
    rule: str
    action: Action


NOTHING = PolicyVerdict("", "", PolicyType.NONE, "", Action.NONE)
"""No policy decided: the connection is allowed."""
UNKNOWN = PolicyVerdict("", "", PolicyType.NONE, "unknown", Action.NONE)
"""Not to be known from the objects; a record shows it as nothing."""
EXEMPT = PolicyVerdict("", "", PolicyType.NONE, "exempt", Action.NONE)
"""No policy may decide, as between a Pod and itself; a record shows it as nothing."""


@dataclass(frozen=True, slots=True)
class RulePeers:
    """The peers of a rule as atoms; None: everything."""

    plain: frozenset[int] | None
    pods: frozenset[int] = frozenset()
    """Those of `plain` that select Pods as such."""
    related: tuple[tuple[int, Relation], ...] = ()
    unknowable: bool = False
    unknowable_pods: bool = False
    """Whether what is not to be known may be Pods as such."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with its atoms and its place in the order of its direction."""

    order: int
    stage: PolicyStage
    action: Action
    peers: RulePeers
    ports: AskedPorts
    """Its ports; without any entry it is of all."""
    names_of_pods: bool
    verdict: PolicyVerdict
    certain: bool = True
    """Whether it is certain that it applies, as its subjects are all understood."""


class Rulebook:
    """What policies say, whatever Pods, namespaces and nodes there are."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._said = _said(snapshot)
        self._order = EvaluationOrder(snapshot)
        self.too_costly = self._order.too_costly
        """Policies whose rules are not worked out, and why."""
        self.relational = False
        """Whether rules compare namespaces."""
        self.by_labels = False
        """Whether they compare namespaces' labels."""
        self._atoms: dict[Peer, int] = {}
        self._by_subject: dict[Direction, dict[int, list[CompiledRule]]] = {}
        numbered: set[Ports] = set()
        for direction in Direction:
            self._by_subject[direction] = {}
            for order, (stage, policy, rule) in enumerate(self._order.rules(direction)):
                self._compile(order, stage, policy, rule, direction)
                numbered.update(rule.ports or ())
        self.port_names = {ports.name for ports in numbered if ports.name}
        self.ports = PortClasses(numbered)
        self.blocks = Blocks({a: n for a, n in self._atoms.items() if isinstance(a, AddressBlock)})
        self.nodes = [(a, n) for a, n in self._atoms.items() if isinstance(a, Nodes)]
        self.pods = PodSets((a, n) for a, n in self._atoms.items() if isinstance(a, Pods))

    def says(self, snapshot: Snapshot) -> bool:
        """Whether it is what a snapshot's policies compile to."""
        return self._said == _said(snapshot)

    def guards(self, direction: Direction) -> bool:
        """Whether there are any Pods that rules of a direction apply to."""
        return bool(self._by_subject[direction])

    def subjects(self, atoms: frozenset[int], direction: Direction) -> frozenset[int]:
        """Return those of some atoms that rules apply to."""
        return atoms.intersection(self._by_subject[direction])

    def rules_for(self, atoms: Iterable[int], direction: Direction) -> list[CompiledRule]:
        """Return the rules that apply to what is in some atoms, in order."""
        by_subject = self._by_subject[direction]
        found: dict[int, CompiledRule] = {}
        for rule in (rule for atom in atoms for rule in by_subject.get(atom, ())):
            if rule.certain or rule.order not in found:
                found[rule.order] = rule
        return [found[order] for order in sorted(found)]

    def _compile(
        self, order: int, stage: PolicyStage, policy: Policy, rule: Rule, direction: Direction
    ) -> None:
        verdict = PolicyVerdict(policy.name, policy.namespace, policy.type, rule.name, rule.action)
        compiled = CompiledRule(
            order,
            stage,
            rule.action,
            self._peers(rule.peers),
            AskedPorts(rule.ports or ()),
            rule.names_of_pods,
            verdict,
        )
        by_subject = self._by_subject[direction]
        for peer in self._order.subjects(rule):
            if isinstance(peer, Pods):
                by_subject.setdefault(self._atom(peer), []).append(compiled)
            elif isinstance(peer, Unknowable) and peer.unrecognized:
                anyone = self._atom(Pods(peer.namespace))
                by_subject.setdefault(anyone, []).append(replace(compiled, certain=False))

    def _atom(self, peer: Peer) -> int:
        return self._atoms.setdefault(peer, len(self._atoms))

    def _peers(self, peers: tuple[Peer, ...] | None) -> RulePeers:
        if peers is None:
            return RulePeers(None)
        plain, pods, related, doubts = set(), set(), [], []
        for peer in self._snapshot.expand(peers):
            if isinstance(peer, Unknowable):
                doubts.append(peer)
                continue
            number = self._atom(peer)
            if isinstance(peer, Pods) and peer.relation is not None:
                related.append((number, peer.relation))
                self.relational = True
                self.by_labels |= bool(peer.relation.keys)
                continue
            plain.add(number)
            if isinstance(peer, Pods):
                pods.add(number)
        return RulePeers(
            frozenset(plain),
            frozenset(pods),
            tuple(related),
            bool(doubts),
            any(doubt.pods for doubt in doubts),
        )


def _said(snapshot: Snapshot) -> tuple[Any, ...]:
    """Return what of a snapshot a rulebook depends on."""
    services = {
        (peer.namespace, peer.name): snapshot.services.get((peer.namespace, peer.name))
        for members in snapshot.groups.values()
        for peer in members
        if isinstance(peer, ServicePods)
    }
    return snapshot.policies, snapshot.groups, snapshot.tiers, services, snapshot.reaching
