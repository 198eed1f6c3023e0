"""What names a connection: nodes' own tables of it meet, whatever they saw of it first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from exporter.kernel_entries import Connection, entries
from flowvis.aggregator.correlation.flows import FlowTable
from flowvis.batch import Batch, address_text
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import ClusterNode, PlainHost
from flowvis.exporter.tables.scope import Scope
from flowvis.fields import FIELDS, TEXT_FIELDS, FlowType, Kind
from flowvis.inventory.index import Inventory
from flowvis.ipfix.buffer import DOMAIN
from inventory.kubernetes_objects import node, pod, service

from .test_flows import _leaf  # noqa: F401  both leaves

T0 = 1_767_225_600_000
STEP_MS = 5000

ADDRESSES = {
    4: {
        "node-1": "192.0.2.1",
        "node-2": "192.0.2.2",
        "client": "10.0.1.6",
        "server": "10.0.2.7",
        "near": "10.0.2.8",
        "gateway-2": "10.0.2.1",
        "vip": "10.96.0.1",
        "pods-1": "10.0.1.0/24",
        "pods-2": "10.0.2.0/24",
    },
    6: {
        "node-1": "2001:db8::1",
        "node-2": "2001:db8::2",
        "client": "fd00:1::6",
        "server": "fd00:2::7",
        "near": "fd00:2::8",
        "gateway-2": "fd00:2::1",
        "vip": "fd00:96::1",
        "pods-1": "fd00:1::/64",
        "pods-2": "fd00:2::/64",
    },
}


class Cluster:
    """Two nodes' connection tables, and the flow table that their records go to."""

    def __init__(self, version: int = 4) -> None:
        at = self.addresses = ADDRESSES[version]
        inventory = Inventory()
        for item in (
            node("node-1", at["node-1"], at["pods-1"]),
            node("node-2", at["node-2"], at["pods-2"]),
            pod("client", at["client"], node="node-1"),
            pod("server", at["server"], node="node-2"),
            pod("near", at["near"], node="node-2"),
            service("web", [at["vip"]], {"name": "http", "port": 80, "nodePort": 30080}),
        ):
            inventory.upsert(item, T0)
        self.tables = {
            number: ConnectionTable(ClusterNode(f"node-{number}", inventory), Scope())
            for number in (1, 2)
        }
        self.flows = FlowTable()
        self.rows: list[dict[str, Any]] = []

    def poll(self, number: int, listed: Sequence[Connection], now: int) -> None:
        """Let a node list its connections; take its records."""
        table = self.tables[number]
        table.poll(entries(*listed), now)
        table.sweep()
        self.take(table.due(now), number, now)

    def take(self, batch: Batch, number: int, now: int) -> None:
        batch = batch.on(self.flows.strings, TEXT_FIELDS)
        domains = np.full(len(batch), number, np.uint32)
        self.flows.add(Batch({**batch.columns, DOMAIN: domains}, batch.strings), now)
        assert not self.flows.stats.imbalance

    def due(self, now: int) -> None:
        self.rows += read(self.flows.due(now))

    def end(self, now: int) -> None:
        """Write all that is left, the exporters' last words first."""
        for number, table in self.tables.items():
            self.take(table.flush(), number, now)
        self.rows += read(self.flows.flush(now))
        assert not self.flows.stats.imbalance

    def sum(self, name: str) -> int:
        return sum(row[name] for row in self.rows)


def read(batch: Batch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(len(batch))]
    for field in FIELDS:
        values: list[Any] = batch[field.name].tolist()
        if field.kind is Kind.ADDRESS:
            values = [address_text(bytes(value)) for value in values]
        elif field.kind is Kind.TEXT:
            values = batch.texts(field.name)
        for row, value in zip(rows, values, strict=True):
            row[field.name] = value
    return rows


