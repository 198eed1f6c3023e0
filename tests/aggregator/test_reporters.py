import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flowvis.aggregator import collector as collector_module
from flowvis.aggregator import exporter_sessions
from flowvis.aggregator.book_entries import book_entries
from flowvis.aggregator.daemon import Aggregator as Built
from flowvis.aggregator.metrics import NodesCollector
from flowvis.aggregator.reporters import NodeReports, Reporter, by_node, nodes_of
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.clickhouse.schema.books import EXPORTER, BookEntry, What
from flowvis.fields import EXPORTED
from flowvis.inventory.index import Inventory
from flowvis.ipfix.exporter import ExporterSession
from flowvis.ipfix.exporter_report import ExporterReport, report_message
from flowvis.ipfix.occupancy import Occupant, occupancy_message
from flowvis.runtime.settings import load
from flowvis.transport.server import Peer
from flowvis.transport.session import Answer
from inventory.kubernetes_objects import node

from .harness import connection, exported


def cluster() -> Inventory:
    inventory = Inventory()
    inventory.upsert(node("a", "192.0.2.1", "10.244.1.0/24"), 0)
    inventory.upsert(node("b", "2001:db8::b"), 0)
    inventory.upsert(node("c", "192.0.2.3"), 0)
    return inventory


def reporter(
    address: str, named: str = "", records: int = 1, last_s: float = 1.0, *, is_open: bool = True
) -> Reporter:
    return Reporter(address, named, records, last_s, is_open)


@pytest.mark.parametrize(
    ("address", "named", "expected"),
    [
        ("192.0.2.1", "", "a"),
        ("192.0.2.1", "x", "a"),  # the address is of a node: what records say is less
        ("::ffff:192.0.2.1", "", "a"),
        ("10.244.1.0", "", "a"),  # its leg in the Pod network: an overlay's
        ("2001:db8::b", "", "b"),
        ("198.51.100.1", "c", "c"),  # behind a translation
        ("198.51.100.1", "", ""),
        ("fe80::1%eth0", "", ""),
        ("no-address", "c", "c"),
    ],
)
def test_the_node_of_a_session(address: str, named: str, expected: str) -> None:
    assert nodes_of([reporter(address, named)], cluster().nodes) == [expected]


def test_nodes_with_and_without_sessions() -> None:
    reporters = [
        reporter("192.0.2.1", records=5, last_s=10.0, is_open=False),
        reporter("192.0.2.1", records=2, last_s=30.0),
        reporter("10.244.1.0", records=1, last_s=20.0),
        reporter("2001:db8::b", records=4, last_s=7.0, is_open=False),
        reporter("198.51.100.1", "elsewhere", records=3, last_s=8.0),
        reporter("198.51.100.2"),
    ]
    assert by_node(reporters, cluster().nodes) == [
        NodeReports("a", 2, 8, 30.0),
        NodeReports("b", 0, 4, 7.0),
        NodeReports("c", 0, 0, None),
        NodeReports("elsewhere", 1, 3, 8.0),
    ]
    assert by_node([], Inventory().nodes) == []


def built() -> Built:
    aggregator = Built(load(AggregatorSettings, b"controlSocket: /nowhere", {}))
    for name, address in (("n1", "192.0.2.1"), ("n2", "192.0.2.2"), ("n3", "192.0.2.3")):
        aggregator._inventory.upsert(node(name, address), 0)
    return aggregator


def unheard(_data: bytes) -> None:
    """Take acknowledgements as an exporter of ours does."""


def reported(
    aggregator: Built, address: str, *rows: dict[str, Any], answer: Answer | None = None
) -> Any:
    session = aggregator.collector.open(Peer(address, 4711, "flow-exporter", answer))
    exporter = ExporterSession(1, EXPORTED)
    messages = exporter.templates(1)
    for row in rows:
        messages += exporter.encode(exported(row), 1)
    for message in messages:
        session.data_received(memoryview(message))
    return session


