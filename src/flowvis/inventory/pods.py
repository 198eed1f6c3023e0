"""Pods by address and time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.inventory.networks import NONE, address_column
from flowvis.inventory.objects import Pod
from flowvis.native import FlowIndex

MAX_ADDRESSES = 1 << 20  # Kubernetes is made for 150,000 Pods: two addresses each, thrice over
KEPT_MS = 300_000  # a deleted Pod still explains records that are on their way
FOREVER_MS = (1 << 63) - 1

_SEVERAL = -2


@dataclass(slots=True)
class _Life:
    """A Pod and when its addresses were its own."""

    pod: Pod
    since_ms: int
    until_ms: int = FOREVER_MS


class PodIndex:
    """Pods by their addresses, the recently deleted ones included.

    A Pod is known by its handle, which is good until the index changes; `objects` has the Pods.
    """

    def __init__(self, max_addresses: int = MAX_ADDRESSES) -> None:
        self.objects: list[Pod] = []
        self.refused = 0
        """Addresses that were not indexed since there are `max_addresses`."""
        self._lives: dict[int, _Life] = {}
        self._free: list[int] = []
        self._by_name: dict[tuple[str, str], int] = {}
        self._dead: dict[int, None] = {}
        self._slots = FlowIndex(16, max_addresses)
        self._candidates: dict[int, list[int]] = {}
        self._only = np.full(64, NONE, dtype=np.int64)

    def __len__(self) -> int:
        """How many Pods are alive."""
        return len(self._by_name)

    def upsert(self, pod: Pod, now_ms: int) -> None:
        """Learn of a Pod, new or changed; one with another UID is another Pod."""
        handle = self._by_name.get((pod.namespace, pod.name))
        if handle is not None:
            life = self._lives[handle]
            if life.pod == pod:
                return
            if life.pod.uid == pod.uid:
                self._unlink(handle)
                life.pod = pod
                self._link(handle)
                return
            self.delete(pod.namespace, pod.name, now_ms)
        handle = self._free.pop() if self._free else len(self.objects)
        if handle == len(self.objects):
            self.objects.append(pod)
        # A pending Pod gets its address later than its creation: before, it was another's.
        self._lives[handle] = _Life(pod, now_ms if pod.pending else pod.created_ms)
        self._by_name[pod.namespace, pod.name] = handle
        self._link(handle)

    def delete(self, namespace: str, name: str, now_ms: int) -> None:
        """Note that a Pod is gone; it is still found for `KEPT_MS`."""
        handle = self._by_name.pop((namespace, name), None)
        if handle is not None:
            self._lives[handle].until_ms = now_ms
            self._dead[handle] = None

    def expire(self, now_ms: int) -> None:
        """Forget the Pods that were deleted too long ago."""
        for handle in list(self._dead):
            if self._lives[handle].until_ms + KEPT_MS > now_ms:
                break
            del self._dead[handle]
            self._unlink(handle)
            del self._lives[handle]
            self._free.append(handle)

    def __contains__(self, name: tuple[str, str]) -> bool:
        """Whether there is a living Pod of that (namespace, name)."""
        return name in self._by_name

    def names(self) -> list[tuple[str, str]]:
        """The (namespace, name) of all living Pods."""
        return list(self._by_name)

    def known(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses are, or lately were, Pods'."""
        return np.asarray(self._slots.find(addresses) >= 0)

    def find(self, addresses: NDArray[np.uint8], times_ms: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the handle of the Pod that had each address at each time; NONE where none.

        The only Pod that had an address is the answer at any time, as nodes' clocks differ; of
        several it is the one that lived at that time.
        """
        handles: NDArray[np.int64] = self._only[self._slots.find(addresses)]
        several = np.flatnonzero(handles == _SEVERAL)
        if len(several):
            handles[several] = self._living(addresses[several], times_ms[several])
        return handles

    def _living(
        self, addresses: NDArray[np.uint8], times_ms: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        slots = self._slots.find(addresses)
        handles = np.full(len(slots), NONE, dtype=np.int64)
        for slot in np.unique(slots).tolist():
            rows = np.flatnonzero(slots == slot)
            times = times_ms[rows]
            for handle in self._candidates[slot]:
                life = self._lives[handle]
                handles[rows[(times > life.since_ms) & (times < life.until_ms)]] = handle
        return handles

    def _link(self, handle: int) -> None:
        pod = self.objects[handle] = self._lives[handle].pod
        slots, _ = self._slots.upsert(address_column(pod.addresses))
        for slot in slots.tolist():
            if slot < 0:
                self.refused += 1
                continue
            self._candidates.setdefault(slot, []).append(handle)
            self._settle(slot)

    def _unlink(self, handle: int) -> None:
        slots = self._slots.find(address_column(self._lives[handle].pod.addresses))
        for slot in slots[slots >= 0].tolist():
            candidates = self._candidates[slot]
            if handle in candidates:
                candidates.remove(handle)
            self._settle(slot)
            if not candidates:
                del self._candidates[slot]
                self._slots.remove(np.array([slot]))

    def _settle(self, slot: int) -> None:
        """Write down the answer for one address; the last item answers for slot -1: none."""
        if slot + 1 >= len(self._only):
            more = np.full(2 * slot + 2, NONE, dtype=np.int64)
            more[: len(self._only)] = self._only
            self._only = more
        candidates = self._candidates[slot]
        single = candidates[0] if candidates else NONE
        self._only[slot] = _SEVERAL if len(candidates) > 1 else single
