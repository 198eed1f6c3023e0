"""What the API says of the filter language: its names, and what a text may go on with."""

import threading
from pathlib import Path
from typing import Any

from flowvis.aggregator.api.latest import LatestRecords
from flowvis.aggregator.api.paths import completion, fields
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.queries import Answers
from flowvis.aggregator.api.stored_values import AT_ONCE, StoredValues
from flowvis.aggregator.api.values import KnownValues
from flowvis.clickhouse.query import Query
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.fields import FIELDS
from flowvis.filters import parse
from flowvis.filters.vocabulary import NAMES
from flowvis.inventory.index import Inventory
from inventory.kubernetes_objects import node, pod, service
from waiting import PATIENCE_S, until

from .opened import ADMIN, NOBODY, SHOP, Opened, opened
from .records import records

RECORDS = records(
    *3 * [{"sourcePodNamespace": "shop", "sourcePodName": "cart-0", "sourceNodeName": "n1"}],
    {
        "sourcePodNamespace": "shop",
        "sourcePodName": "cart-1",
        "destinationPodNamespace": "back",
        "destinationPodName": "cache",
        "destinationTransportPort": 6379,
        "protocolIdentifier": 6,
        "sourcePodLabels": '{"app":"cart","seen":"yes"}',
        "destinationServicePortName": "back/cache:redis",
    },
    {
        "sourcePodNamespace": "secret",
        "sourcePodName": "cart-vault",
        "sourcePodLabels": '{"hidden":"cart"}',
        "destinationTransportPort": 4321,
        "sourceNodeName": "n9",
    },
)


_IN_Z5 = {"topology.kubernetes.io/zone": "z5", "topology.kubernetes.io/region": "r5"}


def _known() -> KnownValues:
    inventory, latest = Inventory(), LatestRecords(100)
    latest.put(RECORDS)
    found = [
        pod("cart-2", "10.0.0.2"),
        pod("web", "10.0.0.3", labels={"app": "web cart"}),
        pod("cart-x", "10.0.0.4", namespace="secret"),
        service("cart", ["10.1.0.1"], {"name": "http", "port": 80}),
        node("n1", "192.168.0.1"),
        node("n5", "192.168.0.5", labels=_IN_Z5),
    ]
    for item in found:
        inventory.upsert(item, 0)
    return KnownValues(latest, inventory)


async def options(it: Opened, text: str, token: str = ADMIN) -> list[tuple[str, Any]]:
    path = "/api/v1/complete"
    status, answer = await it.ask(path, token, params={"text": text})
    assert status == 200, answer
    return [(each["text"], each["count"]) for each in answer["options"]]


async def test_values_of_records_come_first_then_those_of_the_cluster(tmp_path: Any) -> None:
    async with opened(tmp_path, more=completion.routes(_known())) as it:
        assert await options(it, "pod = cart") == [
            ("shop/cart-0", 3), ("secret/cart-vault", 1), ("shop/cart-1", 1),
            ("secret/cart-x", None), ("shop/cart-2", None),
        ]  # fmt: skip
        assert await options(it, "node = n") == [("n1", 3), ("n9", 1), ("n5", None)]
        assert await options(it, "dst.zone = ") == [("z5", None)]
        assert await options(it, "region = r") == [("r5", None)]
        assert await options(it, "zone = ", SHOP) == []
        assert await options(it, "service = ") == [
            ("back/cache:redis", 1),
            ("shop/cart:http", None),
        ]
        assert await options(it, "label.a") == [("label.app", 1)]
        assert await options(it, "src.label.app = ") == [("cart", 1), ('"web cart"', None)]
        assert await options(it, "label.label = ") == [], "keys are no values"
        assert await options(it, "dst.port = ") == [("0", 3), ("4321", 1), ("6379", 1)]
        assert (await options(it, "proto = t"))[0] == ("tcp", 1)


async def test_nobody_is_offered_what_they_may_not_see(tmp_path: Any) -> None:
    asked = (
        "pod = ",
        "node = ",
        "label.",
        "port = ",
        "namespace = ",
        "workload = ",
        "label.app = ",
    )
    async with opened(tmp_path, more=completion.routes(_known())) as it:
        for text in asked:
            everything = dict(await options(it, text))
            mine = dict(await options(it, text, SHOP))
            assert mine
            assert mine.keys() <= everything.keys()
            assert not [
                value for value in mine if "secret" in value or value in {"n9", "n5", "4321"}
            ]
        assert ("label.hidden", 1) in await options(it, "label.h")
        assert await options(it, "label.h", SHOP) == []
        assert await it.code("/api/v1/complete?text=pod+%3D+", NOBODY) == "unauthenticated"


async def test_places_and_errors(tmp_path: Any) -> None:
    async with opened(tmp_path, more=completion.routes(_known())) as it:
        query = {"text": "pod = cart and nod = x", "position": "10"}
        _, answer = await it.ask("/api/v1/complete", ADMIN, params=query)
        assert (answer["from"], answer["to"]) == (6, 10)
        error = answer["error"]
        assert (error["code"], error["position"], error["length"]) == ("bad-filter", 15, 3)
        assert error["suggestion"] == "node"
        assert (await it.ask("/api/v1/complete", ADMIN))[1]["error"] is None
        assert await it.code("/api/v1/complete?text=a&position=-1", ADMIN) == "bad-request"
        assert (await it.ask("/api/v1/complete?text=%FF%00'", ADMIN))[0] == 200


