"""Groups of a namespace that have Pods of others: Antrea applies no policy to such a Group.

It is the members that count, not what a selector could select, and those of child groups too.
Whoever may make a Group can make thousands: which of them have a Pod is found from the Pod
(`podsets`), and not by trying each.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from flowvis.policies.endpoints import Selectable
from flowvis.policies.model import GroupName, Pods, Policy
from flowvis.policies.objects import Snapshot
from flowvis.policies.podsets import PodSets
from flowvis.policies.selectors import Pair

Name = tuple[str, str]
"""Namespace and name of a Group."""


class _Kind(NamedTuple):
    """Pods that no selector can tell apart."""

    namespace: str
    labels: tuple[Pair, ...]
    account: str


class Population:
    """The Pods that there are, by what selectors can tell; looked at when it is first asked."""

    def __init__(self, pods: Callable[[], Iterable[Selectable | None]]) -> None:
        """`pods` gives those that are alive: one that is gone is no member of anything."""
        self._pods = pods
        self._kinds: list[_Kind] | None = None

    def reaching(self, snapshot: Snapshot) -> frozenset[Name]:
        """Return the Groups that policies apply to, and that have Pods of other namespaces."""
        groups = candidates(snapshot)
        if not groups:
            return frozenset()
        numbers: dict[Pods, int] = {}
        for members in groups.values():
            for those in members:
                numbers.setdefault(those, len(numbers))
        found = self._namespaces(snapshot, numbers)
        return frozenset(
            key
            for key, members in groups.items()
            if any(found[numbers[those]] - {key[0]} for those in members)
        )

    def _namespaces(self, snapshot: Snapshot, numbers: dict[Pods, int]) -> list[set[str]]:
        """Return for each number, of Pods that are selected, the namespaces in which there are."""
        found: list[set[str]] = [set() for _ in numbers]
        sets = PodSets(numbers.items())
        near: dict[str, set[str | int]] = {}
        if self._kinds is None:
            self._kinds = _kinds(self._pods())
        alike = {
            (kind.namespace, kind.account, sets.named(kind.labels)): None for kind in self._kinds
        }
        for namespace, account, labels in alike:
            if namespace not in near:
                near[namespace] = sets.near(namespace, snapshot.labels_of(namespace))
            for number in sets.of(near[namespace], account, labels):
                found[number].add(namespace)
        return found


def candidates(snapshot: Snapshot) -> dict[Name, list[Pods]]:
    """Return the Groups that policies apply to, with those members that may be elsewhere."""
    found: dict[Name, list[Pods]] = {}
    if not snapshot.groups:
        return found
    for key in {key for policy in snapshot.policies for key in _applied_to(policy)}:
        members = (p for p in snapshot.expand([GroupName(*key)]) if isinstance(p, Pods))
        elsewhere = [those for those in members if those.namespace != key[0]]
        if elsewhere:
            found[key] = elsewhere
    return found


def _applied_to(policy: Policy) -> Iterator[Name]:
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for peer in rule.subjects:
            if isinstance(peer, GroupName) and peer.namespace:
                yield peer.namespace, peer.name


def _kinds(pods: Iterable[Selectable | None]) -> list[_Kind]:
    distinct = {(p.namespace, p.labels, p.service_account) for p in pods if p is not None}
    return [
        _Kind(
            namespace, tuple((str(k), str(value)) for k, value in json.loads(text).items()), account
        )
        for namespace, text, account in distinct
    ]
