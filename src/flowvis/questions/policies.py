"""What each policy and each of its rules let through or stopped, and what no policy decided over.

Records name the policy and the rule that decided; the policies that there are name those that
decided nothing. What a record names and there is no more is shown as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowvis.clickhouse.schema.tables import FIRST_RECORD
from flowvis.fields import RuleAction
from flowvis.filters.sql import Condition
from flowvis.policies.costs import PolicyKey, key_of
from flowvis.policies.model import Action, Direction, Policy, PolicyType
from flowvis.policies.objects import Snapshot
from flowvis.policies.order import EvaluationOrder
from flowvis.questions.measures import BY_NAME, Measure
from flowvis.questions.planner import END, RECORDS_ONLY, Stored
from flowvis.questions.problem import number
from flowvis.questions.statement import Found, Plan, Records, Statement
from flowvis.questions.times import parse_range

DEFAULT_LIMIT = 500
MAX_LIMIT = 2000
MAX_GROUPS = 20_000
"""Rules that are fetched of each direction; beyond, `rulesOmitted` says so."""

_DENYING = f"({RuleAction.DROP}, {RuleAction.REJECT})"
_UNENFORCED = f"({RuleAction.UNENFORCED_DROP}, {RuleAction.UNENFORCED_REJECT})"
_COUNTS = ("connections", "octets", "packets", "denied", "unenforced")
_GROUPS: dict[int, str] = {
    PolicyType.KUBERNETES: "networking.k8s.io",
    PolicyType.ANTREA: "crd.antrea.io",
    PolicyType.ANTREA_CLUSTER: "crd.antrea.io",
    PolicyType.KUBERNETES_CLUSTER: "policy.networking.k8s.io",
}
_KINDS = {
    PolicyType.KUBERNETES: "NetworkPolicy",
    PolicyType.ANTREA: "NetworkPolicy",
    PolicyType.ANTREA_CLUSTER: "ClusterNetworkPolicy",
}
"""Of what is gone; under the type that is left are several."""
_ACTIONS = {
    RuleAction.ALLOW: "allow",
    RuleAction.DROP: "drop",
    RuleAction.REJECT: "reject",
    RuleAction.UNENFORCED_DROP: "drop",
    RuleAction.UNENFORCED_REJECT: "reject",
}

Which = tuple[Direction, int, str, str]
"""Direction, type, namespace and name: what a record has of a policy."""


@dataclass(slots=True)
class _Rule:
    """What became of the connections that a rule decided over."""

    name: str
    action: str
    exists: bool = True
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))
    last_s: int = 0
    """The end of its last record, to the minute or hour where that was read of a roll-up; 0: there
    is none."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        last = self.last_s * 1000 if self.last_s else None
        named = {"name": self.name, "action": self.action, "exists": self.exists}
        return {**named, **self.counts, "last": last}


