"""Records in groups: the largest ones, and how much of what lies in each cell of a table of them.

Both are one pass over the records. `largest` finds groups, with the numbers that their records are
grouped by; `cells` counts, for groups found so and for all others together, in intervals and over
all of them, what any of the measures are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowvis.clickhouse.statement import COMPOSED_LENGTH, bind
from flowvis.questions.dimensions import Dimension, Part, defined, key_sql, parts_of, told_apart
from flowvis.questions.measures import Measure
from flowvis.questions.planner import Needs
from flowvis.questions.problem import QuestionError
from flowvis.questions.statement import Found, Records, Statement
from flowvis.questions.times import Intervals

MAX_KEYS = 8_000
"""Numbers of the groups that cells are asked of: they are written into the statement."""

WHOLE = -1
"""The place of all groups together, and the interval of all intervals."""

Array = np.ndarray[Any, Any]
Numbers = Sequence[int | float | None]
"""One for each measure, as the store has them."""
Cells = Mapping[tuple[int, int], Numbers]
"""By place and interval: places are of the groups asked for, then one of all others, and WHOLE."""


@dataclass(frozen=True, slots=True)
class Group:
    """Records that have the same values under all dimensions."""

    values: tuple[Any, ...]
    numbers: Numbers
    number: int
    """Of its values, whatever its records are grouped by: the same in all ranges."""
    keys: tuple[int, ...]
    """What its records were grouped by."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What records are grouped by and what is counted of them."""

    dimensions: tuple[Dimension, ...]
    measures: tuple[Measure, ...]
    more: tuple[Part, ...] = ()
    """Also told apart by these."""
    shown: tuple[str, ...] = ()
    """Further SQL that is made of the parts, after the dimensions' values."""
    sorting: int = 1
    """How many of the first measures' sum sorts."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What records are grouped by."""
        return parts_of(self.dimensions, self.more)

    @property
    def rolled(self) -> list[str]:
        """What roll-ups have of the measures, as SQL."""
        return [each.rolled for each in self.measures]

    @property
    def plain(self) -> bool:
        """Whether values are themselves what records are grouped by, so in all ranges the same."""
        return not self.more and all(each.parts == (Part(each.sql),) for each in self.dimensions)

    def largest(self, records: Records, limit: int, *, keys: bool = True) -> Statement:
        """Ask for up to so many groups, the largest first.

        With `keys` cells can be asked of them.
        """
        found = [*self._sums, "groupUniqArray(k) AS ks"] if keys else self._sums
        order = ", ".join(
            [" + ".join(f"nm{n}" for n in range(self.sorting)) + " DESC", *self._values]
        )
        return self._grouped(records, found, f"ORDER BY {order} LIMIT {limit}", keys=keys)

    def these(self, records: Records, numbers: Sequence[int]) -> Statement:
        """Ask for groups by their numbers, up to MAX_KEYS; else as `largest` without keys."""
        chosen = ", ".join(map(str, numbers))
        return self._grouped(records, self._sums, f"HAVING v IN ({chosen})", keys=False)

    def groups(self, found: Found) -> list[Group]:
        """Return what was found by `largest`."""
        width = len(self._values)
        return [
            Group(tuple(row[:width]), row[width:-2], int(row[-2]), tuple(row[-1]))
            for row in found.rows
        ]

    def keys(
        self, records: Records, groups: Sequence[Group], intervals: Intervals | None
    ) -> Statement:
        """Ask for what the records of another range are grouped by in these; see `with_keys`.

        A value may be made of others there: an application's label is one of ever new Pods.
        """
        numbers = ", ".join(str(group.number) for group in groups)
        found = [f"{self._number} AS v", "groupUniqArray(k) AS ks"]
        return self._grouped(records, found, f"HAVING v IN ({numbers})", intervals=intervals)

    @staticmethod
    def with_keys(groups: Sequence[Group], found: Found) -> list[Group]:
        """Return groups as they are in the range that `keys` asked about."""
        keys = {int(row[-2]): tuple(row[-1]) for row in found.rows}
        return [replace(group, keys=keys.get(group.number, ())) for group in groups]

    def _grouped(
        self,
        records: Records,
        columns: Sequence[str],
        tail: str,
        *,
        keys: bool = True,
        intervals: Intervals | None = None,
    ) -> Statement:
        """Ask for the values of groups, and columns over what is counted of each."""
        parts = self.parts
        expressions = [*(each.sql for each in self.dimensions), *self.shown]
        groups = told_apart(parts)
        inner = records.states(
            [*groups.columns, *([f"{groups.number} AS k"] if keys else [])],
            self._named,
            _needs(parts),
            tail=f"GROUP BY {', '.join(groups.by)}",
            intervals=intervals,
        )
        made_of = defined(parts, expressions, records.condition.networks)
        shown = [f"{sql} AS {name}" for sql, name in zip(expressions, self._values, strict=True)]
        text = (
            f"WITH {made_of} SELECT {', '.join([*shown, *columns])} FROM ({inner.text})"
            f" GROUP BY {', '.join(self._values)} {tail}"
        )
        return replace(inner, text=text)

    @property
    def _values(self) -> list[str]:
        """What SQL calls the values of a group."""
        return [f"d{n}" for n in range(len(self.dimensions) + len(self.shown))]

    @property
    def _sums(self) -> list[str]:
        """What each measure is of a group, and the number of its values."""
        merged = [f"{each.merged_sql(name)} AS n{name}" for name, each in self._named.items()]
        return [*merged, f"{self._number} AS v"]

    @property
    def _number(self) -> str:
        """The number of a group's values."""
        return f"cityHash64({', '.join([*self._values, '0'])})"

    def columns(self, rows: Sequence[Sequence[Any]]) -> tuple[list[tuple[Any, ...]], Array, Array]:
        """Return the values of groups that were found without keys, their sums and numbers.

        Values are by column; sums, of 0 to 2^64 - 1, are uint64 (groups, measures), as numbers are.
        """
        width = len(self._values)
        columns = list(zip(*rows, strict=True)) or [()] * (width + len(self.measures) + 1)
        sums = columns[width : width + len(self.measures)]
        return columns[:width], np.array(sums, np.uint64).T, np.array(columns[-1], np.uint64)

    def total(self, records: Records, largest: Statement) -> Statement:
        """Ask for what all groups add up to, of whose largest `largest` asks; see `cells_of`.

        From the smallest tables that tell; but of a range that groups are not wholly read of, from
        the same as these: others may have more of it.
        """
        needs = frozenset() if largest.reading.whole else _needs(self.parts)
        return self._cells(records, (), None, needs)

    def cells(
        self, records: Records, groups: Sequence[Group], intervals: Intervals | None
    ) -> Statement:
        """Ask for what lies in each group, in all others and in all, by interval and in all.

        Where there are no groups as well from the tables that would tell them apart.
        """
        return self._cells(records, groups, intervals, _needs(self.parts))

    def _cells(
        self,
        records: Records,
        groups: Sequence[Group],
        intervals: Intervals | None,
        needs: Needs,
    ) -> Statement:
        place, slot = self._place(groups), intervals.sql() if intervals else "0"
        inner = records.states(
            [f"{place} AS place", f"{slot} AS slot"],
            self._named,
            needs,
            tail="GROUP BY place, slot",
            intervals=intervals,
        )
        places = "arrayJoin([toInt32(place), -1])" if groups else "-1"
        slots = "arrayJoin([toInt32(slot), -1])" if intervals else "-1"
        merged = [each.merged_sql(name) for name, each in self._named.items()]
        text = (
            f"SELECT a, b, {', '.join(merged)} FROM (SELECT {places} AS a, {slots} AS b,"
            f" {', '.join(self._named)} FROM ({inner.text})) GROUP BY a, b"
        )
        if groups and len(bind(text, inner.parameters).encode()) > COMPOSED_LENGTH:
            raise _too_many(groups)  # each table that is read has all of their numbers
        return replace(inner, text=text)

    @property
    def _named(self) -> dict[str, Measure]:
        return {f"m{n}": measure for n, measure in enumerate(self.measures)}

    def _place(self, groups: Sequence[Group]) -> str:
        """Return which group a record is of: its place, or the one after the last."""
        if not groups:
            return "0"
        keys = [str(key) for group in groups for key in group.keys]
        if len(keys) > MAX_KEYS:
            raise _too_many(groups)
        if not keys:
            return str(len(groups))
        places = [str(place) for place, group in enumerate(groups) for _ in group.keys]
        return (
            f"transform({key_sql(self.parts)}, [{', '.join(keys)}], [{', '.join(places)}],"
            f" {len(groups)})"
        )


def _too_many(groups: Sequence[Group]) -> QuestionError:
    keys = sum(len(group.keys) for group in groups)
    return QuestionError(
        "too-costly",
        f"these {len(groups)} groups are made of {keys} smaller ones, too many for one statement:"
        " a lower limit, or other dimensions",
    )


def cells_of(found: Found) -> Cells:
    """Return what was found by `cells`."""
    return {(int(place), int(slot)): numbers for place, slot, *numbers in found.rows}


def _needs(parts: Iterable[Part]) -> Needs:
    return frozenset(column for part in parts for column in part.needs)
