"""The shapes of what panels ask: totals, ranked rows, series over time, a graph.

Each is made of the same inside: for each table its share of the range, grouped by the parts of what
people see (`questions.dimensions`), with the states of measures; then what people see.

Pairs of ends are many, and by interval far more. So series of pairs, and graphs and tables of pairs
of Pods, are found in two passes: first the numbers of the largest, without texts, then only these
are told apart.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import indent

from flowvis.clickhouse.schema.ends import ENDS, kind_sql
from flowvis.clickhouse.schema.projections import PROJECTIONS
from flowvis.clickhouse.schema.rolled_columns import DIMENSIONS, END_NUMBERS
from flowvis.clickhouse.schema.tables import ENDED_SQL, stored_columns
from flowvis.clickhouse.schema.tables import definitions as columns_made_of
from flowvis.clickhouse.statement import bind
from flowvis.filters import parse
from flowvis.filters.networks import NetworkNames
from flowvis.filters.sql import condition
from flowvis.questions.dimensions import Part, defined, parts_of, told_apart
from flowvis.questions.measures import BY_NAME, Measure
from tools.dashboards import ranges
from tools.dashboards.chosen import COMMON, Choice
from tools.dashboards.labels import LEVEL_COLUMNS, LEVEL_NUMBERS, Label, levels
from tools.dashboards.measured import rolled_state
from tools.dashboards.ranges import (
    DAYS,
    HOURS,
    RECORDS,
    FlowTable,
)

_UNNAMED = NetworkNames()
"""Names of networks are the aggregator's, which Grafana does not ask."""
_DIMENSIONS = frozenset(column.name for column in DIMENSIONS)
OTHERS = "others"
"""What is not among the largest, together."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records that a panel is about."""

    filter: str = ""
    """In the filter language."""
    choices: tuple[Choice, ...] = COMMON
    raw: bool = False
    """Whether only records themselves are asked, all of the range, as far back as they are kept."""

    @property
    def fixed(self) -> str:
        """The condition of the filter, over the columns of records; "" without one."""
        chosen = condition(parse(self.filter))
        return bind(chosen.text, chosen.parameters) if self.filter else ""

    @property
    def conditions(self) -> list[str]:
        """The conditions, over the columns of records."""
        return [*filter(None, [self.fixed]), *(each.condition for each in self.choices)]

    @property
    def written(self) -> str:
        """The same in the filter language, with the variables' values."""
        fixed = [f"({self.filter})"] if " or " in self.filter else [self.filter] * bool(self.filter)
        return " and ".join([*fixed, *(each.written for each in self.choices)])


def query(body: str, *expressions: str, steps: bool = False) -> str:
    """Return a statement with its WITH: what the range is, and expressions that go by it."""
    days = any(ranges.OF_DAYS.used_in(text) for text in (body, *expressions))
    known = ranges.definitions(steps=steps, days=days)
    names = ",\n".join([*known, *filter(None, expressions)])
    return f"WITH\n{indent(names, '  ')}\n{body}"


def select(table: FlowTable, columns: Iterable[str], records: Records, tail: str = "") -> str:
    """Return the SELECT of a table's share of the range."""
    within = ranges.within(table, ranges.WHOLE if records.raw else "")
    wanted = "\n  AND ".join([within, *records.conditions])
    text = f"SELECT {', '.join(columns)}\nFROM {table.name}\nWHERE {wanted}\n{tail}".rstrip()
    return _defining(levels(text) | ({} if table.rolled else columns_made_of(text)), text)


def _defining(named: Mapping[str, str], text: str) -> str:
    """Return a SELECT with a WITH of what some names in it are."""
    made = ", ".join(f"{sql} AS {name}" for name, sql in named.items())
    return _shortened(f"WITH {made}\n{text}" if made else text)


_REPEATED = {
    f"{end}_{name}": sql
    for end in ENDS
    for name, sql in (
        ("kind", kind_sql(end)),
        ("called", f"if({end}WorkloadName != '', {end}WorkloadName, {end}PodName)"),
    )
}
"""What stands several times in a SELECT, by the name that it gets there."""