async def test_what_the_status_says_of_nodes() -> None:
    aggregator = built()
    reported(aggregator, "192.0.2.1", connection(1), connection(2))
    # From behind a translation: its records name the node.
    behind = reported(aggregator, "198.51.100.9", connection(1, source=False))
    status = aggregator._status()
    assert [session["node"] for session in status["sessions"]] == ["n1", "n2"]
    assert all(0 <= session["lastReportSeconds"] < 60 for session in status["sessions"])
    assert status["nodes"][2] == {
        "name": "n3",
        "sessions": 0,
        "records": 0,
        "sentAgain": 0,
        "acknowledged": None,
        "waiting": 0,
        "missing": [],
        "missedLastSeconds": None,
        "lastReportSeconds": None,
    }
    behind.closed()
    again = reported(aggregator, "198.51.100.9", connection(3, source=False))
    assert shown(aggregator) == [("n1", 1, 2), ("n2", 1, 2), ("n3", 0, 0)]
    again.closed()
    assert shown(aggregator) == [("n1", 1, 2), ("n2", 0, 2), ("n3", 0, 0)]
    assert aggregator._status()["nodes"][1]["lastReportSeconds"] < 60
    registry = aggregator._status_server.registry
    assert b"flowvis_aggregator_nodes_without_session 2.0" in generate_latest(registry)


def shown(aggregator: Built) -> list[tuple[str, int, int]]:
    nodes = aggregator._status()["nodes"]
    return [(node["name"], node["sessions"], node["records"]) for node in nodes]


async def test_a_node_is_silent_in_the_books_only_of_who_receives() -> None:
    """A replica that waits has no sessions, and at a stop they have ended: that is none's fault."""
    aggregator = built()
    session = reported(aggregator, "192.0.2.1", connection(1))

    def silent() -> dict[str, int]:
        entries = aggregator._books._entries(60)
        return {each.node: each.records for each in entries if each.what is What.SILENT}

    assert silent() == {}
    await aggregator._readiness.start()
    assert silent() == {"n2": 60, "n3": 60}
    await aggregator._readiness.stop()
    session.closed()
    assert silent() == {}
    received = {each.node: each.records for each in aggregator._books._entries(60)
                if each.stage == EXPORTER and each.what is What.RECEIVED}  # fmt: skip
    assert received == {"n1": 1, "n2": 0, "n3": 0}


async def test_who_tells_of_several_nodes_is_none_of_them() -> None:
    aggregator = built()
    both = connection(1) | {"destinationNodeName": "n3"}  # n1 and n3: another aggregator
    reported(aggregator, "198.51.100.9", both)
    assert aggregator._status()["sessions"][0]["node"] == ""


async def test_those_who_left_are_not_remembered_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_module, "MAX_FORMER", 3)
    aggregator = built()
    for last in range(6):
        reported(aggregator, f"198.51.100.{last}").closed()
    assert [each.address for each in aggregator.collector.reporters()] == [
        "198.51.100.3",
        "198.51.100.4",
        "198.51.100.5",
    ]


async def test_who_sends_datagrams_from_made_up_addresses_makes_nobody_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_module, "MAX_FORMER", 3)
    aggregator = built()
    reported(aggregator, "192.0.2.1", connection(1)).closed()
    for last in range(6):
        aggregator.collector.open_datagrams(Peer(f"198.51.100.{last}", 4711)).closed()
    found = [each.address for each in aggregator.collector.reporters()]
    assert found == ["192.0.2.1", "198.51.100.3", "198.51.100.4", "198.51.100.5"]


def test_what_is_wrong_with_nodes() -> None:
    reporters = [
        reporter("192.0.2.1", records=5, last_s=10.0, is_open=False),
        Reporter("192.0.2.1", "", 2, 30.0, open=True, lost=3, gaps=1, rate=4.0, ahead_s=-3.5),
        Reporter("2001:db8::b", "", 4, 7.0, open=False, rate=9.0, ahead_s=2.5),
        Reporter("198.51.100.1", "far", 1, 30.0, open=True, rate=1.0, ahead_s=0.5),
    ]
    a, b, c, far = (each.as_dict(31.0) for each in by_node(reporters, cluster().nodes))
    assert a == {
        "name": "a",
        "sessions": 1,
        "lastHeardSeconds": 1.0,
        "recordsPerSecond": 4.0,
        "received": 7,
        "lost": 3,
        "gaps": 1,
        "sentAgain": 0,
        "acknowledged": None,
        "waiting": 0,
        "complete": False,
        "clockSkewSeconds": -3.5,
        "conntrack": None,
        "unobserved": None,
        "unseen": None,
        "dropped": None,
        "occupants": None,
        "problems": [
            "3 of its records never came, by their sequence numbers",
            "its clock is 3.5 s behind ours, or its messages are that late",
        ],
    }
    assert b["problems"] == ["it has no session", "its clock is 2.5 s ahead of ours"]
    assert (b["recordsPerSecond"], b["complete"]) == (0.0, False)
    assert (c["lastHeardSeconds"], c["problems"]) == (None, ["nothing ever came"])
    assert (far["complete"], far["problems"]) == (True, [])


