"""Edges between nodes that are numbered, with the sums of what passes over each.

Sums are exact however large: where those of all edges might not fit into 63 bits, they are Python's
integers.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from flowvis.questions.groups import Array

_BITS = 32
"""Of the number of a target in that of an edge."""


def codes_of(sources: Array, targets: Array) -> Array:
    """Return the numbers of the edges between nodes, int64."""
    codes: Array = (sources.astype(np.int64) << _BITS) | targets
    return codes


def ends_of(codes: Array) -> tuple[Array, Array]:
    """Return the nodes that edges lead from, and those that they lead to."""
    return codes >> _BITS, codes & ((1 << _BITS) - 1)


def exact(numbers: Array) -> Array:
    """Return sums of 0 to 2^64 - 1 as an array whose own sums are exact."""
    small = numbers.sum(dtype=np.float64) < float(1 << 62)
    return numbers.astype(np.int64 if small else object)


def added(codes: Array, numbers: Array) -> tuple[Array, Array]:
    """Return each code once, in order, and the sums of its numbers."""
    if not len(codes):
        return codes, numbers
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    return codes[starts], np.add.reduceat(numbers[order], starts, axis=0)


def both_ways(numbers: Array) -> Array:
    """Return the octets of both directions, the first two measures."""
    both: Array = numbers[:, 0] + numbers[:, 1]
    return both


@dataclass(frozen=True, slots=True)
class Edges:
    """Edges, each once."""

    codes: Array
    """In order."""
    numbers: Array
    """(edges, measures)"""

    @classmethod
    def of(cls, sources: Array, targets: Array, numbers: Array) -> Self:
        """Add up what was found between nodes; two of them may be found more than once."""
        return cls(*added(codes_of(sources, targets), numbers))

    def __len__(self) -> int:
        return len(self.codes)

    def at_nodes(self) -> dict[int, list[int]]:
        """Return what all edges at each node add up to; one from a node to itself counts once."""
        sources, targets = ends_of(self.codes)
        away = targets != sources
        nodes, sums = added(
            np.concatenate((sources, targets[away])),
            np.concatenate((self.numbers, self.numbers[away])),
        )
        return dict(zip(nodes.tolist(), sums.tolist(), strict=True))

    def total(self) -> list[int]:
        """Return what all edges add up to."""
        found: list[int] = self.numbers.sum(axis=0).tolist()
        return found

    def only(self, chosen: Array) -> "Edges":
        """Return some, by a mask."""
        return Edges(self.codes[chosen], self.numbers[chosen])

    def with_more(self, other: "Edges") -> "Edges":
        """Return them with others added."""
        both = (self, other)
        return Edges(
            *added(
                np.concatenate([each.codes for each in both]),
                np.concatenate([each.numbers for each in both]),
            )
        )

    def among(self, codes: Array) -> Array:
        """Return which edges are among some, as a mask."""
        return np.isin(self.codes, codes)


def larger(one: Edges, other: Edges) -> tuple[Array, Array]:
    """Return the edges that are in either, and the larger of the octets that they have."""
    codes = np.union1d(one.codes, other.codes)
    octets = []
    for each in (one, other):
        both = both_ways(each.numbers)
        found = np.zeros(len(codes), both.dtype)
        found[np.searchsorted(codes, each.codes)] = both
        octets.append(found)
    return codes, np.maximum(*octets)
