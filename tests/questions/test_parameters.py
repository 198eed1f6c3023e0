"""Questions as parameters have them: what is wrong is named, with what was probably meant."""

import base64
import json

import pytest

from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.statement import COMPOSED_LENGTH, bind, readable
from flowvis.filters import parse
from flowvis.filters.sql import condition
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.groups import Group
from flowvis.questions.pages import PageQuestion
from flowvis.questions.planner import Span, Stored
from flowvis.questions.problem import QuestionError
from flowvis.questions.table import TableQuestion

NOW = 1_790_000_000_000
ALL = condition(parse(""))
Kind = type[TableQuestion] | type[GraphQuestion] | type[PageQuestion]


def cursor(*numbers: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(numbers).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("kind", "parameters", "words", "suggestion"),
    [
        (TableQuestion, {"by": "src.pd"}, "src.pd", "src.pod"),
        (TableQuestion, {"by": "namespace"}, "namespace", "src.namespace"),
        (TableQuestion, {"by": "src.pod,src.pod"}, "each name once", ""),
        (TableQuestion, {"by": "src.pod,"}, "by", ""),
        (TableQuestion, {"by": "bytes"}, "bytes", ""),
        (TableQuestion, {"by": ",".join(["src.ip"] * 7)}, "at most 6", ""),
        (TableQuestion, {"measure": "octet"}, "octet", "octets"),
        (TableQuestion, {"measure": "octets,octets"}, "each once", ""),
        (TableQuestion, {"limit": "0"}, "from 1 to 1000", ""),
        (TableQuestion, {"limit": "1001"}, "from 1 to 1000", ""),
        (TableQuestion, {"limit": "-1"}, "whole number", ""),
        (TableQuestion, {"limit": "٣"}, "whole number", ""),
        (TableQuestion, {"limit": "9" * 5000}, "whole number", ""),
        (TableQuestion, {"from": "-1d", "interval": "1s"}, "86400 intervals", ""),
        (
            TableQuestion,
            {"from": "-1d", "interval": "2m", "limit": "1000", "measure": "octets,packets"},
            "numbers",
            "",
        ),
        (TableQuestion, {"compare": "later"}, "compare", ""),
        (TableQuestion, {"from": "-1h", "to": "-2h"}, "not before", ""),
        (GraphQuestion, {"source": "workload"}, "source", "src.workload"),
        (GraphQuestion, {"target": "dst.workloads"}, "target", "dst.workload"),
        (GraphQuestion, {"limit": "2001"}, "from 1 to 2000", ""),
        (PageQuestion, {"columns": "sourceIp"}, "sourceIp", "sourceIP"),
        (PageQuestion, {"columns": "count()"}, "columns", ""),
        (PageQuestion, {"limit": "5000"}, "from 1 to 1000", ""),
        (PageQuestion, {"cursor": "x"}, "cursor", ""),
        (PageQuestion, {"cursor": "!"}, "cursor", ""),
        (PageQuestion, {"cursor": "é"}, "cursor", ""),
        (PageQuestion, {"cursor": "A" * 100_000}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(1, 2, 3)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(5, 2, 3, 4, 5)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(1, 2, "1) OR 1", 4, 5)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(1, 2, 3, True, 5)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(1, 2, 3, 1 << 64, 5)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(1, 2, 3, 4, 1e3)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(2000, 3000, 1, 4, 0)}, "cursor", ""),
        (PageQuestion, {"cursor": cursor(2000, 3000, 3, 4, 0)}, "cursor", ""),
        (TableQuestion, {"from": "000000000", "compare": "previous"}, "before 1970", ""),
        (GraphQuestion, {"compare": "-99999999d"}, "before 1970", ""),
    ],
)
def test_what_is_wrong(kind: Kind, parameters: dict[str, str], words: str, suggestion: str) -> None:
    with pytest.raises(QuestionError, match=r"^(?s:.{1,600})$") as error:
        kind.parse(parameters, ALL, NOW)
    assert words in str(error.value)
    assert error.value.suggestion == suggestion


def test_defaults() -> None:
    table = TableQuestion.parse({}, ALL, NOW)
    assert (table.limit, table.intervals, table.compared) == (50, None, None)
    assert [measure.name for measure in table.grouping.measures] == ["octets"]
    graph = GraphQuestion.parse({}, ALL, NOW)
    assert [each.name for each in graph.source.dimensions] == ["src.workload"]
    assert PageQuestion.parse({}, ALL, NOW).limit == 100


def test_a_cursor_keeps_its_range() -> None:
    page = PageQuestion.parse({"cursor": cursor(1000, 2000, 1, 7, 0), "from": "-1h"}, ALL, NOW)
    assert (page.records.range.from_ms, page.records.range.to_ms) == (1000, 2000)


def test_groups_of_too_many_smaller_ones_are_said_to_be_too_costly() -> None:
    """Each table that is read has the numbers of all; whatever is not refused fits in."""
    spans = {rollup.name: Span(NOW // 1000) for rollup in ROLLUPS}
    moments = {"from": str(NOW - 7 * 3_600_000 - 61_000), "to": str(NOW - 3_661_000)}
    fitting: list[int] = []
    refused: list[str] = []
    for stored in (Stored(NOW // 1000), Stored(NOW // 1000, rollups=spans)):
        asked = TableQuestion.parse({**moments, "by": "service"}, ALL, NOW, stored)
        for count in range(0, 9000, 300):
            groups = [Group((str(n),), (1,), n, (n + (1 << 63),)) for n in range(count)]
            try:
                made = asked.grouping.cells(asked.records, groups, None)
            except QuestionError as error:
                refused.append(error.code)
                break
            readable(bind(made.text, made.parameters), COMPOSED_LENGTH)
        fitting.append(count - 300)
    assert refused == ["too-costly"] * 2
    assert fitting[0] > 2 * fitting[1] > 3000
