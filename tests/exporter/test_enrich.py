import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.kernel_entries import Connection, entries
from flowvis.addresses import parse_network
from flowvis.batch import address_text
from flowvis.exporter.tables.enrich import ClusterNode, PlainHost
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.fields import FlowType
from flowvis.inventory.index import Inventory
from flowvis.inventory.networks import Networks
from flowvis.native import StringTable
from inventory.kubernetes_objects import node, pod, service

HERE, THERE = "10.0.1.10", "10.0.2.20"
NEAR = "10.0.1.11"
OUTSIDE = "198.51.100.9"
NODE_1, NODE_2 = "192.0.2.1", "192.0.2.2"
VIP = "10.96.0.1"
POOL, ELSEWHERE = "172.31.1.10", "172.31.77.20"


@pytest.fixture
def enricher() -> ClusterNode:
    inventory = Inventory()
    inventory.replace(
        [
            node("node-1", NODE_1, "10.0.1.0/24"),
            node("node-2", NODE_2, "10.0.2.0/24"),
            pod("here", HERE, node="node-1"),
            pod("near", NEAR, node="node-1"),
            pod("there", THERE, node="node-2"),
            service("web", [VIP], {"name": "http", "port": 80, "nodePort": 30080}),
        ],
        0,
    )
    return ClusterNode("node-1", inventory)


def describe(enricher: ClusterNode | PlainHost, connection: Connection) -> dict[str, object]:
    strings = StringTable()
    found = enricher.describe(ConnectionTuples.of(entries(connection), 0), strings)
    row: dict[str, object] = {"wanted": bool(found.wanted[0])}
    for name, column in found.columns.items():
        if name.endswith("IP"):
            row[name] = address_text(bytes(column[0]))
        elif name.endswith(("Name", "Namespace")):
            row[name] = strings.texts(np.asarray(column))[0]
        else:
            row[name] = int(column[0])
    return row


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (Connection(HERE, NEAR), FlowType.INTRA_NODE),
        (Connection(HERE, THERE), FlowType.INTER_NODE),
        (Connection(THERE, HERE), FlowType.INTER_NODE),
        (Connection(HERE, "10.0.2.99"), FlowType.INTER_NODE),  # a Pod that is not known yet
        (Connection(HERE, OUTSIDE), FlowType.TO_EXTERNAL),
        (Connection(HERE, NODE_2), FlowType.TO_EXTERNAL),
        (Connection(HERE, NODE_2, destination_port=30080), FlowType.INTER_NODE),
        (Connection(HERE, "10.0.1.1"), FlowType.INTRA_NODE),  # this node itself
        (Connection(HERE, NODE_1), FlowType.INTRA_NODE),
        (Connection(OUTSIDE, HERE), FlowType.FROM_EXTERNAL),
        (Connection(NODE_1, HERE), FlowType.INTRA_NODE),  # kubelet's probes
        (Connection("10.0.1.1", HERE), FlowType.INTRA_NODE),
        (Connection(NODE_1, VIP, real=HERE), FlowType.INTRA_NODE),
        (Connection(NODE_1, VIP, real=THERE), FlowType.INTER_NODE),
        (Connection(NODE_1, VIP, real=THERE, snat="10.0.1.0"), FlowType.INTER_NODE),
        (Connection(NODE_2, HERE), FlowType.INTER_NODE),  # masqueraded there
        (Connection(NODE_2, NODE_1, destination_port=30080, real=HERE), FlowType.INTER_NODE),
        (Connection("10.0.2.1", HERE), FlowType.INTER_NODE),
        (Connection(OUTSIDE, NODE_1, destination_port=30080, real=THERE), FlowType.FROM_EXTERNAL),
    ],
)
def test_flow_types(enricher: ClusterNode, connection: Connection, expected: int) -> None:
    row = describe(enricher, connection)
    assert (row["wanted"], row["flowType"]) == (True, expected)


@pytest.mark.parametrize(
    "connection",
    [
        Connection(THERE, "10.0.2.21"),
        Connection(THERE, OUTSIDE),
        Connection(OUTSIDE, THERE),
        Connection(OUTSIDE, NODE_1, destination_port=22),
        Connection(NODE_1, OUTSIDE),
        Connection(NODE_1, THERE),
        Connection(NODE_1, VIP, real=NODE_2),  # the API server's Service
        Connection(THERE, VIP, real="10.0.2.21"),
    ],
)
def test_what_is_no_local_pods_is_not_wanted(enricher: ClusterNode, connection: Connection) -> None:
    assert not describe(enricher, connection)["wanted"]


def test_what_goes_on_to_a_pod_that_was_made_later_is_its_own() -> None:
    """As datagrams to an address that it has from the Pod before it: the kernel goes on."""
    inventory = Inventory()
    inventory.upsert(pod("heir", HERE, creationTimestamp="2020-01-01T00:00:00Z"), 0)
    row = describe(ClusterNode("node-1", inventory), Connection(OUTSIDE, HERE))
    assert (row["wanted"], row["destinationPodName"]) == (True, "heir")


