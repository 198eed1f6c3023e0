"""Pods of CNIs with address pools of their own are reported."""

from ipaddress import ip_network

import pytest

from flowvis.inventory.index import Inventory
from flowvis.inventory.sources.ranges import Ranges

from .kubernetes_objects import node, pod

NOW = 1_800_000_000_000
REMEDY = "so it is"


def cluster(*pods: str) -> Inventory:
    inventory = Inventory()
    inventory.upsert(node("n1", "192.0.2.1", "10.1.0.0/24", "fd01::/64"), NOW)
    for number, address in enumerate(pods):
        inventory.upsert(pod(f"p{number}", address), NOW)
    return inventory


@pytest.mark.parametrize(
    ("pods", "outside"),
    [
        ((), 0),
        (("10.1.0.1", "10.1.0.7", "fd01::5"), 0),  # the first is a node's leg elsewhere
        (("10.1.0.7", "10.1.1.7", "fd02::5"), 2),
    ],
)
def test_addresses_that_no_range_has(pods: tuple[str, ...], outside: int) -> None:
    ranges = Ranges(cluster(*pods), REMEDY)
    assert ranges.outside() == outside
    assert bool(ranges.problem()) == bool(outside)


def test_before_any_node_is_known_there_is_nothing_to_report() -> None:
    inventory = Inventory()
    inventory.upsert(pod("early", "172.30.1.1"), NOW)
    assert Ranges(inventory, REMEDY).problem() == ""


def test_networks_that_are_configured_count_as_well() -> None:
    inventory = cluster("172.30.1.1")
    ranges = Ranges(inventory, REMEDY)
    expected = (
        "1 of 1 Pod addresses, one being 172.30.1.1, are outside of every node's spec.podCIDRs: "
        "so it is"
    )
    assert ranges.problem() == expected
    inventory.set_pod_networks([ip_network("172.30.0.0/16")])
    assert ranges.problem() == ""


def test_it_is_logged_when_it_begins_and_when_it_doubles(caplog: pytest.LogCaptureFixture) -> None:
    inventory = cluster("10.1.0.7")
    ranges = Ranges(inventory, REMEDY)
    counts = []
    for number in range(8):
        ranges.look()
        counts.append(len(caplog.records))
        inventory.upsert(pod(f"more{number}", f"172.30.1.{number}"), NOW)
    assert counts == [0, 1, 1, 2, 2, 2, 2, 3]
    assert caplog.records[-1].levelname == "WARNING"
