"""The lab's inventory, read back through the index that the daemons use."""

from datetime import UTC, datetime

import numpy as np
import pytest

from flowvis.batch import address_bytes
from flowvis.inventory.index import Inventory
from flowvis.lab import inventory
from flowvis.lab.plan import NODES, SERVICES, LabPod, Service, hosts

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def index() -> Inventory:
    index = Inventory()
    for item in inventory.objects(CREATED):
        index.upsert(item, int(CREATED.timestamp() * 1000))
    return index


def column(text: str) -> np.ndarray:
    return np.frombuffer(address_bytes(text), dtype=np.uint8).reshape(1, 16)


def test_nothing_is_passed_over(index: Inventory) -> None:
    namespaces = {pod.namespace for pod in hosts().values()}
    assert len(index) == len(hosts()) + len(SERVICES) + 1 + len(NODES) + 1 + len(namespaces)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("pod", hosts().values(), ids=lambda pod: pod.host)
def test_a_pod_is_found_by_its_address(index: Inventory, pod: LabPod, family: int) -> None:
    at = np.array([int(CREATED.timestamp() * 1000) + 1], dtype=np.uint64)
    found = index.pods.objects[int(index.pods.find(column(pod.addresses[family]), at)[0])]
    assert (found.namespace, found.name, found.node) == (pod.namespace, pod.name, pod.node.name)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_is_found_where_it_is_called(
    index: Inventory, service: Service, family: int
) -> None:
    protocol = np.array([{"tcp": 6, "udp": 17}[service.protocol]], dtype=np.uint8)
    places = [(service.addresses[family], service.port)]
    if service.headless:
        places = []
    if service.balancer:
        places.append((service.balancer_addresses[family], service.port))
    if service.node_port:
        places += [(node.addresses[family], service.node_port) for node in NODES]
    for address, port in places:
        ports = np.array([port], dtype=np.uint16)
        handle = index.services.find(column(address), ports, protocol)[0]
        assert index.services.objects[int(handle)].service == service.full_name
