import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.runtime.durations import LONGEST_S, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250ms", 0.25),
        ("1h2m3s4ms", 3723.004),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5sec", "1m30", "1e3s", "\u0665s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500ms, 5s or 1m30s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["2562047h47m17s", "9" * 400 + "h", f"{'9' * 300}ns"])
def test_what_is_longer_than_go_takes(text: str) -> None:
    assert parse_duration("2562047h47m16s") == LONGEST_S
    with pytest.raises(ValueError, match="is too long: at most 2562047h47m16s"):
        parse_duration(text)


@given(st.integers(0, 10**15))
def test_format_is_read_back(nanoseconds: int) -> None:
    assert round(parse_duration(format_duration(nanoseconds / 1e9)) * 1e9) == nanoseconds


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (0.25, "250ms")])
def test_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
