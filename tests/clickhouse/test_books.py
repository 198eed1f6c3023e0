"""The history of the books: which pages there are, and that each is stored once."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from flowvis.clickhouse.history import PERIOD_S, BookHistory
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.store import Store
from flowvis.clickhouse.writer import Writer
from flowvis.errors import StoreError
from flowvis.questions.completeness import completeness
from flowvis.questions.kept_books import Uncommitted
from flowvis.questions.times import TimeRange
from flowvis.runtime.ledger import Stage
from waiting import PATIENCE_S, until

from .asking import carry_out
from .conftest import MakeStore, admin
from .paged import CASES, Paged, keep_pages
from .samples import flows

T0 = 1_790_000_000


class Counts:
    """Numbers that a test changes."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, What, str, str], int] = {}

    def __call__(self, _: int) -> Iterator[BookEntry]:
        for (stage, what, reason, node), records in self.numbers.items():
            yield BookEntry(stage, what, records, reason, node)


RECEIVED = ("collector", What.RECEIVED, "", "")
DROPPED = ("clickhouse", What.DROPPED, "queue-full", "")
HELD = ("correlator", What.HELD, "", "")


def numbers(page: Page | None) -> dict[tuple[str, str, str, str], int]:
    assert page is not None
    return {entry.account: entry.records for entry in page.entries}


def test_a_page_has_what_was_counted_since_the_last_one() -> None:
    counts = Counts()
    history = BookHistory(counts, "w", T0)
    assert history.page(T0 + PERIOD_S - 1) is None
    counts.numbers = {RECEIVED: 10, DROPPED: 2, HELD: 5}
    page = history.page(T0 + PERIOD_S)
    assert numbers(page) == {RECEIVED: 10, DROPPED: 2, HELD: 5}
    assert page is not None
    assert (page.seconds, page.batch_id) == (PERIOD_S, BatchId("w", T0 + PERIOD_S))
    history.acknowledged(page)
    counts.numbers = {RECEIVED: 10, DROPPED: 5, HELD: 4}
    assert history.page(T0 + PERIOD_S + 59) is None
    # That nothing was received is said, so that there is a page at all.
    assert numbers(history.page(T0 + 2 * PERIOD_S)) == {RECEIVED: 0, DROPPED: 3, HELD: 4}


def test_a_page_of_unknown_fate_stays_as_it_is() -> None:
    counts = Counts()
    history = BookHistory(counts, "w", T0)
    counts.numbers = {RECEIVED: 10}
    page = history.page(T0 + 60)
    repeated = [history.repeated]
    counts.numbers = {RECEIVED: 30}
    assert history.page(T0 + 300) is page
    assert [*repeated, history.repeated] == [False, True]
    assert page is not None
    history.acknowledged(page)
    assert numbers(history.page(T0 + 300)) == {RECEIVED: 20}


def test_what_a_store_refuses_goes_into_the_next_page() -> None:
    counts = Counts()
    history = BookHistory(counts, "w", T0)
    counts.numbers = {RECEIVED: 10}
    page = history.page(T0 + 60)
    assert page is not None
    history.refused(page)
    assert history.page(T0 + 61) is None
    counts.numbers = {RECEIVED: 15}
    after = history.page(T0 + 120)
    assert numbers(after) == {RECEIVED: 15}
    assert after is not None
    assert after.seconds == 120


def test_a_count_that_began_anew() -> None:
    counts = Counts()
    history = BookHistory(counts, "w", T0)
    counts.numbers = {RECEIVED: 100}
    page = history.page(T0 + 60)
    assert page is not None
    history.acknowledged(page)
    counts.numbers = {RECEIVED: 7}
    assert numbers(history.page(T0 + 120)) == {RECEIVED: 7}
    assert [entry.records for entry in history.since(T0 + 121)] == [7]


def test_a_clock_that_was_set_back_hides_and_repeats_no_numbers() -> None:
    counts = Counts()
    history = BookHistory(counts, "w", T0)
    counts.numbers = {RECEIVED: 10}
    page = history.page(T0 + 7200)
    assert page is not None
    history.acknowledged(page)
    counts.numbers = {RECEIVED: 30}
    assert history.page(T0 + 7150) is None  # by less than a page: it waits
    assert history.page(T0 + 40) is None  # as at the beginning
    assert (history.last_s, [entry.records for entry in history.since(T0 + 41)]) == (T0 + 39, [20])
    page = history.page(T0 + 100)
    assert numbers(page) == {RECEIVED: 20}
    assert page is not None
    assert (page.seconds, page.batch_id) == (61, BatchId("w-1", T0 + 100))
    assert history.writer == "w-1"  # so that of the first one's pages none is later than the last
    history.acknowledged(page)
    counts.numbers = {RECEIVED: 45}
    page = history.page(T0 + 95, last=True)
    assert numbers(page) == {RECEIVED: 15}
    assert page is not None
    assert page.batch_id == BatchId("w-2", T0 + 95)


