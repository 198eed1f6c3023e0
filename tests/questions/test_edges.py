"""Edges are added up as Python adds: exactly, whatever their size."""

import random
from collections import defaultdict

import numpy as np
import pytest

from flowvis.questions.edges import Edges, codes_of, ends_of, exact, larger

Sums = dict[tuple[int, int], list[int]]


def _made(number: int, largest: int) -> tuple[Edges, Sums]:
    """Make edges, and the same by hand."""
    dice = random.Random(number)
    count = dice.randrange(60)
    ends = [(dice.randrange(6), dice.randrange(6)) for _ in range(count)]
    rows = [[dice.randrange(largest), dice.randrange(3)] for _ in range(count)]
    sums: Sums = defaultdict(lambda: [0, 0])
    for edge, row in zip(ends, rows, strict=True):
        sums[edge] = [a + b for a, b in zip(sums[edge], row, strict=True)]
    sources, targets = np.array(ends, np.int64).reshape(count, 2).T
    return Edges.of(sources, targets, exact(np.array(rows, np.uint64).reshape(count, 2))), sums


def _as_dict(edges: Edges) -> Sums:
    ends = zip(*(each.tolist() for each in ends_of(edges.codes)), strict=True)
    return dict(zip(ends, edges.numbers.tolist(), strict=True))


@pytest.mark.parametrize("largest", [1 << 8, 1 << 64])
def test_sums_are_those_by_hand(largest: int) -> None:
    for number in range(40):
        edges, sums = _made(number, largest)
        assert _as_dict(edges) == sums
        assert edges.total() == [sum(row[n] for row in sums.values()) for n in range(2)]
        at_nodes = edges.at_nodes()
        for node in range(6):  # an edge from a node to itself counts once
            at = [row for edge, row in sums.items() if node in edge]
            assert at_nodes.get(node, [0, 0]) == [sum(row[n] for row in at) for n in range(2)]
        other, more = _made(number + 1000, largest)
        codes, octets = larger(edges, other)
        found = dict(zip(zip(*map(list, ends_of(codes)), strict=True), octets, strict=True))
        nothing = [0, 0]
        assert found == {
            edge: max(sum(sums.get(edge, nothing)), sum(more.get(edge, nothing)))
            for edge in {*sums, *more}
        }
        both = _as_dict(edges.with_more(other))
        for edge in {*sums, *more}:
            pair = zip(sums.get(edge, nothing), more.get(edge, nothing), strict=True)
            assert both[edge] == [a + b for a, b in pair]


def test_some_are_chosen_by_their_numbers() -> None:
    edges, sums = _made(7, 1 << 64)
    some = sorted(sums)[::3]
    sources, targets = np.array(some, np.int64).T
    chosen = edges.among(codes_of(sources, targets))
    assert _as_dict(edges.only(chosen)) == {edge: sums[edge] for edge in some}
    assert set(_as_dict(edges.only(~chosen))) == set(sums) - set(some)
