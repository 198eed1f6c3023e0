"""Records that go by their age before they are rolled up: what the roll-ups lack is told."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.monitor import Monitor
from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema.books import BookEntry, Page, What
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import MINUTES
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import Store, open_store
from flowvis.errors import StoreError
from flowvis.questions.planner import Stored, reading
from flowvis.questions.times import TimeRange

from .samples import flows

TTL_S = 7200
ROWS = 100
NOW_S = int(time.time())
"""The engine's own clock decides what expires."""
OLD_S = [NOW_S - 5 * 3600, NOW_S - 4 * 3600]
"""When batches were committed that are gone, and of two hours."""
THERE_S = NOW_S - 600

pytestmark = pytest.mark.clickhouse


class Aged:
    """A store whose roller has not come to batches that are older than records become."""

    def __init__(self, embedded: EmbeddedStore) -> None:
        self.roller = Roller(embedded, "test")
        for at_s in (*OLD_S, THERE_S):
            batch, batch_id = flows(ROWS, end_s=at_s - 2 * ROWS), BatchId("test", at_s)
            ends = batch["flowEndSeconds"]
            self.roller.begin(StoredBatch(batch_id, ROWS, int(ends.min()), int(ends.max())))
            embedded.insert(batch, batch_id)
            self.roller.stored()
        self.settings = replace(embedded._settings, ttl_s=TTL_S)
        self.store = self.opened()
        self.roller._store = self.roller._expired._store = self.store

    def opened(self) -> EmbeddedStore:
        """What the next process opens."""
        store = open_store(self.settings)
        assert isinstance(store, EmbeddedStore)
        store.migrate()
        return store

    def expire(self) -> None:
        """Let the engine drop what is too old, as it does by and by."""
        self.store._execute(f"OPTIMIZE TABLE {self.settings.database}.{TABLE} FINAL")
        assert self.count(TABLE, "count()") == ROWS

    def look(self) -> None:
        self.roller._expired._looked_at_s = 0.0  # a minute has gone by
        asyncio.run(self.roller.look(everything=True))

    def count(self, table: str, what: str = "sum(records)") -> int:
        return int(
            self.store._execute(f"SELECT {what} FROM {self.settings.database}.{table}")[0][0]
        )

    def lost(self, store: Store | None = None) -> list[Lost]:
        """What an answer of the last six hours says that roll-ups lack."""
        store = self.store if store is None else store
        settled = dict.fromkeys((MINUTES.name,), NOW_S * 1000)
        stored = Stored.of(store.kept, settled, NOW_S * 1000, store.lost)
        span = TimeRange((NOW_S - 6 * 3600) * 1000, NOW_S * 1000)
        return list(reading(span, stored, frozenset()).lost)


@pytest.fixture
def aged(embedded: Store) -> Iterator[Aged]:
    assert isinstance(embedded, EmbeddedStore)
    aged = Aged(embedded)
    yield aged
    aged.store.close()


EXPECTED = [Lost(at_s, at_s + 1, ROWS, expired=True) for at_s in OLD_S]


def test_what_went_before_it_was_rolled_is_told_once(
    aged: Aged, caplog: pytest.LogCaptureFixture
) -> None:
    aged.expire()
    aged.look()
    assert aged.count(MINUTES.name) == ROWS
    assert aged.roller.stats.expired_records == 2 * ROWS
    assert aged.roller.stats.records == 2 * ROWS, "for each of the two tables"
    assert aged.roller.as_dict()["expiredRecords"] == 2 * ROWS
    assert caplog.text.count(f"{ROWS} records that were committed from") == 2
    assert aged.lost() == EXPECTED
    assert aged.store.settled[MINUTES.name] > (NOW_S - 3600) * 1000, "nothing is waited for"
    aged.look()
    assert aged.roller.stats.expired_records == 2 * ROWS
    again = aged.opened()
    assert aged.lost(again) == EXPECTED, "the next process knows"
    assert again.begins == {}, "no table is shorter for it"
    asyncio.run(Monitor(again).look())
    assert aged.lost(again) == EXPECTED
    again.close()


