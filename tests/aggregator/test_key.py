from typing import Any

import numpy as np
import pytest

from flowvis.aggregator.correlation.key import KEY_SIZE, correlation_keys, reversed_sides, sides
from flowvis.fields import FlowType, RuleAction
from flowvis.native import StringTable
from flowvis.native.contract.merge import Sides

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, exported

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
def test_what_a_record_is(record: dict[str, Any], bits: int) -> None:
    assert sides(exported(StringTable(), record)).tolist() == [bits]


def of_key(*rows: dict[str, Any]) -> tuple[list[bytes], list[bool]]:
    batch = exported(StringTable(), *rows)
    found, turned = correlation_keys(batch, sides(batch))
    return [key.tobytes() for key in found], turned.tolist()


def test_both_halves_have_one_key() -> None:
    (source, destination, client, other), _ = of_key(
        SOURCE_HALF, DESTINATION_HALF, CLIENT, {"protocolIdentifier": 17}
    )
    assert len(source) == KEY_SIZE
    assert source == destination == client != other


def test_a_nodes_port_has_the_key_of_what_was_called() -> None:
    """The client's node knows the port of the other node, which knows what stands behind it."""
    called = {"destinationIP": "192.0.2.2", "destinationTransportPort": 30080}
    masqueraded = {"sourceIP": "192.0.2.1", "sourceTransportPort": 6000}
    found, _ = of_key(
        SOURCE_HALF | called,
        DESTINATION_HALF | NODE_PORT,
        SOURCE_HALF | called | MASQUERADED,
        DESTINATION_HALF | NODE_PORT | masqueraded,
    )
    assert found[0] == found[1] != found[2] == found[3]


def test_either_direction_has_one_key() -> None:
    there = {"sourceTransportPort": 7946, "destinationTransportPort": 7947}
    back = {
        "sourceIP": "10.0.1.1",
        "destinationIP": "10.0.0.1",
        "sourceTransportPort": 7947,
        "destinationTransportPort": 7946,
    }
    (one, other), turned = of_key(there, back)
    assert one == other
    assert turned == [False, True]
    # Whichever address is the smaller one, the port goes with it.
    swapped = {"sourceTransportPort": 7946, "destinationTransportPort": 7947}
    assert of_key(back | swapped)[0][0] != one


@pytest.mark.parametrize(("protocol", "apart"), [(1, True), (58, True), (17, False), (6, False)])
def test_the_flow_id_is_part_of_the_key_where_there_are_no_ports(
    protocol: int, apart: bool
) -> None:
    """Others fill it with numbers that are theirs alone."""
    rows = [{"protocolIdentifier": protocol, "flowId": number} for number in (8 << 24 | 7, 8 << 24)]
    one, other = of_key(*rows)[0]
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
def test_every_part_of_the_5_tuple_counts(change: dict[str, Any]) -> None:
    one, other = of_key(SOURCE_HALF, SOURCE_HALF | change)[0]
    assert one != other


def test_bits_turned_twice_are_as_before() -> None:
    every = np.arange(128, dtype=np.uint8)
    assert (reversed_sides(reversed_sides(every)) == every).all()
    assert (reversed_sides(every) != every).any()
