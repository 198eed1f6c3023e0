"""What measures are over the rows of roll-ups: sums of columns of their names."""

from flowvis.clickhouse.schema.rolled_columns import SUMS
from flowvis.questions.measures import Measure

_SUMMED = {column.name for column in SUMS}


def rolled_state(measure: Measure) -> str:
    """Return the state of a measure that adds up, over a group of rows of either roll-up."""
    if measure.name not in _SUMMED and measure.aggregate != "sum":
        raise ValueError(f"{measure.name}: minutes do not have it")
    return measure.rolled_sql
