"""What is there when a TTL is made longer: it stays as long, and answers know what went before."""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from flowvis.clickhouse.monitor import Monitor, MonitorSettings
from flowvis.clickhouse.schema.dropped import DROPPED, LENGTHENED_S
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.features import RECALCULATE_ONLY, Features
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.migration import Migration
from flowvis.clickhouse.schema.retention import Retention, ttl_of
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES
from flowvis.clickhouse.schema.tables import BOOKS, TABLE
from flowvis.clickhouse.store import Store, open_store
from flowvis.errors import StoreError
from waiting import block_until

from .conftest import admin
from .samples import flows

HOUR_S, DAY_S = 3600, 86_400
DENIED = 497


def keeping(store: Store, **changes: int) -> Store:
    """Another store of the same database, with other options."""
    made = open_store(replace(store._settings, **changes))  # type: ignore[attr-defined]
    made.migrate()
    return made


@pytest.mark.clickhouse
def test_what_is_there_is_kept_for_longer_as_well(embedded: Store) -> None:
    before = keeping(embedded, ttl_s=2 * HOUR_S)
    now_s = int(time.time())
    before.insert(flows(5, end_s=now_s - 10), BatchId("test", now_s))
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]

    def goes_s() -> int:
        """When all of what is there goes."""
        [(last,)] = run(
            "SELECT toUInt32(max(delete_ttl_info_max)) FROM system.parts WHERE active"
            f" AND database = '{database}' AND table = '{TABLE}'"
        )
        return int(last)

    assert goes_s() < now_s + 3 * HOUR_S
    keeping(embedded, ttl_s=DAY_S)
    block_until(lambda: goes_s() >= now_s + DAY_S - 60)
    [(engine,)] = run(
        f"SELECT engine_full FROM system.tables WHERE database = '{database}' AND name = '{TABLE}'"
    )
    assert f"{RECALCULATE_ONLY} = 1" in engine, "no part is written anew for it"


@pytest.mark.clickhouse
@pytest.mark.parametrize("longer_s", [10 * DAY_S, 0])
def test_what_went_before_is_known(embedded: Store, longer_s: int) -> None:
    keeping(embedded, ttl_s=5 * HOUR_S, minutes_ttl_s=DAY_S, hours_ttl_s=DAY_S)
    first_s = int(time.time())
    options = {"ttl_s": longer_s, "minutes_ttl_s": DAY_S, "hours_ttl_s": 2 * DAY_S}
    store = keeping(embedded, **options)
    last_s = int(time.time())
    kept = store.kept
    since_s = time.time() - kept.records_s
    assert first_s - 5 * HOUR_S - 1 <= since_s - LENGTHENED_S <= time.time() - 5 * HOUR_S
    assert kept.minutes_s == DAY_S
    assert DAY_S - LENGTHENED_S <= kept.hours_s < DAY_S
    assert sorted(store.begins) == sorted([TABLE, BOOKS, HOURS.name])
    again = keeping(embedded, **options)
    assert again.begins == store.begins, "it has not been made longer again"
    assert first_s <= store.begins[HOURS.name] + DAY_S - LENGTHENED_S <= last_s


@pytest.mark.clickhouse
def test_what_the_engine_was_not_told_goes_on_to_go(embedded: Store) -> None:
    """Where the TTL of what was there stays the shorter one, until all of it has gone."""
    stored, database = embedded.partitions, embedded.name.rsplit("/", 1)[1]
    assert stored is not None
    stored._make_notes()
    run = admin(embedded)
    now_s = int(time.time())
    for table, kept_s, ago_s in ((TABLE, 3 * DAY_S, DAY_S), (MINUTES.name, HOUR_S, 2 * DAY_S)):
        run(
            f"INSERT INTO {database}.{DROPPED} (fromTable, begin, end, what) SELECT '{table}',"
            f" toDateTime({now_s - ago_s - kept_s}), toDateTime({now_s - ago_s}), 'shorter'"
        )
    begins = stored.begins()
    assert now_s - 3 * DAY_S <= begins[TABLE] <= time.time() - 3 * DAY_S + 1
    assert begins[MINUTES.name] == now_s - 2 * DAY_S
    assert stored.dropped()[TABLE].ago_s > 1000 * DAY_S, "nobody waits after it"
    assert not stored.lost()


def statements(refuses: str, features: Features) -> list[str]:
    """What a migration executes that makes all TTLs longer, at a server that refuses something."""
    layout, executed = TableLayout("db"), list[str]()

    def execute(sql: str) -> list[tuple[Any, ...]]:
        if refuses and refuses in sql:
            raise StoreError("not allowed", retryable=False, code=DENIED)
        if sql.startswith("SELECT"):
            told = "engine_full" in sql or "create_table" in sql
            return [("MergeTree TTL x + toIntervalSecond(5) SETTINGS a = 1",)] if told else []
        executed.append(sql)
        return []

    Migration(execute, layout, features, Retention(60, 60, 60)).run()
    return executed


@pytest.mark.parametrize(
    ("refuses", "knows", "told"),
    [("", True, 4), ("MATERIALIZE TTL", True, 0), ("recalculate", True, 0), ("", False, 0)],
)
def test_who_may_not_tell_the_engine_knows_that_it_was_not_told(
    refuses: str, knows: bool, told: int
) -> None:
    features = Features("26.9", True, True, True, True, False, recalculates_ttl=knows)
    made = statements(refuses, features)
    assert sum("MODIFY TTL" in each for each in made) == 4
    assert sum("'shorter', ''" in each for each in made) == 4
    assert sum("'lengthened'" in each for each in made) == told
    assert sum("MATERIALIZE TTL" in each for each in made) == told


@pytest.mark.clickhouse
def test_what_another_aggregator_tells_a_table_is_followed(
    embedded: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ours = keeping(embedded, ttl_s=3 * DAY_S, minutes_ttl_s=3 * DAY_S, hours_ttl_s=3 * DAY_S)
    monitor = Monitor(ours, MonitorSettings(enable=False))
    keeping(embedded, ttl_s=HOUR_S, minutes_ttl_s=3 * DAY_S, hours_ttl_s=4 * DAY_S)
    with caplog.at_level(logging.WARNING, "flowvis.clickhouse.monitor"):
        asyncio.run(monitor.look())
        asyncio.run(monitor.look())
    assert ours.kept.records_s == HOUR_S
    assert ours.kept.minutes_s == 3 * DAY_S
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if "records keeps rows for 1h now, and not for 72h" in line]
    assert len(lines) == 3, "of the books and flow_hours as well, once"
    # Who makes it longer by hand, or an older program, notes nothing.
    table = f"{embedded.name.rsplit('/', 1)[1]}.{TABLE}"
    admin(embedded)(f"ALTER TABLE {table} REMOVE TTL")
    asyncio.run(monitor.look())
    assert HOUR_S <= ours.kept.records_s < HOUR_S + 600


def test_ttls_are_read_from_what_the_engine_shows() -> None:
    shown = "MergeTree PARTITION BY a ORDER BY b"
    assert ttl_of(f"{shown} SETTINGS c = 1") == 0
    assert ttl_of(f"{shown} TTL toDateTime(d + 1) + toIntervalSecond(77) SETTINGS c = 1") == 77
