"""The registries: numbers, names and types of the information elements."""

import csv
from importlib import resources

import pytest

from flowvis.elements import ANTREA, IANA, NOT_REVERSIBLE, REGISTRY, REVERSE, DataType
from flowvis.fields import FIELDS

# Antrea's registry, ids 100 to 172 in order.
ANTREA_NAMES = """
sourcePodNamespace sourcePodName destinationPodNamespace destinationPodName sourceNodeName
destinationNodeName destinationClusterIPv4 destinationClusterIPv6 destinationServicePort
destinationServicePortName ingressNetworkPolicyName ingressNetworkPolicyNamespace
egressNetworkPolicyName egressNetworkPolicyNamespace ingressNetworkPolicyUID
ingressNetworkPolicyType ingressNetworkPolicyRulePriority egressNetworkPolicyUID
egressNetworkPolicyType egressNetworkPolicyRulePriority packetTotalCountFromSourceNode
octetTotalCountFromSourceNode packetDeltaCountFromSourceNode octetDeltaCountFromSourceNode
reversePacketTotalCountFromSourceNode reverseOctetTotalCountFromSourceNode
reversePacketDeltaCountFromSourceNode reverseOctetDeltaCountFromSourceNode
packetTotalCountFromDestinationNode octetTotalCountFromDestinationNode
packetDeltaCountFromDestinationNode octetDeltaCountFromDestinationNode
reversePacketTotalCountFromDestinationNode reverseOctetTotalCountFromDestinationNode
reversePacketDeltaCountFromDestinationNode reverseOctetDeltaCountFromDestinationNode
tcpState flowType tcpStatePrevList ingressNetworkPolicyRuleAction egressNetworkPolicyRuleAction
ingressNetworkPolicyRuleName egressNetworkPolicyRuleName sourcePodLabels destinationPodLabels
throughput reverseThroughput throughputFromSourceNode throughputFromDestinationNode
reverseThroughputFromSourceNode reverseThroughputFromDestinationNode flowEndSecondsFromSourceNode
flowEndSecondsFromDestinationNode egressName egressIP appProtocolName httpVals egressNodeName
clusterId sourcePodUUID destinationPodUUID sourceNodeUUID destinationNodeUUID
destinationServiceUUID ingressNetworkPolicyUUID egressNetworkPolicyUUID egressUUID egressNodeUUID
destinationServiceIPv4 destinationServiceIPv6 proxySnatIPv4 proxySnatIPv6 proxySnatPort
"""

# Numbers that the IANA range leaves free: for NetFlow version 9, or withdrawn.
IANA_UNUSED = {*range(65, 70), 97, *range(105, 128), 416, 419}


def test_antrea_registry_is_complete() -> None:
    names = ANTREA_NAMES.split()
    assert len(names) == 73
    for number, name in enumerate(names, start=100):
        element = REGISTRY.find(ANTREA, number)
        assert element is not None
        assert (element.name, element.enterprise, element.id) == (name, 56506, number)
        assert REGISTRY.named(name) is element
    assert REGISTRY.find(ANTREA, 99) is None
    assert REGISTRY.find(ANTREA, 173) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sourcePodName", DataType.STRING),
        ("destinationClusterIPv4", DataType.IPV4_ADDRESS),
        ("proxySnatIPv6", DataType.IPV6_ADDRESS),
        ("ingressNetworkPolicyRulePriority", DataType.SIGNED32),
        ("flowType", DataType.UNSIGNED8),
        ("proxySnatPort", DataType.UNSIGNED16),
        ("throughput", DataType.UNSIGNED64),
        ("flowEndSecondsFromSourceNode", DataType.DATE_TIME_SECONDS),
        ("sourcePodUUID", DataType.OCTET_ARRAY),
    ],
)
def test_antrea_types(name: str, kind: DataType) -> None:
    assert REGISTRY.named(name).type is kind


def test_a_former_enterprise_number_is_antreas() -> None:
    for number in range(100, 173):
        assert REGISTRY.find(56505, number) is REGISTRY.find(ANTREA, number)