async def test_names_and_measures(tmp_path: Any) -> None:
    async with opened(tmp_path, more=fields.routes()) as it:
        _, answer = await it.ask("/api/v1/fields", SHOP)
    names = {each["name"]: each for each in answer["names"]}
    assert names["pod"] == {
        "name": "pod", "kind": "text", "help": NAMES["pod"].help, "sides": True, "values": None,
        "operators": ["=", "!=", "in", "not in", "~", "!~", "is empty", "is not empty"],
        "dimension": True, "column": False,
    }  # fmt: skip
    assert names["proto"]["values"] == ["tcp", "udp", "sctp", "icmp", "icmpv6"]
    assert not names["bytes"]["dimension"]
    assert names["label.KEY"]["sides"]
    assert names["sourcePodName"]["column"]
    of_kind = {"address": "::1", "time": "2026-01-31"}
    for name in names.values():
        value = (name["values"] or [of_kind.get(name["kind"], "1")])[0]
        parse(f"{name['name']} {name['operators'][0]} {value}")
    assert {"octets", "connections"} <= {each["name"] for each in answer["measures"]}


NOW_S = 1_790_000_000
STORED = [field for field in FIELDS if field.stored]


async def test_values_of_the_store(tmp_path: Path) -> None:
    settings = StoreSettings(f"embedded://{tmp_path}/store", ttl_s=0)
    store = open_store(settings)
    store.migrate()
    ends = [NOW_S - 60, NOW_S - 60, NOW_S - 3600, NOW_S - 24 * 3600]
    rows = [
        {
            "flowEndSeconds": end,
            "sourcePodNamespace": namespace,
            "sourcePodName": name,
            "destinationTransportPort": 8080,
        }
        for name, namespace in (("cart-8", "shop"), ("cart-9", "secret"))
        for end in ends
    ]
    store.insert(records(*rows, fields=STORED), BatchId("test", NOW_S))
    asked: list[str] = []
    gate = threading.Event()
    gate.set()

    def prepare(sql: str) -> Query:
        gate.wait(PATIENCE_S)
        asked.append(sql)
        return store.ask(sql, max_rows=1000, max_length=1 << 20)

    running = Answers(lambda: 2)

    def stored(patience_s: float = PATIENCE_S) -> StoredValues:
        return StoredValues(running, prepare, lambda: NOW_S * 1000, patience_s)

    def known(values: StoredValues) -> KnownValues:
        return KnownValues(LatestRecords(10), Inventory(), values)

    values = stored()
    async with opened(tmp_path, more=completion.routes(known(values))) as it:
        assert await options(it, "src.pod = ") == [("secret/cart-9", 3), ("shop/cart-8", 3)]
        assert await options(it, "src.pod = ", SHOP) == [("shop/cart-8", 3)]
        assert await options(it, "port = 8") == [("8080", 6)]
        assert await options(it, "src.label.") == []
        before = len(asked)
        assert await options(it, "src.pod = shop") == [("shop/cart-8", 3)]
        assert len(asked) == before
    slow = stored(patience_s=0.0)
    gate.clear()
    async with opened(tmp_path, more=completion.routes(known(slow))) as it:
        assert await options(it, "src.pod = ") == []
        gate.set()
        await until(lambda: running.running == 0, "the answer")
        assert await options(it, "src.pod = ") == [("secret/cart-9", 3), ("shop/cart-8", 3)]
    await values.close()
    await slow.close()
    store.close()

    def none(_: str) -> Query:
        raise Problem("no-store", "no store is configured")

    without = StoredValues(running, none, lambda: NOW_S * 1000, PATIENCE_S)
    async with opened(tmp_path, more=completion.routes(known(without))) as it:
        assert await options(it, "src.pod = ") == []


async def test_who_completes_many_names_takes_few_places(tmp_path: Path) -> None:
    gate = threading.Event()

    def prepare(_: str) -> Query:
        gate.wait(PATIENCE_S)
        raise Problem("no-store", "no store is configured")

    running = Answers(lambda: 1)
    values = StoredValues(running, prepare, lambda: NOW_S * 1000, 0.0)
    latest = KnownValues(LatestRecords(10), Inventory(), values)
    async with opened(tmp_path, more=completion.routes(latest)) as it:
        for number in range(20):
            assert await options(it, f"label.k{number} = ", SHOP) == []
        assert running.places.taken + running.places.waiting == AT_ONCE
        assert await options(it, "label.other = ", ADMIN) == []
        assert running.places.taken + running.places.waiting == AT_ONCE + 1
        gate.set()
        await until(lambda: running.running == 0, "the answers")
        gate.clear()
        assert await options(it, "label.later = ", SHOP) == []
        assert running.places.taken + running.places.waiting == 1
        gate.set()
    await values.close()
