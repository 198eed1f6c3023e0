"""Which rows of which table a panel reads: the smallest that make up the dashboard's range.

A dashboard knows its range when it is looked at, not when it is made. So a query begins with a WITH
of what the range is, constants for the engine, and has a branch for each table that reads its share
of it: hours, minutes around them, the records themselves around these; and whole days among the
hours, where projections have it by day. So numbers are of the range to the second, and no record
counts twice.

A branch that reads nothing takes as long to plan as one that reads much. So Grafana leaves out
those that a range has no share for: their lines begin with a variable (`Branch`) that nobody sees,
asked of the store whenever the range changes, which makes comments of them then. What a query takes
of the range goes by which branches it has: with another range's values it is slow, or refused, but
its numbers are the same.

Records go first and minutes before hours (`clickHouse.ttl`, `clickHouse.minutes.ttl`). A range that
begins or ends longer ago is widened to whole minutes, and then to whole hours. It ends now at the
latest: what is to come is no time without traffic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from textwrap import indent

from flowvis.clickhouse.schema import rollups
from flowvis.clickhouse.schema.books import What
from flowvis.clickhouse.schema.projections import DAY, DAY_S
from flowvis.clickhouse.schema.rolled_columns import TIME
from flowvis.clickhouse.schema.tables import BOOKS, TABLE

SHORT_S = 2 * 3600
"""Ranges up to this long are asked of records alone."""
RECORDS_AGE_S = 6 * 3600
"""If they begin not longer ago; earlier ones are of whole minutes."""
MINUTES_AGE_S = 29 * 86_400
"""What is longer ago is of whole hours."""
MINUTES_LAG_S = 900
HOURS_LAG_S = 65 * 60
"""How far each is taken to be behind where no aggregator says how far it is: what is later is asked
of the finer one. An hour is rolled two minutes after its end, what comes for it later an hour after
that."""
SAID_S = 900
"""What an aggregator has said of it counts for so long."""
HOURLY_S = 12 * 3600
"""From this length on the points of a time series are hours, or longer."""
DAYS_AT_LEAST = 2
"""Fewer whole days are read by hour."""
PATIENCE_S = 2 * 3600
"""How much longer ago a range may begin than one that needs a table which its query leaves out."""
SHORTEST_STEP_S = 60
"""Between two of them: connections that go on are reported once a minute."""


@dataclass(frozen=True, slots=True)
class Branch:
    """What a part of a query is of that a variable before each of its lines can leave out."""

    name: str
    """The variable's."""
    about: str
    has_share: str
    """SQL over `_asked_for`: whether the range has a share for it, once all is rolled."""

    @property
    def _begin(self) -> str:
        return f"${{{self.name}}} "

    def of(self, text: str) -> str:
        """Return the text as this branch."""
        return indent(text, self._begin)

    def used_in(self, text: str) -> bool:
        """Whether anything in the text is of this branch."""
        return self._begin in text

    @property
    def there(self) -> str:
        """SQL that is 1 in a query that has the branch, else 0."""
        return f"(0\n{self.of('+ 1')}\n) = 1 AS with_{self.name}"

    @property
    def sql(self) -> str:
        """The statement of the variable's value."""
        expressions = ",\n".join(f"  {each}" for each in _asked_for())
        # No comment as it is: some versions of the data source see one in quotes, too.
        there, left_out = (f"concat('{each[:1]}', '{each[1:]}')" for each in (THERE, LEFT_OUT))
        return f"WITH\n{expressions}\nSELECT if({self.has_share}, {there}, {left_out}) AS value"


