"""Records of exporters that know less than ours, from their bytes to what is written."""

from typing import Any

import pytest

from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.collector import Collector
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.aggregator.correlator import Correlator
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.batch import Batch, address_text
from flowvis.fields import ANTREA_EXPORTED, BY_NAME, EXPORTED, Field, FlowType, Kind
from flowvis.inventory.index import Inventory
from flowvis.ipfix.exporter import ExporterSession
from flowvis.runtime.ledger import Ledger
from flowvis.transport.server import Peer
from inventory.kubernetes_objects import node, pod, service

from .records import records

NOW_MS = 1_800_000_000_000
START_S = NOW_MS // 1000 - 60

TUPLE = (
    *("sourceIP", "destinationIP", "sourceTransportPort", "destinationTransportPort"),
    "protocolIdentifier",
)
COUNTERS = tuple(name for name in BY_NAME if name.endswith(("TotalCount", "DeltaCount")))
BARE: tuple[Field, ...] = tuple(BY_NAME[name] for name in (*TUPLE, *COUNTERS))
"""The 5-tuple and the counters: what any exporter has."""

LATER = ("egressName", "egressIP", "egressNodeName", "destinationServiceIP")
ANTREA_1: tuple[Field, ...] = tuple(
    field
    for field in EXPORTED[:ANTREA_EXPORTED]
    if field.name not in {*LATER, "proxySnatIP", "proxySnatPort"}
)
"""Antrea 1.x: no Egress, no SNAT, the Service's address only as destinationClusterIP."""

CLIENT, SERVER, NEAR, VIP = "10.0.1.1", "10.0.2.1", "10.0.1.2", "10.96.0.1"
OUTSIDE = "198.51.100.9"


