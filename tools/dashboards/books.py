"""What is asked of the books (`flow_books`): whether records are missing, where and why."""

import re
from collections.abc import Iterator, Sequence

from flowvis.clickhouse.schema.books import CLUSTER, EXPORTER, What
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.questions.kept_books import LATE_S, LONGEST_S, MISSED_S, lately
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
_SEVERAL = (
    f"(SELECT count() > 1 FROM (SELECT DISTINCT {CLUSTER} FROM {BOOKS}"
    f" WHERE {WITHIN} AND {CLUSTER} != ''))"
)
_NODE = f"if(node != '' AND {CLUSTER} != '' AND {_SEVERAL}, concat(node, ' of ', {CLUSTER}), node)"
"""A node's name; where books are of several clusters, which may have nodes of one name, also its
cluster's."""
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


def _nodes(title: str, where: str) -> Written:
    """Return how many nodes there are: where books are of several clusters, of each."""
    return Written(
        f"SELECT if(uniqExactIf({CLUSTER}, {CLUSTER} != '') > 1,"
        f" uniqExact(node, {CLUSTER}), uniqExact(node)) AS `{title}`\n"
        f"FROM (\n  SELECT node, {CLUSTER}\n  FROM {BOOKS}\n"
        f"  WHERE {WITHIN}\n    AND {where} AND records != 0\n  GROUP BY node, {CLUSTER}\n)"
    )


SILENT = _nodes("Silent nodes", f"what = '{What.SILENT}'")
HEARD = _nodes("Nodes", f"stage = '{EXPORTER}' AND what = '{What.RECEIVED}'")
WITHOUT = Written(
    "SELECT max(lacking) AS `Seconds without books`\n"
    "FROM (\n"
    "  WITH toInt64(toUInt32($__fromTime)) AS from_s,\n"
    "    toInt64(least(toUInt32($__toTime), toUInt32(now()))) AS to_s,\n"
    f"    ifNull((SELECT min(toInt64(toUInt32(time)) - seconds) FROM {BOOKS}), 0) AS first_s\n"
    # The cluster '' is all of them together; and a page of none is of each.
    "  SELECT arrayJoin(arrayPushFront(clusters, '')) AS cluster,\n"
    "    arraySort(arrayFilter("
    "page -> cluster = '' OR page.3 = '' OR page.3 = cluster, pages)) AS known,\n"
    "    arrayPopBack(arrayPushFront(arrayMap(page -> page.1, known), 0)) AS before,\n"
    # A cluster is missed from its first page on, and for some time after its last.
    "    arrayFilter(page -> page.3 = cluster, pages) AS own,\n"
    "    if(cluster = '', first_s, arrayReduce('min', arrayMap(page -> page.2, own)))"
    " AS its_first_s,\n"
    "    arrayReduce('max', arrayMap(page -> page.1, own)) AS its_last_s,\n"
    "    least(greatest(from_s, its_first_s), to_s) AS since_s,\n"
    f"    if(cluster = '' OR its_last_s > to_s - {MISSED_S}, to_s, its_last_s) AS until_s,\n"
    # Several writers have pages of the same time; each adds what is after the one before it.
    "    arraySum((page, last) -> greatest(least(page.1, until_s)"
    " - greatest(greatest(page.2, last), since_s), 0), known, before) AS covered,\n"
    "    greatest(until_s - since_s - covered, 0) AS lacking\n"
    "  FROM (\n"
    "    SELECT groupArray((moment, begin_s, cluster)) AS pages,\n"
    "      groupUniqArrayIf(cluster, cluster != '') AS clusters\n"
    "    FROM (\n"
    f"      SELECT toString({CLUSTER}) AS cluster, toInt64(toUInt32(time)) AS moment,"
    " moment - max(seconds) AS begin_s\n"
    f"      FROM {BOOKS}\n"
    f"      WHERE time > $__fromTime AND time < $__toTime + {LONGEST_S}"
    " AND toUInt32(time) - seconds < toUInt32($__toTime)\n"
    f"        AND what = '{What.RECEIVED}' AND stage != '{EXPORTER}'\n"
    f"      GROUP BY {CLUSTER}, time\n"
    "      UNION ALL\n"
    f"      SELECT toString({CLUSTER}) AS cluster, toInt64(toUInt32(max(time))) AS moment,"
    " moment AS begin_s\n"
    f"      FROM {BOOKS}\n"
    f"      WHERE {lately('toUInt32($__fromTime)')}\n"
    f"      GROUP BY {CLUSTER}\n"
    "    )\n  )\n)"
)
"""Of the cluster that lacks most: so it is no more than the range, and the last minute, of which
there are no pages yet, counts once."""
_COUNTS = (What.RECEIVED, What.SENT, What.MERGED, What.DROPPED)
STAGES = Written(
    "SELECT stage AS `Stage`,\n"
    + "".join(f"  sum({what}_records) AS `{what.value.capitalize()}`,\n" for what in _COUNTS)
    # Of each cluster whose books go on to the end.
    + f"  arraySum(each -> if(each.1 > max(last_s) - {LATE_S}, each.2, 0),"
    " groupArray((last_s, held))) AS `Held at the end`\n"
    f"FROM (\n  SELECT stage, {CLUSTER},\n"
    + "".join(f"    sumIf(records, what = '{what}') AS {what}_records,\n" for what in _COUNTS)
    + f"    maxIf(toUInt32(time), what = '{What.RECEIVED}') AS last_s,\n"
    # A page has no row of what was 0, but that it was received.
    f"    if(maxIf(toUInt32(time), what = '{What.HELD}') = last_s,"
    f" argMaxIf(records, time, what = '{What.HELD}'), 0) AS held\n"
    f"  FROM {BOOKS}\n  WHERE {WITHIN}\n"
    f"    AND stage != '{EXPORTER}' AND what != '{What.SETTLED}'\n"
    f"  GROUP BY stage, {CLUSTER}\n)\n"
    "GROUP BY stage\nORDER BY stage"
)
REASONS = Written(
    f"SELECT stage AS `Stage`, {_NODE} AS `Node`,\n"
    "  if(reason = '', what, reason) AS `Reason`,\n"
    "  sum(records) AS `Records`, min(time) AS `First`, max(time) AS `Last`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND {MISSED}\n"
    "GROUP BY stage, `Node`, `Reason`\n"
    "ORDER BY `Records` DESC, `Stage`, `Node`, `Reason`\nLIMIT 200"
)
SET_ASIDE = Written(
    "SELECT stage AS `Stage`, reason AS `Reason`, sum(records) AS `Records`\n"
    f"FROM {BOOKS}\nWHERE {WITHIN}\n  AND what = '{What.DROPPED}' AND ({_harmless()})"
    " AND records != 0\n"
    "GROUP BY stage, reason\nORDER BY `Records` DESC, `Stage`, `Reason`\nLIMIT 200"
)
BY_NODE = Written(
    f"SELECT {_NODE} AS `Node`,\n"
    "  sum(received) AS `Received`, sum(lost) AS `Lost`, sum(silent) AS `Silent`,"
    " max(heard) AS `Last heard`\n"
    f"FROM (\n  SELECT node, {CLUSTER},\n"
    f"    sumIf(records, what = '{What.RECEIVED}') AS received,\n"
    f"    sumIf(records, what = '{What.LOST}') AS lost,\n"
    f"    sumIf(records, what = '{What.SILENT}') AS silent,\n"
    f"    maxIf(time, what = '{What.RECEIVED}' AND records != 0) AS heard\n"
    f"  FROM {BOOKS}\n  WHERE {WITHIN}\n    AND stage = '{EXPORTER}'\n"
    f"  GROUP BY node, {CLUSTER}\n)\n"
    "GROUP BY `Node`\nORDER BY `Lost` DESC, `Silent` DESC, `Node`\nLIMIT 1000"
)