def test_only_local_pods_are_named(enricher: ClusterNode) -> None:
    row = describe(enricher, Connection(HERE, THERE))
    names = ("PodName", "PodNamespace", "NodeName")
    assert [row[f"source{name}"] for name in names] == ["here", "shop", "node-1"]
    assert [row[f"destination{name}"] for name in names] == ["", "", ""]


GATEWAY = "10.0.1.254"  # a bridge's address, anywhere in the range


class Listed:
    """Addresses of this node that its object does not have."""

    def contain(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return np.array([address_text(bytes(row)) == GATEWAY for row in addresses], dtype=bool)


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (Connection(GATEWAY, HERE), FlowType.INTRA_NODE),
        (Connection(HERE, GATEWAY), FlowType.INTRA_NODE),
        (Connection(GATEWAY, VIP, real=THERE), FlowType.INTER_NODE),
        (Connection(THERE, HERE), FlowType.INTER_NODE),
    ],
)
def test_every_address_of_this_node_is_the_node(
    enricher: ClusterNode, connection: Connection, expected: int
) -> None:
    row = describe(ClusterNode("node-1", enricher.inventory, Listed()), connection)
    assert (row["wanted"], row["flowType"]) == (True, expected)
    sides = {connection.source: "source", connection.destination: "destination"}
    if GATEWAY in sides:
        side = sides[GATEWAY]
        assert (row[f"{side}NodeName"], row[f"{side}PodName"]) == ("node-1", "")


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        # Nobody but the aggregator can know that the other one is a Pod.
        (Connection(POOL, ELSEWHERE), FlowType.TO_EXTERNAL),
        (Connection(ELSEWHERE, POOL), FlowType.FROM_EXTERNAL),
        # But what a Service's address leads to is one, and only we know the client.
        (
            Connection(OUTSIDE, NODE_1, destination_port=30080, real=ELSEWHERE, snat=NODE_1),
            FlowType.FROM_EXTERNAL,
        ),
        (Connection(NODE_1, VIP, real=ELSEWHERE), FlowType.INTER_NODE),
        (Connection(NODE_1, VIP, real=ELSEWHERE, snat="172.31.1.1"), FlowType.INTER_NODE),
        (Connection(NODE_2, POOL), FlowType.INTER_NODE),
        (Connection(NODE_1, POOL), FlowType.INTRA_NODE),
    ],
)
def test_pods_outside_of_all_ranges(connection: Connection, expected: int) -> None:
    inventory = Inventory()
    inventory.replace(
        [
            node("node-1", NODE_1),
            node("node-2", NODE_2),
            pod("here", POOL, node="node-1"),
            service("web", [VIP], {"name": "http", "port": 80, "nodePort": 30080}),
        ],
        0,
    )
    row = describe(ClusterNode("node-1", inventory), connection)
    assert (row["wanted"], row["flowType"]) == (True, expected)
    if connection.real:
        assert row["destinationServicePortName"] == "shop/web:http"


def test_the_service_that_was_called(enricher: ClusterNode) -> None:
    row = describe(enricher, Connection(HERE, VIP, real=THERE, real_port=8080))
    service = [row[f"destinationService{what}"] for what in ("PortName", "IP", "Port")]
    assert service == ["shop/web:http", VIP, 80]


@pytest.mark.parametrize("real", [HERE, THERE])
def test_a_node_port_at_an_address_that_the_nodes_object_does_not_name(
    enricher: ClusterNode, real: str
) -> None:
    second = "203.0.113.1"
    own = Networks([parse_network(f"{second}/32")])
    enricher = ClusterNode("node-1", enricher.inventory, own)
    called = Connection(OUTSIDE, second, destination_port=30080, real=real)
    row = describe(enricher, called)
    assert (row["wanted"], row["flowType"]) == (True, FlowType.FROM_EXTERNAL)
    assert row["destinationServicePortName"] == "shop/web:http"
    assert (row["destinationServiceIP"], row["destinationServicePort"]) == (second, 30080)


def test_a_node_port_from_outside(enricher: ClusterNode) -> None:
    called = Connection(OUTSIDE, NODE_1, destination_port=30080, real=THERE, snat=NODE_1)
    row = describe(enricher, called)
    service = [row[f"destinationService{what}"] for what in ("PortName", "IP", "Port")]
    assert service == ["shop/web:http", NODE_1, 30080]
    assert row["destinationPodName"] == ""


@pytest.mark.parametrize("called", [THERE, "10.96.0.99"])
def test_no_service_without_a_name(enricher: ClusterNode, called: str) -> None:
    row = describe(enricher, Connection(HERE, called, real=THERE, real_port=8080))
    service = [row[f"destinationService{what}"] for what in ("PortName", "IP", "Port")]
    assert service == ["", "", 0]


def test_a_plain_host_wants_everything() -> None:
    assert describe(PlainHost(), Connection(NODE_1, OUTSIDE)) == {"wanted": True}
