"""What is asked of a store, what it answers, and the plans that go from one to the other."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flowvis.clickhouse.schema.tables import TABLE, definitions
from flowvis.filters.sql import Condition
from flowvis.questions.times import TimeRange


@dataclass(frozen=True, slots=True)
class Statement:
    """One SELECT; its values are parameters, {name:Type} in the text."""

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What the store answered to a statement."""

    rows: Sequence[Sequence[Any]]
    types: Sequence[str] = ()
    """ClickHouse's, one for each column."""


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

    def within(self, other: TimeRange) -> "Records":
        """Return those of another range."""
        return Records(other, self.condition)

    def select(
        self,
        columns: Iterable[str],
        *,
        where: str = "",
        tail: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> Statement:
        """Return the SELECT of some columns of them; `where` is one more condition."""
        conditions = [self.condition.text, where]
        wanted = " AND ".join(
            [self.range.condition(), *(f"({text})" for text in conditions if text not in {"", "1"})]
        )
        text = f"SELECT {', '.join(columns)} FROM {TABLE} WHERE {wanted} {tail}".rstrip()
        aliases = self.condition.networks.definitions(text) | definitions(text)
        made_of = ", ".join(f"{sql} AS {name}" for name, sql in aliases.items())
        return Statement(
            f"WITH {made_of} {text}" if made_of else text,
            {**self.condition.parameters, **(parameters or {})},
        )
