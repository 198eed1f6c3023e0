"""When connections ended, or were last seen to go on: the flowEnd of their rows; no clock.

A closed TCP connection ended when its last packet came, which is before anybody sees that it is
closed. Where the wall clock is set back, a connection's own records go on.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import CLOSED_S, TCP_STATES
from flowvis.exporter.tables.rows import Rows

Slots = NDArray[np.int64]

OVER = np.zeros(256, dtype=bool)
"""The TCP states in which a connection is over."""
OVER[[TCP_STATES.index(state) for state in CLOSED_S]] = True


class Ends:
    """The ends of the connections in `rows`, whose TCP states are read there."""

    def __init__(self, rows: Rows, capacity: int) -> None:
        self._rows = rows
        self._closed_ms = np.zeros(256, dtype=np.int64)  # by TCP state
        self._set_at = np.zeros(capacity, dtype=np.int64)  # when each was set, steady
        self.closed_after(CLOSED_S)

    def closed_after(self, closed_s: Mapping[str, int]) -> None:
        """Know for how many seconds the kernel keeps connections after their end, by TCP state."""
        for state, seconds in closed_s.items():
            self._closed_ms[TCP_STATES.index(state)] = 1000 * seconds

    def begin(self, slots: Slots, at: int) -> None:
        """Note that the ends of fresh rows were set at a steady time."""
        self._set_at[slots] = at

    def move(
        self,
        slots: Slots,
        entries: Entries,
        now_ms: int,
        at: int,
        *,
        over: NDArray[np.bool_],
        grown: NDArray[np.bool_],
    ) -> None:
        """Set ends to what entries tell; what is `over` and has not `grown` has its end.

        `at` is the steady time of `now_ms`.
        """
        ends = self._rows.kept["flowEndMilliseconds"]
        moments = np.where(
            entries.stop_ns > 0, entries.stop_ns // 1_000_000, self._moments(slots, now_ms, at)
        )
        closing = np.flatnonzero(over & grown)
        moments[closing] = self._closed_at(slots[closing], entries.take(closing), moments[closing])
        ends[slots] = np.where(over & ~grown, ends[slots], np.maximum(ends[slots], moments))
        self._set_at[slots] = at

    def _closed_at(
        self, slots: Slots, entries: Entries, moments: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Return when closed connections had their last packet, seen in TIME_WAIT or CLOSE.

        A packet starts the timeout anew: what has passed of it is the time since. The kernel
        reports what remains in whole seconds, rounded down (CTA_TIMEOUT); what it destroys, it
        stamps with the end of the timeout, unless it makes room for another of the same ports.
        """
        rows = self._rows
        moments = moments.astype(np.int64)
        kept_ms = self._closed_ms[rows.tcp_state[slots]]
        earliest = np.maximum(
            rows.kept["flowEndMilliseconds"][slots], rows.kept["flowStartMilliseconds"][slots]
        ).astype(np.int64)
        destroyed = entries.stop_ns > 0
        left_ms = 1000 * entries.timeout.astype(np.int64)
        passed_ms = np.where(destroyed, kept_ms, np.clip(kept_ms - left_ms, 0, None))
        closed = moments - passed_ms
        # It ended within the second after that, and after it was last seen open: halfway.
        first = np.maximum(closed, earliest)
        last = np.maximum(np.minimum(closed + 1000, moments), first)
        closed = np.where(
            destroyed, np.where(closed < earliest, moments, closed), (first + last) // 2
        )
        known = destroyed | (entries.timeout > 0)
        return np.where(known, closed, moments).astype(np.uint64)

    def _moments(self, slots: Slots, now_ms: int, at: int) -> NDArray[np.uint64]:
        """Return the time as each connection's own records go on: a clock set back repeats none."""
        ends = self._rows.kept["flowEndMilliseconds"][slots]
        later = ends + np.maximum(at - self._set_at[slots], 0).astype(np.uint64)
        return np.where(ends > now_ms, later, np.uint64(now_ms))
