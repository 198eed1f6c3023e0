"""What a record says of policies, beside what they say by themselves.

It is what the CNI's exporter or packet log reported, else what was evaluated when the record was
completed; where the traffic went on in spite of it, that it was not enforced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowvis.fields import RuleAction
from flowvis.policies.explanation.walk import DENYING, Conclusion, Way
from flowvis.policies.model import PolicyType

_ACTIONS = {
    RuleAction.ALLOW: "allowed",
    RuleAction.DROP: "dropped",
    RuleAction.REJECT: "rejected",
    RuleAction.UNENFORCED_DROP: "dropped",
    RuleAction.UNENFORCED_REJECT: "rejected",
}
_UNENFORCED = frozenset({RuleAction.UNENFORCED_DROP, RuleAction.UNENFORCED_REJECT})


@dataclass(frozen=True, slots=True)
class Reported:
    """The five fields of one direction."""

    name: str
    namespace: str
    type: int
    rule: str
    action: int

    @classmethod
    def of(cls, record: Mapping[str, Any], direction: str) -> "Reported":
        """Take them from a record."""
        parts = ("Name", "Namespace", "Type", "RuleName", "RuleAction")
        name, namespace, type_, rule, action = (
            record[f"{direction}NetworkPolicy{part}"] for part in parts
        )
        return cls(str(name), str(namespace), int(type_), str(rule), int(action))

    @property
    def silent(self) -> bool:
        """Whether it says nothing: no policy decided, or nobody knew."""
        return not self.type and not self.action

    @property
    def unenforced(self) -> bool:
        """Whether the traffic shows that nothing enforced it."""
        return self.action in _UNENFORCED

    def agrees(self, way: Way) -> bool | None:
        """Whether policies say the same; None where either side does not know.

        Names that it leaves empty agree with any: Antrea names no rule of a NetworkPolicy.
        """
        if way.conclusion is Conclusion.UNKNOWN:
            return None
        step = way.decided
        if step is None or step.rule.action.name == "PASS":
            return self.silent
        if self.silent:
            return False
        denies = _ACTIONS.get(self.action) in {"dropped", "rejected"}
        if denies != (way.conclusion in DENYING):
            return False
        policy = step.policy
        pairs = (
            (self.type, int(policy.type)),
            (self.name, policy.name),
            (self.namespace, policy.namespace),
            (self.rule, step.rule.name),
        )
        return all(not said or said == found for said, found in pairs)

    def __str__(self) -> str:
        if self.silent:
            return "no policy decided, or it was not known which"
        done = _ACTIONS.get(self.action, "decided")
        kind = "policy" if self.type == PolicyType.KUBERNETES_CLUSTER else "NetworkPolicy"
        name = "/".join(part for part in (self.namespace, self.name) if part)
        text = f"{done} by {kind} {name}" if name else done
        if self.rule:
            text = f"{text}, rule {self.rule}"
        return f"{text}; but the traffic went on: nothing enforced it" if self.unenforced else text

    def as_dict(self, way: Way) -> dict[str, Any]:
        """As JSON has it, beside what was found."""
        return {
            "policy": {"namespace": self.namespace, "name": self.name},
            "type": self.type,
            "rule": self.rule,
            "action": self.action,
            "unenforced": self.unenforced,
            "agrees": self.agrees(way),
            "text": str(self),
        }