@dataclass(slots=True)
class _Entry:
    """A policy in one direction."""

    which: Which
    kind: str
    tier: int | None = None
    priority: float | None = None
    exists: bool = False
    since_ms: int | None = None
    rules: dict[str, _Rule] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """Sum up a count of its rules."""
        return sum(rule.counts[name] for rule in self.rules.values())

    @property
    def unused(self) -> bool:
        """Whether no record names it, and one could: what only passes on is named by none."""
        return bool(self.rules) and not any(rule.last_s for rule in self.rules.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        direction, type_, namespace, name = self.which
        return {
            "group": _GROUPS.get(type_, ""),
            "kind": self.kind,
            "namespace": namespace,
            "name": name,
            "direction": direction.value,
            "tier": self.tier,
            "priority": self.priority,
            "exists": self.exists,
            "since": self.since_ms,
            "unused": self.unused,
            "rules": [rule.as_dict() for rule in self.rules.values()],
        }


@dataclass(frozen=True, slots=True)
class PoliciesQuestion:
    """What is asked."""

    records: Records
    limit: int
    known: Snapshot
    """The policies that there are, as far as they may be seen."""
    since: Mapping[PolicyKey, int]
    """Since when each says what it says."""

    @property
    def compared(self) -> None:
        """Policies are compared with nothing."""

    @classmethod
    def parse(
        cls,
        parameters: Mapping[str, str],
        condition: Condition,
        now_ms: int,
        known: Snapshot,
        since: Mapping[PolicyKey, int],
        *,
        stored: Stored = RECORDS_ONLY,
    ) -> "PoliciesQuestion":
        """Read from, to and limit; QuestionError names a bad one."""
        asked = parse_range(parameters.get("from", ""), parameters.get("to", ""), now_ms)
        limit = number("limit", parameters.get("limit", ""), DEFAULT_LIMIT, MAX_LIMIT)
        return cls(Records(asked, condition, stored), limit, known, since)

    def plan(self) -> Plan[dict[str, Any]]:
        """Return the plan of the answer, as JSON has it."""
        entries = {entry.which: entry for entry in _known(self.known, self.since)}
        omitted = False
        for direction in Direction:
            found = yield self._rules(direction)
            omitted |= len(found.rows) > MAX_GROUPS
            _count(entries, direction, found)
        found = yield self._uncovered()
        (connections, octets), *_ = found.rows or [(0, 0)]
        ordered = sorted(entries.values(), key=_order)
        return {
            "policies": [entry.as_dict() for entry in ordered[: self.limit]],
            "more": max(len(ordered) - self.limit, 0),
            "rulesOmitted": omitted,
            "uncovered": {"connections": int(connections), "octets": int(octets)},
        }

    def _rules(self, direction: Direction) -> Statement:
        """Ask what each rule decided over, in one direction."""
        prefix = f"{direction.value}NetworkPolicy"
        action = f"{prefix}RuleAction"
        names = [f"{prefix}{part}" for part in ("Type", "Namespace", "Name", "RuleName")]
        measures = (
            _largest(action),
            _largest(f"toUInt32({END})"),
            BY_NAME["connections"],
            BY_NAME["octets"],
            BY_NAME["packets"],
            _begun(f"{action} IN {_DENYING}"),
            _begun(f"{action} IN {_UNENFORCED}"),
        )
        return self.records.totals(
            {name: name for name in names},
            measures,
            where=f"{names[0]} != 0 OR {action} != 0",
            tail=f"ORDER BY {', '.join(names)} LIMIT {MAX_GROUPS + 1}",
        )

    def _uncovered(self) -> Statement:
        """Ask for what no policy decided over in either direction."""
        none = (
            f"{direction.value}NetworkPolicy{part} = 0"
            for direction in Direction
            for part in ("Type", "RuleAction")
        )
        measures = (BY_NAME["connections"], BY_NAME["octets"])
        return self.records.totals({}, measures, where=" AND ".join(none))


def _largest(sql: str) -> Measure:
    """Return the largest of something; of the end of a roll-up's records its minute or hour."""
    return Measure(sql, "", sql, "max", sql, of_rollups=sql)


def _begun(condition: str) -> Measure:
    """Return the connections begun of which a condition is true."""
    return Measure(
        condition, "connections", condition, "countIf", f"{FIRST_RECORD} AND {condition}",
        of_rollups=f"if({condition}, connections, 0)",
    )  # fmt: skip


def with_policies(snapshot: Snapshot, keep: Iterable[Policy]) -> Snapshot:
    """Return a snapshot with some of its policies only."""
    return Snapshot(list(keep), tiers=snapshot.tiers)


def _known(snapshot: Snapshot, since: Mapping[PolicyKey, int]) -> Iterator[_Entry]:
    """Go through the policies that there are, with all of their rules, in order of evaluation."""
    order = EvaluationOrder(snapshot)
    entries: dict[Which, _Entry] = {}
    for direction in Direction:
        for ordered in order.rules(direction):
            policy, rule = ordered.policy, ordered.rule
            which = (direction, int(policy.type), policy.namespace, policy.name)
            entry = entries.get(which)
            if entry is None:
                tiered = policy.type is not PolicyType.KUBERNETES
                entry = entries[which] = _Entry(
                    which,
                    policy.kind,
                    order.tier(policy) if tiered else None,
                    policy.priority if tiered else None,
                    exists=True,
                    since_ms=since.get(key_of(policy)),
                )
            if rule.action is not Action.PASS:  # which no record is named by
                entry.rules.setdefault(rule.name, _Rule(rule.name, rule.action.name.lower()))
    yield from entries.values()


def _count(entries: dict[Which, _Entry], direction: Direction, found: Found) -> None:
    """Add what the store has of each rule."""
    for type_, namespace, name, rule_name, action, last_s, *counts in found.rows[:MAX_GROUPS]:
        which = (direction, int(type_), str(namespace), str(name))
        entry = entries.get(which)
        if entry is None:
            known = PolicyType(type_) if type_ in set(PolicyType) else PolicyType.NONE
            entry = entries[which] = _Entry(which, _KINDS.get(known, ""))
        rule = entry.rules.get(rule_name)
        if rule is None:
            done = _ACTIONS.get(action, "none")
            rule = entry.rules[rule_name] = _Rule(rule_name, done, exists=False)
        rule.last_s = int(last_s)
        rule.counts = dict(zip(_COUNTS, map(int, counts), strict=True))


def _order(entry: _Entry) -> tuple[Any, ...]:
    """Those that denied most come first, then those that decided over most, then by name."""
    direction, type_, namespace, name = entry.which
    return (
        -entry.total("denied"),
        -entry.total("connections"),
        (namespace, name, type_, direction.value),
    )