@pytest.mark.parametrize("who", ["this process", "another"])
def test_what_is_too_old_and_still_there_is_rolled(aged: Aged, who: str) -> None:
    if who == "another":  # which finds it there
        aged.roller = Roller(aged.store, "another")
    aged.look()
    assert aged.count(MINUTES.name) == 3 * ROWS
    aged.expire()
    aged.look()
    assert aged.count(MINUTES.name) == 3 * ROWS
    assert aged.lost() == []


def test_what_went_while_no_process_was_there_is_told_by_the_books(aged: Aged) -> None:
    """Killed before it rolled anything, and away for longer than records are kept."""
    stored = [BookEntry("clickhouse", What.SENT, ROWS)]
    for at_s in (*OLD_S, THERE_S):
        aged.store.keep(Page(BatchId("test", at_s + 50), 60, stored))
    aged.expire()
    expected = [Lost(OLD_S[0] - 10, OLD_S[1] + 50, 2 * ROWS, expired=True)]
    for told in (2 * ROWS, 0):
        aged.roller = Roller(aged.store, "another")
        aged.look()
        assert aged.roller.stats.expired_records == told
        assert aged.lost() == expected
        aged.store = aged.opened()
    assert aged.count(MINUTES.name) == ROWS


@pytest.mark.parametrize("ttl_s", [0, TTL_S, 24 * 3600])
def test_what_was_rolled_or_is_kept_is_not_told_by_the_books(aged: Aged, ttl_s: int) -> None:
    for at_s in (*OLD_S, THERE_S):
        page = Page(BatchId("test", at_s + 50), 60, [BookEntry("clickhouse", What.SENT, ROWS)])
        aged.store.keep(page)
    if ttl_s == TTL_S:
        aged.look()
        aged.expire()
    aged.settings = replace(aged.settings, ttl_s=ttl_s)
    aged.store = aged.opened()
    aged.roller = Roller(aged.store, "another")
    aged.look()
    assert aged.roller.stats.expired_records == 0
    assert aged.lost() == []


class Slow(RollupTables):
    """Tables whose records go while they are rolled, or whose rolls fail."""

    def __init__(self, aged: Aged, *, fails: bool = False) -> None:
        tables = aged.store.rollups
        assert tables is not None
        super().__init__(tables._execute, tables._layout, alone=True)
        self.aged = aged
        self.fails = fails

    def roll(self, roll: Roll) -> None:
        if self.fails:
            raise StoreError("no memory", retryable=True)
        self.aged.expire()
        super().roll(roll)


def test_what_goes_while_it_is_rolled(aged: Aged) -> None:
    aged.store.rollups = Slow(aged)
    aged.look()
    assert aged.count(MINUTES.name) == ROWS
    assert aged.roller.stats.expired_records == 2 * ROWS, "once for both roll-ups"
    assert aged.lost() == EXPECTED


def test_what_goes_while_rolling_fails_is_noted_as_it_goes(aged: Aged) -> None:
    """Whoever comes after a kill cannot find it."""
    aged.store.rollups = Slow(aged, fails=True)
    for expired in (False, True, True):
        if expired:
            aged.expire()
        with pytest.raises(StoreError, match="no memory"):
            aged.look()
        assert aged.lost() == (EXPECTED if expired else [])
    assert aged.lost(aged.opened()) == EXPECTED
    aged.store.rollups = Slow(aged)
    aged.look()
    assert aged.count(MINUTES.name) == ROWS
    assert aged.roller.stats.expired_records == 2 * ROWS


def test_what_the_monitor_dropped_is_not_told_again(aged: Aged) -> None:
    aged.expire()
    aged.store.lost = [
        Lost(at_s // 3600 * 3600, at_s // 3600 * 3600 + 3600, ROWS) for at_s in OLD_S
    ]
    aged.look()
    assert aged.roller.stats.expired_records == 0


def test_what_is_found_while_the_monitor_looks_stays_known(
    aged: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = aged.store.partitions
    assert stored is not None
    ask = stored.lost

    def lost() -> list[Lost]:
        found = ask()
        aged.expire()
        aged.look()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(stored, "lost", lost)
        asyncio.run(Monitor(aged.store).look())
    assert aged.lost() == EXPECTED
