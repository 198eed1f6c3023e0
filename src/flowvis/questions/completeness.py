"""Whether an answer is all there is: what the books say of its range.

Something is missing where a stage gave up records that somebody wanted, where records of a node
never came by their sequence numbers, where a node had no session, and where there are no books.

Several clusters may have one store, each with an aggregator of its own: then books of one say
nothing of another. Pages without a cluster, of programs before, are taken for those of all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from flowvis.clickhouse.schema.books import CLUSTER, EXPORTER, BookEntry, What
from flowvis.clickhouse.schema.tables import BOOKS, TABLE
from flowvis.questions.planner import RECORDS_TTL, SLACK_S, Reading
from flowvis.questions.statement import Plan, Statement
from flowvis.questions.times import TimeRange
from flowvis.runtime.dropped import reason_of

LONGEST_S = 3600
"""Of a page's interval: longer where the store was away. Rarely more, then its books are not found
by what lies within it."""
EARLY_S = 300
"""How much older than the first aggregator records may be, which their exporters kept for it."""
MISSED_S = 7 * 86_400
"""How long a cluster is missed after its last page: over days off as well, until somebody looks.
One that was taken down on purpose is not missed for ever."""
BETWEEN_S, LOOK_S = 7200, 120
"""Which clusters there were before a range, two minutes of every two hours tell: a page is of one.
To read all pages of a week would cost eight times as much."""
LATE_S = 180
"""How old the last page of another cluster may be: it is of a minute, and was on its way."""
MAX_MISSING = 100
"""Named in an answer; the rest is put together."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that an answer lacks."""

    stage: str
    reason: str
    records: int | None
    """None where nobody can say how many."""
    from_ms: int
    to_ms: int
    text: str
    """In a sentence without an end, for people."""
    node: str = ""
    cluster: str = ""
    """Where there are several."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cluster": self.cluster or None,
            "node": self.node or None,
            "stage": self.stage,
            "reason": self.reason,
            "records": self.records,
            "from": self.from_ms,
            "to": self.to_ms,
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is missing from a range, and what else is to be known of it."""

    missing: Sequence[Missing] = ()
    notes: Sequence[str] = ()

    def with_more(self, other: "Completeness") -> "Completeness":
        """Return what is said of another range as well."""
        notes = dict.fromkeys([*self.notes, *other.notes])
        return Completeness([*self.missing, *other.missing], list(notes))

    def without_nodes(self) -> "Completeness":
        """Return the same for who may not know of nodes: their names are left out."""
        together: dict[tuple[str, str, str, int], Missing] = {}
        for number, each in enumerate(self.missing, 1):
            known = each.cluster, each.stage, each.reason, 0 if each.node else number
            plain = replace(each, node="", text=_of_node("a node", each)) if each.node else each
            before = together.get(known)
            if before is not None:
                plain = replace(
                    plain,
                    records=None
                    if plain.records is None or before.records is None
                    else plain.records + before.records,
                    from_ms=min(plain.from_ms, before.from_ms),
                    to_ms=max(plain.to_ms, before.to_ms),
                )
                plain = replace(plain, text=_of_node("some nodes", plain))
            together[known] = plain
        return Completeness(list(together.values()), self.notes)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        left = len(self.missing) - MAX_MISSING
        more = [f"{left} more of what is missing is not named here"] if left > 0 else []
        return {
            "complete": not self.missing,
            "missing": [each.as_dict() for each in self.missing[:MAX_MISSING]],
            "notes": [*self.notes, *more],
        }


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """What the aggregator knows that its store does not have yet."""

    since_s: int
    """The end of the last page that is stored."""
    now_s: int
    entries: Sequence[BookEntry]
    kept_s: int = 0
    """How long the store keeps books; 0 for ever."""
    writer: str = ""
    """Whose pages are meant: what is stored of them since then is of the entries."""
    cluster: str = ""
    """The id of its cluster; "" while that is not known: then it stands for all."""
    known_as: Sequence[str] = ()
    """All ids that pages of its cluster may have."""


def completeness(
    span: TimeRange,
    uncommitted: Uncommitted | None = None,
    readings: Sequence[Reading] = (),
    wanted: AbstractSet[str] | None = None,
) -> Plan[Completeness]:
    """Return the plan of what the books say of a range, and the tables that were read for it.

    `wanted` are the clusters that it is asked for; None: all.
    """
    within = (
        f"time > toDateTime({span.from_s}) AND time < toDateTime({span.to_s + LONGEST_S})"
        f" AND toUInt32(time) - seconds < {span.to_s}"
    )
    lost = yield _losses(within, uncommitted)
    pages = yield Statement(f"{_runs(within)} UNION ALL {_before(span.from_s)}")
    clusters = _Clusters(uncommitted, wanted)
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


