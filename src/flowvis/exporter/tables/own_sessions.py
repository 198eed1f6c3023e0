"""The exporter's own connections to its collector, which would be flows of their own making."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import address_bytes
from flowvis.conntrack.entries import Entries

TCP = 6
KEPT = 4096
"""Of the latest attempts: the kernel lists each for up to two minutes after its end."""

Endpoint = tuple[str, int]  # an address and a port, as sockets have them


class OwnSessions:
    """The tuples of the latest attempts to connect, exactly as the kernel tracks them."""

    def __init__(self) -> None:
        self._tuples: OrderedDict[tuple[bytes, int, bytes, int, int], None] = OrderedDict()
        self._ports: NDArray[np.uint16] = np.empty(0, dtype=np.uint16)

    def __len__(self) -> int:
        return len(self._tuples)

    def add(self, local: Endpoint, remote: Endpoint, protocol: int = TCP) -> None:
        """Note an attempt; the oldest goes when there are too many."""
        if not local[1]:
            return  # it failed at once
        key = (_packed(local[0]), local[1], _packed(remote[0]), remote[1], protocol)
        self._tuples[key] = None
        self._tuples.move_to_end(key)
        if len(self._tuples) > KEPT:
            self._tuples.popitem(last=False)
        self._ports = np.unique(np.array([port for _, port, *_ in self._tuples], np.uint16))

    def among(self, entries: Entries) -> NDArray[np.bool_]:
        """Which entries are of these connections, by the tuple of their original direction."""
        found = np.isin(entries.source_port, self._ports)
        for at in np.flatnonzero(found):  # few: another's connection from a port of ours
            key = (
                entries.source[at].tobytes(),
                int(entries.source_port[at]),
                entries.destination[at].tobytes(),
                int(entries.destination_port[at]),
                int(entries.protocol[at]),
            )
            found[at] = key in self._tuples
        return np.asarray(found)


def _packed(address: str) -> bytes:
    return address_bytes(address.partition("%")[0])