async def test_nodes_as_their_exporters_go(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000_500]
    monkeypatch.setattr(exporter_sessions, "now_ms", lambda: clock[0])
    aggregator = built()
    session = aggregator.collector.open(Peer("192.0.2.1", 4711, "flow-exporter"))
    exporter = ExporterSession(1, EXPORTED)
    # Two seconds ahead; what comes late says less. One message is lost on its way.
    messages = exporter.templates(1_000_002)
    for exported_s, arrived_ms in ((1_000_002, 400), (1_000_003, 1200), (1_000_004, 9999)):
        messages += exporter.encode(exported(connection(1)), exported_s)
        clock[0] = 1_000_000_000 + arrived_ms
        for message in messages:
            session.data_received(memoryview(message))
        messages = []
    exporter.encode(exported(connection(2)), 1_000_004)
    for message in exporter.encode(exported(connection(3)), 1_000_004):
        session.data_received(memoryview(message))
    (node, *others) = aggregator.nodes.as_dicts()
    assert node["clockSkewSeconds"] == 1.8
    assert node["recordsPerSecond"] > 0
    assert (node["received"], node["lost"], node["gaps"]) == (4, 1, 1)
    assert [other["problems"] for other in others] == [["nothing ever came"]] * 2


def test_what_the_exporters_of_a_node_know_to_be_durable() -> None:
    """Over its sessions; those that are over wait for nothing, as their records come again."""
    reporters = [
        Reporter("192.0.2.1", "", 9, 3.0, open=False, acknowledged=4, waiting=0),
        Reporter("192.0.2.1", "", 8, 5.0, open=True, acknowledged=6, waiting=2, sent_again=5),
        Reporter("2001:db8::b", "", 4, 7.0, open=True),
    ]
    a, b, *_ = (each.as_dict(31.0) for each in by_node(reporters, cluster().nodes))
    assert (a["acknowledged"], a["waiting"], a["sentAgain"]) == (10, 2, 5)
    assert (b["acknowledged"], b["waiting"], b["sentAgain"]) == (None, 0, 0)


def test_what_exporters_say_of_themselves() -> None:
    """What the last session said counts, whether it is open or not."""
    before, now = ExporterReport(9, 9, 9, 9, 9), ExporterReport(120, 1000, 3, 0, 2)
    reporters = [
        Reporter("192.0.2.1", "", 9, 3.0, open=False, report=before),
        Reporter("192.0.2.1", "", 8, 5.0, open=True, report=now),
        Reporter("192.0.2.1", "", 8, 4.0, open=True),
        Reporter("2001:db8::b", "", 4, 7.0, open=True, report=ExporterReport(5, 10, 0, 0, 0)),
    ]
    a, b, *_ = (each.as_dict(31.0) for each in by_node(reporters, cluster().nodes))
    assert a["conntrack"] == {"entries": 120, "max": 1000}
    assert (a["unobserved"], a["unseen"], a["dropped"], a["complete"]) == (3, 0, 2, False)
    assert a["problems"] == [
        "3 connections ended unobserved: what they did last is missing",
        "its exporter dropped 2 records",
    ]
    assert (b["complete"], b["problems"]) == (True, [])


def test_a_table_that_is_nearly_full_is_a_problem_and_whose_it_is_is_said() -> None:
    by = (Occupant("shop", "Deployment", "web", True, 700, 3), Occupant("", "", "x", True, 1, 0))
    full = "its connection table is 80 % full"
    for tracked, capacity, who, said in (
        (799, 1000, by, []),
        (800, 1000, None, [full]),
        (801, 1000, by, [f"{full}: shop/web opened 700, 3 of them unanswered"]),
        (800, 1000, (), [full]),
        (5, 0, by, []),
    ):
        report = ExporterReport(tracked, capacity, 0, 0, 0)
        node = NodeReports("n", 1, 1, 1.0, report=report, occupancy=who)
        assert (node.problems(), node.as_dict(1.0)["complete"]) == (said, True)


