"""The clocks of this machine, in milliseconds, and their moments as texts."""

import time


def monotonic_ms() -> int:
    """Return the time since some moment; it stands still while the machine is suspended."""
    return time.monotonic_ns() // 1_000_000


def now_ms() -> int:
    """Return the time since the epoch, which people and NTP set."""
    return time.time_ns() // 1_000_000


def utc(seconds: int) -> str:
    """Return a moment since the epoch as in RFC 3339, of UTC and to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
