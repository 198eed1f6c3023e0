"""A node that begins a connection anew, which shows only when the other one's next record comes.

As when exporters stand still, and then the node's whose kernel forgot it tells first.
"""

from typing import Any

import pytest

from .exported import DESTINATION_HALF, SOURCE_HALF, START_MS, counted, exported
from .test_late_halves import Aggregated

Row = dict[str, Any]


def told(half: Row, began_s: float, end_s: float, total: int, delta: int) -> Row:
    return half | counted(total, delta) | {
        "flowStartMilliseconds": START_MS + int(1000 * began_s),
        "flowEndMilliseconds": START_MS + int(1000 * end_s),
    }  # fmt: skip


@pytest.mark.parametrize("alone", [False, True], ids=["together", "written alone"])
@pytest.mark.parametrize("before", [(4900, 5900), (5900, 4900), (5900, 5900)])
@pytest.mark.parametrize("turned", [False, True])
def test_what_the_other_node_had_told_already_is_counted_once(
    before: tuple[int, int], *, alone: bool, turned: bool
) -> None:
    """Of 20,000 octets."""
    stays, anew = (SOURCE_HALF, DESTINATION_HALF)[:: -1 if turned else 1]
    first, other = before
    aggregated = Aggregated()

    def add(at_s: int, *rows: Row) -> None:
        aggregated.add(START_MS + 1000 * at_s, *rows, doubt=0)

    def write(at_s: int) -> None:
        aggregated.store.batches.append(aggregated.table.flush(START_MS + 1000 * at_s))
        assert not aggregated.table.stats.imbalance
        assert not aggregated.table.stats.held

    add(2, told(stays, 0, 2, 1900, 1900), told(anew, 0.003, 2, 2200, 2200))
    write(2)
    add(7, told(stays, 0, 6, first, first - 1900), told(anew, 0.003, 7, other, other - 2200))
    write(7)
    add(20, told(anew, 8, 20, 12_900, 12_900))
    if alone:
        write(20)
    add(20, told(stays, 0, 19, 17_300, 17_300 - first))
    write(20)
    assert aggregated.sums()[0] <= 20_000
    add(25, told(anew, 8, 22, 20_000 - other, 7100 - other), told(stays, 0, 22, 20_000, 2700))
    write(25)
    assert aggregated.sums() == [20_000] * 3
    assert len(aggregated.table) == 1


def test_the_largest_numbers_stay_the_largest() -> None:
    """What an exporter claims may be anything: no record of it is lost, or begins from 0."""
    most = (1 << 64) - 1
    table = Aggregated().table
    stays, anew = SOURCE_HALF, DESTINATION_HALF

    def add(at_s: int, *rows: Row) -> None:
        table.add(exported(table.strings, *rows), START_MS + 1000 * at_s)

    add(2, told(stays, 0, 2, most - 9, most - 9), told(anew, 0.003, 2, most - 9, most - 9))
    table.flush(START_MS + 2000)
    add(20, told(anew, 8, 20, most - 5, most // 2))
    add(20, told(stays, 0, 19, most - 1, 8))
    assert table.stats.failed == 0
    record = table.flush(START_MS + 20_000)
    assert len(table) == len(record) == 1
    assert record["octetTotalCount"].tolist() == [most]
    assert record["octetTotalCountFromDestinationNode"].tolist() == [most]
