"""Which clusters have kept books, and of which times.

Several clusters may have one store, each with an aggregator of its own: then books of one say
nothing of another. Pages without a cluster, of programs before, are taken for those of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

from flowvis.clickhouse.schema.books import CLUSTER, EXPORTER, BookEntry, What
from flowvis.clickhouse.schema.tables import BOOKS
from flowvis.questions.missing import Missing, without_books
from flowvis.questions.planner import SLACK_S
from flowvis.questions.statement import Statement
from flowvis.questions.times import TimeRange

LONGEST_S = 3600
"""Of a page's interval: longer where the store was away. Rarely more, then its books are not found
by what lies within it."""
MISSED_S = 7 * 86_400
"""How long a cluster is missed after its last page: over days off as well, until somebody looks.
One that was taken down on purpose is not missed for ever."""
BETWEEN_S, LOOK_S = 7200, 120
"""Which clusters there were before a range, two minutes of every two hours tell: a page is of one.
To read all pages of a week would cost eight times as much."""
LATE_S = 180
"""How old the last page of another cluster may be: it is of a minute, and was on its way."""


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


def within(span: TimeRange) -> str:
    """Return the condition of pages that are of a range, or of a part of it."""
    return (
        f"time > toDateTime({span.from_s}) AND time < toDateTime({span.to_s + LONGEST_S})"
        f" AND toUInt32(time) - seconds < {span.to_s}"
    )


def pages_of(span: TimeRange) -> Statement:
    """Ask for the times that pages of a range are of, and who had some lately before it.

    Rows are a cluster, from and until when (s).
    """
    return Statement(f"{_runs(within(span))} UNION ALL {_before(span.from_s)}")


def _runs(chosen: str) -> str:
    """Write the SELECT of the times that pages are of, those that follow one another as one.

    A cluster, from and until when; of each there are few, whatever the range.
    """
    pages = (
        f"SELECT {CLUSTER}, toUInt32(time) AS b, min(toUInt32(time) - seconds) AS a FROM {BOOKS}"
        f" WHERE {chosen} AND what = '{What.RECEIVED}' AND stage != '{EXPORTER}'"
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


class Clusters:
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
                found.append(without_books(gap))
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
                    yield without_books(gap, cluster)

    def _gaps(
        self, pages: Sequence[tuple[int, int]], begin_s: int, span: TimeRange
    ) -> Iterator[TimeRange]:
        if self._now_s is not None and self._now_s < span.to_s:  # nobody has what is to come
            pages = [*pages, (self._now_s, span.to_s)]
        return _gaps(pages, begin_s, span)

    def _is_late(self, cluster: str, gap: TimeRange) -> bool:
        """Whether pages of a time may be on their way, as we do not know of other clusters.

        "": of all that are asked for; what is ours of it is said of us.
        """
        others = self._own and self._pages.keys() - {"", self._own}
        known = cluster == self._own if cluster else self.wants(self._own) and not others
        return not known and self._now_s is not None and gap.from_s > self._now_s - LATE_S


def _gaps(covered: Sequence[tuple[int, int]], at: int, span: TimeRange) -> Iterator[TimeRange]:
    """Go through the parts of a range, from a second on, that no page is of."""
    for begin, end in [*sorted(covered), (span.to_s, span.to_s)]:
        if begin > at + SLACK_S and at < span.to_s:
            yield TimeRange(at * 1000, min(begin, span.to_s) * 1000)
        at = max(at, end)
