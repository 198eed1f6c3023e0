import pytest

from flowvis.steady import LEAP_MS, SteadyTime

T0 = 1_700_000_000_000
HOUR = 3_600_000


@pytest.mark.parametrize("leap", [-HOUR, HOUR, -25 * HOUR, LEAP_MS + 1, -86_400_000 * 365])
def test_a_clock_that_is_set_goes_on_as_before(leap: int) -> None:
    steady = SteadyTime()
    begun = steady.at(T0)
    assert steady.at(T0 + 5000) == begun + 5000
    assert steady.at(T0 + 5000) == begun + 5000
    assert steady.at(T0 + 10_000 + leap) == begun + 10_000
    assert steady.at(T0 + 11_000 + leap) == begun + 11_000
    assert steady.at(T0 + 12_000) == begun + 12_000
    assert steady.at(T0 + 14_000) == begun + 14_000


def test_a_clock_that_is_set_at_every_look_does_not_stop_anything() -> None:
    steady = SteadyTime()
    begun = steady.at(T0)
    steady.at(T0 + 5000)
    for number in range(2, 100):
        now = steady.at(T0 + 5000 * number + (HOUR if number % 2 else -HOUR))
        assert now == begun + 5000 * number


def test_a_wall_time_to_wait_for_follows_the_clock() -> None:
    steady = SteadyTime()
    due = steady.at(T0) + 60_000
    assert steady.wall(due) == T0 + 60_000
    steady.at(T0 - HOUR)
    assert steady.wall(due) == T0 - HOUR + 60_000  # it has made no step yet


def test_the_monotonic_clock_decides_where_there_is_one() -> None:
    passed = [7]
    steady = SteadyTime(lambda: passed[0])
    assert steady.at(T0) == 7
    passed[0] += 30 * 60_000
    assert steady.at(T0 + 1) == 7 + 30 * 60_000
    assert steady.wall(7 + 31 * 60_000) == T0 + 60_001
