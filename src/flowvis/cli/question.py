"""What people ask on a command line: a range of time and a filter, as the API's parameters."""

import argparse
import re
from datetime import date, datetime, time

from flowvis.cli.conditions import add_filter, filter_text
from flowvis.errors import SettingsError

DEFAULT_SINCE = "15m"
WHEN = "90s, 15m, 1h30m, 2d ago; 14:00 or 2026-01-31T14:00 of this machine's clock"
"""The forms of a moment, as help says them."""
_UNITS_MS = {
    "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1,
}  # fmt: skip
_MOST_MS = 10**9  # the API's numbers of a unit have 9 digits
_PART = r"(\d{1,9})(ms|s|m|h|d|w)"
_AGO = re.compile(rf"-?(?:{_PART})+", re.ASCII)
_DATE = len("20260131")
_PARTS = re.compile(_PART, re.ASCII)


def add_question(parser: argparse.ArgumentParser, since: str = DEFAULT_SINCE) -> None:
    """Add FILTER, its short forms, and the range."""
    add_filter(parser)
    group = parser.add_argument_group("range")
    group.add_argument(
        "--since",
        metavar="WHEN",
        help=f"from when: {WHEN}{f' ({since})' if since else ''}",
    )
    group.add_argument("--until", metavar="WHEN", help="to when, in the same forms (now)")


def asked(options: argparse.Namespace, since: str = DEFAULT_SINCE) -> dict[str, str]:
    """Return the parameters from, to and filter, those that are not empty."""
    query = {
        "from": moment(options.since or since, "--since"),
        "to": moment(options.until or "", "--until"),
        "filter": filter_text(options),
    }
    return {name: value for name, value in query.items() if value}


def moment(text: str, option: str) -> str:
    """Write a moment as the API reads it; SettingsError where `option` has none.

    A duration is so long ago; what has no offset is of this machine's clock. It stays readable, as
    errors repeat it; what only the API writes (now-1h, -2h..-1h) is the API's to read.
    """
    text = text.strip()
    if _AGO.fullmatch(text.removesuffix(" ago")):  # as help has it
        ago_ms = sum(int(n) * _UNITS_MS[unit] for n, unit in _PARTS.findall(text))
        return _ago(ago_ms)
    if text.isdecimal() and len(text) > _DATE:  # ms: some of these are a date and a time as well
        return text
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    try:
        if parsed is None:
            today = datetime.combine(date.today(), time.fromisoformat(text))  # noqa: DTZ011
            parsed = today if ":" in text else None
    except ValueError:
        pass
    if parsed is None:
        if text and not text.startswith(("now", "+")) and ".." not in text:
            raise SettingsError([f"{option} {text!r}: when? {WHEN}"])
        return text
    try:
        return parsed.astimezone().isoformat()  # naive: local
    except (ValueError, OverflowError):  # of no year that this machine's clock has
        return text


def _ago(ago_ms: int) -> str:
    """Write how long ago in one unit, as the API reads it: the largest of which it is whole."""
    if ago_ms >= _MOST_MS:
        ago_ms = round(ago_ms / 1000) * 1000  # ranges are of seconds
    whole = (unit for unit, size_ms in _UNITS_MS.items() if ago_ms and not ago_ms % size_ms)
    unit = next(whole, "s")
    return f"-{ago_ms // _UNITS_MS[unit]}{unit}"


def compared(text: str, option: str) -> str:
    """Write what to compare a range with as the API reads it: a range, FROM..TO, or in a word."""
    begin, dots, end = text.partition("..")
    return f"{moment(begin, option)}..{moment(end, option)}" if dots else text
