from flowvis.exporter.rate import Rate


def test_a_second_at_once_then_as_time_passes() -> None:
    rate = Rate(1000)
    assert rate.left(5_000) == 1000
    rate.spend(1000)
    assert rate.left(5_000) == 0
    assert rate.left(5_010) == 10
    assert rate.left(9_000) == 1000


def test_what_was_too_much_is_made_up_for() -> None:
    rate = Rate(10)
    assert rate.left(1_000) == 10
    rate.spend(15)
    assert rate.left(1_500) == 0
    assert rate.left(1_600) == 1


def test_what_was_far_too_much_is_made_up_for_in_a_second() -> None:
    rate = Rate(1000)
    rate.left(1_000)
    rate.spend(1 << 32)
    assert rate.left(2_000) == 0
    assert rate.left(2_001) == 1


def test_a_clock_that_goes_back() -> None:
    rate = Rate(10)
    rate.left(10_000)
    rate.spend(10)
    assert rate.left(9_000) == 0
    assert rate.left(9_100) == 1


def test_another_rate() -> None:
    rate = Rate(1000)
    assert rate.left(5_000) == 1000
    rate.change(10)
    assert rate.left(5_000) == 10
    rate.spend(10)
    assert rate.left(5_100) == 1
