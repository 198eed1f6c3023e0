"""Prometheus metrics, all read at scrape time from plain numbers that components keep anyway.

Names are `flowvis_<daemon>_<component>_<what>[_<unit>]`, counters with `_total`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from flowvis.runtime.build import build_info
from flowvis.runtime.ledger import Ledger


def new_registry(daemon: str, ledger: Ledger | None = None) -> CollectorRegistry:
    """Return a daemon's registry: build, process, and the books if there are any."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(BuildCollector(daemon))
    if ledger is not None:
        registry.register(LedgerCollector(ledger))
    return registry


Reading = tuple[str, Callable[[], float | None]]
"""Help, and the function that returns the value; None where there is none at the moment."""


class StatsCollector(Collector):
    """The fields of a stats dataclass, named `<prefix>_<field>`.

    Numbers are counters or gauges as `flowvis.counts` declares them; a mapping of texts to numbers
    has the label `reason`; other fields are left out. Help is the declaration's, else the name.
    `stats` may be a function that returns them, or None while there are none.
    """

    def __init__(
        self,
        prefix: str,
        stats: Any,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._prefix = prefix
        self._read: Callable[[], Any] = stats if callable(stats) else lambda: stats
        self._labels = dict(labels or {})

    def collect(self) -> Iterable[Metric]:
        """Yield a family for each field."""
        stats = self._read()
        found = [] if stats is None else [(list(self._labels.values()), stats)]
        return stats_families(self._prefix, list(self._labels), found)


def stats_families(
    prefix: str, labels: Sequence[str], found: Sequence[tuple[Sequence[str], Any]]
) -> Iterator[Metric]:
    """Yield a family for each field of stats of one class, each under its values of the labels."""
    for field in dataclasses.fields(found[0][1]) if found else ():
        kind = GaugeMetricFamily if field.metadata.get("gauge") else CounterMetricFamily
        text = field.metadata.get("help") or field.name.replace("_", " ").capitalize()
        name = f"{prefix}_{field.name}"
        first = getattr(found[0][1], field.name)
        if isinstance(first, Mapping):
            family = kind(name, text, labels=[*labels, "reason"])
            for values, stats in found:
                for reason, count in dict(getattr(stats, field.name)).items():
                    family.add_metric([*values, str(reason)], count)
            yield family
        elif isinstance(first, int | float):
            family = kind(name, text, labels=list(labels))
            for values, stats in found:
                family.add_metric(list(values), getattr(stats, field.name))
            yield family
        elif dataclasses.is_dataclass(first):
            inner = [(values, getattr(stats, field.name)) for values, stats in found]
            yield from stats_families(name, labels, inner)


class ReadingsCollector(Collector):
    """Gauges that are computed when asked for: sizes of tables and queues."""

    def __init__(self, prefix: str, readings: Mapping[str, Reading]) -> None:
        self._prefix = prefix
        self._readings = dict(readings)

    def collect(self) -> Iterable[Metric]:
        """Yield a gauge for each reading."""
        for name, (text, read) in self._readings.items():
            value = read()
            if value is not None:
                yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value=value)


class LedgerCollector(Collector):
    """The books: what came into each stage and what became of it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterable[Metric]:
        """Yield the counts, what is held, and by how much the books are wrong."""
        records = CounterMetricFamily(
            "flowvis_ledger_records",
            "Records by stage and by what became of them",
            labels=["stage", "what", "reason"],
        )
        held = GaugeMetricFamily(
            "flowvis_ledger_held_records", "Records that a stage has now", labels=["stage"]
        )
        imbalance = GaugeMetricFamily(
            "flowvis_ledger_imbalance_records",
            "Records that a stage or the way to it cannot account for: 0 in good books",
            labels=["stage"],
        )
        wrong = self._ledger.imbalance()
        for name, stage in self._ledger.stages.items():
            for what in ("received", "sent", "merged"):
                records.add_metric([name, what, ""], getattr(stage, what))
            for reason, count in dict(stage.dropped).items():
                records.add_metric([name, "dropped", reason], count)
            held.add_metric([name], stage.held())
            imbalance.add_metric([name], wrong.get(name, 0))
        return records, held, imbalance


class BuildCollector(Collector):
    """flowvis_build_info: 1, with the versions as labels."""

    def __init__(self, daemon: str) -> None:
        self._labels = {"daemon": daemon} | build_info()

    def collect(self) -> Iterable[Metric]:
        """Yield the one gauge."""
        family = GaugeMetricFamily("flowvis_build_info", "Versions", labels=list(self._labels))
        family.add_metric(list(self._labels.values()), 1)
        yield family
