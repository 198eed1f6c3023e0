"""Explanations as JSON, with no more of it than somebody may see.

Of a Pod in a namespace that they may not see, what policies make of the connection is shown as a
record shows it: the conclusion and the rule that decided, but no other rule, and no label.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowvis.batch import address_text
from flowvis.policies.explanation.checks import Check, End, Outcome, Part
from flowvis.policies.explanation.explain import Explanation
from flowvis.policies.explanation.reported import Reported
from flowvis.policies.explanation.walk import DENYING, Step, Way
from flowvis.policies.explanation.words import protocol_words
from flowvis.policies.model import Policy, PolicyStage, PolicyType

Sees = Callable[[str], bool]
"""Whether the flows of a namespace may be seen."""

MAX_CHECKS = 10
"""Peers, or ports, that are shown of one rule: those that match or miss by least first."""
_OF_PODS = frozenset({Part.LABELS, Part.ACCOUNT, Part.NAMESPACE, Part.PORT})
"""Parts whose reasons have values of a Pod."""
_HIDDEN = "(not shown: its namespace may not be seen)"


def everything(_: str) -> bool:
    """See all namespaces."""
    return True


def as_dict(
    explanation: Explanation, sees: Sees = everything, record: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return an explanation of one connection; `record` is what is stored of it."""
    source, destination = explanation.source, explanation.called.destination
    return {
        "source": end_dict(source, sees),
        "destination": end_dict(destination, sees),
        "protocol": protocol_words(explanation.called.protocol),
        "port": explanation.called.port,
        "verdict": explanation.answered.value,
        "egress": _way(explanation.egress, source, destination, sees, record),
        "ingress": _way(explanation.ingress, destination, source, sees, record),
    }


def end_dict(end: End, sees: Sees = everything) -> dict[str, Any]:
    """Return one end."""
    return {
        "kind": "pod" if end.name else "address",
        "text": str(end),
        "namespace": end.namespace,
        "name": end.name.partition("/")[2],
        "node": end.node,
        "address": address_text(end.address),
        "labels": end.labels if end.member and sees(end.namespace) else None,
    }


def policy_dict(policy: Policy) -> dict[str, Any]:
    """Return what names a policy."""
    return {"kind": policy.kind, "namespace": policy.namespace, "name": policy.name}


def _way(
    way: Way, subject: End, peer: End, sees: Sees, record: Mapping[str, Any] | None
) -> dict[str, Any]:
    seen, peer_seen = (sees(end.namespace) for end in (subject, peer))
    shown = [step for step in way.steps if seen or step.decides]
    steps = [_step(step, seen=seen, peer_seen=seen and peer_seen) for step in shown]
    decided = way.decided
    # Of the cluster's policies those are shown that select the Pod, unless all may be seen.
    others = [
        other for other in way.others if seen and (other.policy.namespace or sees is everything)
    ]
    return {
        "direction": way.direction.value,
        "conclusion": way.conclusion.value,
        "denies": way.conclusion in DENYING,
        "text": way.text if seen and peer_seen else _plain(way),
        "decided": None if decided is None else shown.index(decided),
        "steps": steps,
        "omitted": way.omitted if seen else 0,
        "others": [{"policy": policy_dict(other.policy), "why": other.why} for other in others],
        "othersOmitted": way.others_omitted if sees is everything else 0,
        "hidden": not seen,
        "reported": Reported.of(record, way.direction.value).as_dict(way) if record else None,
    }


def _plain(way: Way) -> str:
    """Say the conclusion with nothing that a record does not show."""
    decided = f" by {way.decided}" if way.decided is not None else ""
    return f"{way.conclusion.value}{decided}"


def _step(step: Step, *, seen: bool, peer_seen: bool) -> dict[str, Any]:
    tiered = step.policy.type is not PolicyType.KUBERNETES
    outcome = step.outcome
    return {
        "stage": PolicyStage(step.stage).name.lower(),
        "tier": step.tier,
        "priority": step.policy.priority if tiered else None,
        "policy": policy_dict(step.policy),
        "rule": step.rule.name,
        "isolation": not step.rule.name and not tiered and step.rule.peers is None,
        "action": step.rule.action.name.lower(),
        "selects": _check(step.selected, seen=True) if seen else None,
        "matches": outcome.answer,
        "part": outcome.part.value if outcome.part else None,
        "why": outcome.why if seen and (peer_seen or outcome.part not in _OF_PODS) else _HIDDEN,
        "reached": step.reached,
        "decides": step.decides,
        **_choices(outcome, seen=seen, peer_seen=peer_seen),
    }


def _choices(outcome: Outcome, *, seen: bool, peer_seen: bool) -> Mapping[str, Any]:
    """Return the peers and ports of a rule; None: all."""
    return {
        "peers": _checks(outcome.peers, seen=peer_seen) if seen else None,
        "peersOmitted": max(len(outcome.peers or ()) - MAX_CHECKS, 0) if seen else 0,
        "ports": _checks(outcome.ports, seen=peer_seen) if seen else None,
        "portsOmitted": max(len(outcome.ports or ()) - MAX_CHECKS, 0) if seen else 0,
    }


def _checks(checks: Sequence[Check] | None, *, seen: bool) -> list[dict[str, Any]] | None:
    if checks is None:
        return None
    parts = [None, *reversed(Part)]  # what matches, what is in doubt, what misses by least
    ordered = sorted(checks, key=lambda check: parts.index(check.part))
    return [_check(check, seen=seen) for check in ordered[:MAX_CHECKS]]


def _check(check: Check, *, seen: bool) -> dict[str, Any]:
    hidden = not seen and check.part in _OF_PODS
    return {
        "what": check.what,
        "matches": check.answer,
        "part": check.part.value if check.part else None,
        "why": _HIDDEN if hidden else check.why,
    }