def _shortened(text: str) -> str:
    """Return a SELECT in which what is repeated stands once, as dashboards have to be applied."""
    for name, sql in _REPEATED.items():
        if text.count(sql) > 1:
            text = text.replace(sql, name)
            made = f"WITH {sql} AS {name}"
            text = f"{made}, {text[5:]}" if text.startswith("WITH ") else f"{made}\n{text}"
    return text


def _states(measures: Sequence[Measure], table: FlowTable) -> list[str]:
    return [
        f"{rolled_state(each) if table.rolled else each.state_sql} AS m{n}"
        for n, each in enumerate(measures)
    ]


def united(
    records: Records,
    parts: Sequence[Part],
    measures: Sequence[Measure],
    *,
    slots: bool = False,
    steps: bool = False,
    key: str = "",
    by: str = "",
    pairs: bool = False,
) -> str:
    """Return the inside: groups with the states of measures, by interval with `slots`.

    With `steps` they are for a time series, without its intervals. Groups are of what differs in
    any part and have the parts' values, or they are of a `key` over the parts' columns, which is
    `k`. `by` is a number over the parts' columns that tells the same apart as these do. With
    `pairs` groups are as many as pairs of ends. Whole days are read by day where that saves more
    than a branch costs: not of few groups by what projections of hours have.
    """
    selects = []
    known = _projected(parts, records)
    additive = all(measure.additive for measure in measures)
    days = additive and not slots and (pairs or not known)
    for table in _tables(records, steps=steps or slots, days=days):
        # What has to be worked out of records is a column of roll-ups.
        own = [_rolled(each) for each in parts] if table.rolled else parts
        columns, keys = [f"{of_parts(key, own)} AS k"] * bool(key), ["k"] * bool(key)
        projected = table.time == DAYS.time or (known and table.name == HOURS.name)
        if not key and by and not projected:  # else the engine would not take the projection
            columns += [f"{part.any_sql} AS p{n}" for n, part in enumerate(own)]
            keys.append(of_parts(by, own))
        elif not key:
            groups = told_apart(own)
            columns += groups.columns
            keys += groups.by
        if slots:
            columns.append(f"{ranges.SLOT.format(time=table.time)} AS slot")
            keys.append("slot")
        grouped = f"GROUP BY {', '.join(keys)}" if keys else ""
        # A series is of one measure that adds up: where there is none of it, nothing is missing.
        tail = f"{grouped} HAVING m0 > 0" if slots else grouped
        text = select(table, [*columns, *_states(measures, table)], records, tail)
        selects.append(_branch(table, text))
    return "\n".join(selects)


def by_slots(records: Records, parts: Sequence[Part], measure: Measure, key: str) -> str:
    """Return a sum of each group of a key by interval: `series`, which is what `k` is called.

    In each SELECT with the key the engine works out anew what the subquery of the largest means,
    in some 20 ms, before it sees that it has its rows. So the rows of all tables are grouped in
    one, but for what a projection has, which must be grouped by itself.
    """
    if measure.aggregate != "sum":
        raise ValueError(f"{measure.name} is no sum of columns, which rows of all tables have")
    own = [_rolled(each) for each in parts]
    tables = _tables(records, steps=True)
    apart = [each for each in tables if each.name == HOURS.name and _projected(parts, records)]
    rest = [each for each in tables if each not in apart]
    columns = [f"{of_parts(key, own)} AS k", _SERIES]
    tail = "GROUP BY k, slot HAVING m0 > 0"
    together = f"SELECT {', '.join(columns)}, slot, sum(value) AS m0"
    selects = [_of_rows(rest, records, together, tail, value=measure)]
    for table in apart:
        slot = f"{ranges.SLOT.format(time=table.time)} AS slot"
        states = _states([measure], table)
        selects.append(_branch(table, select(table, [*columns, slot, *states], records, tail)))
    return "\n".join(selects)


