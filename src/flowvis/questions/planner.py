"""Which tables answer a question: the smallest that have all that it needs.

A roll-up has a row for what is alike in its dimensions, of a minute or of an hour. Of a range its
whole minutes and hours are taken from there, as far as they are settled: every record of then is in
them. The edges, and what a roll-up says nothing of, are taken from the records. So each record is
in one part, and an answer is the same to the last octet.

Where the records of an edge are gone, the whole minute or hour is taken instead.

What is asked of whole days, the roll-up by hour has also by day, in projections.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.projections import DAY, DAY_S
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rolled_columns import DIMENSIONS, NETWORK_BITS, SUMS, TIME
from flowvis.clickhouse.schema.rollups import HOURS, ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import TABLE, shown_as, stored_columns
from flowvis.filters.networks import END_OF
from flowvis.questions.times import Intervals, TimeRange
from flowvis.runtime.durations import format_duration

END = "flowEndSeconds"
"""When a record is; a roll-up's `time`."""

Needs = frozenset[str]
"""Stored columns of records, and what names of networks define."""

COARSEST_FIRST = sorted(ROLLUPS, key=lambda table: -table.step_s)
RECORDS_TTL = "clickHouse.ttl"
_IDENTIFIER = re.compile(r"\w+")
LATE_S = 300
"""How long after their end records are committed, as a rule."""
SLACK_S = 5
"""Between the moment of a question and that of its answer."""


