"""A table of what records add up to: rows of groups, what is left, the total, and their series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from flowvis.filters.sql import Condition
from flowvis.questions.dimensions import Dimension, parse_dimensions
from flowvis.questions.groups import WHOLE, Cells, Group, Grouping, Numbers, cells_of
from flowvis.questions.measures import Measure, numbers, parse_measures
from flowvis.questions.planner import RECORDS_ONLY, Reading, Stored
from flowvis.questions.problem import QuestionError, number
from flowvis.questions.statement import Plan, Records
from flowvis.questions.times import (
    Intervals,
    TimeRange,
    parse_compare,
    parse_interval,
    parse_range,
)

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_CELLS = 200_000
"""Of one answer: rows, intervals and measures."""
FEW_INTERVALS = 10
"""Where a range would have fewer, its intervals do not go by what it is compared with."""
GROUPS = 2000
"""Groups that are fetched at least: of so few, what is left is known without asking."""


@dataclass(frozen=True, slots=True)
class TableQuestion:
    """What is asked; `records` are those of its range."""

    records: Records
    grouping: Grouping
    limit: int
    intervals: Intervals | None
    compared: TimeRange | None

    @classmethod
    def parse(
        cls,
        parameters: Mapping[str, str],
        condition: Condition,
        now_ms: int,
        stored: Stored = RECORDS_ONLY,
    ) -> Self:
        """Read the parameters from, to, by, measure, limit, interval and compare.

        QuestionError names a bad one.
        """
        asked = parse_range(parameters.get("from", ""), parameters.get("to", ""), now_ms)
        grouping = Grouping(
            parse_dimensions("by", parameters.get("by", "")),
            parse_measures(parameters.get("measure", "")),
        )
        limit = number("limit", parameters.get("limit", ""), DEFAULT_LIMIT, MAX_LIMIT)
        compared = parse_compare(parameters.get("compare", ""), asked, now_ms)
        least_s = stored.least_step_s(asked, grouping.rolled)
        if compared is not None:  # of which there are no series by shorter ones
            both_s = max(least_s, stored.least_step_s(compared, grouping.rolled))
            least_s = both_s if asked.seconds >= both_s * FEW_INTERVALS else least_s
        intervals = parse_interval(parameters.get("interval", ""), asked, least_s)
        cells = (limit + 2) * len(grouping.measures) * (len(intervals) if intervals else 1)
        if cells > MAX_CELLS:
            raise QuestionError(
                "bad-query",
                f"{cells} numbers (limit, measures and intervals), more than {MAX_CELLS}:"
                " a lower limit, or longer intervals",
            )
        return cls(Records(asked, condition, stored), grouping, limit, intervals, compared)

    def plan(self) -> Plan[dict[str, Any]]:
        """Return the plan of its answer, as JSON has it."""
        grouping, records = self.grouping, self.records
        found: list[Group] = []
        fetched = max(GROUPS, self.limit) + 1
        largest = grouping.largest(records, fetched)
        if grouping.dimensions:
            found = grouping.groups((yield largest))
        rows, rest = found[: self.limit], found[self.limit :]
        additive = all(measure.additive for measure in grouping.measures)
        cells: Cells | None = None
        read = largest.reading
        if found and additive and self.intervals is None:
            if len(found) < fetched:
                cells = _summed(rows, _total([each.numbers for each in rest]) if rest else None)
            else:
                total = cells_of((yield grouping.total(records, largest)))[WHOLE, WHOLE]
                if left := _left(total, rows):
                    cells = _summed(rows, left)
        if cells is None:
            asked = grouping.cells(records, rows, self.intervals)
            cells, read = cells_of((yield asked)), asked.reading
        now = _Span(grouping.measures, records.range, read, self.intervals, len(rows), cells)
        before = None
        if self.compared is not None:
            then = self._intervals_of(self.compared)
            earlier = records.within(self.compared)
            same: Sequence[Group] = rows
            if rows and not grouping.plain:
                same = grouping.with_keys(rows, (yield grouping.keys(earlier, rows, then)))
            asked = grouping.cells(earlier, same, then)
            cells, read = cells_of((yield asked)), asked.reading
            if grouping.dimensions and not rows:
                cells = _all_others(cells)
            before = _Span(grouping.measures, self.compared, read, then, len(rows), cells)
        return self._answer(rows, bool(rest), now, before)

    def _intervals_of(self, compared: TimeRange) -> Intervals | None:
        """Return those of the range that is compared with; None where it has no such ones.

        Its numbers are there all the same.
        """
        whole_s = self.records.stored.least_step_s(compared, self.grouping.rolled)
        if self.intervals is None or self.intervals.step_s % whole_s:
            return None
        return self.intervals.moved(compared, whole_s)

    def _answer(
        self, rows: Sequence[Group], rest: bool, now: "_Span", before: "_Span | None"
    ) -> dict[str, Any]:
        if self.grouping.dimensions:
            shown = [[*row.values, *now.row(place)] for place, row in enumerate(rows)]
        else:
            shown = [list(now.total)]
        other = len(rows)
        answer: dict[str, Any] = {
            "columns": [
                *map(_dimension_column, self.grouping.dimensions),
                *map(_measure_column, self.grouping.measures),
            ],
            "rows": shown,
            "other": now.row(other) if rest else None,
            "total": now.total,
            **self._series(now, rest),
            "compared": None,
        }
        if before is not None:
            answer["compared"] = {
                "from": before.range.from_ms,
                "to": before.range.to_ms,
                "rows": [before.known(place) for place in range(len(rows))]
                if self.grouping.dimensions
                else [before.total],
                "other": before.row(other) if (other, WHOLE) in before.cells else None,
                "total": before.total,
                **self._series(before, (other, WHOLE) in before.cells),
            }
        return answer

    def _series(self, span: "_Span", rest: bool) -> dict[str, Any]:
        if span.intervals is None:
            return dict.fromkeys(("times", "series", "otherSeries", "totalSeries"))
        places = range(span.rows) if self.grouping.dimensions else (WHOLE,)
        return {
            "times": span.intervals.starts_ms(),
            "series": [span.series(place) for place in places],
            "otherSeries": span.series(span.rows) if rest else None,
            "totalSeries": span.series(WHOLE),
        }


@dataclass(frozen=True, slots=True)
class _Span:
    """The numbers of one range."""

    measures: tuple[Measure, ...]
    range: TimeRange
    read: Reading
    """What was read for it: rates are over that."""
    intervals: Intervals | None
    rows: int
    cells: Cells

    @property
    def total(self) -> Numbers:
        """Of everything."""
        return self.row(WHOLE)

    def row(self, place: int) -> Numbers:
        """Of one place, over all intervals; zeros where there is nothing."""
        return numbers(self.measures, self._cell(place, WHOLE), self.read.of(self.range).seconds)

    def known(self, place: int) -> Numbers | None:
        """As `row`, None where there is nothing."""
        return self.row(place) if (place, WHOLE) in self.cells else None

    def series(self, place: int) -> list[list[int | float]]:
        """For each measure the numbers of one place, interval by interval."""
        assert self.intervals is not None  # noqa: S101  for mypy: only asked where there are some
        by_interval = [
            numbers(self.measures, self._cell(place, slot), seconds)
            for slot, seconds in enumerate(self.intervals.spans(self.read.of(self.range)))
        ]
        return [[found[n] for found in by_interval] for n in range(len(self.measures))]

    def _cell(self, place: int, slot: int) -> Numbers:
        return self.cells.get((place, slot)) or (0,) * len(self.measures)


def _summed(rows: Sequence[Group], left: Numbers | None) -> Cells:
    """Return the cells of groups, and of what is left beside them, of numbers that add up."""
    shown = [row.numbers for row in rows]
    found: dict[tuple[int, int], Numbers] = {
        (place, WHOLE): numbers for place, numbers in enumerate(shown)
    }
    if left is not None:
        found[len(rows), WHOLE] = left
        shown.append(left)
    found[WHOLE, WHOLE] = _total(shown)
    return found


def _all_others(cells: Cells) -> Cells:
    """Return the cells where no group is shown: all that there is is of others."""
    return {**cells, **{(0, slot): numbers for (_, slot), numbers in cells.items()}}


def _left(total: Numbers, rows: Sequence[Group]) -> Numbers | None:
    """Return what is left of a total; None where less is there by now than was found."""
    shown = _total([row.numbers for row in rows])
    left = [(a or 0) - (b or 0) for a, b in zip(total, shown, strict=True)]
    return left if min(left) >= 0 else None


def _total(numbers: Sequence[Numbers]) -> Numbers:
    return [sum(n or 0 for n in column) for column in zip(*numbers, strict=True)]


def _dimension_column(dimension: Dimension) -> dict[str, Any]:
    return {"name": dimension.name, "kind": "dimension", "type": dimension.type, "unit": None}


def _measure_column(measure: Measure) -> dict[str, Any]:
    return {"name": measure.name, "kind": "measure", "type": "number", "unit": measure.unit}
