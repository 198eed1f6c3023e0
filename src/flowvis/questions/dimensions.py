"""What records are grouped by: names of the filter language that have one value in each record.

Grouping is the costly part of a question. So records are grouped by what a name is made of, mostly
numbers of entries in columns' dictionaries, and what people see is worked out of the few groups.
Each has a number, by which its records are found again: a hash of hashes, which the engine finds
for each entry and not for each record. That two of a hundred thousand groups have the same number
has a chance of one in three thousand millions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowvis.clickhouse.schema.ends import ENDS, NAMED_BY_POD, any_sql, kept_sql, number_sql
from flowvis.clickhouse.schema.tables import definitions, stored_columns
from flowvis.filters import vocabulary
from flowvis.filters.attributes import Kind
from flowvis.filters.errors import FilterError
from flowvis.filters.networks import END_OF, NUMBERS, NetworkNames
from flowvis.questions.planner import Needs, needs_of
from flowvis.questions.problem import QuestionError, shown

MAX_DIMENSIONS = 6


@dataclass(frozen=True, slots=True)
class Part:
    """A value that records are grouped by."""

    column: str
    """Of `flow_records`, or one that names of networks define (`NUMBERS`); or what `sql` is called
    in expressions of groups."""
    only_where: str = ""
    """A condition without which the value does not matter."""
    sql: str = ""
    """What it is of a record, where that is not a column."""

    @property
    def needs(self) -> Needs:
        """The stored columns that it is made of."""
        return needs_of(f"{self.value_sql} {self.only_where}")

    @property
    def value_sql(self) -> str:
        """What it is of a record."""
        return self.sql or self.column

    @property
    def kept_sql(self) -> str:
        """The value where it matters, and nothing elsewhere."""
        return kept_sql(self.value_sql, self.only_where)

    @property
    def hash_sql(self) -> str:
        """The number by which groups differ."""
        return number_sql(self.value_sql, self.only_where)

    @property
    def any_sql(self) -> str:
        """Its value, of a group of records that have one number."""
        return any_sql(self.value_sql, self.only_where)


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something to group by."""

    name: str
    type: str
    """text, number, address, enum or time."""
    sql: str
    """Its value, over the columns of `flows`."""
    parts: tuple[Part, ...]


_KINDS = {f"{end}PodName": f"{end}WorkloadKind = ''" for end in ENDS} | {
    f"{end}NodeName": f"{end}WorkloadKind = '' AND {end}PodName = ''" for end in ENDS
}
_ONLY_WHERE = {"workload": NAMED_BY_POD, "kind": _KINDS}
"""Where a name counts that only stands in for another, by the last part of a dimension's name."""


def dimension(parameter: str, name: str) -> Dimension:
    """Return the dimension of a name; QuestionError says why it is none."""
    try:
        found = vocabulary.lookup(name)
        sql = vocabulary.expression(name)
    except FilterError as error:
        raise QuestionError(
            "bad-query", f"{parameter}: {error.message}" + _remedy(error),
            suggestion=error.suggestion or "",
        ) from error  # fmt: skip
    only_where = _ONLY_WHERE.get(found.name.rpartition(".")[2], {})
    columns = [NUMBERS[END_OF[sql]]] if sql in END_OF else stored_columns(sql)
    parts = tuple(Part(column, only_where.get(column, "")) for column in columns)
    kind = {Kind.NUMBER: "number", Kind.ADDRESS: "address", Kind.ENUM: "enum"}
    return Dimension(found.name, kind.get(found.kind, "text"), sql, parts)


def _remedy(error: FilterError) -> str:
    if error.suggestion:
        return f"; did you mean {error.suggestion}?"
    return f": use {', '.join(error.expected[:12])}" if error.expected else ""


def parse_dimensions(parameter: str, text: str) -> tuple[Dimension, ...]:
    """Read names with commas between; "": none. QuestionError names a bad one."""
    names = [name.strip() for name in text.split(",")] if text else []
    if len(names) > MAX_DIMENSIONS:
        raise QuestionError(
            "bad-query", f"{parameter} {shown(text)}: at most {MAX_DIMENSIONS} names"
        )
    found = tuple(dimension(parameter, name) for name in names)
    if len({each.name for each in found}) < len(found):
        raise QuestionError("bad-query", f"{parameter} {shown(text)}: each name once")
    return found


def parts_of(dimensions: Iterable[Dimension], more: Sequence[Part] = ()) -> tuple[Part, ...]:
    """Return the parts of several, each column once: where they differ in when, always."""
    found: dict[str, Part] = {}
    for part in (*(part for each in dimensions for part in each.parts), *more):
        before = found.setdefault(part.column, part)
        if before.only_where != part.only_where:
            found[part.column] = Part(part.column)
    return tuple(found.values())


def key_sql(parts: Sequence[Part]) -> str:
    """Return the number that records of one group have in common; 0 of no parts."""
    if not parts:
        return "toUInt64(0)"
    return f"cityHash64({', '.join([*(part.hash_sql for part in parts), '0'])})"


_WORKED_OUT = frozenset(NUMBERS.values())


@dataclass(frozen=True, slots=True)
class ToldApart:
    """How a SELECT groups rows of one table by parts; the n-th part's value is `p<n>`."""

    columns: tuple[str, ...]
    """What it shows: values, and numbers of those that have to be worked out."""
    by: tuple[str, ...]
    """What it groups by, of the columns."""
    number: str
    """The group's, over the columns; the same as `key_sql` of its rows."""


def told_apart(parts: Sequence[Part]) -> ToldApart:
    """Tell groups apart by values themselves, which are keys of projections as well.

    To choose one value of every part, in each of ten thousand groups, costs more than all sums. So
    that is done only of networks: several servers of 18.16 lose sight of such an expression.
    """
    columns, by, numbers = [], [], []
    for n, part in enumerate(parts):
        if part.column in _WORKED_OUT:
            columns += [f"{part.any_sql} AS p{n}", f"{part.hash_sql} AS h{n}"]
            by.append(f"h{n}")
            numbers.append(f"h{n}")
        else:
            columns.append(f"{part.kept_sql} AS p{n}")
            by.append(f"p{n}")
            numbers.append(number_sql(f"p{n}"))
    return ToldApart(tuple(columns), tuple(by), f"cityHash64({', '.join([*numbers, '0'])})")


def defined(parts: Sequence[Part], expressions: Iterable[str], networks: NetworkNames) -> str:
    """Return the WITH that says what the columns in some expressions are of groups' values.

    The value of the n-th part is in the column `p<n>`.
    """
    text = " ".join(expressions)
    renamed = [f"p{n} AS {part.column}" for n, part in enumerate(parts)]
    named = networks.definitions(text, [part.column for part in parts])
    made_of = [f"{sql} AS {name}" for name, sql in (named | definitions(text)).items()]
    return ", ".join([*renamed, *made_of])
