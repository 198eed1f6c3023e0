"""The fields table: templates by name, kinds, and what is derived from a row."""

import subprocess
import sys

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
    Field,
    Kind,
    Merge,
    Side,
    Source,
    provides,
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
    ours = ["flowStartMilliseconds", "flowEndMilliseconds", "flowId", f"icmpTypeCodeIPv{version}"]
    assert names == [*antrea, *ours]
    assert [field.exported for field in EXPORTED] == list(range(1, 48))


@pytest.mark.parametrize("version", [4, 6])
def test_aggregated_records_template(version: int) -> None:
    names = [field.element(version) for field in AGGREGATED]
    tail = [f"{stem}IPv{version}" for stem in ("proxySnat", "destinationCluster")]
    assert names == [
        *common(version),
        *tail,
        f"destinationServiceIPv{version}",
        *PER_NODE.split(),
        f"icmpTypeCodeIPv{version}",
    ]
    assert [field.aggregated for field in AGGREGATED] == list(range(1, 72))


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
    assert [kind.dtype.itemsize for kind in Kind] == [1, 2, 4, 8, 4, 8, 1, 1, 4]
    assert Kind.ADDRESS.shape == Kind.UUID.shape == (16,)
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


def test_a_row_needs_a_source() -> None:
    with pytest.raises(TypeError, match="doc"):
        Field("someField", Kind.U8, Merge.FILL, "A field that nobody gives a value")  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("source", sorted({field.source for field in FIELDS}, key=str))
def test_a_field_that_nobody_gives_a_value_is_an_error(source: Source) -> None:
    names = {field.name for field in FIELDS if field.source is source}
    provides(source, names)
    missing = min(names)
    with pytest.raises(TypeError, match=rf"without a value \['{missing}'\]"):
        provides(source, names - {missing})
    other = next(field.name for field in FIELDS if field.source is not source)
    with pytest.raises(TypeError, match=rf"without a row \['{other}'\]"):
        provides(source, names | {other})


ROOMS = {
    Source.TUPLES: "flowvis.exporter.tables.tuples",
    Source.COUNTERS: "flowvis.exporter.tables.rows",
    Source.NODE: "flowvis.exporter.tables.enrich",
    Source.TABLE: "flowvis.exporter.tables.rows",
    Source.RECORD: "flowvis.exporter.tables.rows",
    Source.VERDICT: "flowvis.exporter.tables.denied",
    Source.FLOW: "flowvis.aggregator.correlation.flows",
    Source.ENRICHMENT: "flowvis.aggregator.enrichment.complete",
}


def test_every_source_of_a_field_has_a_room() -> None:
    assert ROOMS.keys() == {field.source for field in FIELDS}


@pytest.mark.parametrize(("source", "module"), ROOMS.items(), ids=str)
def test_each_source_says_at_import_what_it_gives(source: Source, module: str) -> None:
    """With one row more, the room of its source cannot be imported."""
    code = f"""
import dataclasses, flowvis.fields as f
row = next(x for x in f.FIELDS if x.source is f.Source.{source.name})
f.FIELDS += (dataclasses.replace(row, name="one more", merge=f.Merge.ADDED, exported=None),)
import {module}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "without a value ['one more']" in result.stderr, result.stderr
