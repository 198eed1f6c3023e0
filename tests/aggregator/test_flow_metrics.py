"""Metrics out of flows: how many series there are, how they come and go, and what scrapers read."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from flowvis.aggregator.destinations import flow_metrics, flow_series
from flowvis.aggregator.destinations.flow_metrics import (
    LEAST_SERIES,
    FlowMetrics,
    FlowMetricsSettings,
)
from flowvis.aggregator.destinations.flow_series import (
    LABELS,
    MEASURES,
    SEEN_S,
    FlowSeries,
)
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.aggregator.metrics import DestinationsCollector
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.batch import Batch
from flowvis.fields import FIELDS
from flowvis.native import StringTable
from flowvis.runtime import exposition
from flowvis.runtime.ledger import Ledger, Stage
from flowvis.runtime.settings import load

from .records import records

STORED = tuple(field for field in FIELDS if field.stored)
BEGAN = 1_790_000_000
IDLE_S = 3600.0

Sums = dict[tuple[str, ...], float]


def record(source: str, octets: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "sourcePodNamespace": "shop", "sourcePodName": f"{source}-0", "sourceWorkloadName": source,
        "destinationNodeName": "n1", "flowType": 1, "octetDeltaCount": octets,
        "octetTotalCount": octets, "flowStartSeconds": BEGAN,
        "monitoringIntervalStartMilliSeconds": BEGAN * 1000 + 999,
    } | more  # fmt: skip


def batch_of(*rows: dict[str, Any], strings: Any = None) -> Batch:
    return records(*rows, strings=strings, fields=STORED)


def octets(series: FlowSeries, now_s: float) -> Sums:
    """The sums, as one reads them to whom nothing is new."""
    series._first_s[:], series._was_read[:] = -np.inf, True
    return {sample.labels: float(sample.sums[0]) for sample in series.read(now_s)}


def increase(seen: Sequence[float | None]) -> float:
    """What Prometheus makes of samples: the first says nothing, and one that is less began anew."""
    samples = [value for value in seen if value is not None]
    return sum(b - a if b >= a else b for a, b in pairwise(samples))


def of(source: str, verdict: str = "none") -> tuple[str, ...]:
    return ("shop", source, "", "(node)", "", "intra-node", verdict)


def other(kind: str = "intra-node", verdict: str = "none") -> tuple[str, ...]:
    return (*["(other)"] * 5, kind, verdict)


def test_what_has_no_room_is_other_by_type_and_verdict() -> None:
    """The bound is one of time series, and no sum loses anything by it."""
    strings = StringTable()
    series = FlowSeries(LEAST_SERIES, IDLE_S)
    expected: Counter[tuple[str, str]] = Counter()
    for number in range(200):
        kind, verdict = number % 5, number % 4
        row = record(f"w{number}", number, flowType=kind, egressNetworkPolicyRuleAction=verdict)
        series.add(batch_of(row, row, strings=strings), 1.0)
        expected[str(kind), ("none", "allowed", "dropped", "rejected")[verdict]] += 2 * number
    found = octets(series, 2.0)
    named = [labels for labels in found if labels[1] != "(other)"]
    assert sorted(labels[1] for labels in named) == sorted(f"w{n}" for n in range(len(named)))
    assert len(named) == LEAST_SERIES // len(MEASURES) - 25 == 25
    by_kind: Counter[tuple[str, str]] = Counter()
    kinds = ("unknown", "intra-node", "inter-node", "to-external", "from-external")
    for labels, value in found.items():
        by_kind[str(kinds.index(labels[5])), labels[6]] += int(value)
    assert by_kind == +expected
    assert (series.stats.records, series.stats.other_records) == (400, 2 * 175)
    assert series.stats.other_bytes == 2 * sum(range(25, 200))
    assert len(samples(series)) == series.stats.series <= series.stats.series_limit == LEAST_SERIES


def samples(series: FlowSeries) -> dict[tuple[str, ...], float]:
    """What Prometheus reads, by name and labels."""
    page = exposition.TEXT.encode(registry(FlowMetrics(Stage("x"), series, lambda: 2.0)))
    return {
        (sample.name, *(sample.labels[name] for name in LABELS)): sample.value
        for family in text(page.decode())
        for sample in family.samples
    }


class Exposed:
    """A destination's own families, as a collector."""

    def __init__(self, metrics: FlowMetrics) -> None:
        self.metrics = metrics

    def collect(self) -> Any:
        return self.metrics.families()


