"""Roll-ups have what records have, to the byte, whatever happens in between."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowvis.batch import Batch, address_bytes
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.roll_queue import PACES
from flowvis.clickhouse.roller import CLAIM_S, Roller
from flowvis.clickhouse.rollup_tables import RollupTables, differences
from flowvis.clickhouse.schema import rolls
from flowvis.clickhouse.schema.claims import VALID_S, claim_sql
from flowvis.clickhouse.schema.dropped import Lost
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.outlived import outlived
from flowvis.clickhouse.schema.retention import Retention
from flowvis.clickhouse.schema.rolled_columns import DIMENSIONS
from flowvis.clickhouse.schema.rolls import ROLLED, Roll, StoredBatch, roll_sql
from flowvis.clickhouse.schema.rollups import HOURS, MINUTES, ROLLUPS, Rollup
from flowvis.clickhouse.schema.tables import TABLE, end_sql
from flowvis.clickhouse.server import INSERTS_RECORDS, ServerStore
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import StoreError

from .conftest import FOREVER, admin
from .samples import flows, random_batch

EPOCH_S = 1_790_000_400 // 3600 * 3600
ALL = 0, 3600 * 1_000_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody claims what another one does at the same moment, unless a test says so."""
    monkeypatch.setattr("flowvis.clickhouse.roller.CLAIM_S", 0.0)


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = float(EPOCH_S + 3600)

    def __call__(self) -> float:
        return self.now_s


class Rolling:
    """A roller as a writer drives it, a look at a time."""

    def __init__(self, store: Store, writer: str = "test", clock: Time | None = None) -> None:
        self.store = store
        self.clock = clock or Time()
        self.roller = Roller(store, writer, clock=self.clock)
        self.writer = writer
        self.number = 0

    def insert(self, batch: Batch, inserted_s: int | None = None, *, writer: str = "") -> BatchId:
        """Commit a batch as the writer does."""
        self.number += 1
        at_s = int(self.clock.now_s) if inserted_s is None else inserted_s
        batch_id = BatchId(writer or self.writer, at_s, self.number)
        self.roller.begin(stored(batch, batch_id))
        self.store.insert(batch, batch_id)
        self.roller.stored()
        return batch_id

    def look(self, *, everything: bool = False) -> None:
        """Do what is due."""
        asyncio.run(self.roller.look(everything=everything))

    def settled_s(self, rollup: Rollup) -> int:
        return self.store.settled[rollup.name] // 1000


def stored(batch: Batch, batch_id: BatchId) -> StoredBatch:
    ends = batch["flowEndSeconds"]
    return StoredBatch(batch_id, len(batch), int(ends.min()), int(ends.max()))


def batch_of(rows: int, seed: int = 0, *, first_s: int = EPOCH_S, span_s: int = 3600) -> Batch:
    """Random records whose ends are of a span."""
    batch = random_batch(rows, seed)
    rng = np.random.default_rng(seed)
    batch["flowEndSeconds"] = (first_s + rng.integers(0, span_s, rows)).astype(np.uint32)
    return batch


def tables(store: Store) -> RollupTables:
    found = store.rollups
    assert found is not None
    return found


def assert_equal(store: Store) -> None:
    """Each number of each hour, and of each group of some dimensions, is that of the records."""
    assert not differences(tables(store), *ALL)
    run = admin(store)
    database = store.name.rsplit("/", 1)[1]
    groups = (
        "sourcePodNamespace, destinationWorkloadName, protocolIdentifier, flowType",
        "sourcePodName, ingressNetworkPolicyRuleAction, destinationTransportPort",
    )
    for rollup in ROLLUPS:
        step = f"intDiv(toUInt32(%s), {rollup.step_s})"
        for group in groups:
            expected = run(
                f"SELECT {step % 'flowEndSeconds'} AS step, {group}, sum(octetDeltaCount),"
                " sum(reverseOctetDeltaCount), sum(packetDeltaCount), count(), sum(firstRecord)"
                f" FROM {database}.{TABLE} GROUP BY step, {group} ORDER BY ALL"
            )
            found = run(
                f"SELECT {step % 'time'} AS step, {group}, sum(octetDeltaCount),"
                " sum(reverseOctetDeltaCount), sum(packetDeltaCount), sum(records),"
                f" sum(connections) FROM {database}.{rollup.name} GROUP BY step, {group}"
                " ORDER BY ALL"
            )
            assert found == expected


@pytest.mark.clickhouse
def test_sums_are_equal_to_the_byte(embedded: Store) -> None:
    """Of all dimensions together, whatever the values: more than 64 bits, no names, old times."""
    rolling = Rolling(embedded)
    for seed in range(3):
        rolling.insert(batch_of(700, seed))
    rolling.insert(batch_of(50, 7, first_s=1, span_s=4_000_000_000))
    rolling.look(everything=True)
    assert_equal(embedded)
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    for rollup in ROLLUPS:
        names = ", ".join(column.name for column in DIMENSIONS)
        values = ", ".join(column.sql for column in DIMENSIONS)
        time = f"toUInt32({rollup.time.sql})"
        expected = run(
            f"SELECT {time}, {values}, sum(octetDeltaCount) AS octets, count() FROM"
            f" {database}.{TABLE} GROUP BY {time}, {values} ORDER BY ALL"
        )
        found = run(
            f"SELECT toUInt32(time), {names}, sum(octetDeltaCount), sum(records)"
            f" FROM {database}.{rollup.name} GROUP BY time, {names} ORDER BY ALL"
        )
        assert found == expected


