"""Nodes' addresses that no object of the API has, as their own exporters report them.

An exporter knows all addresses of its node, and names the node at them; each kubelet's probes
bring the gateway of its Pods. So what the other nodes see come from there is known as well.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch
from flowvis.native import FlowIndex
from flowvis.strings import Strings

MAX_ADDRESSES = 1 << 16  # then it begins anew
MAX_NAMES = 1 << 14  # the same; Kubernetes is made for 5,000 nodes
LONGEST_NAME = 253
"""Bytes of a node's name, at most, in Kubernetes as in DNS: a longer text names none."""


class ReportedNodes:
    """Node names by address, in some 7 MB at most; the newest report counts."""

    def __init__(self, max_addresses: int = MAX_ADDRESSES) -> None:
        self._index = FlowIndex(16, max_addresses)
        self._number_at = np.zeros(max_addresses + 1, dtype=np.int32)  # the last: slot -1
        self._forget()

    def __len__(self) -> int:
        return len(self._index)

    def learn(self, batch: Batch) -> None:
        """Note the nodes that records name at their sources, where they name no Pod."""
        rows = np.flatnonzero((batch["sourceNodeName"] != 0) & (batch["sourcePodName"] == 0))
        if not len(rows):
            return
        codes, places = np.unique(batch["sourceNodeName"][rows], return_inverse=True)
        names = [batch.strings.value(code) for code in codes.tolist()]
        slots = self._index.upsert(batch["sourceIP"][rows])[0]
        if slots.min() < 0 or len(self._names) + len(names) > MAX_NAMES:
            self._forget()
            slots = self._index.upsert(batch["sourceIP"][rows])[0]
        numbers = [self._number(name) if len(name) <= LONGEST_NAME else 0 for name in names]
        self._number_at[slots] = np.array(numbers, dtype=np.int32)[places]
        self._number_at[-1] = 0

    def find(
        self,
        addresses: NDArray[np.uint8],
        strings: Strings,
        is_there: Callable[[str], bool] = lambda _: True,
    ) -> NDArray[np.uint32]:
        """Return the codes of the names of the nodes that addresses are of; 0 where of none.

        The address of a node that is not there any more may be anybody's.
        """
        numbers = self._number_at[self._index.find(addresses)]
        if not numbers.any():
            return np.zeros(len(addresses), dtype=np.uint32)
        used, places = np.unique(numbers, return_inverse=True)
        names = (self._names[number] for number in used.tolist())
        codes = [
            strings.intern(name) if is_there(name.decode(errors="replace")) else 0 for name in names
        ]
        return np.array(codes, dtype=np.uint32)[places]

    def _forget(self) -> None:
        self._index.clear()
        self._names: list[bytes] = [b""]
        self._numbers: dict[bytes, int] = {b"": 0}

    def _number(self, name: bytes) -> int:
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number