async def test_who_fills_the_table_outlasts_the_session_that_said_it() -> None:
    aggregator = built()
    web, db = (Occupant("shop", "Deployment", name, True, 9, 1) for name in ("web", "db"))

    def occupants(*told: tuple[Occupant, ...]) -> Any:
        stream = aggregator.collector.open(Peer("192.0.2.1", 5000, answer=unheard))
        for each in told:
            message = occupancy_message(1, each, export_time=1, sequence=0)
            stream.data_received(memoryview(message))
        during = aggregator.nodes.as_dicts()[0]["occupants"]
        stream.closed()
        assert aggregator.nodes.as_dicts()[0]["occupants"] == during
        return during

    assert occupants() is None
    assert occupants((web,), (db, web)) == [db.as_dict(), web.as_dict()]
    assert occupants() == [db.as_dict(), web.as_dict()]
    assert occupants(()) == []


async def test_who_is_no_exporter_of_ours_says_nothing_of_itself() -> None:
    """Else anybody whose datagrams come here could say what a node has missed."""
    aggregator = built()
    web = Occupant("shop", "Deployment", "web", True, 9, 1)
    stream = reported(aggregator, "192.0.2.1", connection(1))
    report = report_message(1, ExporterReport(7, 8, 0, 1, 0), export_time=1, sequence=1)
    occupancy = occupancy_message(1, [web], export_time=1, sequence=2)
    again = ExporterSession(1, EXPORTED).sent_again(5, 1)
    for message in (report, occupancy, *again):
        stream.data_received(memoryview(message))
    node = aggregator._status()["nodes"][0]
    assert (node["missing"], node["sentAgain"]) == ([], 0)
    assert aggregator.nodes.as_dicts()[0]["occupants"] is None
    assert not stream.repeating
    assert (stream.stats.records, stream.stats.ignored_records) == (1, 3)
    assert not stream.stats.malformed


async def test_the_status_has_what_an_exporter_says_is_missing() -> None:
    aggregator = built()
    stream = reported(aggregator, "192.0.2.1", connection(1), answer=unheard)
    for report in (ExporterReport(7, 8, 0, 0, 0), ExporterReport(7, 8, 0, 1, 0)):
        message = report_message(1, report, export_time=1, sequence=0)
        stream.data_received(memoryview(message))
    node = aggregator._status()["nodes"][0]
    assert node["missing"] == ["at most 1 connections began and ended unseen"]
    stream.closed()
    assert aggregator._status()["nodes"][0]["missing"] == node["missing"]


async def test_when_an_exporter_missed_more_outlasts_its_sessions() -> None:
    """What was missed lately is a warning, what was missed long ago is none."""
    aggregator = built()

    def heard(*reports: tuple[int, int, int]) -> float:
        stream = aggregator.collector.open(Peer("192.0.2.1", 5000, answer=unheard))
        for missed in reports:
            message = report_message(1, ExporterReport(7, 8, *missed), export_time=1, sequence=0)
            stream.data_received(memoryview(message))
        stream.closed()
        (reporter,) = aggregator.collector.reporters()
        return reporter.missed_s or 0.0

    assert heard((0, 0, 0)) == 0.0
    assert aggregator._status()["nodes"][0]["missedLastSeconds"] is None
    first = heard((0, 0, 0), (2, 0, 0), (2, 0, 0))
    assert first > 0.0
    assert aggregator._status()["nodes"][0]["missedLastSeconds"] < 60
    assert heard((2, 0, 0)) == first  # the same, told once more
    second = heard((2, 0, 1))
    assert second > first
    assert heard((0, 0, 0)) == second  # it began anew, and misses nothing
    assert heard((0, 1, 0)) > second


async def test_a_session_says_how_much_of_it_is_durable() -> None:
    aggregator = built()
    said: list[bytes] = []
    stream = reported(aggregator, "192.0.2.1", connection(1), connection(2), answer=said.append)
    stream.acknowledge(1)
    (session,) = aggregator._status()["sessions"]
    assert (session["acknowledged"], session["waiting"], session["sentAgain"]) == (1, 1, 0)
    stream.closed()
    (one,) = [node for node in aggregator._status()["nodes"] if node["acknowledged"] is not None]
    assert (one["acknowledged"], one["waiting"]) == (1, 0)


