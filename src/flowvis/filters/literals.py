"""What is written as a value: amounts with units, times, addresses and networks, globs, patterns.

Each reader takes a text and raises FilterError, of which the parser says where in the text it is.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import re2

from flowvis.addresses import MAX_TEXT, Network, parse_network
from flowvis.batch import V4_MAPPED
from flowvis.filters.errors import FilterError, nearest

MAX_PATTERN = 1024
"""Bytes of a regular expression."""
_PATTERN_MEMORY = 512 << 10
"""Bytes that a compiled one may take as it matches, of which some hundred are remembered."""
LARGEST = (1 << 64) - 1

_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40, "pi": 1 << 50}
_PREFIXES = _DECIMAL | _BINARY

COUNT_UNITS: Mapping[str, int] = _DECIMAL
BYTE_UNITS: Mapping[str, int] = _PREFIXES | {f"{name}b": size for name, size in _PREFIXES.items()}
RATE_UNITS: Mapping[str, int] = (
    _PREFIXES
    | {f"{name}{bit}": size for name, size in _DECIMAL.items() for bit in ("bit/s", "bps")}
    | {f"{name}{octet}": 8 * size for name, size in _PREFIXES.items() for octet in ("B/s", "Bps")}
)
DURATION_UNITS: Mapping[str, int] = {
    "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000,
}  # fmt: skip

_SHOWN_UNITS = {
    "a number": ("k", "M", "G"),
    "a number of bytes": ("kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"),
    "a rate in bit/s": ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "kB/s", "MB/s", "GB/s"),
}

_AMOUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)(.*)", re.DOTALL)
_STEP = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ms|[smhdw])")
DATE = len("20260131")
"""Digits of a date, or of a part of one: more are ms since the epoch."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def count(text: str, largest: int = LARGEST) -> int:
    """Read a number, as `8080`, `10k` or `1.5M`."""
    return _amount(text, COUNT_UNITS, "a number", ("80", "10k", "1.5M"), largest)


def octets(text: str) -> int:
    """Read a number of bytes, as `1500`, `10MB` or `1GiB`."""
    return _amount(text, BYTE_UNITS, "a number of bytes", ("1500", "10MB", "1GiB"), LARGEST)


def rate(text: str) -> int:
    """Read bits per second, as `5000`, `1Gbit/s`, `10Mbps` or `2MB/s`."""
    return _amount(text, RATE_UNITS, "a rate in bit/s", ("5k", "1Gbit/s", "2MB/s"), LARGEST)


def duration(text: str) -> int:
    """Read milliseconds, as `500ms`, `90` (seconds), `5m` or `1h30m`."""
    expected = ("30", "500ms", "5m", "1h30m", "7d")
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        text += "s"
    steps = _STEP.findall(text)
    if not steps or "".join(map("".join, steps)) != text:
        raise FilterError(f"{text[:80]!r} is no duration", expected=expected)
    total = sum(Decimal(amount) * DURATION_UNITS[unit] for amount, unit in steps)
    return _whole(total, text, "milliseconds", LARGEST)


def moment(text: str) -> int:
    """Read a time in ms since the epoch: ISO 8601 (UTC where it says no offset), or the number.

    Numbers of up to eight digits are dates, or parts of some, as they are in ranges; 0 is none.
    """
    if text.isdecimal() and text.isascii() and (DATE < len(text) <= 15 or text == "0"):
        number = int(text)
        if are_seconds(number):
            raise FilterError(
                f"{text} is in seconds: ms since 1970 are meant", suggestion=f"{number}000"
            )
        return number
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise FilterError(
            f"{text[:80]!r} is no time", expected=("2026-01-31", "2026-01-31T12:00:00Z")
        ) from None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    passed = (when - _EPOCH) // timedelta(milliseconds=1)
    if passed < 0:
        raise FilterError(f"{text[:80]!r} is before 1970")
    return passed


def are_seconds(number: int) -> bool:
    """Return whether ms since the epoch were meant in seconds, as records have times: of 1970."""
    return 10**9 <= number < 1 << 32


