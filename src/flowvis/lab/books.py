"""Reads a daemon's ledger back from its metrics."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

RECORDS = "flowvis_ledger_records_total"
OTHERS = {"flowvis_ledger_held_records": "held", "flowvis_ledger_imbalance_records": "imbalance"}


def read_books(metrics: str) -> dict[str, Any]:
    """Return the ledger in the form of `Ledger.as_dict`.

    Metrics tell only one kind of imbalance: what is missing on the way to a stage is in it.
    """
    stages: dict[str, dict[str, Any]] = {}
    samples = (s for family in text_string_to_metric_families(metrics) for s in family.samples)
    for sample in samples:
        if sample.name != RECORDS and sample.name not in OTHERS:
            continue
        name, count = sample.labels["stage"], int(sample.value)
        stage = stages.setdefault(name, {"stage": name, "dropped": {}, "missing": 0})
        if sample.name in OTHERS:
            stage[OTHERS[sample.name]] = count
        elif sample.labels["what"] == "dropped":
            stage["dropped"][sample.labels["reason"]] = count
        else:
            stage[sample.labels["what"]] = count
    balanced = not any(stage["imbalance"] for stage in stages.values())
    return {"balanced": balanced, "stages": list(stages.values())}
