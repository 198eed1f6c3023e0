"""What is asked of the books (`flow_books`): whether records are missing, where and why."""

import re
from collections.abc import Iterator, Sequence

from flowvis.clickhouse.schema.books import EXPORTER, What
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.runtime.dropped import PAGES
from tools.dashboards.queries import Written

WITHIN = "time > $__fromTime AND time <= $__toTime"
"""Pages whose interval ends in the range."""


def _harmless() -> str:
    """Return the condition of drops that are no loss, as `questions.completeness` has it."""
    named, found = [], []
    *pages, destinations = PAGES
    for page in pages:
        stages = re.findall(r"`([^`]+)`", page.stage)
        named += stages
        reasons = [reason for reason in page.dropped or () if not reason.is_loss]
        found += [f"stage = '{each}' AND reason IN {_list(reasons)}" for each in stages if reasons]
    rest = [reason for reason in destinations.dropped or () if not reason.is_loss]
    if rest:
        found.append(f"stage NOT IN {_list(named)} AND reason IN {_list(rest)}")
    return " OR ".join(f"({each})" for each in found) or "0"


def _list(words: Sequence[str]) -> str:
    quoted = ", ".join(f"'{word}'" for word in words)
    return f"({quoted})"


MISSED = (
    f"(what = '{What.LOST}' OR what = '{What.DROPPED}' AND NOT ({_harmless()})) AND records != 0"
)
"""The condition of what says that records are missing."""
_EVERY = "(intDiv(greatest($__interval_s, 60) + 59, 60) * 60)"
_SLOT = f"intDiv(toUInt32(time) - 1, {_EVERY}) * {_EVERY}"
"""The beginning of the interval that a page is of, in seconds."""
_SLOT_SECONDS = (
    f"greatest(least(slot + {_EVERY}, toInt64(toUInt32($__toTime)), toInt64(toUInt32(now())))"
    " - greatest(slot, toInt64(toUInt32($__fromTime))), toInt64(max(seconds)))"
)
"""How many seconds of an interval are in the range and over; a page's at least, which has more
where the store was away."""

MISSING = Written(
    f"SELECT sum(records) AS `Records missing`\nFROM {BOOKS}\nWHERE {WITHIN}\n  AND {MISSED}"
)
SILENT = Written(
    f"SELECT uniqExact(node) AS `Silent nodes`\nFROM {BOOKS}\n"
    f"WHERE {WITHIN}\n  AND what = '{What.SILENT}' AND records != 0"
)
HEARD = Written(
    f"SELECT uniqExact(node) AS `Nodes`\nFROM {BOOKS}\n"
    f"WHERE {WITHIN}\n  AND stage = '{EXPORTER}' AND what = '{What.RECEIVED}' AND records != 0"
)
WITHOUT = Written(
    "WITH toInt64(toUInt32($__fromTime)) AS from_s,\n"
    "  toInt64(least(toUInt32($__toTime), toUInt32(now()))) AS to_s,\n"
    f"  (SELECT min(toInt64(toUInt32(time)) - seconds) FROM {BOOKS}) AS first_s\n"
    "SELECT greatest(to_s - least(greatest(from_s, first_s), to_s) - sum(covered), 0)"
    " AS `Seconds without books`\n"
    "FROM (\n"
    # Several writers have pages of the same time; each adds what is after the one before it.
    "  SELECT least(seconds, moment - greatest(from_s, any(moment)"
    " OVER (ORDER BY moment ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING))) AS covered\n"
    "  FROM (\n"
    "    SELECT toInt64(toUInt32(time)) AS moment, toInt64(max(seconds)) AS seconds\n"
    f"    FROM {BOOKS}\n"
    f"    WHERE {WITHIN} AND what = '{What.RECEIVED}' AND stage != '{EXPORTER}'\n"
    "    GROUP BY time\n  )\n)"
)
STAGES = Written(
    "SELECT stage AS `Stage`,\n"
    + ",\n".join(
        f"  sumIf(records, what = '{what}') AS `{what.value.capitalize()}`"
        for what in (What.RECEIVED, What.SENT, What.MERGED, What.DROPPED)
    )
    # A page has no row of what was 0, but that it was received.
    + f",\n  if(maxIf(time, what = '{What.HELD}') = maxIf(time, what = '{What.RECEIVED}'),"
    f" argMaxIf(records, time, what = '{What.HELD}'), 0) AS `Held at the end`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND stage != '{EXPORTER}' AND what != '{What.SETTLED}'\n"
    "GROUP BY stage\nORDER BY stage"
)
REASONS = Written(
    "SELECT stage AS `Stage`, node AS `Node`, if(reason = '', what, reason) AS `Reason`,\n"
    "  sum(records) AS `Records`, min(time) AS `First`, max(time) AS `Last`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND {MISSED}\n"
    "GROUP BY stage, node, `Reason`\nORDER BY `Records` DESC, `Stage`, `Node`, `Reason`\nLIMIT 200"
)
SET_ASIDE = Written(
    "SELECT stage AS `Stage`, reason AS `Reason`, sum(records) AS `Records`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND what = '{What.DROPPED}' AND ({_harmless()})"
    " AND records != 0\n"
    "GROUP BY stage, reason\nORDER BY `Records` DESC, `Stage`, `Reason`\nLIMIT 200"
)
BY_NODE = Written(
    "SELECT node AS `Node`,\n"
    f"  sumIf(records, what = '{What.RECEIVED}') AS `Received`,\n"
    f"  sumIf(records, what = '{What.LOST}') AS `Lost`,\n"
    f"  sumIf(records, what = '{What.SILENT}') AS `Silent`,\n"
    f"  maxIf(time, what = '{What.RECEIVED}' AND records != 0) AS `Last heard`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND stage = '{EXPORTER}'\n"
    "GROUP BY node\nORDER BY `Lost` DESC, `Silent` DESC, `Node`\nLIMIT 1000"
)


def over_time(what: What, name: str, where: str) -> Written:
    """Return a time series of a number of the books, in records a second."""
    return Written(
        "SELECT toDateTime(slot) AS time, series, Value\nFROM (\n"
        f"  SELECT {_SLOT} AS slot, {name} AS series, sum(records) / {_SLOT_SECONDS} AS Value\n"
        f"  FROM {BOOKS}\n  WHERE {WITHIN}\n    AND what = '{what}' AND {where}\n"
        "  GROUP BY slot, series\n)\nORDER BY slot, series\nLIMIT 20000"
    )


def series() -> Iterator[tuple[str, str, Written]]:
    """Yield the time series: title, what it is, statement."""
    at_stage = f"stage != '{EXPORTER}'"
    yield (
        "Received by stage", "Records a second that each stage took in",
        over_time(What.RECEIVED, "stage", at_stage),
    )  # fmt: skip
    yield (
        "Dropped by reason", "Records a second that were given up, losses and others",
        over_time(What.DROPPED, "concat(stage, ': ', reason)", f"{at_stage} AND records != 0"),
    )  # fmt: skip
    yield (
        "Received by node", "Records a second that each node's exporter sent",
        over_time(What.RECEIVED, "node", f"stage = '{EXPORTER}'"),
    )  # fmt: skip
    yield (
        "Lost by node", "Records a second that never came, by the sequence numbers",
        over_time(What.LOST, "node", f"stage = '{EXPORTER}' AND records != 0"),
    )  # fmt: skip