def test_the_metrics_of_nodes() -> None:
    full, unknown = ExporterReport(900, 1000, 4, 3, 2), ExporterReport(30, 0, 0, 0, 0)
    reporters = [
        Reporter("192.0.2.1", "", 8, 5.0, open=True, acknowledged=6, waiting=2, sent_again=5,
                 ahead_s=-2.5, report=full),
        Reporter("2001:db8::b", "", 4, 7.0, open=False, report=unknown),
    ]  # fmt: skip
    registry = CollectorRegistry()
    nodes = NodesCollector("x", lambda: by_node(reporters, cluster().nodes), clock=lambda: 17.5)
    registry.register(nodes)
    lines = generate_latest(registry).decode().splitlines()
    assert {line for line in lines if not line.startswith("#") and "_created" not in line} == {
        'x_node_received_total{node="a"} 8.0',
        'x_node_received_total{node="b"} 4.0',
        'x_node_received_total{node="c"} 0.0',
        'x_node_sent_again_total{node="a"} 5.0',
        'x_node_acknowledged_total{node="a"} 6.0',
        'x_node_waiting{node="a"} 2.0',
        'x_node_sessions{node="a"} 1.0',
        'x_node_sessions{node="b"} 0.0',
        'x_node_sessions{node="c"} 0.0',
        'x_node_silent_seconds{node="a"} 12.5',
        'x_node_silent_seconds{node="b"} 10.5',
        'x_node_clock_ahead_seconds{node="a"} -2.5',
        'x_node_missed{node="a"} 7.0',
        'x_node_missed{node="b"} 0.0',
        'x_node_dropped{node="a"} 2.0',
        'x_node_dropped{node="b"} 0.0',
        'x_node_conntrack_entries{node="a"} 900.0',
        'x_node_conntrack_entries{node="b"} 30.0',
        'x_node_conntrack_limit{node="a"} 1000.0',
    }


def test_what_a_node_was_like_is_no_more_known_of_one_that_is_silent() -> None:
    """Else a full table, or a clock that is wrong, would be an alert until the aggregator ends."""
    full = ExporterReport(990, 1000, 4, 3, 2)
    reporters = [
        Reporter("192.0.2.1", "", 8, 5.0, open=False, ahead_s=9.0, report=full),
    ]

    def known(now_s: float) -> set[str]:
        read = NodesCollector("x", lambda: by_node(reporters, cluster().nodes), lambda: now_s)
        return {
            one.name for one in read.collect() for sample in one.samples
            if sample.labels["node"] == "a"
        }  # fmt: skip

    state = {f"x_node_{what}" for what in ("clock_ahead_seconds", "conntrack_entries",
                                           "conntrack_limit")}  # fmt: skip
    assert state < known(300.0)
    assert known(300.0) - known(400.0) == state


def test_a_node_that_left_the_cluster_is_not_one_without_a_session() -> None:
    inventory = cluster()
    reporters = [
        reporter("192.0.2.1", "a"),
        reporter("2001:db8::b", "b", is_open=False),
        reporter("203.0.113.1", "router", is_open=False),
    ]
    collector = NodesCollector(
        "x",
        lambda: by_node(reporters, inventory.nodes),
        listed=lambda: frozenset(one.name for one in inventory.nodes.objects),
    )

    def without() -> set[str]:
        (sessions,) = (one for one in collector.collect() if one.name == "x_node_sessions")
        return {sample.labels["node"] for sample in sessions.samples if not sample.value}

    assert without() == {"b", "c", "router"}
    inventory.delete(node("a", "192.0.2.1"), 0)
    inventory.delete(node("b", "2001:db8::b"), 0)
    assert without() == {"c", "router"}  # `a` has a session, `router` was never a node
    inventory.upsert(node("b", "2001:db8::b"), 0)
    assert without() == {"b", "c", "router"}


def test_roll_ups_are_in_the_books_with_the_second_until_which_they_have_all() -> None:
    """What has no store, or has not looked through it yet, says nothing of them."""
    aggregator = built()

    def entries(settled: dict[str, int]) -> list[BookEntry]:
        books = book_entries(
            aggregator.ledger, lambda: aggregator.nodes, time.monotonic, bool, lambda: settled
        )
        return [each for each in books(60) if each.what is What.SETTLED]

    assert entries({"flow_minutes": 1_790_000_040_999}) == [
        BookEntry("flow_minutes", What.SETTLED, 1_790_000_040)
    ]
    assert entries({}) == []
    assert not any(each.what is What.SETTLED for each in aggregator._books._entries(60))
    assert not What.SETTLED.counts
