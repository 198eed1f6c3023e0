"""Which rows of which table a panel reads: the smallest that make up the dashboard's range.

A dashboard knows its range when it is looked at, not when it is made. So a query begins with a WITH
of what the range is, constants for the engine, and has a branch for each table that reads its share
of it: hours, minutes around them, the records themselves around these; and whole days among the
hours, where projections have it by day. A share that is empty reads nothing. So numbers are of the
range to the second, and no record counts twice.

Records go first and minutes before hours (`clickHouse.ttl`, `clickHouse.minutes.ttl`). A range that
begins or ends longer ago is widened to whole minutes, and then to whole hours. It ends now at the
latest: what is to come is no time without traffic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flowvis.clickhouse.schema import rollups
from flowvis.clickhouse.schema.tables import TABLE

SHORT_S = 2 * 3600
"""Ranges up to this long are asked of records alone."""
RECORDS_AGE_S = 6 * 3600
"""If they begin not longer ago; earlier ones are of whole minutes."""
MINUTES_AGE_S = 29 * 86_400
"""What is longer ago is of whole hours."""
MINUTES_LAG_S = 900
HOURS_LAG_S = 90 * 60
"""How far each may be behind, as rolling is no hurry: what is later is asked of the finer one."""
HOURLY_S = 12 * 3600
"""From this length on the points of a time series are hours, or longer."""
SHORTEST_STEP_S = 60
"""Between two of them: connections that go on are reported once a minute."""


@dataclass(frozen=True, slots=True)
class FlowTable:
    """A table of flows."""

    name: str
    time: str
    """The column that a range is of."""
    share: str
    """What of the range it has."""

    @property
    def rolled(self) -> bool:
        """Whether its rows are sums over records."""
        return self.name != TABLE


RECORDS = FlowTable(
    TABLE,
    "flowEndSeconds",
    "{time} >= toDateTime(from_s) AND {time} < toDateTime(to_s)"
    " AND ({time} < toDateTime(minutes_from_s) OR {time} >= toDateTime(minutes_to_s))",
)
MINUTES = FlowTable(
    rollups.MINUTES.name,
    rollups.TIME,
    "{time} >= toDateTime(minutes_from_s) AND {time} < toDateTime(minutes_to_s)"
    " AND ({time} < toDateTime(hours_from_s) OR {time} >= toDateTime(hours_to_s))",
)
HOURS = FlowTable(
    rollups.HOURS.name,
    rollups.TIME,
    "{time} >= toDateTime(hours_from_s) AND {time} < toDateTime(hours_to_s)",
)
BESIDE_DAYS = replace(
    HOURS,
    share=f"{HOURS.share} AND ({{time}} < toDateTime(days_from_s)"
    " OR {time} >= toDateTime(days_to_s))",
)
DAYS = replace(
    HOURS,
    time=rollups.DAY,
    share=f"{{time}} >= intDiv(days_from_s, {rollups.DAY_S})"
    f" AND {{time}} < intDiv(days_to_s, {rollups.DAY_S})",
)
TABLES = (RECORDS, MINUTES, HOURS)
TABLES_AND_DAYS = (RECORDS, MINUTES, BESIDE_DAYS, DAYS)

WHOLE = "{time} >= $__fromTime AND {time} < $__toTime"
"""What of the range is read where one table has to have it all."""


def within(table: FlowTable, share: str = "") -> str:
    """Return the condition of the rows that are read of a table."""
    return (share or table.share).format(time=table.time)


def _down(seconds: str, unit: int | str) -> str:
    return f"intDiv({seconds}, {unit}) * {unit}"


def _up(seconds: str, unit: int | str) -> str:
    return f"intDiv({seconds} + {unit} - 1, {unit}) * {unit}"


def _unit(moment: str) -> str:
    return (
        f"multiIf({moment} < now_s - {MINUTES_AGE_S}, 3600,"
        f" {moment} < now_s - {RECORDS_AGE_S}, 60, 1)"
    )


_SHARES = ("from_s", "to_s", "minutes_from_s", "minutes_to_s", "hours_from_s", "hours_to_s")
_DAYS = ("days_from_s", "days_to_s")


def definitions(*, steps: bool, days: bool = False) -> Iterator[str]:
    """Yield the WITH's expressions of what the range is, in seconds.

    `from_s` and `to_s` are the range that is read; then the shares of minutes and hours; with
    `steps` also `step_s`, the length of the intervals of a time series, with `days` their share.
    """
    names = [*_SHARES, *["step_s"] * steps, *_DAYS * days]
    expressions = ",\n".join(f"    {each}" for each in _expressions(steps=steps, days=days))
    found = ", ".join(f"toUInt32(its_{name})" for name in names)
    # A subquery of one row is worked out once, where an alias is at each of its places.
    yield f"(\n  WITH\n{expressions}\n  SELECT [{found}]\n) AS span"
    for place, name in enumerate(names):
        yield f"span[{place + 1}] AS {name}"


def _expressions(*, steps: bool, days: bool) -> Iterator[str]:
    yield "toUInt32(now()) AS now_s"
    yield "toUInt32($__fromTime) AS begin_s"
    yield "least(toUInt32($__toTime), now_s) AS end_s"  # "today" ends later
    yield f"{_unit('begin_s')} AS begin_unit_s"
    yield f"{_unit('end_s')} AS end_unit_s"
    yield f"{_down('begin_s', 'begin_unit_s')} AS its_from_s"
    yield f"{_up('end_s', 'end_unit_s')} AS its_to_s"
    yield f"its_to_s - its_from_s > {SHORT_S} OR its_from_s < now_s - {RECORDS_AGE_S} AS long"
    hourly = "long"
    if steps:
        yield f"its_to_s - its_from_s >= {HOURLY_S} OR begin_unit_s = 3600 AS is_long"
        yield f"if(is_long, 3600, {SHORTEST_STEP_S}) AS step_unit_s"
        yield f"{_up('greatest($__interval_s, 1)', 'step_unit_s')} AS its_step_s"
        hourly = "long AND its_step_s % 3600 = 0"
    minutes = _down(f"least(its_to_s, now_s - {MINUTES_LAG_S})", 60)
    hours = _down(f"least(its_to_s, now_s - {HOURS_LAG_S})", 3600)
    begin = f"least({_up('its_from_s', 3600)}, its_minutes_to_s)"
    for name, if_so, else_ in (
        ("minutes_from_s", f"long, {_up('its_from_s', 60)}", "its_to_s"),
        ("minutes_to_s", f"long, greatest(its_minutes_from_s, {minutes})", "its_to_s"),
        ("hours_from_s", f"{hourly}, {begin}", "its_minutes_to_s"),
        ("hours_to_s", f"{hourly}, greatest(its_hours_from_s, {hours})", "its_hours_from_s"),
    ):
        yield f"if({if_so}, {else_}) AS its_{name}"
    if not days:
        return
    first, last = _up("its_hours_from_s", rollups.DAY_S), _down("its_hours_to_s", rollups.DAY_S)
    yield f"{first} AS its_days_from_s"
    yield f"greatest(its_days_from_s, {last}) AS its_days_to_s"


SLOT = "intDiv(toUInt32({time}), step_s)"
"""The number of a row's interval."""
SLOT_SECONDS = "least((slot + 1) * step_s, to_s) - greatest(slot * step_s, from_s)"
"""How many seconds of an interval are within the range."""
SECONDS = "greatest(to_s - from_s, 1)"
"""How many seconds the range has."""
