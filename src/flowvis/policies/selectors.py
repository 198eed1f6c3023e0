"""Label selectors of the Kubernetes API (meta/v1 LabelSelector)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Pair = tuple[str, str]

_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})
_PARTS = frozenset({"matchLabels", "matchExpressions"})


class NotUnderstood(ValueError):
    """A part of an object that we do not know, so that nobody can tell what it selects."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one label key must be like."""

    key: str
    operator: str
    values: frozenset[str]

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it; NotIn holds where the key is missing."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold; none select everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels are selected."""
        return all(requirement.holds(labels) for requirement in self.requirements)

    @property
    def pair(self) -> Pair | None:
        """A label that whatever is selected must have; None where there is no such."""
        for requirement in self.requirements:
            if requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.key, next(iter(requirement.values))
        return None


EVERYTHING = Selector()


def parse_selector(value: Any) -> Selector:
    """Read a LabelSelector; an absent one (None) selects everything.

    ValueError if it is malformed, NotUnderstood if it has keys or operators that we do not know.
    """
    if value is None:
        return EVERYTHING
    strange = sorted(str(key) for key in value.keys() - _PARTS)
    if strange:
        raise NotUnderstood(f"selector with {', '.join(strange)}")
    requirements = [
        Requirement(str(key), "In", frozenset({str(label)}))
        for key, label in (value.get("matchLabels") or {}).items()
    ]
    for expression in value.get("matchExpressions") or ():
        operator = expression["operator"]
        values = frozenset(str(label) for label in expression.get("values") or ())
        if operator not in _OPERATORS:
            raise NotUnderstood(f"operator {operator!r}: known are {', '.join(sorted(_OPERATORS))}")
        if bool(values) != (operator in {"In", "NotIn"}):
            raise ValueError(f"operator {operator} with {len(values)} values")
        requirements.append(Requirement(str(expression["key"]), operator, values))
    return Selector(
        tuple(sorted(requirements, key=lambda r: (r.key, r.operator, sorted(r.values))))
    )
