"""Pods by address and time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column
from flowvis.inventory.candidates import END, Candidates, Walk, grown
from flowvis.inventory.networks import NONE, address_column
from flowvis.inventory.numbered import NumberedTexts
from flowvis.inventory.objects import Pod
from flowvis.inventory.workloads import NO_WORKLOAD
from flowvis.native import FlowIndex
from flowvis.strings import Strings

MAX_ADDRESSES = 1 << 20  # Kubernetes is made for 150,000 Pods: two addresses each, thrice over
KEPT_MS = 300_000  # a deleted Pod still explains records that are on their way
FOREVER_MS = (1 << 63) - 1

SKEW_MS = 1000  # how far a node's clock may be off the API server's; creation is in whole seconds
OLDER_MS = KEPT_MS
"""How long before it was made a Pod may have begun a connection, as far as clocks differ. What
began earlier may be of a Pod that had the address before and is forgotten."""
ROUNDED_MS = 999  # by which a time of the API may be too early: it is in whole seconds
SPARE = 4096  # workloads, or namespaces, of Pods that are gone, before the numbers begin anew

_SEVERAL = -2
"""The answer for an address that several Pods have or had, less their place in the candidates."""

NodePort = tuple[str, int, int]
"""A port of a node's own addresses: the node's name, the protocol, the port."""


class PodIndex:
    """Pods by their addresses, the recently deleted ones included.

    A Pod is known by its handle, which is good until the index changes; `objects` has the Pods. It
    lives, as far as its addresses are its own, from its creation, or when it was last seen without
    them, to its deletion, or when it was seen with others, or to the end of its containers where it
    runs to an end. One that changed its addresses is several here.
    """

    def __init__(self, max_addresses: int = MAX_ADDRESSES) -> None:
        self.objects: list[Pod] = []
        self.refused = 0
        """Addresses that were not indexed since there are `max_addresses`."""
        self._since_ms, self._until_ms, self._seen_ms = np.zeros((3, 64), dtype=np.int64)
        """From when on it is certain that a Pod has its addresses; from when it was last seen
        without them until then, who had them before may have them still."""
        self._free: list[int] = []
        self._by_name: dict[tuple[str, str], int] = {}
        self._dead: dict[int, None] = {}
        self._slots = FlowIndex(16, max_addresses)
        self._only = np.full(64, NONE, dtype=np.int64)
        self._several = Candidates()
        self._on_nodes: dict[NodePort, list[int]] = {}
        self._workloads, self._namespaces = NumberedTexts(NO_WORKLOAD), NumberedTexts(("",))
        self._workload_of, self._namespace_of = np.zeros((2, 64), dtype=np.int32)
        self._earliest_ms = np.zeros(64, dtype=np.uint64)
        """From when on something may be of each Pod; the last place answers for NONE."""

    def __len__(self) -> int:
        """How many Pods are alive."""
        return len(self._by_name)

    def living(self) -> list[Pod]:
        """Return the Pods that are alive."""
        return [self.objects[handle] for handle in list(self._by_name.values())]

    def upsert(self, pod: Pod, now_ms: int) -> None:
        """Learn of a Pod, new or changed; one with another UID is another Pod."""
        handle = self._by_name.get((pod.namespace, pod.name))
        if handle is not None and self.objects[handle].uid != pod.uid:
            self.delete(pod.namespace, pod.name, now_ms)
            handle = None
        if pod.ended_ms is not None:
            self._end(handle, pod, now_ms)
        elif handle is None:
            # A pending Pod gets its address later than its creation: before, it was another's.
            later = pod.pending or _waits(pod)
            since_ms = now_ms if later else pod.created_ms
            handle = self._add(pod, since_ms, now_ms, FOREVER_MS)
            self._by_name[pod.namespace, pod.name] = handle
        else:
            self._change(handle, pod, now_ms)

    def delete(self, namespace: str, name: str, now_ms: int, uid: str = "") -> None:
        """Note that a Pod (the one of that UID, where one is given) is gone.

        It is still found for `KEPT_MS`.
        """
        handle = self._by_name.get((namespace, name))
        if handle is not None and uid in {"", self.objects[handle].uid}:
            del self._by_name[namespace, name]
            self._until_ms[handle] = now_ms
            self._dead[handle] = None

    def expire(self, now_ms: int) -> None:
        """Forget the Pods that were deleted too long ago."""
        gone = [handle for handle in self._dead if self._until_ms[handle] + KEPT_MS <= now_ms]
        for handle in gone:
            del self._dead[handle]
            self._unlink(handle)
            self._free.append(handle)

    def _change(self, handle: int, pod: Pod, now_ms: int) -> None:
        """Learn of a change of a Pod that is alive."""
        before = self.objects[handle]
        if not {*before.addresses} <= {*pod.addresses}:
            # Its sandbox is another, as after its node began anew: that address may be anybody's.
            self.delete(pod.namespace, pod.name, now_ms)
            self._by_name[pod.namespace, pod.name] = self._add(pod, now_ms, now_ms, FOREVER_MS)
            return
        if _waits(pod):
            self._since_ms[handle] = now_ms
        if not before.addresses:
            self._seen_ms[handle] = now_ms
        self._rewrite(handle, pod)

    def _end(self, handle: int | None, pod: Pod, now_ms: int) -> None:
        """Note that a Pod has run to its end: its addresses may be another's from now on.

        One that ran for a moment shows its addresses only now: a kubelet reports the latest state.
        """
        ended_ms = min(pod.ended_ms + ROUNDED_MS if pod.ended_ms else now_ms, now_ms)
        if handle is not None:
            if {*self.objects[handle].addresses} <= {*pod.addresses}:
                if not self.objects[handle].addresses:
                    self._seen_ms[handle] = ended_ms
                self._rewrite(handle, pod)
            self.delete(pod.namespace, pod.name, ended_ms)
        elif not any(_places(pod)) or self._remembers(pod):
            return
        elif pod.ended_ms and ended_ms + KEPT_MS > now_ms:
            self._dead[self._add(pod, pod.created_ms, ended_ms, ended_ms)] = None

    def _rewrite(self, handle: int, pod: Pod) -> None:
        """Write a Pod down as it is now, to be found where it is now."""
        before = self.objects[handle]
        if pod == before:
            return
        moved = _places(before) != _places(pod)
        if moved:
            self._unlink(handle)
        self._put(handle, pod)
        if moved:
            self._link(handle)

    def _remembers(self, pod: Pod) -> bool:
        slots = self._slots.find(address_column(pod.addresses)).tolist()
        handles = [handle for slot in slots for handle in self._candidates(slot)]
        for port in _node_ports(pod):
            handles += self._on_nodes.get(port, ())
        return any(self.objects[handle].uid == pod.uid for handle in handles)

    def _add(self, pod: Pod, since_ms: int, seen_ms: int, until_ms: int) -> int:
        handle = self._free.pop() if self._free else len(self.objects)
        if handle == len(self.objects):
            self.objects.append(pod)
            self._since_ms = grown(self._since_ms, handle, 0)
            self._seen_ms = grown(self._seen_ms, handle, 0)
            self._until_ms = grown(self._until_ms, handle, 0)
        self._put(handle, pod)
        self._since_ms[handle], self._until_ms[handle] = since_ms, until_ms
        self._seen_ms[handle] = seen_ms
        self._link(handle)
        return handle

    def _put(self, handle: int, pod: Pod) -> None:
        """Write a Pod down, and the numbers of its workload and its namespace."""
        self.objects[handle] = pod
        self._workload_of = grown(self._workload_of, handle, 0)
        self._namespace_of = grown(self._namespace_of, handle, 0)
        self._earliest_ms = grown(self._earliest_ms, handle + 1, 0)
        self._earliest_ms[handle] = max(pod.created_ms - OLDER_MS, 0)
        self._number(handle, pod)
        if max(len(self._workloads), len(self._namespaces)) > 2 * len(self.objects) + SPARE:
            self._workloads.clear()
            self._namespaces.clear()
            for place, other in enumerate(self.objects):
                self._number(place, other)

    def _number(self, handle: int, pod: Pod) -> None:
        self._workload_of[handle] = self._workloads.number(pod.workload)
        self._namespace_of[handle] = self._namespaces.number((pod.namespace,))

    def __contains__(self, name: tuple[str, str]) -> bool:
        """Whether there is a living Pod of that (namespace, name)."""
        return name in self._by_name

    def named(self, namespace: str, name: str) -> Pod | None:
        """Return the living Pod of that name."""
        handle = self._by_name.get((namespace, name))
        return None if handle is None else self.objects[handle]

    def names(self) -> list[tuple[str, str]]:
        """The (namespace, name) of all living Pods."""
        return list(self._by_name)

    def known(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses are, or lately were, Pods'."""
        return np.asarray(self._slots.find(addresses) >= 0)

    def addresses(self) -> NDArray[np.uint8]:
        """Return all addresses that are, or lately were, Pods': `(n, 16)`."""
        slots = np.flatnonzero(self._only != NONE)
        return np.asarray(self._slots.keys(slots))

    def find(self, addresses: NDArray[np.uint8], times_ms: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the handle of the Pod that had each address at each time; NONE where none.

        The only Pod that had an address is the answer at any time, as nodes' clocks differ (but see
        `of_then`); of several it is the one that lived at that time, or the only one that did
        within `SKEW_MS`.
        """
        handles: NDArray[np.int64] = self._only[self._slots.find(addresses)]
        several = np.flatnonzero(handles <= _SEVERAL)
        if len(several):
            firsts, times = _SEVERAL - handles[several], times_ms[several].astype(np.int64)
            handles[several] = self._of_several(firsts, times)
        return handles

    def of_then(
        self, handles: NDArray[np.int64], times_ms: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Return handles that were found without those of Pods made more than `OLDER_MS` later.

        At time 0, which is not known, it may be any. Who sees a connection go on, or has its Pod's
        name from who does, knows better: what is sent to an address is the next Pod's as well.
        """
        later = (times_ms < self._earliest_ms[handles]) & (times_ms != 0)
        return np.where(later, NONE, handles) if later.any() else handles

    def workloads(
        self, handles: NDArray[np.int64], strings: Strings
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return the codes of the kinds and names of the Pods' workloads; 0 where there is none."""
        numbers = np.where(handles == NONE, np.int32(0), self._workload_of[handles])
        kinds, names = self._workloads.codes(numbers, strings)
        return kinds, names

    def namespaces(self, handles: NDArray[np.int64], strings: Strings) -> NDArray[np.uint32]:
        """Return the codes of the Pods' namespaces; 0 where there is no Pod."""
        numbers = np.where(handles == NONE, np.int32(0), self._namespace_of[handles])
        (codes,) = self._namespaces.codes(numbers, strings)
        return codes

    def find_on_nodes(
        self,
        names: Sequence[str],
        nodes: NDArray[np.int64],
        protocols: Column,
        ports: Column,
        times_ms: NDArray[np.uint64],
    ) -> NDArray[np.int64]:
        """Return the handle of the Pod that serves a port of a node's own address; NONE where none.

        `nodes` are places in `names`. Only what is certain: of the node's Pods that share its
        addresses and lived at that time, one alone declares the port.
        """
        keys = nodes << 24 | protocols.astype(np.int64) << 16 | ports.astype(np.int64)
        distinct, places = np.unique(keys, return_inverse=True)
        answers = np.full(len(distinct), NONE, dtype=np.int64)
        firsts = np.full(len(distinct), END, dtype=np.int64)
        several = Candidates()
        for place, key in enumerate(distinct.tolist()):
            port = (names[key >> 24], key >> 16 & 0xFF, key & 0xFFFF)
            candidates = self._on_nodes.get(port, ())
            if len(candidates) == 1:
                answers[place] = candidates[0]
            elif candidates:
                firsts[place] = several.put(candidates)
        handles = answers[places]
        rows = np.flatnonzero(firsts[places] != END)
        if len(rows):
            times = times_ms[rows].astype(np.int64)
            handles[rows] = self._alone(several.walk(firsts[places[rows]]), times)
        return self.of_then(handles, times_ms)

    def _alone(self, candidates: Walk, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of candidates lived at each time; NONE where several did."""
        handles = np.full(len(times), NONE, dtype=np.int64)
        living = np.zeros(len(times), dtype=np.int64)
        for rows, those in candidates:
            then = (times[rows] > self._since_ms[those]) & (times[rows] < self._until_ms[those])
            handles[rows[then]] = those[then]
            living[rows] += then
        return np.where(living == 1, handles, NONE)

    def _of_several(self, firsts: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the candidates had their address at each time; NONE where none lived near it."""
        exact = self._holders(firsts, times)
        nearly = np.full(len(times), NONE, dtype=np.int64)
        count = np.zeros(len(times), dtype=np.int64)
        for rows, handles in self._several.walk(firsts):
            near = times[rows] >= self._since_ms[handles] - SKEW_MS
            near &= times[rows] - SKEW_MS <= self._until_ms[handles]
            nearly[rows[near]] = handles[near]
            count[rows] += near
        return np.where((exact == NONE) & (count == 1), nearly, exact)

    def _holders(self, firsts: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the candidates had their address at each time; NONE where none lived.

        Where several lived, the one that ended first: the next can only have had it after that. But
        one that was seen with it later has it from then on, as an object may stay for long when its
        containers are gone. Of those that are seen with it at once, as at a start, it is the last
        that lived.
        """
        holders = np.full(len(times), NONE, dtype=np.int64)
        until, since = np.full(len(times), FOREVER_MS), np.zeros(len(times), dtype=np.int64)
        for rows, handles in self._several.walk(firsts):
            ends, begins = self._until_ms[handles], self._since_ms[handles]
            first = (ends < until[rows]) | (holders[rows] == NONE)
            first |= (ends == until[rows]) & (begins >= since[rows])
            first &= (times[rows] > begins) & (times[rows] < ends)
            at = rows[first]
            holders[at], until[at], since[at] = handles[first], ends[first], begins[first]
        found, last, began = holders.copy(), since.copy(), since.copy()
        for rows, handles in self._several.walk(firsts):
            seen, begins = self._seen_ms[handles], self._since_ms[handles]
            later = (seen > last[rows]) | ((seen == last[rows]) & (begins >= began[rows]))
            later &= (seen > since[rows]) & (times[rows] >= seen)
            later &= times[rows] < self._until_ms[handles]
            at = rows[later]
            found[at], last[at], began[at] = handles[later], seen[later], begins[later]
        return found

    def _candidates(self, slot: int) -> list[int]:
        """The Pods that have or had one address; none for slot -1."""
        only = int(self._only[slot]) if slot >= 0 else NONE
        if only <= _SEVERAL:
            return self._several.of(_SEVERAL - only)
        return [only] if only != NONE else []

    def _link(self, handle: int) -> None:
        for port in _node_ports(self.objects[handle]):
            self._on_nodes.setdefault(port, []).append(handle)
        addresses = self.objects[handle].addresses
        if not addresses:
            return
        slots, _ = self._slots.upsert(address_column(addresses))
        for slot in slots.tolist():
            if slot < 0:
                self.refused += 1
            else:
                self._make_room(slot)
                self._settle(slot, [*self._candidates(slot), handle])

    def _unlink(self, handle: int) -> None:
        for port in _node_ports(self.objects[handle]):
            self._on_nodes[port].remove(handle)
            if not self._on_nodes[port]:
                del self._on_nodes[port]
        addresses = self.objects[handle].addresses
        if not addresses:
            return
        slots = self._slots.find(address_column(addresses))
        for slot in slots[slots >= 0].tolist():
            left = [other for other in self._candidates(slot) if other != handle]
            self._settle(slot, left)
            if not left:
                self._slots.remove(np.array([slot]))

    def _make_room(self, slot: int) -> None:
        """Have a place for the slot's answer; the last place answers for slot -1: none."""
        self._only = grown(self._only, slot + 1, NONE)

    def _settle(self, slot: int, candidates: list[int]) -> None:
        """Write down the answer for one address."""
        if self._only[slot] <= _SEVERAL:
            self._several.drop(int(_SEVERAL - self._only[slot]))
        if len(candidates) > 1:
            self._only[slot] = _SEVERAL - self._several.put(candidates)
        else:
            self._only[slot] = candidates[0] if candidates else NONE


def _node_ports(pod: Pod) -> frozenset[NodePort]:
    """Return the ports of its node's addresses that a Pod declares as its own."""
    if not pod.shares_node or not pod.node:
        return frozenset()
    return frozenset((pod.node, protocol, port) for _, protocol, port in pod.named_ports)


def _places(pod: Pod) -> tuple[tuple[bytes, ...], frozenset[NodePort]]:
    """Return where a Pod is found."""
    return pod.addresses, _node_ports(pod)


def _waits(pod: Pod) -> bool:
    """Whether a Pod has no address yet, or nothing that runs at its node's."""
    return pod.pending if pod.shares_node else not pod.addresses
