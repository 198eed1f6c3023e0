"""Which tables a range is divided among, and what of it can no more be read."""

from dataclasses import replace

import pytest

from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES
from flowvis.questions.planner import Needs, Reading, Span, Stored, needs_of, reading
from flowvis.questions.times import Intervals, TimeRange, parse_interval

T0 = 1_790_002_800
"""A full hour."""
DAY = 86_400


def at(from_s: int, to_s: int) -> TimeRange:
    return TimeRange(from_s * 1000, to_s * 1000)


def parts(read: Reading) -> list[tuple[str, int, int]]:
    return [(part.name, part.from_s - T0, part.to_s - T0) for part in read.parts]


NAMES = (HOURS.name, MINUTES.name)
SETTLED = Stored(T0 + 7 * DAY, rollups=dict.fromkeys(NAMES, Span(T0 + 6 * DAY + 7)))


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (0, 7200, [("flow_hours", 0, 7200)]),
        (60, 120, [("flow_minutes", 60, 120)]),
        (61, 119, [("flow_records", 61, 119)]),
        (
            59,
            121,
            [("flow_records", 59, 60), ("flow_minutes", 60, 120), ("flow_records", 120, 121)],
        ),
        (
            3590,
            7261,
            [
                ("flow_records", 3590, 3600),
                ("flow_hours", 3600, 7200),
                ("flow_minutes", 7200, 7260),
                ("flow_records", 7260, 7261),
            ],
        ),
        (
            6 * DAY - 3600,
            6 * DAY + 3600,
            [("flow_hours", 6 * DAY - 3600, 6 * DAY), ("flow_records", 6 * DAY, 6 * DAY + 3600)],
        ),
        (6 * DAY + 60, 6 * DAY + 180, [("flow_records", 6 * DAY + 60, 6 * DAY + 180)]),
    ],
)
def test_a_range_is_divided_among_the_largest_steps(
    begin: int, end: int, expected: list[tuple[str, int, int]]
) -> None:
    read = reading(at(T0 + begin, T0 + end), SETTLED, needs_of("sourcePodNamespace"))
    assert parts(read) == expected
    assert read.gone is None
    assert read.coarse is None


@pytest.mark.parametrize(
    ("needs", "tables"),
    [
        (needs_of("flowType"), {"flow_hours"}),
        (needs_of("sourcePodName = '' OR destinationTransportPort = 53"), {"flow_hours"}),
        (needs_of("clusterId"), {"flow_hours"}),
        (needs_of("sourceTransportPort"), {"flow_records"}),
        (needs_of("sourceIP"), {"flow_records"}),
        (needs_of("flowEndSeconds"), {"flow_records"}),
        (needs_of("flowType") | needs_of("sourcePodLabels"), {"flow_records"}),
    ],
)
def test_a_table_has_to_have_what_the_question_needs(needs: Needs, tables: set[str]) -> None:
    assert set(reading(at(T0, T0 + 7200), SETTLED, needs).tables) == tables


@pytest.mark.parametrize(
    ("rolled", "tables"),
    [
        ("octetDeltaCount + reverseOctetDeltaCount", {"flow_hours", "flow_minutes"}),
        ("peakThroughput", {"flow_hours", "flow_records"}),
        ("sources", {"flow_hours", "flow_records"}),
    ],
)
def test_minutes_have_no_measures_but_those_that_add_up(rolled: str, tables: set[str]) -> None:
    read = reading(at(T0, T0 + 3660), SETTLED, frozenset(), rolled=["records", rolled])
    assert set(read.tables) == tables


