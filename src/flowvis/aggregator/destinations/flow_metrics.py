"""Metrics out of flows: sums of records for Prometheus, on the aggregator's own page of metrics."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, Metric

from flowvis.aggregator.destinations.flow_series import (
    LABELS,
    MEASURES,
    OTHERS,
    PLACE_BYTES,
    FlowSeries,
)
from flowvis.aggregator.destinations.kind import Kind, Place
from flowvis.batch import SETTLED, Batch
from flowvis.delivery.destination import Destination
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import Duration, option

log = logging.getLogger(__name__)

PREFIX = "flowvis_flow"
LEAST_SERIES = 2 * OTHERS * len(MEASURES)
MOST_SERIES = 100_000  # of one page of metrics: writing it takes two seconds, beside the loop


@dataclass(frozen=True)
class FlowMetricsSettings:
    """Sums of flows as metrics."""

    enable: bool = option(
        False,
        doc="Whether /metrics has bytes, packets, connections and denied connections by workloads, "
        "Service, type and verdict",
    )
    max_series: int = option(
        5000,
        doc="Most time series of these metrics, six for each combination of labels; what has no "
        "room is summed as (other), by type and verdict",
        minimum=LEAST_SERIES,
        maximum=MOST_SERIES,
    )
    idle_timeout: Duration = option(
        3600.0,
        doc="After how long without a record the series of a combination end, and others have "
        "their place",
        minimum=600,
    )


class FlowMetrics:
    """Sums records at once, so that none ever waits."""

    name = "flow metrics"
    required = False
    waits_s = 0.0
    problem = ""
    mark = SETTLED

    def __init__(
        self, stage: Stage, series: FlowSeries, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage = stage
        self.series = series
        """The sums."""
        self._clock_s = clock_s
        self.stats = series.stats

    @property
    def details(self) -> dict[str, int]:
        """How many series there are, and may be."""
        return {"series": self.stats.series, "seriesLimit": self.stats.series_limit}

    def put(self, batch: Batch) -> None:
        """Add the records of a batch to the sums."""
        self._stage.received += len(batch)
        self.series.add(batch, self._clock_s())
        self._stage.sent += len(batch)

    def families(self) -> Iterable[Metric]:
        """Yield a counter for each measure."""
        samples = list(self.series.read(self._clock_s()))
        for place, measure in enumerate(MEASURES):
            text = f"{measure.help}, of aggregated flow records"
            family = CounterMetricFamily(f"{PREFIX}_{measure.name}", text, labels=LABELS)
            for sample in samples:
                if sample.denied or not measure.of_denials:
                    family.add_metric(sample.labels, sample.sums[place])
            yield family

    def held(self) -> int:
        """None."""
        return 0

    def held_bytes(self) -> int:
        """About what the sums take in memory."""
        return self.series.memory_bytes

    def bound(self, max_bytes: int) -> None:
        """Do nothing: its room was bounded when it was made."""

    async def start(self) -> None:
        """Do nothing: it is ready."""

    async def stop(self) -> None:
        """Do nothing: nothing waits."""

    async def retire(self, hurry: asyncio.Event) -> None:
        """Do nothing: nothing waits."""

    def remainder(self) -> None:
        """Leave nothing: nothing waits."""

    def succeed(self, remainder: object) -> None:
        """Take nothing over."""

    def abandon(self) -> None:
        """Give up nothing."""


def make(chosen: FlowMetricsSettings, place: Place, before: Destination | None) -> FlowMetrics:
    """Return what sums records: where there is as much room as before, it goes on."""
    room = max(place.max_bytes // PLACE_BYTES * len(MEASURES), LEAST_SERIES)
    if room < chosen.max_series:
        text = "flowMetrics.maxSeries is %d, but there is memory for %d (memory.limit)"
        log.warning(text, chosen.max_series, room)
    most = min(chosen.max_series, room)
    if not isinstance(before, FlowMetrics):
        return FlowMetrics(place.stage, FlowSeries(most, chosen.idle_timeout))
    series = before.series
    if series.stats.series_limit == most:
        series.idle_s = chosen.idle_timeout
    else:
        series = FlowSeries(most, chosen.idle_timeout, series.stats)
    return FlowMetrics(place.stage, series)


KIND = Kind("flow_metrics", "flow-metrics", make, weight=0.25)
