"""Antrea's Egresses: which one a connection leaves by."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flowvis.batch import Batch, address_bytes
from flowvis.fields import FlowType
from flowvis.inventory.index import Inventory
from flowvis.inventory.sources.files import InventoryFiles
from flowvis.native import StringTable
from flowvis.policies import Egresses, egresses
from policies.cluster import NOW, Pod, antrea, expression, labels, matching, namespace

PODS = (
    Pod("shop", "web", "10.0.0.1", labels(app="web")),
    Pod("shop", "db", "10.0.0.2", labels(app="db")),
    Pod("bank", "web", "10.0.0.3", labels(app="web")),
)
WEB, DB, BANK, NOBODY = range(-4, 0)  # an unknown source is handle -1
COLUMNS = ("egressName", "egressIP", "egressNodeName")
NO = ("", "", "")
SECOND = 1000


def egress(
    name: str,
    address: str = "192.0.2.9",
    node: str = "node-2",
    created: str = "2025-01-01T00:00:00Z",
    **applied: Any,
) -> dict[str, Any]:
    """An Egress as Antrea has it when a node holds its address."""
    made = antrea("Egress", name, appliedTo=applied, egressIP=address, externalIPPool="pool")
    made["metadata"]["creationTimestamp"] = created
    made["status"] = {"egressNode": node, "egressIP": address if node else ""}
    return made


@dataclass
class Leaving:
    """Connections from Pods to the outside."""

    egresses: Egresses = field(default_factory=Egresses)
    strings: StringTable = field(default_factory=StringTable)

    def apply(self, *items: dict[str, Any], now_ms: int = NOW - 60 * SECOND) -> None:
        for item in items:
            self.egresses.upsert(item, now_ms)

    def find(
        self,
        sources: Iterable[int],
        *,
        flow_type: int = FlowType.TO_EXTERNAL,
        start_ms: int = NOW,
        said: str = "",
        address: str = "10.0.0.1",
    ) -> list[tuple[str, ...]]:
        """What is found for connections of Pods, by their places in PODS; -1: no Pod."""
        handles = np.array([source + 4 if source < NOBODY else -1 for source in sources])
        count = len(handles)
        columns: dict[str, Any] = {
            "flowStartMilliseconds": np.full(count, start_ms, dtype=np.uint64),
            "flowType": np.full(count, flow_type, dtype=np.uint8),
            "sourceIP": np.frombuffer(count * address_bytes(address), np.uint8).reshape(-1, 16),
        } | {name: self.strings.encode([said] * count) for name in COLUMNS}
        found = self.egresses.find(Batch(columns, self.strings), PODS, handles)
        return list(zip(*(self.strings.texts(found[name]) for name in COLUMNS), strict=True))


@pytest.mark.parametrize(
    ("applied", "selected"),
    [
        ({"podSelector": matching(app="web")}, [True, False, True]),
        ({"namespaceSelector": matching(team="a")}, [True, True, False]),
        (
            {"podSelector": matching(app="web"), "namespaceSelector": matching(team="a")},
            [True, False, False],
        ),
        ({"namespaceSelector": {}}, [True, True, True]),
        ({"podSelector": {}}, [True, True, True]),
        ({"podSelector": expression("app", "NotIn", "db")}, [True, False, True]),
        ({"namespaceSelector": matching(kubernetes__io_metadata_name="x")}, [False] * 3),
        ({}, [False, False, False]),  # no selector selects nothing
    ],
)
def test_selectors(applied: dict[str, Any], selected: list[bool]) -> None:
    leaving = Leaving()
    leaving.apply(namespace("shop", team="a"), namespace("bank", team="b"), egress("e", **applied))
    expected = [("e", "192.0.2.9", "node-2") if yes else NO for yes in selected]
    assert leaving.find([WEB, DB, BANK, NOBODY]) == [*expected, NO]


@pytest.mark.parametrize("flow_type", [0, 1, 2, 4])
def test_only_what_leaves_the_cluster_has_one(flow_type: int) -> None:
    leaving = Leaving()
    leaving.apply(egress("e", podSelector={}))
    assert leaving.find([WEB], flow_type=flow_type) == [NO]


def test_what_a_record_says_itself_stays() -> None:
    leaving = Leaving()
    leaving.apply(egress("e", podSelector={}))
    assert leaving.find([WEB], said="reported") == [("reported", "reported", "reported")]


def test_of_several_the_oldest_that_a_node_holds() -> None:
    leaving = Leaving()
    leaving.apply(
        egress("b", created="2025-03-01T00:00:00Z", podSelector={}),
        egress("c", created="2025-02-01T00:00:00Z", podSelector=matching(app="web")),
        egress("a", created="2025-03-01T00:00:00Z", podSelector={}),
        egress("nowhere", node="", created="2025-01-01T00:00:00Z", podSelector={}),
    )
    assert [found[0] for found in leaving.find([WEB, DB])] == ["c", "a"]


def test_as_it_was_when_the_connection_began() -> None:
    leaving = Leaving()
    leaving.apply(egress("e", node="", podSelector={}))
    leaving.apply(egress("e", node="node-2", podSelector={}), now_ms=NOW)
    leaving.apply(egress("e", node="node-3", podSelector={}), now_ms=NOW + SECOND)
    leaving.egresses.delete(egress("e"), NOW + 2 * SECOND)
    nodes = [leaving.find([WEB], start_ms=NOW + at)[0][2] for at in (-1, 0, 999, 1000, 2000)]
    assert nodes == ["", "node-2", "node-2", "node-3", ""]


def test_a_namespace_that_changes() -> None:
    leaving = Leaving()
    leaving.apply(namespace("shop"), egress("e", namespaceSelector=matching(team="a")))
    assert leaving.find([WEB]) == [NO]
    leaving.apply(namespace("shop", team="a"), now_ms=NOW)
    assert leaving.find([WEB])[0][0] == "e"
    assert leaving.find([WEB], start_ms=NOW - 1) == [NO]


def test_the_address_that_is_in_effect() -> None:
    leaving = Leaving()
    changed = egress("e", podSelector={})
    changed["status"]["egressIP"] = "192.0.2.77"
    leaving.apply(changed)
    assert leaving.find([WEB])[0][1] == "192.0.2.77"


def test_an_address_is_for_connections_of_its_family() -> None:
    leaving = Leaving()
    leaving.apply(egress("e", podSelector={}))
    assert leaving.find([WEB], address="2001:db8::1") == [NO]
    leaving.apply(egress("e", "2001:db8::9", podSelector={}))
    assert leaving.find([WEB], address="2001:db8::1") == [("e", "2001:db8::9", "node-2")]
    assert leaving.find([WEB]) == [NO]


def test_pods_that_are_alike_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = Leaving()
    leaving.apply(egress("e", podSelector={}))
    leaving.find([WEB, DB, BANK] * 100)
    leaving.find([WEB, DB, BANK] * 100)
    assert (leaving.egresses.stats.evaluated, leaving.egresses.stats.found) == (3, 600)
    monkeypatch.setattr(egresses, "MAX_CLASSES", 1)
    assert [found[0] for found in leaving.find([WEB, DB, BANK])] == ["e", "e", "e"]


def test_without_any_it_is_not_active() -> None:
    leaving = Leaving()
    leaving.apply(namespace("shop"))
    assert not leaving.egresses.active
    leaving.apply(egress("e"))
    assert leaving.egresses.active


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"spec": {}}, "Egress e: no or bad value for 'appliedTo'"),
        ({"spec": {"appliedTo": []}}, "Egress e: "),
        ({"spec": {"appliedTo": {"podSelector": 7}}}, "Egress e: "),
        ({"status": "up"}, "Egress e: "),
        ({"metadata": {}}, "Egress: metadata.name is missing"),
    ],
)
def test_malformed_ones_are_named_and_counted(change: dict[str, Any], problem: str) -> None:
    leaving = Leaving()
    with pytest.raises(ValueError, match=problem):
        leaving.apply(egress("e", podSelector={}) | change)
    assert leaving.egresses.stats.malformed == 1


def test_from_files(tmp_path: Path) -> None:
    leaving = Leaving()
    path = tmp_path / "egresses.yaml"
    path.write_text(yaml.safe_dump_all([namespace("shop"), egress("e", podSelector={})]))
    component = InventoryFiles([path], Inventory(), leaving.egresses)

    async def scene() -> None:
        await component.start()
        await component.stop()

    asyncio.run(scene())
    assert leaving.find([WEB])[0][0] == "e"
