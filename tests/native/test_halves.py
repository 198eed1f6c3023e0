"""What a record is, by either leaf."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator.exported import DESTINATION_HALF, INTRA_NODE, PLAIN, SOURCE_HALF, exported
from flowvis.fields import FlowType, RuleAction
from flowvis.ipfix import origin
from flowvis.native import StringTable
from flowvis.native import halves as compiled
from flowvis.native.contract import halves as contract
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.native.contract.merge import Sides
from flowvis.native.reference import halves as reference


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


SOURCE = Sides.CORRELATE | Sides.SOURCE
DESTINATION = Sides.CORRELATE | Sides.DESTINATION
CLIENTS = Sides.BOTH | Sides.SOURCE << Sides.LEANS
SERVERS = Sides.BOTH | Sides.DESTINATION << Sides.LEANS
CLIENT = {
    "flowType": FlowType.FROM_EXTERNAL,
    "sourceIP": "198.51.100.7",
    "sourceTransportPort": 50_000,
    "proxySnatIP": "10.0.0.1",
    "proxySnatPort": 40_000,
}

MASQUERADED = {"proxySnatIP": "192.0.2.1", "proxySnatPort": 6000}
NODE_PORT = {"destinationServiceIP": "192.0.2.2", "destinationServicePort": 30080}

RELAYED = {
    **SOURCE_HALF,
    **DESTINATION_HALF,
    "destinationServicePort": 0,
    "originalObservationDomainId": 7,
}
"""Whosever half it is: an aggregator has named what its exporter did not know."""


@pytest.mark.parametrize(
    ("record", "bits"),
    [
        (SOURCE_HALF, SOURCE),
        (DESTINATION_HALF, DESTINATION),
        (INTRA_NODE, Sides.BOTH),
        (CLIENT, SOURCE | Sides.CLIENT),
        (CLIENT | {"destinationPodName": "server"}, SERVERS),
        (CLIENT | {"destinationPodName": "server"} | NODE_PORT, SERVERS | Sides.SERVER),
        (CLIENT | {"proxySnatIP": "0.0.0.0"}, Sides.BOTH),
        (CLIENT | {"proxySnatIP": "::"}, Sides.BOTH),
        (CLIENT | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE | Sides.CLIENT),
        (CLIENT | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, Sides.BOTH | Sides.CLIENT),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.DROP}, CLIENTS),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, CLIENTS),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, DESTINATION),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, DESTINATION),
        (SOURCE_HALF | {"flowType": FlowType.TO_EXTERNAL}, CLIENTS),
        (SOURCE_HALF | {"flowType": FlowType.TO_EXTERNAL} | MASQUERADED, CLIENTS | Sides.CLIENT),
        (SOURCE_HALF | NODE_PORT, SOURCE),
        (DESTINATION_HALF | NODE_PORT, DESTINATION | Sides.SERVER),
        (DESTINATION_HALF | NODE_PORT | {"destinationServiceIP": "::"}, DESTINATION),
        (SOURCE_HALF | DESTINATION_HALF | NODE_PORT, Sides.BOTH),
        (SOURCE_HALF | MASQUERADED, SOURCE | Sides.CLIENT),
        (DESTINATION_HALF | MASQUERADED, DESTINATION),
        (SOURCE_HALF | DESTINATION_HALF | MASQUERADED, Sides.BOTH),
        (SOURCE_HALF | {"proxySnatPort": 6000}, SOURCE),
        (
            SOURCE_HALF | {"protocolIdentifier": 1, "proxySnatIP": "192.0.2.1"},
            SOURCE | Sides.CLIENT,
        ),
        (SOURCE_HALF | DESTINATION_HALF, Sides.BOTH),
        (RELAYED | {"flowDirection": 1}, SOURCE),
        (RELAYED | {"flowDirection": 0}, DESTINATION),
        (RELAYED | {"flowDirection": 255}, Sides.BOTH),
        (RELAYED | {"flowDirection": 1, "originalObservationDomainId": 0}, Sides.BOTH),
        (RELAYED | {"flowDirection": 1} | MASQUERADED, SOURCE | Sides.CLIENT),
        (RELAYED | {"flowDirection": 0} | NODE_PORT, DESTINATION | Sides.SERVER),
        (RELAYED | {"flowDirection": 1} | NODE_PORT, SOURCE),
        (
            RELAYED | {"flowDirection": 1, "egressNetworkPolicyRuleAction": RuleAction.DROP},
            CLIENTS,
        ),
        (
            RELAYED | {"flowDirection": 1, "protocolIdentifier": 1, "proxySnatIP": "192.0.2.1"},
            SOURCE | Sides.CLIENT,
        ),
        ({"flowType": FlowType.INTER_NODE}, Sides.BOTH),
    ],
)
def test_what_a_record_is(leaf: ModuleType, record: dict[str, Any], bits: int) -> None:
    assert leaf.sides(exported(StringTable(), record).columns).tolist() == [bits]


def of_key(leaf: ModuleType, *rows: dict[str, Any]) -> tuple[list[bytes], list[bool]]:
    columns = exported(StringTable(), *rows).columns
    found, turned = leaf.correlation_keys(columns, leaf.sides(columns))
    return [key.tobytes() for key in found], turned.tolist()


def test_both_halves_have_one_key(leaf: ModuleType) -> None:
    (source, destination, client, other), _ = of_key(
        leaf, SOURCE_HALF, DESTINATION_HALF, CLIENT, {"protocolIdentifier": 17}
    )
    assert len(source) == KEY_SIZE
    assert source == destination == client != other


def test_a_nodes_port_has_the_key_of_what_was_called(leaf: ModuleType) -> None:
    """The client's node knows the port of the other node, which knows what stands behind it."""
    called = {"destinationIP": "192.0.2.2", "destinationTransportPort": 30080}
    masqueraded = {"sourceIP": "192.0.2.1", "sourceTransportPort": 6000}
    found, _ = of_key(
        leaf,
        SOURCE_HALF | called,
        DESTINATION_HALF | NODE_PORT,
        SOURCE_HALF | called | MASQUERADED,
        DESTINATION_HALF | NODE_PORT | masqueraded,
    )
    assert found[0] == found[1] != found[2] == found[3]


