"""Both nodes of a denied connection: one saw it go out, the other denied it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from exporter.denied_packets import INGRESS, T0, packet, packets
from exporter.kernel_entries import Connection, entries
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch
from flowvis.conntrack.entries import DESTROY
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import ClusterNode
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import EXPORTED, EndReason, RuleAction
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


def source_half(tries: Sequence[int] = TRIES) -> Batch:
    table = ConnectionTable(ClusterNode("node-1", cluster()), Scope())
    attempt = Connection(
        CLIENT,
        SERVER,
        source_port=1000,
        tcp_state="SYN_SENT",
        start_ns=(T0 - 3) * 1_000_000,
        counters=(len(tries), len(tries) * SYN, 0, 0),
    )
    table.poll(entries(attempt), T0 + 4000)
    return table.due(T0 + 20_000)


def destination_half(action: int, tries: Sequence[int] = TRIES) -> Batch:
    table = DeniedTable(ClusterNode("node-2", cluster()), Scope())
    for at in tries:
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


@pytest.mark.parametrize(
    ("action", "tries"),
    [(RuleAction.DROP, TRIES), (RuleAction.REJECT, TRIES[:1])],  # who is refused tries anew
    ids=["drop", "reject"],
)
def test_they_become_one_record(action: int, tries: Sequence[int]) -> None:
    flows = FlowTable()
    written = []
    for name, half in (
        ("node-2", destination_half(action, tries)),
        ("node-1", source_half(tries)),
    ):
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
        assert record[f"octetTotalCount{name}"].tolist() == [len(tries) * SYN]
    assert record["reverseOctetTotalCount"].tolist() == [0]


class Nodes:
    """A client and what denies it, on two nodes, and the aggregator of both."""

    def __init__(self, unanswered_s: int) -> None:
        self.client = ConnectionTable(ClusterNode("node-1", cluster()), Scope())
        self.denier = DeniedTable(ClusterNode("node-2", cluster()), Scope())
        self.denier.kept_for({17: unanswered_s})
        self.flows = FlowTable()
        self.kept_ms = 1000 * unanswered_s
        self.records: list[dict[str, int]] = []
        self.sent = 0
        self._entry: Connection | None = None
        self._last = 0

    def send(self, now: int) -> None:
        """A datagram: counted by the client's kernel, denied by the other's."""
        self.sent += 1
        if self._entry is None:
            self._entry = Connection(
                CLIENT, SERVER, 1000, 53, 17, tcp_state=None, id=now - T0, start_ns=now * 1_000_000
            )
        packets_now = self._entry.counters[0] + 1
        self._entry = self._entry.at(packets_now, 128 * packets_now, 0, 0)
        self._last = now
        one = packet(
            1000, source=CLIENT, destination=SERVER, to=53, protocol=17, octets=128, at=now
        )
        self.denier.add(packets([one]), now)

    def refuse(self, now: int, *, reset: bool) -> None:
        """A SYN, refused: a RST deletes the entry, ICMP leaves one that counts one packet."""
        self.sent += 1
        verdict = replace(INGRESS, action=RuleAction.REJECT)
        one = packet(1000, source=CLIENT, destination=SERVER, octets=SYN, at=now, verdict=verdict)
        self.denier.add(packets([one]), now)
        self._last = now
        if not reset and self._entry is not None:
            return
        state = "CLOSE" if reset else "SYN_SENT"
        entry = Connection(CLIENT, SERVER, 1000, tcp_state=state, start_ns=now * 1_000_000)
        if reset:
            entry = entry.at(1, SYN, 1, 40, event=DESTROY, stop_ns=now * 1_000_000 + 90_000)
            self.client.event(entries(entry), now)
        else:
            self._entry = entry.at(1, SYN, 0, 0)

    def pass_time(self, now: int) -> None:
        """What the kernel and the daemons do meanwhile."""
        if self._entry is not None and now - self._last >= self.kept_ms:
            gone = self._entry.at(event=DESTROY, stop_ns=(self._last + self.kept_ms) * 1_000_000)
            self.client.event(entries(gone), now)
            self._entry = None
        if now % 5000 == 0:
            self.client.poll(entries(*([self._entry] if self._entry else [])), now)
            self.client.sweep()
        for name, batch in (
            ("node-1", self.client.due(now)),
            ("node-2", self.denier.due(now)),
        ):
            self._carry(name, batch, now)
        self.write(self.flows.due(now))

    def _carry(self, name: str, batch: Batch, now: int) -> None:
        if len(batch):
            sent = ExporterSession(1, EXPORTED)
            buffer = RecordBuffer(EXPORTED, self.flows.strings)
            received = CollectorSession(name, buffer)
            for message in sent.templates(1) + sent.encode(batch, 1):
                received.receive(message)
            self.flows.add(buffer.batch(), now)

    def write(self, batch: Batch) -> None:
        names = (
            *("packetDeltaCount", "flowEndReason", "originalFlowsPresent", "flowStartSeconds"),
            "flowStartMilliseconds",
        )
        columns = [batch[name].tolist() for name in names]
        self.records += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize(
    ("unanswered_s", "sending"),
    [
        (2, [(0, 10), (16, 150)]),
        (30, [(0, 10), (16, 150)]),  # the pause ends nothing
        (30, [(0, 40), (75, 100)]),
        (5, [(0, 3), (9, 7), (30, 70), (107, 1), (120, 61)]),
    ],
)
def test_a_denied_client_that_pauses_and_goes_on(
    unanswered_s: int, sending: list[tuple[int, int]]
) -> None:
    nodes = Nodes(unanswered_s)
    begins = [T0 + 1000 * second for second, _ in sending]
    at = {
        start + 100 * n
        for start, (_, lasts) in zip(begins, sending, strict=True)
        for n in range(10 * lasts)
    }
    end = max(at) + 100_000
    for now in range(T0, end, 100):
        if now in at:
            nodes.send(now)
        if now % 500 == 0:
            nodes.pass_time(now)
    nodes.write(nodes.flows.flush(end))
    assert sum(row["packetDeltaCount"] for row in nodes.records) == nodes.sent
    assert {row["originalFlowsPresent"] for row in nodes.records} == {2}
    ends: dict[int, list[bool]] = {}
    for row in nodes.records:
        ends.setdefault(row["flowStartSeconds"], []).append(row["flowEndReason"] == EndReason.END)
    assert len(ends) == (1 if unanswered_s == 30 and sending[1][0] == 16 else len(sending))
    assert all(sum(of_one) <= 1 for of_one in ends.values()), nodes.records


@pytest.mark.parametrize("pauses_s", [(0.5, 1, 3), (6, 6), (9, 12), (100, 200)])
@pytest.mark.parametrize("reset", [True, False], ids=["by RST", "by ICMP"])
def test_a_rejected_client_that_tries_again(pauses_s: tuple[float, ...], *, reset: bool) -> None:
    """From one port. Each SYN counts once, whatever the client's kernel takes it for."""
    nodes, now = Nodes(120), T0
    nodes.denier.kept_for({6: 120})
    for pause_s in (*pauses_s, 130):
        nodes.refuse(now + 123, reset=reset)  # a whole second would be any of it
        for _ in range(int(2 * pause_s)):
            now += 500
            nodes.pass_time(now)
    nodes.write(nodes.flows.flush(now))
    assert sum(row["packetDeltaCount"] for row in nodes.records) == nodes.sent
    if reset:
        assert {row["originalFlowsPresent"] for row in nodes.records} == {2}
        assert len({row["flowStartMilliseconds"] for row in nodes.records}) == nodes.sent


def test_tries_that_are_read_together_are_connections_of_their_own() -> None:
    table = DeniedTable(ClusterNode("node-2", cluster()), Scope())
    verdict = replace(INGRESS, action=RuleAction.REJECT)
    tries = [
        packet(1000, source=CLIENT, destination=SERVER, at=T0 + at, verdict=verdict)
        for at in (0, 20, 400, 1500)
    ]
    table.add(packets(tries), T0 + 1600)
    records = table.due(T0 + 20_000)
    assert sorted(records["packetTotalCount"].tolist()) == [1, 1, 2]
