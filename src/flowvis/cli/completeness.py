"""What an answer lacks: said on stderr, so that no number is taken for more than it is."""

import sys
from collections.abc import Mapping
from typing import Any

from flowvis.runtime.visible import visible

SHOWN = 3  # causes on the line: what more there is, -o json has


def report(document: Mapping[str, Any]) -> None:
    """Say in one line what is missing of an answer and why, and its notes in lines of theirs."""
    answer = document.get("answer") or {}
    for line in lines(answer):
        print(f"flowctl: {visible(line)}", file=sys.stderr)


def lines(answer: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of an answer; nothing where it is complete."""
    found = [str(note) for note in answer.get("notes") or ()]
    if answer.get("complete", True):
        return found
    causes = [_cause(missing) for missing in answer.get("missing") or ()]
    text = "; ".join(causes[:SHOWN]) or "why is not known"
    if len(causes) > SHOWN:
        text += f"; and {len(causes) - SHOWN} more"
    return [f"not complete: {text}", *found]


def _cause(missing: Mapping[str, Any]) -> str:
    if text := missing.get("text"):
        return str(text)
    where = missing.get("node") or missing.get("stage") or "?"
    return f"{missing.get('records', '?')} records at {where}: {missing.get('reason', '?')}"