def one_of_each(
    records: Records, parts: Sequence[Part], columns: str, numbers: str, *, steps: bool = False
) -> str:
    """Return a SELECT of one row of each of the largest: columns, the parts as `p0`, ...

    The columns have `k`, over the parts' columns and the array of the largest's numbers: 0 is none
    of them. Any row of such a number will do, whatever records are asked for.
    """
    own = [_rolled(each) for each in parts]
    kept = ", ".join(f"{each.kept_sql} AS p{n}" for n, each in enumerate(own))
    tail = f"WHERE k > 0\nLIMIT 1 BY k\nLIMIT length({numbers})"
    tables = _tables(records, steps=steps)
    all_records = replace(records, filter="", choices=())
    return _of_rows(tables, all_records, f"SELECT {of_parts(columns, own)}, {kept}", tail)


def _of_rows(
    tables: Sequence[FlowTable],
    records: Records,
    columns: str,
    tail: str,
    *,
    value: Measure | None = None,
) -> str:
    """Return a SELECT of columns of the rows of some tables, where roll-ups have them.

    With a `value` also of that, and of `slot`.
    """
    named = levels(columns)
    text = " ".join([columns, *named.values()])
    words = set(re.findall(r"\w+", text))
    dimensions = {each.name: each.sql for each in (*DIMENSIONS, *END_NUMBERS)}
    stored = stored_columns(text) if records.raw else ()
    needed = {name: sql for name, sql in dimensions.items() if name in words}
    needed |= {name: name for name in stored if name not in needed}
    rows = []
    for table in tables:
        own = {name: name if table.rolled else sql for name, sql in needed.items()}
        if value is not None:
            own["slot"] = ranges.SLOT.format(time=table.time)
            own["value"] = value.rolled if table.rolled else value.arguments
        each = [sql if sql == name else f"{sql} AS {name}" for name, sql in own.items()]
        rows.append(_branch(table, select(table, each, records)))
    inner = _inside("\n".join(rows))
    return _defining(named, f"{columns}\nFROM {inner}\n{tail}")


def _tables(records: Records, *, steps: bool, days: bool = False) -> tuple[FlowTable, ...]:
    """Return the tables that records are read of."""
    return (RECORDS,) if records.raw else ranges.tables(steps=steps, days=days)


def _branch(table: FlowTable, text: str) -> str:
    """Return a SELECT as one of several."""
    return table.branch.of(f"UNION ALL\n{text}") if table.branch else text


def _projected(parts: Sequence[Part], records: Records) -> bool:
    """Return whether a projection by hour has all parts, of Pods' names at most the level's.

    And what the filter is about: what is chosen is all, at first.
    """
    filtered = stored_columns(records.fixed)
    return any(
        all(part.kept_sql in known.values or part.value_sql in LEVEL_COLUMNS for part in parts)
        and all(column in known.values for column in filtered)
        for known in PROJECTIONS
        if known.time == HOURS.time
    )


def of_parts(text: str, parts: Sequence[Part]) -> str:
    """Return an expression over the columns of parts with what these are of a row."""
    made = {part.column: part.sql for part in parts if part.sql}
    return re.sub(r"\w+", lambda word: made.get(word[0], word[0]), text)


LARGEST = "largest"
"""What was found of the largest first."""
_NUMBERS, _NAMES = f"{LARGEST}.1", f"{LARGEST}.2"
_SERIES = f"if(k = 0, '{OTHERS}', {_NAMES}[k]) AS series"


