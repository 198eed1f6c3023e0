import pytest

from flowvis.aggregator.vitals import AVERAGED_S, WINDOW_MS, ClockOffset, RecordRate


def test_a_steady_rate_is_what_it_is() -> None:
    rate = RecordRate(0.0)
    for second in range(1, 301):
        rate.add(50, float(second))
        if second in {10, 100, 300}:
            assert rate.per_second(second + 0.5) == pytest.approx(50, rel=0.06)
    assert rate.per_second(300 + 10 * AVERAGED_S) < 0.1


def test_nothing_is_no_rate_and_a_burst_at_the_start_is_spread() -> None:
    assert RecordRate(5.0).per_second(5.0) == 0
    rate = RecordRate(5.0)
    rate.add(100, 5.0)
    assert 0 < rate.per_second(5.0) <= 110


def test_a_clock_is_known_by_the_message_with_the_least_delay() -> None:
    offset = ClockOffset()
    unknown = offset.seconds
    assert unknown is None
    now = 1_700_000_000_000
    offset.note(now + 4000 - 900, now)
    assert offset.seconds == 3.1
    offset.note(now + 5000, now + 1000)
    assert offset.seconds == 4
    offset.note(now + 5000, now + 9000)
    assert offset.seconds == 4


def test_a_clock_that_was_put_right_is_right_two_minutes_later() -> None:
    offset = ClockOffset()
    now = 1_700_000_000_000
    offset.note(now + 60_000, now)
    for second in range(0, 3 * WINDOW_MS // 1000, 5):
        at = now + 1000 * second + 1000
        offset.note(at, at)
    assert offset.seconds == 0
    offset.note(now - 90_000, now - 90_000)  # our own clock was put back
    assert offset.seconds == 0
