"""One alert: when it fires, and what whoever is called does about it."""

import re
from dataclasses import dataclass
from enum import StrEnum

MANY = 10
"""Of one kind in a cluster have an alert each; more have one together, that says how many."""

_SPAN = re.compile(r"<(\d+) s(?:, (\d+) at least)?( as a number)?>")


class Severity(StrEnum):
    """As kube-prometheus has them: somebody is called, or looks at it in working hours."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Each:
    """What an alert is of, where there may be thousands: an exporter on each node.

    The expression has one sample for each; `within` are the labels that those which make one alert
    have in common. An outage of all is one alert so, and not 2,000.
    """

    label: str
    """Tells them apart."""
    many: str
    """The summary when they are many; `$value` is their number."""
    within: tuple[str, ...] = ("cluster",)

    def fold(self, samples: str) -> str:
        """Return PromQL: a sample for each as long as they are few, else one for all."""
        by = ", ".join(self.within)
        crowd = f"count by ({by}) ({samples}) > {MANY}"
        return f"{samples} unless on ({by}) {crowd}\nor {crowd}"

    def summary(self, of_one: str) -> str:
        """Return the summary of both cases."""
        return f"{{{{ if $labels.{self.label} }}}}{of_one}{{{{ else }}}}{self.many}{{{{ end }}}}"


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table."""

    name: str
    severity: Severity
    expression: str
    """PromQL; spans in it are `span`'s, and ages `age`'s."""
    summary: str
    """A line, with labels and the value as Prometheus's templates have them."""
    meaning: str
    look: tuple[str, ...]
    """What to look at, in this order."""
    remedy: tuple[str, ...]
    each: Each | None = None
    for_s: int = 0
    """How long it has to be so."""
    optional: bool = False
    """Its metrics are there only where somebody wants them."""
    untried: str = ""
    """Why no fault of the lab raises it; every other one is raised by at least one."""

    def promql(self, scale: float = 1.0) -> str:
        """Return what it is about; `scale` shortens its spans and ages."""
        return _SPAN.sub(lambda found: _scaled(found, scale), self.expression)

    @property
    def recorded(self) -> str:
        """The series that has a sample for each, where there is one."""
        words = re.findall("[A-Z][a-z]+", self.name)
        return f"{words[0]}:{'_'.join(words[1:])}".lower()

    @property
    def said(self) -> str:
        """The summary as Prometheus's template, of one or of many."""
        return self.each.summary(self.summary) if self.each else self.summary

    @property
    def anchor(self) -> str:
        """Of its runbook, in docs/alerts.md."""
        return self.name.lower()


def span(seconds: int, *, least_s: int = 0) -> str:
    """Return a duration for an expression, as in `[{span(600)}]`.

    `least_s` is what the product takes by itself: it gets no shorter, however much all are.
    """
    return _token(seconds, least_s)


def age(seconds: int, *, least_s: int = 0) -> str:
    """Return a number of seconds that something is compared with, for an expression."""
    return _token(seconds, least_s, " as a number")


def duration(seconds: float) -> str:
    """Write a span as Prometheus does, to the millisecond; at least one."""
    milliseconds = max(round(seconds * 1000), 1)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _token(seconds: int, least_s: int, kind: str = "") -> str:
    least = f", {least_s} at least" if least_s else ""
    return f"<{seconds} s{least}{kind}>"


def _scaled(found: re.Match[str], scale: float) -> str:
    seconds, least, number = found.groups()
    length = max(int(seconds) * scale, min(int(least or 0), int(seconds)))
    return f"{length:g}" if number else duration(length)