def largest(label: Label, measure: Measure, records: Records, limit: int) -> str:
    """Return the WITH's expression of the largest by a measure that adds up: `_NUMBERS`, `_NAMES`.

    In two passes: what is of many rows is ranked by numbers, without texts, and one row of each of
    the largest has its name.
    """
    parts = parts_of_labels([label])
    inner = united(records, parts, [measure], steps=True, key=label.number, pairs=True)
    ranked = (
        f"SELECT k\nFROM {_inside(inner)}\nGROUP BY k\nHAVING sum(m0) > 0\n"
        f"ORDER BY sum(m0) DESC, k\nLIMIT {limit}"
    )
    found = f"(\n  SELECT groupArray(k)\n  FROM {_inside(ranked)}\n) AS ranked"
    columns = f"{_place(label.number, 'ranked')} AS k, ranked[k] AS number"
    rows = one_of_each(records, parts, columns, "ranked", steps=True)
    names = f"SELECT number, toString({label.sql}) AS name\nFROM {_inside(rows)}"
    known = indent(f"{found},\n{defined(parts, [label.sql], _UNNAMED)}", "    ")
    return (
        f"(\n  WITH\n{known}\n  SELECT (groupArray(number), groupArray(name))\n"
        f"  FROM {_inside(names)}\n) AS {LARGEST}"
    )


def _rolled(part: Part) -> Part:
    """Return what a part is of roll-ups."""
    return Part(part.column, part.only_where) if part.column in _DIMENSIONS else part


def _inside(text: str) -> str:
    return f"(\n{indent(text, '  ')}\n)"


@dataclass(frozen=True, slots=True)
class Column:
    """A measure under a title."""

    title: str
    measure: str
    per_second: int = 0
    """What it is multiplied with before it is divided by the seconds, where the measure is none."""

    @property
    def of(self) -> Measure:
        """The measure."""
        found = BY_NAME[self.measure]
        return replace(found, per_second=self.per_second) if self.per_second else found


def seen(measure: Measure, merged: str, seconds: str = ranges.SECONDS) -> str:
    """Return what people see of a measure's merged state."""
    per_second = f" * {measure.per_second} / ({seconds})" if measure.per_second else ""
    return f"toFloat64({merged}){per_second}"


def shown(column: Column, merged: str) -> str:
    """Return a column of what people see."""
    return f"{seen(column.of, merged)} AS `{column.title}`"


@dataclass(frozen=True, slots=True)
class Totals:
    """One row: measures over everything."""

    columns: tuple[Column, ...]
    records: Records = Records()

    @property
    def sql(self) -> str:
        """The statement."""
        measures = [column.of for column in self.columns]
        merged = (shown(each, each.of.merged_sql(f"m{n}")) for n, each in enumerate(self.columns))
        inner = united(self.records, (), measures)
        return query(f"SELECT {', '.join(merged)}\nFROM {_inside(inner)}")


def _grouped(labels: Sequence[Label], columns: Sequence[Column], records: Records) -> str:
    """Return the groups under some labels: `l0`, ... and the measures `v0`, ..."""
    parts = parts_of_labels(labels)
    sqls = [each.sql for each in labels]
    names = [f"{sql} AS l{n}" for n, sql in enumerate(sqls)]
    merged = [f"{each.of.merged_sql(f'm{n}')} AS v{n}" for n, each in enumerate(columns)]
    measures = [each.of for each in columns]
    inner = united(records, parts, measures, by=_number_of(labels), pairs=_are_pairs(labels))
    return (
        f"WITH {defined(parts, sqls, _UNNAMED)}\nSELECT {', '.join([*names, *merged])}\n"
        f"FROM {_inside(inner)}\nGROUP BY {', '.join(f'l{n}' for n in range(len(labels)))}"
    )