def test_either_direction_has_one_key(leaf: ModuleType) -> None:
    there = {"sourceTransportPort": 7946, "destinationTransportPort": 7947}
    back = {
        "sourceIP": "10.0.1.1",
        "destinationIP": "10.0.0.1",
        "sourceTransportPort": 7947,
        "destinationTransportPort": 7946,
    }
    (one, other), turned = of_key(leaf, there, back)
    assert one == other
    assert turned == [False, True]
    # Whichever address is the smaller one, the port goes with it.
    swapped = {"sourceTransportPort": 7946, "destinationTransportPort": 7947}
    assert of_key(leaf, back | swapped)[0][0] != one


@pytest.mark.parametrize(("protocol", "apart"), [(1, True), (58, True), (17, False), (6, False)])
def test_the_flow_id_is_part_of_the_key_where_there_are_no_ports(
    leaf: ModuleType, protocol: int, apart: bool
) -> None:
    """Others fill it with numbers that are theirs alone."""
    rows = [{"protocolIdentifier": protocol, "flowId": number} for number in (8 << 24 | 7, 8 << 24)]
    one, other = of_key(leaf, *rows)[0]
    assert (one != other) is apart


@pytest.mark.parametrize(
    "change",
    [
        {"sourceIP": "10.0.0.2"},
        {"sourceIP": "::10.0.0.1"},
        {"destinationIP": "10.0.1.2"},
        {"sourceTransportPort": 40_001},
        {"destinationTransportPort": 81},
        {"protocolIdentifier": 132},
    ],
)
def test_every_part_of_the_5_tuple_counts(leaf: ModuleType, change: dict[str, Any]) -> None:
    one, other = of_key(leaf, SOURCE_HALF, SOURCE_HALF | change)[0]
    assert one != other


