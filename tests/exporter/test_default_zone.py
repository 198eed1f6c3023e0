"""What the default zone knows of connections of Antrea's zone: clients from outside, SNAT."""

from pathlib import Path

import numpy as np
import pytest

from exporter.kernel_entries import Connection, entries
from exporter.test_connections import IDLE, T0, ended, event, poll, rows
from flowvis.conntrack.entries import NEW
from flowvis.exporter.state import StateFile
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.default_zone import DefaultZone
from flowvis.exporter.tables.enrich import ClusterNode
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.fields import FlowType
from flowvis.inventory.index import Inventory
from inventory.kubernetes_objects import node, pod, service

CLIENT, OUTSIDE = "198.51.100.9", "203.0.113.5"
NODE, GATEWAY, HERE, THERE = "192.0.2.1", "10.0.1.1", "10.0.1.10", "10.0.2.20"
ZONE, MARK = 65520, 2

NODE_PORT = Connection(
    CLIENT,
    NODE,
    source_port=50_000,
    destination_port=30080,
    real=HERE,
    real_port=8080,
    snat=GATEWAY,
    snat_port=6000,
    id=7,
)
"""In the default zone; what follows is the same connection in Antrea's."""
INNER = Connection(
    GATEWAY, HERE, source_port=6000, destination_port=8080, zone=ZONE, mark=MARK, id=8
)

CHAIN = (
    *("sourceIP", "sourceTransportPort", "destinationIP", "destinationTransportPort"),
    *("proxySnatIP", "proxySnatPort", "destinationServiceIP", "destinationServicePort"),
    "flowType",
)
FROM_CLIENT = (CLIENT, 50_000, HERE, 8080, GATEWAY, 6000, NODE, 30080, FlowType.FROM_EXTERNAL)
FROM_GATEWAY = (GATEWAY, 6000, HERE, 8080, "", 0, "", 0, FlowType.INTRA_NODE)


def table(default_zone: DefaultZone | None = None) -> ConnectionTable:
    inventory = Inventory()
    inventory.replace(
        [
            node("node-1", NODE, "10.0.1.0/24"),
            node("node-2", "192.0.2.2", "10.0.2.0/24"),
            pod("here", HERE),
            service(
                "web",
                ["10.96.0.1"],
                {"name": "http", "port": 80, "nodePort": 30080},
                {"name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP"},
            ),
        ],
        0,
    )
    return ConnectionTable(
        ClusterNode("node-1", inventory),
        Scope(antrea=True),
        idle_timeout_ms=IDLE,
        default_zone=DefaultZone() if default_zone is None else default_zone,
    )


def chain(connections: ConnectionTable, now_ms: int) -> list[tuple[object, ...]]:
    return rows(connections.due(now_ms), *CHAIN)


def test_the_client_of_a_node_port() -> None:
    connections = table()
    poll(connections, T0, NODE_PORT.at(2, 200, 1, 100), INNER.at(2, 200, 1, 100))
    batch = connections.due(T0 + IDLE)
    assert rows(batch, *CHAIN) == [FROM_CLIENT]
    assert batch.texts("destinationServicePortName") == ["shop/web:http"]
    assert batch.texts("destinationPodName") == ["here"]
    assert connections.entries.dropped == {"default-zone": 1}


def test_a_pod_elsewhere_is_reported_of_by_the_node_that_knows_the_client() -> None:
    connections = table()
    poll(
        connections,
        T0,
        NODE_PORT.at(2, 200, 1, 100, real=THERE),
        INNER.at(2, 200, 1, 100, destination=THERE),
    )
    expected = (*FROM_CLIENT[:2], THERE, *FROM_CLIENT[3:])
    assert chain(connections, T0 + IDLE) == [expected]


def test_without_snat_the_service_is_known() -> None:
    """externalTrafficPolicy: Local."""
    connections = table()
    local = {"snat": CLIENT, "snat_port": 50_000}
    inner = INNER.at(2, 200, 1, 100, source=CLIENT, source_port=50_000)
    poll(connections, T0, NODE_PORT.at(2, 200, 1, 100, **local), inner)
    expected = (*FROM_CLIENT[:4], "", 0, *FROM_CLIENT[6:])
    assert chain(connections, T0 + IDLE) == [expected]


def test_translated_in_both_zones() -> None:
    """AntreaProxy's own node ports: the node passes them on to an address of its own."""
    connections = table()
    virtual = "169.254.0.252"
    outer = NODE_PORT.at(2, 200, 1, 100, real=virtual, real_port=30080)
    inner = INNER.at(2, 200, 1, 100, destination=virtual, destination_port=30080, real=HERE)
    poll(connections, T0, outer, inner.at(2, 200, 1, 100, real_port=8080))
    assert chain(connections, T0 + IDLE) == [FROM_CLIENT]


