"""A half that comes when the other one is written and forgotten, in a session that is not young."""

from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.parked import LOOK_BACK_S, REPEATED_S
from flowvis.aggregator.exporters import DOUBT, TOLD, Doubt

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, counted, exported
from .test_delivery_properties import StoredRecords

Row = dict[str, Any]
FORGET_MS = 91_000
BEHIND = Doubt.KEPT | Doubt.BEHIND
LATER = START_MS + 200_000


class Aggregated:
    """A table and the store behind it."""

    def __init__(self, max_flows: int = 64) -> None:
        self.table = FlowTable(max_flows=max_flows)
        self.store = StoredRecords()
        self.questions = 0

    def add(self, now_ms: int, *rows: Row, doubt: int = Doubt.KEPT, told_ms: int = 0) -> None:
        batch = exported(self.table.strings, *({"flowEndMilliseconds": now_ms} | r for r in rows))
        batch[DOUBT] = np.full(len(batch), doubt, dtype=np.uint8)
        batch[TOLD] = np.full(len(batch), told_ms // 1000, dtype=np.uint32)
        self.table.add(batch, now_ms)

    def inquire(self, now_ms: int) -> int:
        """Ask if anything is doubtful; return from when on, in seconds, 0 for not at all."""
        inquiry = self.table.parked.inquiry(now_ms // 1000)
        if inquiry is None:
            return 0
        self.questions += 1
        self.table.answer(inquiry, self.store.checkpoints(inquiry), now_ms)
        assert self.table.stats.imbalance == 0
        return inquiry.since_s

    def write(self, now_ms: int) -> None:
        batch = self.table.due(now_ms)
        if len(batch):
            self.store.batches.append(batch)

    def sums(self) -> list[int]:
        names = (f"octetDeltaCount{suffix}" for suffix in ("", *SUFFIXES))
        return [sum(self.store.sums(name).values()) for name in names]


SUFFIXES = "FromSourceNode", "FromDestinationNode"


def told_by_the_source() -> Aggregated:
    """1,000 octets are written, as one half, and forgotten."""
    aggregated = Aggregated()
    aggregated.add(START_MS, first(SOURCE_HALF, 1000), doubt=0)
    aggregated.write(START_MS + FORGET_MS)
    assert not len(aggregated.table)
    assert aggregated.sums() == [1000, 1000, 0]
    return aggregated


def first(half: Row, octets: int, start_ms: int = START_MS) -> Row:
    return half | counted(octets) | {"flowStartMilliseconds": start_ms}


def next_(half: Row, octets: int, delta: int) -> Row:
    return first(half, octets) | {"octetDeltaCount": delta, "packetDeltaCount": 1}


@pytest.mark.parametrize("doubt", [Doubt.KEPT, Doubt.KEPT | Doubt.YOUNG, BEHIND])
def test_two_that_report_the_whole_of_it_are_halves_as_well(doubt: int) -> None:
    aggregated = Aggregated()
    one, other = (INTRA_NODE | {"observationDomainId": number} for number in (1, 2))
    aggregated.add(START_MS, first(one, 1000), doubt=0)
    aggregated.write(START_MS + FORGET_MS)
    assert not len(aggregated.table)
    aggregated.add(LATER, first(other, 1000), doubt=doubt)
    assert aggregated.inquire(LATER)
    aggregated.write(LATER + FORGET_MS)
    assert aggregated.sums()[0] == 1000


@pytest.mark.parametrize("start_ms", [START_MS + 4, START_MS - 4])
def test_the_first_record_of_a_half_is_asked_about(start_ms: int) -> None:
    aggregated = told_by_the_source()
    aggregated.add(LATER, first(DESTINATION_HALF, 1000, start_ms))
    assert aggregated.inquire(LATER) == LATER // 1000 - LOOK_BACK_S
    aggregated.write(LATER + FORGET_MS)
    assert aggregated.sums() == [1000, 1000, 1000]


def test_who_is_behind_is_asked_about_from_before_its_silence() -> None:
    """Its half had told 300 of the octets before."""
    aggregated = Aggregated()
    aggregated.add(START_MS, first(SOURCE_HALF, 300), first(DESTINATION_HALF, 300), doubt=0)
    aggregated.write(START_MS)
    aggregated.add(START_MS + 60_000, next_(SOURCE_HALF, 1000, 700))
    aggregated.write(START_MS + 120_000)
    aggregated.write(START_MS + 60_000 + FORGET_MS)
    assert not len(aggregated.table)
    now_ms = START_MS + 3_000_000
    aggregated.add(now_ms, next_(DESTINATION_HALF, 1200, 900), doubt=BEHIND, told_ms=START_MS)
    assert aggregated.inquire(now_ms) == START_MS // 1000 - LOOK_BACK_S
    aggregated.write(now_ms + FORGET_MS)
    assert aggregated.sums() == [1200, 1000, 1200]


@pytest.mark.parametrize("hours", [3, 20])
def test_what_a_node_that_was_cut_off_for_long_sends_again_adds_nothing(hours: int) -> None:
    aggregated = Aggregated()
    aggregated.add(START_MS, first(INTRA_NODE, 1000), doubt=0)
    aggregated.write(START_MS + FORGET_MS)
    now_ms = START_MS + hours * 3_600_000
    again = {"flowEndMilliseconds": START_MS}
    aggregated.add(now_ms, first(INTRA_NODE, 1000) | again, doubt=BEHIND | Doubt.REPEATED)
    assert aggregated.inquire(now_ms) == START_MS // 1000 - LOOK_BACK_S
    aggregated.write(now_ms + FORGET_MS)
    assert aggregated.sums()[0] == 1000


def test_a_wrong_clock_has_not_all_of_the_store_looked_through() -> None:
    aggregated = Aggregated()
    of_old = first(INTRA_NODE, 1000) | {"flowEndMilliseconds": 1000, "flowEndSeconds": 1}
    aggregated.add(LATER, of_old, doubt=Doubt.KEPT | Doubt.YOUNG | Doubt.REPEATED)
    assert aggregated.inquire(LATER) == LATER // 1000 - REPEATED_S


def test_of_an_earlier_connection_of_the_same_ports_too() -> None:
    aggregated = told_by_the_source()
    again = START_MS + 150_000
    both = (first(half, 70, again) for half in (SOURCE_HALF, DESTINATION_HALF))
    aggregated.add(again, *both)
    aggregated.add(LATER, first(DESTINATION_HALF, 1000), doubt=BEHIND)
    assert aggregated.inquire(LATER)
    aggregated.write(LATER + FORGET_MS)
    assert aggregated.sums() == [1070, 1070, 1070]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(next_(SOURCE_HALF, 1300, 300), id="goes on after a pause"),
        pytest.param(first(SOURCE_HALF, 50, LATER - 30_000), id="is new"),
    ],
)
def test_in_normal_life_nothing_is_asked(row: Row) -> None:
    aggregated = told_by_the_source()
    aggregated.add(LATER, row)
    assert not aggregated.inquire(LATER)
    assert not aggregated.table.stats.parked


