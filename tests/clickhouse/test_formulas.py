"""Residuals: any value comes back, and ordinary records leave hardly any."""

import numpy as np
import pytest

from flowvis import checkpoint
from flowvis.clickhouse.schema.encode import BatchId, encode
from flowvis.clickhouse.schema.formulas import (
    DERIVED,
    INSERTED,
    RATE_INTERVAL,
    Numeric,
    Sql,
    SqlNames,
    over,
)
from flowvis.clickhouse.schema.native_block import Numbers
from flowvis.fields import FIELDS, Merge, Side

from .samples import flows


def stored(name: str, changes: dict[str, list[int]]) -> list[int]:
    """What is stored for a column of records that are like this, and else empty."""
    rows = len(next(iter(changes.values())))
    batch = flows(rows)
    for counter in ("octetDeltaCount", "octetTotalCount"):
        batch[counter] = np.zeros(rows, np.uint64)
    for changed, values in changes.items():
        batch[changed] = np.array(values, batch[changed].dtype)
    block = encode(batch, BatchId("test", 1_790_000_000))
    column = next(c for c in block.columns if c.name == name)
    assert isinstance(column, Numbers)
    return [int(value) for value in column.values]


def test_what_is_derived() -> None:
    expected = {
        field.name
        for field in FIELDS
        if field.merge is Merge.TOTAL
        or field.merge is Merge.RATE
        or (field.merge in {Merge.DELTA, Merge.END} and field.side is not Side.COMMON)
    }
    assert set(DERIVED) == {*expected, INSERTED, "monitoringIntervalStartMilliSeconds"}


def test_the_first_record_of_a_connection_has_no_total_of_its_own() -> None:
    changes = {"octetDeltaCount": [700, 300], "octetTotalCount": [700, 1000]}
    assert stored("octetTotalCountResidual", changes) == [0, 700]


def test_a_node_that_counted_the_same_leaves_nothing() -> None:
    changes = {
        "flowEndSeconds": [1000, 1000, 1000],
        "flowEndSecondsFromSourceNode": [1000, 995, 0],
        "octetTotalCount": [500, 500, 500],
        "octetTotalCountFromSourceNode": [500, 450, 0],
        "octetDeltaCount": [100, 100, 100],
        "octetDeltaCountFromSourceNode": [100, 90, 0],
    }
    assert stored("flowEndSecondsFromSourceNodeResidual", changes) == [0, 5, 1000]
    assert stored("octetTotalCountFromSourceNodeResidual", changes) == [0, 50, 0]
    # Before the interval it was 400 for both and 360 for the node: 40 behind.
    assert stored("octetDeltaCountFromSourceNodeResidual", changes) == [0, 40, 0]


