from ipaddress import ip_address, ip_network

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flowvis.batch import address_bytes
from flowvis.policies.model import AddressBlock
from flowvis.policies.networks import Blocks


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
