"""The books that a daemon writes into its log when it ends."""

import json
from collections.abc import Iterator
from typing import Any

Ledger = dict[str, Any]
"""Books in the form of `runtime.ledger.Ledger.as_dict`: `balanced` and `stages`."""

STAGE = ("stage", "received", "sent", "merged", "dropped", "held", "imbalance", "missing")


def closing_books(log: str) -> Ledger:
    """Return the last books in a log of JSON lines; a log without any does not balance."""
    stages = {line["stage"]: {name: line[name] for name in STAGE} for line in _lines(log)}
    balanced = bool(stages) and not any(s["imbalance"] or s["missing"] for s in stages.values())
    return {"balanced": balanced, "stages": list(stages.values())}


def _lines(log: str) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:  # a traceback, or a daemon that was killed while it wrote
            continue
        if isinstance(fields, dict) and fields.keys() >= set(STAGE):
            yield fields
