"""Whether an answer is all there is: what the books say of its range.

Something is missing where a stage gave up records that somebody wanted, where records of a node
never came by their sequence numbers, where a node had no session, and where there are no books.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from flowvis.clickhouse.schema.books import CLUSTER, What
from flowvis.clickhouse.schema.tables import BOOKS, TABLE
from flowvis.questions.kept_books import LONGEST_S, Clusters, Uncommitted, pages_of, within
from flowvis.questions.missing import Completeness, Missing, of_cluster, of_node
from flowvis.questions.planner import RECORDS_TTL, SLACK_S, Reading
from flowvis.questions.statement import Plan, Statement
from flowvis.questions.times import TimeRange
from flowvis.runtime.dropped import reason_of

EARLY_S = 300
"""How much older than the first aggregator records may be, which their exporters kept for it."""
AHEAD_S = 60
"""As far as the clock of somebody who asks may be ahead: what he calls now is not the future."""


def completeness(
    span: TimeRange,
    uncommitted: Uncommitted | None = None,
    readings: Sequence[Reading] = (),
    wanted: AbstractSet[str] | None = None,
) -> Plan[Completeness]:
    """Return the plan of what the books say of a range, and the tables that were read for it.

    `wanted` are the clusters that it is asked for; None: all.
    """
    lost = yield _losses(span, uncommitted)
    pages = yield pages_of(span)
    clusters = Clusters(uncommitted, wanted)
    for cluster, a, b in pages.rows:
        clusters.add(cluster, int(a), int(b))
    found = [
        _Account(stage, What(what), reason, node, clusters.of(cluster), int(n), int(a), int(b))
        for stage, what, reason, node, cluster, n, a, b in lost.rows
    ]
    notes: list[str] = []
    if uncommitted is not None:
        own = uncommitted.cluster
        if uncommitted.since_s < span.to_s:  # of what is to come nothing is missing
            clusters.add(own, uncommitted.since_s, max(uncommitted.now_s, span.to_s))
        if uncommitted.since_s < span.to_s and span.from_s < uncommitted.now_s:
            found += _live(uncommitted)
        if span.from_s < uncommitted.now_s and clusters.wants(own):
            notes += _notes(uncommitted, span)
        if span.to_s > uncommitted.now_s + AHEAD_S:
            notes.append(f"it is {_said(uncommitted.now_s)}: what comes after is not known yet")
    found = [each for each in found if clusters.wants(each.cluster)]
    if not clusters.several:
        found = [replace(each, cluster="") for each in found]
    notes += dict.fromkeys(filter(None, map(_coarse, readings)))
    expired = list(_expired(readings))
    begin_s = span.from_s
    if uncommitted is not None and uncommitted.kept_s:
        begin_s = max(begin_s, min(uncommitted.now_s - uncommitted.kept_s, span.to_s))
        if begin_s > span.from_s + SLACK_S and not any(
            each.to_ms >= begin_s * 1000 for each in expired
        ):
            notes.append(f"what is missing of before {_said(begin_s)} is not known any more")
    gaps = list(clusters.gaps(begin_s, span))
    if gaps and gaps[0].from_s == begin_s and (yield from _is_before_all(gaps[0], clusters)):
        notes.append(f"there is nothing of before {_said(gaps.pop(0).to_s)}")
    lost_at_stages = filter(None, map(_missing, _together(found)))
    without = clusters.without_books(gaps, begin_s, span)
    missing = [*expired, *_unrolled(readings), *without, *lost_at_stages]
    return Completeness(missing, notes)


def _losses(span: TimeRange, uncommitted: Uncommitted | None) -> Statement:
    """Return the SELECT of what pages say is missing, without what is not committed."""
    known, parameters = "", dict[str, str]()
    if uncommitted is not None and uncommitted.writer:  # a page may be stored meanwhile
        later = f"time > toDateTime({uncommitted.since_s})"
        known = f" AND NOT (writer = {{writer:String}} AND {later})"
        parameters["writer"] = uncommitted.writer
    accounts = f"stage, what, reason, node, {CLUSTER}"
    return Statement(
        f"SELECT {accounts}, sum(records) AS n, min(toUInt32(time) - seconds) AS a,"
        f" max(toUInt32(time)) AS b FROM {BOOKS} WHERE {within(span)}{known}"
        f" AND what IN ('{What.DROPPED}', '{What.LOST}', '{What.SILENT}') AND records != 0"
        f" GROUP BY {accounts} ORDER BY {accounts}",
        parameters,
    )


def _is_before_all(gap: TimeRange, clusters: Clusters) -> Plan[bool]:
    """Find out whether a time without books is one before there was anything at all."""
    ids = clusters.wanted_ids()
    chosen = "" if ids is None else f" AND {CLUSTER} IN {{ids:Array(String)}}"
    parameters = {} if ids is None else {"ids": tuple(ids)}
    before = yield Statement(
        f"SELECT count() AS n FROM {BOOKS} WHERE time <= toDateTime({gap.from_s}){chosen}",
        parameters,
    )
    if int(before.rows[0][0]):
        return False
    if gap.seconds <= EARLY_S:
        return True
    older = TimeRange(gap.from_ms, gap.to_ms - EARLY_S * 1000)
    records = yield Statement(
        f"SELECT 1 FROM {TABLE} WHERE {older.condition()}{chosen} LIMIT 1", parameters
    )
    return not records.rows


@dataclass(frozen=True, slots=True)
class _Account:
    """What the books have under one account."""

    stage: str
    what: What
    reason: str
    node: str
    cluster: str
    records: int
    from_s: int
    to_s: int


def _live(uncommitted: Uncommitted) -> Iterator[_Account]:
    for entry in uncommitted.entries:
        if entry.what in {What.DROPPED, What.LOST, What.SILENT} and entry.records:
            yield _Account(
                entry.stage, entry.what, entry.reason, entry.node, uncommitted.cluster,
                entry.records, uncommitted.since_s, uncommitted.now_s,
            )  # fmt: skip


def _together(accounts: Iterable[_Account]) -> Iterable[_Account]:
    """Put together what is stored and what is not of each account."""
    found: dict[tuple[str, ...], _Account] = {}
    for each in accounts:
        key = (each.stage, each.what, each.reason, each.node, each.cluster)
        before = found.get(key)
        found[key] = (
            each
            if before is None
            else replace(
                before,
                records=before.records + each.records,
                from_s=min(before.from_s, each.from_s),
                to_s=max(before.to_s, each.to_s),
            )
        )
    return found.values()


def _missing(account: _Account) -> Missing | None:
    """Return what an account says is missing; None where it says that nothing is."""
    reason, records = account.reason, account.records
    meaning = ""
    if account.what is What.DROPPED:
        known = reason_of(account.stage, reason)
        if known is not None and not known.is_loss:
            return None
        meaning = known.meaning if known is not None else reason
    where = account.stage + of_cluster(account.cluster)
    made = Missing(
        account.stage,
        reason or account.what,
        None if account.what is What.SILENT else records,
        account.from_s * 1000,
        account.to_s * 1000,
        f"{records} records were dropped at {where}: {meaning}",
        account.node,
        account.cluster,
    )
    return made if account.what is What.DROPPED else replace(
        made, text=of_node(account.node or "a node", made, records)
    )  # fmt: skip


def _expired(readings: Iterable[Reading]) -> Iterator[Missing]:
    """Go through the parts of ranges that are kept no more, put together by why."""
    by_why: dict[str, list[TimeRange]] = {}
    for reading in readings:
        if reading.gone is not None:
            by_why.setdefault(reading.why, []).append(reading.gone)
    for why, gone in by_why.items():
        begin_ms, end_ms = min(each.from_ms for each in gone), max(each.to_ms for each in gone)
        yield Missing("clickhouse", "expired", None, begin_ms, end_ms, why)


def _unrolled(readings: Iterable[Reading]) -> Iterator[Missing]:
    """Say what the roll-ups lack that was read in place of records, once however often it was."""
    known = dict.fromkeys(each for reading in readings for each in reading.lost)
    for expired, why in (
        (False, "were dropped for lack of room"),
        (True, f"went by {RECORDS_TTL}"),
    ):
        lost = [each for each in known if each.expired == expired]
        if not lost:
            continue
        records = sum(each.records for each in lost)
        begin_s, end_s = min(each.begin_s for each in lost), max(each.end_s for each in lost)
        text = f"{records} records {why} before they were rolled up: roll-ups lack them"
        yield Missing("clickhouse", "unrolled", records, begin_s * 1000, end_s * 1000, text)
    late = [each.unsettled for each in readings if each.unsettled is not None]
    if late:
        begin_ms, end_ms = min(each.from_ms for each in late), max(each.to_ms for each in late)
        text = f"roll-ups have not got all of it yet, and records may have gone by {RECORDS_TTL}"
        yield Missing("clickhouse", "unrolled", None, begin_ms, end_ms, text)


def _coarse(reading: Reading) -> str:
    """Say which range was read in place of another; "": the range itself."""
    if reading.coarse is None:
        return ""
    begin, end = _said(reading.coarse.from_s), _said(reading.coarse.to_s)
    return f"this is of {begin} to {end}: of so long ago there are whole minutes or hours only"


def _said(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _notes(uncommitted: Uncommitted, span: TimeRange) -> Iterator[str]:
    if span.to_s < uncommitted.now_s - LONGEST_S:
        return
    held = {entry.stage: entry.records for entry in uncommitted.entries if entry.what is What.HELD}
    waiting = sum(held.get(stage, 0) for stage in ("collector", "correlator", "clickhouse"))
    if waiting:
        yield f"{waiting} records are on their way to the store"
