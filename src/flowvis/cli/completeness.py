"""What an answer lacks: said on stderr, so that no number is taken for more than it is."""

import sys
from collections.abc import Mapping
from typing import Any

from flowvis.runtime.visible import visible

SHOWN = 3  # causes on the line: what more there is, -o json has


def report(document: Mapping[str, Any]) -> None:
    """Say in one line what is missing of an answer and why, and its notes in lines of theirs."""
    answer = document["answer"]
    for line in (*lines(answer), *answer["notes"]):
        print(f"flowctl: {visible(line)}", file=sys.stderr)


def report_since(document: Mapping[str, Any], since_ms: float) -> None:
    """Say what is missing of the part of an answer's range that was shown."""
    for line in lines(document["answer"], since_ms):
        print(f"flowctl: {visible(line)}", file=sys.stderr)


def lines(answer: Mapping[str, Any], since_ms: float = 0) -> list[str]:
    """Return what is to be said of what an answer lacks; nothing where it is complete."""
    if answer["complete"]:
        return []
    found = [missing for missing in answer["missing"] if missing["to"] > since_ms]
    if answer["missing"] and not found:
        return []
    causes = [_cause(missing) for missing in found]
    text = "; ".join(causes[:SHOWN]) or "why is not known"
    if len(causes) > SHOWN:
        text += f"; and {len(causes) - SHOWN} more"
    return [f"not complete: {text}"]


def _cause(missing: Mapping[str, Any]) -> str:
    if text := missing.get("text"):
        return str(text)
    where = missing.get("node") or missing.get("stage") or "?"
    return f"{missing.get('records', '?')} records at {where}: {missing.get('reason', '?')}"
