"""Days of the roll-up by hour become one part once they are over, as the engine does it."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest

from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.rollup_tables import RollupTables
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rollups import HOURS
from flowvis.clickhouse.schema.whole_days import alike_sql, unlike_sql
from flowvis.clickhouse.store import Store

from .conftest import admin
from .rolled import insert_rolled
from .samples import random_batch

DAY_S = 86_400
NOW_S = int(time.time())
AGES = {"today": 0, "lately": 2, "long ago": 200}
"""In days, of when it was inserted; in its first hours yesterday is not over yet."""
DAYS = {
    name: time.strftime("%Y%m%d", time.gmtime(NOW_S - age * DAY_S)) for name, age in AGES.items()
}
OVER = [DAYS["long ago"], DAYS["lately"]]
OURS = f"database = currentDatabase() AND table = '{HOURS.name}'"


@pytest.fixture
def store(embedded: Store) -> Store:
    """Each day has a part that was merged, and one that came later and has no projections."""
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    for number in range(3):
        if number == 2:
            run(f"OPTIMIZE TABLE {database}.{HOURS.name} FINAL")
        for place, age in enumerate(AGES.values()):
            at_s = NOW_S - age * DAY_S
            batch = random_batch(200, number * 10 + place)
            batch["flowEndSeconds"][:] = at_s - 60
            insert_rolled(embedded, batch, BatchId("w", at_s, number * 10 + place))
    assert parts(embedded) == {name: [0, len(HOURS.projections)] for name in DAYS}
    return embedded


def tables(store: Store) -> RollupTables:
    assert store.rollups is not None
    return store.rollups


def parts(store: Store) -> dict[str, list[int]]:
    """Return how many projections each part of each day has."""
    rows = store.query(
        "SELECT partition_id, arraySort(groupArray(length(projections))) FROM system.parts"
        f" WHERE active AND {OURS} GROUP BY partition_id"
    ).rows
    names = {day: name for name, day in DAYS.items()}
    return {names[str(day)]: found for day, found in rows}


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.clickhouse
def test_days_that_are_over_become_one_part(store: Store) -> None:
    run, table = admin(store), f"{store.name.rsplit('/', 1)[1]}.{HOURS.name}"
    sums = f"SELECT sum(records), sum(octetDeltaCount) FROM {table} WHERE time < {NOW_S - DAY_S}"
    every, before = len(HOURS.projections), run(sums)
    assert tables(store).make_alike() == OVER
    wait_for(lambda: tables(store).make_alike() == [] and parts(store)["lately"] == [every] * 2)
    assert parts(store) == {
        "today": [0, every], "lately": [every] * 2, "long ago": [every] * 2
    }  # fmt: skip
    # As time passes; but of today there is always something new then.
    run(f"ALTER TABLE {table} DROP PARTITION ID '{DAYS['today']}'")
    run(f"ALTER TABLE {table} MODIFY SETTING min_age_to_force_merge_seconds = 1")
    wait_for(lambda: parts(store) == {"lately": [every], "long ago": [every]})
    assert run(sums) == before


@pytest.mark.clickhouse
def test_who_rolls_sees_to_it(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    roller = Roller(store, "test")
    with caplog.at_level(logging.INFO):
        asyncio.run(roller.look())
        asyncio.run(roller.look())  # within the hour
    said = [each.getMessage() for each in caplog.records if "projections" in each.getMessage()]
    assert said == [f"roll-ups: projections for what days lack of them: {', '.join(OVER)}"]


@pytest.mark.clickhouse
def test_of_a_cluster_all_servers_are_asked(store: Store) -> None:
    """The engine here has none, but reads what it would be sent."""
    layout = TableLayout("flows", "main")
    for sql in (unlike_sql(layout), alike_sql(layout, OVER[0])):
        assert admin(store)(f"EXPLAIN AST {sql}")
        assert "flow_hours_local" in sql
    assert unlike_sql(layout).count("clusterAllReplicas('main', system.") == 2
    assert " ON CLUSTER 'main' MATERIALIZE" in alike_sql(layout, OVER[0])
