"""The order of evaluation: all rules of a direction, tiers before NetworkPolicies before baselines.

A rule comes with whom it applies to; a policy that is too costly has one rule of which nothing is
known.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from flowvis.policies.antrea import APPLICATION, BASELINE_PRIORITY, TIERS
from flowvis.policies.costs import SELECTORS, key_of, too_costly
from flowvis.policies.model import (
    Action,
    Direction,
    GroupName,
    Peer,
    Policy,
    PolicyStage,
    PolicyType,
    Rule,
    Unknowable,
)
from flowvis.policies.objects import Snapshot


class OrderedRule(NamedTuple):
    """A rule in its place."""

    stage: PolicyStage
    policy: Policy
    rule: Rule


class EvaluationOrder:
    """The rules of a snapshot's policies, in order."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.too_costly = too_costly(snapshot)
        """Policies whose rules are not worked out, and why."""

    def rules(self, direction: Direction) -> Iterator[OrderedRule]:
        """Go through all rules of one direction in their order of evaluation.

        In a tier the rule's place goes before the policy's name: Antrea gives rules of one place in
        policies of one priority the same rank, and the name only makes the order certain.
        """
        stages: dict[PolicyStage, list[Policy]] = {stage: [] for stage in PolicyStage}
        for policy in sorted(self._snapshot.policies, key=lambda p: (p.namespace, p.name, p.type)):
            if policy.rules(direction) is not None:
                stages[self.stage(policy)].append(policy)
        for stage, those in stages.items():
            rules = [
                (place, policy, rule)
                for policy in those
                for place, rule in enumerate(self._rules(policy, direction))
            ]
            if stage is not PolicyStage.STANDARD:
                rules.sort(key=lambda found: (self.tier(found[1]), found[1].priority, found[0]))
            yield from (OrderedRule(stage, policy, rule) for _, policy, rule in rules)
            if stage is PolicyStage.STANDARD:
                for policy in those:
                    costly = key_of(policy) in self.too_costly
                    if not (costly and policy.rules(direction)):  # else its one rule says as much
                        isolation = Rule("", Action.DROP, policy.subjects, None, None)
                        yield OrderedRule(stage, policy, isolation)

    def subjects(self, rule: Rule) -> Iterator[Peer]:
        """Go through whom a rule applies to; what is no Pod, as an address block, is in vain."""
        return self.expanded(rule.subjects)

    def expanded(self, subjects: Iterable[Peer]) -> Iterator[Peer]:
        """Go through subjects with the members of groups in their places.

        A group that has Pods of other namespaces has none here: Antrea applies nothing to it.
        """
        for peer in subjects:
            if not isinstance(peer, GroupName):
                yield peer
            elif (peer.namespace, peer.name) not in self._snapshot.reaching:
                yield from self._snapshot.expand([peer])

    def tier(self, policy: Policy) -> int:
        """Return the priority of a policy's tier."""
        if isinstance(policy.tier, int):
            return policy.tier
        return self._snapshot.tiers.get(policy.tier, TIERS.get(policy.tier, TIERS[APPLICATION]))

    def stage(self, policy: Policy) -> PolicyStage:
        """Return when a policy's rules are evaluated."""
        if policy.type is PolicyType.KUBERNETES:
            return PolicyStage.STANDARD
        return PolicyStage.BASELINE if self.tier(policy) >= BASELINE_PRIORITY else PolicyStage.TIERS

    def _rules(self, policy: Policy, direction: Direction) -> Sequence[Rule]:
        """Return a policy's rules; of one that is too costly one, of which nothing is known."""
        rules = policy.rules(direction) or ()
        problem = self.too_costly.get(key_of(policy))
        if problem is None or not rules:
            return rules
        doubt = Unknowable(problem, unrecognized=True, namespace=policy.namespace or None)
        chosen = dict.fromkeys(peer for rule in rules for peer in rule.subjects)
        subjects = (doubt,) if problem == SELECTORS else tuple(chosen) or policy.subjects
        return [Rule("", Action.DROP, subjects, (doubt,), None)]