def test_what_leaves_is_masqueraded_in_the_default_zone() -> None:
    connections = table()
    inner = Connection(HERE, OUTSIDE, zone=ZONE, mark=3, id=1, counters=(2, 200, 1, 100))
    outer = Connection(HERE, OUTSIDE, snat=NODE, snat_port=7000, id=2)
    poll(connections, T0, inner, outer)
    expected = (HERE, 40000, OUTSIDE, 80, NODE, 7000, "", 0, FlowType.TO_EXTERNAL)
    assert chain(connections, T0 + IDLE) == [expected]


def test_what_is_not_translated_is_nobodys_translated() -> None:
    default_zone = DefaultZone()
    connections = table(default_zone)
    probe = Connection(GATEWAY, HERE, source_port=6000, destination_port=8080, id=9)
    poll(connections, T0, probe, INNER.at(2, 200, 1, 100))
    assert len(default_zone) == 0
    assert chain(connections, T0 + IDLE) == [FROM_GATEWAY]


def test_two_clients_with_one_port_each_keep_theirs() -> None:
    connections = table()
    other = "198.51.100.10"
    poll(
        connections,
        T0,
        NODE_PORT,
        NODE_PORT.at(source=other, snat_port=6001, id=17),
        INNER.at(1, 100, 0, 0),
        INNER.at(2, 200, 0, 0, source_port=6001, id=18),
    )
    found = rows(connections.due(T0 + IDLE), "sourceIP", "proxySnatPort", "octetTotalCount")
    assert sorted(found) == [(other, 6001, 200), (CLIENT, 6000, 100)]


def test_events_in_any_order() -> None:
    for first in (NODE_PORT, INNER), (INNER, NODE_PORT):
        connections = table()
        for one in first:
            event(connections, T0, one.at(event=NEW, start_ns=0))
        event(connections, T0 + 900, ended(NODE_PORT), ended(INNER, 2, 200, 1, 100))
        assert chain(connections, T0 + 1000) == [FROM_CLIENT]


def test_the_default_zones_connection_may_end_long_before() -> None:
    connections = table()
    event(connections, T0, NODE_PORT.at(event=NEW), INNER.at(event=NEW))
    event(connections, T0 + 100, ended(NODE_PORT))
    for second in range(1, 10):
        poll(connections, T0 + second * 1000, INNER.at(second, 100 * second, 0, 0))
    event(connections, T0 + 10_000, ended(INNER, 10, 1000, 1, 100))
    assert chain(connections, T0 + 10_000) == [FROM_CLIENT]


def test_a_client_that_becomes_known_after_the_first_record_changes_no_identity() -> None:
    connections = table()
    poll(connections, T0, INNER.at(1, 100, 0, 0))
    assert chain(connections, T0 + IDLE) == [FROM_GATEWAY]
    poll(connections, T0 + 20_000, NODE_PORT, INNER.at(3, 300, 0, 0))
    batch = connections.due(T0 + 200_000)
    assert rows(batch, *CHAIN) == [FROM_GATEWAY]
    assert rows(batch, "octetDeltaCount", "octetTotalCount") == [(200, 300)]


@pytest.mark.parametrize("known", [True, False])
async def test_nor_does_a_restart(tmp_path: Path, known: bool) -> None:
    first = table()
    poll(first, T0, *([NODE_PORT] if known else []), INNER.at(1, 100, 0, 0))
    reported = chain(first, T0 + IDLE)
    assert reported == [FROM_CLIENT if known else FROM_GATEWAY]
    await StateFile(tmp_path, "node-1", first).stop()
    second = table()
    await StateFile(tmp_path, "node-1", second).start()
    poll(second, T0 + 20_000, NODE_PORT, INNER.at(3, 300, 0, 0))
    batch = second.due(T0 + 200_000)
    assert rows(batch, *CHAIN) == reported
    assert rows(batch, "octetDeltaCount", "octetTotalCount") == [(200, 300)]


def test_what_the_kernel_lists_no_more_is_forgotten() -> None:
    default_zone = DefaultZone()
    connections = table(default_zone)
    poll(connections, T0, NODE_PORT)
    assert default_zone.stats.held == len(default_zone) == 1
    for second in range(1, 4):
        poll(connections, T0 + second * 1000)
    assert default_zone.stats.held == len(default_zone) == 0


def test_it_is_bounded() -> None:
    default_zone = DefaultZone(capacity=2)
    outer = [NODE_PORT.at(snat_port=6000 + number) for number in range(3)]
    assert len(default_zone.split(entries(*outer), 1)) == 0
    assert (len(default_zone), default_zone.stats.refused) == (2, 1)
    inner = entries(*(INNER.at(source_port=6000 + number) for number in range(3)))
    tuples, known = default_zone.complete(ConnectionTuples.of(inner, 0), inner)
    assert known.tolist() == [True, True, False]
    assert tuples.source_port.tolist() == [50_000, 50_000, 6002]
    assert default_zone.stats.completed == 2
    assert np.array_equal(tuples.destination, inner.destination)
