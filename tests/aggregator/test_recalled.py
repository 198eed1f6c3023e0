"""A store that knows many connections of one tuple, and an aggregator that begins anew with it."""

import secrets
from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.key import OLDEST
from flowvis.aggregator.exporters import DOUBT, Doubt
from flowvis.batch import Batch
from flowvis.fields import EndReason

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, counted, exported
from .test_delivery_properties import StoredRecords

NOW = START_MS + 300_000
Row = dict[str, Any]


def connection(half: Row, number: int) -> Row:
    """The only record of one of the connections."""
    began = START_MS + 5_000 * number
    return (
        half
        | counted(100 * number)
        | {
            "flowStartMilliseconds": began,
            "flowEndMilliseconds": began + 900,
            "flowEndReason": EndReason.END,
            "tcpState": "TIME_WAIT",
        }
    )


def add(table: FlowTable, *rows: Row, doubt: int = 0) -> None:
    batch = exported(table.strings, *rows)
    if doubt:
        batch[DOUBT] = np.full(len(rows), doubt, dtype=np.uint8)
    table.add(batch, NOW)
    assert table.stats.imbalance == 0


def answered(table: FlowTable, store: StoredRecords) -> bool:
    """Whether there was a question."""
    inquiry = table.parked.inquiry(NOW // 1000)
    if inquiry is not None:
        table.answer(inquiry, store.checkpoints(inquiry), NOW)
        assert table.stats.imbalance == 0
    return inquiry is not None


def written(*rows: Row) -> StoredRecords:
    """A store with what another aggregator made of these."""
    before, store = FlowTable(max_flows=64), StoredRecords()
    add(before, *rows)
    store.batches.append(before.due(NOW))
    assert len(store.batches[0]) == len({row["flowStartMilliseconds"] for row in rows})
    return store


def deltas(batch: Batch) -> list[int]:
    return sorted(batch["octetDeltaCount"].tolist())


HALVES = [(INTRA_NODE,), (SOURCE_HALF, DESTINATION_HALF)]


@pytest.mark.parametrize("halves", HALVES, ids=["one node", "two nodes"])
@pytest.mark.parametrize("count", [1, 2, 3, OLDEST + 1])
def test_none_of_many_that_come_again_is_written_again(halves: tuple[Row, ...], count: int) -> None:
    rows = [connection(half, number) for half in halves for number in range(1, count + 1)]
    store = written(*rows)
    table = FlowTable(max_flows=64)
    add(table, *rows, doubt=Doubt.REPEATED | Doubt.YOUNG)
    assert answered(table, store)
    assert not len(table.due(NOW))
    assert not len(table.flush(NOW))


@pytest.mark.parametrize("halves", HALVES, ids=["one node", "two nodes"])
def test_also_when_a_later_connection_is_there_already(halves: tuple[Row, ...]) -> None:
    rows = [connection(half, number) for half in halves for number in (1, 2, 3)]
    store = written(*rows)
    table = FlowTable(max_flows=64)
    add(table, *(connection(half, 9) for half in halves))
    add(table, *rows, doubt=Doubt.REPEATED | Doubt.YOUNG)
    assert answered(table, store)
    assert deltas(table.due(NOW)) == [900]
    assert not len(table.flush(NOW))
    add(table, *rows, doubt=Doubt.REPEATED | Doubt.YOUNG)
    assert not answered(table, store), "it was asked for before"
    assert not len(table.flush(NOW))


def test_what_was_not_written_of_them_is() -> None:
    store = written(*(connection(INTRA_NODE, number) for number in (1, 3)))
    table = FlowTable(max_flows=64)
    rows = [connection(INTRA_NODE, number) for number in (1, 2, 3, 4)]
    add(table, *rows, doubt=Doubt.REPEATED | Doubt.YOUNG)
    assert answered(table, store)
    assert deltas(table.due(NOW)) == [200, 400]


def test_what_waits_keeps_no_string_table_alive() -> None:
    """However often all text is left behind for a fresh one while the store is away."""
    table = FlowTable(max_flows=64, compact_bytes=1 << 16)
    rows = []
    for number in range(1, 9):
        rows.append(connection(INTRA_NODE | {"sourcePodName": f"pod-{number}"}, number))
        add(table, rows[-1], doubt=Doubt.REPEATED | Doubt.YOUNG)
        before = table.strings
        while table.strings is before:
            before.intern(secrets.token_bytes(1000))
            assert not len(table.due(NOW))
    assert table.stats.parked == 8
    assert {batch.strings for batch, _ in table.parked._batches} == {table.strings}
    assert answered(table, written(rows[0]))
    names = table.due(NOW).texts("sourcePodName")
    assert sorted(names) == [f"pod-{number}" for number in range(2, 9)]


def test_what_later_connections_take_the_place_of_only_the_store_knows() -> None:
    table = FlowTable(max_flows=64)
    for number in range(OLDEST + 1):
        add(table, connection(INTRA_NODE, number))
        table.flush(NOW)
    before = table.forgets
    add(table, connection(INTRA_NODE, OLDEST + 1))
    assert (before, table.forgets) == (False, True)
    assert (table.stats.expired, table.stats.evicted) == (0, 0)
