"""A store stays within its disk, and its size: the oldest goes, and all that went is told."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.clickhouse import monitor as monitor_module
from flowvis.clickhouse import server as server_module
from flowvis.clickhouse.growth import LOOKS, Fill, Inserted
from flowvis.clickhouse.monitor import Monitor, MonitorSettings
from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.room import (
    LEAST_S,
    NEWEST_S,
    Limits,
    choose,
    choose_newest,
    excess,
    whole,
    with_unrolled,
)
from flowvis.clickhouse.schema.dropped import DROPPED, Lost, Outcome
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.partitions import WATCHED, Disk, Partition, Server
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES
from flowvis.clickhouse.schema.tables import BOOKS, TABLE
from flowvis.clickhouse.server import ServerStore
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.clickhouse.stored_partitions import NO_ROOM
from flowvis.errors import StoreError
from waiting import LONG_S

from .conftest import admin
from .samples import flows

HOUR = 497_222  # since the epoch: 21 September 2026, 14:00
NOW_S = (HOUR + 6) * 3600 + 60
DAY_S = 86_400
ROWS = 2_000


def part(
    table: str, begin_s: int, size: int, *, span_s: int = 3600, unrolled: int = 0
) -> Partition:
    return Partition(table, f"{begin_s}", begin_s, begin_s + span_s, 10, size, unrolled)


def test_what_is_too_much() -> None:
    limits = Limits(0.8, 0.1, 0)
    assert excess(limits, 500, [Disk("a", 200, 1000)]).bytes == 0
    assert excess(limits, 500, [Disk("a", 199, 1000)]).bytes == 50, "a tenth of the store's"
    assert excess(limits, 500, [Disk("a", 100, 1000)]).bytes == 100
    assert excess(limits, 500, [Disk("a", 600, 1000), Disk("b", 120, 1000)]).bytes == 80
    assert "disk b is 88% full" in excess(limits, 500, [Disk("b", 120, 1000)]).why
    foreign = excess(limits, 60, [Disk("a", 100, 1000)])
    assert (foreign.bytes, foreign.foreign) == (0, True)
    sized = replace(limits, max_bytes=1000)
    assert excess(sized, 800, []).bytes == 0
    assert excess(sized, 850, []).bytes == 85
    assert excess(sized, 1200, []).bytes == 400
    assert excess(limits, 10**12, []).bytes == 0, "of a disk that nobody knows"
    assert excess(limits, 0, [Disk("a", 0, 0)]).bytes == 0


def test_what_merges_have_replaced_is_given_back_unless_it_is_urgent() -> None:
    limits = Limits(0.8, 0.1, 0)
    assert excess(limits, 500, [Disk("a", 150, 1000)], replaced=60).bytes == 0
    assert excess(limits, 500, [Disk("a", 101, 1000)], replaced=60).urgent is False
    found = excess(limits, 300, [Disk("a", 80, 1000)], replaced=550)
    assert (found.bytes, found.urgent, found.foreign) == (120, True, False)
    assert not excess(limits, 300, [Disk("a", 80, 1000)], replaced=550, dropped=True).bytes
    found = excess(limits, 500, [Disk("a", 150, 1000)], replaced=60, full=True)
    assert (found.bytes, found.urgent) == (50, True)
    found = excess(limits, 500, [Disk("a", 300, 1000)], full=True)
    assert (found.bytes, found.urgent) == (50, True), "what is written needs more than is free"
    assert not excess(limits, 500, [Disk("a", 500, 1000)], full=True).urgent, "it never fits in"
    sized = replace(limits, max_bytes=1000)
    assert not excess(sized, 10**6, []).urgent, "a size is no disk: the newest hour stays"


def test_which_parts_of_the_newest_hour_go() -> None:
    def piece(table: str, ago_s: int, *, unrolled: int = 0) -> Partition:
        key = f"{table}{ago_s}"
        return Partition(table, key, NOW_S - ago_s - 60, NOW_S - ago_s, 9, 10, unrolled, part=True)

    there = [
        piece(HOURS.name, 900),
        piece(MINUTES.name, 700),
        piece(TABLE, LEAST_S - 1),
        piece(TABLE, 1200, unrolled=3),
        piece(TABLE, LEAST_S),
        piece(TABLE, 800),
    ]
    order = [5, 4, 1, 0, 3]
    assert choose_newest(there, 10**6, NOW_S) == [there[n] for n in order]
    for needed, count in ((0, 0), (1, 1), (10, 1), (11, 2), (21, 3)):
        assert choose_newest(there, needed, NOW_S) == [there[n] for n in order[:count]]


def test_servers_of_a_cluster_count_shards_once() -> None:
    def on(shard: str, name: str, *partitions: Partition) -> Server:
        return Server(shard, name, partitions)

    one, late = part(TABLE, 0, 7), replace(part(TABLE, 0, 6), rows=9)
    found = whole([on("1", "a", one), on("1", "b", late), on("2", "c", one, part(BOOKS, 0, 1))])
    assert [(each.table, each.rows, each.bytes) for each in found.values()] == [
        (TABLE, 20, 14),
        (BOOKS, 10, 1),
    ]


def test_looks_come_more_often_where_a_disk_fills() -> None:
    fill = Fill()
    assert fill.pause_s(60) == 60
    fill.see(1_000, 0.0)
    assert fill.pause_s(60) == 60
    fill.see(800, 10.0)
    assert fill.pause_s(60) == 800 / 20 / LOOKS
    fill.see(10, 11.0)
    assert fill.pause_s(60) == 1
    fill.see(500, 12.0)
    assert fill.pause_s(7) == 7, "something was given back"


def test_how_much_comes_in() -> None:
    inserted = Inserted()

    def see(now_s: float, *there: Partition) -> dict[str, float] | None:
        inserted.see({each.known: each for each in there}, now_s)
        return inserted.as_dict()

    first, gone = replace(part(TABLE, 3600, 100), rows=50), part(TABLE, 0, 900)
    assert see(5.0, first, gone) is None
    assert see(10.0, replace(first, rows=90)) is None, "too soon after"
    grown = replace(first, rows=350, bytes=350)
    new = replace(part(MINUTES.name, 3600, 40), rows=20)
    rates = {"recordsPerSecond": 5.0, "bytesPerSecond": 6}
    assert see(65.0, grown, new) == rates, "of all tables, and nothing of what went"
    assert see(80.0, grown, new) == rates
    assert see(125.0, grown, new) == {"recordsPerSecond": 0.0, "bytesPerSecond": 0}


def test_order_in_which_it_goes() -> None:
    rows = [
        part(HOURS.name, 0, 1, span_s=DAY_S),
        part(MINUTES.name, 0, 1, span_s=DAY_S),
        part(BOOKS, 0, 1, span_s=DAY_S),
        part(TABLE, DAY_S + 3600, 1),
        part(TABLE, DAY_S, 1),
        part(TABLE, 3600, 1, unrolled=7),
        part(BOOKS, DAY_S, 1, span_s=DAY_S),
    ]
    chosen = choose(rows, 100, NOW_S)
    assert [(each.table, each.begin_s) for each in chosen] == [
        (TABLE, DAY_S),
        (TABLE, DAY_S + 3600),
        (MINUTES.name, 0),
        (HOURS.name, 0),
        (TABLE, 3600),
    ], "books stay while there is anything as old: here records that are in no roll-up"
    chosen = choose([each for each in rows if not each.unrolled], 100, NOW_S)
    assert [(each.table, each.begin_s) for each in chosen[-2:]] == [(BOOKS, 0), (BOOKS, DAY_S)]
    assert choose(rows, 2, NOW_S) == [rows[4], rows[3]]
    assert choose(rows, 0, NOW_S) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WATCHED), st.integers(0, 60), st.integers(1, 9), st.integers(0, 1)
        ),
        max_size=40,
    ),
    st.integers(0, 100),
)
def test_never_more_than_needed_nor_the_newest_hour(
    made: list[tuple[str, int, int, int]], needed: int
) -> None:
    now_s = 48 * 3600
    there = [
        Partition(table, str(n), hour * 3600, (hour + 1) * 3600, 1, size, unrolled=lost)
        for n, (table, hour, size, lost) in enumerate(made)
        if table == TABLE or not lost  # only records can be
    ]
    chosen = choose(there, needed, now_s)
    assert len(set(chosen)) == len(chosen)
    assert all(each.end_s <= now_s - NEWEST_S for each in chosen)
    assert sum(each.bytes for each in chosen[:-1]) < max(needed, 1)
    for each in chosen:  # nothing older of the same table is kept
        older = [one for one in there if one.table == each.table and one.end_s < each.end_s]
        if each.table != BOOKS and not each.unrolled:
            assert all(one in chosen or one.unrolled for one in older)
    left = [one for one in there if one not in chosen]
    spans = [(one.begin_s, one.end_s) for one in left if one.table != BOOKS]
    assert not any(
        begin_s < each.end_s for each in chosen if each.table == BOOKS for begin_s, _ in spans
    )


def test_unrolled_records_of_a_partition() -> None:
    there = [
        part(TABLE, 0, 1),
        part(TABLE, 3600, 1),
        part(MINUTES.name, 0, 1),
        part(TABLE, 7200, 1),
    ]
    batches = [
        StoredBatch(BatchId("a", 3599), 4, 0, 0),
        StoredBatch(BatchId("b", 3599), 5, 0, 0),
        StoredBatch(BatchId("a", 3600), 6, 0, 0),
    ]
    found = [each.unrolled for each in with_unrolled(there, batches, 100)]
    assert found == [9, 6, 0, 0]
    found = [each.unrolled for each in with_unrolled(there, batches, 3)]
    assert found == [9, 10, 0, 10], "nobody knows of what is later"


class Walked(list[StoredBatch]):
    """Batches that count how often they are gone through."""

    walks = 0

    def __iter__(self) -> Iterator[StoredBatch]:
        self.walks += 1
        return super().__iter__()


class Compared(Partition):
    """A partition that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Partition.__hash__


