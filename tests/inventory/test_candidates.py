from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flowvis.inventory.candidates import END, Candidates

LISTS = st.lists(st.integers(0, 1 << 40), max_size=5)


@given(st.lists(LISTS | st.none(), max_size=40), st.data())
def test_lists_are_kept_until_they_are_dropped(steps: list[list[int] | None], data: Any) -> None:
    """None: one of those that there are is dropped."""
    candidates, kept = Candidates(), {}
    for step in steps:
        if step is not None:
            first = candidates.put(step)
            assert (first == END) == (not step)
            assert first not in kept
            if step:
                kept[first] = step
        elif kept:
            first = data.draw(st.sampled_from(sorted(kept)))
            candidates.drop(first)
            del kept[first]
    for first, handles in kept.items():
        assert candidates.of(first) == handles
    rows = data.draw(st.lists(st.sampled_from([END, *sorted(kept)]), max_size=20))
    found: list[list[int]] = [[] for _ in rows]
    for these, those in candidates.walk(np.array(rows, dtype=np.int64)):
        for row, handle in zip(these.tolist(), those.tolist(), strict=True):
            found[row].append(handle)
    assert found == [kept.get(first, []) for first in rows]


def test_places_are_used_again() -> None:
    candidates = Candidates()
    for _ in range(1000):
        first = candidates.put(range(30))
        candidates.drop(first)
        assert first < 30
    assert candidates.of(candidates.put([])) == []
