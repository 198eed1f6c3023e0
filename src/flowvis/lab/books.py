"""Reads a daemon's ledger back from its metrics."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

RECORDS = "flowvis_ledger_records_total"
IMBALANCE = "flowvis_ledger_imbalance"


def read_books(metrics: str) -> dict[str, Any]:
    """Return the ledger in the form of `Ledger.as_dict`."""
    stages: dict[str, dict[str, Any]] = {}
    samples = (s for family in text_string_to_metric_families(metrics) for s in family.samples)
    for sample in samples:
        if sample.name not in {RECORDS, IMBALANCE}:
            continue
        name, count = sample.labels["stage"], int(sample.value)
        stage = stages.setdefault(name, {"stage": name, "dropped": {}, "missing": 0})
        if sample.name == IMBALANCE:
            stage["imbalance"] = count
        elif sample.labels["what"] == "dropped":
            stage["dropped"][sample.labels["reason"]] = count
        else:
            stage[sample.labels["what"]] = count
    return {
        "balanced": not any(stage["imbalance"] for stage in stages.values()),
        "stages": list(stages.values()),
    }
