"""A table that is too small: what it forgets before its time, only the store knows."""

from typing import Any

import pytest

from flowvis.aggregator.exporters import Doubt
from flowvis.fields import EndReason

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, START_MS, counted
from .test_late_halves import BEHIND, Aggregated

Row = dict[str, Any]

ROWS = 8
NOW = START_MS + 40_000
AGAIN = Doubt.KEPT | Doubt.YOUNG | Doubt.REPEATED


def over(half: Row, number: int, port: int = 40_000) -> Row:
    """The only record of one of the connections of a tuple."""
    began = START_MS + 5_000 * number
    return half | counted(100 * number) | {
        "sourceTransportPort": port,
        "flowStartMilliseconds": began,
        "flowEndMilliseconds": began + 900,
        "flowEndReason": EndReason.END,
    }  # fmt: skip


def crowd(aggregated: Aggregated, now_ms: int, first_port: int = 1) -> None:
    """As many others as there is room for beside one come, and are written."""
    others = [over(INTRA_NODE, 1, first_port + number) for number in range(ROWS - 1)]
    for other in others:
        aggregated.add(now_ms, other, doubt=0)
        aggregated.write(now_ms)


def fill(aggregated: Aggregated, now_ms: int, count: int = ROWS) -> None:
    """As many others as are asked for, which wait for their other halves."""
    aggregated.add(now_ms, *(over(SOURCE_HALF, 1, 1 + port) for port in range(count)), doubt=0)


def flush(aggregated: Aggregated, now_ms: int) -> None:
    """All of it is written."""
    aggregated.store.batches.append(aggregated.table.flush(now_ms))


def by_connection(aggregated: Aggregated, suffix: str = "", port: int = 40_000) -> list[int]:
    """What is stored of the connections of a tuple, in their order."""
    found = aggregated.store.sums(f"octetDeltaCount{suffix}")
    return [value for (of, _), value in sorted(found.items()) if of == port]


def sums(aggregated: Aggregated, port: int = 40_000) -> int:
    found = aggregated.store.sums("octetDeltaCount")
    return sum(value for (source, _), value in found.items() if source == port)


@pytest.fixture
def aggregated() -> Aggregated:
    return Aggregated(ROWS)


@pytest.mark.parametrize("doubt", [AGAIN, BEHIND])
def test_an_answer_is_worth_nothing_once_its_rows_made_room_for_others(
    aggregated: Aggregated, doubt: int
) -> None:
    """All within the time that it would have been remembered for."""
    rows = [over(half, 1) for half in (SOURCE_HALF, DESTINATION_HALF)]
    aggregated.add(NOW, over(SOURCE_HALF, 7), doubt=0)  # waits for its other half, so it stays
    for turn in range(3):
        now_ms = NOW + 1000 * turn
        aggregated.add(now_ms, *rows, doubt=doubt)
        assert aggregated.inquire(now_ms)
        aggregated.write(now_ms)
        crowd(aggregated, now_ms + 500, 100 * turn + 1)
    aggregated.write(NOW + 300_000)
    assert sums(aggregated) == 100 + 700


