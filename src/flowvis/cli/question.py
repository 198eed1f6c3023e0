"""What people ask on a command line: a range of time and a filter, as the API's parameters."""

import argparse
import re
from datetime import date, datetime, time

from flowvis.cli.conditions import add_filter, filter_text

DEFAULT_SINCE = "15m"
WHEN = "90s, 15m, 1h30m, 2d ago; 14:00 or 2026-01-31T14:00 of this machine's clock"
"""The forms of a moment, as help says them."""
_UNITS_MS = {
    "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000,
}  # fmt: skip
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
        "from": moment(options.since or since),
        "to": moment(options.until or ""),
        "filter": filter_text(options),
    }
    return {name: value for name, value in query.items() if value}


def moment(text: str) -> str:
    """Write a moment as the API reads it; what is none is the API's to refuse.

    A duration is so long ago; what has no offset is of this machine's clock.
    """
    text = text.strip()
    if _AGO.fullmatch(text):
        ago_ms = sum(int(n) * _UNITS_MS[unit] for n, unit in _PARTS.findall(text))
        return f"-{ago_ms}ms"
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
    try:
        return text if parsed is None else str(round(parsed.timestamp() * 1000))  # naive: local
    except (ValueError, OverflowError):  # of no year that this machine's clock has
        return text


def span(text: str) -> str:
    """Write a range, FROM..TO, as the API reads it."""
    begin, dots, end = text.partition("..")
    return f"{moment(begin)}..{moment(end)}" if dots else text
