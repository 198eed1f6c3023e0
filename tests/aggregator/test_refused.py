"""Connections that found no room are known for a while, and bounded."""

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.refused import OF_KEY, Refused
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.native.contract.merge import Sides


def key(number: int) -> NDArray[np.uint8]:
    return np.full(KEY_SIZE, number, dtype=np.uint8)


def note(refused: Refused, *noted: tuple[int, int], side: int = Sides.SOURCE) -> None:
    keys = np.stack([key(number) for number, _ in noted])
    starts = np.array([start for _, start in noted], dtype=np.uint64)
    refused.note(keys, starts, np.full(len(noted), side, dtype=np.uint8))


def starts(refused: Refused, number: int) -> list[int]:
    return sorted(start for start, _ in refused.of(key(number)))


def test_the_last_ones_of_a_key_are_known_each_once() -> None:
    refused = Refused()
    assert refused.of(key(1)) == []
    note(refused, (1, 500), (2, 500), (1, 500), (1, 600))
    note(refused, (1, 500), side=Sides.DESTINATION)
    assert starts(refused, 1) == [500, 500, 600]
    assert refused.of(key(2)) == [(500, Sides.SOURCE)]
    for start in range(1000, 1000 + 2 * OF_KEY):
        note(refused, (1, start), (1, start))
    assert starts(refused, 1) == list(range(1000 + OF_KEY, 1000 + 2 * OF_KEY))
    assert refused.known(np.stack([key(1), key(3), key(2)])).tolist() == [True, False, True]


def test_when_there_are_too_many_keys_the_last_ones_stay() -> None:
    refused = Refused(max_keys=4)
    for number in range(1, 6):
        note(refused, (number, number))
    assert [starts(refused, number) for number in (1, 4, 5)] == [[], [], [5]]
    note(refused, *((number, 7) for number in range(20, 40)))
    assert len(refused) == 4
