"""Which of many address blocks an address lies in."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.policies.model import AddressBlock, Network

_MAPPED = 0xFFFF << 32
_MAPPED_END = (0xFFFF << 32) + (1 << 32)


class Blocks:
    """The address space cut at every block's ends; each piece has its set of blocks.

    IPv4 is the mapped part of IPv6's space, which no IPv6 block includes.
    """

    def __init__(self, numbers: Mapping[AddressBlock, int]) -> None:
        starts: dict[int, list[int]] = {}
        ends: dict[int, list[int]] = {}
        for block, number in numbers.items():
            for low, high in pieces(block):
                starts.setdefault(low, []).append(number)
                ends.setdefault(high, []).append(number)
        points = sorted({0, *starts, *(end for end in ends if end < 1 << 128)})
        self.sets: list[frozenset[int]] = []
        inside: set[int] = set()
        places: dict[frozenset[int], int] = {}
        cut = []
        for point in points:
            # A block's pieces do not touch, so what ends here does not start here.
            inside.difference_update(ends.get(point, ()))
            inside.update(starts.get(point, ()))
            found = frozenset(inside)
            if found not in places:
                places[found] = len(self.sets)
                self.sets.append(found)
            cut.append(places[found])
        self._points = _column(points)
        self._pieces = np.array(cut, dtype=np.int64)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the place in `sets` of each row of an `(n, 16)` address column."""
        keys = np.ascontiguousarray(addresses).view("S16").reshape(-1)
        return np.asarray(self._pieces[np.searchsorted(self._points, keys, "right") - 1])


def _column(points: list[int]) -> NDArray[np.bytes_]:
    # numpy orders bytes as unsigned; it drops zeros at the end, which the order does not see.
    return np.array([point.to_bytes(16, "big") for point in points], dtype="S16")


def pieces(block: AddressBlock) -> list[tuple[int, int]]:
    """Return the (first, end) of the pieces of a block that its parts leave, not touching."""
    low, high = _span(block.network)
    version = block.network.version
    if not block.parts and (version == 4 or high <= _MAPPED or low >= _MAPPED_END):
        return [(low, high)]  # as most are, of which there may be a million
    cuts = sorted(_span(part) for part in block.parts if part.version == version)
    if version == 6:
        cuts = sorted([*cuts, (_MAPPED, _MAPPED_END)])
    found = []
    for cut_low, cut_high in cuts:
        if low < cut_low:
            found.append((low, min(cut_low, high)))
        low = max(low, cut_high)
        if low >= high:
            return found
    return [*found, (low, high)]


def _span(network: Network) -> tuple[int, int]:
    base = _MAPPED if network.version == 4 else 0
    first = base + int(network.network_address)
    return first, first + (1 << network.max_prefixlen - network.prefixlen)
