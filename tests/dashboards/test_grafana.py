"""What these tests take for Grafana's and the data source's work, by their documented examples."""

import pytest
from tools.dashboards.looked import ALL, Looked

FROM, TO = "toDateTime(1415792726)", "toDateTime(1447328726)"
FROM_MS, TO_MS = (
    f"fromUnixTimestamp64Milli({each})" for each in (1_415_792_726_371, 1_447_328_726_371)
)
DATES = "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12'))"
LOOK = Looked(
    1_415_792_726,
    1_447_328_726,
    30.9,
    {
        "service": ["a", "b'c"], "level": [ALL], "search": "", "one": "x", "none": [],
        "some": ["a", ALL], "every": [ALL, "a"], "odd": ["x),(y"],
    },
    {"level": "*", "every": ".*"},
    rest_ms=371,
)  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        # Of the data source's own documentation and tests.
        ("$__timeFilter(col)", f"col >= {FROM} AND col <= {TO}"),
        ("$__timeFilter( toDate(a, b) )", f"toDate(a, b) >= {FROM} AND toDate(a, b) <= {TO}"),
        ("$__fromTime", FROM),
        ("x < $__toTime)", f"x < {TO})"),
        ("$__fromTime_ms - 1", f"{FROM_MS} - 1"),
        ("$__toTime_ms", TO_MS),
        ("$__timeFilter_ms(t)", f"t >= {FROM_MS} AND t <= {TO_MS}"),
        ("$__dateFilter(d)", DATES[1:-1]),
        ("$__dt(d, t)", f"{DATES} AND (t >= {FROM} AND t <= {TO})"),
        ("$__timeInterval(col)", "toStartOfInterval(toDateTime(col), INTERVAL 30 second)"),
        ("$__timeInterval_ms(col)",
         "toStartOfInterval(toDateTime64(col, 3), INTERVAL 30900 millisecond)"),
        ("$__interval_s", "30"),
        ("$__timeFilter($__fromTime)", f"{FROM} >= {FROM} AND {FROM} <= {TO}"),
        ("$__fromTimes $__other(1)", "$__fromTimes $__other(1)"),
        ("where $__conditionalAll(s in (${level}), $level);", "where 1=1;"),
        ("where $__conditionalAll(s in (${one}), ${one});", "where s in (x);"),
        ("$__conditionalAll(f(a, s in (${one})), $one) and $__conditionalAll(y, $search)",
         "f(a, s in (x)) and 1=1"),
        ("$__conditionalAll(a, $none) $__conditionalAll(b, ${unknown})", "1=1 b"),
        ("$__conditionalAll(a, ${level:csv})", "a"),  # a format is not understood there
        ("$__conditionalAll(a, $some) $__conditionalAll(b, $every)", "a b"),
        ("$__conditionalAll(a in (${odd:singlequote}), ${odd})", "a in ('x),(y')"),
        ("$__conditionalAll($__conditionalAll(a, $one), $level)", "1=1"),
        ("$__conditionalAll(a, b, $one)", "$__conditionalAll(a, b, x)"),
        ("$__conditionalAll('$$', $one)", "'$'"),
        # Of Grafana's formats of variables.
        ("IN (${service:singlequote})", "IN ('a','b\\'c')"),
        ("${service:csv} ${level:csv} ${__from}-${__to}",
         "a,b'c * 1415792726371-1447328726371"),
        ("$one-[[one]] $ones $service ${every:singlequote}", "x-x $ones 'a','b'c' .*"),
        ("${some}", "'a','$__all'"),
        ("${unknown}", "${unknown}"),
    ],
)  # fmt: skip
def test_what_is_sent(raw: str, sent: str) -> None:
    assert LOOK.sql(raw) == sent


def test_an_interval_is_a_second_at_least() -> None:
    short = Looked(1, 2, 0.2)
    assert short.sql("$__interval_s") == "1"
    assert "INTERVAL 200 millisecond" in short.sql("$__timeInterval_ms(x)")
    assert "INTERVAL 1 second" in short.sql("$__timeInterval(x)")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("$__timeFilter", r"\$__timeFilter: 0 arguments, not 1"),
        ("$__dt(a)", r"\$__dt: 1 arguments, not 2"),
        ("$__timeFilter(a", "a bracket is not closed"),
        ("${one:regex}", "no format that dashboards use"),
        ("$__conditionalAll(a = '$', $one)", "a browser takes it for another text"),
    ],
)
def test_what_is_refused(raw: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LOOK.sql(raw)
