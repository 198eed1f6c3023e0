"""The way through the rules at one end of a connection: which apply, which match, which decides.

It is the way of `Generation.decide`, with every rule on it and the reason why it does not match.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum

from flowvis.policies.explanation.checks import (
    Check,
    Checks,
    End,
    Outcome,
    Service,
    TooManyChecks,
    closest,
)
from flowvis.policies.explanation.words import policy_name, rule_words
from flowvis.policies.model import (
    Action,
    Direction,
    Peer,
    Pods,
    Policy,
    PolicyStage,
    PolicyType,
    Rule,
    Unknowable,
)
from flowvis.policies.order import EvaluationOrder, OrderedRule

MAX_STEPS = 200
"""Rules that are shown of one end; the one that decides always is."""
MAX_OTHERS = 20
"""Policies that are shown of those that do not select the end."""


class Conclusion(Enum):
    """What becomes of a connection at one end."""

    ALLOWED = "allowed"
    """By a rule."""
    DROPPED = "dropped"
    REJECTED = "rejected"
    ISOLATED = "isolated"
    """A NetworkPolicy selects the Pod, and no rule allows: default isolation drops it."""
    UNSELECTED = "no-policy"
    """No policy selects the Pod: allowed."""
    UNMATCHED = "no-rule"
    """Policies select the Pod, and no rule of theirs matches: allowed."""
    EXEMPT = "exempt"
    """No policy may decide: allowed."""
    UNKNOWN = "unknown"
    """The objects do not tell."""
    NOT_A_POD = "not-a-pod"
    """Policies apply to Pods, and this end is none: allowed."""


DENYING = frozenset({Conclusion.DROPPED, Conclusion.REJECTED, Conclusion.ISOLATED})

_CONCLUSIONS = {
    Action.ALLOW: Conclusion.ALLOWED,
    Action.DROP: Conclusion.DROPPED,
    Action.REJECT: Conclusion.REJECTED,
}


_Verdict = tuple[Conclusion, str]


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that applies to the Pod."""

    stage: PolicyStage
    policy: Policy
    tier: int | None
    """The priority of the policy's tier; None: NetworkPolicies have none."""
    rule: Rule
    selected: Check
    """By what it applies to the Pod; in doubt where its subject is not understood."""
    outcome: Outcome
    reached: bool = False
    """Whether no rule before it decided."""
    decides: bool = False

    def __str__(self) -> str:
        return rule_words(self.policy, self.rule.name)


@dataclass(frozen=True, slots=True)
class Bystander:
    """A policy that could apply to the Pod and does not."""

    policy: Policy
    why: str


@dataclass(slots=True)
class Way:
    """All of it at one end of a connection."""

    direction: Direction
    conclusion: Conclusion
    text: str
    """The conclusion as a sentence."""
    steps: list[Step] = field(default_factory=list)
    omitted: int = 0
    """Rules that apply, and are not among the steps."""
    others: list[Bystander] = field(default_factory=list)
    """Policies of the Pod's namespace and of the cluster that do not select it."""
    others_omitted: int = 0

    @property
    def decided(self) -> Step | None:
        """The rule that decided, or whose doubt left it open; None where there is no such."""
        return next((step for step in self.steps if step.decides), None)