def _losses(within: str, uncommitted: Uncommitted | None) -> Statement:
    """Return the SELECT of what pages say is missing, without what is not committed."""
    known, parameters = "", dict[str, str]()
    if uncommitted is not None and uncommitted.writer:  # a page may be stored meanwhile
        later = f"time > toDateTime({uncommitted.since_s})"
        known = f" AND NOT (writer = {{writer:String}} AND {later})"
        parameters["writer"] = uncommitted.writer
    accounts = f"stage, what, reason, node, {CLUSTER}"
    return Statement(
        f"SELECT {accounts}, sum(records) AS n, min(toUInt32(time) - seconds) AS a,"
        f" max(toUInt32(time)) AS b FROM {BOOKS} WHERE {within}{known}"
        f" AND what IN ('{What.DROPPED}', '{What.LOST}', '{What.SILENT}') AND records != 0"
        f" GROUP BY {accounts} ORDER BY {accounts}",
        parameters,
    )


def _runs(within: str) -> str:
    """Write the SELECT of the times that pages are of, those that follow one another as one.

    A cluster, from and until when; of each there are few, whatever the range.
    """
    pages = (
        f"SELECT {CLUSTER}, toUInt32(time) AS b, min(toUInt32(time) - seconds) AS a FROM {BOOKS}"
        f" WHERE {within} AND what = '{What.RECEIVED}' AND stage != '{EXPORTER}'"
        f" GROUP BY {CLUSTER}, b"
    )
    numbered = (  # a page begins another run where the one that ended before it ended long before
        f"SELECT {CLUSTER}, arraySort(groupArray((b, a))) AS pages,"
        " arrayMap(page -> page.1, pages) AS ends, arrayMap(page -> page.2, pages) AS begins,"
        " arrayPopBack(arrayPushFront(ends, 0)) AS earlier,"
        f" arrayCumSum(arrayMap((a, b) -> a > b + {SLACK_S}, begins, earlier)) AS runs"
        f" FROM ({pages}) GROUP BY {CLUSTER}"
    )
    return (
        f"SELECT {CLUSTER}, toInt64(min(since)) AS a, toInt64(max(until)) AS b FROM ({numbered})"
        f" ARRAY JOIN begins AS since, ends AS until, runs AS run GROUP BY {CLUSTER}, run"
    )


def _before(moment_s: int) -> str:
    """Write the SELECT of which clusters had pages lately before a moment, and of when the last."""
    return (
        f"SELECT {CLUSTER}, toInt64(toUInt32(max(time))) AS a, a AS b FROM {BOOKS}"
        f" WHERE {lately(str(moment_s))} GROUP BY {CLUSTER}"
    )


def lately(moment_s: str) -> str:
    """Return the condition of pages by which it is known which clusters there were at a moment."""
    looks = (  # from an array, as servers refuse table functions to who only reads
        f"SELECT toDateTime({moment_s} - {BETWEEN_S} * intDiv(n, {LOOK_S}) - n % {LOOK_S})"
        f" FROM (SELECT arrayJoin(range({MISSED_S // BETWEEN_S * LOOK_S})) AS n)"
    )
    return f"time IN ({looks})"