def test_the_numbers_of_2020() -> None:
    """go-ipfix 0.2.2, pkg/registry/registry_antrea.csv: without destinationClusterIPv6."""
    found = [REGISTRY.find(55829, number) for number in range(99, 115)]
    assert [element and element.name for element in found] == [
        None,
        "sourcePodNamespace",
        "sourcePodName",
        "destinationPodNamespace",
        "destinationPodName",
        "sourceNodeName",
        "destinationNodeName",
        "destinationClusterIPv4",
        "destinationServicePort",
        "destinationServicePortName",
        "ingressNetworkPolicyName",
        "ingressNetworkPolicyNamespace",
        "egressNetworkPolicyName",
        "egressNetworkPolicyNamespace",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("number", "name", "kind"),
    [
        (1, "octetDeltaCount", DataType.UNSIGNED64),
        (4, "protocolIdentifier", DataType.UNSIGNED8),
        (8, "sourceIPv4Address", DataType.IPV4_ADDRESS),
        (28, "destinationIPv6Address", DataType.IPV6_ADDRESS),
        (56, "sourceMacAddress", DataType.MAC_ADDRESS),
        (86, "packetTotalCount", DataType.UNSIGNED64),
        (136, "flowEndReason", DataType.UNSIGNED8),
        (148, "flowId", DataType.UNSIGNED64),
        (150, "flowStartSeconds", DataType.DATE_TIME_SECONDS),
        (153, "flowEndMilliseconds", DataType.DATE_TIME_MILLISECONDS),
        (225, "postNATSourceIPv4Address", DataType.IPV4_ADDRESS),
        (276, "dataRecordsReliability", DataType.BOOLEAN),
        (291, "basicList", DataType.BASIC_LIST),
        (320, "absoluteError", DataType.FLOAT64),
        (375, "originalFlowsPresent", DataType.UNSIGNED64),
        (405, "originalObservationDomainId", DataType.UNSIGNED32),
        (500, "srhIPv6ActiveSegmentType", DataType.UNSIGNED8),
    ],
)
def test_iana_elements(number: int, name: str, kind: DataType) -> None:
    element = REGISTRY.find(IANA, number)
    assert element is not None
    assert (element.name, element.type) == (name, kind)


def test_iana_registry_is_complete_up_to_500() -> None:
    known = {number for number in range(1, 501) if REGISTRY.find(IANA, number)}
    assert known == set(range(1, 501)) - IANA_UNUSED


def test_reverse_elements_have_their_twins_number_and_type() -> None:
    twin = REGISTRY.find(IANA, 1)
    reverse = REGISTRY.find(REVERSE, 1)
    assert twin is not None
    assert reverse is not None
    assert reverse.name == "reverseOctetDeltaCount"
    assert reverse.type is twin.type
    numbers = {"reversePacketDeltaCount": 2, "reverseOctetTotalCount": 85}
    for name, number in (numbers | {"reversePacketTotalCount": 86}).items():
        assert REGISTRY.named(name) is REGISTRY.find(REVERSE, number)


def test_what_has_no_direction_has_no_reverse() -> None:
    for number in NOT_REVERSIBLE:
        assert REGISTRY.find(IANA, number) is not None
        assert REGISTRY.find(REVERSE, number) is None
    assert {"templateId", "flowId", "paddingOctets", "exportedFlowRecordTotalCount"} <= {
        element.name for n in NOT_REVERSIBLE if (element := REGISTRY.find(IANA, n))
    }


def test_unknown_numbers_and_names() -> None:
    assert REGISTRY.find(4242, 1) is None
    with pytest.raises(KeyError):
        REGISTRY.named("noSuchElement")


def test_every_name_and_number_is_unique() -> None:
    for file in ("iana.csv", "antrea.csv"):
        with resources.files("flowvis.data").joinpath(file).open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        assert len({row["id"] for row in rows}) == len({row["name"] for row in rows}) == len(rows)


def test_every_field_names_elements_that_exist() -> None:
    for field in FIELDS:
        for name in field.elements:
            assert REGISTRY.named(name).name == name