@pytest.mark.parametrize(
    ("step_s", "offset", "tables"),
    [(7200, 0, {"flow_hours"}), (300, 0, {"flow_minutes"}), (90, 0, {"flow_records"}),
     (3600, 60, {"flow_minutes"}), (3600, 1, {"flow_records"})],
)  # fmt: skip
def test_intervals_have_to_be_whole_minutes_or_hours(
    step_s: int, offset: int, tables: set[str]
) -> None:
    asked = at(T0, T0 + 7200)
    intervals = Intervals(asked, step_s).moved(at(T0 + 7200, T0 + 14_400))
    if offset:
        moved = at(T0 + 3600 + offset, T0 + 10_800 + offset)
        intervals, asked = intervals.moved(moved), at(T0 + 3600, T0 + 10_800)
    read = reading(asked, SETTLED, frozenset(), intervals=intervals)
    assert set(read.tables) == tables


def test_rates_are_over_what_is_read() -> None:
    """Not over the time of which there is nothing any more, unless that is all of it."""
    stored = Stored(T0 + 7200, records_since_s=T0 + 3600)
    asked = at(T0, T0 + 7200)
    read = reading(asked, stored, frozenset())
    assert read.gone == at(T0, T0 + 3600)
    assert parts(read) == [("flow_records", 3600, 7200)]
    assert read.of(asked) == at(T0 + 3600, T0 + 7200)
    single = reading(asked, stored, frozenset(), only_records="single records", added_up=False)
    assert (single.gone, parts(single)) == (read.gone, [("flow_records", 0, 7200)])
    old = at(T0 - 3600, T0)
    read = reading(old, stored, frozenset())
    assert (read.gone, read.of(old)) == (old, old)
    assert parts(read) == [("flow_records", -3600, 0)]
    minutes = Stored(T0 + 7200, T0 + 3600, {"flow_minutes": Span(T0 + 7200, T0 + 1807)})
    asked = at(T0 + 7, T0 + 3000)
    read = reading(asked, minutes, frozenset())
    assert read.of(asked) == at(T0 + 1860, T0 + 3000)
    assert parts(read) == [("flow_minutes", 1860, 3000)]
    coarse = at(T0 + 1807, T0 + 2001)
    assert reading(coarse, minutes, frozenset()).of(coarse) == at(T0 + 1800, T0 + 2040)


def test_what_a_store_says_of_itself() -> None:
    """A roll-up that has nothing settled is none."""
    settled = {HOURS.name: (NOW - 4000) * 1000, MINUTES.name: (NOW - 100) * 1000 + 999}
    assert Stored.of(Retention(3 * DAY, 30 * DAY, 365 * DAY), settled, NOW * 1000, ()) == KEPT
    for_ever = Stored.of(Retention(0, 0, 0), settled | {HOURS.name: 0}, NOW * 1000 + 1, ())
    assert for_ever == Stored(NOW, 0, {MINUTES.name: Span(NOW - 100)})


def test_without_rollups_there_are_records_alone() -> None:
    read = reading(at(T0, T0 + 7200), Stored(T0 + DAY), needs_of("flowType"))
    assert parts(read) == [("flow_records", 0, 7200)]


NOW = T0 + 40 * DAY + 1234
KEPT = Stored(
    NOW,
    NOW - 3 * DAY,
    {
        MINUTES.name: Span(NOW - 100, NOW - 30 * DAY),
        HOURS.name: Span(NOW - 4000, NOW - 365 * DAY),
    },
)
"""A store that keeps records for 3 days, minutes for 30 and hours for a year."""