THERE, LEFT_OUT = "/**/", "--"
"""The values of such a variable, before each line of its branch. None is as good as the first."""
_WHOLE_HOURS = "whole_hours_from_s < whole_hours_to_s"
_HOURLY = f"its_to_s - its_from_s >= {HOURLY_S} OR begin_unit_s = 3600"
_WHOLE_DAYS = (
    f"intDiv(whole_hours_to_s, {DAY_S}) - intDiv(whole_hours_from_s + {DAY_S - 1}, {DAY_S})"
)
OF_MINUTES = Branch("minutes", rollups.MINUTES.name, "long")
OF_HOURS = Branch("hours", rollups.HOURS.name, f"long AND {_WHOLE_HOURS}")
OF_HOURLY = Branch(
    "hourly",
    f"{rollups.HOURS.name} for time series",
    f"long AND {_WHOLE_HOURS} AND ({_HOURLY})",
)
OF_DAYS = Branch(
    "days",
    f"{rollups.HOURS.name} by day",
    f"long AND {_WHOLE_HOURS} AND {_WHOLE_DAYS} >= {DAYS_AT_LEAST}",
)
BRANCHES = (OF_MINUTES, OF_HOURS, OF_HOURLY, OF_DAYS)


@dataclass(frozen=True, slots=True)
class FlowTable:
    """A table of flows."""

    name: str
    time: str
    """The column that a range is of."""
    share: str
    """What of the range it has."""
    branch: Branch | None = None
    """What leaves it out; None: nothing does."""

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
    TIME,
    "{time} >= toDateTime(minutes_from_s) AND {time} < toDateTime(minutes_to_s)"
    " AND ({time} < toDateTime(hours_from_s) OR {time} >= toDateTime(hours_to_s))",
    OF_MINUTES,
)
HOURS = FlowTable(
    rollups.HOURS.name,
    TIME,
    "{time} >= toDateTime(hours_from_s) AND {time} < toDateTime(hours_to_s)",
    OF_HOURS,
)
BESIDE_DAYS = replace(
    HOURS,
    share=f"{HOURS.share} AND ({{time}} < toDateTime(days_from_s)"
    " OR {time} >= toDateTime(days_to_s))",
)
DAYS = replace(
    HOURS,
    time=DAY,
    share=f"{{time}} >= intDiv(days_from_s, {DAY_S}) AND {{time}} < intDiv(days_to_s, {DAY_S})",
    branch=OF_DAYS,
)


def tables(*, steps: bool = False, days: bool = False) -> tuple[FlowTable, ...]:
    """Return the tables that a range is divided among: of time series with `steps`."""
    hours = BESIDE_DAYS if days else HOURS
    return (
        RECORDS,
        MINUTES,
        replace(hours, branch=OF_HOURLY) if steps else hours,
        *[DAYS] * days,
    )


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


_REFUSED = "this range needs {}, which is left out here: choose it on a dashboard"


def definitions(*, steps: bool, days: bool = False) -> Iterator[str]:
    """Yield the WITH's expressions of what the range is, in seconds.

    `from_s` and `to_s` are the range that is read; then the shares of minutes and hours; with
    `steps` also `step_s`, the length of the intervals of a time series, with `days` their share.
    """
    names = [*_SHARES, *["step_s"] * steps, *_DAYS * days]
    of_hours = OF_HOURLY if steps else OF_HOURS
    branches = [OF_MINUTES, of_hours, *[OF_DAYS] * days]
    parts = [*(branch.there for branch in branches), _settled(), *_asked_for()]
    parts += _shares(of_hours, steps=steps, days=days)
    found = ", ".join(f"toUInt32(its_{name})" for name in names)
    refused = "\n    AND ".join(
        f"NOT throwIf(NOT with_{branch.name} AND its_from_s < now_s - {age_s + PATIENCE_S}"
        f" AND its_from_s < its_to_s, '{_REFUSED.format(branch.about)}')"
        for branch, age_s in ((OF_MINUTES, RECORDS_AGE_S), (of_hours, MINUTES_AGE_S))
    )
    expressions = indent(",\n".join(parts), "    ")
    # A subquery of one row is worked out once, where an alias is at each of its places.
    yield f"(\n  WITH\n{expressions}\n  SELECT [{found}]\n  WHERE {refused}\n) AS span"
    for place, name in enumerate(names):
        yield f"span[{place + 1}] AS {name}"


_ROLLUPS = (rollups.MINUTES, rollups.HOURS)


