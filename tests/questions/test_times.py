"""Ranges as people write them, and their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.questions.problem import QuestionError
from flowvis.questions.times import (
    AUTO_INTERVALS,
    MAX_INTERVALS,
    TimeRange,
    apart,
    parse_compare,
    parse_interval,
    parse_moment,
    parse_range,
)

NOW = 1_790_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-15m", NOW - 900_000),
        ("now-2h", NOW - 7_200_000),
        (" -1d ", NOW - 86_400_000),
        ("+5s", NOW + 5000),
        ("-250ms", NOW - 250),
        ("-1w", NOW - 604_800_000),
        ("1789999999123", 1_789_999_999_123),
        ("2026-09-21T12:00:00", 1_789_992_000_000),
        ("2026-09-21T12:00:00Z", 1_789_992_000_000),
        ("2026-09-21T14:00:00+02:00", 1_789_992_000_000),
        ("2026-09-21", 1_789_948_800_000),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert parse_moment("from", text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "15m", "-15", "-m", "-1y", "2026-13-01", "-99999999d", "٣", "1" * 30, "nan"],
)
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(QuestionError, match="from ") as error:
        parse_moment("from", text, NOW)
    assert error.value.code == "bad-range"


@pytest.mark.parametrize("text", ["1000000000", "1790000000", "4294967294"])
def test_seconds_are_no_milliseconds(text: str) -> None:
    with pytest.raises(QuestionError, match=f"from '{text}': ms .* of seconds: {text}000"):
        parse_moment("from", text, NOW)


def test_ranges() -> None:
    assert parse_range("", "", NOW) == TimeRange(NOW - 900_000, NOW)
    assert parse_range("-2h..-1h", "", NOW) == TimeRange(NOW - 7_200_000, NOW - 3_600_000)
    assert parse_range("-2h..", "-1h", NOW) == TimeRange(NOW - 7_200_000, NOW - 3_600_000)
    for begin, end, words in (
        ("-1h", "-2h", "not before"),
        ("now", "now", "not before"),
        ("-2h..-1h", "now", "has an end"),
    ):
        with pytest.raises(QuestionError, match=words):
            parse_range(begin, end, NOW)


@given(st.lists(st.integers(0, 20_000), min_size=3, max_size=3, unique=True))
def test_ranges_side_by_side_have_each_second_once(moments: list[int]) -> None:
    """A second is a moment, as records have whole ones."""
    begin, middle, end = sorted(moments)
    ranges = [TimeRange(begin, middle), TimeRange(middle, end)]
    for each in ranges:
        seconds = list(range(each.from_s, each.to_s))
        assert len(seconds) == each.seconds >= 1
        if each.to_ms - each.from_ms >= 1000:
            assert seconds == [s for s in range(22) if each.from_ms <= s * 1000 < each.to_ms]
    if all(each.to_ms - each.from_ms >= 1000 for each in ranges):
        assert ranges[0].to_s == ranges[1].from_s


def test_a_quarter_of_an_hour_has_as_many_seconds_whenever_it_is_asked_for() -> None:
    for ms in (0, 1, 500, 999):
        asked = parse_range("", "", NOW + ms)
        before = parse_compare("previous", asked, NOW + ms)
        assert before is not None
        assert (asked.seconds, before.seconds, before.to_s) == (900, 900, asked.from_s)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=5))
def test_ranges_that_are_apart_have_the_same_time(drawn: list[tuple[int, int]]) -> None:
    ranges = [TimeRange(begin, begin + length) for begin, length in drawn]
    found = apart(ranges)
    moments = [moment for each in found for moment in range(each.from_ms, each.to_ms)]
    assert sorted(moments) == sorted(
        {moment for each in ranges for moment in range(each.from_ms, each.to_ms)}
    )
    assert not {each.from_ms for each in found} & {each.to_ms for each in found}
    assert found[0].from_ms <= ranges[0].from_ms < found[0].to_ms


def test_what_to_compare_with() -> None:
    asked = TimeRange(NOW - 7_200_000, NOW)
    for text, expected in (
        ("", None),
        ("previous", TimeRange(NOW - 14_400_000, NOW - 7_200_000)),
        ("-1d", asked.moved(-86_400_000)),
        ("-26h..-24h", asked.moved(-86_400_000)),
        ("-2h..", asked),
    ):
        assert parse_compare(text, asked, NOW) == expected
    for text in ("1d", "+1d", "-0s", "yesterday", "-3h..-2h", "-2d..-3d", "..", "-2h..x"):
        with pytest.raises(QuestionError, match="compare"):
            parse_compare(text, asked, NOW)


@given(st.integers(1, 400 * 86_400), st.integers(0, 86_400))
def test_automatic_intervals_are_some_sixty_and_never_many(seconds: int, offset: int) -> None:
    begin = 1_700_000_000 + offset
    made = parse_interval("auto", TimeRange(begin * 1000, (begin + seconds) * 1000))
    assert made is not None
    assert len(made) <= AUTO_INTERVALS + 1
    assert len(made) >= min(seconds, AUTO_INTERVALS // 4)  # from two days to a week is a leap


@given(st.integers(1, 100_000), st.integers(1, 3600), st.integers(0, 3600))
def test_intervals_cover_their_range_once(seconds: int, step: int, offset: int) -> None:
    begin = 1_700_000_000 + offset
    asked = TimeRange(begin * 1000, (begin + seconds) * 1000)
    if seconds / step > MAX_INTERVALS - 2:
        return
    made = parse_interval(f"{step}s", asked)
    assert made is not None
    assert sum(made.spans()) == seconds
    assert all(start % (step * 1000) == 0 for start in made.starts_ms())
    moved = made.moved(asked.moved(-7_000_000))
    assert len(moved) == len(made)
    assert list(moved.spans()) == list(made.spans())


@given(st.integers(1, 20_000), st.integers(0, 3600), st.integers(1, 100_000))
def test_intervals_of_an_earlier_range_can_begin_with_whole_minutes(
    seconds: int, offset: int, earlier: int
) -> None:
    begin = 1_700_000_000 + offset
    made = parse_interval("auto", TimeRange(begin * 1000, (begin + seconds) * 1000), 60)
    assert made is not None
    asked = made.range.moved(-earlier * 1000)
    moved = made.moved(asked, 60)
    assert len(moved) == len(made)
    assert moved.first_s % 60 == moved.step_s % 60 == 0
    assert 0 <= made.first_s - earlier - moved.first_s < 60
    assert sum(moved.spans()) - seconds in {0, 1}  # of the last one nothing may be left


@pytest.mark.parametrize("text", ["0s", "m", "5", "-5m", "500ms", "61500ms", "1s"])
def test_intervals_that_there_are_none_of(text: str) -> None:
    with pytest.raises(QuestionError, match="interval"):
        parse_interval(text, TimeRange(0, 86_400_000))
