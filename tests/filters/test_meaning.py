"""What filters mean, by records of a small cluster."""

import pytest

from aggregator.records import records
from flowvis.fields import FIELDS
from flowvis.filters import parse
from flowvis.filters.mask import mask

STORED = [field for field in FIELDS if field.stored]
WEB = {
    "sourceIP": "10.0.0.1",
    "destinationIP": "10.0.1.1",
    "sourcePodNamespace": "shop",
    "sourcePodName": "cart-0",
    "sourceWorkloadName": "cart",
    "sourceWorkloadKind": "StatefulSet",
    "sourcePodLabels": '{"app":"cart","tier":"back"}',
    "sourceNodeName": "n1",
    "sourceZone": "eu-1a",
    "sourceRegion": "eu-1",
    "destinationZone": "eu-1b",
    "destinationRegion": "eu-1",
    "destinationPodNamespace": "shop",
    "destinationPodName": "orders",
    "destinationNodeName": "n2",
    "destinationServicePortName": "shop/orders:http",
    "destinationServiceIP": "10.96.0.1",
    "destinationServicePort": 80,
    "sourceTransportPort": 40000,
    "destinationTransportPort": 8080,
    "protocolIdentifier": 6,
    "flowType": 2,
    "octetDeltaCount": 6_000_000,
    "reverseOctetDeltaCount": 5_000_000,
    "throughput": 900,
    "reverseThroughput": 200,
    "flowStartSeconds": 1_790_000_000,
    "flowEndSeconds": 1_790_000_090,
    "tcpState": "ESTABLISHED",
    "egressNetworkPolicyName": "allow-web",
    "egressNetworkPolicyNamespace": "shop",
    "egressNetworkPolicyType": 1,
    "egressNetworkPolicyRuleAction": 1,
}
OUT = {
    "sourceIP": "10.0.0.2",
    "destinationIP": "203.0.113.7",
    "sourcePodNamespace": "back",
    "sourcePodName": "cart-0",
    "sourceNodeName": "n2",
    "sourceZone": "eu-1b",
    "sourceRegion": "eu-1",
    "destinationTransportPort": 443,
    "sourceTransportPort": 50000,
    "protocolIdentifier": 6,
    "flowType": 3,
    "ingressNetworkPolicyRuleAction": 2,
    "egressNetworkPolicyRuleAction": 1,
    "egressNetworkPolicyName": "allow-web",
    "egressNetworkPolicyType": 3,
}
PING = {
    "sourceIP": "fd00::1",
    "destinationIP": "fd00::2",
    "sourceNodeName": "n1",
    "destinationPodNamespace": "kube-system",
    "destinationPodName": "dns",
    "destinationServicePortName": "kube-system/dns",
    "protocolIdentifier": 58,
}
DEAD = {"flowEndReason": 3, "packetTotalCount": 4}
BATCH = records(WEB, OUT, PING, fields=STORED)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", [0, 1, 2]),
        ("pod = cart-0", [0, 1]),
        ("pod = shop/cart-0", [0]),
        ("pod = shop/*", [0]),
        ("src.pod = orders", []),
        ("dst.pod = orders", [0]),
        ("pod != cart-0", [2]),
        ("not pod = cart-0", [2]),
        ("pod not in (dns, nobody)", [0, 1]),
        ("pod is empty", [1, 2]),
        ("pod is not empty", [0]),
        ("src.pod is empty and src.node is empty", []),
        ("dst.pod is empty and dst.node is empty", [1]),
        ("pod ~ ^shop/cart", [0]),
        ("workload = cart", [0]),
        ("workload = cart-0", [1]),
        ("src.workload = back/cart-0", [1]),
        ("kind = statefulset", [0]),
        ("src.kind = pod", [1]),
        ("src.kind = node", [2]),
        ("zone = eu-1b", [0, 1]),
        ("src.zone = eu-1b", [1]),
        ("dst.zone ~ ^eu-", [0]),
        ("region is empty", [1, 2]),
        ("crosszone = yes", [0]),
        ("crosszone = no", [1, 2]),
        ("crossregion = yes", []),
        ("label.app = cart", [0]),
        ("label.app = c*t and src.label.tier ~ ^b", [0]),
        ("label.app is empty", [0, 1, 2]),
        ("src.label.app != cart", [1, 2]),
        ("service = orders", [0]),
        ("service = shop/orders", [0]),
        ("service = orders:http", [0]),
        ("service = orders:https", []),
        ("service = http", []),
        ("service in (dns, shop/*)", [0, 2]),
        ("service is empty", [1]),
        ("ip = 10.96.0.1", [0]),
        ("dst.ip = 10.96.0.1", []),
        ("ip in 10.0.0.0/24", [0, 1]),
        ("dst.ip in (203.0.113.0/24, fd00::/8)", [1, 2]),
        ("ip in ::/0", [2]),
        ("ip in ::/79", []),
        ("ip in ::/80", []),
        ("ip in ::fffe:0:0/95", []),
        ("ip in ::ffff:0:0/96", [0, 1]),
        ("ip in 0.0.0.0/0", [0, 1]),
        ("ip is empty", []),
        ("port = 80", [0]),
        ("port < 1024", [0, 1]),
        ("port <= 80", [0]),
        ("port is empty", [2]),
        ("port in (443, 8000-8999)", [0, 1]),
        ("proto = icmpv6", [2]),
        ("proto = 6 and type != inter-node", [1]),
        ("bytes > 10MB", [0]),
        ("src.bytes > 6M", []),
        ("src.bytes = 6M", [0]),
        ("rate = 1.1kbit/s", [0]),
        ("duration = 1m30s", [0]),
        ("duration >= 90", [0]),
        ("start < 2026-09-22", [0]),
        ("start >= 2026-09-21T14:13:20Z and end = 1790000090000", [0]),
        ("state = established", [0]),
        ("verdict = allowed", [0]),
        ("verdict in (dropped, rejected)", [1]),
        ("verdict = denied", [1]),
        ("verdict != denied", [0, 2]),
        ("src.verdict = allowed", [0, 1]),
        ("dst.verdict is empty", [0, 2]),
        ("policy = allow-web", [0, 1]),
        ('policy = "k8s:shop/allow-web"', [0]),
        ("policy = antrea-cluster:allow-web", [1]),
        ("dst.policy = allow-web", []),
        ("cart", [0, 1]),
        ("SHOP", [0]),
        ("shop/cart", [0]),
        ("10.0.0.", [0, 1]),
        ("10.0", [0, 1]),
        ("10.", [0, 1]),
        ("fd00:0:", [2]),
        ("203.0.113.7", [1]),
        ("203.0.113.0/24", [1]),
        ("0.1", []),
        ("octetDeltaCount > 0 or destinationPodName = dns", [0, 2]),
        ("clusterId is empty and clusterUUID is empty", [0, 1, 2]),
    ],
)
def test_what_filters_choose(text: str, chosen: list[int]) -> None:
    assert mask(parse(text), BATCH).nonzero()[0].tolist() == chosen


def test_what_was_unanswered() -> None:
    denied = DEAD | {"ingressNetworkPolicyRuleAction": 2}
    answered = DEAD | {"reversePacketTotalCount": 1}
    batch = records(DEAD, denied, answered, {"packetTotalCount": 4}, {"flowEndReason": 3})
    assert mask(parse("unanswered = yes"), batch).nonzero()[0].tolist() == [0]
    assert mask(parse("unanswered != TRUE"), batch).nonzero()[0].tolist() == [1, 2, 3, 4]
    assert mask(parse("unanswered = no"), batch).nonzero()[0].tolist() == [1, 2, 3, 4]


def test_columns_that_a_batch_does_not_have_are_empty() -> None:
    batch = BATCH.select(["sourcePodName", "sourceIP"])
    assert mask(parse("kind is empty and port is empty and dst.ip is empty"), batch).all()
    assert mask(parse("kind = Pod or pod = cart-0"), batch).tolist() == [True, True, False]