def test_what_is_written_and_forgotten_while_the_store_is_asked_is_asked_again(
    aggregated: Aggregated,
) -> None:
    table = aggregated.table
    aggregated.add(NOW, over(INTRA_NODE, 6), doubt=0)
    aggregated.add(NOW, over(INTRA_NODE, 2), doubt=AGAIN)
    inquiry = table.parked.inquiry(NOW // 1000)
    assert inquiry is not None
    outdated = aggregated.store.checkpoints(inquiry)
    aggregated.write(NOW)
    for turn in range(2):
        crowd(aggregated, NOW + 1000, 100 * turn + 1)
    table.answer(inquiry, outdated, NOW + 2000)
    assert table.stats.parked == 1
    assert aggregated.inquire(NOW + 2000)
    assert not table.stats.parked
    aggregated.add(NOW + 2500, over(INTRA_NODE, 6), doubt=AGAIN)
    aggregated.inquire(NOW + 2500)
    aggregated.write(NOW + 3000)
    assert sums(aggregated) == 200 + 600


def test_a_first_record_of_before_the_current_connection_is_asked_about(
    aggregated: Aggregated,
) -> None:
    """In an old session, of an exporter that was never silent."""
    aggregated.add(NOW, over(SOURCE_HALF, 1), doubt=0)
    aggregated.write(NOW + 91_000)  # as a half
    crowd(aggregated, NOW + 91_000)
    both = (over(half, 20) for half in (SOURCE_HALF, DESTINATION_HALF))
    aggregated.add(NOW + 92_000, *both, doubt=0)
    aggregated.add(NOW + 92_000, over(DESTINATION_HALF, 1), doubt=Doubt.KEPT)
    assert aggregated.inquire(NOW + 92_000)
    aggregated.write(NOW + 300_000)
    assert sums(aggregated) == 100 + 2000


def test_who_makes_room_leaves_no_half_behind_that_waits(aggregated: Aggregated) -> None:
    """A half of the connection before is found by way of the current one only."""
    both = (over(half, 2) for half in (SOURCE_HALF, DESTINATION_HALF))
    aggregated.add(NOW, over(SOURCE_HALF, 1), *both, doubt=0)
    aggregated.write(NOW)
    crowd(aggregated, NOW + 1000)
    aggregated.add(NOW + 1500, over(SOURCE_HALF, 3), doubt=0)
    for number in (1, 3):
        aggregated.add(NOW + 2000, over(DESTINATION_HALF, number), doubt=0)
    aggregated.write(NOW + 200_000)
    for side in ("Source", "Destination"):
        assert by_connection(aggregated, f"From{side}Node") == [100, 200, 300]


def test_tuples_that_there_is_no_room_for_at_once_have_their_turns(
    aggregated: Aggregated,
) -> None:
    """Each has as many connections as half of the table; all come again, and again."""
    numbers, ports = range(1, 5), range(1, 6)
    before = Aggregated(64)
    rows = [over(INTRA_NODE, number, port) for number in numbers for port in ports]
    before.add(NOW, *rows, doubt=0)
    before.write(NOW)
    aggregated.store = before.store
    for turn in range(2):
        aggregated.add(NOW, *rows, doubt=AGAIN)
        for _ in range(2 * len(ports)):
            aggregated.inquire(NOW + turn)
            aggregated.write(NOW + turn)
        assert not aggregated.table.stats.parked
    assert not aggregated.table.stats.full
    assert {port: sums(aggregated, port) for port in ports} == dict.fromkeys(ports, 1000)


def test_the_other_half_of_what_was_refused_is_put_to_no_other_connection(
    aggregated: Aggregated,
) -> None:
    """No row was there, and then that of the connection before."""
    fill(aggregated, NOW)
    aggregated.add(NOW, over(DESTINATION_HALF, 1), over(DESTINATION_HALF, 2), doubt=0)
    assert aggregated.table.stats.full == 2
    flush(aggregated, NOW)
    aggregated.add(NOW, over(SOURCE_HALF, 1), doubt=0)
    goes_on = {"flowEndMilliseconds": START_MS + 12_000}
    aggregated.add(NOW, over(DESTINATION_HALF, 2) | counted(250, 50) | goes_on, doubt=0)
    flush(aggregated, NOW)
    assert by_connection(aggregated) == [100, 50]
    assert by_connection(aggregated, "FromDestinationNode") == [0, 50]


@pytest.mark.parametrize("half", [SOURCE_HALF, DESTINATION_HALF])
def test_a_connection_for_which_there_is_no_room_leaves_the_one_before_alone(
    aggregated: Aggregated, half: Row
) -> None:
    other = DESTINATION_HALF if half is SOURCE_HALF else SOURCE_HALF
    aggregated.add(NOW, over(half, 1), doubt=0)
    fill(aggregated, NOW, ROWS - 1)
    aggregated.add(NOW, over(half, 2), doubt=0)
    aggregated.add(NOW, over(other, 2), over(other, 1), doubt=0)
    assert aggregated.table.stats.full == 2
    flush(aggregated, NOW)
    assert by_connection(aggregated) == [100]
    for side in ("Source", "Destination"):
        assert by_connection(aggregated, f"From{side}Node") == [100]


def test_what_a_batch_overwrites_the_rest_of_it_is_asked_about(aggregated: Aggregated) -> None:
    """Nothing was forgotten for as long as both connections are old."""
    later = NOW + 20_000
    aggregated.add(NOW, over(SOURCE_HALF, 1), doubt=0)
    flush(aggregated, NOW)
    fill(aggregated, NOW, ROWS - 1)
    aggregated.add(later, over(SOURCE_HALF, 11), over(DESTINATION_HALF, 1))
    assert aggregated.table.stats.parked == 1
    for _ in range(2):
        flush(aggregated, later)
        aggregated.inquire(later)
    flush(aggregated, later)
    assert not aggregated.table.stats.full
    assert by_connection(aggregated) == [100, 1100]
    assert by_connection(aggregated, "FromDestinationNode") == [100, 0]


def test_a_row_is_written_whatever_makes_room_above_it(aggregated: Aggregated) -> None:
    """What makes room is in the last slot, beside a free one that is just being taken."""
    ports = range(1, ROWS - 2)
    others = [over(INTRA_NODE, 1, port) for port in ports]
    aggregated.add(NOW, over(INTRA_NODE, 1), *others, over(INTRA_NODE, 1, 50), doubt=0)
    aggregated.add(NOW, over(INTRA_NODE, 2), doubt=0)  # the one before gets the last slot
    longest_idle = [over(INTRA_NODE, number) for number in (1, 2)]
    aggregated.add(NOW + 40_000, *longest_idle, doubt=0)
    aggregated.add(NOW + 50_000, *others, doubt=0)
    aggregated.write(NOW + 91_000)
    assert len(aggregated.table) == ROWS - 1
    aggregated.add(NOW + 91_000, over(SOURCE_HALF, 1, 51), over(SOURCE_HALF, 1, 52), doubt=0)
    flush(aggregated, NOW + 91_000)
    assert not aggregated.table.stats.held
    assert sums(aggregated, 51) == sums(aggregated, 52) == 100


@pytest.mark.parametrize(
    "halves", [(SOURCE_HALF, DESTINATION_HALF), (DESTINATION_HALF, SOURCE_HALF)]
)
def test_halves_that_were_forgotten_amid_their_connection_go_on(
    aggregated: Aggregated, halves: tuple[Row, Row]
) -> None:
    """The one that had told less comes first, and is written before the other does."""
    one, other = halves
    aggregated.add(NOW, told(one, 250, 250, 100), told(other, 300, 300, 100), doubt=0)
    aggregated.write(NOW)
    for turn in range(2):
        crowd(aggregated, NOW + 1000, 100 * turn + 1)
    for turn, (half, total, delta) in enumerate([(one, 380, 130), (other, 400, 100)]):
        aggregated.add(NOW + 3000, told(half, total, delta, 3000 + turn))
        aggregated.inquire(NOW + 3000)
        flush(aggregated, NOW + 3000)
    assert sums(aggregated) == 400


def told(half: Row, total: int, delta: int, after_ms: int) -> Row:
    """What is told of a connection that goes on."""
    end = {"flowEndMilliseconds": NOW + after_ms, "flowEndReason": EndReason.ACTIVE}
    return over(half, 1) | counted(total, delta) | end


def test_an_answer_that_nothing_waits_for_any_more(aggregated: Aggregated) -> None:
    """As when a defect had all that was parked merged without one, and more was asked in parts."""
    table = aggregated.table
    aggregated.add(NOW, over(INTRA_NODE, 2), over(INTRA_NODE, 2, port=40_001), doubt=AGAIN)
    inquiry = table.parked.inquiry(NOW // 1000)
    assert inquiry is not None
    table.unpark(NOW)
    assert not table.stats.parked
    for part in inquiry.smaller()[0].smaller():
        table.answer(part, aggregated.store.checkpoints(part), NOW)
    aggregated.write(NOW)
    assert [sums(aggregated, port) for port in (40_000, 40_001)] == [200, 200]
    assert not table.stats.imbalance