def registry(metrics: FlowMetrics) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Exposed(metrics))
    return made


def test_a_place_is_given_on_when_nothing_came_for_long() -> None:
    strings = StringTable()
    series = FlowSeries(LEAST_SERIES, IDLE_S)
    first = [record(f"w{number}") for number in range(25)]
    series.add(batch_of(*first, strings=strings), 0.0)
    series.add(batch_of(record("late"), strings=strings), 1.0)
    series.add(batch_of(record("w3"), record("late"), strings=strings), IDLE_S)
    at_last = octets(series, IDLE_S)
    assert (at_last[of("w3")], at_last[other()], len(at_last)) == (200, 200, 26)
    after = octets(series, IDLE_S + 1)
    assert after == {of("w3"): 200, other(): 200}
    assert series.stats.removed == 24
    # What was refused has a name now, and keeps what it had as other.
    series.add(batch_of(record("late", 7), record("w3"), strings=strings), IDLE_S + 2)
    assert octets(series, IDLE_S + 3) == {of("w3"): 300, of("late"): 7, other(): 200}
    series.add(batch_of(record("w1", 5), strings=strings), IDLE_S + 4)
    assert octets(series, IDLE_S + 5)[of("w1")] == 5


def test_no_counter_begins_anew_that_was_just_seen() -> None:
    """Where nobody reads, places are given on as they are wanted; else by who reads."""
    strings = StringTable()
    series = FlowSeries(LEAST_SERIES, IDLE_S)
    series.add(batch_of(*(record(f"w{n}") for n in range(25)), strings=strings), 0.0)
    seen_s = IDLE_S - 10
    assert len(octets(series, seen_s)) == 25
    series.add(batch_of(record("late"), strings=strings), IDLE_S + 10)  # idle, and was just seen
    assert (series.stats.removed, series.stats.other_records) == (0, 1)
    series.add(batch_of(record("late"), strings=strings), seen_s + SEEN_S + 1)
    assert (series.stats.removed, series.stats.other_records) == (25, 1)


@pytest.mark.parametrize(("pause_s", "readers"), [(15.0, 3), (30.0, 2), (60.0, 1)])
def test_what_counters_grow_by_is_all_that_was_summed(pause_s: float, readers: int) -> None:
    """Also of what comes once, and of what begins anew with more than it had before."""
    strings = StringTable()
    series = FlowSeries(LEAST_SERIES, 600.0)
    coming: dict[float, tuple[str, int]] = {3.0: ("once", 700), 5.0: ("job", 100)}
    coming |= {5.0 + 900 * number: ("job", 100 + number) for number in range(1, 4)}
    coming |= {900.0: ("first", 50), 925.0: ("first", 1), 2000.0: ("first", 4)}
    seen: list[dict[tuple[str, ...], list[float | None]]] = [{} for _ in range(readers)]
    moments: list[tuple[float, Any]] = [
        (number * pause_s + 7 * reader, into)
        for number in range(round(4000 / pause_s))
        for reader, into in enumerate(seen)
    ]
    moments += coming.items()
    for now_s, what in sorted(moments, key=lambda moment: moment[0]):
        if isinstance(what, dict):
            found = {sample.labels: float(sample.sums[0]) for sample in series.read(now_s)}
            for labels in {*what, *found}:
                what.setdefault(labels, []).append(found.get(labels))
        else:
            series.add(batch_of(record(*what), strings=strings), now_s)
    assert series.stats.removed >= 4
    for reader in seen:
        grown = {labels: increase(values) for labels, values in reader.items()}
        assert grown == {of("once"): 700, of("job"): 406, of("first"): 55}


def test_codes_of_another_table_of_texts_mean_other_texts() -> None:
    series = FlowSeries(6000, IDLE_S)
    for names in (("a", "b"), ("b", "a"), ("c", "a")):
        table = StringTable()
        table.encode(names)
        series.add(batch_of(*map(record, names), strings=table), 1.0)
    assert octets(series, 1.0) == {of("a"): 300, of("b"): 200, of("c"): 100}


NAMES = st.text(max_size=300) | st.sampled_from(['"', "\\", "\n", "a" * 253, "\u2028"])


