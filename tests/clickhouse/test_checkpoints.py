"""Rows of live flows as the store gives them back."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from clickhouse_driver import Client

from aggregator.exported import (
    DESTINATION_HALF,
    INTRA_NODE,
    SOURCE_HALF,
    START_MS,
    counted,
    exported,
)
from flowvis.aggregator.correlation.checkpoint import RESTORED, flows, newest
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlation.key import generation
from flowvis.checkpoint import tuple_hashes
from flowvis.clickhouse import replicas
from flowvis.clickhouse.schema import checkpoints as checkpoints_module
from flowvis.clickhouse.schema.checkpoints import Answer, TooManyRows, Wanted, restore
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.server import ServerStore
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import StoreError
from waiting import block_until

from .cluster import NAME, Cluster
from .conftest import FOREVER, migrate, place

NOW = START_MS + 60_500
_numbers = itertools.count()


@pytest.fixture
def table() -> FlowTable:
    """All kinds of flows, each written, some more than once."""
    table = FlowTable(max_flows=64)
    snat = {"proxySnatIP": "192.0.2.9", "proxySnatPort": 61_000}
    service = {"destinationServiceIP": "192.0.2.2", "destinationServicePort": 30_080}
    starts = {"flowStartMilliseconds": START_MS + 17}
    records = [
        SOURCE_HALF | counted(10),
        DESTINATION_HALF | starts | counted(12) | {"flowEndMilliseconds": START_MS + 59_001},
        SOURCE_HALF | counted(3) | {"sourceTransportPort": 1},
        DESTINATION_HALF | counted(3) | {"sourceTransportPort": 2},
        INTRA_NODE | counted(7) | {"sourceTransportPort": 3, "observationDomainId": 77},
        INTRA_NODE | counted(7) | {"sourceIP": "fd00::1", "destinationIP": "fd00::2"},
        INTRA_NODE | counted(7) | {"sourceIP": "10.9.0.1"},  # the second endpoint of its key
        INTRA_NODE | counted(8) | {"protocolIdentifier": 1, "flowId": 8 << 24 | 77}
        | {"sourceTransportPort": 0, "destinationTransportPort": 0},
        SOURCE_HALF | counted(9) | snat | {"sourceTransportPort": 4, "flowType": 3},
        DESTINATION_HALF | counted(9) | service | {"flowType": 4, "sourceIP": "198.51.100.7"},
    ]  # fmt: skip
    table.add(exported(table.strings, *records), NOW)
    return table


def write(table: FlowTable, store: Store, at_ms: int = NOW, cluster: str = "a cluster") -> None:
    batch = table.flush(at_ms)
    batch.columns["clusterId"][:] = table.strings.intern(cluster.encode())
    store.insert(batch, BatchId("test", at_ms // 1000))


def known(store: Store, wanted: Wanted) -> Answer:
    """Ask as the aggregator does: again, as long as the server has not ended an INSERT."""
    return block_until(lambda: store.checkpoints(wanted), despite=(StoreError,))


@pytest.fixture(params=["server", "embedded", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_store(place(request, f"checkpoints{next(_numbers)}"))
    migrate(store)
    yield store
    store.close()


def test_a_row_is_the_same_again(table: FlowTable, store: Store) -> None:
    write(table, store)
    again = {"flowEndMilliseconds": START_MS + 65_000}
    counters = {"flowStartMilliseconds": START_MS + 17}
    more = [
        SOURCE_HALF | counted(30, 20) | again,
        DESTINATION_HALF | counted(2) | again | counters,  # whose counters began anew
        INTRA_NODE | counted(9, 2) | {"sourceTransportPort": 3, "observationDomainId": 77} | again,
    ]
    table.add(exported(table.strings, *more), NOW)
    write(table, store, NOW + 1000)
    live = table._live
    slots = np.flatnonzero(live.state)
    keys = live.keys(slots)
    answer = known(store, Wanted(tuple_hashes(keys), (START_MS - 1000) // 1000))
    found = flows(restore(answer))
    assert len(found) == len(slots) == 9
    expected = {key.tobytes(): slot for key, slot in zip(keys, slots.tolist(), strict=True)}
    for row, state, key in zip(found.rows(np.arange(9)), found.state, found.keys, strict=True):
        slot = expected.pop(key.tobytes())
        assert state == live.state[slot]
        same = live.rows[slot]
        names = [*RESTORED, "sideStart", "sideEnd", "exporters", "written", "intervalStart"]
        names += [name for name in live.rows.dtype.names or () if "/" in name]
        for name in names:
            assert np.array_equal(row[name], same[name]), name
    assert not expected


def test_an_end_that_was_to_come_by_far_is_none_to_go_by(store: Store) -> None:
    table = FlowTable(max_flows=64)
    for octets, ahead_ms in ((100, 0), (300, 86_400_000), (700, 0)):
        at_ms = NOW + octets * 1000
        end = {"flowEndMilliseconds": at_ms + ahead_ms}
        table.add(exported(table.strings, INTRA_NODE | counted(octets) | end), at_ms)
        write(table, store, at_ms)
    keys = table._live.keys(np.arange(1))
    answer = known(store, Wanted(tuple_hashes(keys), (START_MS - 1000) // 1000))
    assert answer["octetTotalCount"].tolist() == [700]


def test_of_a_connection_that_was_forgotten_the_last_record_counts(store: Store) -> None:
    """Its records are numbered anew."""
    numbers, end = [], START_MS
    for records in (3, 1):
        table = FlowTable(max_flows=64)
        for _ in range(records):
            end += 1000
            record = INTRA_NODE | counted(end % 1_000_000, 1) | {"flowEndMilliseconds": end}
            table.add(exported(table.strings, record), end)
            write(table, store, end)
        slots = np.flatnonzero(table._live.state)
        numbers += table._live.rows["written"][slots].tolist()
    assert numbers == [3, 1]
    answer = known(store, Wanted(tuple_hashes(table._live.keys(slots)), (START_MS - 1000) // 1000))
    (row,) = flows(restore(answer)).rows(np.arange(1))
    assert row["flowEndMilliseconds"] == end
    assert row["octetTotalCount"] == end % 1_000_000


def test_of_a_tuple_that_is_used_each_second_the_last_connections_are_known(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there were, the answer is no longer than what is read."""
    table = FlowTable(max_flows=1024)
    starts = range(START_MS, START_MS + 300_000, 1000)
    for start in starts:
        times = {"flowStartMilliseconds": start, "flowEndMilliseconds": start + 500}
        seconds = {"flowStartSeconds": start // 1000, "flowEndSeconds": start // 1000}
        record = INTRA_NODE | counted(9) | times | seconds
        table.add(exported(table.strings, record), start + 600)
    write(table, store, starts[-1] + 1000)
    slots = np.flatnonzero(table._live.state)
    keys = generation(table._live.keys(slots), 0)[:1]
    wanted = Wanted(tuple_hashes(keys), START_MS // 1000, crowded=True)
    found = flows(restore(known(store, wanted)))
    (last,) = newest(found, keys, 32, limit_ms=2**63).tolist()
    assert found.starts(np.array(last)).max(axis=1).tolist() == list(starts)[: -32 - 1 : -1]
    assert len(found) <= 64
    assert len(known(store, replace(wanted, crowded=False))["flowId"]) == len(starts)
    monkeypatch.setattr(checkpoints_module, "SPARE_ROWS", 0)
    with pytest.raises(TooManyRows, match="of 1 tuples more than 2 connections"):
        store.checkpoints(wanted)


def test_a_replica_that_is_behind_is_not_asked(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(at: tuple[int, int]) -> Store:
        url = cluster.servers[at].url
        return open_store(StoreSettings(url, database="behind", cluster=NAME, **FOREVER))

    def more(first: int) -> FlowTable:
        table = FlowTable(max_flows=64)
        ports = range(first, first + 20)
        rows = (INTRA_NODE | counted(7) | {"sourceTransportPort": port} for port in ports)
        table.add(exported(table.strings, *rows), NOW)
        return table

    def delays() -> dict[tuple[int, int], int]:
        sql = "SELECT absolute_delay FROM system.replicas WHERE database = 'behind'"
        sql += " AND table = 'flow_records_local'"
        return {at: int(ask(at, sql)[0][0]) for at in cluster.servers}

    def ask(at: tuple[int, int], sql: str) -> list[tuple[int]]:
        with Client("127.0.0.1", cluster.servers[at].port) as client:
            rows: list[tuple[int]] = client.execute(sql)
            return rows

    stores = [opened((0, 0)), opened((0, 1))]
    migrate(stores[0])
    for shard in (0, 1):
        ask((shard, 1), "SYSTEM STOP FETCHES behind.flow_records_local")
    table = more(0)
    write(table, stores[0], NOW)
    block_until(lambda: max(delays().values()) >= 4)  # so those of both shards are behind
    wanted = Wanted(tuple_hashes(table._live.keys(np.arange(20))), START_MS // 1000)
    for store in stores:
        found = [len(flows(restore(known(store, wanted)))) for _ in range(8)]
        assert found == [20] * 8
        assert isinstance(store, ServerStore)
        count = "SELECT count() FROM behind.flow_records"  # for roll-ups
        assert [store._execute_beside(count, {}) for _ in range(8)] == [[(20,)]] * 8
    # What one has is nowhere else, and so for the other.
    ask((0, 0), "SYSTEM STOP FETCHES behind.flow_records_local")
    write(more(20), stores[1], NOW + 1000)
    block_until(lambda: min(delay for at, delay in delays().items() if at[0] == 0) >= 4)
    with pytest.raises(StoreError) as caught:
        stores[0].checkpoints(wanted)
    assert caught.value.retryable
    monkeypatch.setattr(replicas, "STALE_S", 0.0)
    assert len(stores[0].checkpoints(wanted)["flowId"]) > 0
    for store in stores:
        store.close()
    for at in ((0, 0), (0, 1), (1, 1)):
        ask(at, "SYSTEM START FETCHES behind.flow_records_local")


def test_only_what_is_asked_for(table: FlowTable, store: Store) -> None:
    write(table, store)
    keys = table._live.keys(np.array([1]))

    def found(since_s: int) -> int:
        wanted = Wanted(tuple_hashes(keys), since_s)
        return len(flows(restore(known(store, wanted))))

    assert found(START_MS // 1000) == 1
    assert not found(START_MS // 1000 + 61)
    keys[:, 17] ^= 1
    assert not found(START_MS // 1000)


def test_of_other_clusters_is_nothing_known(store: Store) -> None:
    """Their Pods may have the same addresses, and what they wrote last hides what we wrote."""
    clusters = ["", "ours", "it's \\theirs"]
    tables = [FlowTable(max_flows=64) for _ in clusters]
    for later, (table, cluster) in enumerate(zip(tables, clusters, strict=True)):
        record = INTRA_NODE | counted(11 + later) | {"flowEndMilliseconds": NOW + later}
        table.add(exported(table.strings, record), NOW + later)
        write(table, store, NOW + 1000 * later, cluster)
    hashes = tuple_hashes(tables[0]._live.keys(np.array([0])))

    def found(*clusters: str) -> list[int]:
        wanted = Wanted(hashes, START_MS // 1000, clusters=clusters)
        rows = flows(restore(known(store, wanted)))
        return [int(octets) for octets in rows.rows(np.arange(len(rows)))["octetTotalCount"]]

    assert found("", "ours") == [12]
    assert found("ours") == [12]
    assert found("") == [11]
    assert found(clusters[2]) == [13]
    assert found("nobody") == []
    assert found() == [13]
