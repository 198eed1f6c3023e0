"""Whose connections fill the kernel's table: entries by the workload of this node.

Counted is the end that opened a connection, as that is who fills a table: a scan, a loop without
keep-alive, a flood. Where it is not of this node, the end that was called is counted, as the node
knows no other name; its caller is counted as one that opened where it runs. So each entry counts
once, and the numbers add up to all entries of a poll.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import ConntrackStatus
from flowvis.exporter.tables.enrich import Addresses
from flowvis.inventory.index import NONE, Inventory
from flowvis.inventory.objects import Pod
from flowvis.inventory.workloads import EXTERNAL, OTHER, THE_NODE
from flowvis.ipfix.occupancy import Occupant, label

TOP = 20
"""Occupants that are told apart; all others are one."""

OTHER_PODS = "(pods of other nodes)"

_Name = tuple[str, str, str, bool]
"""Namespace, kind, workload, and whether it opened what is counted."""


class Occupancy:
    """Who the entries of the last poll are of."""

    def __init__(self, node_name: str, inventory: Inventory, own: Addresses | None = None) -> None:
        """`own` has the node's addresses beside those that its object names."""
        self.occupants: tuple[Occupant, ...] = ()
        """The `TOP` largest, the largest first; then the rest, if there is any."""
        self._node_name = node_name
        self._inventory = inventory
        self._own = own

    def look(self, entries: Entries, now_ms: int) -> None:
        """Count the entries of a poll."""
        unanswered = (entries.status & np.uint32(ConntrackStatus.SEEN_REPLY)) == 0
        times = np.where(
            entries.start_ns > 0, entries.start_ns // np.uint64(1_000_000), np.uint64(now_ms)
        )
        counted: Counter[_Name] = Counter()
        silent: Counter[_Name] = Counter()
        sources, destinations = entries.source, entries.reply_source
        for opened in (True, False):
            addresses = sources if opened else destinations
            handles = self._pods_here(addresses, times)
            of_pod = handles != NONE
            for handle, *numbers in _tallied(handles[of_pod], unanswered[of_pod]):
                name = _named(self._inventory.pods.objects[handle], opened=opened)
                _add(counted, silent, name, *numbers)
            of_node = self._of_node(addresses)
            of_node &= ~of_pod
            _add(counted, silent, ("", "", THE_NODE, opened), *_sums(unanswered[of_node]))
            left = np.flatnonzero(~(of_pod | of_node))
            sources, destinations = sources.take(left, axis=0), destinations.take(left, axis=0)
            times, unanswered = times.take(left), unanswered.take(left)
        pods = self._inventory.are_pods(sources)
        _add(counted, silent, ("", "", OTHER_PODS, True), *_sums(unanswered[pods]))
        _add(counted, silent, ("", "", EXTERNAL, True), *_sums(unanswered[~pods]))
        self.occupants = _largest(counted, silent)

    def _pods_here(
        self, addresses: NDArray[np.uint8], times_ms: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Return handles of this node's Pods; NONE elsewhere."""
        pods = self._inventory.pods
        handles = pods.of_then(pods.find(addresses, times_ms), times_ms)
        here = np.zeros(len(pods.objects) + 1, dtype=bool)  # the last: NONE
        here[handles] = True
        for handle in np.flatnonzero(here[:-1]).tolist():
            here[handle] = pods.objects[handle].node == self._node_name
        here[-1] = False
        return np.where(here[handles], handles, NONE)

    def _of_node(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses are of this node."""
        nodes = self._inventory.nodes
        here = np.array([node.name == self._node_name for node in nodes.objects] + [False])
        own: NDArray[np.bool_] = here[nodes.find(addresses)]
        return own if self._own is None else own | self._own.contain(addresses)


def _tallied(
    handles: NDArray[np.int64], unanswered: NDArray[np.bool_]
) -> Iterable[tuple[int, int, int]]:
    """Return each handle with how many entries it has, and how many without an answer."""
    entries = np.bincount(handles)
    silent = np.bincount(handles[unanswered], minlength=len(entries))
    some = np.flatnonzero(entries)
    return zip(some.tolist(), entries[some].tolist(), silent[some].tolist(), strict=True)


def _named(pod: Pod, *, opened: bool) -> _Name:
    kind, name = pod.workload if pod.workload.name else ("Pod", pod.name)
    return label(pod.namespace), label(kind), label(name), opened


def _sums(unanswered: NDArray[np.bool_]) -> tuple[int, int]:
    return len(unanswered), int(np.count_nonzero(unanswered))


def _add(
    counted: Counter[_Name], silent: Counter[_Name], name: _Name, entries: int, unanswered: int
) -> None:
    if entries:
        counted[name] += entries
        silent[name] += unanswered


def _largest(counted: Counter[_Name], silent: Counter[_Name]) -> tuple[Occupant, ...]:
    """Return the largest, and the rest as one for each end."""
    in_order = sorted(counted, key=lambda name: (-counted[name], name))
    rest: tuple[Counter[_Name], Counter[_Name]] = (Counter(), Counter())
    for name in in_order[TOP:]:
        for sums, of in zip(rest, (counted, silent), strict=True):
            sums["", "", OTHER, name[3]] += of[name]
    return (
        *(Occupant(*name, counted[name], silent[name]) for name in in_order[:TOP]),
        *(Occupant(*name, *(sums[name] for sums in rest)) for name in rest[0]),
    )
