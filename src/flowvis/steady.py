"""Time for deadlines: it goes on evenly whatever is done to the wall clock.

Times in records are the wall clock's. That may be set: by NTP after boot, by hand, by a host that
wakes up hours later. What is to happen a minute from now is to happen a minute from now.
"""

from collections.abc import Callable

LEAP_MS = 600_000
"""Tables are looked at each few seconds: a longer step of the wall clock is one that was set."""

SLIP_MS = 60_000
"""So far back the wall clock is followed: it makes nothing later than by that."""


class SteadyTime:
    """Steady time in milliseconds for wall time in milliseconds since the epoch.

    A daemon gives it the kernel's monotonic clock. Without one it adds up the wall clock's own
    steps; what is no step of a clock that runs counts as the one before.
    """

    def __init__(self, monotonic_ms: Callable[[], int] | None = None) -> None:
        self._monotonic_ms = monotonic_ms
        self._wall = self._steady = self._step = 0
        self._begun = False

    def at(self, now_ms: int) -> int:
        """Return the steady time while the wall clock shows `now_ms`."""
        if self._monotonic_ms is not None:
            self._steady = self._monotonic_ms()
        elif not self._begun:
            self._steady = now_ms
        else:
            step = now_ms - self._wall
            if not -SLIP_MS <= step <= LEAP_MS:
                step = self._step
            elif step > 0:
                self._step = step
            self._steady += step
        self._wall = now_ms
        self._begun = True
        return self._steady

    def wall(self, steady_ms: int) -> int:
        """Return what the wall clock will show at a steady time, if nobody sets it."""
        return steady_ms - self._steady + self._wall
