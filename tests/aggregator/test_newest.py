"""Of what the store has of a tuple, the last record of each connection."""

import numpy as np

from flowvis import checkpoint
from flowvis.aggregator.correlation.checkpoint import NONE, Flows, newest
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.native.contract.merge import FlowState


def stored(*rows: tuple[int, int, int]) -> Flows:
    """Records of one key: the starts of its endpoints, and the end."""
    columns = {
        name: np.zeros((len(rows), *c.shape[1:]), c.dtype) for name, c in NONE.columns.items()
    }
    for at, (first, second, end) in enumerate(rows):
        for name, start in zip(checkpoint.STARTS, (first, second), strict=True):
            columns[name][at] = start
        columns[checkpoint.ENDS[0]][at] = end
    state = np.full(len(rows), int(FlowState.LIVE | FlowState.WRITTEN), dtype=np.uint64)
    return Flows(columns, state, np.zeros((len(rows), KEY_SIZE), dtype=np.uint8))


def found(rows: Flows, most: int = 32) -> list[list[int]]:
    return [list(map(int, line)) for line in newest(rows, rows.keys[:1], most, limit_ms=2**63)]


def test_a_connection_is_known_by_any_start_that_was_told_of_it() -> None:
    assert found(stored((10, 0, 90), (10, 13, 50), (0, 13, 60))) == [[0, -1, -1]]
    assert found(stored((10, 0, 50), (10, 13, 60), (0, 13, 90), (20, 0, 70))) == [[3, 2, -1, -1]]


def test_sides_are_those_of_the_key_whichever_way_round_a_record_is() -> None:
    rows = stored((10, 13, 50), (13, 10, 60), (10, 13, 55))
    rows.state[1] |= np.uint64(FlowState.REVERSED)
    assert found(rows) == [[1, -1, -1]]


def test_of_very_many_connections_the_last_ones() -> None:
    rows = stored(*((start, 0, start + 1) for start in range(1, 20_001)))
    assert found(rows, 3) == [[19_999, 19_998, 19_997]]
