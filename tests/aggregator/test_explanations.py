"""Explanations of connections as people name them, over the control socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.paths import explain
from flowvis.aggregator.api.visibility import Visibility
from flowvis.aggregator.explanations import Asked, Explanations, NotVisible, Place
from flowvis.cli.client import Refused
from flowvis.inventory.index import Inventory
from flowvis.policies import Policies
from flowvis.policies.explanation.document import everything

from .explained import BEGAN, NOW, POLICY, cluster, explained, named, pod

EMPTY: dict[str, Any] = {
    "flowStartSeconds": NOW,
    "sourcePodName": "",
    "destinationPodName": "",
    "sourceNodeName": "",
    "destinationNodeName": "",
    **{
        f"{direction}NetworkPolicy{name}": 0 if name in {"Type", "RuleAction"} else ""
        for direction in ("ingress", "egress")
        for name in ("Name", "Namespace", "Type", "RuleName", "RuleAction")
    },
}
"""What a record has of policies, if it has nothing."""


@asynccontextmanager
async def served(path: Path, inventory: Inventory, policies: Policies) -> AsyncIterator[Any]:
    """Serve it, and give a function that asks."""
    async with explained(path, inventory, policies) as client:

        async def ask(source: str, destination: str, **more: str) -> Any:
            query = {"source": source, "destination": destination, **more}
            return await asyncio.to_thread(client.get, "api/v1/explain", query)

        yield ask


def test_a_record_without_a_start_is_explained_as_of_when_it_was_seen() -> None:
    record = {"sourceIP": "10.0.0.1", "destinationIP": "10.0.0.2", "protocolIdentifier": 6}
    record |= {"destinationTransportPort": 80, "flowStartSeconds": 0, "flowEndSeconds": NOW}
    assert Asked.of(record).at_ms == NOW + 999


async def test_would_it_be_allowed_now(tmp_path: Path) -> None:
    async with served(tmp_path, *cluster()) as ask:
        answer = await ask("shop/cart-0", "shop/orders-0:8080")
        assert (answer["verdict"], answer["now"], answer["known"]) == ("allowed", True, True)
        (connection,) = answer["connections"]
        assert connection["destination"] == {
            "kind": "pod",
            "text": "shop/orders-0",
            "namespace": "shop",
            "name": "orders-0",
            "node": "node-1",
            "address": "10.0.0.2",
            "labels": {"app": "orders"},
        }
        assert connection["egress"]["conclusion"] == "no-policy"
        ingress = connection["ingress"]
        assert ingress["text"] == "allowed by NetworkPolicy shop/orders, rule ingress[0]"
        assert [step["matches"] for step in ingress["steps"]] == [True, False, True]
        assert [step["reached"] for step in ingress["steps"]] == [True, False, False]
        assert ingress["decided"] == 0
        assert ingress["steps"][1]["part"] == "namespace"
        assert ingress["steps"][1]["why"] == (
            "Pods in namespaces with team=b: namespace shop has team=a"
        )


@pytest.mark.parametrize(
    ("connection", "more", "part", "why"),
    [
        (
            ("shop/cart-0", "shop/orders-0"),
            {"port": "admin"},
            "port",
            "tcp 8080: not tcp 99",
        ),
        (
            ("shop/cart-0", "shop/orders-0:8080"),
            {"protocol": "udp"},
            "protocol",
            "tcp 8080: not udp",
        ),
        (
            ("shop/orders-1", "shop/orders-0:http"),
            {},
            "labels",
            "Pods with app=cart in namespace shop: it has app=orders",
        ),
        (
            ("198.51.100.1", "shop/orders-0:http"),
            {},
            "pod",
            "Pods with app=cart in namespace shop: 198.51.100.1 is no Pod",
        ),
    ],
)
async def test_denied_with_what_does_not_match(
    tmp_path: Path, connection: tuple[str, str], more: dict[str, str], part: str, why: str
) -> None:
    async with served(tmp_path, *cluster()) as ask:
        answer = await ask(*connection, **more)
    ingress = answer["connections"][0]["ingress"]
    assert answer["verdict"] == "denied"
    assert ingress["conclusion"] == "isolated"
    assert ingress["denies"]
    first, _, last = ingress["steps"]
    assert (first["part"], first["why"]) == (part, why)
    assert (last["isolation"], last["decides"], ingress["decided"]) == (True, True, 2)


async def test_a_service_leads_to_each_of_its_pods(tmp_path: Path) -> None:
    async with served(tmp_path, *cluster()) as ask:
        for destination in ("shop/orders:web", "shop/orders:80", "10.96.0.7:80"):
            answer = await ask("shop/cart-0", destination)
            found = [
                (c["destination"]["text"], c["port"], c["verdict"]) for c in answer["connections"]
            ]
            assert found == [("shop/orders-0", 8080, "allowed"), ("shop/orders-1", 8081, "denied")]
            assert answer["verdict"] == "differs"
            assert answer["service"] == "shop/orders:web"
        answer = await ask("shop/cart-0", "shop/nobody")
        assert (answer["verdict"], answer["connections"]) == ("unknown", [])
        assert "leads to no Pod" in answer["notes"][-1]


async def test_ends_are_taken_at_addresses_of_one_version(tmp_path: Path) -> None:
    six = pod("ops", "six", "fd00::6", labels={"app": "six"})
    service = named(
        "Service",
        "six",
        "ops",
        spec={"clusterIP": "fd00::96", "selector": {"app": "six"}, "ports": [{"port": 7}]},
    )
    async with served(tmp_path, *cluster(six, service)) as ask:
        for destination in ("ops/six:7", "ops/six", "[fd00::6]:7", "[fd00::96]:7"):
            answer = await ask("shop/orders-1", destination, port="7")
            (connection,) = answer["connections"]
            ends = [connection[side]["address"] for side in ("source", "destination")]
            assert ends == ["fd00::3", "fd00::6"]
        answer = await ask("shop/orders-1", "shop/orders-0:1")
        assert answer["connections"][0]["source"]["address"] == "10.0.0.3"


async def test_a_service_of_pods_that_share_their_nodes_addresses(tmp_path: Path) -> None:
    agents = named(
        "Service",
        "agents",
        "ops",
        spec={
            "clusterIP": "10.96.0.9",
            "selector": {"app": "agent"},
            "ports": [{"port": 9, "targetPort": 9100}],
        },
    )
    labeled = pod("ops", "agent", "192.0.2.1", host=True, labels={"app": "agent"})
    async with served(tmp_path, *cluster(agents, labeled)) as ask:
        answer = await ask("shop/cart-0", "ops/agents")
        (connection,) = answer["connections"]
        assert (connection["destination"]["address"], connection["port"]) == ("192.0.2.1", 9100)
        assert connection["ingress"]["conclusion"] == "not-a-pod"


@pytest.mark.parametrize(
    ("source", "noted"),
    [("203.0.113.9", True), ("192.0.2.1", False), ("10.0.1.1", False), ("ops/probe", False)],
)
async def test_whose_address_pods_see_of_a_client_outside_depends(
    tmp_path: Path, source: str, *, noted: bool
) -> None:
    async with served(tmp_path, *cluster()) as ask:
        answer = await ask(source, "shop/orders:web")
        assert answer["connections"]
        assert any("externalTrafficPolicy" in note for note in answer["notes"]) is noted
        answer = await ask(source, "shop/orders-0:8080")
        assert not any("externalTrafficPolicy" in note for note in answer["notes"])


async def test_who_had_an_address_before_the_pod_that_has_it_now_is_not_known(
    tmp_path: Path,
) -> None:
    older = json.loads(json.dumps(POLICY))
    older["metadata"] = {"namespace": "shop", "name": "older"}
    at = "2025-12-30T12:00:00Z"  # half a day before its Pods were made
    async with served(tmp_path, *cluster(older)) as ask:
        answer = await ask("10.0.0.1", "shop/orders-0:8080", at=at)
        (connection,) = answer["connections"]
        assert connection["source"]["kind"] == "address"
        assert connection["egress"]["conclusion"] == "unknown"
        assert connection["egress"]["text"].startswith("the Pod that had 10.0.0.1 then is gone")
        assert connection["ingress"]["conclusion"] == "unknown"
        assert "which Pod had 10.0.0.1 then" in connection["ingress"]["text"]
        answer = await ask("10.0.0.1", "shop/orders-0:8080")
        assert answer["verdict"] == "allowed"


async def test_before_the_aggregator_began_it_does_not_know(tmp_path: Path) -> None:
    async with served(tmp_path, *cluster()) as ask:
        answer = await ask("ops/probe", "shop/orders-0:1", at=str(BEGAN - 1))
        assert (answer["known"], answer["verdict"]) == (False, "unknown")
        assert answer["knownFrom"] == BEGAN
        assert "known from 2025-12-31T23:00:00Z on" in answer["notes"][0]
        # The policy was made half an hour later: nothing selected the Pod.
        answer = await ask("ops/probe", "shop/orders-0:1", at=str(BEGAN))
        assert (answer["known"], answer["verdict"]) == (True, "allowed")
        assert answer["connections"][0]["ingress"]["conclusion"] == "no-policy"
        answer = await ask("shop/cart-0", "shop/orders-0:1", at="-29m")
        assert answer["verdict"] == "denied"


async def test_policies_as_they_were(tmp_path: Path) -> None:
    inventory, policies = cluster()
    closed = json.loads(json.dumps(POLICY))
    closed["spec"]["ingress"] = []
    policies.upsert(closed, NOW - 600_000)
    policies.delete(closed, NOW - 300_000)
    policies.expire(NOW)
    async with served(tmp_path, inventory, policies) as ask:
        found = []
        for at in (-1_000_000, -600_001, -600_000, -300_001, -300_000, 0):
            answer = await ask("ops/probe", "shop/orders-0:1", at=str(NOW + at))
            found.append(answer["connections"][0]["ingress"]["conclusion"])
    assert found == ["allowed", "allowed", "isolated", "isolated", "no-policy", "no-policy"]


async def test_nodes_and_pods_that_share_their_addresses(tmp_path: Path) -> None:
    async with served(tmp_path, *cluster()) as ask:
        answer = await ask("192.0.2.1", "shop/orders-0:1")
        assert answer["connections"][0]["ingress"]["conclusion"] == "exempt"
        answer = await ask("ops/agent", "shop/orders-0:1")
        assert answer["connections"][0]["source"]["address"] == "192.0.2.1"
        assert answer["connections"][0]["egress"]["conclusion"] == "not-a-pod"
        answer = await ask("shop/orders-0", "shop/orders-0:1")
        assert answer["connections"][0]["ingress"]["conclusion"] == "exempt"


@pytest.mark.parametrize(
    ("source", "destination", "more", "problem"),
    [
        ("cart", "shop/orders-0:1", {}, "source 'cart': namespace/name of a Pod, or an address"),
        ("a/b/c", "shop/orders-0:1", {}, "source 'a/b/c'"),
        ("shop/car", "shop/orders-0:1", {}, "no such Pod: do you mean shop/cart-0"),
        ("shup/cart-0", "shop/orders-0:1", {}, "and no Pod in namespace shup"),
        ("shop/orders", "shop/orders-0:1", {}, "a Service opens no connections"),
        ("shop/cart-0:1", "shop/orders-0:1", {}, "without a port"),
        ("shop/cart-0", "shop/order", {}, "neither a Pod nor a Service: do you mean"),
        ("shop/cart-0", "shop/orders-0", {}, r"port is needed.*the Pod names .*http \(8080\)"),
        ("shop/cart-0", "shop/orders-0:0", {}, "port '0': a number from 1 to 65535"),
        ("shop/cart-0", "10.0.0.9:00000165536", {}, "port '00000165536': a number from 1"),
        ("shop/cart-0", "shop/orders-0:1", {"port": "2"}, "the destination says '1'"),
        ("shop/cart-0", "shop/orders", {}, r"port is needed: port of Service .*web \(tcp 80\)"),
        ("shop/cart-0", "shop/orders:81", {}, "port '81': no port of Service shop/orders"),
        ("shop/cart-0", "shop/orders-0:1", {"protocol": "tpc"}, "protocol 'tpc'"),
        ("shop/cart-0", "shop/orders-0:1", {"at": "yesterday"}, "at 'yesterday'"),
        ("shop/cart-0", "shop/orders-0:1", {"at": "+1h"}, "in the future"),
        ("shop/cart-0", "[fd00::3]:1", {}, "cart-0 has no IPv6 address, as the other end has"),
        ("shop/orders-1", "ops/pending:1", {}, "Pod ops/pending has no address yet"),
        ("0.0.0.0", "shop/orders-0:1", {}, "source '0.0.0.0'"),
    ],
)
async def test_questions_that_cannot_be_answered(
    tmp_path: Path, source: str, destination: str, more: dict[str, str], problem: str
) -> None:
    async with served(tmp_path, *cluster(pod("ops", "pending", ""))) as ask:
        with pytest.raises(Refused, match=problem):
            await ask(source, destination, **more)


def test_a_record_of_a_pod_and_its_node_at_an_address_that_no_object_has() -> None:
    inventory, policies = cluster()
    metadata = {"name": "closed", "namespace": "shop"}
    closed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata}
    policies.upsert(closed | {"spec": {"podSelector": {}, "policyTypes": ["Egress"]}}, BEGAN)
    explanations = Explanations(inventory, policies)
    cache = Place.parse("destination", "169.254.20.10:53")
    places = Place.parse("source", "10.0.0.1"), cache
    its = {"sourcePodNamespace": "shop", "sourcePodName": "cart-0", "sourceNodeName": "node-1"}
    for node, expected in (("node-1", "exempt"), ("node-2", "isolated")):
        record = EMPTY | its | {"destinationNodeName": node}
        asked = Asked(*places, record=record)
        answer = asyncio.run(explanations.answer(asked, NOW, everything))
        (connection,) = answer["connections"]
        assert connection["egress"]["conclusion"] == expected


def test_who_sees_one_namespace_sees_no_rule_or_label_of_another() -> None:
    inventory, policies = cluster()
    explanations = Explanations(inventory, policies)
    sees = explain.seen_by(Caller("eve", Visibility.of(["ops"])))

    async def ask(source: str, destination: str, **record: str) -> Any:
        places = Place.parse("source", source), Place.parse("destination", destination)
        asked = Asked(*places, record=EMPTY | record if record else None)
        return await explanations.answer(asked, NOW, sees)

    for source, destination in (
        ("shop/cart-0", "ops/probe:1"),
        ("ops/probe", "shop/orders-0:1"),
        ("ops/probe", "shop/orders:web"),
        ("ops/probe", "shop/missing:1"),
        ("10.0.0.1", "10.0.0.2:1"),
        ("198.51.100.1", "10.0.0.2:1"),
        ("ops/probe", "10.96.0.7:80"),
    ):
        with pytest.raises(NotVisible):
            asyncio.run(ask(source, destination))
    # A record of their own may name the other end, and the rule that decided: as records do.
    names = {"sourcePodNamespace": "ops", "sourcePodName": "probe"}
    names |= {"destinationPodNamespace": "shop", "destinationPodName": "orders-0"}
    answer = asyncio.run(ask("10.0.1.1", "10.0.0.2:1", **names))
    (connection,) = answer["connections"]
    ingress = connection["ingress"]
    assert ingress["text"] == "allowed by NetworkPolicy shop/orders, rule ingress[1]"
    assert ingress["hidden"]
    assert [step["rule"] for step in ingress["steps"]] == ["ingress[1]"]
    assert ingress["steps"][0]["peers"] is None
    text = json.dumps(answer["connections"])
    assert "app" not in text.replace('{"app": "probe"}', "")
    assert "team" not in text
