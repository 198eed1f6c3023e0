"""What filters choose of what is stored: the same records as of what passes by."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import numpy as np
import pytest

from flowvis.batch import Batch, address_bytes
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.tables import TABLE
from flowvis.clickhouse.statement import bind
from flowvis.clickhouse.store import Store, StoreSettings
from flowvis.fields import Kind
from flowvis.filters import networks, parse, quote
from flowvis.filters.mask import mask
from flowvis.filters.networks import NetworkNames
from flowvis.filters.seen import seen
from flowvis.filters.sql import condition
from flowvis.filters.vocabulary import dimensions, lookup
from flowvis.native import StringTable

from .conftest import admin
from .filtered import ADDRESSES, NAMED, ROW, Wishes, differences, records, shown
from .samples import STORED

SEED = 4711


@pytest.fixture(autouse=True)
def _named() -> Iterator[None]:
    networks.enforce(NAMED)
    yield
    networks.enforce(NetworkNames())


def test_the_store_and_the_mask_choose_the_same(store: Store, settings: StoreSettings) -> None:
    assert list(differences(store, settings.database, rows=150, seed=SEED, count=60)) == []


def test_random_filters_choose_some_records_and_not_others() -> None:
    chosen: list[int] = []
    for seed in range(SEED, SEED + 5):
        batch = records(150, seed)
        chosen += [int(mask(each, batch).sum()) for each in Wishes(seed).filters(60)]
    assert sum(0 < count < 150 for count in chosen) > len(chosen) / 3


ENGINE_FAULTS = ["%日{0,1}", "ü?", "(?:日*)a", "%(a|b)*(?i:cart)*.?", "ü{0}b", "a|", "", "(?i)SHOP"]
"""Patterns that versions of ClickHouse match wrongly when they look for a part of them first."""


EASILY_MISTAKEN = [
    *(f"src.node ~ {quote(pattern)}" for pattern in ENGINE_FAULTS),
    "src.pod ~ '^[^/]+/cart'",
    r"src.node = '\\'",
    "node = '*'",
    "node = *",
    "node = *ü*",
    r"""label.app = 'quote"back\\Ünï' or label.tier = 'a,b'""",
    "label.app = W*b",
    "label.x/y.z = web and not label.missing ~ .",
    "ip in ::/0 and not ip in 0.0.0.0/0",
    "src.ip in (10.0.0.0/31, ::1) or dst.ip = 0.0.0.0",
    "bytes >= 18446744073709551615",
    "port in (80, 1000-65534) and src.bytes in 1..1G",
    "dst.packets is empty",
    "unanswered = yes or unanswered = no and proto = udp",
    "0.0. or fe80:",
    "policy = k8s:*op*/*",
    "src.network = shop",
    "network in (a.b, web) and src.network !~ ^w",
    "dst.network = *o* and not dst.network is empty",
    "service = kube-dns or service = :dns or service = a/*",
]


def test_what_is_easily_mistaken(store: Store, settings: StoreSettings) -> None:
    batch = records(400, SEED)
    store.insert(batch, BatchId("w", 1_790_000_000))
    source = shown(settings.database)
    chosen: dict[str, list[list[int]]] = {}
    for text in EASILY_MISTAKEN:
        found = condition(parse(text))
        sql = bind(f"SELECT {ROW} FROM ({source}) WHERE {found.text}", found.parameters)
        rows = sorted(int(row) for (row,) in admin(store)(sql))
        chosen[text] = [rows, mask(parse(text), batch).nonzero()[0].tolist()]
    assert {text for text, (stored, passing) in chosen.items() if stored != passing} == set()
    assert {text for text, (stored, _) in chosen.items() if not stored} == set()


POD = {
    "PodName": ["cart-0", "orders-1", "", "cart-0"],
    "PodNamespace": ["shop", "shop", "", "back"],
    "WorkloadName": ["cart", "", "", "cart"],
    "WorkloadKind": ["StatefulSet", "", "", "DaemonSet"],
    "NodeName": ["n1", "n2", "n1", ""],
    "PodLabels": ['{"app":"cart"}', '{"tier":"x"}', "", '{"app":""}'],
}


def _cluster() -> Batch:
    """Return records of four sources and four destinations, of all combinations."""
    batch = records(16, SEED)
    strings = StringTable()
    for field in STORED:
        if field.kind is Kind.TEXT:
            batch[field.name] = strings.encode(["", "one", "two", "three"] * 4)
    batch.strings = strings
    for side, place in (("source", 1), ("destination", 4)):
        for name, texts in POD.items():
            values = [texts[row // place % 4] for row in range(16)]
            batch[side + name] = strings.encode(values)
    # Half of the ends are outside of the cluster, in networks with names.
    outside = np.arange(16) % 2 == 0
    for side in ("source", "destination"):
        for name in ("PodName", "NodeName"):
            batch[side + name] = np.where(outside, 0, batch[side + name]).astype(np.uint32)
    batch["destinationServicePortName"] = strings.encode(
        ["", "shop/cart:http", "shop/web", "back/cart:a"] * 4
    )
    return batch


def test_what_a_dimension_shows_is_what_is_seen_and_finds_its_records(
    store: Store, settings: StoreSettings
) -> None:
    batch = _cluster()
    store.insert(batch, BatchId("w", 1_790_000_000))
    names = [*dimensions(), lookup("src.label.app"), lookup("dst.label.tier")]
    assert len(names) > 60
    source = shown(settings.database)
    for name in names:
        sql = f"SELECT {name.expression} AS value, groupArray({ROW}) FROM ({source}) GROUP BY value"
        groups = admin(store)(sql)
        assert seen(name, batch) == {str(value): len(rows) for value, rows in groups}
        for value, rows in groups:
            text = f"{name.name} = {quote(str(value))}" if value != "" else f"{name.name} is empty"
            assert sorted(map(int, rows)) == mask(parse(text), batch).nonzero()[0].tolist(), text


def test_the_columns_that_a_condition_names_are_all_that_it_reads(
    store: Store, settings: StoreSettings
) -> None:
    for each in Wishes(SEED + 1).filters(20):
        found = condition(each)
        columns = ", ".join(found.columns)
        sql = f"SELECT count() FROM (SELECT {columns or 1} FROM ({shown(settings.database)}))"
        assert admin(store)(bind(f"{sql} WHERE {found.text}", found.parameters))
    assert TABLE in shown(settings.database)


def test_networks_of_roll_ups_have_the_same_names(store: Store) -> None:
    """Roll-ups have addresses by /24 and /48, and zeros of ends that are inside of the cluster."""
    short = [
        "10.0.0.0/8",
        "10.0.1.0/24",
        "0.0.0.0/0",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "8000::/1",
    ]
    names = NetworkNames((text, [ip_network(text)]) for text in short)
    texts = (*ADDRESSES, "10.0.1.77", "2001:db8:1:2::3", "8.8.8.8")
    asked = [ip_address(text) for text in texts if not text.startswith("::")]  # zeros as a /48
    full = [address_bytes(str(each)) for each in asked]
    kept = [15 if each.version == 4 else 6 for each in asked]
    rolled = [a[:length].ljust(16, b"\0") for a, length in zip(full, kept, strict=True)]
    columns = ", ".join(f"unhex('{each.hex()}')" for each in rolled)
    aliases = names.definitions("sourceNetwork", rolled=True)
    sql = (
        f"WITH {', '.join(f'{text} AS {name}' for name, text in aliases.items())} SELECT"
        " sourceNetwork FROM (SELECT toFixedString(bytes, 16) AS sourceNetworkBytes FROM"
        f" (SELECT arrayJoin([{columns}]) AS bytes))"
    )
    found = names.find(np.frombuffer(b"".join(full), np.uint8).reshape(-1, 16))
    known = [names.names[number] for number in found.tolist()]
    assert [row[0] for row in store.query(sql).rows] == known
    assert set(short) <= set(known)
    assert (names.longest[4], names.longest[6]) == (24, 48)