@pytest.mark.clickhouse
def test_peaks_and_distinct_ends_of_hours_are_those_of_the_records(embedded: Store) -> None:
    rolling = Rolling(embedded)
    for seed in range(2):
        rolling.insert(batch_of(500, seed, span_s=7200))
    rolling.look(everything=True)
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    ends = ", ".join(f"uniqExact({end_sql(end)})" for end in ("source", "destination"))
    for where, when in (("1", "1"), (f"flowEndSeconds < {EPOCH_S + 3600}", f"time = {EPOCH_S}")):
        peak = f"(SELECT max(throughput) FROM {database}.flows WHERE {where})"
        expected = run(f"SELECT {peak}, {ends} FROM {database}.{TABLE} WHERE {where}")
        found = run(
            "SELECT max(peakThroughput), uniqExactMerge(sources), uniqExactMerge(destinations)"
            f" FROM {database}.{HOURS.name} WHERE {when}"
        )
        assert found == expected


@pytest.mark.clickhouse
def test_what_is_counted_of_connections(embedded: Store) -> None:
    """Denied, unanswered, ended and begun: as measures define them."""
    from flowvis.questions import measures

    rolling = Rolling(embedded)
    batch = batch_of(400, 3)
    rng = np.random.default_rng(1)
    batch["ingressNetworkPolicyRuleAction"] = rng.integers(0, 6, 400).astype(np.uint8)
    batch["egressNetworkPolicyRuleAction"] = rng.integers(0, 6, 400).astype(np.uint8)
    batch["flowEndReason"] = rng.integers(1, 4, 400).astype(np.uint8)
    half = rng.integers(0, 2, 400, np.uint64)
    for name in ("packetTotalCount", "packetDeltaCount"):
        batch[name] = np.full(400, 5, np.uint64)
    batch["reversePacketTotalCount"] = batch["reversePacketDeltaCount"] = half
    batch["flowStartSeconds"] = batch["flowEndSeconds"]
    batch["monitoringIntervalStartMilliSeconds"] = batch["flowEndSeconds"].astype(
        np.uint64
    ) * np.uint64(1000)
    rolling.insert(batch)
    rolling.look(everything=True)
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    names = ("connections", "ended", "denied", "unanswered", "records")
    sql = ", ".join(f"toUInt64({measures.BY_NAME[name].sql})" for name in names)
    from flowvis.clickhouse.schema.tables import definitions

    made_of = ", ".join(f"{text} AS {name}" for name, text in definitions(sql).items())
    given = f"WITH {made_of} " if made_of else ""
    (expected,) = run(f"{given}SELECT {sql} FROM {database}.{TABLE}")
    assert min(expected) > 10
    for rollup in ROLLUPS:
        summed = ", ".join(f"sum({name})" for name in names)
        assert run(f"SELECT {summed} FROM {database}.{rollup.name}") == [expected]


@pytest.mark.parametrize(
    ("address", "pod", "node", "network"),
    [
        ("203.0.113.77", "", "", "203.0.113.0"),
        ("203.0.113.77", "web-0", "", ""),
        ("10.0.0.9", "", "node-1", ""),
        ("2001:db8:1:2::77", "", "", "2001:db8:1::"),
        ("::1", "", "", "::"),
    ],
)
@pytest.mark.clickhouse
def test_networks_of_what_is_outside(
    embedded: Store, address: str, pod: str, node: str, network: str
) -> None:
    rolling = Rolling(embedded)
    batch = flows(2)
    for end in ("source", "destination"):
        batch[f"{end}IP"] = np.tile(np.frombuffer(address_bytes(address), np.uint8), (2, 1))
        batch[f"{end}PodName"] = batch.strings.encode([pod] * 2)
        batch[f"{end}NodeName"] = batch.strings.encode([node] * 2)
    rolling.insert(batch)
    rolling.look(everything=True)
    expected = bytes(address_bytes(network)) if network else bytes(16)
    database = embedded.name.rsplit("/", 1)[1]
    for rollup in ROLLUPS:
        found = admin(embedded)(
            "SELECT DISTINCT hex(sourceNetworkBytes), hex(destinationNetworkBytes)"
            f" FROM {database}.{rollup.name}"
        )
        assert found == [(expected.hex().upper(),) * 2]


class Failing(RollupTables):
    """Tables whose engine fails before or after a step, once for each that is told."""

    def __init__(self, tables: RollupTables, moments: Sequence[str]) -> None:
        super().__init__(tables._execute, tables._layout, alone=tables.alone)
        self.moments = list(moments)

    def _fails(self, moment: str) -> None:
        if self.moments and self.moments[0] == moment:
            self.moments.pop(0)
            raise StoreError(f"away {moment}", retryable=True)

    def note(self, roll: Roll, *, done: bool) -> None:
        self._fails(f"before note {done}")
        super().note(roll, done=done)
        self._fails(f"after note {done}")

    def roll(self, roll: Roll) -> None:
        self._fails("before roll")
        super().roll(roll)
        self._fails("after roll")


MOMENTS = [
    *(f"{when} note {done}" for when in ("before", "after") for done in (False, True)),
    "before roll",
    "after roll",
]


