"""One alert: when it fires, and what whoever is called does about it."""

from dataclasses import dataclass
from enum import StrEnum

WINDOW = "WINDOW"
"""Stands in expressions for the span that they look back."""

RUNBOOK = "docs/alerts.md"


class Severity(StrEnum):
    """As kube-prometheus has them: somebody is called, or looks at it in working hours."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table."""

    name: str
    severity: Severity
    expression: str
    """PromQL; `WINDOW` in it is `window_s`."""
    summary: str
    """A line, with labels and the value as Prometheus's templates have them."""
    meaning: str
    look: tuple[str, ...]
    """What to look at, in this order."""
    remedy: tuple[str, ...]
    for_s: int = 0
    """How long it has to be so."""
    window_s: int = 600
    least_s: int = 0
    """What the product takes by itself: no time is shorter, however much they are shortened."""
    foreign: tuple[str, ...] = ()
    """Metrics in it that others expose."""

    def promql(self, scale: float = 1.0) -> str:
        """Return the expression; `scale` shortens its span."""
        return self.expression.replace(WINDOW, duration(self.scaled(self.window_s, scale)))

    def scaled(self, seconds: float, scale: float) -> float:
        """Return how long a time of it is where all are shortened."""
        return max(seconds * scale, min(self.least_s, seconds))

    @property
    def anchor(self) -> str:
        """Of its runbook."""
        return f"{RUNBOOK}#{self.name.lower()}"


def duration(seconds: float) -> str:
    """Write a span as Prometheus does, to the millisecond; at least one."""
    milliseconds = max(round(seconds * 1000), 1)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
