"""Policies, groups and tiers compiled: rules in their order, by whom they apply to.

An *atom* is one distinct peer of any rule: some Pods, an address block, some nodes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flowvis.policies.antrea import APPLICATION, BASELINE_PRIORITY, TIERS
from flowvis.policies.model import (
    Action,
    AddressBlock,
    Direction,
    GroupName,
    Nodes,
    Peer,
    Pods,
    Policy,
    PolicyStage,
    PolicyType,
    Ports,
    Rule,
    Unknowable,
)
from flowvis.policies.networks import Blocks
from flowvis.policies.objects import Snapshot
from flowvis.policies.ports import PortClasses
from flowvis.policies.selectors import Pair

MAX_DEPTH = 8  # groups in groups; Antrea allows one level
Anchor = tuple[str | None, Pair | None, Pair | None]


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


@dataclass(frozen=True, slots=True)
class RulePeers:
    """The peers of a rule as atoms; None: everything."""

    plain: frozenset[int] | None
    related: tuple[tuple[int, tuple[str, ...]], ...] = ()
    unknowable: bool = False


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with its atoms and its place in the order of its direction."""

    order: int
    stage: PolicyStage
    action: Action
    peers: RulePeers
    ports: tuple[Ports, ...] | None
    unknowable: bool
    verdict: PolicyVerdict


class Rulebook:
    """What policies say, whatever Pods, namespaces and nodes there are."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._said = (snapshot.policies, snapshot.groups, snapshot.tiers)
        self._groups = snapshot.groups
        self._tiers = snapshot.tiers
        self.relational = False
        """Whether rules compare namespaces."""
        self.by_labels = False
        """Whether they compare namespaces' labels."""
        self._atoms: dict[Peer, int] = {}
        self._by_subject: dict[Direction, dict[int, list[CompiledRule]]] = {}
        numbered: set[Ports] = set()
        for direction in Direction:
            self._by_subject[direction] = {}
            for order, (stage, policy, rule) in enumerate(self._ordered(direction)):
                self._compile(order, stage, policy, rule, direction)
                numbered.update(rule.ports or ())
        self.port_names = {ports.name for ports in numbered if ports.name}
        self.ports = PortClasses(numbered)
        self.blocks = Blocks({a: n for a, n in self._atoms.items() if isinstance(a, AddressBlock)})
        self.nodes = [(a, n) for a, n in self._atoms.items() if isinstance(a, Nodes)]
        self.pods: dict[Anchor, list[tuple[Pods, int]]] = {}
        for atom, number in self._atoms.items():
            if isinstance(atom, Pods):
                self.pods.setdefault(_anchor(atom), []).append((atom, number))

    def says(self, snapshot: Snapshot) -> bool:
        """Whether it is what a snapshot's policies compile to."""
        return self._said == (snapshot.policies, snapshot.groups, snapshot.tiers)

    def rules_for(self, atoms: Iterable[int], direction: Direction) -> list[CompiledRule]:
        """Return the rules that apply to what is in some atoms, in order."""
        by_subject = self._by_subject[direction]
        found = {rule.order: rule for atom in atoms for rule in by_subject.get(atom, ())}
        return [found[order] for order in sorted(found)]

    def _ordered(self, direction: Direction) -> Iterator[tuple[PolicyStage, Policy, Rule]]:
        """Go through all rules of one direction in their order of evaluation."""
        policies = sorted(self._said[0], key=self._precedence)
        stages: dict[PolicyStage, list[Policy]] = {stage: [] for stage in PolicyStage}
        for policy in policies:
            if policy.rules(direction) is not None:
                stages[self._stage(policy)].append(policy)
        for stage, those in stages.items():
            for policy in those:
                yield from ((stage, policy, rule) for rule in policy.rules(direction) or ())
            if stage is PolicyStage.STANDARD:
                for policy in those:
                    yield stage, policy, Rule("", Action.DROP, policy.subjects, None, None)

    def _tier(self, policy: Policy) -> int:
        if isinstance(policy.tier, int):
            return policy.tier
        return self._tiers.get(policy.tier, TIERS.get(policy.tier, TIERS[APPLICATION]))

    def _precedence(self, policy: Policy) -> tuple[int, float, str, str]:
        return self._tier(policy), policy.priority, policy.namespace, policy.name

    def _stage(self, policy: Policy) -> PolicyStage:
        if policy.type is PolicyType.KUBERNETES:
            return PolicyStage.STANDARD
        return (
            PolicyStage.BASELINE if self._tier(policy) >= BASELINE_PRIORITY else PolicyStage.TIERS
        )

    def _compile(
        self, order: int, stage: PolicyStage, policy: Policy, rule: Rule, direction: Direction
    ) -> None:
        verdict = PolicyVerdict(policy.name, policy.namespace, policy.type, rule.name, rule.action)
        compiled = CompiledRule(
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

    def _peers(self, peers: tuple[Peer, ...] | None) -> RulePeers:
        if peers is None:
            return RulePeers(None)
        plain, related, unknowable = set(), [], False
        for peer in self._expand(peers):
            if isinstance(peer, Unknowable):
                unknowable = True
                continue
            number = self._atoms.setdefault(peer, len(self._atoms))
            if isinstance(peer, Pods) and peer.same is not None:
                related.append((number, peer.same))
                self.relational = True
                self.by_labels |= bool(peer.same)
            else:
                plain.add(number)
        return RulePeers(frozenset(plain), tuple(related), unknowable)

    def _expand(self, peers: Iterable[Peer], depth: int = 0) -> Iterator[Peer]:
        for peer in peers:
            if not isinstance(peer, GroupName):
                yield peer
                continue
            members = self._groups.get((peer.namespace, peer.name), ())
            if depth == MAX_DEPTH:
                yield Unknowable("groups in groups")
            else:
                yield from self._expand(members, depth + 1)


def _anchor(atom: Pods) -> Anchor:
    """What an end must have to be in an atom: the few atoms of its anchors are tried, not all."""
    pair = atom.namespaces.pair if atom.namespace is None else None
    return atom.namespace, atom.pods.pair, pair