def needs_of(sql: str) -> Needs:
    """Return what an expression over the columns of `flows`, or names of networks, needs."""
    return frozenset(stored_columns(sql)) | (END_OF.keys() & set(_IDENTIFIER.findall(sql)))


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a roll-up is of."""

    settled_s: int
    """Of records that ended before, it has all."""
    since_s: int = 0
    """Older rows may be gone; 0: none is."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store has, as of now."""

    now_s: int = 0
    records_since_s: int = 0
    """Older records may be gone; 0: none is."""
    rollups: Mapping[str, Span] = field(default_factory=dict)
    """The roll-ups that there are, by name."""
    lost: Sequence[Lost] = ()
    """Records that went before the roll-ups had them."""

    @classmethod
    def of(
        cls,
        kept: Retention,
        settled_ms: Mapping[str, int],
        now_ms: int,
        lost: Sequence[Lost],
    ) -> "Stored":
        """Return what a store has that keeps its tables so long, and has settled them so far."""
        now_s = now_ms // 1000

        def since_s(kept_s: int) -> int:
            return now_s - kept_s if kept_s else 0

        rollups = {
            table.name: Span(settled // 1000, since_s(kept.of(table)))
            for table in ROLLUPS
            if (settled := settled_ms.get(table.name, 0))
        }
        return cls(now_s, since_s(kept.records_s), rollups, lost)

    def has(self, table: Rollup) -> bool:
        """Return whether there is such a roll-up."""
        return table.name in self.rollups

    def since_s(self, table: Rollup | None) -> int:
        """Return since when a table has anything; None: the records."""
        return self.records_since_s if table is None else self.rollups[table.name].since_s

    def least_step_s(self, span: TimeRange, rolled: Iterable[str]) -> int:
        """Return of how many seconds, or of multiples, intervals of a range have to be.

        `rolled` is SQL over the measures of roll-ups.
        """
        if span.from_s >= self.records_since_s:
            return 1
        there = (
            table.step_s
            for table in reversed(COARSEST_FIRST)
            if self.has(table)
            and span.from_s >= self.since_s(table)
            and not _lacks(table, frozenset(), rolled)
        )
        return next(there, 1)


RECORDS_ONLY = Stored()
"""A store without roll-ups, which keeps records for ever."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is taken from one table."""

    table: Rollup | None
    """None: the records."""
    from_s: int
    to_s: int
    by_day: bool = False
    """Whether it is whole days, of which nothing is asked that differs within one."""

    @property
    def name(self) -> str:
        """The table's."""
        return TABLE if self.table is None else self.table.name

    def condition(self) -> str:
        """Return the SQL that is true of its rows."""
        if self.by_day:
            return f"{DAY} >= {self.from_s // DAY_S} AND {DAY} < {self.to_s // DAY_S}"
        column = END if self.table is None else TIME
        return f"{column} >= toDateTime({self.from_s}) AND {column} < toDateTime({self.to_s})"

    def days(self) -> Iterator["Part"]:
        """Yield the same with its whole days by day."""
        begin_s, end_s = _up(self.from_s, DAY_S), _down(self.to_s, DAY_S)
        if self.table is not HOURS or begin_s >= end_s:
            yield self
            return
        if self.from_s < begin_s:
            yield replace(self, to_s=begin_s)
        yield replace(self, from_s=begin_s, to_s=end_s, by_day=True)
        if end_s < self.to_s:
            yield replace(self, from_s=end_s)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read for a statement, and what can no more be read."""

    parts: Sequence[Part] = ()
    gone: TimeRange | None = None
    """Of which no table that could answer has anything any more."""
    why: str = ""
    """How long what could answer is kept, and what of the question keeps others from it."""
    coarse: TimeRange | None = None
    """What was read instead of the range, where it had to be whole minutes or hours."""
    lost: Sequence[Lost] = ()
    """What roll-ups that are read may lack for ever."""
    unsettled: TimeRange | None = None
    """Of which roll-ups that are read have not got everything yet, and records may be gone."""

    @property
    def tables(self) -> tuple[str, ...]:
        """What is read, each table once."""
        return tuple(dict.fromkeys(part.name for part in self.parts))

    def of(self, span: TimeRange) -> TimeRange:
        """Return what was read for a range: rates are over that.

        It is longer where it had to be whole minutes or hours, and without what is gone; the range
        itself where all is.
        """
        read = self.coarse or span
        if self.gone is None or self.gone.to_s >= span.to_s:
            return read
        return TimeRange(max(read.from_ms, self.gone.to_ms), read.to_ms)

    @property
    def whole(self) -> bool:
        """Whether all of the range is read, and nothing else."""
        return self.gone is None and self.coarse is None


def reading(
    span: TimeRange,
    stored: Stored,
    needs: Needs,
    *,
    rolled: Sequence[str] = (),
    only_records: str = "",
    intervals: Intervals | None = None,
    added_up: bool = True,
) -> Reading:
    """Choose what to read of a range.

    `rolled` is SQL over the measures of roll-ups; `only_records` names what else none has. What is
    `added_up` has nothing of the time that is gone, of which single records may still be there.
    """
    lacks = {
        table: only_records or _lacks(table, needs, rolled) or _cuts(table, intervals)
        for table in filter(stored.has, COARSEST_FIRST)
    }
    usable = [*(table for table, lack in lacks.items() if not lack), None]
    parts = tuple(_parts(span.from_s, span.to_s, usable, stored))
    longest = min(usable, key=stored.since_s)
    gone, why, oldest_s = None, "", stored.since_s(longest)
    if span.from_s + SLACK_S < oldest_s:
        gone = TimeRange(span.from_ms, min(_read_from_s(parts, stored) * 1000, span.to_ms))
        why = _kept(longest, stored, lacks)
    coarse = None
    if parts[0].from_s < span.from_s or parts[-1].to_s > span.to_s:
        coarse = TimeRange(parts[0].from_s * 1000, parts[-1].to_s * 1000)
    unsettled, lost = _unsettled(parts, stored, gone), tuple(_lost(parts, stored))
    if gone is not None and added_up:
        parts = tuple(_after(gone, parts)) or parts
    if _by_day(rolled, intervals):
        parts = tuple(each for part in parts for each in part.days())
    return Reading(parts, gone, why, coarse, lost, unsettled)


def _after(gone: TimeRange, parts: Iterable[Part]) -> Iterator[Part]:
    """Go through what is taken from tables of the time after what is gone."""
    for part in parts:
        if gone.to_s < part.to_s:
            yield replace(part, from_s=max(part.from_s, gone.to_s))


def _by_day(rolled: Sequence[str], intervals: Intervals | None) -> bool:
    """Whether what is asked differs by day at most, and adds up: a projection has that by day."""
    if intervals is not None and (intervals.first_s % DAY_S or intervals.step_s % DAY_S):
        return False
    return all(text in _SUMS for each in rolled for text in each.split(" + "))


_SUMS = frozenset(column.name for column in SUMS)


def _read_from_s(parts: Sequence[Part], stored: Stored) -> int:
    """Return when the first thing is that a table still has: roll-ups from a whole step on."""
    for part in parts:
        since_s = stored.since_s(part.table)
        if since_s < part.to_s:
            return max(since_s, part.from_s)
    return parts[-1].to_s


def _unsettled(parts: Sequence[Part], stored: Stored, gone: TimeRange | None) -> TimeRange | None:
    """Return of what time roll-ups lack records that are kept no more; None: of none."""
    spans = []
    for part in parts:
        if part.table is not None:
            begin_s, end_s = stored.rollups[part.table.name].settled_s, part.to_s
        else:  # what is left of a minute or an hour
            begin_s, end_s = part.from_s, min(part.to_s, stored.records_since_s - SLACK_S)
            if gone is not None and part.from_s < gone.to_s:
                continue
        if begin_s < end_s:
            spans.append((max(begin_s, part.from_s), end_s))
    if not spans:
        return None
    return TimeRange(min(spans)[0] * 1000, max(end_s for _, end_s in spans) * 1000)


def _lost(parts: Sequence[Part], stored: Stored) -> Iterator[Lost]:
    """Go through the records of parts that no roll-up has, though one is read for them."""
    rolled = [part for part in parts if part.table is not None]
    for each in stored.lost:
        if any(each.begin_s - LATE_S < part.to_s and part.from_s < each.end_s for part in rolled):
            yield each


def _lacks(table: Rollup, needs: Needs, rolled: Iterable[str]) -> str:
    """Name something that a roll-up has not got; "": it has all."""
    dimensions = {column.name for column in DIMENSIONS}
    for column in sorted(needs - dimensions):
        return _TOO_SMALL if column in END_OF else shown_as(column)
    measures = {column.name for column in table.measures}
    for name in _IDENTIFIER.findall(" ".join(rolled)):
        if name in _MEASURES and name not in measures:
            return str(name)
    return ""


_TOO_SMALL = "names of networks smaller than " + " and ".join(
    f"/{bits} of IPv{version}" for version, bits in NETWORK_BITS.items()
)
_MEASURES = {column.name for table in ROLLUPS for column in table.measures}


def _cuts(table: Rollup, intervals: Intervals | None) -> str:
    """Name intervals that cut minutes or hours into pieces; "": they do not."""
    if intervals is None or not (
        intervals.first_s % table.step_s or intervals.step_s % table.step_s
    ):
        return ""
    return f"intervals of {format_duration(intervals.step_s)}"


def _parts(
    from_s: int, to_s: int, tables: Sequence[Rollup | None], stored: Stored
) -> Iterator[Part]:
    """Divide a range among tables, those with the longest step first."""
    if from_s >= to_s:
        return
    table, *finer = tables
    if table is None:
        yield Part(None, from_s, to_s)
        return
    step_s, edges_since_s = table.step_s, min(map(stored.since_s, finer))
    begin_s = _up(max(from_s, stored.since_s(table)), step_s)
    if stored.since_s(table) <= from_s < edges_since_s:
        begin_s = _down(from_s, step_s)
    end_s = _down(to_s, step_s) if edges_since_s <= _down(to_s, step_s) else _up(to_s, step_s)
    settled_s = stored.rollups[table.name].settled_s
    if finer == [None]:  # what is not settled is better than nothing
        settled_s = max(settled_s, stored.records_since_s)
    end_s = min(end_s, _down(settled_s, step_s))
    if begin_s >= end_s:
        yield from _parts(from_s, to_s, finer, stored)
        return
    yield from _parts(from_s, begin_s, finer, stored)
    yield Part(table, begin_s, end_s)
    yield from _parts(end_s, to_s, finer, stored)


def _down(second: int, step_s: int) -> int:
    return second // step_s * step_s


def _up(second: int, step_s: int) -> int:
    return -(-second // step_s) * step_s


def _kept(longest: Rollup | None, stored: Stored, lacks: Mapping[Rollup, str]) -> str:
    """Say how long something is kept, and why what is kept for longer is of no use."""
    what, option = ("records", RECORDS_TTL) if longest is None else (longest.name, longest.option)
    oldest_s = stored.since_s(longest)
    text = f"{what} are kept for {format_duration(stored.now_s - oldest_s)} ({option})"
    for table, lack in lacks.items():
        if lack and stored.since_s(table) < oldest_s:
            return f"{text}; {table.name}, kept for longer, have no {lack}"
    return text