class _Clusters:
    """Which clusters there are, and the times that pages are of, of those that are asked for."""

    def __init__(self, uncommitted: Uncommitted | None, wanted: AbstractSet[str] | None) -> None:
        self._own = uncommitted.cluster if uncommitted is not None else ""
        self._now_s = uncommitted.now_s if uncommitted is not None else None
        self._same: Mapping[str, str] = {}
        if uncommitted is not None and self._own:
            self._same = dict.fromkeys(filter(None, uncommitted.known_as), self._own)
        self._wanted = None if wanted is None else set(map(self.of, wanted))
        self._seen: set[str] = set()
        self._pages: dict[str, list[tuple[int, int]]] = {}

    def of(self, cluster: str) -> str:
        """Return the cluster of a page's id, which may be one that we had before."""
        return self._same.get(cluster, cluster)

    def wants(self, cluster: str) -> bool:
        """Whether a cluster is asked for; "": one that is not known, which may be any."""
        return not cluster or self._wanted is None or cluster in self._wanted

    def wanted_ids(self) -> list[str] | None:
        """Return all ids that pages may have of what is asked for; None: any."""
        if self._wanted is None:
            return None
        same = (each for each, name in self._same.items() if name in self._wanted)
        return sorted({"", *self._wanted, *same})

    def add(self, cluster: str, begin_s: int, end_s: int) -> None:
        """Note a time that pages are of; "": of whichever cluster."""
        name = self.of(cluster)
        self._seen.add(name)
        if self.wants(name):
            self._pages.setdefault(name, []).append((begin_s, end_s))

    @property
    def several(self) -> bool:
        """Whether there are two or more."""
        return len(self._seen - {""}) > 1

    def gaps(self, begin_s: int, span: TimeRange) -> Iterator[TimeRange]:
        """Go through the parts of a range, from a second on, that no page is of, whosever."""
        pages = list(chain.from_iterable(self._pages.values()))
        for gap in self._gaps(pages, begin_s, span):
            if not self._is_late("", gap):
                yield gap

    def without_books(
        self, gaps: Sequence[TimeRange], begin_s: int, span: TimeRange
    ) -> list[Missing]:
        """Return what clusters have no pages of, of a range from a second on.

        `gaps` are the parts that no page is of at all: these are named once.
        """
        found = list(self._without(begin_s, span)) if self.several else []
        known = [(each.from_ms, each.to_ms) for each in found]
        for gap in gaps:
            if not any(begin < gap.to_ms and gap.from_ms < end for begin, end in known):
                found.append(_without_books(gap))
        return found

    def _without(self, begin_s: int, span: TimeRange) -> Iterator[Missing]:
        """Go through what each cluster has no pages of, from its first page on."""
        now_s = span.to_s if self._now_s is None else min(self._now_s, span.to_s)
        for cluster in sorted(self._pages.keys() - {""}):
            pages = self._pages[cluster]
            first_s, last_s = min(a for a, _ in pages), max(b for _, b in pages)
            for gap in self._gaps([*pages, *self._pages.get("", ())], begin_s, span):
                taken_down = gap.from_s >= last_s and last_s <= now_s - MISSED_S
                if gap.from_s >= first_s and not taken_down and not self._is_late(cluster, gap):
                    yield _without_books(gap, cluster)

    def _gaps(
        self, pages: Sequence[tuple[int, int]], begin_s: int, span: TimeRange
    ) -> Iterator[TimeRange]:
        if self._now_s is not None and self._now_s < span.to_s:  # nobody has what is to come
            pages = [*pages, (self._now_s, span.to_s)]
        return _gaps(pages, begin_s, span)

    def _is_late(self, cluster: str, gap: TimeRange) -> bool:
        """Whether pages of a time may be on their way, as we do not know of other clusters.

        "": of all that are asked for.
        """
        known = cluster == self._own if cluster else self.wants(self._own)
        return not known and self._now_s is not None and gap.from_s > self._now_s - LATE_S


def _is_before_all(gap: TimeRange, clusters: _Clusters) -> Plan[bool]:
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
    made = Missing(
        account.stage,
        reason or account.what,
        None if account.what is What.SILENT else records,
        account.from_s * 1000,
        account.to_s * 1000,
        f"{records} records were dropped at {account.stage}{_of(account.cluster)}: {meaning}",
        account.node,
        account.cluster,
    )
    return made if account.what is What.DROPPED else replace(
        made, text=_of_node(account.node or "a node", made, records)
    )  # fmt: skip


def _of(cluster: str) -> str:
    return f" of cluster {cluster}" if cluster else ""


def _of_node(who: str, missing: Missing, seconds: int = 0) -> str:
    who += _of(missing.cluster)
    if missing.reason == What.LOST:
        return f"{missing.records} records of {who} never came, by the sequence numbers"
    return f"{who} had no session" + (f" for {seconds} s" if seconds else "")


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


def _gaps(covered: Sequence[tuple[int, int]], at: int, span: TimeRange) -> Iterator[TimeRange]:
    """Go through the parts of a range, from a second on, that no page is of."""
    for begin, end in [*sorted(covered), (span.to_s, span.to_s)]:
        if begin > at + SLACK_S and at < span.to_s:
            yield TimeRange(at * 1000, min(begin, span.to_s) * 1000)
        at = max(at, end)


def _without_books(gap: TimeRange, cluster: str = "") -> Missing:
    text = f"no aggregator{_of(cluster)} kept books for {gap.seconds} s"
    return Missing("aggregator", "no-books", None, gap.from_ms, gap.to_ms, text, cluster=cluster)


def _said(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _notes(uncommitted: Uncommitted, span: TimeRange) -> Iterator[str]:
    if span.to_s < uncommitted.now_s - LONGEST_S:
        return
    held = {entry.stage: entry.records for entry in uncommitted.entries if entry.what is What.HELD}
    waiting = sum(held.get(stage, 0) for stage in ("collector", "correlator", "clickhouse"))
    if waiting:
        yield f"{waiting} records are on their way to the store"
