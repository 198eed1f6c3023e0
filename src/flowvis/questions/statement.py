"""What is asked of a store, what it answers, and the plans that go from one to the other."""

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flowvis.clickhouse.schema.projections import DAY, DAY_S
from flowvis.clickhouse.schema.rolled_columns import NETWORK_BITS, TIME
from flowvis.clickhouse.schema.tables import definitions
from flowvis.filters.networks import END_OF
from flowvis.filters.sql import Condition
from flowvis.questions.measures import Measure
from flowvis.questions.planner import (
    END,
    RECORDS_ONLY,
    Needs,
    Part,
    Reading,
    Stored,
    needs_of,
    reading,
)
from flowvis.questions.times import Intervals, TimeRange


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT; its values are parameters, {name:Type} in the text."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading = field(default_factory=Reading)
    """Which tables it reads."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the store answered to a statement."""

    rows: Sequence[Sequence[Any]]
    types: Sequence[str] = ()
    """ClickHouse's, one for each column."""


_MOMENT = re.compile(rf"\b{END}\b")
COMPOSED_ROWS = 50_000
"""What no statement of ours may have more of."""

T = TypeVar("T")
Plan = Generator[Statement, Found, T]
"""Yields statements, is sent their answers, and returns what it makes of them."""


@dataclass(frozen=True, slots=True)
class Records:
    """Those of a range that a filter chooses."""

    range: TimeRange
    condition: Condition
    stored: Stored = RECORDS_ONLY
    """What there is of them, and of what they were rolled up to."""

    def within(self, other: TimeRange) -> "Records":
        """Return those of another range."""
        return replace(self, range=other)

    def select(
        self,
        columns: Iterable[str],
        *,
        where: str = "",
        tail: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> Statement:
        """Return the SELECT of some columns of them; `where` is one more condition."""
        read = reading(
            self.range, self.stored, frozenset(), only_records="single records", added_up=False
        )
        (part,) = read.parts
        text = self._text(part, columns, where, tail)
        return Statement(text, {**self.condition.parameters, **(parameters or {})}, read)

    def states(
        self,
        columns: Sequence[str],
        measures: Mapping[str, Measure],
        needs: Needs,
        *,
        where: str = "",
        tail: str,
        intervals: Intervals | None = None,
    ) -> Statement:
        """Return the SELECT of what measures are of groups of them, as states by their names.

        Of each table that it reads a group may have rows. `needs` are those of the columns and of
        `where`; `tail` groups; `intervals` are what columns divide time into.
        """
        read = reading(
            self.range,
            self.stored,
            self._needs(needs),
            rolled=[each.rolled for each in measures.values()],
            only_records=next((each.name for each in measures.values() if not each.rolled), ""),
            intervals=intervals,
        )
        texts = []
        for part in read.parts:
            states = [
                f"{each.state_sql if part.table is None else each.rolled_sql} AS {name}"
                for name, each in measures.items()
            ]
            texts.append(self._text(part, [*columns, *states], where, tail))
        return Statement(" UNION ALL ".join(texts), self.condition.parameters, read)

    def totals(
        self,
        columns: Mapping[str, str],
        measures: Sequence[Measure],
        *,
        where: str = "",
        tail: str = "",
    ) -> Statement:
        """Return the SELECT of columns, SQL by name, and what measures are of each group of them.

        In `tail` the n-th measure is `nm<n>`. One row where there are no columns.
        """
        grouped = f"GROUP BY {', '.join(columns)}" if columns else ""
        shown = [name if sql == name else f"{sql} AS {name}" for name, sql in columns.items()]
        needs = needs_of(" ".join([*columns.values(), where]))
        named = {f"m{n}": measure for n, measure in enumerate(measures)}
        inner = self.states(shown, named, needs, where=where, tail=grouped)
        merged = [f"{each.merged_sql(name)} AS n{name}" for name, each in named.items()]
        text = f"SELECT {', '.join([*columns, *merged])} FROM ({inner.text}) {grouped} {tail}"
        return replace(inner, text=text.rstrip())

    def _needs(self, needs: Needs) -> Needs:
        """Return what is needed, with the condition, of what roll-ups do not have for certain."""
        wanted = needs.union(self.condition.columns)
        # Those networks are what roll-ups have of addresses, if nothing else needs these; and by
        # them they can tell names, if these are not of smaller networks.
        wanted -= self.condition.only_networks - needs
        longest = self.condition.networks.longest
        if all(longest[version] <= bits for version, bits in NETWORK_BITS.items()):
            wanted -= END_OF.keys()
        return wanted

    def _text(self, part: Part, columns: Iterable[str], where: str, tail: str) -> str:
        conditions = [self.condition.text, where]
        wanted = " AND ".join(
            [part.condition(), *(f"({text})" for text in conditions if text not in {"", "1"})]
        )
        shown = ", ".join(columns)
        if part.by_day:  # as no alias, which other tables' SELECTs would have as well
            shown = _MOMENT.sub(f"toDateTime({DAY} * {DAY_S})", shown)
        text = f"SELECT {shown} FROM {part.name} WHERE {wanted} {tail}".rstrip()
        rolled = part.table is not None
        made_of = self.condition.networks.definitions(text, rolled=rolled) | definitions(text)
        if rolled and not part.by_day:
            made_of[END] = TIME
        for address in self.condition.only_networks if rolled else ():
            made_of[address] = f"{address.removesuffix('IPBytes')}NetworkBytes"
        defined = ", ".join(f"{sql} AS {name}" for name, sql in made_of.items())
        return f"WITH {defined} {text}" if defined else text