@pytest.mark.parametrize("interval_ms", [1, 999, 5_000, 59_731, 60_000, 3_600_000])
def test_rates_follow_from_one_interval(interval_ms: int) -> None:
    octets = [40, 1_500, 123_456, 10**9, 0]
    replies = [60, 90, 777_777, 10**12, 0]
    changes = {
        "octetDeltaCount": octets,
        "reverseOctetDeltaCount": replies,
        "throughput": [n * 8000 // interval_ms for n in octets],
        "reverseThroughput": [n * 8000 // interval_ms for n in replies],
    }
    assert stored("reverseThroughputResidual", changes) == [0] * 5
    found = stored("throughputResidual", changes)
    assert all(residual <= 1 or residual >= 2**64 - 1 for residual in found)
    intervals = stored(RATE_INTERVAL, changes)
    assert intervals[3] == interval_ms


@pytest.mark.parametrize("apart_ms", [-4_700, 0, 3, 59_000])
def test_both_rates_of_a_node_follow_from_an_interval_of_its_own(apart_ms: int) -> None:
    octets, replies = [10**6, 3 * 10**9, 0, 10**9], [2 * 10**7, 10**6, 0, 0]
    interval, own = 60_731, 60_731 - apart_ms
    changes = {"octetDeltaCount": octets, "reverseOctetDeltaCount": replies}
    changes |= {
        name + suffix: [n * 8000 // ms for n in counts]
        for suffix, ms in (("", interval), ("FromDestinationNode", own))
        for name, counts in (("throughput", octets), ("reverseThroughput", replies))
    }
    changes["octetDeltaCountFromDestinationNode"] = octets
    changes["reverseOctetDeltaCountFromDestinationNode"] = replies
    found = stored("destinationRateIntervalResidual", changes)
    assert found == [apart_ms % 2**64, apart_ms % 2**64, 0, apart_ms % 2**64]
    for name in ("throughput", "reverseThroughput"):
        assert stored(f"{name}FromDestinationNodeResidual", changes) == [0] * 4
    assert not any(stored("sourceRateIntervalResidual", changes))


def test_the_interval_is_what_the_record_lasted_where_that_explains_the_rates() -> None:
    """Of few octets rates tell it badly, and then the ends in milliseconds would be stored."""
    batch = flows(3)
    began, ended = 1_790_000_000_123, 1_790_000_060_845
    lasted = ended - began
    rates = [100 * 8000 // lasted, 100 * 8000 // lasted, 77]
    for name, values in {
        "octetDeltaCount": [100, 100, 100],
        "reverseOctetDeltaCount": [100, 0, 100],
        "throughput": rates,
        "reverseThroughput": [rates[0], 0, 77],
        "monitoringIntervalStartMilliSeconds": [began] * 3,
        "flowEndSeconds": [ended // 1000] * 3,
        "flowEndSecondsFromSourceNode": [ended // 1000] * 3,
        "flowEndSecondsFromDestinationNode": [ended // 1000 - 4] * 3,
    }.items():
        batch[name] = np.array(values, batch[name].dtype)
    for name, kind in checkpoint.COLUMNS.items():
        batch[name] = np.zeros(3, kind)
    batch[checkpoint.STATE][:] = 0xFFFF
    batch[checkpoint.ENDS[0]][:] = ended
    batch[checkpoint.ENDS[1]][:] = ended - 4000
    batch["flowId"] = np.zeros(3, np.uint64)
    columns = {c.name: c for c in encode(batch, BatchId("test", 1_790_000_000)).columns}
    interval, end = columns[RATE_INTERVAL], columns["sourceEndMillisecondsResidual"]
    assert isinstance(interval, Numbers)
    assert isinstance(end, Numbers)
    assert interval.values[:2].tolist() == [lasted, lasted]
    assert interval.values[2] == 100 * 8000 // 77
    assert end.values[:2].tolist() == [0, 0]


@pytest.mark.parametrize("octets", [0, 1, 7_591, 2**50, 2**61 - 1])
def test_a_rate_that_is_no_quotient_is_stored(octets: int) -> None:
    """Also where the product that is compared instead of dividing exceeds 64 bits."""
    interval = 60_731
    changes = {"octetDeltaCount": [octets] * 6, "reverseOctetDeltaCount": [10**9] * 6}
    quotient = octets * 8000 % 2**64 // interval
    wrong = [quotient, quotient + 1, max(quotient, 1) - 1, 2**64 - 1, 2**63, 3 * 2**62]
    changes["reverseThroughput"] = [10**9 * 8000 // interval] * 6
    changes["throughput"] = wrong
    found = stored("throughputResidual", changes)
    intervals = stored(RATE_INTERVAL, changes)
    predicted = [octets * 8000 % 2**64 // ms if ms else 0 for ms in intervals]
    assert [(p + f) % 2**64 for p, f in zip(predicted, found, strict=True)] == wrong


def test_division_by_nothing_and_what_was_not_seen() -> None:
    zero = np.zeros(2, np.uint64)
    assert over(np.array([5, 0], np.uint64), zero).tolist() == [0, 0]
    operands = Numeric({"seen": np.array([0, 1, 2**32 - 1], np.uint32)})
    assert operands.only_if("seen", np.array([7, 7, 2**64 - 1], np.uint64)).tolist() == [
        0,
        7,
        2**64 - 1,
    ]


def test_expressions() -> None:
    a, b = Sql("a"), Sql("b")
    assert (a + b).text == "toUInt64(a + b)"
    assert (a * 8 - b).text == "toUInt64(toUInt64(a * 8) - b)"
    assert over(a, b).text == "if(b = 0, toUInt64(0), intDiv(a, greatest(b, 1)))"
    assert SqlNames().only_if("a", b).text == "if(toUInt64(a) = 0, toUInt64(0), b)"