def test_a_full_store_of_a_year_is_looked_through_once() -> None:
    """On the event loop: not all batches for each partition, nor all partitions for each."""
    hours = 72
    there: list[Partition] = [
        Compared(table, f"{n}", n * span_s, (n + 1) * span_s, 10, 1)
        for table, count, span_s in (
            *((TABLE, hours, 3600), (MINUTES.name, 30, DAY_S)),
            *((HOURS.name, 365, DAY_S), (BOOKS, 365, DAY_S)),
        )
        for n in range(count)
    ]
    batches = Walked(StoredBatch(BatchId("a", 60 * n), 1, 0, 0) for n in range(60 * hours))
    assert sum(each.unrolled for each in with_unrolled(there, batches, 1 << 20)) == 60 * hours
    assert batches.walks < 5
    assert len(choose(there, 1 << 40, 400 * DAY_S)) == len(there)
    assert Compared.times < 5 * len(there)


def test_retention_is_what_is_there() -> None:
    kept = Retention(3 * DAY_S, 30 * DAY_S, 0)
    assert kept.shortened({}, 10 * DAY_S) == kept
    short = kept.shortened({TABLE: 9 * DAY_S, HOURS.name: 2 * DAY_S}, 10 * DAY_S)
    assert short == Retention(DAY_S, 30 * DAY_S, 8 * DAY_S)
    assert short.books_s == 30 * DAY_S
    assert kept.shortened({TABLE: DAY_S}, 10 * DAY_S) == kept, "those went by their age anyway"


