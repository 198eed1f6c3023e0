"""Records themselves, newest first, page by page.

A page ends at a record, and the next one begins after it: by the record's end, and among those of
one second by a hash of what tells records apart. So what is inserted meanwhile moves nothing:
newer records stay before the pages, and no record comes twice or is left out. Records that are
alike in all of it are counted. The cursor has the range as well, which is the first page's.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from flowvis.clickhouse.schema.tables import (
    BATCH_NUMBER,
    FLOWS_COLUMNS,
    WRITER,
    shown_type,
    value_sql,
)
from flowvis.filters.sql import Condition
from flowvis.questions.planner import RECORDS_ONLY, Stored
from flowvis.questions.problem import QuestionError, number, shown, unknown
from flowvis.questions.statement import Plan, Records
from flowvis.questions.times import LATEST_MS, TimeRange, parse_range

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_ORDER_SQL = (
    "cityHash64(sourceIPBytes, destinationIPBytes, sourceTransportPort, destinationTransportPort,"
    " protocolIdentifier, icmpTypeCode, flowStartSeconds, octetDeltaCount, packetDeltaCount,"
    f" octetTotalCountResidual, timeInsertedResidual, {BATCH_NUMBER}, cityHash64({WRITER}))"
)
_WINDOWS_S = (600, 4 * 3600, 48 * 3600)
"""How far back the records of a page are looked for at first, and then."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """After which record a page begins."""

    end_s: int
    order: int
    alike: int
    """How many records of this end and order have come."""


@dataclass(frozen=True, slots=True)
class PageQuestion:
    """What is asked."""

    records: Records
    columns: tuple[str, ...]
    limit: int
    after: Cursor | None = None

    @property
    def compared(self) -> None:
        """Pages are compared with nothing."""

    @classmethod
    def parse(
        cls,
        parameters: Mapping[str, str],
        condition: Condition,
        now_ms: int,
        stored: Stored = RECORDS_ONLY,
    ) -> Self:
        """Read from, to, limit, columns and cursor; QuestionError names a bad one."""
        limit = number("limit", parameters.get("limit", ""), DEFAULT_LIMIT, MAX_LIMIT)
        columns = _columns(parameters.get("columns", ""))
        if written := parameters.get("cursor", ""):
            asked, after = _read(written)
            return cls(Records(asked, condition, stored), columns, limit, after)
        asked = parse_range(parameters.get("from", ""), parameters.get("to", ""), now_ms)
        return cls(Records(asked, condition, stored), columns, limit)

    def plan(self) -> Plan[dict[str, Any]]:
        """Return the plan of the page, as JSON has it."""
        rows: Sequence[Sequence[Any]] = ()
        since_s = yield from self._since()
        if since_s is not None:
            asked = self.records.range
            within = replace(asked, from_ms=max(asked.from_ms, since_s * 1000))
            # No other names for them: 18.16 does not find a column of a cluster that has two.
            wanted = [value_sql(name) for name in self.columns]
            found = yield self.records.within(within).select(
                ["toUInt32(flowEndSeconds) AS e", f"toString({_ORDER_SQL}) AS o", *wanted],
                where=self._where(),
                tail=f"ORDER BY flowEndSeconds DESC, {_ORDER_SQL} DESC"
                f" LIMIT {self._skipped}, {self.limit}",
            )
            rows = found.rows
        full = len(rows) == self.limit
        return {
            "columns": [{"name": name, "type": shown_type(name)} for name in self.columns],
            "rows": [row[2:] for row in rows],
            "cursor": self._next(rows) if full else None,
        }

    @property
    def _skipped(self) -> int:
        return self.after.alike if self.after else 0

    def _since(self) -> Plan[int | None]:
        """Find out since when there are enough records: only these are sorted, or read whole.

        Of the newest seconds as many are counted as make a page; of ever more of the range, as
        most often the page is full after little of it.
        """
        asked = self.records.range
        until_ms = min(asked.to_ms, (self.after.end_s + 1) * 1000) if self.after else asked.to_ms
        wanted = self.limit + self._skipped
        for window_s in (*_WINDOWS_S, None):
            begin = asked.from_ms if window_s is None else until_ms - window_s * 1000
            part = TimeRange(max(begin, asked.from_ms), until_ms)
            found = yield self.records.within(part).select(
                ["toUInt32(flowEndSeconds) AS e", "count() AS n"],
                where=self._where(),
                tail=f"GROUP BY e ORDER BY e DESC LIMIT {wanted}",
            )
            counted = 0
            for end_s, count in found.rows:
                counted += int(count)
                if counted >= wanted:
                    return int(end_s)
            if part.from_ms == asked.from_ms:
                return int(found.rows[-1][0]) if found.rows else None
        return None

    def _where(self) -> str:
        if self.after is None:
            return ""
        end = f"toDateTime({self.after.end_s})"
        return (
            f"flowEndSeconds < {end}"
            f" OR (flowEndSeconds = {end} AND {_ORDER_SQL} <= toUInt64({self.after.order}))"
        )

    def _next(self, rows: Sequence[Sequence[Any]]) -> str:
        end_s, order = int(rows[-1][0]), int(rows[-1][1])
        alike = sum((int(row[0]), int(row[1])) == (end_s, order) for row in rows)
        if self.after and (self.after.end_s, self.after.order) == (end_s, order):
            alike += self.after.alike
        asked = self.records.range
        text = json.dumps([asked.from_ms, asked.to_ms, end_s, order, alike])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _columns(text: str) -> tuple[str, ...]:
    if text in {"", "*"}:
        return FLOWS_COLUMNS
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in FLOWS_COLUMNS:
            raise unknown("columns", name, FLOWS_COLUMNS, "the columns of docs/clickhouse.md")
    return names


def _read(written: str) -> tuple[TimeRange, Cursor]:
    """Read a cursor; QuestionError for one that no page gave."""
    try:
        padded = written + "=" * (-len(written) % 4)
        numbers = json.loads(base64.b64decode(padded[:400], altchars=b"-_", validate=True))
        from_ms, to_ms, end_s, order, alike = numbers
        usable = (
            all(type(each) is int for each in numbers)
            and 0 <= from_ms < to_ms <= LATEST_MS
            and TimeRange(from_ms, to_ms).from_s <= end_s < TimeRange(from_ms, to_ms).to_s
            and 0 <= order < 1 << 64
            and 0 <= alike < 1 << 32
        )
    except (binascii.Error, ValueError, TypeError):
        usable = False
    if not usable:
        raise QuestionError(
            "bad-query", f"cursor {shown(written)}: not one that a page had; leave it out"
        )
    return TimeRange(from_ms, to_ms), Cursor(end_s, order, alike)