@pytest.mark.clickhouse
@pytest.mark.parametrize("how", ["goes on", "another process"])
def test_a_roll_that_fails_is_repeated_as_it_was(embedded: Store, how: str) -> None:
    """Whatever the moment, and whoever goes on; batches that come meanwhile are of another roll."""
    clock, plain = Time(), tables(embedded)
    rolling = Rolling(embedded, clock=clock)
    for number, moment in enumerate(MOMENTS):
        rolling.insert(batch_of(100, number))
        embedded.rollups = failing = Failing(plain, [moment])  # type: ignore[misc]
        with pytest.raises(StoreError, match=f"away {moment}"):
            rolling.look(everything=True)
        assert not failing.moments
        rolling.insert(batch_of(50, 100 + number))
        if how == "another process":
            rolling = Rolling(embedded, f"successor{number}", clock)
        rolling.look(everything=True)
        assert not differences(plain, *ALL), moment
        assert rolling.settled_s(MINUTES) == clock.now_s // 60 * 60
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.parametrize("rollup", ROLLUPS, ids=lambda rollup: rollup.name)
@pytest.mark.parametrize("how", ["goes on", "another process"])
def test_a_roll_that_the_engine_only_takes_for_repeated_is_rolled(
    embedded: Store, rollup: Rollup, how: str
) -> None:
    """As where it was killed between noting the token and giving the part its name."""
    plain, database = tables(embedded), embedded.name.rsplit("/", 1)[1]

    class Killed(Failing):
        def roll(self, roll: Roll) -> None:
            self.moments = ["after roll"] if roll.rollup is rollup else []
            super().roll(roll)

    rolling = Rolling(embedded)
    rolling.insert(batch_of(100, 1))
    rolling.look(everything=True)
    for number in (2, 3):
        rolling.insert(batch_of(100, number), EPOCH_S + 86_400)
    embedded.rollups = Killed(plain, [])  # type: ignore[misc]
    with pytest.raises(StoreError, match="away after roll"):
        rolling.look(everything=True)
    where = f"inserted = toDate(toDateTime({EPOCH_S + 86_400})) SETTINGS mutations_sync = 2"
    admin(embedded)(f"ALTER TABLE {database}.{rollup.name} DELETE WHERE {where}")
    embedded.rollups = plain  # type: ignore[misc]
    if how == "another process":
        rolling = Rolling(embedded, "successor", rolling.clock)
    rolling.insert(batch_of(50, 4))
    rolling.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_a_repeated_roll_is_recognised_whatever_the_engine_would_choose(embedded: Store) -> None:
    assert isinstance(embedded, EmbeddedStore)
    store = embedded

    def execute(sql: str, options: Mapping[str, int | str]) -> list[tuple[Any, ...]]:
        """As the embedded store does, where the engine recognises no INSERT SELECT by itself."""
        settings = ", ".join(f"{name} = {value!r}" for name, value in options.items())
        with store.session("SET deduplicate_insert_select = 'disable'") as session:
            session.query(f"{sql} SETTINGS {settings}")
        return []

    batch, batch_id = batch_of(100), BatchId("test", EPOCH_S)
    embedded.insert(batch, batch_id)
    rolling = tables(embedded)
    rolling._execute = execute
    for rollup in ROLLUPS:
        for _ in range(2):
            rolling.roll(Roll(rollup, "test-1", (stored(batch, batch_id),)))
    assert embedded.migrate() == []  # with what executes as it should
    assert not differences(tables(embedded), *ALL)


