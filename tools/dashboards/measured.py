"""What measures are over the rows of roll-ups: as they are of records, of columns of their names."""

from flowvis.questions.measures import DENIED_SQL, Measure

_FLAGS = ("connections", "ended", "unanswered", "records")
"""Counted by a column of their name."""


def rolled_state(measure: Measure) -> str:
    """Return the state of a measure over a group of rows of a roll-up."""
    if measure.name in _FLAGS:
        return f"sum({measure.name})"
    if measure.name == "denied":
        return f"sumIf(connections, {DENIED_SQL})"
    if measure.name == "peakThroughput":
        return "maxState(peakThroughput)"
    if measure.aggregate == "sum":
        return measure.sql
    return f"uniqExactMergeState({measure.name})"
