"""How fast a store grows, and its disk fills."""

from collections.abc import Mapping

from flowvis.clickhouse.schema.partitions import Partition
from flowvis.clickhouse.schema.tables import TABLE

LOOKS = 8  # before a disk is full, at the least
LEAST_PAUSE_S = 1.0
RATE_S = 30.0


class Fill:
    """How fast the fullest disk fills."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._full_in_s = float("inf")

    def see(self, free: int, now_s: float) -> None:
        """Note how much is free."""
        if self._last is not None:
            before, then_s = self._last
            rate = (before - free) / max(now_s - then_s, 1e-3)
            self._full_in_s = free / rate if rate > 0 else float("inf")
        self._last = free, now_s

    def pause_s(self, most_s: float) -> float:
        """Return for how long not to look, so that there are some looks before it is full."""
        return min(most_s, max(self._full_in_s / LOOKS, LEAST_PAUSE_S))


class Inserted:
    """How much comes into the store, of all that write to it; over half a minute at the least."""

    def __init__(self) -> None:
        self._last: tuple[Mapping[tuple[str, str], Partition], float] | None = None
        self._rates: tuple[float, float] | None = None

    def see(self, there: Mapping[tuple[str, str], Partition], now_s: float) -> None:
        """Note what there is. What went meanwhile is not taken for less that came."""
        if self._last is not None:
            before, then_s = self._last
            if now_s - then_s < RATE_S:
                return
            records = size = 0.0
            for known, each in there.items():
                rows = max(each.rows - (before[known].rows if known in before else 0), 0)
                records += rows if each.table == TABLE else 0
                size += rows * each.bytes / each.rows  # merges make less of what was there
            self._rates = records / (now_s - then_s), size / (now_s - then_s)
        self._last = there, now_s

    def as_dict(self) -> dict[str, float] | None:
        """What `flowctl status` shows; None as long as nobody knows."""
        if self._rates is None:
            return None
        records, size = self._rates
        return {"recordsPerSecond": round(records, 1), "bytesPerSecond": round(size)}
