"""Durations as Go writes them: `1h15m30.5s`, `250ms`; seconds as a float inside."""

import re
from decimal import Decimal

_UNITS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}
LONGEST_S = 9_223_372_036
"""Go's longest: 292 years, whose nanoseconds 64 bits hold."""

_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|ns)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PARTS = re.compile(_PART)


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration; ValueError says how to write one."""
    if text == "0":  # the one number that Go takes without a unit
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("is not a duration: write it with units, such as 500ms, 5s or 1m30s")
    parts = _PARTS.findall(text)
    seconds = sum(Decimal(number) * _UNITS[unit] for number, unit in parts)
    if seconds > LONGEST_S:
        raise ValueError(f"is too long: at most {format_duration(LONGEST_S)}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Write seconds as a Go duration, exact to the nanosecond."""
    left = round(seconds * 1e9)
    text = ""
    for unit, size in (("h", 3600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)):
        whole, left = divmod(left, size)
        text += f"{whole}{unit}" if whole else ""
    for unit, size in (("ms", 1_000_000), ("us", 1_000), ("ns", 1)):
        whole, left = divmod(left, size)
        text += f"{whole}{unit}" if whole else ""
    return text or "0s"