def network(text: str) -> Network:
    """Read an address (a network of one) or a CIDR."""
    try:
        return parse_network(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
    except ValueError:
        raise FilterError(
            f"{text[:80]!r} is no address and no network",
            expected=("10.0.0.1", "10.0.0.0/8", "2001:db8::/32"),
        ) from None


_GROUPS = re.compile(
    r"(?:[0-9]{1,3}\.){1,3}(?:[0-9]{1,3})?|(?:[0-9a-f]{1,4}:){1,7}(?:[0-9a-f]{1,4})?"
)


def searched_network(text: str) -> Network | None:
    """Return the network that a word of a search means: `10.1.`, `10.1`, `fd00:1:`, or a whole one.

    The groups that are there are whole, so `10.1` means 10.1.0.0/16; None where it means none.
    """
    folded = text.lower()
    if len(text) > MAX_TEXT or not set("./:") & set(folded):
        return None
    if _GROUPS.fullmatch(folded):
        mark, size, ending = (":", 16, "::") if ":" in folded else (".", 8, "")
        groups = [group for group in folded.split(mark) if group]
        if len(groups) * size < (128 if ending else 32):
            filled = groups if ending else groups + ["0"] * (4 - len(groups))
            folded = f"{mark.join(filled)}{ending}/{len(groups) * size}"
    try:
        return network(folded)
    except FilterError:
        return None


_MAPPED = (int.from_bytes(V4_MAPPED) << 32, (int.from_bytes(V4_MAPPED) << 32) + (1 << 32) - 1)


def address_ranges(wanted: Network) -> list[tuple[bytes, bytes]]:
    """Return the ranges of 16 bytes, in order, that a network's addresses are in.

    IPv4's are mapped into IPv6, and of no IPv6 network that has others as well. What means that
    there is no address (:: and 0.0.0.0) is in no range.
    """
    first, last = int(wanted.network_address), int(wanted.broadcast_address)
    if wanted.version == 4:
        ranges = [(first + _MAPPED[0], last + _MAPPED[0])]
    elif first < _MAPPED[0] and last >= _MAPPED[1]:
        ranges = [(first, _MAPPED[0] - 1), (_MAPPED[1] + 1, last)]
    else:
        ranges = [(first, last)]
    unset = {0, _MAPPED[0]}
    ranges = [(low + (low in unset), high) for low, high in ranges]
    return [(low.to_bytes(16), high.to_bytes(16)) for low, high in ranges if low <= high]


def pattern(text: str) -> str:
    """Check a regular expression, which is RE2's and so takes time linear in what it looks at."""
    if len(text.encode()) > MAX_PATTERN:
        raise FilterError(f"a regular expression of more than {MAX_PATTERN} bytes")
    try:
        compiled(text)
    except re2.error as error:
        said = error.args[0] if error.args else error
        reason = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise FilterError(f"no regular expression of RE2: {reason}") from None
    return text


@lru_cache(maxsize=64)
def compiled(text: str) -> "re2._Regexp":
    """Return a regular expression ready to match, as both compilers mean it."""
    options = re2.Options()
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    options.dot_nl = True
    return re2.compile(text, options)


def _amount(
    text: str, units: Mapping[str, int], what: str, expected: tuple[str, ...], largest: int
) -> int:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise FilterError(f"{text[:80]!r} is not {what}", expected=expected)
    amount, unit = match[1], match[2]
    # What tells octets from bits comes before what is written in capitals or not.
    size = units.get(unit) or units.get(unit[:-3].lower() + unit[-3:]) or units.get(unit.lower())
    if size is None:
        close = nearest(unit, _SHOWN_UNITS[what])
        raise FilterError(
            f"{text[:80]!r} is not {what}: {unit[:20]!r} is no unit of it",
            expected=expected,
            suggestion=amount + close if close else None,
        )
    return _whole(Decimal(amount) * size, text, "one", largest)


def _whole(amount: Decimal | int, text: str, of: str, largest: int) -> int:
    whole = int(amount)
    if whole != amount:
        raise FilterError(f"{text[:80]!r} is no whole number of {of}")
    if whole > largest:
        raise FilterError(f"{text[:80]!r} is more than {largest}, the largest there is")
    return whole