def test_where_edges_are_gone_whole_minutes_are_taken() -> None:
    begin, end = NOW - 10 * DAY + 7, NOW - 9 * DAY + 7
    read = reading(at(begin, end), KEPT, needs_of("sourcePodName"))
    assert read.tables == ("flow_minutes", "flow_hours")
    assert read.coarse == at(begin // 60 * 60, end // 60 * 60 + 60)
    assert read.gone is None


def test_where_minutes_are_gone_whole_hours_are_taken() -> None:
    begin, end = NOW - 40 * DAY + 7, NOW - 20
    read = reading(at(begin, end), KEPT, needs_of("flowType"))
    assert read.tables == ("flow_hours", "flow_minutes", "flow_records")
    assert read.coarse == at(begin // 3600 * 3600, end)
    assert read.parts[-1].to_s == end


def test_what_only_records_have_is_gone_with_them() -> None:
    begin, end = NOW - 5 * DAY, NOW - 2 * DAY
    read = reading(at(begin, end), KEPT, needs_of("sourceTransportPort"))
    assert read.gone == at(begin, NOW - 3 * DAY)
    assert read.why == (
        "records are kept for 72h (clickHouse.ttl); flow_hours, kept for longer,"
        " have no sourceTransportPort"
    )


def test_what_only_minutes_can_tell_is_gone_with_them() -> None:
    asked = at(NOW - 31 * DAY, NOW - DAY)
    read = reading(asked, KEPT, needs_of("sourcePodName"), intervals=Intervals(asked, 60))
    assert read.gone == at(NOW - 31 * DAY, -(-(NOW - 30 * DAY) // 60) * 60)
    assert read.why == (
        f"flow_minutes are kept for 720h ({MINUTES.option}); flow_hours, kept for longer,"
        " have no intervals of 1m"
    )


@pytest.mark.parametrize("kept_s", [30 * DAY, 365 * DAY])
def test_what_is_gone_of_the_oldest_hour_is_known(kept_s: int) -> None:
    """Of it nothing is read before the first whole hour, or minute where these are kept as long."""
    minutes = replace(KEPT.rollups[MINUTES.name], since_s=NOW - kept_s)
    stored = replace(KEPT, rollups={**KEPT.rollups, MINUTES.name: minutes})
    read = reading(at(NOW - 400 * DAY, NOW - 300 * DAY), stored, needs_of("flowType"))
    first = next(part for part in read.parts if part.table is not None)
    assert first.from_s > NOW - 365 * DAY
    assert read.gone == at(NOW - 400 * DAY, first.from_s)


def settled(hours_s: int, minutes_s: int) -> Stored:
    """The same store, with roll-ups that are settled so far."""
    rollups = {
        HOURS.name: replace(KEPT.rollups[HOURS.name], settled_s=hours_s),
        MINUTES.name: replace(KEPT.rollups[MINUTES.name], settled_s=minutes_s),
    }
    return replace(KEPT, rollups=rollups)


def test_what_is_not_settled_is_read_of_minutes_and_of_records() -> None:
    behind = settled(NOW - 3 * DAY, NOW - 2 * DAY)
    read = reading(at(NOW - 4 * DAY, NOW), behind, needs_of("sourcePodName"))
    assert [part.name for part in read.parts] == [
        "flow_minutes", "flow_hours", "flow_minutes", "flow_records",
    ]  # fmt: skip
    assert NOW - 3 * DAY - 3600 < read.parts[1].to_s <= NOW - 3 * DAY
    assert NOW - 2 * DAY - 60 < read.parts[2].to_s <= NOW - 2 * DAY


def test_what_is_not_settled_is_better_than_nothing() -> None:
    """Where records are gone, the rolls that are late will not be."""
    late = settled(NOW - 20 * DAY, NOW - 20 * DAY)
    (minutes, records) = reading(at(NOW - 4 * DAY, NOW), late, frozenset()).parts
    assert minutes.name == "flow_minutes"
    assert NOW - 3 * DAY - 60 < minutes.to_s == records.from_s <= NOW - 3 * DAY


@pytest.mark.parametrize(
    ("begin", "rolled", "least_s"),
    [
        (NOW - DAY, "records", 1),
        (NOW - 4 * DAY, "records", 60),
        (NOW - 4 * DAY, "peakThroughput", 3600),
        (NOW - 31 * DAY, "records", 3600),
        (NOW - 366 * DAY, "records", 1),
    ],
)
def test_intervals_that_nobody_gave_are_those_that_there_are(
    begin: int, rolled: str, least_s: int
) -> None:
    asked = at(begin, begin + 900)
    assert KEPT.least_step_s(asked, [rolled]) == least_s
    made = parse_interval("auto", asked, least_s)
    assert made is not None
    assert made.step_s == max(10, least_s)
