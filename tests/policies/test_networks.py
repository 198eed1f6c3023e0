from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowvis.batch import address_bytes
from flowvis.policies.model import AddressBlock
from flowvis.policies.networks import Blocks
from policies.cluster import Cluster, Pod, network_policy


def block(cidr: str, *parts: str) -> AddressBlock:
    return AddressBlock(ip_network(cidr), frozenset(map(ip_network, parts)))


def found(blocks: list[AddressBlock], *addresses: str) -> list[set[int]]:
    table = Blocks({some: number for number, some in enumerate(blocks)})
    column = np.frombuffer(b"".join(map(address_bytes, addresses)), dtype=np.uint8)
    return [set(table.sets[place]) for place in table.find(column.reshape(-1, 16)).tolist()]


def test_no_blocks() -> None:
    assert found([], "10.0.0.1", "::") == [set(), set()]


def test_the_ends_of_blocks() -> None:
    some = block("10.0.0.0/30", "10.0.0.1/32", "10.0.0.2/32")
    addresses = [f"10.0.0.{n}" for n in range(5)] + ["9.255.255.255"]
    assert found([some], *addresses) == [{0}, set(), set(), {0}, set(), set()]


def test_families_are_apart() -> None:
    both = [block("0.0.0.0/0"), block("::/0")]
    assert found(both, "0.0.0.0", "255.255.255.255") == [{0}, {0}]
    assert found(both, "::", "::1", "ffff:" * 7 + "ffff", "::fffe:0:1") == [{1}] * 4


cidrs = st.builds(
    lambda base, length: ip_network((base, length), strict=False),
    st.sampled_from(["10.0.0.0", "10.0.0.9", "10.0.1.3", "::", "2001:db8::3", "2001:db8::1:0"]),
    st.integers(24, 32),
)
blocks = st.builds(AddressBlock, cidrs, st.frozensets(cidrs, max_size=3))
places = st.sampled_from(
    ["10.0.0.0", "10.0.0.8", "10.0.0.9", "10.0.1.3", "10.0.2.0", "::", "2001:db8::3", "::1"]
)


@given(st.lists(blocks, unique=True, max_size=5), places)
def test_as_the_standard_library_says(some: list[AddressBlock], place: str) -> None:
    address = ip_address(place)
    expected = {
        number
        for number, one in enumerate(some)
        if address in one.network and not any(address in part for part in one.parts)
    }
    assert found(some, place) == [expected]


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        ("010.020.000.000/16", "10.20.9.9", "10.21.0.1"),
        ("192.0.2.77/25", "192.0.2.3", "192.0.2.200"),
        ("::ffff:198.51.100.0/120", "198.51.100.9", "198.51.101.9"),
        ("203.0.113.9", "203.0.113.9", "203.0.113.8"),
    ],
)
def test_networks_as_api_servers_have_taken_them(cidr: str, inside: str, outside: str) -> None:
    cluster = Cluster([Pod("x", "a", "10.0.0.1")])
    cluster.apply(network_policy("p", ingress=[{"from": [{"ipBlock": {"cidr": cidr}}]}]))
    found = [cluster.one(address, "x/a")["ingress"].action for address in (inside, outside)]
    assert found == [1, 2]


def test_a_node_with_odd_addresses_keeps_the_others() -> None:
    addresses = ["192.000.002.010", "nonsense", "192.0.2.11"]
    node = {
        "kind": "Node",
        "metadata": {
            "name": "node-1",
            "annotations": {"node.antrea.io/transport-addresses": "x, 192.0.2.12"},
        },
        "spec": {"podCIDRs": ["10.244.7.9/24", "10.9.9.9/32", "neither"]},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }
    cluster = Cluster([Pod("x", "a", "10.0.0.1")])
    cluster.apply(node, network_policy("p"))
    own = ["192.0.2.10", "192.0.2.11", "192.0.2.12", "10.244.7.1", "10.9.9.9"]
    others = ["10.244.7.2", "10.9.9.10", "192.0.2.13"]
    found = [cluster.one(address, "x/a")["ingress"].action for address in (*own, *others)]
    assert found == [0, 0, 0, 0, 0, 2, 2, 2]
