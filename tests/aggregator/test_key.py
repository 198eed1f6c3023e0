import numpy as np

from flowvis.aggregator.correlation.key import reversed_sides


def test_bits_turned_twice_are_as_before() -> None:
    every = np.arange(128, dtype=np.uint8)
    assert (reversed_sides(reversed_sides(every)) == every).all()
    assert (reversed_sides(every) != every).any()