@pytest.mark.clickhouse
def test_a_store_that_was_made_before_is_filled_oldest_first_in_pieces(
    embedded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        batch = batch_of(100, number, first_s=EPOCH_S + number * 600, span_s=600)
        embedded.insert(batch, BatchId("old", EPOCH_S + number * 600 + 600))
    rolling = Rolling(embedded)
    seen: list[list[int]] = []
    real = RollupTables.roll

    def roll(self: RollupTables, roll: Roll) -> None:
        real(self, roll)
        if roll.rollup is MINUTES:
            seen.append([batch.batch_id.inserted_s for batch in roll.batches])

    with monkeypatch.context() as patch:
        patch.setattr(rolls, "ROLL_RECORDS", 250)
        patch.setattr(RollupTables, "roll", roll)
        rolling.look()
    inserted = [EPOCH_S + number * 600 + 600 for number in range(7)]
    assert seen == [inserted[0:2], inserted[2:4], inserted[4:6], inserted[6:]]
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_more_batches_than_one_look_takes(embedded: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        embedded.insert(batch_of(20, number), BatchId("old", EPOCH_S + number))
    rolling = Rolling(embedded)
    with monkeypatch.context() as patch:
        patch.setattr(rolls, "SCAN_BATCHES", 3)
        for look in range(3):
            assert not embedded.settled, look
            rolling.look()
    assert embedded.settled
    rolling.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.parametrize(("minutes_s", "hours_s"), [(5000, 0), (5000, 8000), (0, 5000)])
def test_batches_that_a_roll_up_would_not_keep_are_not_waited_for(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, minutes_s: int, hours_s: int
) -> None:
    """Of a store from before, whose records are kept for longer: else the look never gets on."""
    kept = Retention(0, minutes_s, hours_s)
    monkeypatch.setattr(EmbeddedStore, "kept", kept)
    rolling = Rolling(embedded)
    now_s = int(rolling.clock.now_s)
    ages = [*range(9900, 9000, -150), *range(6900, 6000, -150), *range(900, 0, -150)]
    for number, age_s in enumerate(ages):
        batch = batch_of(10, number, first_s=now_s - age_s, span_s=60)
        embedded.insert(batch, BatchId("old", now_s - age_s + 60))
    with monkeypatch.context() as patch:
        patch.setattr(rolls, "SCAN_BATCHES", 4)
        for _ in range(len(ages)):
            rolling.look()
        rolling.look(everything=True)
    assert embedded.settled
    for rollup in ROLLUPS:
        there = [age for age in ages if not kept.of(rollup) or age - 60 <= kept.of(rollup)]
        rows = embedded.query(f"SELECT sum(records) FROM {rollup.name}").rows
        assert rows == [[10 * len(there)]], rollup.name
    assert tables(embedded).batches(0, kept.rollups_begin_s(now_s)) == []


@pytest.mark.clickhouse
def test_settled_is_what_is_rolled(embedded: Store) -> None:
    """Before it roll-ups have all that is stored, at each moment; so nobody counts twice."""
    rolling = Rolling(embedded)
    clock = rolling.clock
    rolling.look()
    now_s = int(clock.now_s)
    assert (rolling.settled_s(MINUTES), rolling.settled_s(HOURS)) == (now_s, now_s)
    clock.now_s += 310
    rolling.insert(batch_of(50, 1, first_s=now_s + 245, span_s=20))
    assert rolling.settled_s(MINUTES) == now_s  # not raised before a look
    rolling.look()
    assert rolling.settled_s(MINUTES) == now_s + 300  # rolled: five minutes are over
    assert rolling.settled_s(HOURS) == now_s  # its hour is not
    clock.now_s += 10
    rolling.insert(batch_of(50, 2, first_s=now_s + 30, span_s=20))
    assert rolling.settled_s(MINUTES) == now_s  # what lies behind pulls it back at once
    rolling.look()
    assert rolling.settled_s(MINUTES) == now_s  # it is not time
    clock.now_s += 300
    rolling.look()
    assert rolling.settled_s(MINUTES) == now_s + 600
    clock.now_s = now_s + 3600 + 130
    rolling.look()
    assert rolling.settled_s(HOURS) == now_s + 3600
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_late_batches_are_rolled_at_once(embedded: Store) -> None:
    """As those of a spool, or of an exporter that was away: who asks shall not read days for it."""
    rolling = Rolling(embedded)
    rolling.clock.now_s += 12 * 3600
    rolling.look()
    settled = dict(embedded.settled)
    rolling.insert(batch_of(50, 1, first_s=EPOCH_S, span_s=3600), inserted_s=EPOCH_S + 4000)
    assert rolling.settled_s(MINUTES) < EPOCH_S + 3600
    rolling.look()
    assert embedded.settled == settled
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_a_commit_of_unknown_outcome_is_looked_for(embedded: Store) -> None:
    """The writer gave it up, and the store had it after all."""
    rolling = Rolling(embedded)
    rolling.look()
    batch = batch_of(50, 1)
    lost = BatchId("test", EPOCH_S + 10, 99)
    rolling.roller.begin(stored(batch, lost))
    embedded.insert(batch, lost)
    rolling.insert(batch_of(20, 2))
    rolling.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.parametrize("everything", [False, True])
def test_what_a_replica_lacks_is_waited_for(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    """On a cluster who is asked may not have what another one has just acknowledged."""
    monkeypatch.setattr("flowvis.clickhouse.roller.LOOK_S", 0.0)
    execute, database = tables(embedded)._execute, embedded.name.rsplit("/", 1)[1]
    behind = True

    def of_replica(sql: str, options: Mapping[str, int | str]) -> Iterable[Sequence[Any]]:
        has = f"(SELECT * FROM {database}.{TABLE} WHERE batchNumber != 2)"
        stored = sql.replace(f" FROM {database}.{TABLE} ", f" FROM {has} ")
        return execute(stored if behind else sql, options)

    embedded.rollups = RollupTables(  # type: ignore[misc]
        of_replica, TableLayout(database, "cluster"), alone=False
    )
    rolling = Rolling(embedded)
    rolling.look()
    rolling.clock.now_s += 12 * 3600  # what comes is late, so it is rolled at once
    for number in range(3):
        rolling.insert(batch_of(50, number))
    for _ in range(2):
        with pytest.raises(StoreError, match="not yet all records of 1 batches"):
            rolling.look(everything=everything)
    assert rolling.settled_s(MINUTES) <= EPOCH_S + 60
    behind = False
    rolling.look(everything=everything)
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_what_others_write_is_left_to_them_for_a_while(embedded: Store) -> None:
    embedded.rollups = RollupTables(  # type: ignore[misc]  # as on a server
        tables(embedded)._execute, tables(embedded)._layout, alone=False
    )
    clock = Time()
    ours, theirs = Rolling(embedded, "ours", clock), Rolling(embedded, "theirs", clock)
    ours.look()
    batch = batch_of(100, 1)
    theirs.insert(batch)
    ours.insert(batch_of(100, 2))
    clock.now_s += 200
    ours.roller._scan_at_s = clock.now_s
    ours.look(everything=True)  # not theirs: they may be about to
    minutes = [TABLE, MINUTES.name]
    records = [tables(embedded).sums(table, 0, 1 << 31)[4] for table in minutes]
    assert records == [200, 100]
    assert ours.settled_s(MINUTES) <= int(batch["flowEndSeconds"].min())
    theirs.look(everything=True)
    assert_equal(embedded)
    theirs.insert(batch_of(100, 3))  # and is gone
    clock.now_s += PACES[HOURS.name].left_s + 1
    ours.look(everything=True)
    assert_equal(embedded)


def two_on_a_server(embedded: Store, clock: Time) -> tuple[Rolling, Rolling]:
    """Two aggregators, each with what it knows by itself of one store that both write to."""
    shared = RollupTables(tables(embedded)._execute, tables(embedded)._layout, alone=False)

    class Known:
        """The store as one of them knows it."""

        rollups, partitions, kept = shared, embedded.partitions, embedded.kept
        insert = embedded.insert

        def __init__(self) -> None:
            self.settled: dict[str, int] = {}
            self.lost: Sequence[Lost] = ()

    ours, theirs = (Rolling(Known(), who, clock) for who in ("ours", "theirs"))  # type: ignore[arg-type]
    return ours, theirs


@pytest.mark.clickhouse
@pytest.mark.parametrize("before", ["rolled all", "had not begun"])
def test_what_others_commit_between_looks_is_not_settled(embedded: Store, before: str) -> None:
    """Though all that they had committed was rolled when we looked, or there was nobody."""
    clock = Time()
    ours, theirs = two_on_a_server(embedded, clock)
    if before == "rolled all":
        theirs.insert(batch_of(100, 1))
        theirs.look(everything=True)
    ours.look()
    clock.now_s += 100
    batch = batch_of(100, 2, first_s=int(clock.now_s) - 20, span_s=20)
    theirs.insert(batch)
    clock.now_s += 100
    ours.look()
    for rollup in ROLLUPS:
        assert ours.settled_s(rollup) <= int(batch["flowEndSeconds"].min())
    theirs.look(everything=True)
    clock.now_s += 300
    ours.look()
    assert ours.settled_s(MINUTES) >= clock.now_s - PACES[MINUTES.name].left_s - 60
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_who_has_rolled_all_and_gone_keeps_nobody_back(embedded: Store) -> None:
    """As the process before, but for some minutes."""
    clock = Time()
    ours, theirs = two_on_a_server(embedded, clock)
    theirs.insert(batch_of(100, 1))
    theirs.look(everything=True)
    ours.look()
    assert ours.settled_s(HOURS) < clock.now_s - 2 * 3600
    for _ in range(3):
        clock.now_s += 301
        ours.look()
    assert ours.settled_s(MINUTES) == int(clock.now_s) // 60 * 60
    assert ours.settled_s(HOURS) == EPOCH_S + 3600


@pytest.mark.clickhouse
def test_what_another_one_had_in_its_spool_for_long_and_left_is_rolled_within_a_day(
    embedded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time()
    ours, theirs = two_on_a_server(embedded, clock)
    ours.look()
    theirs.insert(batch_of(100), EPOCH_S - 86_400)  # and is dead
    clock.now_s += 300
    ours.look()
    assert ours.roller.stats.rolls == 0  # so far back it does not look every five minutes
    monkeypatch.setattr("flowvis.clickhouse.roller.WHOLE_S", 0.0)  # a day later
    clock.now_s += 300
    ours.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    "writer", ["o'clock", "') OR ('' = '", "back\\slash\\", "na\nme", "größer"]
)
def test_whatever_a_writer_is_called_its_batches_are_rolled(embedded: Store, writer: str) -> None:
    clock = Time()
    left, there = Rolling(embedded, writer, clock), Rolling(embedded, clock=clock)
    left.insert(batch_of(100))  # and is dead
    there.insert(batch_of(100, 1))
    clock.now_s += PACES[HOURS.name].left_s + 120
    there.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_after_a_clock_was_set_back_others_are_looked_for(embedded: Store) -> None:
    clock = Time()
    ours, theirs = two_on_a_server(embedded, clock)
    clock.now_s += 40 * 86_400
    ours.look()
    clock.now_s -= 40 * 86_400
    theirs.insert(batch_of(100))  # and is dead
    clock.now_s += PACES[HOURS.name].left_s + 120
    ours.look(everything=True)
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize("rolled", [True, False])
def test_what_was_committed_by_a_clock_that_was_far_ahead_is_rolled_once(
    embedded: Store, monkeypatch: pytest.MonkeyPatch, lives: bool, rolled: bool
) -> None:
    """Else it would be left to its writer until that moment, and nothing settled before."""
    clock = Time()
    monkeypatch.setattr(RollupTables, "now_s", lambda _, began_s=int(clock.now_s): began_s)
    ours, theirs = two_on_a_server(embedded, clock)
    ours.look()
    clock.now_s += 40 * 86_400
    for number in range(3):
        theirs.insert(batch_of(50, number))
    if rolled:
        theirs.look(everything=True)
    clock.now_s -= 40 * 86_400
    clock.now_s += PACES[HOURS.name].left_s + 120
    ours.roller._scan_at_s = clock.now_s
    ours.look(everything=True)
    if lives:
        theirs.look(everything=True)
    assert_equal(embedded)
    hour_s = HOURS.start_s(int(clock.now_s) - PACES[HOURS.name].left_s)
    assert ours.settled_s(HOURS) >= hour_s
    clock.now_s += 8 * 3600  # and who commits nothing keeps nobody back
    ours.roller._scan_at_s = clock.now_s
    ours.look()
    assert ours.settled_s(HOURS) == HOURS.start_s(int(clock.now_s))


@pytest.mark.clickhouse
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_what_nobody_could_roll_for_long_is_rolled_by_one(embedded: Store, first: str) -> None:
    """An engine that refuses every roll for hours: its writers have taken over from each other."""
    clock = Time()
    pair = two_on_a_server(embedded, clock)
    for number, one in enumerate(pair):
        one.look()
        for batch in range(3):
            one.insert(batch_of(100, 10 * number + batch))
    clock.now_s += PACES[HOURS.name].left_s + 120
    plain = pair[0].store.rollups
    for one in pair:
        one.store.rollups = Failing(tables(one.store), ["before roll"])  # type: ignore[misc]
        one.roller._scan_at_s = clock.now_s
    refused = pair if first == "ours" else pair[::-1]
    for one in refused:
        with pytest.raises(StoreError):
            one.look()
        one.store.rollups = plain  # type: ignore[misc]
    for _ in range(2):
        for one in refused:
            one.look(everything=True)
        clock.now_s += PACES[HOURS.name].left_s + 120
    assert_equal(embedded)


@pytest.mark.clickhouse
@pytest.mark.slow
def test_what_two_find_at_one_moment_is_rolled_by_one(
    embedded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when both come back with the server, or one of them brings what it had spooled."""
    monkeypatch.setattr("flowvis.clickhouse.roller.CLAIM_S", CLAIM_S)
    clock = Time()
    for number in range(5):
        left = BatchId("dead", EPOCH_S + number, number)
        embedded.insert(batch_of(100, number), left)
    clock.now_s += PACES[HOURS.name].left_s + 120
    pair = two_on_a_server(embedded, clock)
    pair[1].insert(batch_of(100, 9), EPOCH_S + 9)  # long ago it went to the spool

    async def look() -> None:
        await asyncio.gather(*(one.roller.look(everything=True) for one in pair))

    asyncio.run(look())
    assert_equal(embedded)
    for one in pair:  # what is left to the other one is known as rolled at the next look
        one.roller._scan_at_s = clock.now_s
        one.look()
        assert one.settled_s(HOURS) > EPOCH_S
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_who_was_first_to_claim_goes_on_and_a_claim_ends(embedded: Store) -> None:
    """The engine's clock says who; who came first need not be told of who comes later."""
    shared, ids = tables(embedded), [BatchId("dead", EPOCH_S, number) for number in range(3)]
    for rollup in ROLLUPS:
        shared.claim(rollup, "second", ids[:2])
        for who, ago_s, claimed in (("first", 5, ids[:1]), ("dead", VALID_S + 100, ids)):
            sql = claim_sql(shared._layout, rollup, who, claimed)
            admin(embedded)(sql.replace("now()", f"now() - {ago_s}"))
    for rollup in ROLLUPS:
        assert shared.claimants(rollup, ids) == {ids[0]: "first", ids[1]: "second"}
        # What ends soon is no claim to go by if another one comes after it, nor is that one yet.
        sql = claim_sql(shared._layout, rollup, "ending", ids[1:])
        admin(embedded)(sql.replace("now()", f"now() - {VALID_S - 100}"))
        shared.claim(rollup, "ending", ids[2:])
        found = {ids[0]: "first", ids[1]: "", ids[2]: "ending"}
        assert shared.claimants(rollup, ids) == found
    # They are no notes of rolls.
    assert not {note.rollup for note in shared.rolled(0)} & {rollup.name for rollup in ROLLUPS}


@pytest.mark.clickhouse
@pytest.mark.parametrize("looked", [False, True])
def test_what_another_has_begun_of_old_batches_is_waited_for_and_taken(
    embedded: Store, looked: bool
) -> None:
    """Killed as it filled roll-ups of an older store: meanwhile these lack it, and that is known.

    What is ours of it, if anything, is no roll of its own.
    """
    clock = Time()
    clock.now_s = time.time()  # as notes have the engine's
    now_s = int(clock.now_s)
    first_s = (now_s - 8 * 3600) // 60 * 60  # all begin in one minute
    ours, theirs = two_on_a_server(embedded, clock)
    if looked:
        ours.look()
    batches = []
    for number, one in enumerate((theirs, ours, theirs)):
        batch = batch_of(100, number, first_s=first_s, span_s=600)
        batch_id = one.insert(batch, now_s - 6 * 3600 + number)
        batches.append(stored(batch, batch_id))
    for rollup in ROLLUPS:
        tables(ours.store).note(Roll(rollup, "theirs-1", (*batches,)), done=False)  # and is dead
    for waited_s in (0, 300, 300):
        clock.now_s += waited_s
        ours.look()
        assert ours.settled_s(MINUTES) <= min(each.first_s for each in batches), waited_s
    clock.now_s += PACES[HOURS.name].left_s
    ours.look(everything=True)
    assert ours.settled_s(HOURS) > now_s
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_notes_go_a_month_after_the_records_that_they_are_of(embedded: Store) -> None:
    """And all that is there stays known as rolled."""
    rolling, day_s = Rolling(embedded), 86_400
    now_s = rolling.clock.now_s = time.time()
    for number, days in enumerate((400, 200, 100, 100, 1)):
        first_s = int(now_s) - days * day_s
        rolling.insert(batch_of(20, number, first_s=first_s, span_s=60), first_s + 60)
    rolling.look(everything=True)
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    noted = f"SELECT DISTINCT insertedSeconds FROM {database}.{ROLLED} ORDER BY 1"
    assert len(run(noted)) == 4
    run(f"ALTER TABLE {database}.{TABLE} DELETE WHERE batchNumber <= 2 SETTINGS mutations_sync = 2")
    assert tables(embedded).forget(now_s) == [
        time.strftime("%Y%m", time.gmtime(now_s - days * day_s + 60)) for days in (400, 200)
    ]
    assert len(run(noted)) == 2
    rolls = rolling.roller.stats.rolls
    rolling.roller.renew()
    rolling.look(everything=True)
    assert rolling.roller.stats.rolls == rolls


def test_which_notes_nobody_needs() -> None:
    months, now_s = ["202512", "202601", "202602", "202603", "202606"], 1_782_000_000  # June 2026
    assert list(outlived(months, "20260615", now_s)) == months[:4]
    assert list(outlived(months, "", now_s)) == months[:4]
    assert list(outlived(months, "20260301", now_s)) == ["202512"]
    assert list(outlived(months, "20260304", now_s)) == ["202512", "202601"]
    assert list(outlived(months, "20990101", now_s)) == months[:4]  # of a clock that was ahead
    # All of it is old: until when all is rolled has to stay known.
    assert list(outlived(months[:2], "", now_s)) == ["202512"]
    assert list(outlived([], "", now_s)) == []


@pytest.mark.clickhouse
def test_a_difference_is_found_and_named(embedded: Store) -> None:
    rolling = Rolling(embedded)
    rolling.insert(batch_of(100, 1))
    rolling.look(everything=True)
    database = embedded.name.rsplit("/", 1)[1]
    assert not differences(tables(embedded), EPOCH_S, EPOCH_S + 3600)
    admin(embedded)(
        f"INSERT INTO {database}.{HOURS.name} (time, inserted, records, octetDeltaCount)"
        f" SELECT toDateTime({EPOCH_S}), toDate(toDateTime({EPOCH_S})), 1, 0"
    )
    (found,) = differences(tables(embedded), EPOCH_S, EPOCH_S + 3600)
    assert (found.rollup, found.measure, found.records, found.rolled) == (
        *("flow_hours", "records"),
        *(100, 101),
    )
    assert "flow_hours has records 101 of 2026-09-21T" in str(found)
    assert not differences(tables(embedded), EPOCH_S + 3600, EPOCH_S + 7200)


BATCHES = st.lists(
    st.tuples(
        st.integers(1, 40),  # records
        st.integers(-5, 30),  # hours before which they end
        st.sampled_from(["", *MOMENTS]),  # when something fails
        st.booleans(),  # whether another process goes on
        st.integers(0, 4000),  # seconds that pass
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.clickhouse
def test_random_histories(embedded: Store) -> None:
    """Batches of any times, failures at any moment, other processes: each record once."""
    number = iter(range(1_000_000))
    clock = Time()
    plain = tables(embedded)

    @settings(
        max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(BATCHES)
    def check(history: Sequence[tuple[int, int, str, bool, int]]) -> None:
        rolling = Rolling(embedded, f"writer{next(number)}", clock)
        for rows, hours, moment, another, passes_s in history:
            seed = next(number)
            first_s = int(clock.now_s) - hours * 3600
            embedded.rollups = Failing(plain, [moment])  # type: ignore[misc]
            rolling.insert(batch_of(rows, seed, first_s=first_s, span_s=3600))
            clock.now_s += passes_s
            try:
                rolling.look()
            except StoreError:
                assert moment
            if another:
                rolling = Rolling(embedded, f"writer{next(number)}", clock)
        embedded.rollups = plain  # type: ignore[misc]
        rolling.look(everything=True)
        assert not differences(plain, *ALL)

    check()
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_the_last_settled_hour_is_compared(
    embedded: Store, caplog: pytest.LogCaptureFixture
) -> None:
    rolling = Rolling(embedded)
    rolling.insert(batch_of(100, 1, span_s=1800))
    rolling.clock.now_s = EPOCH_S + 3600 + 200
    rolling.look()
    shown = rolling.roller.as_dict()
    assert shown["compared"] == [EPOCH_S * 1000, (EPOCH_S + 3600) * 1000]
    assert (shown["differences"], shown["waitingRecords"]) == ([], 0)
    database = embedded.name.rsplit("/", 1)[1]
    rolling.insert(batch_of(100, 2, first_s=EPOCH_S + 3700, span_s=60))
    admin(embedded)(
        f"INSERT INTO {database}.{MINUTES.name} (time, inserted, ended)"
        f" SELECT toDateTime({EPOCH_S + 3660}), toDate(toDateTime({EPOCH_S})), 3"
    )
    rolling.clock.now_s += 3600
    rolling.look()
    (difference,) = rolling.roller.as_dict()["differences"]
    assert difference.startswith("flow_minutes has ended ")
    assert difference in caplog.text
    assert rolling.roller.stats.differences == 1


CRASH = """
import asyncio, sys, time
from dataclasses import replace
from clickhouse.samples import flows
from flowvis.clickhouse import roll_queue, roller
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.clickhouse.writer import Writer
from flowvis.runtime.ledger import Stage

async def main():
    roller.LOOK_S = 0.005
    for name, pace in list(roll_queue.PACES.items()):
        roll_queue.PACES[name] = replace(pace, every_s=1, after_s=0)
    store = open_store(StoreSettings(sys.argv[1], database="killed"))
    writer = Writer(store, Stage("clickhouse"), commit_interval_s=0.01)
    await writer.start()
    while True:
        writer.put(flows(50, end_s=int(time.time())))
        print(writer.stats.rollups.rolls, flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


LOOK = """
import asyncio, sys, time
from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.rollup_tables import differences
from flowvis.clickhouse.schema.rollups import HOURS
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.store import StoreSettings, open_store

store = open_store(StoreSettings(sys.argv[1], database="killed"))
store.migrate()
asyncio.run(Roller(store, "last").look(everything=True))
to_s = HOURS.start_s(int(time.time())) + 7200
print(store.rollups.sums(TABLE, 0, to_s)[4])
print(len(store.rollups.batches(0, {})), *differences(store.rollups, 0, to_s))
store.close()
"""


def child(script: str, url: str) -> subprocess.Popen[str]:
    """Start a process: an engine has one directory in one process."""
    return subprocess.Popen(
        [sys.executable, "-c", script, url],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        text=True,
    )


@pytest.mark.clickhouse
@pytest.mark.slow
def test_kill_9_between_records_and_rolls(tmp_path: Path) -> None:
    """A process dies as it commits and rolls, again and again; the next one goes on."""
    url = f"embedded://{tmp_path}/store"
    for count in (1, 4):
        with child(CRASH, url) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= count:
                    break
            process.kill()
    with child(LOOK, url) as process:
        records, differ = process.communicate()[0].splitlines()
    assert int(records) >= 100
    assert differ == "0"


@pytest.mark.clickhouse
def test_a_day_is_made_anew(embedded: Store) -> None:
    """As docs/clickhouse.md says."""
    rolling = Rolling(embedded)
    rolling.insert(batch_of(100, 1))
    rolling.look(everything=True)
    run, database = admin(embedded), embedded.name.rsplit("/", 1)[1]
    run(
        f"INSERT INTO {database}.flow_minutes (time, inserted, records)"
        f" SELECT toDateTime({EPOCH_S}), toDate(toDateTime({EPOCH_S})), 3"
    )
    assert differences(tables(embedded), *ALL)
    for table in ("flow_minutes", "flow_hours"):
        run(f"ALTER TABLE {database}.{table} DROP PARTITION '2026-09-21'")
    run(
        f"ALTER TABLE {database}.flow_rolled DELETE"
        " WHERE toDate(toDateTime(insertedSeconds)) = '2026-09-21' SETTINGS mutations_sync = 1"
    )
    Rolling(embedded, "next", rolling.clock).look(everything=True)
    assert_equal(embedded)


@pytest.mark.parametrize(
    ("statement", "inserts"),
    [
        ("INSERT INTO flowvis.flow_records (a, b) VALUES", True),
        ("INSERT INTO flowvis.flow_records_local (a, b) VALUES", True),
        ("INSERT INTO flowvis.flow_minutes (a) SELECT a FROM flowvis.flow_records WHERE a", False),
        ("SELECT 1 FROM flowvis.flow_records", False),
    ],
)
def test_a_roll_is_no_insert_of_records(statement: str, inserts: bool) -> None:
    """An aggregator that begins waits for such, as they may bring a connection's last record."""
    assert bool(re.match(INSERTS_RECORDS, statement)) == inserts
    batch = StoredBatch(BatchId("w", 5), 1, 1, 2)
    for rollup in ROLLUPS:
        assert not re.match(
            INSERTS_RECORDS, roll_sql(TableLayout("x"), Roll(rollup, "r", (batch,)))
        )


@pytest.mark.clickhouse
def test_a_modern_server_rolls(embedded: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is asked is answered by the modern engine: all but the driver between them."""
    database = embedded.name.rsplit("/", 1)[1]
    server = ServerStore(
        StoreSettings("tcp://nowhere", database=database, **FOREVER), "nowhere", None, secure=False
    )
    run = admin(embedded)
    with monkeypatch.context() as patch:
        patch.setattr(server, "_execute", lambda sql, **_: run(sql))
        patch.setattr(server, "_execute_beside", tables(embedded)._execute)
        assert not server.migrate()
        embedded.insert(batch_of(100, 1), BatchId("test", EPOCH_S))
        asyncio.run(Roller(server, "test", clock=Time()).look(everything=True))
        assert server.rollups is not None
        assert not server.rollups.alone
        assert not differences(server.rollups, *ALL)
    assert_equal(embedded)


@pytest.mark.clickhouse
def test_a_roll_has_a_connection_of_its_own(server_settings: StoreSettings) -> None:
    """Of the driver, which must not wait for rows to send; on 18.16, whatever the statement."""
    store = open_store(server_settings)
    assert isinstance(store, ServerStore)
    try:
        store.migrate()
        of = f"{server_settings.database}.flow_books"
        rows = "(SELECT arrayJoin([('a', 7)]) AS id)"
        sql = f"INSERT INTO {of} (time, records) SELECT now(), id.2 FROM {rows}"
        assert not store._execute_beside(sql, {"max_threads": 1})
        assert store._execute_beside(f"SELECT records FROM {of}", {}) == [(7,)]
        assert store._beside is not store._client
    finally:
        store.close()


@pytest.mark.clickhouse
def test_an_older_server_goes_without_and_says_so(server_settings: StoreSettings) -> None:
    store = open_store(server_settings)
    try:
        assert any("no roll-ups" in line for line in store.migrate())
        rolling = Rolling(store)
        rolling.insert(flows(5))
        rolling.look(everything=True)
        assert (store.settled, store.rollups, rolling.roller.as_dict()) == ({}, None, {})
    finally:
        store.close()
