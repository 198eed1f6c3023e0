"""Antrea's own paths: its keys, its conditions, and who sees what."""

import logging
from pathlib import Path
from typing import Any

import pytest

from .opened import ADMIN, SHOP, SHOPS, opened
from .records import records

FLOWS = records(
    {
        "sourceIP": "10.0.0.1",
        "destinationIP": "10.0.0.9",
        "destinationClusterIP": "10.96.0.1",
        "sourceTransportPort": 40000,
        "destinationTransportPort": 8080,
        "protocolIdentifier": 6,
        "octetTotalCount": 2**40,
        "sourcePodNamespace": "shop",
        "ingressNetworkPolicyName": "allow",
        "ingressNetworkPolicyRuleAction": 1,
        "sourcePodLabels": '{"app": "web"}',
    },
    {"sourceIP": "fd00::1", "destinationIP": "fd00::2", "protocolIdentifier": 17},
    {"sourceIP": "10.0.0.1", "destinationIP": "10.0.0.3", "protocolIdentifier": 6},
)


async def test_flows_have_antreas_keys(tmp_path: Path) -> None:
    async with opened(tmp_path, live_flows=FLOWS) as it:
        status, (four, six, _) = await it.ask("/flowrecords", ADMIN)
    assert status == 200
    assert four["sourceIPv4Address"] == "10.0.0.1"
    assert four["destinationClusterIPv4"] == "10.96.0.1"
    assert four["octetTotalCount"] == 2**40
    assert four["ingressNetworkPolicyName"] == "allow"
    assert four["ingressNetworkPolicyRuleAction"] == 1
    assert six["sourceIPv6Address"] == "fd00::1"
    assert not {key for key in [*four, *six] if key.endswith("IP") and key != "egressIP"}
    assert "sourceIPv4Address" not in six
    for left_out in ("sourcePodLabels", "ingressNetworkPolicyType", "flowId", "clusterId"):
        assert left_out not in four


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("srcip=10.0.0.1", [0, 2]),
        ("srcip=10.0.0.1&dstip=10.0.0.3", [2]),
        ("proto=17", [1]),
        ("srcport=40000&dstport=8080", [0]),
        ("srcip=10.0.0.1&dstip=10.0.0.9&proto=6&srcport=40000&dstport=8080", [0]),
        ("srcip=fd00:0::1", [1]),
        ("dstport=1", []),
        ("proto=0&srcport=&srcip=", [0, 1, 2]),
    ],
)
async def test_conditions(tmp_path: Path, query: str, expected: list[int]) -> None:
    async with opened(tmp_path, live_flows=FLOWS) as it:
        _, whole = await it.ask("/flowrecords", ADMIN)
        assert await it.ask(f"/flowrecords?{query}", ADMIN) == (200, [whole[at] for at in expected])


@pytest.mark.parametrize(
    "query",
    ["proto=256", "srcport=65536", "dstport=x", "srcip=10.0.0", "dstip=a'b", "ip=1.1.1.1"],
)
async def test_bad_conditions(tmp_path: Path, query: str) -> None:
    async with opened(tmp_path, live_flows=FLOWS) as it:
        status, answer = await it.ask(f"/flowrecords?{query}", ADMIN)
        name = query.partition("=")[0]
        assert (status, answer["error"]["code"]) == (400, "bad-request")
        assert name in answer["error"]["message"]


async def test_one_sees_what_one_may(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        assert [flow["sourceIPv4Address"] for flow in await found(it, "")] == SHOPS
        assert await found(it, "?srcip=10.0.0.3") == []
        assert await it.code("/recordmetrics", SHOP) == "forbidden"
        assert await it.code("/loglevel?level=4", SHOP) == "forbidden"
        assert await it.ask("/recordmetrics", ADMIN) == (200, {"numFlows": 7})


async def found(it: Any, query: str) -> list[dict[str, Any]]:
    flows: list[dict[str, Any]] = (await it.ask(f"/flowrecords{query}", SHOP))[1]
    return flows


async def test_many_flows(tmp_path: Path) -> None:
    many = records(*({"octetTotalCount": number} for number in range(450)))
    async with opened(tmp_path, live_flows=many) as it:
        _, flows = await it.ask("/flowrecords", ADMIN)
    assert [flow["octetTotalCount"] for flow in flows] == list(range(450))


async def test_the_version(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        _, answer = await it.ask("/version", ADMIN)
        assert answer["gitVersion"].startswith(f"v{answer['major']}.{answer['minor']}")
        assert await it.code("/version") == "unauthenticated"


async def test_the_log_level(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        root.setLevel(logging.INFO)
        async with opened(tmp_path) as it:
            assert await it.ask("/loglevel", ADMIN) == (200, 0)
            assert await it.ask("/loglevel?level=5", ADMIN, "PUT") == (200, 4)
            assert root.level == logging.DEBUG
            assert await it.ask("/loglevel?level=0", ADMIN) == (200, 0)
            assert root.level == logging.INFO
            assert await it.code("/loglevel?level=high", ADMIN) == "bad-request"
    finally:
        root.setLevel(before)