@dataclass(frozen=True, slots=True)
class _Largest:
    """The largest groups under some labels.

    They are found by number where names cost most, which are those of pairs of Pods; one row of
    each says then what it is called. By names of nodes the engine groups faster than it has the
    SELECT of these rows understood; of records alone that is soon.
    """

    labels: Sequence[Label]
    columns: Sequence[Column]
    records: Records
    order: str
    """Of the values as they are shown, but for names: what is equal to the last is found too."""
    limit: int
    wanted: str = ""
    """A condition for the values."""

    @property
    def groups(self) -> str:
        """The SELECT of `l0`, ... and `v0`, ..., of which the first that are shown are right."""
        if not self._by_number:
            return f"{_grouped(self.labels, self.columns, self.records)}{self._having}"
        parts = parts_of_labels(self.labels)
        values = ", ".join(f"{LARGEST}[k].{n + 2} AS v{n}" for n, _ in enumerate(self.columns))
        columns = f"{_place(_number_of(self.labels), _NUMBERS)} AS k, {values}"
        rows = one_of_each(self.records, parts, columns, LARGEST)
        sqls = [each.sql for each in self.labels]
        names = [f"{sql} AS l{n}" for n, sql in enumerate(sqls)]
        made = defined(parts, sqls, _UNNAMED)
        shown = ", ".join([*names, *(f"v{n}" for n, _ in enumerate(self.columns))])
        return f"WITH {made}\nSELECT {shown}\nFROM {_inside(rows)}"

    @property
    def found(self) -> str:
        """The WITH's expression of numbers and values that it needs; "" is none."""
        if not self._by_number:
            return ""
        measures = [each.of for each in self.columns]
        inner = united(
            self.records, parts_of_labels(self.labels), measures,
            key=_number_of(self.labels), pairs=_are_pairs(self.labels),
        )  # fmt: skip
        values = [f"{each.merged_sql(f'm{n}')} AS v{n}" for n, each in enumerate(measures)]
        ranked = (
            f"SELECT k, {', '.join(values)}\nFROM {_inside(inner)}\nGROUP BY k{self._having}\n"
            f"ORDER BY {self.order}\nLIMIT {self.limit} WITH TIES"
        )
        group = ", ".join(["k", *(f"v{n}" for n, _ in enumerate(values))])
        return f"(\n  SELECT groupArray(({group}))\n  FROM {_inside(ranked)}\n) AS {LARGEST}"

    @property
    def _by_number(self) -> bool:
        number = _number_of(self.labels)
        of_pods = all(each in number for each in LEVEL_NUMBERS.values())
        return number != "" and (of_pods or self.records.raw)

    @property
    def _having(self) -> str:
        return f"\nHAVING {self.wanted}" if self.wanted else ""


def _number_of(labels: Sequence[Label]) -> str:
    """Return the number of groups under some labels; "" where one has none of its own."""
    numbers = [each.own_number for each in labels]
    return f"cityHash64({', '.join(numbers)})" if numbers and all(numbers) else ""


def _place(number: str, numbers: str) -> str:
    """Return the place that a number has among the largest, from 1; of all others 0."""
    return f"transform({number}, {numbers}, arrayEnumerate({numbers}), 0)"


