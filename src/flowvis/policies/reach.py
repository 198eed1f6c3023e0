"""Groups of a namespace that have Pods of others: Antrea applies no policy to such a Group.

It is the members that count, not what a selector could select, and those of child groups too.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from flowvis.policies.endpoints import Selectable
from flowvis.policies.model import GroupName, Pods, Policy
from flowvis.policies.objects import Snapshot
from flowvis.policies.selectors import Pair

Name = tuple[str, str]
"""Namespace and name of a Group."""


class _Kind(NamedTuple):
    """Pods that no selector can tell apart."""

    namespace: str
    labels: Mapping[str, str]
    account: str


class Population:
    """The Pods that there are, by what selectors can tell; looked at when it is first asked."""

    def __init__(self, pods: Iterable[Selectable | None]) -> None:
        self._pods = pods
        self._by_pair: dict[Pair | None, list[_Kind]] | None = None

    def reaching(self, snapshot: Snapshot) -> frozenset[Name]:
        """Return the Groups that policies apply to, and that have Pods of other namespaces."""
        return frozenset(
            key
            for key, members in candidates(snapshot).items()
            if any(self._elsewhere(snapshot, key[0], those) for those in members)
        )

    def _elsewhere(self, snapshot: Snapshot, own: str, those: Pods) -> bool:
        if self._by_pair is None:
            self._by_pair = _by_pair(self._pods)
        return any(
            kind.namespace != own
            and those.select(
                kind.namespace, snapshot.labels_of(kind.namespace), kind.labels, kind.account
            )
            for kind in self._by_pair.get(those.pods.pair, ())
        )


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


def _by_pair(pods: Iterable[Selectable | None]) -> dict[Pair | None, list[_Kind]]:
    """Return the kinds of Pods by each of their labels, and all of them under None."""
    found: dict[Pair | None, list[_Kind]] = defaultdict(list)
    distinct = {(p.namespace, p.labels, p.service_account) for p in pods if p is not None}
    for namespace, text, account in distinct:
        labels = {str(key): str(value) for key, value in json.loads(text).items()}
        kind = _Kind(namespace, labels, account)
        for pair in (None, *labels.items()):
            found[pair].append(kind)
    return found
