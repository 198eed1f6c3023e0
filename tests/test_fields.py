"""The fields table: templates by name, kinds, and what is derived from a row."""

import numpy as np
import pytest

from flowvis.elements import REGISTRY, DataType
from flowvis.fields import (
    AGGREGATED,
    ANTREA_EXPORTED,
    BY_NAME,
    EXPORTED,
    FIELDS,
    TEXT_FIELDS,
    Kind,
    Merge,
    Side,
)

COMMON = """
flowStartSeconds flowEndSeconds flowEndReason sourceTransportPort destinationTransportPort
protocolIdentifier packetTotalCount octetTotalCount packetDeltaCount octetDeltaCount
{source} {destination} reversePacketTotalCount reverseOctetTotalCount
reversePacketDeltaCount reverseOctetDeltaCount sourcePodName sourcePodNamespace sourceNodeName
destinationPodName destinationPodNamespace destinationNodeName destinationServicePort
destinationServicePortName ingressNetworkPolicyName ingressNetworkPolicyNamespace
ingressNetworkPolicyType ingressNetworkPolicyRuleName ingressNetworkPolicyRuleAction
egressNetworkPolicyName egressNetworkPolicyNamespace egressNetworkPolicyType
egressNetworkPolicyRuleName egressNetworkPolicyRuleAction tcpState flowType egressName egressIP
egressNodeName proxySnatPort
"""

PER_NODE = """
octetDeltaCountFromSourceNode octetDeltaCountFromDestinationNode octetTotalCountFromSourceNode
octetTotalCountFromDestinationNode packetDeltaCountFromSourceNode
packetDeltaCountFromDestinationNode packetTotalCountFromSourceNode
packetTotalCountFromDestinationNode reverseOctetDeltaCountFromSourceNode
reverseOctetDeltaCountFromDestinationNode reverseOctetTotalCountFromSourceNode
reverseOctetTotalCountFromDestinationNode reversePacketDeltaCountFromSourceNode
reversePacketDeltaCountFromDestinationNode reversePacketTotalCountFromSourceNode
reversePacketTotalCountFromDestinationNode flowEndSecondsFromSourceNode
flowEndSecondsFromDestinationNode throughput throughputFromSourceNode
throughputFromDestinationNode reverseThroughput reverseThroughputFromSourceNode
reverseThroughputFromDestinationNode sourcePodLabels destinationPodLabels clusterId
"""


def common(version: int) -> list[str]:
    return COMMON.format(
        source=f"sourceIPv{version}Address", destination=f"destinationIPv{version}Address"
    ).split()


@pytest.mark.parametrize("version", [4, 6])
def test_exporters_template(version: int) -> None:
    names = [field.element(version) for field in EXPORTED]
    tail = [f"{stem}IPv{version}" for stem in ("destinationCluster", "proxySnat")]
    antrea = [*common(version), *tail, f"destinationServiceIPv{version}"]
    assert len(antrea) == ANTREA_EXPORTED == 43
    assert names == [*antrea, "flowStartMilliseconds", "flowEndMilliseconds", "flowId"]
    assert [field.exported for field in EXPORTED] == list(range(1, 47))


@pytest.mark.parametrize("version", [4, 6])
def test_aggregated_records_template(version: int) -> None:
    names = [field.element(version) for field in AGGREGATED]
    tail = [f"{stem}IPv{version}" for stem in ("proxySnat", "destinationCluster")]
    assert names == [
        *common(version),
        *tail,
        f"destinationServiceIPv{version}",
        *PER_NODE.split(),
    ]
    assert [field.aggregated for field in AGGREGATED] == list(range(1, 71))


KINDS = {
    Kind.U8: {DataType.UNSIGNED8},
    Kind.U16: {DataType.UNSIGNED16},
    Kind.U32: {DataType.UNSIGNED32},
    Kind.U64: {DataType.UNSIGNED64},
    Kind.SECONDS: {DataType.DATE_TIME_SECONDS},
    Kind.MILLISECONDS: {DataType.DATE_TIME_MILLISECONDS},
    Kind.ADDRESS: {DataType.IPV4_ADDRESS, DataType.IPV6_ADDRESS},
    Kind.TEXT: {DataType.STRING},
}


def test_a_fields_kind_is_its_elements_type() -> None:
    for field in EXPORTED + AGGREGATED:
        assert {REGISTRY.named(name).type for name in field.elements} == KINDS[field.kind]


def test_kinds_have_the_size_of_their_values() -> None:
    assert [kind.dtype.itemsize for kind in Kind] == [1, 2, 4, 8, 4, 8, 1, 4]
    assert Kind.ADDRESS.shape == (16,)
    assert np.zeros((3, *Kind.TEXT.shape), Kind.TEXT.dtype).shape == (3,)


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(FIELDS)
    assert set(TEXT_FIELDS) == {f.name for f in FIELDS if f.kind is Kind.TEXT}


def test_deltas_and_rates_name_a_total_of_their_own_side() -> None:
    for field in FIELDS:
        assert (field.counter is not None) == (field.merge in {Merge.DELTA, Merge.RATE})
        if field.counter is not None:
            total = BY_NAME[field.counter]
            assert total.merge is Merge.TOTAL
            assert total.side is field.side
            assert total.name.startswith("reverse") == field.name.startswith("reverse")


def test_the_side_is_in_the_name() -> None:
    for field in FIELDS:
        for side in (Side.SOURCE, Side.DESTINATION):
            suffix = f"From{side.value.capitalize()}Node"
            assert field.name.endswith(suffix) == (field.side is side)