def test_a_page_is_of_the_cluster_that_is_known_as_it_is_made() -> None:
    counts, known = Counts(), [""]
    counts.numbers = {RECEIVED: 1}
    history = BookHistory(counts, "w", T0, lambda: known[0])
    pages = []
    for minute, cluster in ((1, ""), (2, "east"), (2, "west"), (3, "west")):
        known[0] = cluster
        page = history.page(T0 + 60 * minute)
        assert page is not None
        pages.append(page.cluster)
        if (minute, cluster) != (2, "east"):  # else it is repeated as it was
            history.acknowledged(page)
    assert pages == ["", "east", "east", "west"]


def _page(seconds: int = 60, end_s: int = T0 + 60, cluster: str = "") -> Page:
    entries = [
        BookEntry("collector", What.RECEIVED, 10),
        BookEntry("correlator", What.DROPPED, 2, "full"),
        BookEntry("exporter", What.LOST, 3, node="n1"),
    ]
    return Page(BatchId(f"w-books{cluster}", end_s), seconds, entries, cluster)


@pytest.mark.clickhouse
def test_a_page_is_stored_once(store: Store) -> None:
    store.keep(_page(cluster="-7"))
    store.keep(_page(cluster="-7"), again=True)
    found = store.query(
        "SELECT toUInt32(time), seconds, stage, what, reason, node, records, writer, clusterUUID"
        " FROM flow_books ORDER BY stage"
    )
    assert found.rows == [
        [T0 + 60, 60, "collector", "received", "", "", 10, "w-books-7", "-7"],
        [T0 + 60, 60, "correlator", "dropped", "full", "", 2, "w-books-7", "-7"],
        [T0 + 60, 60, "exporter", "lost", "", "n1", 3, "w-books-7", "-7"],
    ]


