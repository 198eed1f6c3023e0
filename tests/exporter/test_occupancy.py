"""Whose connections fill a node's table."""

from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.names import ConntrackStatus
from flowvis.exporter.metrics import Occupants
from flowvis.exporter.tables.occupancy import TOP, Occupancy
from flowvis.inventory.index import Inventory
from flowvis.ipfix.occupancy import Occupant
from inventory.kubernetes_objects import addresses, node, pod

from .kernel_entries import Connection, entries

ANSWERED = ConntrackStatus.SEEN_REPLY


def owned(name: str, ip: str, kind: str, owner: str, **more: Any) -> dict[str, Any]:
    references = [{"controller": True, "kind": kind, "name": owner}]
    return pod(name, ip, ownerReferences=references, **more)


class Own:
    def contain(self, column: Any) -> Any:
        return (column == addresses(["10.0.1.1"])).all(axis=1)


def occupancy() -> Occupancy:
    inventory = Inventory()
    for item in (
        node("node-1", "192.0.2.1", "10.0.1.0/24"),
        node("node-2", "192.0.2.2", "10.0.2.0/24"),
        owned(
            "web-5d4f8-x",
            "10.0.1.10",
            "ReplicaSet",
            "web-5d4f8",
            labels={"pod-template-hash": "5d4f8"},
        ),
        owned(
            "web-5d4f8-y",
            "10.0.1.11",
            "ReplicaSet",
            "web-5d4f8",
            labels={"pod-template-hash": "5d4f8"},
        ),
        owned("db-0", "10.0.1.12", "StatefulSet", "db"),
        pod("alone", "10.0.1.13"),
        pod("elsewhere", "10.0.2.20", node="node-2"),
    ):
        inventory.upsert(item, 0)
    return Occupancy("node-1", inventory, Own())


def counted(found: Occupancy) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    return {
        (each.namespace, each.kind, each.workload, each.end): (each.entries, each.unanswered)
        for each in found.occupants
    }


def test_an_entry_is_of_who_opened_it_else_of_who_was_called_here() -> None:
    found = occupancy()
    found.look(
        entries(
            Connection("10.0.1.10", "203.0.113.1"),
            Connection("10.0.1.11", "10.0.2.20", status=ANSWERED),
            Connection("10.0.1.10", "10.96.0.1", real="10.0.1.12", status=ANSWERED),  # both here
            Connection("10.0.1.13", "203.0.113.1", zone=5),
            Connection("10.0.2.20", "10.0.1.12", status=ANSWERED),
            Connection("203.0.113.9", "192.0.2.1", real="10.0.1.12", snat="10.0.1.1"),
            Connection("192.0.2.1", "10.0.1.12", status=ANSWERED),  # a probe
            Connection("10.0.1.1", "10.0.2.20"),  # another address of the node
            Connection("203.0.113.9", "192.0.2.1"),
            Connection("10.0.2.20", "203.0.113.1", status=ANSWERED),
            Connection("203.0.113.9", "192.0.2.1", real="10.0.2.20"),
            Connection("192.0.2.2", "203.0.113.1"),
        ),
        1_000_000,
    )
    assert counted(found) == {
        ("shop", "Deployment", "web", "source"): (3, 1),
        ("shop", "Pod", "alone", "source"): (1, 1),
        ("shop", "StatefulSet", "db", "destination"): (2, 1),
        ("", "", "(node)", "source"): (2, 1),
        ("", "", "(node)", "destination"): (1, 1),
        ("", "", "(pods of other nodes)", "source"): (1, 0),
        ("", "", "(external)", "source"): (2, 2),
    }
    assert found.occupants[0].workload == "web"
    found.look(Entries.none(), 2_000_000)
    assert found.occupants == ()


def test_the_largest_are_told_apart_and_nothing_is_left_out() -> None:
    inventory = Inventory()
    count = TOP + 7
    for number in range(count):
        inventory.upsert(owned(f"p{number}", f"10.0.1.{number + 1}", "DaemonSet", f"d{number}"), 0)
    found = Occupancy("node-1", inventory)
    found.look(
        entries(
            *(
                Connection(f"10.0.1.{number + 1}", "203.0.113.1", port, status=ANSWERED)
                for number in range(count)
                for port in range(number + 1)
            )
        ),
        1,
    )
    *named, rest = found.occupants
    assert [each.workload for each in named] == [
        f"d{n}" for n in range(count - 1, count - 1 - TOP, -1)
    ]
    assert rest == Occupant("", "", "(other)", True, sum(range(1, 8)), 0)
    assert sum(each.entries for each in found.occupants) == count * (count + 1) // 2


def test_names_that_are_none_break_no_scrape() -> None:
    """Files of an inventory may say anything: a label is UTF-8, and of some length."""
    inventory = Inventory()
    inventory.upsert(owned("a", "10.0.1.1", "Job\ud800", 'x"\n' + "é" * 300), 0)
    inventory.upsert(owned("b", "10.0.1.2", "Job\ud800", 'x"\n' + "é" * 301), 0)
    found = Occupancy("node-1", inventory)
    found.look(entries(Connection("10.0.1.1"), Connection("10.0.1.2")), 1)
    registry = CollectorRegistry()
    registry.register(Occupants(found))
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    name = r"x\"\n" + "é" * 125
    labels = f'{{end="source",kind="Job?",workload="{name}",workload_namespace="shop"}}'
    assert lines == [
        f"flowvis_exporter_occupant_entries{labels} 2.0",
        f"flowvis_exporter_occupant_unanswered_entries{labels} 2.0",
    ]


def test_a_pod_is_found_by_when_its_connection_began() -> None:
    """An address may have been another Pod's before."""
    inventory = Inventory()
    inventory.upsert(owned("old", "10.0.1.1", "Job", "first", uid="1"), 0)
    inventory.delete(owned("old", "10.0.1.1", "Job", "first", uid="1"), 1_800_000_100_000)
    new = owned("new", "10.0.1.1", "Job", "second", creationTimestamp="2027-01-15T08:02:00Z")
    inventory.upsert(new, 1_800_000_120_000)
    found = Occupancy("node-1", inventory)
    began = np.array([1_800_000_050, 1_800_000_150, 1_800_000_160]) * 10**9
    found.look(
        entries(
            *(Connection("10.0.1.1", id=at, start_ns=int(start)) for at, start in enumerate(began))
        ),
        1_800_000_170_000,
    )
    assert {each.workload: each.entries for each in found.occupants} == {"first": 1, "second": 2}


def test_what_a_pod_that_is_forgotten_left_behind_fills_nobodys_share() -> None:
    """An established connection stays in the table for a day; its address is given anew before."""
    inventory = Inventory()
    inventory.upsert(node("node-1", "192.0.2.1", "10.0.1.0/24"), 0)
    heir = owned("heir", "10.0.1.7", "Job", "heir", creationTimestamp="2027-01-15T08:00:00Z")
    inventory.upsert(heir, 1_800_000_000_000)
    found = Occupancy("node-1", inventory)
    began = (1_799_990_000, 1_799_999_900, 1_800_000_030)
    left = (Connection("10.0.1.7", id=at, start_ns=at * 10**9) for at in began)
    found.look(entries(*left), 1_800_000_170_000)
    assert [(each.workload, each.entries) for each in found.occupants] == [
        ("heir", 2),
        ("(pods of other nodes)", 1),
    ]
