"""Which peers of rules a Pod is, found from the Pod and not by trying each peer.

Whoever may write one policy can name ten thousand selectors in it, and a cluster has ten thousands
of Pods: to try all on each is a minute in which nothing else is done. So a Pod's labels tell what
they satisfy (In, Exists) and what they refute (NotIn, DoesNotExist), each by a look-up, and
Pods whose labels are the same as far as selectors name them are alike.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from flowvis.policies.model import Pods
from flowvis.policies.selectors import Pair, Selector

Anchor = Pair | str
"""What labels have: a key with its value, or a key with any."""

MAX_ALIKE = 1 << 16  # sets of labels that are remembered, for all namespaces together


class SelectorIndex:
    """Distinct selectors by number, and what labels satisfy and refute of each."""

    def __init__(self) -> None:
        self._numbers: dict[Selector, int] = {}
        self._keys: set[str] = set()
        self._satisfied: dict[Anchor, list[int]] = {}
        self._refuted: dict[Anchor, set[int]] = {}
        self._needed: list[int] = []
        """For each selector, how many of its requirements labels have to satisfy."""
        self._free: set[int] = set()
        """Those of which they have to satisfy none."""

    def number(self, selector: Selector) -> int:
        """Return the number of a selector, new or known."""
        number = self._numbers.setdefault(selector, len(self._numbers))
        if number == len(self._needed):
            self._enter(number, selector)
        return number

    def named(self, labels: Iterable[Pair]) -> frozenset[Pair]:
        """Return the labels that any selector names: no other makes a difference."""
        return frozenset(label for label in labels if label[0] in self._keys)

    def matching(self, labels: Iterable[Pair]) -> set[int]:
        """Return the numbers of the selectors that match labels."""
        have = [anchor for label in labels for anchor in (label, label[0])]
        satisfied = Counter(n for anchor in have for n in self._satisfied.get(anchor, ()))
        found = {number for number, count in satisfied.items() if count == self._needed[number]}
        found |= self._free
        for anchor in have:
            found -= self._refuted.get(anchor, frozenset())
        return found

    def _enter(self, number: int, selector: Selector) -> None:
        needed = 0
        for requirement in selector.requirements:
            key = requirement.key
            self._keys.add(key)
            anchors: list[Anchor] = [(key, value) for value in requirement.values] or [key]
            match requirement.operator:
                case "In" | "Exists":
                    needed += 1
                    for anchor in anchors:
                        self._satisfied.setdefault(anchor, []).append(number)
                case _:
                    for anchor in anchors:
                        self._refuted.setdefault(anchor, set()).add(number)
        self._needed.append(needed)
        if not needed:
            self._free.add(number)


class PodSets:
    """Peers that are Pods, by number; `near` and `of` say in which of them a Pod is."""

    def __init__(self, peers: Iterable[tuple[Pods, int]]) -> None:
        self._namespaces, self._pods = SelectorIndex(), SelectorIndex()
        self._by_selector: dict[int, list[tuple[str | int, str, int]]] = {}
        """For a selector of Pods: namespace (or the number of its selector), account, peer."""
        for peer, number in peers:
            where = peer.namespace
            place = self._namespaces.number(peer.namespaces) if where is None else where
            those = self._by_selector.setdefault(self._pods.number(peer.pods), [])
            those.append((place, peer.account, number))

    def near(self, namespace: str, labels: Mapping[str, str]) -> set[str | int]:
        """Return the places that a namespace is: its name, and what selects its labels."""
        return {namespace, *self._namespaces.matching(labels.items())}

    def named(self, labels: Iterable[Pair]) -> frozenset[Pair]:
        """Return the labels of a Pod that make a difference."""
        return self._pods.named(labels)

    def of(self, near: set[str | int], account: str, labels: Iterable[Pair]) -> Iterator[int]:
        """Go through the numbers of the peers that a Pod in some places is one of."""
        for selector in self._pods.matching(labels):
            for place, wanted, number in self._by_selector[selector]:
                if place in near and wanted in {"", account}:
                    yield number
