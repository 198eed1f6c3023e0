"""Both nodes of a denied connection: one saw it go out, the other denied it."""

from dataclasses import replace

import pytest

from exporter.denied_packets import INGRESS, T0, packet, packets
from exporter.kernel_entries import Connection, entries
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import ClusterNode
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EXPORTED, RuleAction
from flowvis.inventory.index import Inventory
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.exporter import ExporterSession
from inventory.kubernetes_objects import node, pod

CLIENT, SERVER = "10.0.1.5", "10.0.2.6"
TRIES = (0, 1000, 3000)
SYN = 60


def cluster() -> Inventory:
    inventory = Inventory()
    inventory.replace(
        [
            node("node-1", "192.0.2.1", "10.0.1.0/24"),
            node("node-2", "192.0.2.2", "10.0.2.0/24"),
            pod("client", CLIENT, node="node-1"),
            pod("server", SERVER, node="node-2"),
        ],
        0,
    )
    return inventory


def source_half() -> Batch:
    table = ConnectionTable(ClusterNode("node-1", cluster()), Scope())
    attempt = Connection(
        CLIENT,
        SERVER,
        source_port=1000,
        tcp_state="SYN_SENT",
        start_ns=(T0 - 3) * 1_000_000,
        counters=(len(TRIES), len(TRIES) * SYN, 0, 0),
    )
    table.poll(entries(attempt), T0 + 4000)
    return table.due(T0 + 20_000)


def destination_half(action: RuleAction) -> Batch:
    table = DeniedTable(ClusterNode("node-2", cluster()), Scope())
    for at in TRIES:
        one = packet(
            1000,
            source=CLIENT,
            destination=SERVER,
            octets=SYN,
            at=T0 + at,
            verdict=replace(INGRESS, action=action),
        )
        table.add(packets([one]), T0 + at)
    return table.due(T0 + 20_000)


@pytest.mark.parametrize("action", [RuleAction.DROP, RuleAction.REJECT])
def test_they_become_one_record(action: RuleAction) -> None:
    flows = FlowTable()
    written = []
    for name, half in (("node-2", destination_half(action)), ("node-1", source_half())):
        sent = ExporterSession(1, EXPORTED)
        buffer = RecordBuffer(EXPORTED, flows.strings)
        received = CollectorSession(name, buffer)
        for message in sent.templates(1) + sent.encode(half, 1):
            received.receive(message)
        flows.add(buffer.batch(), T0 + 21_000)
        written.append(flows.due(T0 + 21_000))
    nothing, record = written
    assert len(nothing) == 0, "the first half waits for the other"
    assert len(record) == 1
    assert record["originalFlowsPresent"].tolist() == [2]
    texts = ("sourcePodName", "destinationPodName", "tcpState", "ingressNetworkPolicyName")
    assert [record.texts(name)[0] for name in texts] == [
        "client",
        "server",
        "SYN_SENT",
        "deny-all",
    ]
    assert record["ingressNetworkPolicyRuleAction"].tolist() == [action]
    for name in ("", "FromSourceNode", "FromDestinationNode"):
        assert record[f"octetTotalCount{name}"].tolist() == [len(TRIES) * SYN]
    assert record["reverseOctetTotalCount"].tolist() == [0]
