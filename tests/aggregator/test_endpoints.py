"""A CNI with address pools of its own: no range tells that an address is a Pod's."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.enrichment import reported_nodes
from flowvis.aggregator.enrichment.complete import Completer
from flowvis.aggregator.enrichment.endpoints import Endpoints
from flowvis.aggregator.enrichment.reported_nodes import LONGEST_NAME, ReportedNodes
from flowvis.batch import Batch
from flowvis.fields import EndReason, FlowType
from flowvis.inventory.index import Inventory
from flowvis.native import StringTable
from inventory.kubernetes_objects import addresses, node, pod, service

from .exported import START_MS, counted, exported
from .test_flows import NOW, Row, Table, _leaf, at  # noqa: F401  both leaves

CLIENT, NEAR, SERVER = "172.31.9.20", "172.31.9.21", "172.31.200.7"
NODE_1, NODE_2, OUTSIDE = "192.0.2.1", "192.0.2.2", "198.51.100.9"
CLIENT_6, SERVER_6 = "2001:db8:77::20", "2001:db8:99::7"


def pools() -> Inventory:
    inventory = Inventory()
    for item in (
        node("n1", NODE_1),
        node("n2", NODE_2, "10.244.2.0/24"),  # a range that the CNI does not use
        pod("client", CLIENT, CLIENT_6, node="n1"),
        pod("near", NEAR, node="n1"),
        pod("server", SERVER, SERVER_6, node="n2"),
        service("web", ["10.96.0.9"], {"name": "http", "port": 80, "nodePort": 30080}),
    ):
        inventory.upsert(item, START_MS)
    return inventory


def source_half(client: str = CLIENT, server: str = SERVER, **more: Any) -> Row:
    return {
        "sourceIP": client,
        "destinationIP": server,
        "flowType": FlowType.TO_EXTERNAL,
        "sourcePodName": "client",
        "sourcePodNamespace": "shop",
        "sourceNodeName": "n1",
        **more,
    }


def destination_half(client: str = CLIENT, server: str = SERVER, **more: Any) -> Row:
    return {
        "sourceIP": client,
        "destinationIP": server,
        "flowType": FlowType.FROM_EXTERNAL,
        "destinationPodName": "server",
        "destinationPodNamespace": "shop",
        "destinationNodeName": "n2",
        **more,
    }


CALLED: dict[str, Any] = {
    "destinationServicePortName": "shop/web:http",
    "destinationServiceIP": "10.96.0.9",
    "destinationServicePort": 80,
}


class Pipe(Table):
    """What exporters report, from its arrival to completed records."""

    def __init__(self, inventory: Inventory, **settings: Any) -> None:
        super().__init__(**settings)
        self._endpoints = Endpoints(inventory)
        self._completer = Completer(inventory, lambda: "", pod_labels=False)

    def add(self, *rows: Row, now: int = NOW) -> None:
        self.flows.add(self._endpoints.settle(exported(self.flows.strings, *rows)), now)
        self.check()

    def read(self, batch: Batch) -> list[Row]:
        self._completer.complete(batch)
        return super().read(batch)


def settled(*rows: Row, inventory: Inventory | None = None) -> Batch:
    return Endpoints(inventory or pools()).settle(exported(StringTable(), *rows))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (source_half(), FlowType.INTER_NODE),
        (destination_half(), FlowType.INTER_NODE),
        (source_half(flowType=FlowType.UNSPECIFIED), FlowType.INTER_NODE),
        (source_half(CLIENT_6, SERVER_6), FlowType.INTER_NODE),
        (destination_half(CLIENT_6, SERVER_6), FlowType.INTER_NODE),
        (source_half(server=NEAR), FlowType.INTRA_NODE),
        (source_half(sourceNodeName=""), FlowType.INTER_NODE),  # the inventory has it
        (source_half(server=OUTSIDE), FlowType.TO_EXTERNAL),
        (destination_half(client=OUTSIDE), FlowType.FROM_EXTERNAL),
        # A node's own address, too, is in the cluster, but nobody else reports it: see below.
        (source_half(server=NODE_2), FlowType.TO_EXTERNAL),
        (destination_half(client=NODE_1), FlowType.FROM_EXTERNAL),
        (source_half(server=NODE_2, destinationTransportPort=30080), FlowType.INTER_NODE),
        (source_half(server=NODE_1, destinationTransportPort=30080), FlowType.INTRA_NODE),
        # A client that only the node knows where it entered: the key needs its type.
        ({"sourceIP": CLIENT, "flowType": FlowType.FROM_EXTERNAL}, FlowType.FROM_EXTERNAL),
    ],
)
def test_the_type_is_that_of_the_pods_and_nodes_at_both_addresses(
    record: Row, expected: int
) -> None:
    assert settled(record)["flowType"].tolist() == [expected]


def test_who_has_an_address_now_is_no_end_of_what_began_long_before() -> None:
    heir = pod("heir", "172.31.9.30", node="n2", creationTimestamp="2023-11-14T22:13:20Z")
    inventory = pools()
    inventory.upsert(heir, START_MS)
    rows = [
        destination_half(client="172.31.9.30", flowStartMilliseconds=START_MS - age)
        for age in (0, 60_000, 3_600_000)
    ]
    types = settled(*rows, inventory=inventory)["flowType"].tolist()
    assert types == [FlowType.INTRA_NODE, FlowType.INTRA_NODE, FlowType.FROM_EXTERNAL]


def test_what_is_settled_leaves_the_arriving_batch_as_it_was() -> None:
    batch = exported(StringTable(), source_half(), source_half(server=NODE_2))
    before = {name: column.copy() for name, column in batch.columns.items()}
    Endpoints(pools()).settle(batch)
    for name, column in before.items():
        assert np.array_equal(batch[name], column)


@pytest.mark.parametrize(
    "masquerade", [{}, {"proxySnatIP": NODE_1, "proxySnatPort": 6000}], ids=["as it is", "snat"]
)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
@pytest.mark.parametrize("first", ["source", "destination"])
def test_halves_of_pods_outside_of_all_ranges_are_one_record(
    masquerade: Row, together: bool, first: str
) -> None:
    table = Pipe(pools())
    client: Row = {"sourceIP": NODE_1, "sourceTransportPort": 6000} if masquerade else {}
    theirs: Row = {"flowStartMilliseconds": START_MS + 7}
    ending: Row = {"flowEndReason": EndReason.END}
    halves = [
        source_half(**CALLED, **masquerade, **counted(7000), **ending),
        destination_half(**counted(6900), **theirs, **ending)
        | client
        | ({"flowType": FlowType.INTER_NODE} if masquerade else {}),
    ]
    if first == "destination":
        halves.reverse()
    for part in [halves] if together else [[half] for half in halves]:
        table.add(*part)
    row = table.only()
    assert row["flowType"] == FlowType.INTER_NODE
    assert row["originalFlowsPresent"] == 2
    assert row["sourceIP"] == CLIENT
    assert row["destinationServicePortName"] == "shop/web:http"
    assert (row["sourcePodName"], row["destinationPodName"]) == ("client", "server")
    assert row["octetDeltaCount"] == 7000
    assert row["octetDeltaCountFromDestinationNode"] == 6900


def test_a_connection_with_a_node_waits_for_nobody() -> None:
    """A node's exporter reports nothing of its own sockets, but for what its Services forward."""
    table = Pipe(pools(), correlation_wait_ms=60_000)
    to: Row = {"destinationTransportPort": 10250}
    table.add(source_half(server=NODE_2, **to), source_half(server=NODE_1, **to))
    table.add(destination_half(client=NODE_1, sourceTransportPort=51_000))
    rows = table.due()
    assert [row["flowType"] for row in rows] == [2, 1, 2]
    assert [row["destinationNodeName"] for row in rows] == ["n2", "n1", "n2"]
    assert [row["sourceNodeName"] for row in rows] == ["n1", "n1", "n1"]
    table.add(source_half(server=NODE_2, destinationTransportPort=30080))
    assert table.due() == []
    assert [row["originalFlowsPresent"] for row in table.due(NOW + 60_000)] == [1]


