"""Explanations of stored records, and what policies did, over HTTP and out of real stores."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aggregator.explained import NOW, POLICY, cluster, explained
from aggregator.records import records
from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.visibility import Visibility
from flowvis.cli.client import Refused
from flowvis.cli.flowctl import main
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import Store

from .samples import STORED
from .test_policies_question import ORDERS, decided, flow

CART: dict[str, Any] = {
    "sourceIP": "10.0.0.1",
    "sourcePodNamespace": "shop",
    "sourcePodName": "cart-0",
}
TO_ORDERS: dict[str, Any] = {
    "destinationIP": "10.0.0.2",
    "destinationPodNamespace": "shop",
    "destinationPodName": "orders-0",
    "protocolIdentifier": 6,
}
ALLOWED = flow(
    3,
    **CART,
    **TO_ORDERS,
    destinationTransportPort=8080,
    **decided("ingress", 1, ORDERS, "ingress[0]", 1),
)
DENIED = flow(
    1, **CART, **TO_ORDERS, destinationTransportPort=99, **decided("ingress", 1, ORDERS, "", 2)
)
UNENFORCED = flow(
    1, **CART, **TO_ORDERS, destinationTransportPort=98, **decided("ingress", 1, ORDERS, "", 4)
)
OTHERWISE = flow(
    1,
    **CART,
    **TO_ORDERS,
    destinationTransportPort=8080,
    sourceTransportPort=7,
    **decided("ingress", 3, "strict", "deny-all", 3),
)
GONE = flow(
    1,
    sourceIP="10.0.0.77",
    sourcePodNamespace="shop",
    sourcePodName="job-x",
    **TO_ORDERS,
    destinationTransportPort=97,
)

GONE_TOO = GONE | {"sourcePodName": "job-y", "destinationTransportPort": 8080}


@pytest.fixture
def stored(store: Store) -> Store:
    rows = (ALLOWED, DENIED, UNENFORCED, OTHERWISE, GONE, GONE_TOO)
    store.insert(records(*rows, fields=STORED), BatchId("explained", 1))
    return store


async def asked(path: Path, store: Store, what: str = "explain", **query: str) -> Any:
    async with explained(path, *cluster(), store) as client:
        return await asyncio.to_thread(client.get, f"api/v1/{what}", query)


@pytest.mark.parametrize(
    ("port", "found", "said"),
    [
        ("port = 8080 and src.port = 0", ("allowed", True), "allowed by NetworkPolicy shop/orders"),
        ("port = 99", ("denied", True), "dropped by NetworkPolicy shop/orders"),
        ("port = 98", ("denied", True), "nothing enforced it"),
        ("src.port = 7", ("allowed", False), "rejected by NetworkPolicy strict, rule deny-all"),
    ],
)
async def test_what_the_record_says_beside_what_is_found(
    tmp_path: Path, stored: Store, port: str, found: tuple[str, bool], said: str
) -> None:
    answer = await asked(tmp_path, stored, filter=f"pod = shop/cart-0 and {port}")
    (connection,) = answer["connections"]
    verdict, agrees = found
    assert answer["verdict"] == connection["verdict"] == verdict
    assert (answer["known"], answer["now"], answer["record"]["sourcePodName"]) == (
        True,
        False,
        "cart-0",
    )
    assert answer["at"] == NOW - 70_000 + 999
    reported = connection["ingress"]["reported"]
    assert reported["agrees"] is agrees
    assert said in reported["text"]
    assert connection["egress"]["reported"]["agrees"]


async def test_a_pod_that_is_gone_leaves_it_open(tmp_path: Path, stored: Store) -> None:
    answer = await asked(tmp_path, stored, filter="src.pod = shop/job-x")
    (connection,) = answer["connections"]
    assert connection["source"]["text"] == "shop/job-x"
    assert connection["egress"]["conclusion"] == "unknown"
    # The first rule may select its labels, but not the port; the second selects other namespaces.
    assert [step["matches"] for step in connection["ingress"]["steps"]] == [False, False, True]
    assert (connection["verdict"], connection["ingress"]["conclusion"]) == ("denied", "isolated")
    assert connection["ingress"]["reported"]["agrees"] is False
    answer = await asked(tmp_path, stored, filter="src.pod = shop/job-y")
    (connection,) = answer["connections"]
    assert [step["matches"] for step in connection["ingress"]["steps"]] == [None, False, True]
    assert connection["verdict"] == "unknown"
    assert "its labels are not known any more" in connection["ingress"]["text"]
    assert connection["ingress"]["reported"]["agrees"] is None


async def test_a_node_at_an_address_that_no_object_has(tmp_path: Path, stored: Store) -> None:
    gateway = {"sourceIP": "10.0.0.254", "sourceNodeName": "node-1", **TO_ORDERS}
    rows = [
        flow(1, **gateway, destinationNodeName=node, destinationTransportPort=port)
        for node, port in (("node-1", 90), ("node-2", 91))
    ]
    stored.insert(records(*rows, fields=STORED), BatchId("explained", 3))
    answer = await asked(tmp_path, stored, filter="port = 90")
    ingress = answer["connections"][0]["ingress"]
    assert (ingress["conclusion"], ingress["reported"]["agrees"]) == ("exempt", True)
    answer = await asked(tmp_path, stored, filter="port = 91")
    ingress = answer["connections"][0]["ingress"]
    assert (ingress["conclusion"], ingress["reported"]["agrees"]) == ("isolated", False)


async def test_records_that_there_are_none_of(tmp_path: Path, stored: Store) -> None:
    for query, problem in (
        ({"filter": "pod = shop/none"}, "no record of this range matches"),
        ({"filter": "port = 99", "from": "-10s"}, "no record of this range matches"),
        ({"filter": "prt = 99"}, "prt"),
        ({"filter": "port = 99", "source": "shop/cart-0"}, "either a connection that is named"),
        ({"filter": "port = 99", "port": "99"}, "filter and port"),
        ({}, "name a connection by source and destination, or a record by filter"),
        ({"source": "shop/cart-0"}, "name a connection by source and destination"),
    ):
        with pytest.raises(Refused, match=problem):
            await asked(tmp_path, stored, **query)


async def test_flowctl_explains_a_record(
    tmp_path: Path, stored: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with explained(tmp_path, *cluster(), stored):
        command = ["--socket", str(tmp_path / "control.sock"), "explain", "port = 98"]
        assert await asyncio.to_thread(main, command) == 3
    found = capsys.readouterr().out
    assert "shop/cart-0 -> shop/orders-0 tcp 98: DENIED at" in found
    assert "the record: dropped by NetworkPolicy shop/orders; but the traffic went on" in found


async def test_policies_of_a_range(tmp_path: Path, stored: Store) -> None:
    answer = await asked(tmp_path, stored, "policies", filter="src.pod = shop/cart-0")
    by_name = {policy["name"]: policy for policy in answer["policies"]}
    assert by_name["orders"]["rules"][0]["connections"] == 1
    assert by_name["strict"]["exists"] is False
    assert answer["uncovered"]["connections"] == 0
    assert answer["answer"]["rowsRead"] > 0
    answer = await asked(tmp_path, stored, "policies")
    assert answer["uncovered"] == {"connections": 2, "octets": 200}


async def test_records_of_another_cluster_are_of_other_policies(
    tmp_path: Path, stored: Store
) -> None:
    east, west = (
        flow(
            count,
            **CART,
            **TO_ORDERS,
            destinationTransportPort=port,
            clusterId=name,
            **decided("ingress", 1, policy, "", 2),
        )
        for count, port, name, policy in ((1, 95, "east", ORDERS), (2, 96, "west", "their-own"))
    )
    stored.insert(records(east, west, fields=STORED), BatchId("explained", 3))
    async with explained(tmp_path, *cluster(), stored, cluster_id="east") as client:

        def ask(what: str, **query: str) -> Any:
            return client.get(f"api/v1/{what}", query)

        found = await asyncio.to_thread(ask, "explain", filter="pod = shop/cart-0")
        assert found["record"]["destinationTransportPort"] == 95
        with pytest.raises(Refused, match="no record of this range matches"):
            await asyncio.to_thread(ask, "explain", filter="port = 96")
        (policy,) = (await asyncio.to_thread(ask, "policies", **{"from": "-1h"}))["policies"]
        assert policy["name"] == "orders"
        assert sum(rule["denied"] for rule in policy["rules"]) == 1


class Eve:
    """Lets in somebody who may see namespace ops."""

    async def caller(self, _: Any) -> Caller:
        return Caller("eve", Visibility.of(["ops"]))


async def test_who_sees_one_namespace_gets_no_more_by_any_way(
    tmp_path: Path, stored: Store
) -> None:
    inventory, policies = cluster()
    policies.upsert(POLICY | {"metadata": {"name": "mine", "namespace": "ops"}}, NOW - 500_000)
    mine = flow(
        1,
        sourceIP="10.0.1.1",
        sourcePodNamespace="ops",
        sourcePodName="probe",
        **TO_ORDERS,
        destinationTransportPort=99,
        **decided("ingress", 1, ORDERS, "ingress[1]", 1),
    )
    stored.insert(records(mine, fields=STORED), BatchId("explained", 2))
    async with explained(tmp_path, inventory, policies, stored, Eve()) as client:

        async def ask(what: str, **query: str) -> Any:
            return await asyncio.to_thread(client.get, f"api/v1/{what}", query)

        for text in ("src.pod = shop/cart-0", "port = 98", "not namespace = ops"):
            with pytest.raises(Refused, match="no record of this range matches"):
                await ask("explain", filter=text)
        for text in ("", "port = 99", "src.namespace = ops or src.namespace = shop"):
            answer = await ask("explain", filter=text)
            (connection,) = answer["connections"]
            assert connection["source"]["text"] == "ops/probe"
            assert connection["destination"]["labels"] is None
            assert connection["ingress"]["hidden"]
            assert [s["rule"] for s in connection["ingress"]["steps"]] == ["ingress[1]"]
            assert connection["ingress"]["others"] == []
        for text in ("", "src.namespace = shop or namespace = ops"):
            answer = await ask("policies", filter=text)
            names = {(p["name"], p["exists"]): p for p in answer["policies"]}
            # One that their own connection names, of which they see that; and their own.
            assert set(names) == {("orders", False), ("mine", True)}
            assert [rule["name"] for rule in names["orders", False]["rules"]] == ["ingress[1]"]
            assert names["mine", True]["unused"]
        answer = await ask("policies", filter="src.namespace = shop")
        assert [policy["name"] for policy in answer["policies"]] == ["mine"]
        assert answer["uncovered"] == {"connections": 0, "octets": 0}
        with pytest.raises(Refused, match="may not be seen by you"):
            await ask("explain", source="ops/probe", destination="shop/orders:web")
