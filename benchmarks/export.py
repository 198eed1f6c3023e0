"""From due connections to bytes: what an interval of a busy node costs its exporter.

A node's 100 Pods hold 50,000 connections to Services, and all of them have counted something in
each interval. Measured is choosing them, making their records, and encoding these.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import TCP_STATES
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import ClusterNode
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EXPORTED
from flowvis.inventory.index import Inventory
from flowvis.ipfix import ExporterSession
from flowvis.native.contract.conntrack import RECORD

CONNECTIONS = 50_000
ROUNDS = 20
PODS, SERVICES = 100, 50
ACTIVE_MS = 60_000
EPOCH_MS = 1_790_000_000_000

Ints = NDArray[np.int64]


def run() -> dict[str, Any]:
    table = ConnectionTable(ClusterNode("node-00.example.internal", _inventory()), Scope())
    session = ExporterSession(1, EXPORTED)
    live = _entries()
    encode = wall = cpu = 0.0
    for now_ms in range(EPOCH_MS, EPOCH_MS + ROUNDS * ACTIVE_MS, ACTIVE_MS):
        for counter in (live.packets, live.octets, live.reverse_packets, live.reverse_octets):
            np.add(counter, np.uint64(1000), out=counter)
        table.poll(live, now_ms)
        due_ms = now_ms + ACTIVE_MS - 1
        wall_start, start = time.perf_counter(), time.process_time()
        batch = table.due(due_ms)
        made = time.process_time()
        session.encode(batch, due_ms // 1000)
        end = time.process_time()
        encode += end - made
        cpu += end - start
        wall += time.perf_counter() - wall_start
    records = ROUNDS * CONNECTIONS
    assert session.stats.records == records
    return {
        "records": records,
        "cpu_seconds": round(cpu, 3),
        "wall_seconds": round(wall, 3),
        "encode_cpu_seconds": round(encode, 3),
        "octets_per_record": round(session.stats.octets / records),
    }


def _inventory() -> Inventory:
    """One node with its Pods, and the Services that they call."""
    inventory = Inventory()
    metadata = {"namespace": "team-01", "creationTimestamp": "2026-01-01T00:00:00Z"}
    items: list[dict[str, Any]] = [
        {
            "kind": "Pod",
            "metadata": metadata | {"name": f"app-{n:03d}-7f9c8d5b6-x2k{n:02d}", "uid": f"pod-{n}"},
            "spec": {"nodeName": "node-00.example.internal"},
            "status": {"phase": "Running", "podIPs": [{"ip": f"10.0.0.{n}"}]},
        }
        for n in range(PODS)
    ]
    items += [
        {
            "kind": "Service",
            "metadata": metadata | {"name": f"service-{n:02d}", "uid": f"service-{n}"},
            "spec": {
                "clusterIPs": [f"10.3.0.{n}"],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            },
        }
        for n in range(SERVICES)
    ]
    inventory.replace(items, EPOCH_MS)
    return inventory


def _entries() -> Entries:
    """The kernel's list: each Pod's connections to the Services, after their DNAT."""
    number = np.arange(CONNECTIONS)
    columns = {name: np.zeros(CONNECTIONS, RECORD[name].base) for name in RECORD.names or ()}
    pod, service = number % PODS, number // PODS % SERVICES
    columns["source"] = columns["reply_destination"] = _addresses(0, pod)
    columns["destination"] = _addresses(3, service)
    columns["reply_source"] = _addresses(9, service)
    columns["labels"] = np.zeros((CONNECTIONS, 16), np.uint8)
    columns["source_port"] = columns["reply_destination_port"] = (1024 + number).astype(np.uint16)
    columns["destination_port"] = np.full(CONNECTIONS, 80, np.uint16)
    columns["reply_source_port"] = np.full(CONNECTIONS, 8080, np.uint16)
    columns["start_ns"] = ((EPOCH_MS - number) * 1_000_000).astype(np.uint64)
    columns["id"] = number.astype(np.uint32)
    columns["protocol"][:] = 6
    columns["family"][:] = 2
    columns["tcp_state"][:] = TCP_STATES.index("ESTABLISHED")
    return Entries.of(columns)


def _addresses(network: int, host: Ints) -> NDArray[np.uint8]:
    """Return 10.network.0.host for each host."""
    address = np.zeros((len(host), 16), np.uint8)
    address[:, :12] = np.frombuffer(V4_MAPPED, np.uint8)
    address[:, 12], address[:, 13], address[:, 15] = 10, network, host
    return address