def test_the_columns_of_other_aggregators_have_the_names_of_the_contract() -> None:
    assert set(contract.RELAYED) == {origin.ORIGINAL_DOMAIN, origin.DIRECTION}


addresses = st.sampled_from(
    ["::", "0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.0", "fd00::1", "::1", "::ffff:0:0:1", "ff::"]
)
ports = st.sampled_from([0, 1, 80, 255, 256, 40_000])
names = st.sampled_from(["", "", "a"])
any_record = st.fixed_dictionaries(
    {
        "flowType": st.sampled_from([0, 1, 2, 2, 2, 3, 4, 4, 255]),
        "protocolIdentifier": st.sampled_from([6, 17, 1, 58]),
        "flowId": st.sampled_from([0, 7, 1 << 31, 3 << 40 | 5, (1 << 64) - 1]),
        "sourceIP": addresses,
        "destinationIP": addresses,
        "proxySnatIP": addresses,
        "destinationServiceIP": addresses,
        "sourceTransportPort": ports,
        "destinationTransportPort": ports,
        "proxySnatPort": ports,
        "destinationServicePort": ports,
        "sourcePodName": names,
        "sourceNodeName": names,
        "destinationPodName": names,
        "destinationNodeName": names,
        "egressNetworkPolicyRuleAction": st.sampled_from([0, 0, 1, 2, 3, 5]),
    },
    optional={
        "originalObservationDomainId": st.sampled_from([0, 7]),
        "flowDirection": st.sampled_from([0, 1, 255]),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_record, max_size=6), st.booleans())
def test_compiled_and_reference_agree(rows: list[dict[str, Any]], strided: bool) -> None:
    batch = exported(StringTable(), *rows)
    columns = batch.take(slice(None, None, 2)).columns if strided else batch.columns
    bits = reference.sides(columns)
    assert compiled.sides(columns).tolist() == bits.tolist()
    for flipped in (0, Sides.CLIENT, Sides.SERVER):
        given_bits = np.bitwise_xor(bits, np.uint8(flipped))
        expected, turned = reference.correlation_keys(columns, given_bits)
        keys, compiled_turned = compiled.correlation_keys(columns, given_bits)
        assert keys.tobytes() == expected.tobytes()
        assert keys.shape == expected.shape
        assert compiled_turned.tolist() == turned.tolist()
        for way in (turned, ~turned):
            made = reference.made_of(columns, expected, way)
            assert compiled.made_of(columns, expected, way).tolist() == made.tolist()


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=18, max_size=18), st.integers(0, 18))
def test_endpoints_come_in_order(one: bytes, at: int) -> None:
    """Also where they differ in one byte only, wherever that is, and where they are the same."""
    other = bytearray(one)
    if at < 18:
        other[at] ^= 1 + at
    columns = exported(StringTable(), {}).columns
    for side, endpoint in (("source", one), ("destination", bytes(other))):
        columns[f"{side}IP"] = np.frombuffer(endpoint[:16], np.uint8).reshape(1, 16)
        columns[f"{side}TransportPort"] = np.frombuffer(endpoint[16:], np.uint16)
    small, large = sorted((one, bytes(other)))
    for leaf in (reference, compiled):
        keys = np.frombuffer(bytearray(one + other + b"tail"), np.uint8).reshape(1, 40)
        assert leaf.order_endpoints(keys).tolist() == [one > bytes(other)]
        assert keys.tobytes() == small + large + b"tail"
        (key,), turned = leaf.correlation_keys(columns, np.zeros(1, np.uint8))
        assert key.tobytes()[:36] == small + large
        assert turned.tolist() == [one > bytes(other)]