@pytest.mark.clickhouse
def test_completeness_of_what_is_stored(store: Store) -> None:
    """A page is of a range that its interval has a part in, from whichever side."""
    for minute in (1, 2, 3):
        store.keep(_page(end_s=T0 + 60 * minute))
    for span, records in (
        ((30, 45), 2), ((0, 180), 6), ((59, 61), 4), ((120, 150), 2),
    ):  # fmt: skip
        asked = TimeRange(*((T0 + each) * 1000 for each in span))
        found = carry_out(store, completeness(asked))
        assert [(m.stage, m.reason, m.node, m.records) for m in found.missing] == [
            ("correlator", "full", "", records), ("exporter", "lost", "n1", records // 2 * 3),
        ], span  # fmt: skip
    after = carry_out(store, completeness(TimeRange((T0 + 180) * 1000, (T0 + 240) * 1000)))
    assert [missing.reason for missing in after.missing] == ["no-books"]


@pytest.mark.clickhouse
@pytest.mark.parametrize("paged", CASES.values(), ids=CASES.keys())
def test_books_of_one_cluster_say_nothing_of_another(store: Store, paged: Paged) -> None:
    keep_pages(store, paged.minutes)
    asked = TimeRange(*((T0 + 60 * each) * 1000 for each in paged.span))
    found = carry_out(store, completeness(asked)).missing
    assert [(m.cluster, m.from_ms // 1000 - T0, m.to_ms // 1000 - T0) for m in found] == [
        (cluster, 60 * begin, 60 * end) for cluster, begin, end in paged.without
    ]


@pytest.mark.clickhouse
def test_what_an_aggregator_has_not_stored_yet_is_of_its_own_cluster(store: Store) -> None:
    """Those of other clusters may be on their way for three minutes."""
    keep_pages(store, {"east": range(-200, 11), "west": range(-200, 8), "north": range(-200, 11)})
    now_s = T0 + 60 * 12
    asked = TimeRange(T0 * 1000, (T0 + 86_400) * 1000)
    for cluster, minute, missed in (
        ("east", 10, ["west"]), ("west", 7, []), ("north", 10, ["west"]), ("", 7, []),
    ):  # fmt: skip
        own = Uncommitted(T0 + 60 * minute, now_s, [], writer=f"w-{cluster}", cluster=cluster)
        found = carry_out(store, completeness(asked, own)).missing
        assert [(m.cluster, m.to_ms) for m in found] == [(each, now_s * 1000) for each in missed]


@pytest.mark.clickhouse
def test_a_range_may_have_any_number_of_pages(store: Store) -> None:
    """More than there may be rows in an answer."""
    days, away = 40, 1000
    for day in range(days):
        minutes = range(1440 * day + 1, 1440 * (day + 1) + 1)
        keep_pages(store, {"east": [minute for minute in minutes if minute != away]})
    asked = TimeRange(T0 * 1000, (T0 + days * 86_400) * 1000)
    (missing,) = carry_out(store, completeness(asked)).missing
    assert missing.from_ms == (T0 + 60 * (away - 1)) * 1000
    assert missing.text == "no aggregator kept books for 60 s"


@pytest.mark.clickhouse
def test_what_is_stored_while_a_question_waits_counts_once(store: Store) -> None:
    """A page that was not stored when it was asked for what is not; others have their own pages."""
    counts = Counts()
    counts.numbers = {RECEIVED: 10, DROPPED: 2}
    history = BookHistory(counts, "w-books", T0)
    before = Uncommitted(T0, T0 + 61, history.since(T0 + 61), writer=history.writer)
    page = history.page(T0 + 60)
    assert page is not None
    store.keep(page)
    store.keep(Page(BatchId("other", T0 + 60), 60, [BookEntry(*DROPPED[:2], 5, DROPPED[2])]))
    asked = TimeRange(T0 * 1000, (T0 + 61) * 1000)
    history.acknowledged(page)
    after = Uncommitted(T0 + 60, T0 + 61, history.since(T0 + 61), writer=history.writer)
    for uncommitted in (before, after):
        (missing,) = carry_out(store, completeness(asked, uncommitted)).missing
        assert missing.records == 7


@pytest.mark.clickhouse
async def test_a_writer_keeps_the_books_beside_the_records(make_store: MakeStore) -> None:
    counts, now = Counts(), [T0]
    counts.numbers = {RECEIVED: 10}
    store = make_store()
    history = BookHistory(counts, "w-books", T0)
    writer = Writer(
        store,
        Stage("clickhouse"),
        commit_interval_s=0.01,
        clock=lambda: float(now[0]),
        books=history,
    )
    await writer.start()
    writer.put(flows(5))
    await until(lambda: writer.stats.commits == 1)
    assert history.last_s == T0
    now[0] = T0 + 60
    await until(lambda: history.last_s == T0 + 60)
    counts.numbers = {RECEIVED: 25, DROPPED: 1}
    now[0] = T0 + 75
    await writer.stop()
    reader = make_store()
    rows = reader.query("SELECT seconds, what, records FROM flow_books ORDER BY time, what").rows
    assert rows == [[60, "received", 10], [15, "dropped", 1], [15, "received", 15]]
    assert reader.query("SELECT count() FROM flows").rows == [[5]]


class Refusing:
    """A store that has no room for books for a while."""

    name = "refusing"
    kept = Retention(0, 0, 0)
    rollups = None
    partitions = None

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.settled: dict[str, int] = {}
        self.ttls: Mapping[str, int] = {}
        self.begins: dict[str, int] = {}
        self.lost: Sequence[Lost] = ()
        self.pages: list[tuple[Page, bool]] = []
        self.records = 0

    def migrate(self) -> list[str]:
        return []

    def insert(self, batch: Any, _: BatchId, **__: Any) -> None:
        self.records += len(batch)

    def keep(self, page: Page, *, again: bool = False) -> None:
        self.pages.append((page, again))
        if self.errors:
            raise self.errors.pop(0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "same"),
    [
        (StoreError("away", retryable=True), True),
        (StoreError("no such type", retryable=False), False),
        (RuntimeError("a defect"), False),
    ],
)
async def test_records_are_stored_whatever_becomes_of_the_books(
    error: Exception, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowvis.clickhouse.writer.FIRST_PAUSE_S", 0.01)
    counts, now = Counts(), [T0 + 60]
    counts.numbers = {RECEIVED: 10}
    store = Refusing([error])
    history = BookHistory(counts, "w", T0)
    writer = Writer(
        store,  # type: ignore[arg-type]  # as much of one as a writer needs
        Stage("clickhouse"),
        commit_interval_s=0.01,
        clock=lambda: float(now[0]),
        books=history,
    )
    await writer.start()
    await until(lambda: store.pages)
    writer.put(flows(5))
    await until(lambda: store.records == 5)
    now[0] = T0 + 120
    await until(lambda: history.last_s > T0)
    await asyncio.wait_for(writer.stop(), PATIENCE_S)
    (first, again), (second, repeated), *_ = store.pages
    assert not again
    assert (first is second, repeated) == (same, same)
    assert sum(numbers(second).values()) == 10


@pytest.mark.clickhouse
def test_a_database_from_before_gets_its_books(store: Store) -> None:
    admin(store)(f"DROP TABLE {store._settings.database}.flow_books")  # type: ignore[attr-defined]
    store.migrate()
    store.keep(_page())
    assert store.query("SELECT count() FROM flow_books").rows == [[3]]