def _settled() -> str:
    """Return the expression of until when roll-ups have all, in seconds; 0: nobody says.

    Each aggregator that was there a moment ago says so. Without minutes it does not matter.
    """
    each = ", ".join(f"toInt64(minIf(until_s, stage = '{rollup.name}'))" for rollup in _ROLLUPS)
    said = (
        f"(\n  SELECT [{each}]\n  FROM (\n"
        f"    SELECT stage, writer, argMax(records, time) AS until_s\n    FROM {BOOKS}\n"
        f"    WHERE what = '{What.SETTLED}' AND time > now() - {SAID_S}\n"
        "    GROUP BY stage, writer\n  )\n)"
    )
    nobody = "[toInt64(0), toInt64(0)]"
    return f"{nobody}\n{OF_MINUTES.of(f'AS nobody, {said}')}\nAS settled_s"


def _asked_for() -> Iterator[str]:
    """Yield the expressions of the range that is asked for, and of its whole hours."""
    yield "toUInt32(now()) AS now_s"
    yield "toUInt32($__fromTime) AS begin_s"
    yield "least(toUInt32($__toTime), now_s) AS end_s"  # "today" ends later
    yield f"{_unit('begin_s')} AS begin_unit_s"
    yield f"{_unit('end_s')} AS end_unit_s"
    yield f"{_down('begin_s', 'begin_unit_s')} AS its_from_s"
    yield f"{_up('end_s', 'end_unit_s')} AS its_to_s"
    yield f"its_to_s - its_from_s > {SHORT_S} OR its_from_s < now_s - {RECORDS_AGE_S} AS long"
    yield f"{_up('its_from_s', 3600)} AS whole_hours_from_s"
    yield f"{_down('its_to_s', 3600)} AS whole_hours_to_s"


def _shares(of_hours: Branch, *, steps: bool, days: bool) -> Iterator[str]:
    """Yield the expressions of what each table has a share of, as far as it is settled."""
    for place, (rollup, lag_s) in enumerate(
        zip(_ROLLUPS, (MINUTES_LAG_S, HOURS_LAG_S), strict=True), 1
    ):
        said = f"settled_s[{place}]"
        yield f"if({said} = 0, now_s - {lag_s}, {said}) AS {rollup.name}_until_s"
    rolled, hourly = f"long AND with_{OF_MINUTES.name}", f"with_{of_hours.name}"
    if steps:
        yield f"{_HOURLY} AS is_long"
        yield f"if(is_long, 3600, {SHORTEST_STEP_S}) AS step_unit_s"
        yield f"{_up('greatest($__interval_s, 1)', 'step_unit_s')} AS its_step_s"
        hourly += " AND its_step_s % 3600 = 0"
    minutes, hours = (
        _down(f"least({end}, {rollup.name}_until_s)", rollup.step_s)
        for rollup, end in zip(_ROLLUPS, ("its_to_s", "its_minutes_to_s"), strict=True)
    )
    hourly = f"{rolled} AND {hourly}"
    for name, if_so, else_ in (
        ("minutes_from_s", f"{rolled}, {_up('its_from_s', 60)}", "its_to_s"),
        ("minutes_to_s", f"{rolled}, greatest(its_minutes_from_s, {minutes})", "its_to_s"),
        ("hours_from_s", f"{hourly}, least(whole_hours_from_s, its_minutes_to_s)",
         "its_minutes_to_s"),
        ("hours_to_s", f"{hourly}, greatest(its_hours_from_s, {hours})", "its_hours_from_s"),
    ):  # fmt: skip
        yield f"if({if_so}, {else_}) AS its_{name}"
    if not days:
        return
    first, last = _up("its_hours_from_s", DAY_S), _down("its_hours_to_s", DAY_S)
    yield f"{first} AS its_days_from_s"
    yield (
        f"if(with_{OF_DAYS.name}, greatest(its_days_from_s, {last}), its_days_from_s)"
        " AS its_days_to_s"
    )


SLOT = "intDiv(toUInt32({time}), step_s)"
"""The number of a row's interval."""
SLOT_SECONDS = "least((slot + 1) * step_s, to_s) - greatest(slot * step_s, from_s)"
"""How many seconds of an interval are within the range."""
SECONDS = "greatest(to_s - from_s, 1)"
"""How many seconds the range has."""
