from typing import Any

import pytest

from flowvis.aggregator.halves import KEY_SIZE, halves, keys
from flowvis.fields import FlowType, RuleAction
from flowvis.native.merge_reference import Half
from flowvis.strings import StringTable

from .exported import DESTINATION_HALF, INTRA_NODE, SOURCE_HALF, exported

SOURCE = Half.CORRELATE | Half.SOURCE
DESTINATION = Half.CORRELATE | Half.DESTINATION
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
        (INTRA_NODE, Half.BOTH),
        (CLIENT, SOURCE | Half.CLIENT),
        (CLIENT | {"destinationPodName": "server"}, Half.BOTH),
        (CLIENT | {"proxySnatIP": "0.0.0.0"}, Half.BOTH),
        (CLIENT | {"proxySnatIP": "::"}, Half.BOTH),
        (CLIENT | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE | Half.CLIENT),
        (CLIENT | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, Half.BOTH | Half.CLIENT),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.DROP}, Half.BOTH),
        (SOURCE_HALF | {"egressNetworkPolicyRuleAction": RuleAction.REJECT}, Half.BOTH),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.REJECT}, DESTINATION),
        (SOURCE_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, SOURCE),
        (DESTINATION_HALF | {"ingressNetworkPolicyRuleAction": RuleAction.DROP}, DESTINATION),
        (SOURCE_HALF | {"flowType": FlowType.TO_EXTERNAL}, Half.BOTH),
        (SOURCE_HALF | MASQUERADED, SOURCE | Half.CLIENT),
        (DESTINATION_HALF | MASQUERADED, DESTINATION),
        (SOURCE_HALF | DESTINATION_HALF | MASQUERADED, Half.BOTH),
        (SOURCE_HALF | {"proxySnatPort": 6000}, SOURCE),
        (SOURCE_HALF | DESTINATION_HALF, Half.BOTH),
        ({"flowType": FlowType.INTER_NODE}, Half.BOTH),
    ],
)
def test_what_a_record_is(record: dict[str, Any], bits: int) -> None:
    assert halves(exported(StringTable(), record)).tolist() == [bits]


def test_both_halves_have_one_key() -> None:
    batch = exported(
        StringTable(), SOURCE_HALF, DESTINATION_HALF, CLIENT, {"protocolIdentifier": 17}
    )
    source, destination, client, other = keys(batch, halves(batch))
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
    one, other = keys(batch, halves(batch))
    assert one.tobytes() != other.tobytes()