class Walk:
    """Goes the way at either end of one connection."""

    def __init__(
        self, order: EvaluationOrder, checks: Checks, source: End, called: Service
    ) -> None:
        self._order, self._checks = order, checks
        self._source, self._called = source, called
        self._chosen: dict[tuple[int, bool], tuple[tuple[Peer, ...], Check]] = {}
        """Whether subjects have an end, by identity: most rules of a policy have the same."""

    def way(self, direction: Direction) -> Way:
        """Return the way of one direction."""
        subject, peer = self._source, self._called.destination
        if direction is Direction.INGRESS:
            subject, peer = peer, subject
        if subject.gone:
            who = subject if subject.name else f"the Pod that had {subject} then"
            text = f"{who} is gone: what policies could ask of it is not known any more"
            return Way(direction, Conclusion.UNKNOWN, text)
        if subject.member is None:
            text = f"{subject} is no Pod with an address of its own: no policy applies to it"
            return Way(direction, Conclusion.NOT_A_POD, text)
        if subject.address == peer.address:
            return Way(direction, Conclusion.EXEMPT, f"{subject} reaches itself: no policy decides")
        own_node = self._checks.node_of(peer) == subject.node != ""
        way = Way(direction, Conclusion.UNSELECTED, f"no policy selects {subject}: allowed")
        try:
            selecting = self._go(way, subject, peer, own_node=own_node)
        except TooManyChecks as error:
            way.conclusion, way.text = Conclusion.UNKNOWN, str(error)
            return way
        with suppress(TooManyChecks):  # the answer is there
            others = list(self._others(way.direction, subject, selecting))
            way.others, way.others_omitted = others[:MAX_OTHERS], max(len(others) - MAX_OTHERS, 0)
        return way

    def _go(self, way: Way, subject: End, peer: End, *, own_node: bool) -> set[int]:
        """Go through the rules; at the first verdict the rest is no longer reached.

        Return the policies that select the Pod, by identity.
        """
        verdict: _Verdict | None = None
        if own_node and way.direction is Direction.INGRESS:
            text = f"{peer} is the node that {subject} runs on, which always reaches it"
            verdict = Conclusion.EXEMPT, text
        stage = PolicyStage.TIERS
        selecting: set[int] = set()
        for ordered in self._order.rules(way.direction):
            if _elsewhere(ordered.policy, subject):
                continue
            selected = self._selected(ordered, subject)
            if selected.answer is False:
                continue
            selecting.add(id(ordered.policy))
            outcome = self._checks.rule(ordered.rule, subject, peer, self._called)
            step = self._step(ordered, selected, outcome)
            if verdict is None and ordered.stage >= stage:
                verdict = _verdict(step, subject, own_node=own_node)
                decides = verdict is not None and verdict[0] is not Conclusion.EXEMPT
                step = replace(step, reached=True, decides=decides)
                if verdict is None and outcome.answer:
                    stage = PolicyStage(ordered.stage + 1)  # it passes
            if len(way.steps) < MAX_STEPS or step.decides:
                way.steps.append(step)
            else:
                way.omitted += 1
        if verdict is not None:
            way.conclusion, way.text = verdict
        elif selecting:
            way.conclusion = Conclusion.UNMATCHED
            way.text = f"no rule that applies to {subject} matches: allowed"
        return selecting

    def _step(self, ordered: OrderedRule, selected: Check, outcome: Outcome) -> Step:
        policy = ordered.policy
        tier = None if policy.type is PolicyType.KUBERNETES else self._order.tier(policy)
        return Step(ordered.stage, policy, tier, ordered.rule, selected, outcome)

    def _selected(self, ordered: OrderedRule, subject: End) -> Check:
        """Return whether a rule applies to a Pod: by the first of its subjects that has it."""
        key = id(ordered.rule.subjects), subject is self._source
        if key not in self._chosen:
            found = self._select(ordered.rule, subject)
            self._chosen[key] = ordered.rule.subjects, found  # kept, so that its identity is
        return self._chosen[key][1]

    def _select(self, rule: Rule, subject: End) -> Check:
        found = [self._subject(choice, subject) for choice in self._order.subjects(rule)]
        for wanted in (True, None):
            for check in found:
                if check.answer is wanted:
                    return check
        return closest(found) or Check("", answer=False)

    def _subject(self, choice: Peer, subject: End) -> Check:
        """Return whether a choice of Pods has the Pod; what is not understood may."""
        if isinstance(choice, Unknowable) and choice.unrecognized:
            near = self._checks.peer(Pods(choice.namespace), subject)
            return self._checks.peer(choice, subject) if near.answer else near
        check = self._checks.peer(choice, subject)
        if isinstance(choice, Pods):
            return check
        return Check(
            check.what, answer=False, why="policies apply to Pods, which this does not name"
        )

    def _others(
        self, direction: Direction, subject: End, selecting: set[int]
    ) -> Iterator[Bystander]:
        """Go through the policies that could select the Pod, with what keeps them from it."""
        namespace = subject.member.namespace if subject.member else ""
        seen: dict[int, list[Check]] = {}
        policies: dict[int, Policy] = {}
        for ordered in self._order.rules(direction):
            policy = ordered.policy
            if id(policy) in selecting or policy.namespace not in {"", namespace}:
                continue
            policies[id(policy)] = policy
            checks = seen.setdefault(id(policy), [])
            if len(checks) < MAX_OTHERS:
                checks.append(self._selected(ordered, subject))
        for number, policy in sorted(policies.items(), key=lambda item: not item[1].namespace):
            check = closest(seen[number])
            why = f"{check.what}: {check.why}" if check and check.why else "it selects nobody"
            yield Bystander(policy, f"applies to {why}" if check and check.why else why)


def _elsewhere(policy: Policy, subject: End) -> bool:
    """Whether a policy is a NetworkPolicy of another namespace, which can select nobody here."""
    return policy.type is PolicyType.KUBERNETES and policy.namespace != subject.namespace


def _verdict(step: Step, subject: End, *, own_node: bool) -> _Verdict | None:
    """Return what a rule that is reached makes of the connection; None where it goes on."""
    allowed = own_node and step.stage is PolicyStage.STANDARD  # ingress never comes here
    if step.selected.answer is None and (allowed or step.outcome.answer is not False):
        return Conclusion.UNKNOWN, f"whether {policy_name(step.policy)} applies is not known"
    if allowed:
        text = f"{subject} always reaches its own node, as far as NetworkPolicies go"
        return Conclusion.EXEMPT, text
    if step.outcome.answer is None:
        return Conclusion.UNKNOWN, f"whether {step} matches is not known: {step.outcome.why}"
    return _decision(step, subject) if step.outcome.answer else None


def _decision(step: Step, subject: End) -> _Verdict | None:
    """Return what a rule that matches makes of the connection; None where it passes it on."""
    if step.rule.action is Action.PASS:
        if step.stage is not PolicyStage.BASELINE:
            return None
        return Conclusion.UNMATCHED, f"{step} passes it on, and nothing comes after it: allowed"
    if not step.rule.name:
        text = f"{policy_name(step.policy)} isolates {subject}, and no rule allows it"
        return Conclusion.ISOLATED, text
    conclusion = _CONCLUSIONS[step.rule.action]
    return conclusion, f"{conclusion.value} by {step}"
