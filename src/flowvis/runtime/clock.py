"""The clocks of this machine, in milliseconds."""

import time


def monotonic_ms() -> int:
    """Return the time since some moment; it stands still while the machine is suspended."""
    return time.monotonic_ns() // 1_000_000


def now_ms() -> int:
    """Return the time since the epoch, which people and NTP set."""
    return time.time_ns() // 1_000_000