@pytest.mark.parametrize(("version", "protocol", "kind"), [(4, 1, 8), (6, 58, 128), (4, 1, 13)])
def test_pings_at_one_time_are_as_many_connections(version: int, protocol: int, kind: int) -> None:
    """One tuple without ports, and started within one millisecond: the identifier is all."""
    cluster, pings = Cluster(version), 6
    at = cluster.addresses
    base = Connection(at["client"], at["server"], 0, 0, protocol, tcp_state=None)
    sent = {}
    for turn in range(1, 30):
        now = T0 + STEP_MS * turn
        for number in (1, 2):
            sent = {place: min(turn, 10 + place) for place in range(pings)}
            cluster.poll(
                number,
                [
                    base.at(
                        count,
                        84 * count,
                        count,
                        84 * count,
                        id=number << 8 | place,
                        start_ns=(T0 + number) * 1_000_000,
                        icmp=(kind, 0, 4000 + place),
                    )
                    for place, count in sent.items()
                ],
                now,
            )
        cluster.due(now + 100)
    cluster.end(now + 200)
    assert cluster.sum("octetDeltaCount") == 84 * sum(sent.values())
    assert {row["originalFlowsPresent"] for row in cluster.rows} == {2}


def test_kinds_of_icmp_are_reported_apart_too() -> None:
    """An echo and a timestamp request of one identifier."""
    cluster = Cluster()
    at = cluster.addresses
    base = Connection(at["client"], at["server"], 0, 0, 1, tcp_state=None)
    for number in (1, 2):
        asked = [
            base.at(10, 840, 10, 840, icmp=(8, 0, 7), id=1),
            base.at(4, 160, 4, 160, icmp=(13, 0, 7), id=2),
        ]
        cluster.poll(number, asked, T0 + STEP_MS)
    cluster.end(T0 + 2 * STEP_MS)
    assert sorted(row["octetTotalCount"] for row in cluster.rows) == [160, 840]


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("version", [4, 6])
def test_nodes_that_saw_it_the_other_way_round(version: int, first: int) -> None:
    """Conntrack of the second node began with the server's packet."""
    cluster = Cluster(version)
    at = cluster.addresses
    there = Connection(at["client"], at["server"], 7946, 7947, 17, tcp_state=None)
    back = Connection(at["server"], at["client"], 7947, 7946, 17, tcp_state=None)
    for turn in range(1, 30):
        now = T0 + STEP_MS * turn
        listed = {
            1: there.at(turn, 100 * turn, 2 * turn, 700 * turn, start_ns=T0 * 1_000_000),
            2: back.at(2 * turn, 700 * turn, turn, 100 * turn, start_ns=(T0 + 4) * 1_000_000),
        }
        for number in (first, 3 - first):
            cluster.poll(number, [listed[number]], now + number)
        cluster.due(now + 100)
    cluster.end(now + 200)
    forward, reverse = ("octetDeltaCount", "reverseOctetDeltaCount")
    if first == 2:
        forward, reverse = reverse, forward
    assert (cluster.sum(forward), cluster.sum(reverse)) == (2900, 20_300)
    named = ("client", "server") if first == 1 else ("server", "client")
    assert {(row["sourcePodName"], row["destinationPodName"]) for row in cluster.rows} == {named}
    assert {row["originalFlowsPresent"] for row in cluster.rows} == {2}
    ports = (7946, 7947) if first == 1 else (7947, 7946)
    assert {
        (row["sourceTransportPort"], row["destinationTransportPort"]) for row in cluster.rows
    } == {ports}
    assert cluster.flows.stats.reversed > 0
    assert cluster.flows.stats.reused == 0