class Fixed:
    """A clock."""

    def __init__(self, now_s: float = NOW_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def fill(store: Store, hours: int = 6) -> None:
    """Store a batch in each of some hours, the last of which is the newest."""
    for n in range(hours):
        at_s = (HOUR + n) * 3600
        batch = flows(ROWS, end_s=at_s)
        store.insert(batch, BatchId("test", at_s + 3599))


def rolled(store: Store) -> None:
    asyncio.run(Roller(store, "test", clock=Fixed()).look(everything=True))


def hours_of(store: Store) -> list[int]:
    database = store.name.rsplit("/", 1)[1]
    rows = admin(store)(
        f"SELECT DISTINCT intDiv(toUInt32(timeInserted), 3600) AS hour FROM {database}.flows"
        " ORDER BY hour"
    )
    return [int(row[0]) - HOUR for row in rows]


def watch(store: Store, size: float, **changes: object) -> Monitor:
    """A monitor of a store that may have so much of what its records take now."""
    assert store.partitions is not None
    there = whole(store.partitions.servers()).values()
    records = [each.bytes for each in there if each.table == TABLE]
    all_of_it = sum(each.bytes for each in there)
    limits = Limits(1.0, 0.0, int(all_of_it - sum(records) + sum(records) * size))
    settings = MonitorSettings(limits=replace(limits, **changes), skip_rounds=2)  # type: ignore[arg-type]
    return Monitor(store, settings, clock=Fixed())


@pytest.mark.clickhouse
def test_oldest_hours_go(embedded: Store, caplog: pytest.LogCaptureFixture) -> None:
    fill(embedded)
    rolled(embedded)
    monitor = watch(embedded, 0.6)
    with caplog.at_level(logging.WARNING, "flowvis.clickhouse.monitor"):
        asyncio.run(monitor.look())
    assert hours_of(embedded) == [3, 4, 5]
    assert (monitor.stats.dropped_records, monitor.stats.unrolled_records) == (3 * ROWS, 0)
    assert monitor.stats.dropped_partitions == 3
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert "dropped flow_records from 2026-09-21T14:00:00Z to 2026-09-21T15:00:00Z" in lines[0]
    assert f"{ROWS} rows" in lines[0]
    assert "lost" not in lines[0]
    assert embedded.begins == {TABLE: (HOUR + 3) * 3600}
    minutes = {each["name"]: each["rows"] for each in monitor.as_dict()["tables"]}
    assert minutes[MINUTES.name] > 0
    assert monitor.problem == ""
    again = open_store(embedded._settings)  # type: ignore[attr-defined]
    again.migrate()
    assert again.begins == embedded.begins, "the next process knows"
    assert again.kept.records_s < embedded.kept.records_s + 5
    again.begins.clear()
    asyncio.run(Monitor(again, monitor._settings, clock=Fixed()).look())
    assert again.begins == embedded.begins, "one that was there already learns it"
    again.close()


@pytest.mark.clickhouse
def test_pause_after_a_drop(embedded: Store) -> None:
    fill(embedded)
    rolled(embedded)
    monitor = watch(embedded, 0.9)
    asyncio.run(monitor.look())
    assert hours_of(embedded) == [1, 2, 3, 4, 5]
    fill(embedded, 0)
    monitor._settings = replace(monitor._settings, limits=Limits(1.0, 0.0, 1))
    for _ in range(2):
        asyncio.run(monitor.look())
        assert hours_of(embedded) == [1, 2, 3, 4, 5]
    asyncio.run(monitor.look())
    assert hours_of(embedded) == [5]


@pytest.mark.clickhouse
def test_newest_hour_stays_whatever_the_limit(embedded: Store) -> None:
    fill(embedded)
    rolled(embedded)
    monitor = watch(embedded, 0.0, max_bytes=1)
    asyncio.run(monitor.look())
    assert hours_of(embedded) == [5], "of which the last batch came a minute ago"
    assert "bytes too many, and all else is of the newest hour" in monitor.problem


@pytest.mark.clickhouse
def test_a_disk_that_does_not_hold_the_newest_hour(
    embedded: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of it goes, as far as there is a need: what is left is whole."""
    stored = embedded.partitions
    assert stored is not None
    stored._execute(f"SYSTEM STOP MERGES {embedded.name.rsplit('/', 1)[1]}.flow_records", {})
    minutes = range(0, 60, 10)
    for minute in minutes:
        at_s = (HOUR + 5) * 3600 + minute * 60
        embedded.insert(flows(ROWS, end_s=at_s - 5), BatchId("test", at_s))
    rolled(embedded)
    clock = Fixed((HOUR + 6) * 3600)
    monitor = Monitor(embedded, MonitorSettings(limits=Limits(0.9, 0.0)), clock=clock)
    size = max(each.bytes for each in stored.pieces() if each.table == TABLE)
    servers = stored.servers

    def look(used: float) -> list[int]:
        """Look at a disk that is so full, one and a half parts too much; say what is left."""
        total = int(1.5 * size / max(used - 0.9, 1e-3))
        disk = Disk("small", total - int(total * used), total)
        with monkeypatch.context() as patched:
            patched.setattr(stored, "servers", lambda: [replace(servers()[0], disks=(disk,))])
            asyncio.run(monitor.look())
        asked = "SELECT DISTINCT toMinute(timeInserted) AS minute FROM flows ORDER BY minute"
        return [int(row[0]) for row in embedded.query(asked).rows]

    assert look(0.94) == [*minutes]
    assert "all else is of the newest hour" in monitor.problem
    assert 0 < monitor.stats.short_bytes <= 1.5 * size
    with caplog.at_level(logging.WARNING, "flowvis.clickhouse.monitor"):
        assert look(0.98) == [*minutes][2:]
    assert (monitor.stats.dropped_records, monitor.stats.newest_records) == (2 * ROWS, 2 * ROWS)
    assert (monitor.stats.short_bytes, monitor.stats.unrolled_records) == (0, 0)
    last_s = (HOUR + 5) * 3600 + 600
    assert embedded.begins == {TABLE: last_s + 1}
    assert stored.begins() == {TABLE: last_s + 1}
    assert f"{ROWS} rows" in caplog.text
    assert "of the newest hour, which the disk does not hold" in caplog.text
    for skipped in range(4):
        assert look(0.5) == [*minutes][2:]
        if skipped == 3:
            assert "does not hold the newest hour" in monitor.problem
    clock.now_s += 3600
    look(0.5)
    assert monitor.problem == ""
    (gone, *_) = (each for each in stored.pieces() if each.table == TABLE)
    assert stored.drop(gone)
    assert not stored.drop(gone), "merged, or dropped by another"


def noted(store: Store) -> int:
    """How many records went, by the notes."""
    database = store.name.rsplit("/", 1)[1]
    (row,) = admin(store)(
        f"SELECT sum(rows) FROM {database}.flow_dropped"
        f" WHERE fromTable = '{TABLE}' AND what = 'went'"
    )
    return int(row[0])


@pytest.mark.clickhouse
def test_parts_that_are_merged_before_they_go_are_told_once(
    embedded: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By notes, metric and log alike, and by what answers say that roll-ups lack."""
    stored = embedded.partitions
    assert stored is not None
    table = f"{embedded.name.rsplit('/', 1)[1]}.{TABLE}"
    stored._execute(f"SYSTEM STOP MERGES {table}", {})
    for minute in range(0, 30, 10):
        at_s = (HOUR + 5) * 3600 + minute * 60
        embedded.insert(flows(ROWS, end_s=at_s - 2 * ROWS), BatchId("test", at_s))
    pieces, servers = stored.pieces, stored.servers

    def merged_meanwhile() -> list[Partition]:
        found = pieces()
        stored._execute(f"SYSTEM START MERGES {table}", {})
        stored._execute(f"OPTIMIZE TABLE {table} FINAL", {})
        return found

    total = 6 * sum(each.bytes for each in pieces())  # half of it is too much
    disk = Disk("small", total // 50, total)
    monitor = Monitor(embedded, MonitorSettings(limits=Limits(0.9, 0.0)), clock=Fixed())
    with monkeypatch.context() as patched:
        patched.setattr(stored, "servers", lambda: [replace(servers()[0], disks=(disk,))])
        with caplog.at_level(logging.WARNING, "flowvis.clickhouse.monitor"):
            patched.setattr(stored, "pieces", merged_meanwhile)
            asyncio.run(monitor.look())
            assert (monitor.stats.dropped_records, noted(embedded), caplog.text) == (0, 0, "")
            assert stored.lost() == []
            assert stored.begins() == {}
            patched.setattr(stored, "pieces", pieces)
            asyncio.run(monitor.look())
    assert monitor.stats.dropped_records == noted(embedded) == 3 * ROWS
    assert caplog.text.count(f"{3 * ROWS} rows") == 1
    (lost,) = stored.lost()
    assert lost.records == monitor.stats.unrolled_records == 3 * ROWS


@pytest.mark.clickhouse
def test_notes_of_an_older_program_and_drops_of_unknown_outcome_count(embedded: Store) -> None:
    stored = embedded.partitions
    assert stored is not None
    database = embedded.name.rsplit("/", 1)[1]
    one = replace(part(TABLE, HOUR * 3600, 7), unrolled=5)
    stored.note(one, Outcome.GOES)
    stored._execute(f"ALTER TABLE {database}.flow_dropped DROP COLUMN what, DROP COLUMN key", {})
    assert stored.lost() == [Lost(one.begin_s, one.end_s, 5)]
    assert noted(embedded) == one.rows
    later = replace(one, begin_s=one.end_s, end_s=one.end_s + 3600, key="later")
    stored.note(later, Outcome.GOES)  # and a kill
    assert stored.lost()[1:] == [Lost(later.begin_s, later.end_s, 5)]
    assert stored.begins() == {TABLE: later.end_s}
    for _ in range(2):  # by two aggregators
        stored.note(later, Outcome.GOES)
        stored.note(later, Outcome.WENT)
    assert stored.lost()[1:] == [Lost(later.begin_s, later.end_s, 5)]


@pytest.mark.clickhouse
def test_what_no_rollup_has_goes_last_and_is_said_to_be_lost(
    embedded: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(embedded, 4)
    rolled(embedded)
    at_s = (HOUR - 2) * 3600
    embedded.insert(flows(ROWS, end_s=at_s), BatchId("test", at_s + 3599))
    monitor = watch(embedded, 0.5)
    asyncio.run(monitor.look())
    assert hours_of(embedded) == [-2, 3], "the oldest is kept, as nothing else has it"
    assert monitor.stats.unrolled_records == 0
    monitor._skip = 0
    monitor._settings = replace(monitor._settings, limits=Limits(1.0, 0.0, 1))
    asyncio.run(monitor.look())
    assert hours_of(embedded) == []
    assert monitor.stats.unrolled_records == ROWS
    assert f"{ROWS} of them lost: no roll-up has them" in caplog.text
    asyncio.run(monitor.look())
    lost = [Lost(at_s, at_s + 3600, ROWS)]
    assert embedded.lost == lost
    again = open_store(embedded._settings)  # type: ignore[attr-defined]
    again.migrate()
    assert again.lost == lost, "the next process knows, and says so where roll-ups answer"


@pytest.mark.clickhouse
def test_switched_off_it_only_looks(embedded: Store) -> None:
    fill(embedded, 3)
    monitor = watch(embedded, 0.1)
    monitor._settings = replace(monitor._settings, enable=False)
    asyncio.run(monitor.look())
    assert hours_of(embedded) == [0, 1, 2]
    assert monitor.stats.bytes > 0
    assert monitor.stats.disk_bytes > 0
    assert embedded.begins == {}


@pytest.mark.clickhouse
def test_a_drop_that_fails_is_told_and_tried_again(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(embedded, 3)
    rolled(embedded)
    monitor = watch(embedded, 0.7)
    stored = embedded.partitions
    assert stored is not None

    def fails(*_: object) -> None:
        raise StoreError("no room", retryable=True)

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(stored, "drop", fails)
            with pytest.raises(StoreError):
                await monitor.look()
        assert hours_of(embedded) == [0, 1, 2]
        assert monitor.stats.dropped_partitions == 0
        with monkeypatch.context() as patched:
            patched.setattr(stored, "note", fails)  # as a full disk may refuse
            await monitor.look()

    asyncio.run(scenario())
    assert hours_of(embedded) == [1, 2]
    assert "cannot note what is dropped" in caplog.text
    asyncio.run(monitor.look())
    assert noted(embedded) == monitor.stats.dropped_records == ROWS, "as soon as that is possible"


@pytest.mark.clickhouse
def test_a_partition_that_the_server_refuses_to_drop_keeps_no_other(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one of more than `max_partition_size_to_drop`: it stays, is there, and is told of."""
    fill(embedded, 4)
    rolled(embedded)
    monitor = watch(embedded, 0.3)
    stored = embedded.partitions
    assert stored is not None
    drop = stored.drop

    def refused(partition: Partition) -> bool:
        if partition.begin_s == HOUR * 3600:
            raise StoreError("too large to be dropped", retryable=True, code=359)
        return drop(partition)

    with monkeypatch.context() as patched:
        patched.setattr(stored, "drop", refused)
        for left in ([0, 3], [0]):
            asyncio.run(monitor.look())
            assert hours_of(embedded) == left
            assert "too large" in monitor.problem
            monitor._skip = 0
    assert caplog.text.count("too large") == 1
    assert monitor.stats.dropped_records == noted(embedded) == 3 * ROWS
    monkeypatch.setattr(monitor_module, "REFUSED_S", 0.0)  # an hour later
    monitor._settings = replace(monitor._settings, limits=Limits(1.0, 0.0, 1))
    asyncio.run(monitor.look())
    assert hours_of(embedded) == []
    asyncio.run(monitor.look())
    assert "too large" not in monitor.problem


@pytest.mark.clickhouse
@pytest.mark.parametrize("code", [359, 497, 164])
def test_what_the_server_refuses_to_drop_is_not_said_to_be_gone(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Nor does it fill the notes: of records that no roll-up has nothing is lost either."""
    fill(embedded, 3)
    monitor = watch(embedded, 0.5)
    stored = embedded.partitions
    assert stored is not None

    def refused(_: Partition) -> bool:
        raise StoreError("you may not", retryable=True, code=code)

    monkeypatch.setattr(stored, "drop", refused)
    for _ in range(3):
        asyncio.run(monitor.look())
        monitor._skip = 0
    assert "you may not" in monitor.problem
    assert (embedded.begins, list(embedded.lost)) == ({}, [])
    assert (stored.begins(), stored.lost()) == ({}, [])
    database = embedded.name.rsplit("/", 1)[1]
    notes = admin(embedded)(f"SELECT key, count() FROM {database}.{DROPPED} GROUP BY key")
    assert notes
    assert {int(count) for _, count in notes} == {2}


@pytest.mark.clickhouse
def test_the_newest_hour_gives_what_older_ones_do_not_have(
    embedded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same look: what goes with its partition is no part that makes room as well."""
    stored = embedded.partitions
    assert stored is not None
    stored._execute(f"SYSTEM STOP MERGES {embedded.name.rsplit('/', 1)[1]}.flow_records", {})
    moments = [(HOUR + 3) * 3600, *((HOUR + 5) * 3600 + minute * 60 for minute in range(0, 60, 10))]
    for at_s in moments:
        embedded.insert(flows(ROWS, end_s=at_s - 5), BatchId("test", at_s))
    clock = Fixed((HOUR + 6) * 3600)
    monitor = Monitor(embedded, MonitorSettings(limits=Limits(0.9, 0.0)), clock=clock)
    size = max(each.bytes for each in stored.pieces() if each.table == TABLE)
    servers, total = stored.servers, int(2.5 * size / 0.08)
    disk = Disk("small", total - int(total * 0.98), total)
    with monkeypatch.context() as patched:
        patched.setattr(stored, "servers", lambda: [replace(servers()[0], disks=(disk,))])
        asyncio.run(monitor.look())
    asked = "SELECT DISTINCT toUInt32(timeInserted) AS at FROM flows ORDER BY at"
    assert [int(row[0]) for row in embedded.query(asked).rows] == moments[3:]
    lost = [Lost(at_s, at_s + 1, ROWS) for at_s in moments[1:3]]
    assert embedded.lost == [Lost(moments[0], moments[0] + 3600, ROWS), *lost]


@pytest.mark.clickhouse
def test_a_server_without_disks_keeps_to_its_size(server_settings: StoreSettings) -> None:
    """18.16 has neither system.disks nor roll-ups."""
    store = open_store(server_settings)
    store.migrate()
    fill(store)
    assert store.partitions is not None
    assert [each.disks for each in store.partitions.servers()] == [()]
    monitor = watch(store, 0.6)
    asyncio.run(monitor.look())
    assert hours_of(store) == [3, 4, 5]
    assert store.begins == {TABLE: (HOUR + 3) * 3600}
    assert monitor.as_dict()["disks"] == []
    store.close()


def test_a_modern_server_is_rolled_and_watched(
    server_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Debian's server cannot do is decided by the features alone."""
    store = open_store(server_settings)
    assert isinstance(store, ServerStore)
    modern = replace(store._probe(), ttl=True, deduplication=True, disks=True)
    with monkeypatch.context() as patched:
        done = SimpleNamespace(run=lambda **_: [])
        patched.setattr(server_module, "Migration", lambda *_: done)
        patched.setattr(server_module, "probe", lambda _: modern)
        store.migrate()
    assert store.rollups is not None
    assert not store.rollups.alone
    assert store.partitions is not None
    assert store.partitions.has_disks
    store.close()


FULL = """
import asyncio, json, sys, time
from flowvis.clickhouse.monitor import Monitor, MonitorSettings
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.room import Limits
from flowvis.clickhouse.schema.rolls import StoredBatch
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.clickhouse.roller import Roller
from flowvis.errors import StoreError
from clickhouse.samples import random_batch

store = open_store(StoreSettings(sys.argv[1], database="full", ttl_s=0))
store.migrate()
batch, batch_id = random_batch(BIG, 1), BatchId("big", 1790000000)
try:
    store.insert(batch, batch_id)
except StoreError as error:
    refused = [error.retryable, error.code, str(error)]
assert store._execute("SELECT count() FROM full.flow_records") == [(0,)]
now_s = int(time.time())
hours, used = HOURS, []
clock = lambda: now_s
roller = Roller(store, "test", clock=clock)
settings = MonitorSettings(limits=Limits(0.5, 0.1, 0), skip_rounds=0)
monitor = Monitor(store, settings, clock=clock)

def repeated(step):
    # As writer and roller do it: the engine gives what was dropped back by and by.
    while True:
        try:
            return step()
        except StoreError as error:
            if not error.retryable:
                raise
        asyncio.run(monitor.look())
        time.sleep(0.1)

this_hour_s = int(time.time()) // 86400 * 86400 - 43200  # all of one day, whatever hour it is
for hour in range(hours):
    now_s = this_hour_s - (hours - hour) * 3600
    batch = random_batch(ROWS, hour)
    batch["flowEndSeconds"][:] = now_s
    batch_id = BatchId("test", now_s)
    roller.begin(StoredBatch(batch_id, len(batch), now_s, now_s))
    repeated(lambda: store.insert(batch, batch_id))
    roller.stored()
    repeated(lambda: asyncio.run(roller.look(everything=True)))
    asyncio.run(monitor.look())
    ((disk,),) = (server.disks for server in store.partitions.servers())
    used.append(disk.used / disk.total)
now_s += 1
rows = store._execute(
    "SELECT intDiv(toUInt32(timeInserted), 3600) AS h, count() FROM full.flows"
    " GROUP BY h ORDER BY h"
)
first = now_s // 3600 - hours + 1
print(json.dumps({
    "refused": refused,
    "hours": [int(h) - first for h, _ in rows], "rows": [int(n) for _, n in rows], "used": used,
    "dropped": monitor.stats.dropped_records, "unrolled": monitor.stats.unrolled_records,
    "noted": [[int(n) for n in row] for row in store._execute(
        "SELECT count(), sum(rows) FROM full.flow_dropped WHERE fromTable = 'flow_records'"
        " AND what = 'went'")][0],
    "kept": store.kept.records_s, "begins": store.begins["flow_records"] // 3600 - first,
}))
store.close()
"""


@pytest.mark.clickhouse
@pytest.mark.slow
def test_a_small_disk_does_not_fill(tmp_path: Path) -> None:
    """Hours of records where there is room for some of them, and none for a large batch."""
    rows, hours, big = 6_000, 8, 100_000
    script = FULL.replace("ROWS", str(rows)).replace("HOURS", str(hours)).replace("BIG", str(big))
    # A merge of roll-ups writes 5 MB beside what it merges: seen at a look, that is not yet urgent.
    mounted = (
        f'mount -t tmpfs -o size=38m none {tmp_path} && exec $0 -c "$1" embedded://{tmp_path}/db'
    )
    found = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, sys.executable, script],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    seen = json.loads(found.stdout)
    kept = len(seen["hours"])
    assert 2 <= kept < hours
    assert seen["hours"] == list(range(hours - kept, hours)), (
        "what is left is the newest, without holes"
    )
    assert seen["rows"] == [rows] * kept
    assert max(seen["used"]) < 0.8
    assert seen["dropped"] == (hours - kept) * rows
    assert seen["noted"] == [hours - kept, (hours - kept) * rows]
    assert seen["unrolled"] == 0
    retryable, code, reason = seen["refused"]
    assert retryable, "the engine said nothing of it"
    assert code in NO_ROOM
    assert "big-1790000000-0 was not stored: " in reason
    assert "not enough space" in reason
    assert seen["begins"] == seen["hours"][0]
