import asyncio
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import make_mocked_request

from flowvis.aggregator.api.asking import asked
from flowvis.aggregator.api.caller import LOCAL
from flowvis.aggregator.api.listing import rows
from flowvis.aggregator.api.problems import Problem
from flowvis.batch import Batch
from flowvis.filters.mask import Mask, mask

from .records import records

BATCH = records(
    {
        "sourceIP": "10.0.0.1",
        "destinationIP": "10.0.1.1",
        "sourcePodName": "client",
        "sourcePodNamespace": "shop",
        "destinationPodName": "server",
        "destinationPodNamespace": "back",
        "sourceNodeName": "n1",
        "destinationNodeName": "n2",
        "destinationServicePortName": "back/server:http",
        "destinationServiceIP": "10.96.0.1",
        "destinationServicePort": 80,
        "sourceTransportPort": 40000,
        "destinationTransportPort": 8080,
        "protocolIdentifier": 6,
        "flowType": 2,
        "ingressNetworkPolicyName": "strict",
        "ingressNetworkPolicyNamespace": "back",
        "ingressNetworkPolicyRuleAction": 2,
        "egressNetworkPolicyName": "out",
        "egressNetworkPolicyNamespace": "shop",
        "egressNetworkPolicyRuleAction": 1,
    },
    {
        "sourceIP": "fd00::1",
        "destinationIP": "fd00::2",
        "sourcePodName": "server",
        "sourcePodNamespace": "back",
        "sourceTransportPort": 8080,
        "destinationTransportPort": 53,
        "destinationServicePortName": "kube-system/dns",
        "protocolIdentifier": 17,
        "flowType": 3,
        "egressNetworkPolicyName": "out",
        "egressNetworkPolicyRuleAction": 1,
    },
    {"sourceIP": "10.0.0.1", "destinationIP": "192.0.2.1", "protocolIdentifier": 58},
)
REFUTED = records(
    {"ingressNetworkPolicyName": "strict", "ingressNetworkPolicyRuleAction": 4},
    {"egressNetworkPolicyName": "strict", "egressNetworkPolicyRuleAction": 5},
    {"ingressNetworkPolicyRuleAction": 4, "egressNetworkPolicyRuleAction": 1},
    {"ingressNetworkPolicyRuleAction": 4, "egressNetworkPolicyRuleAction": 3},
)


def chosen(query: Mapping[str, str], batch: Batch) -> Mask:
    request = make_mocked_request("GET", f"/flows?{urlencode(query)}")
    return mask(asyncio.run(asked(LOCAL, request)), batch)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"pod": "server"}, [0, 1]),
        ({"pod": "serv"}, []),
        ({"namespace": "shop"}, [0]),
        ({"node": "n2"}, [0]),
        ({"service": "back/server:http"}, [0]),
        ({"service": "back/server"}, [0]),
        ({"service": "server"}, [0]),
        ({"service": "kube-system/dns"}, [1]),
        ({"service": "dns"}, [1]),
        ({"service": "http"}, []),
        ({"ip": "10.0.0.1"}, [0, 2]),
        ({"ip": "10.96.0.1"}, [0]),
        ({"ip": "fd00:0::2"}, [1]),
        ({"port": "8080"}, [0, 1]),
        ({"verdict": "dropped"}, [0]),
        ({"verdict": "denied"}, [0]),
        ({"verdict": "rejected"}, []),
        ({"verdict": "allowed"}, [1]),
        ({"policy": "back/strict"}, [0]),
        ({"policy": "shop/strict"}, []),
        ({"policy": "out"}, [0, 1]),
        ({"port": "80"}, [0]),
        ({"protocol": "UDP"}, [1]),
        ({"protocol": "icmpv6"}, [2]),
        ({"protocol": "6"}, [0]),
        ({"type": "inter-node"}, [0]),
        ({"type": "3"}, [1]),
        ({"pod": "server", "protocol": "tcp"}, [0]),
    ],
)
def test_conditions(query: Mapping[str, str], expected: list[int]) -> None:
    assert chosen(query, BATCH).nonzero()[0].tolist() == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"port": "http"}, "port 'http'"),
        ({"protocol": "ip"}, "protocol 'ip': expected .*tcp"),
        ({"type": "other"}, "type 'other': expected .*inter-node"),
        ({"ip": "10.0.0"}, "10.0.0"),
        ({"verdict": "deny"}, "verdict 'deny': expected .*denied"),
    ],
)
def test_bad_conditions_are_named(query: Mapping[str, str], message: str) -> None:
    with pytest.raises(Problem, match=message):
        chosen(query, BATCH)


def test_rows_have_every_field_by_its_name() -> None:
    first, second, third = rows(BATCH)
    assert list(first) == list(BATCH.columns)
    assert first["sourceIP"] == "10.0.0.1"
    assert second["sourceIP"] == "fd00::1"
    assert third["destinationServiceIP"] == ""
    assert first["destinationServicePortName"] == "back/server:http"
    assert type(first["octetTotalCount"]) is int


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("denied", [3]),
        ("dropped", []),
        ("rejected", [3]),
        ("allowed", []),
        ("unenforced", [0, 1, 2]),
    ],
)
def test_what_was_not_enforced_is_not_denied(verdict: str, expected: list[int]) -> None:
    assert chosen({"verdict": verdict}, REFUTED).nonzero()[0].tolist() == expected
    assert chosen({"policy": "strict"}, REFUTED).tolist() == [True, True, False, False]