@pytest.mark.parametrize("first", [1, 2])
def test_who_called_a_service_is_the_client_whatever_the_other_node_saw(first: int) -> None:
    cluster = Cluster()
    at = cluster.addresses
    there = Connection(at["client"], at["vip"], 40_000, 80, real=at["server"], real_port=8080)
    back = Connection(at["server"], at["client"], 8080, 40_000)
    for turn in range(1, 30):
        now = T0 + STEP_MS * turn
        listed = {
            1: there.at(turn, 100 * turn, 2 * turn, 700 * turn, start_ns=T0 * 1_000_000),
            2: back.at(2 * turn, 699 * turn, turn, 99 * turn, start_ns=(T0 + 4) * 1_000_000),
        }
        for number in (first, 3 - first):
            cluster.poll(number, [listed[number]], now + number)
        cluster.due(now + 100)
    cluster.end(now + 200)
    assert (cluster.sum("octetDeltaCount"), cluster.sum("reverseOctetDeltaCount")) == (2900, 20_300)
    sides = ("FromSourceNode", "FromDestinationNode")
    assert [cluster.sum(f"octetDeltaCount{side}") for side in sides] == [2900, 2871]
    assert [cluster.sum(f"reverseOctetDeltaCount{side}") for side in sides] == [20_300, 20_271]
    for row in cluster.rows:
        assert (row["sourcePodName"], row["destinationPodName"]) == ("client", "server")
        assert (row["sourceNodeName"], row["destinationNodeName"]) == ("node-1", "node-2")
        assert (row["sourceTransportPort"], row["destinationTransportPort"]) == (40_000, 8080)
        assert row["destinationServicePortName"] == "shop/web:http"
        assert row["originalFlowsPresent"] == 2
        assert min(row[f"flowEndSeconds{side}"] for side in sides) > 0


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("opposite", [False, True], ids=["as before", "the other way round"])
@pytest.mark.parametrize("flushed", range(7, 20))
def test_a_conntrack_that_is_flushed_begins_the_connection_anew(
    first: int, opposite: bool, flushed: int
) -> None:
    """At whatever time between two records of the other node."""
    cluster = Cluster()
    at = cluster.addresses
    there = Connection(at["client"], at["server"], 7946, 7947, 17, tcp_state=None)
    back = Connection(at["server"], at["client"], 7947, 7946, 17, tcp_state=None)
    for turn in range(1, 40):
        now = T0 + STEP_MS * turn
        whole = there.at(turn, 100 * turn, 2 * turn, 700 * turn, start_ns=T0 * 1_000_000)
        since = max(turn - flushed, 0)
        listed = {1: whole, 2: replace(whole, start_ns=(T0 + 4) * 1_000_000)}
        if since:
            start = (T0 + STEP_MS * flushed + 200) * 1_000_000
            counters = (since, 100 * since, 2 * since, 700 * since)
            listed[2] = there.at(*counters, start_ns=start, id=2)
            if opposite:
                listed[2] = back.at(*counters[2:], *counters[:2], start_ns=start, id=2)
        for number in (first, 3 - first):
            cluster.poll(number, [listed[number]], now + number)
        cluster.due(now + 100)
    cluster.end(now + 200)
    assert (cluster.sum("octetDeltaCount"), cluster.sum("reverseOctetDeltaCount")) == (3900, 27_300)
    assert {row["sourcePodName"] for row in cluster.rows} == {"client"}