def _are_pairs(labels: Sequence[Label]) -> bool:
    """Whether groups under some labels are as many as pairs of ends."""
    return len(labels) > 1 or any(each.many for each in labels)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows of the largest groups by the first column; with `others` one more of all others."""

    labels: tuple[Label, ...]
    columns: tuple[Column, ...]
    records: Records = Records()
    limit: int = 50
    others: bool = False

    @property
    def sql(self) -> str:
        """The statement; groups without any of the first column are left out."""
        names = [f"l{n}" for n in range(len(self.labels))]
        order, found = f"v0 DESC, {', '.join(names)}", ""
        if self.others:
            groups = f"{_grouped(self.labels, self.columns, self.records)}\nHAVING v0 > 0"
            body = self._with_others(groups, order)
        else:
            largest = _Largest(
                self.labels, self.columns, self.records, "v0 DESC", self.limit, "v0 > 0"
            )
            groups, found = largest.groups, largest.found
            picked = [f"l{n} AS `{each.title}`" for n, each in enumerate(self.labels)]
            picked += [shown(each, f"v{n}") for n, each in enumerate(self.columns)]
            body = (
                f"SELECT {', '.join(picked)}\nFROM {_inside(groups)}\n"
                f"ORDER BY {order}\nLIMIT {self.limit}"
            )
        return query(body, found)

    def _with_others(self, groups: str, order: str) -> str:
        placed = f"SELECT *, row_number() OVER (ORDER BY {order}) AS place\nFROM {_inside(groups)}"
        picked = [
            f"if(place > {self.limit}, '{OTHERS}', toString(l{n})) AS `{each.title}`"
            for n, each in enumerate(self.labels)
        ]
        picked += [shown(each, f"sum(v{n})") for n, each in enumerate(self.columns)]
        titles = ", ".join(f"`{each.title}`" for each in self.labels)
        return (
            f"SELECT {', '.join(picked)}\nFROM {_inside(placed)}\n"
            f"GROUP BY {titles}\nORDER BY min(place)"
        )


def parts_of_labels(labels: Iterable[Label]) -> tuple[Part, ...]:
    """Return what rows are grouped by for some labels."""
    return parts_of((), [part for each in labels for part in each.parts])


@dataclass(frozen=True, slots=True)
class Series:
    """A measure over time: of the largest groups and of all others, 0 where there is nothing."""

    column: Column
    label: Label | None = None
    records: Records = Records()
    limit: int = 15

    @property
    def sql(self) -> str:
        """The statement: columns `time`, `series` where there are several, `Value`."""
        measure, found = self.column.of, ""
        every = (
            "range(toUInt32(intDiv(from_s, step_s)),\n    toUInt32(intDiv(to_s - 1, step_s)) + 1)"
        )
        few = self._few
        if self.label is not None and self.label.many:
            found = largest(self.label, measure, self.records, self.limit)
            few = self._few_of_largest(self.label)
        each = f"SELECT series, values, arrayJoin({every}) AS slot\nFROM {_inside(few)}"
        body = (
            "SELECT toDateTime(slot * step_s) AS time, series,"
            f" {seen(measure, 'values[slot]', ranges.SLOT_SECONDS)} AS Value\n"
            f"FROM {_inside(each)}\nORDER BY slot, series"
        )
        return query(body, found, steps=True)

    @property
    def _few(self) -> str:
        """The values by interval of each series, where all groups have names."""
        parts = parts_of_labels([self.label] if self.label else [])
        name = self.label.sql if self.label else f"'{self.column.title}'"
        grouped = (
            f"SELECT {name} AS name, {_POINTS} AS points, sum(m0) AS total\n"
            f"FROM {_inside(united(self.records, parts, [self.column.of], slots=True))}\n"
            "GROUP BY name"
        )
        if parts:
            grouped = f"WITH {defined(parts, [name], _UNNAMED)}\n{grouped}"
        placed = (
            "SELECT *, row_number() OVER (ORDER BY total DESC, name) AS place\n"
            f"FROM {_inside(grouped)}\nWHERE total > 0"
        )
        # Put together before it is spread out: there may be many more names than are shown.
        return (
            f"SELECT if(place > {self.limit}, '{OTHERS}', toString(name)) AS series,"
            f" sumMap(points) AS values\nFROM {_inside(placed)}\nGROUP BY series"
        )

    def _few_of_largest(self, label: Label) -> str:
        """The same, where those that are shown were found before."""
        place = _place(label.number, _NUMBERS)
        inner = by_slots(self.records, parts_of_labels([label]), self.column.of, place)
        return f"SELECT series, {_POINTS} AS values\nFROM {_inside(inner)}\nGROUP BY series"


_POINTS = "sumMap(map(toUInt32(slot), toUInt64(m0)))"
"""A measure by interval."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Who talks to whom: the largest edges, and the nodes at their ends, for a node graph."""

    source: Label
    target: Label
    records: Records = Records()
    limit: int = 60

    _COLUMNS = (
        Column("octets", "bothOctets"),
        Column("connections", "connections"),
        Column("denied", "denied"),
        Column("unanswered", "unanswered"),
    )

    @property
    def _edges(self) -> tuple[str, str]:
        """The SELECT of the edges, and what its WITH has to have."""
        labels, order = (self.source, self.target), "v0 DESC, v1 DESC"
        largest = _Largest(labels, self._COLUMNS, self.records, order, self.limit)
        return f"{largest.groups}\nORDER BY {order}, l0, l1\nLIMIT {self.limit}", largest.found

    @property
    def edges(self) -> str:
        """The statement of the edges; red are those of which anything is denied."""
        edges, found = self._edges
        return query(
            "SELECT concat(l0, ' → ', l1) AS id, l0 AS source, l1 AS target,\n"
            "  toFloat64(v0) AS mainstat, toFloat64(v1) AS secondarystat,\n"
            "  if(v2 > 0, 'red', if(v3 > 0, 'orange', 'green')) AS color,\n"
            "  toFloat64(v2) AS detail__denied, toFloat64(v3) AS detail__unanswered\n"
            f"FROM {_inside(edges)}",
            found,
        )

    @property
    def nodes(self) -> str:
        """The statement of the nodes; the arc is the share of connections that were denied."""
        edges, found = self._edges
        return query(
            "SELECT name AS id, name AS title, sum(v0) AS mainstat, sum(v1) AS secondarystat,\n"
            "  if(secondarystat = 0, 0, sum(v2) / secondarystat) AS arc__denied,\n"
            "  1 - arc__denied AS arc__allowed\n"
            "FROM (\n"
            "  SELECT arrayJoin(arrayDistinct([toString(l0), toString(l1)])) AS name,\n"
            "    toFloat64(v0) AS v0, toFloat64(v1) AS v1, toFloat64(v2) AS v2\n"
            f"  FROM {_inside(edges)}\n)\nGROUP BY name\nORDER BY mainstat DESC, name",
            found,
        )