def over_time(what: What, name: str, columns: str, where: str) -> Written:
    """Return a time series of a number of the books, in records a second.

    `name` is made of `columns`, once these are grouped: of each value there are many rows.
    """
    return Written(
        "SELECT toDateTime(slot) AS time, series, Value\nFROM (\n"
        f"  SELECT slot, {name} AS series, sum(number) / {_SLOT_SECONDS} AS Value\n  FROM (\n"
        f"    SELECT {_SLOT} AS slot, {columns}, sum(records) AS number, max(seconds) AS seconds\n"
        f"    FROM {BOOKS}\n    WHERE {WITHIN}\n      AND what = '{what}' AND {where}\n"
        f"    GROUP BY slot, {columns}\n  )\n"
        "  GROUP BY slot, series\n)\nORDER BY slot, series\nLIMIT 20000"
    )


def series() -> Iterator[tuple[str, str, Written]]:
    """Yield the time series: title, what it is, statement."""
    at_stage = f"stage != '{EXPORTER}'"
    yield (
        "Received by stage", "Records a second that each stage took in",
        over_time(What.RECEIVED, "stage", "stage", at_stage),
    )  # fmt: skip
    yield (
        "Dropped by reason", "Records a second that were given up, losses and others",
        over_time(
            What.DROPPED, "concat(stage, ': ', reason)", "stage, reason",
            f"{at_stage} AND records != 0",
        ),
    )  # fmt: skip
    yield (
        "Received by node", "Records a second that each node's exporter sent",
        over_time(What.RECEIVED, _NODE, f"node, {CLUSTER}", f"stage = '{EXPORTER}'"),
    )  # fmt: skip
    yield (
        "Lost by node", "Records a second that never came, by the sequence numbers",
        over_time(
            What.LOST, _NODE, f"node, {CLUSTER}", f"stage = '{EXPORTER}' AND records != 0"
        ),
    )  # fmt: skip