@pytest.mark.parametrize(
    ("doubt", "patient"),
    [
        (Doubt.KEPT, False),
        (BEHIND, False),
        (BEHIND | Doubt.YOUNG, True),
        (BEHIND | Doubt.REPEATED, True),
    ],
)
def test_only_what_others_may_have_written_waits_for_as_long_as_it_takes(
    doubt: int, patient: bool
) -> None:
    aggregated = told_by_the_source()
    aggregated.add(LATER, first(DESTINATION_HALF, 1000), doubt=doubt)
    inquiry = aggregated.table.parked.inquiry(LATER // 1000)
    assert inquiry is not None
    assert inquiry.patient == patient


def test_of_what_the_table_remembers_nothing_is_asked() -> None:
    aggregated = Aggregated()
    aggregated.add(START_MS, first(SOURCE_HALF, 300), doubt=0)
    rows = first(DESTINATION_HALF, 300), next_(SOURCE_HALF, 400, 100)
    aggregated.add(START_MS + 50_000, *rows, doubt=BEHIND)
    assert not aggregated.inquire(START_MS + 50_000)


def test_an_answer_holds_as_long_as_its_rows() -> None:
    """Asked about once more when what was made of the answer is forgotten."""
    aggregated = told_by_the_source()
    for _ in range(2):
        now_ms = LATER + aggregated.questions * 5 * FORGET_MS
        fresh = first(SOURCE_HALF, 7, now_ms - 1000)
        aggregated.add(now_ms, fresh)
        aggregated.add(now_ms, first(DESTINATION_HALF, 1000), doubt=BEHIND)
        assert aggregated.inquire(now_ms)
        aggregated.write(now_ms + FORGET_MS)
        aggregated.write(now_ms + 3 * FORGET_MS)
        assert not len(aggregated.table)
    assert aggregated.sums()[0] == 1014
