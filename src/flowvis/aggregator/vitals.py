"""How an exporter does, from its messages: how many records a second, and how its clock goes."""

import math
from dataclasses import dataclass

AVERAGED_S = 30.0  # exporters report every few seconds
WINDOW_MS = 60_000


@dataclass(slots=True)
class RecordRate:
    """Records a second, of which those of the last half minute count most."""

    began_s: float
    _rate: float = 0.0
    _at_s: float | None = None

    def add(self, records: int, now_s: float) -> None:
        """Note records that came."""
        self._rate = self._decayed(now_s) + records / AVERAGED_S
        self._at_s = now_s

    def per_second(self, now_s: float) -> float:
        """Return the rate; of what has just begun by the time that it has run."""
        run = 1 - math.exp(-max(now_s - self.began_s, 1.0) / AVERAGED_S)
        return self._decayed(now_s) / run

    def _decayed(self, now_s: float) -> float:
        since = 0.0 if self._at_s is None else max(now_s - self._at_s, 0.0)
        return self._rate * math.exp(-since / AVERAGED_S)


@dataclass(slots=True)
class ClockOffset:
    """How far an exporter's clock is ahead of ours, by the export times of its messages.

    A message has the whole second in which it was exported (RFC 7011 section 3.1), and comes after
    that. So the clock is at least as far ahead as any message says; of those of the last one to two
    minutes the one that says most counts, which came with the least delay, at a second's beginning.
    """

    _since_ms: int = 0
    _now: int | None = None
    _before: int | None = None

    def note(self, export_ms: int, arrived_ms: int) -> None:
        """Note a message."""
        age = arrived_ms - self._since_ms
        if not 0 <= age < WINDOW_MS:
            self._before = self._now if 0 <= age < 2 * WINDOW_MS else None
            self._since_ms, self._now = arrived_ms, None
        ahead = export_ms - arrived_ms
        self._now = ahead if self._now is None else max(self._now, ahead)

    @property
    def seconds(self) -> float | None:
        """Return it, up to a second too little; negative where it is behind, None if unknown."""
        known = [ahead for ahead in (self._now, self._before) if ahead is not None]
        return max(known) / 1000 if known else None
