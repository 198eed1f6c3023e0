"""What the engine keeps of each group that it makes."""

import pytest

from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, Rollup
from flowvis.filters import EVERYTHING
from flowvis.filters.sql import condition
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.planner import Span, Stored
from flowvis.questions.table import TableQuestion

NOW_MS = 1_790_000_000_000 // 3_600_000 * 3_600_000


@pytest.mark.parametrize(
    ("kind", "by", "table", "found"),
    [
        (GraphQuestion, {}, MINUTES, 1),
        (TableQuestion, {"by": "src.workload,dst.workload"}, MINUTES, 1),
        (TableQuestion, {"by": "src.namespace,dst.namespace"}, MINUTES, 2),
        (TableQuestion, {"by": "src.workload,dst.workload"}, HOURS, 6),
    ],
)
def test_a_group_of_many_values_keeps_those_of_one_record(
    kind: type[TableQuestion] | type[GraphQuestion], by: dict[str, str], table: Rollup, found: int
) -> None:
    """But where projections have each value by itself, and where there are few."""
    stored = Stored(NOW_MS // 1000, rollups={table.name: Span(NOW_MS // 1000)})
    span = {"from": "-3h", "to": "now"}
    statement = next(kind.parse({**span, **by}, condition(EVERYTHING), NOW_MS, stored).plan())
    assert statement.reading.tables == (table.name,)
    assert statement.text.count("any(") + statement.text.count("anyIf(") == found
