"""The endpoints of connections, numbered: an address and, where it is a Pod's, its qualities."""

import json
from collections.abc import Sequence
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import same_addresses
from flowvis.native import FlowIndex, pack_keys
from flowvis.policies.generation import GONE as GONE_POD
from flowvis.policies.generation import Member, NamedPort

MAX_ENDS = 1 << 18  # several times the Pods of a large cluster, and as many addresses outside
MAX_MEMBERS = 1 << 18
NONE = -1
"""The handle of no Pod."""
GONE = -2
"""The handle of a Pod of which nothing is known."""


class Selectable(Protocol):
    """What must be known of a Pod; the inventory's Pods are such."""

    @property
    def namespace(self) -> str:
        """The Pod's namespace."""

    @property
    def labels(self) -> str:
        """Its labels: a JSON object."""

    @property
    def node(self) -> str:
        """The name of the node it runs on."""

    @property
    def service_account(self) -> str:
        """The name of its service account."""

    @property
    def named_ports(self) -> tuple[tuple[str, int, int], ...]:
        """The containers' ports that have a name, in their order: (name, protocol, number)."""


def member_of(pod: Selectable) -> Member:
    """Return what policies can ask of a Pod."""
    labels = {str(key): str(value) for key, value in json.loads(pod.labels).items()}
    ports = tuple(NamedPort(*port) for port in pod.named_ports)
    return Member(pod.namespace, tuple(labels.items()), pod.service_account, ports)


class EndpointTable:
    """Numbers for endpoints, Pods' qualities and nodes' names, until `clear`."""

    def __init__(self, max_endpoints: int = MAX_ENDS) -> None:
        self._index = FlowIndex(20, max_endpoints)
        self.addresses = np.zeros((1024, 16), dtype=np.uint8)
        self.members = np.zeros(1024, dtype=np.uint32)
        self.clear()

    def clear(self) -> None:
        """Forget all: numbers given so far mean nothing any more."""
        self.forget()
        self._distinct: list[Member | None] = [None, GONE_POD]
        self._numbers: dict[Member, int] = {}
        self._nodes: dict[str, int] = {}
        self._seen: list[Selectable | None] = []
        self._member_of = np.zeros(0, dtype=np.uint32)
        self._node_of = np.zeros(0, dtype=np.int32)
        # The last number of each handle: a Pod has mostly one address in use.
        self._number_of = np.zeros(0, dtype=np.int64)

    def forget(self) -> None:
        """Forget endpoints: their numbers mean nothing any more; Pods' and nodes' do."""
        self._index.clear()

    @property
    def crowded(self) -> bool:
        """Whether there is no room for more Pods."""
        return len(self._distinct) > MAX_MEMBERS

    def __len__(self) -> int:
        return len(self._index)

    def member(self, number: int) -> Member | None:
        """Return what a Pod is like, by its number in `members`; None for 0: not a Pod.

        The member `GONE` of the generation's for 1: a Pod of which nothing is known.
        """
        return self._distinct[number]

    def node(self, name: str) -> int:
        """Return the number of a node's name."""
        return self._nodes.setdefault(name, len(self._nodes))

    def nodes(self, handles: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the numbers of the Pods' nodes; NONE where there is no Pod."""
        return self._node_of.take(handles)

    def find(
        self, handles: NDArray[np.int64], addresses: NDArray[np.uint8]
    ) -> NDArray[np.int64] | None:
        """Return the number of each end; None if there is no room: forget, and try again.

        Where it is `crowded`: clear, learn, and try again.
        """
        if self.crowded:
            return None
        members = self._member_of.take(handles)
        numbers = self._number_of.take(handles)
        same = self.members.take(numbers) == members
        same &= same_addresses(self.addresses.take(numbers, axis=0), addresses)
        same &= numbers < len(self._index)
        rows = np.flatnonzero(~same)
        if not len(rows):
            return numbers
        sought = addresses.take(rows, axis=0)
        slots, new = self._index.upsert(pack_keys(sought, members[rows]))
        if slots.min() < 0:
            return None
        fresh = slots[new]
        self._grow(int(fresh.max(initial=0)) + 1)
        self.addresses[fresh] = sought[new]
        self.members[fresh] = members[rows[new]]
        numbers[rows] = self._number_of[handles[rows]] = slots
        return numbers

    def learn(self, pods: Sequence[Selectable | None], *sides: NDArray[np.int64]) -> None:
        """Look at the Pods of handles that are new, or now another's; before they are found."""
        self._room(len(pods) + 2)  # the last: handles GONE and NONE
        used = np.zeros(len(self._seen), dtype=bool)
        for side in sides:
            used[side] = True
        handles = np.flatnonzero(used[: len(pods)]).tolist()
        if not handles:
            return
        # Items are compared by identity first: no Python code runs while nothing changes.
        those = itemgetter(*handles)
        if those(pods) != those(self._seen):
            self._look(handles, pods)

    def _look(self, handles: list[int], pods: Sequence[Selectable | None]) -> None:
        for handle in handles:
            pod = pods[handle]
            if pod is not self._seen[handle]:
                self._seen[handle] = pod
                self._member_of[handle] = 0 if pod is None else self._number(pod)
                self._node_of[handle] = NONE if pod is None else self.node(pod.node)

    def _room(self, room: int) -> None:
        more = room - len(self._seen)
        if more > 0:
            self._member_of[GONE:] = 0
            self._seen += [None] * more
            self._member_of = np.pad(self._member_of, (0, more))
            self._member_of[GONE] = 1
            self._node_of = np.pad(self._node_of, (0, more), constant_values=NONE)
            self._number_of = np.pad(self._number_of, (0, more))

    def _number(self, pod: Selectable) -> int:
        member = member_of(pod)
        number = self._numbers.get(member)
        if number is None:
            number = self._numbers[member] = len(self._distinct)
            self._distinct.append(member)
        return number

    def _grow(self, room: int) -> None:
        if room > len(self.members):
            size = max(room, 2 * len(self.members))
            addresses = np.zeros((size, 16), dtype=np.uint8)
            addresses[: len(self.addresses)] = self.addresses
            members = np.zeros(size, dtype=np.uint32)
            members[: len(self.members)] = self.members
            self.addresses, self.members = addresses, members