@dataclass(frozen=True, slots=True)
class Distinct:
    """One row: how many different values there are, each counted once whichever end it is at."""

    title: str
    labels: tuple[Label, ...]
    """"" is none."""
    records: Records = Records()

    @property
    def sql(self) -> str:
        """The statement."""
        parts = parts_of_labels(self.labels)
        sqls = [each.sql for each in self.labels]
        values = ", ".join(f"toString({sql})" for sql in sqls)
        body = (
            f"SELECT uniqExactArray(arrayFilter(x -> x != '', [{values}])) AS `{self.title}`\n"
            f"FROM {_inside(united(self.records, parts, ()))}"
        )
        return query(body, defined(parts, sqls, _UNNAMED))


@dataclass(frozen=True, slots=True)
class Active:
    """One row: connections that go on at the range's end, which have had a record a moment ago."""

    title: str
    records: Records = Records()

    _RECENT_S = 180
    """Connections with traffic are reported once a minute, idle ones are written out after 90 s."""

    @property
    def sql(self) -> str:
        """The statement."""
        end = "least($__toTime, now())"  # a range as "today" ends later
        recent = f"flowEndSeconds >= {end} - {self._RECENT_S} AND flowEndSeconds < {end}"
        conditions = "\n    AND ".join([recent, *self.records.conditions])
        connection = BY_NAME["live"].arguments
        return (
            f"SELECT count() AS `{self.title}`\nFROM (\n"
            f"  SELECT {connection} AS connection FROM {RECORDS.name}\n"
            f"  WHERE {conditions}\n"
            f"  GROUP BY connection HAVING NOT max({ENDED_SQL})\n)"
        )


@dataclass(frozen=True, slots=True)
class Written:
    """SQL as it stands."""

    sql: str


@dataclass(frozen=True, slots=True)
class Share:
    """One row: a measure as a part of another one."""

    part: str
    whole: str
    records: Records = Records()

    @property
    def sql(self) -> str:
        """The statement."""
        measures = [BY_NAME[self.part], BY_NAME[self.whole]]
        part, whole = (each.merged_sql(f"m{n}") for n, each in enumerate(measures))
        inner = united(self.records, (), measures)
        return query(
            f"SELECT if({whole} = 0, 0, {part} / {whole}) AS share\nFROM {_inside(inner)}",
        )