@pytest.mark.parametrize("flushed", [[2], [9], [30], [4, 13], [4, 9, 13]], ids=str)
def test_the_other_node_may_tell_of_it_only_after_a_flush(flushed: list[int]) -> None:
    """Its session was away, or its interval is longer."""
    cluster, held = Cluster(), []
    at = cluster.addresses
    there = Connection(at["client"], at["server"], 7946, 7947, 17, tcp_state=None)
    for turn in range(1, 40):
        now = T0 + STEP_MS * turn
        whole = there.at(turn, 100 * turn, turn, 300 * turn, start_ns=T0 * 1_000_000)
        last = max((when for when in flushed if when < turn), default=0)
        since = turn - last
        start = (T0 + STEP_MS * last + (200 if last else 4)) * 1_000_000
        counters = (since, 100 * since, since, 300 * since)
        cluster.poll(2, [there.at(*counters, start_ns=start, id=last)], now)
        cluster.tables[1].poll(entries(whole), now)
        held.append((cluster.tables[1].due(now), now))
        if turn in {flushed[-1] + 20, 39}:
            for batch, told in held:
                cluster.take(batch, 1, told)
            held.clear()
            cluster.due(now + 100)
    cluster.end(now + 90_000)
    sides = ("", "FromSourceNode", "FromDestinationNode")
    assert [cluster.sum(f"octetDeltaCount{side}") for side in sides] == [3900] * 3
    assert [cluster.sum(f"reverseOctetDeltaCount{side}") for side in sides] == [11_700] * 3
    assert {row["originalFlowsPresent"] for row in cluster.rows} == {2}


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize(("flushed", "turns"), [(3, 9), (15, 20), (2, 40)])
def test_a_connection_may_be_over_soon_after_a_flush(first: int, flushed: int, turns: int) -> None:
    """Before the other node has told that it went on: its last record says so."""
    cluster = Cluster()
    at = cluster.addresses
    there = Connection(at["client"], at["server"], 40_000, 8080)
    for turn in range(1, turns + 1):
        now = T0 + STEP_MS * turn
        since = turn - flushed if turn > flushed else turn
        start = T0 + (STEP_MS * flushed + 200 if turn > flushed else 4)
        listed = {
            1: there.at(turn, 100 * turn, turn, 300 * turn, start_ns=T0 * 1_000_000),
            2: there.at(
                since,
                100 * since,
                since,
                300 * since,
                start_ns=start * 1_000_000,
                id=turn > flushed,
            ),
        }
        for number in (first, 3 - first):
            cluster.poll(number, [listed[number]], now + number)
        cluster.due(now + 100)
    for turn in range(1, 4):  # listed no more
        for number in (first, 3 - first):
            cluster.poll(number, [], now + STEP_MS * turn + number)
    cluster.due(now + 200_000)
    cluster.end(now + 300_000)
    for side in ("", "FromSourceNode", "FromDestinationNode"):
        assert cluster.sum(f"octetDeltaCount{side}") == 100 * turns
        assert cluster.sum(f"reverseOctetDeltaCount{side}") == 300 * turns


def test_the_next_connection_may_be_the_other_way_round() -> None:
    """Both nodes agree each time: a row does not keep what the last connection was like."""
    cluster = Cluster()
    at = cluster.addresses
    there = Connection(at["client"], at["server"], 7946, 7946, 17, tcp_state=None)
    back = Connection(at["server"], at["client"], 7946, 7946, 17, tcp_state=None)
    for turn, seen in enumerate((there, back, there)):
        start = T0 + 40_000 * turn
        for number in (1, 2):
            known = seen.at(3, 300, 1, 50, id=turn, start_ns=(start + number) * 1_000_000)
            cluster.poll(number, [known], start + STEP_MS)
            cluster.poll(number, [], start + 2 * STEP_MS)
            cluster.poll(number, [], start + 3 * STEP_MS)
        cluster.due(start + 4 * STEP_MS)
    cluster.end(T0 + 200_000)
    reported = [row for row in cluster.rows if row["octetDeltaCount"]]
    assert [row["sourcePodName"] for row in reported] == ["client", "server", "client"]
    assert [row["octetDeltaCount"] for row in reported] == [300] * 3
    assert cluster.sum("reverseOctetDeltaCount") == 150
    assert cluster.flows.stats.reversed == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("masqueraded", "also_there"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["as it is", "masqueraded", "masqueraded there", "masqueraded twice"],
)
@pytest.mark.parametrize("called", [(30080, "shop/web:http"), (8443, "")], ids=str)
@pytest.mark.parametrize("first", [1, 2])
def test_a_nodes_port_that_a_pod_of_another_node_calls(
    version: int, masqueraded: bool, also_there: bool, called: tuple[int, str], first: int
) -> None:
    """A NodePort, or a hostPort: translated where the server is."""
    cluster, calls = Cluster(version), 20
    port, named = called
    at = cluster.addresses
    snat: dict[str, Any] = {"snat": at["node-1"], "snat_port": 61_000} if masqueraded else {}
    for call in range(calls):
        now = T0 + 1000 * call
        leaving = Connection(at["client"], at["node-2"], 40_000 + call, port, id=call, **snat)
        if masqueraded:
            leaving = replace(leaving, snat_port=61_000 + call)
        arriving = replace(
            leaving,
            source=leaving.snat or leaving.source,
            source_port=leaving.snat_port or leaving.source_port,
            snat=at["gateway-2"] if also_there else "",
            snat_port=50_000 + call if also_there else 0,
            real=at["server"],
            real_port=8080,
        )
        listed = {1: leaving, 2: arriving}
        for number in (first, 3 - first):
            one = listed[number].at(9, 946, 7, 5000, start_ns=now * 1_000_000)
            cluster.poll(number, [one.at(tcp_state="TIME_WAIT")], now + 500)
            cluster.poll(number, [], now + 600)
            cluster.poll(number, [], now + 700)
        cluster.due(now + 800)
    cluster.end(T0 + 200_000)
    assert (len(cluster.rows), cluster.sum("octetDeltaCount")) == (calls, 18_920)
    for row in cluster.rows:
        assert row["flowType"] == FlowType.INTER_NODE
        assert (row["sourceIP"], row["destinationIP"]) == (at["client"], at["server"])
        assert row["sourceTransportPort"] in range(40_000, 40_000 + calls)
        assert row["destinationTransportPort"] == 8080
        assert (row["sourcePodName"], row["destinationPodName"]) == ("client", "server")
        assert row["destinationServicePortName"] == named
        assert row["destinationServiceIP"] == row["destinationClusterIP"] == at["node-2"]
        assert row["destinationServicePort"] == port
        assert row["originalFlowsPresent"] == 2