GATEWAY = "172.31.9.62"  # the node's end of its Pods' links: no object has it


def test_a_node_at_an_address_that_only_its_exporter_knows() -> None:
    probe = {
        "sourceIP": GATEWAY,
        "destinationIP": CLIENT,
        "flowType": FlowType.INTRA_NODE,
        "sourceNodeName": "n1",
        "destinationPodName": "client",
        "destinationNodeName": "n1",
    }
    called = {
        "sourceIP": GATEWAY,
        "destinationIP": SERVER,
        "flowType": FlowType.INTER_NODE,
        "sourceNodeName": "n1",
        **CALLED,
        **counted(7000),
    }
    seen = destination_half(client=GATEWAY, flowStartMilliseconds=START_MS + 4, **counted(6900))
    table = Pipe(pools())
    table.add(probe)
    table.due()
    table.add(seen)
    assert table.due() == []  # n1 will say what was called
    table.add(called)
    row = table.only()
    assert (row["flowType"], row["originalFlowsPresent"]) == (FlowType.INTER_NODE, 2)
    assert (row["sourceNodeName"], row["sourcePodName"]) == ("n1", "")
    assert row["destinationServicePortName"] == "shop/web:http"
    assert (row["octetDeltaCount"], row["octetDeltaCountFromDestinationNode"]) == (7000, 6900)


