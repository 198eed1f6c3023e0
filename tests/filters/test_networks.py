"""Names of networks: the longest prefix counts, and an end inside of the cluster has none."""

import random
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import numpy as np
import pytest

from aggregator.records import records
from flowvis.addresses import Network
from flowvis.batch import address_bytes
from flowvis.fields import FIELDS
from flowvis.filters import networks, parse
from flowvis.filters.mask import mask
from flowvis.filters.networks import NetworkNames
from flowvis.filters.seen import seen
from flowvis.filters.sql import condition
from flowvis.filters.vocabulary import lookup

STORED = [field for field in FIELDS if field.stored]


@pytest.fixture
def named() -> Iterator[NetworkNames]:
    """Some networks, within each other and side by side."""
    networks.enforce(
        names := NetworkNames(
            [
                ("corp", [ip_network("198.51.0.0/16"), ip_network("2001:db8::/32")]),
                ("office", [ip_network("198.51.100.0/24")]),
                ("printer", [ip_network("198.51.100.9/32"), ip_network("2001:db8::9/128")]),
                ("internet", [ip_network("0.0.0.0/0")]),
            ]
        )
    )
    yield names
    networks.enforce(NetworkNames())


def _random_networks(rng: random.Random, version: int) -> Iterator[Network]:
    bits = 32 if version == 4 else 128
    for _ in range(40):
        length = rng.choice(
            (0, 1, 8, bits // 2, bits // 2 + 1, bits - 1, bits, rng.randint(0, bits))
        )
        base = rng.getrandbits(3) << (bits - 3) | rng.getrandbits(2)  # so that they overlap
        cls = type(ip_network("0.0.0.0/0" if version == 4 else "::/0"))
        yield cls((base >> (bits - length) << (bits - length), length))


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_prefix_counts(seed: int) -> None:
    rng = random.Random(seed)
    given = [
        (f"n{place}", [network])
        for place, network in enumerate(
            dict.fromkeys([*_random_networks(rng, 4), *_random_networks(rng, 6)])
        )
    ]
    rng.shuffle(given)
    names = NetworkNames(given)
    asked = [ip_address(str(network[rng.choice((0, -1))])) for _, (network,) in given]
    asked += [ip_address(0), ip_address("::"), ip_address("255.1.2.3"), ip_address("ff::1")]
    found = names.find(
        np.frombuffer(b"".join(map(address_bytes, map(str, asked))), np.uint8).reshape(-1, 16)
    )
    for address, number in zip(asked, found.tolist(), strict=True):
        holding = [
            (network.prefixlen, name) for name, (network,) in given
            if network.version == address.version and address in network
        ]  # fmt: skip
        expected = max(holding, default=(0, ""))[1] if address != ip_address("::") else ""
        assert names.names[number] == expected, address


OUTSIDE = {"sourcePodName": "cart-0", "sourceNodeName": "n1", "sourceIP": "198.51.100.1"}
BATCH = [
    OUTSIDE | {"destinationIP": "198.51.100.9"},
    OUTSIDE | {"destinationIP": "198.51.100.10"},
    OUTSIDE | {"destinationIP": "2001:db8::a"},
    {"sourceIP": "2001:db8::9", "destinationIP": "198.51.100.9", "destinationNodeName": "n2"},
    {"sourceIP": "192.0.2.1", "destinationIP": "fd00::1"},
]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("dst.network = printer", [0]),
        ("network = printer", [0, 3]),
        ("network in (office, corp)", [1, 2]),
        ("dst.network ~ '^(off|int)'", [1]),
        ("src.network = i*", [4]),
        ("network is empty", [0, 1, 2, 3, 4]),
        ("dst.network is empty", [3, 4]),
        ("src.network is not empty", [3, 4]),
        ("network != printer", [1, 2, 4]),
        ("network = nobody", []),
    ],
)
def test_what_filters_choose(named: NetworkNames, text: str, chosen: list[int]) -> None:
    batch = records(*BATCH, fields=STORED)
    assert mask(parse(text), batch).nonzero()[0].tolist() == chosen
    assert named


def test_values_and_what_follows_from_a_change(named: NetworkNames) -> None:
    batch = records(*BATCH, fields=STORED)
    about = lookup("dst.network")
    assert seen(about, batch) == {"printer": 1, "office": 1, "corp": 1, "": 2}
    before = condition(parse("dst.network = office"))
    assert before.networks is named
    assert before.columns == ("destinationNetworkNumber",)
    networks.enforce(NetworkNames([("office", [ip_network("fd00::/8")])]))
    assert seen(about, batch) == {"office": 1, "": 4}
    assert before.networks is named
    networks.enforce(NetworkNames())
    assert seen(about, batch) == {"": 5}


def test_what_a_statement_defines(named: NetworkNames) -> None:
    names = [*named.definitions("SELECT destinationNetwork, sourceNetworkBytes")]
    assert [name for name in names if not name.startswith("networkV")] == [
        "destinationNetworkNumber",
        "destinationNetwork",
    ]
    assert [*named.definitions("p0 + destinationNetwork", ["destinationNetworkNumber"])] == [
        "destinationNetwork"
    ]
    assert named.definitions("SELECT sourceIP") == {}
    assert named.longest == {4: 32, 6: 128}
    assert 0 < named.size < 20_000


def test_few_look_ups_for_networks_of_many_lengths() -> None:
    rng = random.Random(1)
    cidrs = [
        ip_network((rng.getrandbits(length) << 32 - length, length))
        for length in range(12, 29)
        for _ in range(60)
    ]
    names = NetworkNames([("all", cidrs)])
    sql = names.definitions("sourceNetworkNumber")["sourceNetworkNumber"]
    assert sql.count("transform(") <= 8
    assert names.size < 2 * len(",".join(map(str, cidrs)))
