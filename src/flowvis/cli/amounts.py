"""Numbers as people say them, in the units that the API names."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

FEW = 9.95
SPARKS = "▁▂▃▄▅▆▇█"
_UNITS = {"octets": "B", "bytes": "B", "bit/s": "bit/s"}
"""What follows a number; a count has nothing."""


def quantity(number: float, unit: str) -> str:
    """Return a number with a decimal prefix: 1234567, "B" is "1.2 MB"."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(number) < 999.5 or prefix == "P":
            break
        number /= 1000
    text = f"{number:.1f}" if prefix and abs(number) < 99.95 else f"{number:.0f}"
    return f"{text} {prefix}{unit}".rstrip()


def amount(value: Any, unit: str | None) -> str:
    """Return a measure's value; "" where there is none.

    Counts are whole up to a million; means of few are not, or there would be 0 of some.
    """
    if value is None:
        return ""
    if unit in _UNITS:
        return quantity(value, _UNITS[unit])
    if abs(value) < FEW and value != round(value):
        return f"{value:.1f}"
    return f"{value:,.0f}" if abs(value) < 1_000_000 else quantity(value, "")


def share(part: float, whole: float) -> str:
    """Return a part in per cent; "" of nothing."""
    return f"{100 * part / whole:.1f}%" if whole else ""


def change(now: float, before: float | None) -> str:
    """Return what a number grew by, in per cent of what it was; "new" where there was nothing."""
    if not before:
        return "new" if now else ""
    grown = 100 * (now - before) / before
    if abs(grown) >= 1000:
        return f"x{now / before:,.0f}"
    return f"{grown:+.0f}%"


def clock(epoch_ms: float) -> str:
    """Return a moment of this machine's clock; with the day where that is not today's."""
    moment = _local(epoch_ms)
    today = datetime.now(UTC).astimezone().date()
    return f"{moment:%H:%M:%S}" if moment.date() == today else f"{moment:%m-%d %H:%M:%S}"


def span(from_ms: float, to_ms: float) -> str:
    """Return a range of this machine's clock; with the day where that is not today's."""
    today = datetime.now(UTC).astimezone().date()
    begin, end = _local(from_ms), _local(to_ms)
    text = f"{begin:%H:%M:%S}" if begin.date() == today else f"{begin:%Y-%m-%d %H:%M:%S}"
    if end.date() == begin.date():
        return f"{text} to {end:%H:%M:%S}"
    return f"{text} to {end:%Y-%m-%d %H:%M:%S}"


def _local(epoch_ms: float) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).astimezone()


def sparkline(values: list[float], width: int, highest: float | None = None) -> str:
    """Draw a series into so many cells: each is the mean of what falls into it, 0 is blank.

    `highest` is the value of a whole block, by default the highest cell's.
    """
    cells = _resampled(values, width)
    top = highest or max(cells, default=0)
    if top <= 0:
        return " " * len(cells)
    last = len(SPARKS) - 1
    return "".join(
        " " if cell <= 0 else SPARKS[min(round(cell / top * last), last)] for cell in cells
    )


def _resampled(values: list[float], width: int) -> list[float]:
    if len(values) <= width:
        return values
    edges = [at * len(values) // width for at in range(width + 1)]
    return [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
