"""Groups of a namespace that have Pods of others: Antrea applies no policy to such a Group.

It is the members that count, not what a selector could select, and those of child groups too.
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache

from flowvis.policies.endpoints import Selectable
from flowvis.policies.model import GroupName, Pods, Policy
from flowvis.policies.objects import MAX_DEPTH, Snapshot

Name = tuple[str, str]
"""Namespace and name of a Group."""


def candidates(snapshot: Snapshot) -> dict[Name, list[Pods]]:
    """Return the Groups that policies apply to, with those members that may be elsewhere."""
    found = {}
    for key in {key for policy in snapshot.policies for key in _applied_to(policy)}:
        elsewhere = [pods for pods in _members(snapshot, key) if pods.namespace != key[0]]
        if elsewhere:
            found[key] = elsewhere
    return found


def reaching(snapshot: Snapshot, pods: Sequence[Selectable | None]) -> frozenset[Name]:
    """Return the Groups that select any of these Pods in a namespace that is not theirs."""
    return frozenset(
        key
        for key, members in candidates(snapshot).items()
        if any(_reaches(snapshot, key[0], members, pod) for pod in pods if pod is not None)
    )


def _applied_to(policy: Policy) -> Iterator[Name]:
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for peer in rule.subjects:
            if isinstance(peer, GroupName) and peer.namespace:
                yield peer.namespace, peer.name


def _members(snapshot: Snapshot, key: Name, depth: int = 0) -> Iterator[Pods]:
    for peer in snapshot.members(key):
        if isinstance(peer, GroupName) and depth < MAX_DEPTH:
            yield from _members(snapshot, (peer.namespace, peer.name), depth + 1)
        elif isinstance(peer, Pods):
            yield peer


def _reaches(snapshot: Snapshot, own: str, members: Sequence[Pods], pod: Selectable) -> bool:
    if pod.namespace == own:
        return False
    named, labels = snapshot.labels_of(pod.namespace), _labels(pod.labels)
    account = pod.service_account
    return any(those.select(pod.namespace, named, labels, account) for those in members)


@lru_cache(1 << 14)
def _labels(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text).items()}
