from typing import Any

import pytest

from flowvis.aggregator.correlation.key import KEY_SIZE, correlation_keys, sides
from flowvis.fields import FlowType, RuleAction
from flowvis.native import StringTable
from flowvis.native.contract.merge import Sides

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, exported

SOURCE = Sides.CORRELATE | Sides.SOURCE
DESTINATION = Sides.CORRELATE | Sides.DESTINATION
CLIENT = {
    "flowType": FlowType.FROM_EXTERNAL,
    "sourceIP": "198.51.100.7",
    "sourceTransportPort": 50_000,
    "proxySnatIP": "10.0.0.1",
    "proxySnatPort": 40_000,
}

MASQUERADED = {"proxySnatIP": "192.0.2.1", "proxySnatPort": 6000}


@pytest.mark.parametrize(
    ("record", "bits"),
    [
        (SOURCE_HALF, SOURCE),
        (DESTINATION_HALF, DESTINATION),
        (INTRA_NODE, Sides.BOTH),
        (CLIENT, SOURCE | Sides.CLIENT),
        (CLIENT | {"destinationPodName": "server"}, Sides.BOTH),
        (CLIENT | {"proxySnatIP": "0.0.0.0"}, Sides.BOTH),
        (CLIENT | {"proxySnatIP": "::"}, Sides.BOTH),
        (CLIENT | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE | Sides.CLIENT),
        (CLIENT | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, Sides.BOTH | Sides.CLIENT),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.DROP}, Sides.BOTH),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, Sides.BOTH),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, DESTINATION),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, DESTINATION),
        (SOURCE_HALF | {"flowType": FlowType.TO_EXTERNAL}, Sides.BOTH),
        (SOURCE_HALF | MASQUERADED, SOURCE | Sides.CLIENT),
        (DESTINATION_HALF | MASQUERADED, DESTINATION),
        (SOURCE_HALF | DESTINATION_HALF | MASQUERADED, Sides.BOTH),
        (SOURCE_HALF | {"proxySnatPort": 6000}, SOURCE),
        (SOURCE_HALF | DESTINATION_HALF, Sides.BOTH),
        ({"flowType": FlowType.INTER_NODE}, Sides.BOTH),
    ],
)
def test_what_a_record_is(record: dict[str, Any], bits: int) -> None:
    assert sides(exported(StringTable(), record)).tolist() == [bits]


def test_both_halves_have_one_key() -> None:
    batch = exported(
        StringTable(), SOURCE_HALF, DESTINATION_HALF, CLIENT, {"protocolIdentifier": 17}
    )
    source, destination, client, other = correlation_keys(batch, sides(batch))
    assert len(source) == KEY_SIZE
    assert source.tobytes() == destination.tobytes() == client.tobytes()
    assert other.tobytes() != source.tobytes()
    assert batch["sourceTransportPort"].tolist() == [40_000, 40_000, 50_000, 40_000]


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
    batch = exported(StringTable(), SOURCE_HALF, SOURCE_HALF | change)
    one, other = correlation_keys(batch, sides(batch))
    assert one.tobytes() != other.tobytes()
