"""How long each table keeps what it has."""

from dataclasses import dataclass

from flowvis.clickhouse.schema.rollups import MINUTES, Rollup

DAY_S = 86_400


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
