"""Metrics out of flows are sums of the same records as the store has."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.destinations.flow_series import BEGINNING_S, MEASURES, FlowSeries
from flowvis.batch import Batch
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.tables import TABLE, definitions
from flowvis.clickhouse.store import Store
from flowvis.filters.attributes import Verdict
from flowvis.native import StringTable
from flowvis.questions.measures import BY_NAME

from .conftest import admin
from .samples import random_batch

ASKED = ("octets", "reverseOctets", "packets", "reversePackets", "connections", "denied")
"""The measures of questions that these metrics are, in their order."""
TYPES = ("unknown", "intra-node", "inter-node", "to-external", "from-external")


def batch_of(rows: int, seed: int) -> Batch:
    """Records of many combinations, half of them their connections' first."""
    batch, rng = random_batch(rows, seed, StringTable()), np.random.default_rng(seed)
    texts = batch.strings.encode(["", "shop", "web", "db", "x" * 300])
    for end in ("source", "destination"):
        for name in ("PodNamespace", "PodName", "WorkloadName", "NodeName"):
            batch[end + name] = texts[rng.integers(0, 5, rows)]
    batch["destinationServicePortName"] = texts[rng.integers(0, 2, rows)]
    batch["flowType"] = rng.integers(0, 7, rows).astype(np.uint8)
    for way in ("ingress", "egress"):
        batch[f"{way}NetworkPolicyRuleAction"] = rng.integers(0, 6, rows).astype(np.uint8)
    for name in ("octet", "reverseOctet", "packet", "reversePacket"):
        delta = f"{name[0].lower()}{name[1:]}DeltaCount"
        batch[delta] = rng.integers(0, 1 << 30, rows).astype(np.uint64)
        before = rng.integers(0, 2, rows).astype(np.uint64)
        batch[delta.replace("Delta", "Total")] = batch[delta] + before
    batch["flowStartSeconds"] = batch["flowEndSeconds"]
    late = rng.integers(0, 3, rows).astype(np.uint64) * np.uint64(500)
    ends = batch["flowEndSeconds"].astype(np.uint64) * np.uint64(1000)
    batch["monitoringIntervalStartMilliSeconds"] = ends + late
    return batch


def workload(end: str) -> str:
    return (
        f"multiIf({end}WorkloadName != '', {end}WorkloadName, {end}PodName != '', {end}PodName,"
        f" {end}NodeName != '', '(node)', '(external)')"
    )


@pytest.mark.clickhouse
def test_sums_are_those_of_the_store(embedded: Store) -> None:
    series = FlowSeries(60_000, 3600)
    for number in range(3):
        batch = batch_of(2000, number)
        series.add(batch, 1.0)
        embedded.insert(batch, BatchId("test", 1_790_000_000, number))
    keys = (
        "sourcePodNamespace", workload("source"), "destinationPodNamespace",
        workload("destination"), "destinationServicePortName", "flowType",
        Verdict("egress", "ingress").expression,
    )  # fmt: skip
    numbers = [BY_NAME[name].sql for name in ASKED]
    names = [f"k{at}" for at in range(len(keys))]
    chosen = ", ".join(f"{key} AS {name}" for key, name in zip(keys, names, strict=True))
    asked = f"{chosen}, {', '.join(numbers)}"
    made_of = ", ".join(f"{text} AS {name}" for name, text in definitions(asked).items())
    given = f"WITH {made_of} " if made_of else ""
    database = embedded.name.rsplit("/", 1)[1]
    rows = admin(embedded)(
        f"{given}SELECT {asked} FROM {database}.{TABLE} GROUP BY {', '.join(names)}"
    )
    expected: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        *texts, kind, verdict = row[: len(keys)]
        named = TYPES[kind] if kind < len(TYPES) else TYPES[0]
        labels = (*(text[:254] for text in texts), named, verdict)
        for measure, value in zip(MEASURES, row[len(keys) :], strict=True):
            expected[*labels, measure.name] += int(value)
    assert not any(sample.sums.any() for sample in series.read(1.0))  # what is new is 0
    found = {
        (*sample.labels, measure.name): int(value)
        for sample in series.read(1.0 + BEGINNING_S)
        for measure, value in zip(MEASURES, sample.sums, strict=True)
    }
    assert found == expected
    assert series.stats.other_records == 0
    for name in ("connections", "denied"):
        assert sum(value for labels, value in expected.items() if labels[-1] == name) > 100