@pytest.mark.parametrize(
    "change",
    [
        {"flowType": np.zeros(1, np.uint8)},
        {"sourceTransportPort": np.zeros(2, np.uint32)},
        {"sourceIP": np.zeros((2, 4), np.uint8)},
        {"sourceIP": np.zeros((2, 32), np.uint8)[:, ::2]},
        {"flowDirection": np.zeros(3, np.uint8)},
    ],
    ids=["short", "wide", "address", "spread", "relayed"],
)
def test_columns_that_do_not_fit_are_refused(leaf: ModuleType, change: dict[str, Any]) -> None:
    columns = exported(StringTable(), {"flowDirection": 1}, {}).columns | change
    with pytest.raises(ValueError, match="need"):
        leaf.correlation_keys(columns, leaf.sides(columns))


def test_a_missing_column_is_named(leaf: ModuleType) -> None:
    columns = exported(StringTable(), {}).columns
    del columns["proxySnatIP"]
    with pytest.raises(KeyError, match="proxySnatIP"):
        leaf.sides(columns)


@pytest.mark.parametrize("bits", [np.zeros(1, np.uint8), np.zeros(2, np.uint16)])
def test_bits_of_other_records_are_refused(leaf: ModuleType, bits: Any) -> None:
    columns = exported(StringTable(), {}, {}).columns
    with pytest.raises(ValueError, match="bits"):
        leaf.correlation_keys(columns, bits)


@pytest.mark.parametrize(
    "keys",
    [
        np.zeros((2, 35), np.uint8),
        np.zeros(36, np.uint8),
        np.zeros((2, 40), np.uint16),
        np.zeros((2, 80), np.uint8)[:, ::2],
        np.frombuffer(bytes(80), np.uint8).reshape(2, 40),
    ],
    ids=["short", "one", "wide", "strided", "read-only"],
)
def test_keys_that_cannot_be_put_in_order_are_refused(
    leaf: ModuleType, keys: NDArray[np.uint8]
) -> None:
    with pytest.raises(ValueError, match="keys"):
        leaf.order_endpoints(keys)


@pytest.mark.parametrize(
    ("record", "sides", "made"),
    [
        (SOURCE_HALF, 0, 0),
        (SOURCE_HALF | MASQUERADED, 0, 0),
        (SOURCE_HALF | MASQUERADED, Sides.CLIENT, Sides.CLIENT),
        (DESTINATION_HALF | NODE_PORT, Sides.SERVER, Sides.SERVER),
        (
            DESTINATION_HALF | NODE_PORT | MASQUERADED,
            Sides.CLIENT | Sides.SERVER,
            Sides.CLIENT | Sides.SERVER,
        ),
        (DESTINATION_HALF | NODE_PORT | MASQUERADED, Sides.SERVER, Sides.SERVER),
    ],
)
@pytest.mark.parametrize("reversed_", [False, True])
def test_what_a_key_was_made_of(
    leaf: ModuleType, record: dict[str, Any], sides: int, made: int, reversed_: bool
) -> None:
    """And what it no longer is, once the record has other endpoints."""
    ends = {"sourceIP": "192.0.2.9", "destinationIP": "10.0.0.9"} if reversed_ else {}
    columns = exported(StringTable(), PLAIN | record | ends).columns
    keys, turned = leaf.correlation_keys(columns, np.full(1, sides, np.uint8))
    assert leaf.made_of(columns, keys, turned).tolist() == [made]
    if made:
        other = exported(StringTable(), PLAIN | record | {"proxySnatPort": 9} | ends).columns
        other["destinationServicePort"] = np.full(1, 9, np.uint16)
        other["sourceTransportPort"] = other["destinationTransportPort"] = other["proxySnatPort"]
        assert leaf.made_of(other, keys, turned)[0] & contract.NEITHER


def test_keys_of_other_records_are_refused(leaf: ModuleType) -> None:
    columns = exported(StringTable(), {}, {}).columns
    keys, turned = leaf.correlation_keys(columns, np.zeros(2, np.uint8))
    for wrong in ((keys[:1], turned[:1]), (keys[:, :40], turned), (keys, turned[:1])):
        with pytest.raises(ValueError, match="need"):
            leaf.made_of(columns, *wrong)
