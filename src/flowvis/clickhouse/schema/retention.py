"""How long each table keeps what it has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import TABLE

DAY_S = 86_400
LONGEST_S = 50 * 365 * DAY_S
"""The engine has 32 bits for the second at which a row goes: one after 2106 has been already."""


_TTL = re.compile(r" TTL .*?toIntervalSecond\((\d+)\)")


def ttl_of(engine: str) -> int:
    """Return the seconds of one of our tables' TTL, as `engine_full` has it; 0: none."""
    found = _TTL.search(engine)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds after insertion at which rows go; 0: never."""

    records_s: int
    minutes_s: int
    hours_s: int

    @property
    def books_s(self) -> int:
        """The books', which tell whether what any of the others has is complete."""
        spans = (self.records_s, self.minutes_s, self.hours_s)
        return max(spans) if all(spans) else 0

    def of(self, rollup: Rollup) -> int:
        """Return a roll-up's."""
        return self.minutes_s if rollup is MINUTES else self.hours_s

    def rollups_begin_s(self, now_s: int) -> dict[str, int]:
        """Return, by roll-up that does not keep all, before when (s) it has nothing any more."""
        return {each.name: now_s - self.of(each) for each in ROLLUPS if self.of(each)}

    def as_told(self, ttls: Mapping[str, int]) -> "Retention":
        """Return what tables do, by table, which another aggregator may have told them."""
        return Retention(
            ttls.get(TABLE, self.records_s),
            ttls.get(MINUTES.name, self.minutes_s),
            ttls.get(HOURS.name, self.hours_s),
        )

    def shortened(self, begins: Mapping[str, int], now_s: int) -> "Retention":
        """Return the same where rows from before these moments (s), by table, went early."""

        def left_s(table: str, kept_s: int) -> int:
            if table not in begins:
                return kept_s
            since_s = max(now_s - begins[table], 1)
            return min(kept_s, since_s) if kept_s else since_s

        return Retention(
            left_s(TABLE, self.records_s),
            left_s(MINUTES.name, self.minutes_s),
            left_s(HOURS.name, self.hours_s),
        )