@settings(max_examples=20)
@given(NAMES, NAMES)
def test_any_text_can_be_read_again(namespace: str, name: str) -> None:
    rows = [
        record(name, sourcePodNamespace=namespace, ingressNetworkPolicyRuleAction=2),
        record(name, sourcePodNamespace=namespace, destinationServicePortName=f"{name}/x:y"),
    ]
    series = FlowSeries(6000, IDLE_S)
    series.add(batch_of(*rows), 1.0)
    made = registry(FlowMetrics(Stage("x"), series, lambda: 2.0))
    expected = {sample.labels for sample in series.read(2.0)}
    assert all(len(value.encode()) <= 254 for labels in expected for value in labels)
    for form, read in ((exposition.TEXT, text), (exposition.OPENMETRICS, openmetrics)):
        families = list(read(form.encode(made).decode()))
        found = [sample for family in families for sample in family.samples]
        assert {tuple(one.labels[label] for label in LABELS) for one in found} == expected
        names = Counter(one.name for one in found)
        assert names["flowvis_flow_bytes_total"] == len(expected)
        assert names["flowvis_flow_denied_total"] == 1
        assert sum(names.values()) == series.stats.series


def test_names_that_are_those_of_what_has_none_make_no_second_series() -> None:
    five = {
        "sourcePodNamespace": "(other)", "destinationPodNamespace": "(other)",
        "destinationWorkloadName": "(other)", "destinationServicePortName": "(other)",
    }  # fmt: skip
    series = FlowSeries(LEAST_SERIES, IDLE_S)
    rows = [record("(other)", 5, **five), *(record(f"w{number}", 7) for number in range(26))]
    series.add(batch_of(*rows), 1.0)
    found = [sample.labels for sample in series.read(2.0)]
    assert len(set(found)) == len(found)
    assert octets(series, 2.0)[other()] == 5 + 7


def metrics_of(**options: Any) -> AggregatorSettings:
    document = "\n".join(f"  {name}: {value}" for name, value in options.items())
    return load(AggregatorSettings, f"flowMetrics:\n{document}".encode(), {})


async def test_it_is_a_destination_whose_records_never_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = Ledger()
    source = ledger.stage("source")
    outlets = Outlets(
        (flow_metrics.KIND,), ledger, source, Surroundings(1.0, 1 << 30, lambda: 7), 1 << 24
    )
    outlets.begin(load(AggregatorSettings, b"", {}))
    made = CollectorRegistry()
    made.register(DestinationsCollector("x", outlets))
    monkeypatch.setattr(flow_series, "BEGINNING_S", 0.0)

    def put(*rows: dict[str, Any]) -> dict[str, float]:
        source.received += len(rows)
        for outlet in outlets:
            outlet.put(batch_of(*rows))
        source.sent += len(rows)
        assert ledger.imbalance() == {}
        exposition.TEXT.encode(made)  # what is new is 0
        page = exposition.TEXT.encode(made).decode()
        return {one.name: one.value for family in text(page) for one in family.samples}

    assert "flowvis_flow_bytes_total" not in put(record("a"))
    await outlets.apply(metrics_of(enable="true"))
    found = put(record("a"), record("a", ingressNetworkPolicyRuleAction=3))
    assert (found["x_flow_metrics_records_total"], found["flowvis_flow_denied_total"]) == (2, 1)
    assert (found["x_flow_metrics_series"], found["x_flow_metrics_series_limit"]) == (11, 5000)
    (shown,) = outlets.as_dicts()
    assert (shown["page"], shown["series"], shown["records"]) == ("flow-metrics", 11, 0)
    await outlets.apply(metrics_of(enable="true", idleTimeout="20m"))
    found = put(record("a"), record("a", ingressNetworkPolicyRuleAction=3))
    assert (found["x_flow_metrics_records_total"], found["flowvis_flow_denied_total"]) == (4, 2)
    await outlets.apply(metrics_of(enable="true", maxSeries=500))
    found = put(record("a"))
    assert found["x_flow_metrics_records_total"] == 5
    assert (found["flowvis_flow_bytes_total"], found["x_flow_metrics_series_limit"]) == (100, 500)
    await outlets.apply(load(AggregatorSettings, b"", {}))
    assert "flowvis_flow_bytes_total" not in put(record("a"))
    await outlets.stop()


def test_memory_bounds_it_as_well(caplog: pytest.LogCaptureFixture) -> None:
    chosen = FlowMetricsSettings(enable=True, max_series=100_000)
    place = Place(Stage("x"), 1 << 20, Surroundings(1.0, 1 << 30, lambda: 7))
    made = flow_metrics.make(chosen, place, None)
    assert 300 < made.stats.series_limit < 10_000
    assert made.held_bytes() <= 1 << 20
    assert "flowMetrics.maxSeries is 100000, but there is memory for" in caplog.text
