"""A clock that was far ahead for a moment costs nothing of what is told of a connection later."""

from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.kept import kept, last_written
from flowvis.aggregator.correlation.reversal import reverse
from flowvis.aggregator.exporters import DOUBT, Doubt
from flowvis.batch import Batch

from .exported import (
    DESTINATION_HALF,
    INTRA_NODE,
    SOURCE_HALF,
    START_MS,
    counted,
    exported,
)

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
AHEAD_MS = 70 * 365 * 24 * HOUR_MS


class Table:
    """A table, and what it has written."""

    def __init__(self) -> None:
        self.flows = FlowTable(max_flows=64)
        self.octets = 0
        self.spans: list[tuple[int, int]] = []
        self.rates: list[int] = []

    def tell(self, minute: int, *records: dict[str, Any], ahead_ms: int = 0) -> Batch:
        """Have records come, each of the counters as of then; write what is due a minute later."""
        now_ms = START_MS + minute * MINUTE_MS
        end = {"flowEndMilliseconds": now_ms + ahead_ms}
        self.flows.add(exported(self.flows.strings, *(end | one for one in records)), now_ms)
        return self.write(now_ms + 61_000)

    def write(self, now_ms: int) -> Batch:
        batch = self.flows.due(now_ms)
        self.octets += int(batch["octetDeltaCount"].sum())
        begins = batch["monitoringIntervalStartMilliSeconds"].tolist()
        self.spans += zip(begins, batch["flowEndMilliseconds"].tolist(), strict=True)
        self.rates += batch["throughput"].tolist()
        return batch


def test_what_comes_after_a_clock_was_set_back_counts() -> None:
    table = Table()
    table.tell(1, INTRA_NODE | counted(700))
    table.tell(2, INTRA_NODE | counted(900, 200), ahead_ms=AHEAD_MS)
    for minute, octets in ((3, 1600), (4, 1700)):
        table.tell(minute, INTRA_NODE | counted(octets, 100))
    assert (table.octets, table.flows.stats.late) == (1700, 0)
    third, fourth = table.spans[2:]
    assert third == (START_MS + 3 * MINUTE_MS,) * 2, "nobody knows when it began"
    assert fourth == (START_MS + 3 * MINUTE_MS, START_MS + 4 * MINUTE_MS)
    assert table.rates[3] == 100 * 8000 // MINUTE_MS


@pytest.mark.parametrize("wrong", [SOURCE_HALF, DESTINATION_HALF])
def test_one_node_with_such_a_clock(wrong: dict[str, Any]) -> None:
    table = Table()
    right = DESTINATION_HALF if wrong is SOURCE_HALF else SOURCE_HALF
    table.tell(1, wrong | counted(500), right | counted(500))
    table.tell(2, wrong | counted(800, 300), ahead_ms=AHEAD_MS)
    table.tell(2, right | counted(800, 300))
    for minute in (3, 4, 5):
        total = 800 + 1000 * (minute - 2)
        table.tell(minute, *(half | counted(total, 1000) for half in (wrong, right)))
    assert (table.octets, table.flows.stats.late) == (3800, 0)


def test_what_is_late_stays_late_where_a_clock_is_always_ahead() -> None:
    table = Table()
    for minute, octets in ((150, 1000), (151, 1600)):
        table.tell(minute, INTRA_NODE | counted(octets, 600), ahead_ms=2 * HOUR_MS)
    table.tell(152, INTRA_NODE | counted(900, 100), ahead_ms=-HOUR_MS)
    assert table.flows.stats.late == 1
    table.tell(153, INTRA_NODE | counted(1800, 200), ahead_ms=2 * HOUR_MS)
    assert table.octets == 600 + 600 + 200


def test_of_what_is_a_little_ahead_the_end_says_what_is_late() -> None:
    table = Table()
    table.tell(1, INTRA_NODE | counted(100), ahead_ms=HOUR_MS // 2)
    table.tell(2, INTRA_NODE | counted(300, 200))
    assert (table.octets, table.flows.stats.late) == (100, 1)
    table.tell(35, INTRA_NODE | counted(500, 200))
    assert table.octets == 500, "it is made good"


def test_a_record_of_the_other_way_round_is_left_to_the_rules() -> None:
    table = Table()
    table.tell(1, INTRA_NODE | counted(100))
    table.tell(2, INTRA_NODE | counted(300, 200), ahead_ms=AHEAD_MS)
    end = {"flowEndMilliseconds": START_MS + 3 * MINUTE_MS}
    batch = exported(table.flows.strings, INTRA_NODE | counted(600, 300) | end)
    reverse(batch.columns, np.array([0]))
    table.flows.add(batch, START_MS + 3 * MINUTE_MS)
    table.write(START_MS + 4 * MINUTE_MS)
    assert table.octets <= 600


def test_such_an_end_that_the_store_has() -> None:
    before = Table()
    before.tell(1, INTRA_NODE | counted(400))
    stored = before.tell(2, INTRA_NODE | counted(600, 200), ahead_ms=AHEAD_MS)
    after = Table()
    now_ms = START_MS + 3 * MINUTE_MS
    batch = exported(
        after.flows.strings, INTRA_NODE | counted(1100, 500) | {"flowEndMilliseconds": now_ms}
    )
    batch.columns[DOUBT] = np.array([Doubt.YOUNG | Doubt.KEPT], dtype=np.uint8)
    after.flows.add(batch, now_ms)
    inquiry = after.flows.parked.inquiry(now_ms // 1000)
    assert inquiry is not None
    after.flows.answer(inquiry, last_written(kept(stored)), now_ms)
    after.write(now_ms + 61_000)
    assert (after.flows.stats.restored, after.octets) == (1, 500)


def test_of_what_files_have_of_a_connection_the_last_one_counts_whatever_its_end() -> None:
    before = Table()
    parts = [before.tell(1, INTRA_NODE | counted(400))]
    parts.append(before.tell(2, INTRA_NODE | counted(600, 200), ahead_ms=AHEAD_MS))
    parts.append(before.tell(3, INTRA_NODE | counted(1100, 500)))
    after = Table()
    now_ms = START_MS + 4 * MINUTE_MS
    end = {"flowEndMilliseconds": now_ms}
    batch = exported(after.flows.strings, INTRA_NODE | counted(1200, 100) | end)
    batch.columns[DOUBT] = np.array([Doubt.YOUNG | Doubt.KEPT], dtype=np.uint8)
    after.flows.add(batch, now_ms)
    inquiry = after.flows.parked.inquiry(now_ms // 1000)
    assert inquiry is not None
    rows = np.concatenate([kept(part) for part in parts])
    after.flows.answer(inquiry, last_written(rows), now_ms)
    after.write(now_ms + 61_000)
    assert (before.octets, after.octets) == (1100, 100)
