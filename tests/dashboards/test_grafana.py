"""What these tests take for Grafana's and the data source's work, by their documented examples."""

import pytest
from tools.dashboards.looked import ALL, Looked

LOOK = Looked(
    1_415_792_726,
    1_447_328_726,
    30,
    {"service": ["a", "b'c"], "level": [ALL], "search": "", "one": "x"},
    {"level": "*"},
)


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        # Of the data source's own documentation and tests.
        ("$__timeFilter(col)", "col >= toDateTime(1415792726) AND col <= toDateTime(1447328726)"),
        ("$__fromTime", "toDateTime(1415792726)"),
        ("x < $__toTime)", "x < toDateTime(1447328726))"),
        ("$__timeInterval(col)", "toStartOfInterval(toDateTime(col), INTERVAL 30 second)"),
        ("$__interval_s", "30"),
        ("where $__conditionalAll(s in (${level}), $level);", "where 1=1;"),
        ("where $__conditionalAll(s in (${one}), ${one});", "where s in (x);"),
        ("$__conditionalAll(f(a, s in (${one})), $one) and $__conditionalAll(y, $search)",
         "f(a, s in (x)) and 1=1"),
        # Of Grafana's formats of variables.
        ("IN (${service:singlequote})", "IN ('a','b\\'c')"),
        ("${service:csv} ${level:csv} ${__from}-${__to}", "a,b'c * 1415792726000-1447328726000"),
        ("${unknown}", "${unknown}"),
    ],
)  # fmt: skip
def test_what_is_sent(raw: str, sent: str) -> None:
    assert LOOK.sql(raw) == sent
