"""Networks and fixed keys, looked up for whole columns."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.addresses import Network
from flowvis.batch import V4_MAPPED
from flowvis.native import FlowIndex

NONE = -1
"""The handle of nothing."""


class Lookup:
    """Keys that do not change, to handles; of equal keys the first counts."""

    def __init__(self, keys: NDArray[np.uint8], handles: Sequence[int]) -> None:
        self._index = FlowIndex(keys.shape[1], max(len(keys), 1))
        slots, new = self._index.upsert(keys)
        self._handles = np.full(len(keys) + 1, NONE, dtype=np.int64)  # the last: slot -1
        self._handles[slots[new]] = np.array(handles, dtype=np.int64)[new]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the handle of each key; NONE where it has none."""
        return np.asarray(self._handles[self._index.find(keys)])


class Networks:
    """Some networks: one look-up for each prefix length that occurs."""

    def __init__(self, networks: Iterable[Network]) -> None:
        by_length: dict[int, list[tuple[bytes, int]]] = {}
        for handle, network in enumerate(networks):
            length = network.prefixlen + (96 if network.version == 4 else 0)
            by_length.setdefault(length, []).append((_mapped(network, 0), handle))
        self._prefixes = [
            (_mask(length), Lookup(address_column(a for a, _ in places), [h for _, h in places]))
            for length, places in sorted(by_length.items())
        ]

    def contain(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which rows of an `(n, 16)` address column lie in one of the networks."""
        return np.asarray(self.find(addresses) != NONE)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the handle (place among the networks) of the longest one that each lies in."""
        handles = np.full(len(addresses), NONE, dtype=np.int64)
        for mask, firsts in self._prefixes:
            found = firsts.find(addresses & mask)
            np.copyto(handles, found, where=found != NONE)
        return handles


def legs(network: Network) -> tuple[bytes, ...]:
    """Return the 16 bytes of the first two addresses of a node's Pod network, if it has so many.

    They are the node's own legs in that network: flannel.1 has the first, antrea-gw0, cni0 and
    their like the second.
    """
    return tuple(_mapped(network, place) for place in range(min(2, network.num_addresses)))


def address_column(addresses: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return 16-byte addresses as an `(n, 16)` column."""
    return np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 16)


def _mapped(network: Network, place: int) -> bytes:
    address = (network.network_address + place).packed
    return V4_MAPPED + address if network.version == 4 else address


def _mask(length: int) -> NDArray[np.uint8]:
    bits = (1 << 128) - (1 << (128 - length))
    return np.frombuffer(bits.to_bytes(16, "big"), dtype=np.uint8)