class Aggregating:
    """From one exporter's session to the records that are written."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        inventory = Inventory()
        for item in (
            pod("client", CLIENT, node="n1"),
            pod("near", NEAR, node="n1"),
            pod("server", SERVER, node="n2"),
            node("n1", "192.0.2.1", "10.0.1.0/24"),
            node("n2", "192.0.2.2", "10.0.2.0/24"),
            service("web", [VIP], {"name": "http", "port": 80}),
        ):
            inventory.upsert(item, NOW_MS)
        self.fields = fields
        self.now_ms = NOW_MS
        self.ledger = Ledger()
        self.history = LatestRecords(1000)
        self.table = FlowTable()
        self.correlator = Correlator(
            self.table,
            Completer(inventory, lambda: "east", pod_labels=False),
            [self.history],
            self.ledger.stage("correlator"),
            clock=lambda: self.now_ms,
        )
        self.collector = Collector(self.correlator, self.ledger.stage("collector"))
        self.session = self.collector.open(Peer("192.0.2.1", 1234, "n1"))
        self.exporter = ExporterSession(1, fields)
        self.session.data_received(memoryview(b"".join(self.exporter.templates(1))))

    async def written(self, *rows: dict[str, Any]) -> dict[str, Any]:
        """The one record that comes of some."""
        batch = records(*rows, fields=self.fields)
        self.session.data_received(memoryview(b"".join(self.exporter.encode(batch, 1))))
        self.collector.flush()
        before = len(self.history)
        await self.correlator._write_all(self.table.flush)
        assert len(self.history) == before + 1
        assert not self.ledger.imbalance()
        return _row(self.history.latest(1)[0])


def _row(batch: Batch) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, column in batch.select(BY_NAME).columns.items():
        kind = BY_NAME[name].kind
        if kind is Kind.TEXT:
            row[name] = batch.texts(name)[0]
        else:
            row[name] = address_text(bytes(column[0])) if kind is Kind.ADDRESS else int(column[0])
    return row


def connection(source: str, destination: str, octets: int = 500, **more: Any) -> dict[str, Any]:
    return {
        "sourceIP": source,
        "destinationIP": destination,
        "sourceTransportPort": 40000,
        "destinationTransportPort": 8080,
        "protocolIdentifier": 6,
        "octetTotalCount": octets,
        "octetDeltaCount": octets,
        **more,
    }


@pytest.mark.parametrize(
    ("source", "destination", "flow_type", "pods", "nodes"),
    [
        (CLIENT, SERVER, FlowType.INTER_NODE, ("client", "server"), ("n1", "n2")),
        (CLIENT, NEAR, FlowType.INTRA_NODE, ("client", "near"), ("n1", "n1")),
        (CLIENT, OUTSIDE, FlowType.TO_EXTERNAL, ("client", ""), ("n1", "")),
        (OUTSIDE, SERVER, FlowType.FROM_EXTERNAL, ("", "server"), ("", "n2")),
        (CLIENT, "192.0.2.2", FlowType.INTER_NODE, ("client", ""), ("n1", "n2")),
        (OUTSIDE, "203.0.113.1", FlowType.UNSPECIFIED, ("", ""), ("", "")),
    ],
)
async def test_only_the_5_tuple_and_counters(
    source: str,
    destination: str,
    flow_type: int,
    pods: tuple[str, str],
    nodes: tuple[str, str],
) -> None:
    row = await Aggregating(BARE).written(connection(source, destination))
    assert row["flowType"] == flow_type
    assert (row["sourcePodName"], row["destinationPodName"]) == pods
    assert (row["sourceNodeName"], row["destinationNodeName"]) == nodes
    spaces = row["sourcePodNamespace"], row["destinationPodNamespace"]
    assert spaces == tuple("shop" if pod else "" for pod in pods)
    assert (row["octetTotalCount"], row["octetDeltaCount"]) == (500, 500)


async def test_counters_without_a_time_are_of_when_they_come() -> None:
    aggregating = Aggregating(BARE)
    first = await aggregating.written(connection(CLIENT, SERVER, 500))
    assert first["flowEndSeconds"] == NOW_MS // 1000
    aggregating.now_ms += 60_000
    second = await aggregating.written(connection(CLIENT, SERVER, 2000))
    assert second["flowEndSeconds"] == NOW_MS // 1000 + 60
    assert (second["octetTotalCount"], second["octetDeltaCount"]) == (2000, 1500)
    assert second["throughput"] == 1500 * 8 // 60


async def test_antrea_1_between_nodes() -> None:
    times = {"flowStartSeconds": START_S, "flowEndSeconds": START_S + 30, "flowEndReason": 2}
    tuple_ = connection(CLIENT, SERVER, flowType=FlowType.INTER_NODE, **times)
    row = await Aggregating(ANTREA_1).written(
        tuple_
        | {
            "sourcePodName": "client",
            "sourcePodNamespace": "shop",
            "sourceNodeName": "n1",
            "destinationClusterIP": VIP,
            "destinationServicePort": 80,
            "destinationServicePortName": "shop/web:http",
        }
    )
    assert (row["destinationPodName"], row["destinationNodeName"]) == ("server", "n2")
    assert row["originalFlowsPresent"] == 1
    assert (row["destinationServiceIP"], row["destinationClusterIP"]) == (VIP, VIP)
    assert row["destinationServicePortName"] == "shop/web:http"
    assert row["flowStartSeconds"] == START_S


async def test_antrea_1_without_the_services_name() -> None:
    """kube-proxy in Antrea's place: the address, but no name."""
    called: dict[str, Any] = {"destinationClusterIP": VIP, "destinationServicePort": 80}
    row = await Aggregating(ANTREA_1).written(
        connection(CLIENT, NEAR, flowType=FlowType.INTRA_NODE, flowEndSeconds=START_S, **called)
    )
    assert row["destinationServicePortName"] == "shop/web:http"
    assert row["destinationServiceIP"] == VIP
    assert (row["sourcePodName"], row["destinationPodName"]) == ("client", "near")