def test_a_host_outside_meets_a_masqueraded_pod() -> None:
    """What leaves the cluster is known there by the node's address, and is one connection."""
    cluster = Cluster()
    at = cluster.addresses
    outside = ConnectionTable(PlainHost(), Scope())
    server = "198.51.100.9"
    leaving = Connection(at["client"], server, snat=at["node-1"], snat_port=61_000)
    arriving = Connection(at["node-1"], server, source_port=61_000)
    for turn in range(1, 20):
        now = T0 + STEP_MS * turn
        cluster.poll(1, [leaving.at(turn, 100 * turn, turn, 900 * turn)], now)
        outside.poll(entries(arriving.at(turn, 100 * turn, turn, 900 * turn)), now + 3)
        cluster.take(outside.due(now + 3), 9, now + 3)
        cluster.due(now + 50)
    cluster.take(outside.flush(), 9, now + 60)
    cluster.end(now + 60)
    assert (cluster.sum("octetDeltaCount"), cluster.sum("reverseOctetDeltaCount")) == (1900, 17_100)
    assert {row["sourceIP"] for row in cluster.rows} == {at["client"]}


@pytest.mark.parametrize("nodes", [(2,), (1, 2)], ids=["within a node", "between nodes"])
def test_a_query_and_its_answer_are_one_record(nodes: tuple[int, ...]) -> None:
    """DNS: idle, then gone from conntrack. The second time there is nothing new to report."""
    cluster = Cluster()
    at = cluster.addresses
    client = at["client"] if len(nodes) == 2 else at["near"]
    query = Connection(client, at["server"], 40_000, 53, 17, tcp_state=None)
    for turn in range(1, 20):
        now = T0 + STEP_MS * turn
        listed = [query.at(1, 70, 1, 150)] if turn < 12 else []
        for number in nodes:
            cluster.poll(number, listed, now)
        cluster.due(now + 100)
    cluster.end(now + 200)
    (row,) = cluster.rows
    assert (row["octetDeltaCount"], row["reverseOctetDeltaCount"]) == (70, 150)
    assert cluster.flows.stats.unchanged == len(nodes)


def test_an_end_that_nothing_reported_is_written() -> None:
    """Active until now, then over without another packet: one record without bytes says so."""
    cluster = Cluster()
    at = cluster.addresses
    talk = Connection(at["near"], at["server"], 40_000, 53, 17, tcp_state=None)
    for turn in range(1, 40):
        now = T0 + STEP_MS * turn
        listed = [talk.at(min(turn, 12), 70 * min(turn, 12), 1, 150)] if turn < 30 else []
        cluster.poll(2, listed, now)
        cluster.due(now + 100)
    cluster.end(now + 200)
    assert cluster.sum("octetDeltaCount") == 840
    assert [row["flowEndReason"] for row in cluster.rows] == [2, 1]