def test_an_address_of_a_node_that_is_gone_is_anybodys() -> None:
    """As in a cloud, which gives it to a machine outside of the cluster next."""
    inventory = pools()
    gone = node("n3", "192.0.2.3")
    inventory.upsert(gone, START_MS)
    of_node = {"sourceIP": "192.0.2.3", "destinationIP": "10.96.0.1", "sourceNodeName": "n3"}
    caller = destination_half(client="192.0.2.3", flowStartMilliseconds=START_MS + 4, **counted(9))
    for there in (True, False):
        table = Pipe(inventory)
        table.add(of_node)
        table.due()
        if not there:
            inventory.delete(gone, START_MS)
        table.add(caller)
        waits = table.due() == []
        assert waits == there  # for what the node itself says of it
    assert Pipe(Inventory())._endpoints._is_node_there("n1")  # who has no objects knows no better


def test_reported_nodes_are_bounded_and_the_newest_report_counts() -> None:
    reported = ReportedNodes(max_addresses=4)
    strings = StringTable()

    def learn(address: str, name: str, **more: Any) -> None:
        row = {"sourceIP": address, "sourceNodeName": name, **more}
        reported.learn(exported(strings, row))

    def names(*ips: str) -> list[str]:
        found: list[str] = strings.texts(reported.find(addresses(ips), strings))
        return found

    learn("10.9.0.1", "n1")
    learn("10.9.0.2", "n2")
    learn("10.9.0.3", "n2", sourcePodName="a-pod")
    assert names("10.9.0.2", "10.9.0.1", "10.9.0.3") == ["n2", "n1", ""]
    learn("10.9.0.1", "n3")
    assert names("10.9.0.1", "10.9.9.9") == ["n3", ""]
    for number in range(100):
        learn(f"10.9.1.{number}", f"node-{number}")
        assert len(reported) <= 4
        assert names(f"10.9.1.{number}") == [f"node-{number}"]


def test_texts_that_no_node_is_called_are_no_reported_nodes() -> None:
    """Who sends records could fill the memory with them: a text has 16 KB, an address each."""
    reported = ReportedNodes()
    longest = f"n{'1' * (LONGEST_NAME - 1)}"

    def learn(*names: str) -> list[str]:
        strings = StringTable()
        rows = [
            {"sourceIP": f"10.9.{at // 250}.{at % 250}", "sourceNodeName": name}
            for at, name in enumerate(names)
        ]
        batch = exported(strings, *rows)
        reported.learn(batch)
        return strings.texts(reported.find(batch["sourceIP"], strings))

    assert learn(longest, f"{longest}1", "n2") == [longest, "", "n2"]
    tracemalloc.start()
    for first in range(0, 1000, 100):
        learn(*(f"{number}{'é' * 8000}" for number in range(first, first + 100)))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1 << 20


def test_names_without_end_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reported_nodes, "MAX_NAMES", 4)
    reported, strings = ReportedNodes(), StringTable()
    for number in range(20):
        row = {"sourceIP": f"10.9.1.{number}", "sourceNodeName": f"node-{number}"}
        reported.learn(exported(strings, row))
        found = reported.find(addresses([row["sourceIP"]]), strings)
        assert strings.texts(found) == [f"node-{number}"]
        assert len(reported) <= 4


def sums(rows: list[Row], name: str) -> list[int]:
    sides = ("", "FromSourceNode", "FromDestinationNode")
    return [sum(row[name + side] for row in rows) for side in sides]


STEPS: list[tuple[Callable[..., Row], Row]] = [
    (source_half, at(10) | counted(1000)),
    (destination_half, at(11) | counted(1100) | {"flowStartMilliseconds": START_MS + 5}),
    (source_half, at(20) | counted(2000, 1000)),
    (destination_half, at(21) | counted(2100, 1000) | {"flowStartMilliseconds": START_MS + 5}),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2)])
@pytest.mark.parametrize("known_after", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("written", [False, True])
def test_pods_that_the_inventory_learns_of_late(
    order: tuple[int, ...], known_after: int, written: bool
) -> None:
    """Whenever it does, no octet is counted twice, and the node of each side keeps its own."""
    inventory = Inventory()
    table, rows = Pipe(inventory), []
    for number, step in enumerate(order):
        if number == known_after:
            for name, address, where in (("client", CLIENT, "n1"), ("server", SERVER, "n2")):
                inventory.upsert(pod(name, address, node=where), START_MS)
        half, more = STEPS[step]
        table.add(half(**more), now=NOW + number)
        if written:
            rows += table.due(NOW + number)
    rows += table.flush(NOW + 60_000)
    assert sums(rows, "octetDeltaCount")[0] == 2100
    last = rows[-1]
    assert (last["sourcePodName"], last["destinationPodName"]) == ("client", "server")
    assert last["originalFlowsPresent"] == 2
    assert last["octetTotalCountFromSourceNode"] == 2000
    assert last["octetTotalCountFromDestinationNode"] == 2100
    assert table.stats.reused == table.stats.orphaned == table.stats.restarted == 0
