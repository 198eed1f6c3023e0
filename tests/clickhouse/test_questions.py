"""Questions against real engines; what is expected is worked out of the rows one by one."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from aggregator.records import records
from flowvis.clickhouse.query import QueryLimits
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import QuerySettings, Store, open_store
from flowvis.errors import StoreError
from flowvis.filters import Operator, networks, quote
from flowvis.filters.networks import NetworkNames
from flowvis.filters.vocabulary import dimensions, lookup
from flowvis.questions import graph, table
from flowvis.questions import groups as of_groups
from flowvis.questions.graph import GraphQuestion
from flowvis.questions.pages import PageQuestion
from flowvis.questions.table import TableQuestion

from .asking import NOW_MS, ask
from .conftest import MakeStore, migrate, place
from .samples import STORED, flows

pytestmark = pytest.mark.clickhouse

Row = dict[str, Any]
END_S = NOW_MS // 1000
PODS = [("shop", "cart", "cart-0"), ("shop", "cart", "cart-1"), ("shop", "orders", "orders-0"),
        ("bank", "api", "api-0"), ("bank", "", "bare")]  # fmt: skip


def _rows(count: int, seed: int, begin_s: int) -> list[Row]:
    """Intervals of connections between Pods, nodes and others, at random."""
    dice = random.Random(seed)
    found: list[Row] = []
    while len(found) < count:
        source, target = dice.choice(PODS), dice.choice([*PODS, None, None])
        start, port = begin_s + dice.randrange(3000), dice.randrange(1024, 60000)
        denied, before = dice.random() < 0.2, Counter[str]()
        for nth in range(dice.choice([1, 1, 2, 4])):
            began, end = start + nth * 60, start + nth * 60 + dice.randrange(1, 60)
            grown = {name: dice.choice([0, 40, 1500, 2**33]) for name in ("octet", "reverseOctet")}
            packets = {
                "packet": grown["octet"] // 40,
                "reversePacket": 0 if denied else grown["reverseOctet"] // 40,
            }
            before.update(grown | packets)
            outside = target is None and dice.random() < 0.7
            found.append(
                {
                    "flowStartSeconds": start,
                    "flowEndSeconds": end,
                    "monitoringIntervalStartMilliSeconds": began * 1000 + (0 if nth else 250),
                    "flowEndReason": dice.choice([2, 3]),
                    "sourceIP": f"10.0.0.{PODS.index(source)}",
                    "destinationIP": "203.0.113.9" if outside else "10.0.1.1",
                    "sourceTransportPort": port,
                    "destinationTransportPort": dice.choice([80, 443]),
                    "protocolIdentifier": 6,
                    "sourcePodNamespace": source[0],
                    "sourceWorkloadName": source[1],
                    "sourcePodName": source[2],
                    "sourceNodeName": "n1",
                    "sourcePodLabels": f'{{"app":"{source[1] or "none"}"}}',
                    "destinationPodNamespace": target[0] if target else "",
                    "destinationWorkloadName": target[1] if target else "",
                    "destinationPodName": target[2] if target else "",
                    "destinationNodeName": "" if outside else "n2",
                    "flowType": 3 if outside else 2,
                    "ingressNetworkPolicyRuleAction": dice.choice([2, 3]) if denied else 1,
                    "throughput": dice.randrange(10**9),
                    **{f"{name}DeltaCount": value for name, value in (grown | packets).items()},
                    **{f"{name}TotalCount": before[name] for name in (*grown, *packets)},
                }
            )  # fmt: skip
    return found


ROWS = _rows(400, 1, END_S - 3600)
EARLIER = _rows(150, 2, END_S - 7200)
IN_RANGE = [row for row in ROWS if row["flowEndSeconds"] < END_S]
BEFORE = [row for row in [*EARLIER, *ROWS] if END_S - 7200 <= row["flowEndSeconds"] < END_S - 3600]
EDGE = [row for row in EARLIER if row["flowEndSeconds"] >= END_S - 3600]
"""Of those that began in the hour before, the ones that are of the range."""
NOW = [*IN_RANGE, *EDGE]


@pytest.fixture(scope="module", params=["server", "embedded", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with the rows in it, in two commits."""
    settings = replace(place(request, f"questions_{request.param}"), ttl_s=0)
    store = open_store(settings)
    migrate(store)
    store.insert(records(*ROWS, fields=STORED), BatchId("test", END_S, 0))
    store.insert(records(*EARLIER, fields=STORED), BatchId("test", END_S, 1))
    if request.param == "cluster":
        request.getfixturevalue("cluster").sync(settings.database)
    yield store
    store.close()


def _first(row: Row) -> bool:
    return bool(
        row["packetTotalCount"] == row["packetDeltaCount"]
        and row["reversePacketTotalCount"] == row["reversePacketDeltaCount"]
        and row["monitoringIntervalStartMilliSeconds"] // 1000 == row["flowStartSeconds"]
    )


def _denied(row: Row) -> bool:
    return row["ingressNetworkPolicyRuleAction"] in {2, 3}


def _end(row: Row, side: str) -> tuple[str, str]:
    pod = row[f"{side}PodName"]
    return (row[f"{side}PodNamespace"], pod) if pod else ("", row[f"{side}IP"])


def _unanswered(row: Row) -> bool:
    ended = row["flowEndReason"] == 3 and row["packetTotalCount"] and not _denied(row)
    return bool(ended and not row["reversePacketTotalCount"])


EXPECTED: dict[str, Callable[[Sequence[Row]], int]] = {
    "octets": lambda rows: sum(row["octetDeltaCount"] for row in rows),
    "reverseOctets": lambda rows: sum(row["reverseOctetDeltaCount"] for row in rows),
    "bothOctets": lambda rows: sum(
        row["octetDeltaCount"] + row["reverseOctetDeltaCount"] for row in rows
    ),
    "packets": lambda rows: sum(row["packetDeltaCount"] for row in rows),
    "reversePackets": lambda rows: sum(row["reversePacketDeltaCount"] for row in rows),
    "connections": lambda rows: sum(map(_first, rows)),
    "ended": lambda rows: sum(row["flowEndReason"] == 3 for row in rows),
    "live": lambda rows: len(
        {(row["sourceIP"], row["destinationIP"], row["sourceTransportPort"],
          row["destinationTransportPort"], row["flowStartSeconds"]) for row in rows}
    ),
    "denied": lambda rows: sum(_first(row) and _denied(row) for row in rows),
    "unanswered": lambda rows: sum(map(_unanswered, rows)),
    "peakThroughput": lambda rows: max((row["throughput"] for row in rows), default=0),
    "sources": lambda rows: len({_end(row, "source") for row in rows}),
    "destinations": lambda rows: len({_end(row, "destination") for row in rows}),
    "records": len,
}  # fmt: skip


def _groups(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _workload(row: Row, side: str) -> str:
    name = row[f"{side}WorkloadName"] or row[f"{side}PodName"]
    return f"{row[f'{side}PodNamespace']}/{name}" if name else ""


@pytest.mark.parametrize("measure", EXPECTED)
def test_each_measure_of_everything(store: Store, measure: str) -> None:
    found = ask(store, TableQuestion, measure=measure)
    assert found["total"] == [EXPECTED[measure](NOW)]
    assert found["rows"] == [found["total"]]
    assert found["other"] is None


@pytest.mark.parametrize("measures", [["octets", "denied"], ["connections", "sources"]])
@pytest.mark.parametrize("limit", [2, 50])
def test_groups_what_is_left_and_the_total(store: Store, measures: list[str], limit: int) -> None:
    found = ask(
        store,
        TableQuestion,
        by="src.workload,dst.port",
        measure=",".join(measures),
        limit=str(limit),
    )
    groups = _groups(NOW, lambda row: (_workload(row, "source"), row["destinationTransportPort"]))
    numbers = {key: [EXPECTED[name](rows) for name in measures] for key, rows in groups.items()}
    order = sorted(numbers, key=lambda key: (-numbers[key][0], key))
    assert found["rows"] == [[*key, *numbers[key]] for key in order[:limit]]
    rest = [row for key in order[limit:] for row in groups[key]]
    assert found["other"] == ([EXPECTED[name](rest) for name in measures] if rest else None)
    assert found["total"] == [EXPECTED[name](NOW) for name in measures]
    assert [column["name"] for column in found["columns"]] == [
        "src.workload",
        "dst.port",
        *measures,
    ]


def test_a_filter_chooses_before_anything_is_counted(store: Store) -> None:
    text = "src.namespace = shop and dst.ip in 203.0.113.0/24 and port = 443"
    found = ask(store, TableQuestion, text, by="dst.ip,proto,type", measure="octets,records")
    chosen = [
        row
        for row in NOW
        if row["sourcePodNamespace"] == "shop"
        and row["destinationIP"] == "203.0.113.9"
        and row["destinationTransportPort"] == 443
    ]
    octets = EXPECTED["octets"](chosen)
    assert chosen
    assert found["rows"] == [["203.0.113.9", "tcp", "to-external", octets, len(chosen)]]


def test_series_have_a_number_for_every_interval(store: Store) -> None:
    measures = ["octets", "sources"]
    found = ask(
        store,
        TableQuestion,
        by="src.namespace",
        measure=",".join(measures),
        limit="1",
        interval="7m",
    )
    begin = (END_S - 3600) // 420 * 420
    times = list(range(begin, END_S, 420))
    assert found["times"] == [time * 1000 for time in times]
    octets = {
        name: EXPECTED["octets"](rows)
        for name, rows in _groups(NOW, lambda row: row["sourcePodNamespace"]).items()
    }
    largest = max(octets, key=lambda name: octets[name])

    def series(rows: Sequence[Row]) -> list[list[int]]:
        parts = _groups(rows, lambda row: (row["flowEndSeconds"] - begin) // 420)
        return [[EXPECTED[m](parts.get(n, [])) for n in range(len(times))] for m in measures]

    assert found["series"] == [series([r for r in NOW if r["sourcePodNamespace"] == largest])]
    assert found["otherSeries"] == series([r for r in NOW if r["sourcePodNamespace"] != largest])
    assert found["totalSeries"] == series(NOW)


def test_throughput_is_over_what_of_an_interval_is_in_the_range(store: Store) -> None:
    found = ask(store, TableQuestion, measure="throughput", interval="40m")
    octets = EXPECTED["octets"](NOW)
    assert found["total"] == [octets * 8 / 3600]
    (first, *_), (start, *_) = found["totalSeries"][0], found["times"]
    seconds = start // 1000 + 2400 - (END_S - 3600)
    part = [row for row in NOW if row["flowEndSeconds"] < start // 1000 + 2400]
    assert first == EXPECTED["octets"](part) * 8 / seconds
    assert seconds < 2400


@pytest.mark.parametrize("interval", ["none", "10m"])
def test_a_comparison_is_of_the_same_groups(store: Store, interval: str) -> None:
    found = ask(
        store, TableQuestion, by="src.pod", measure="octets", limit="3",
        compare="previous", interval=interval,
    )  # fmt: skip
    before = {
        name: EXPECTED["octets"](rows)
        for name, rows in _groups(
            BEFORE, lambda r: f"{r['sourcePodNamespace']}/{r['sourcePodName']}"
        ).items()
    }
    compared = found["compared"]
    assert (compared["from"], compared["to"]) == (NOW_MS - 7_200_000, NOW_MS - 3_600_000)
    assert compared["rows"] == [[before[name]] for name, _ in found["rows"]]
    assert compared["total"] == [EXPECTED["octets"](BEFORE)]
    if interval != "none":
        assert len(compared["times"]) == len(found["times"])
        assert sum(compared["totalSeries"][0]) == compared["total"][0]
    nobody = ask(store, TableQuestion, "src.pod = cart-0", by="src.pod", compare="-30d")
    assert nobody["compared"]["rows"] == [None]
    assert nobody["compared"]["total"] == [0]


@pytest.mark.parametrize("interval", ["none", "10m"])
def test_a_comparison_is_of_values_and_not_of_what_these_are_made_of(
    embedded: Store, interval: str
) -> None:
    """Of one application are other Pods now, with other labels and other policies."""
    rows = [
        {
            "flowStartSeconds": end_s - 60,
            "flowEndSeconds": end_s,
            "octetDeltaCount": octets,
            "sourcePodNamespace": "shop",
            "sourcePodName": f"web-{octets}",
            "sourceWorkloadName": "web",
            "sourceWorkloadKind": "Deployment",
            "sourcePodLabels": f'{{"app":"web","pod-template-hash":"{octets}"}}',
            "ingressNetworkPolicyRuleAction": 1,
            "egressNetworkPolicyRuleAction": octets % 2,
        }
        for end_s, octets in ((END_S - 50, 10), (END_S - 3650, 21), (END_S - 3700, 41))
    ]
    embedded.insert(records(*rows, fields=STORED), BatchId("test", END_S))
    for by in ("src.label.app", "src.kind", "verdict"):
        found = ask(
            embedded, TableQuestion, by=by, measure="octets,sources", compare="previous",
            interval=interval,
        )  # fmt: skip
        assert [row[1:] for row in found["rows"]] == [[10, 1]], by
        compared = found["compared"]
        assert (compared["rows"], compared["other"]) == ([[62, 2]], None), by
        if interval != "none":
            assert sum(compared["series"][0][0]) == 62


def test_a_kind_has_series_however_many_pods_are_of_it(
    embedded: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each Pod was a key of its own, of which a statement has only so many."""
    rows = [
        {
            "flowStartSeconds": END_S - 60, "flowEndSeconds": END_S - 50, "octetDeltaCount": 3,
            "sourcePodName": f"web-{number}" if number < 20 else "",
            "sourceNodeName": f"node-{number}", "sourceWorkloadName": "web" if kind else "",
            "sourceWorkloadKind": kind,
        }
        for number, kind in enumerate(["Deployment"] * 20 + [""] * 2)
    ]  # fmt: skip
    embedded.insert(records(*rows, fields=STORED), BatchId("test", END_S))
    with monkeypatch.context() as patch:
        patch.setattr(of_groups, "MAX_KEYS", 5)
        found = ask(embedded, TableQuestion, by="src.kind", measure="octets", interval="10m")
    assert found["rows"] == [["Deployment", 60], ["Node", 6]]


@pytest.mark.parametrize("interval", ["none", "10m"])
def test_where_there_is_nothing_all_of_before_is_of_others(store: Store, interval: str) -> None:
    found = ask(
        store, TableQuestion, since="now", to="+1h", by="src.pod", measure="octets,sources",
        compare="-1h", interval=interval,
    )  # fmt: skip
    compared = found["compared"]
    assert (found["rows"], found["other"], compared["rows"]) == ([], None, [])
    assert compared["total"] == [EXPECTED[name](NOW) for name in ("octets", "sources")]
    assert compared["other"] == compared["total"]
    assert compared["otherSeries"] == compared["totalSeries"]


@pytest.mark.parametrize("end", ["source", "target"])
def test_ends_can_be_grouped_by_the_workload_of_the_other_end(store: Store, end: str) -> None:
    """That tells little, and is an answer all the same."""
    other = {"source": "dst.workload", "target": "src.workload"}
    found = ask(store, GraphQuestion, **{end: other[end]})
    assert sum(edge["octets"] for edge in found["edges"]) == EXPECTED["octets"](NOW)


def test_nothing_at_all(store: Store) -> None:
    found = ask(store, TableQuestion, since="-30d..-29d", by="src.pod", interval="auto")
    assert found["rows"] == []
    assert found["other"] is None
    assert found["total"] == [0]
    assert set(found["totalSeries"][0]) == {0}
    graph = ask(store, GraphQuestion, since="-30d..-29d")
    assert (graph["nodes"], graph["edges"], graph["others"]) == ([], [], None)
    page = ask(store, PageQuestion, since="-30d..-29d")
    assert (page["rows"], page["cursor"]) == ([], None)


def test_values_with_quotes_and_of_no_language(store: Store) -> None:
    for text in ("it's", "a\\'b", "{p0:String}", "日本", "\\x41"):
        assert ask(store, TableQuestion, f'src.pod = "{text}"')["total"] == [0]


def _node(row: Row, side: str) -> str:
    if row[f"{side}PodName"]:
        kind = "workload" if row[f"{side}WorkloadName"] else "pod"
        return f"{kind}:{_workload(row, side)}"
    if row["flowType"] == 3:
        return "external"
    return f"node:{row[f'{side}NodeName']}"


@pytest.mark.parametrize("limit", [3, 300])
def test_the_graph_adds_up(store: Store, limit: int) -> None:
    found = ask(store, GraphQuestion, limit=str(limit))
    edges = _groups(NOW, lambda row: (_node(row, "source"), _node(row, "destination")))
    both = {edge: EXPECTED["bothOctets"](rows) for edge, rows in edges.items()}
    order = sorted(both, key=lambda edge: (-both[edge], edge))
    shown = {(edge["source"], edge["target"]): edge for edge in found["edges"]}
    assert list(shown) == order[:limit]
    for edge, rows in edges.items():
        if edge in shown:
            for name in ("octets", "reverseOctets", "connections", "denied", "unanswered"):
                assert shown[edge][name] == EXPECTED[name](rows), (edge, name)
    left = found["others"]["edges"] if found["others"] else []
    assert sum(edge["bothOctets"] for edge in [*found["edges"], *left]) == sum(both.values())
    assert (found["others"]["hidden"] if left else 0) == max(len(order) - limit, 0)
    nodes = {node["id"]: node for node in found["nodes"]}
    assert set(nodes) == {end for edge in order[:limit] for end in edge}
    for name, node in nodes.items():
        rows = [row for edge, rows in edges.items() if name in edge for row in rows]
        assert node["bothOctets"] == EXPECTED["bothOctets"](rows)
    assert nodes.get("external", {"kind": "external"})["kind"] == "external"


def test_edges_that_are_not_fetched_are_in_the_sums(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(store, GraphQuestion, limit="2000")
    with monkeypatch.context() as patch:
        patch.setattr(graph, "FETCHED", 3)
        found = ask(store, GraphQuestion, limit="2")
    assert found["edges"] == whole["edges"][:2]
    (beyond,) = (
        edge for edge in found["others"]["edges"] if edge["source"] == edge["target"] == "others"
    )
    for name in ("octets", "packets", "connections", "denied"):
        left = [edge[name] for edge in whole["edges"][3:]]
        assert beyond[name] in (sum(left), sum(left) + whole["edges"][2][name]), name
        everything = [*found["edges"], *found["others"]["edges"]]
        assert sum(edge[name] for edge in everything) == sum(e[name] for e in whole["edges"])


def test_edges_that_are_shown_are_compared_however_small_they_were(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"compare": "previous", "source": "src.pod", "target": "dst.pod"}
    whole = ask(store, GraphQuestion, limit="2000", **parameters)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "FETCHED", 4)
        found = ask(store, GraphQuestion, limit="2000", **parameters)
    shown = {(e["source"], e["target"]) for each in _both(found) for e in each["edges"]}
    assert 4 < len(shown) < len(whole["edges"])
    for few, every in zip(_both(found), _both(whole), strict=True):
        expected = [e for e in every["edges"] if (e["source"], e["target"]) in shown]
        assert few["edges"] == expected
        sums = [
            sum(
                e["bothOctets"]
                for e in [*each["edges"], *(each["others"] or {"edges": ()})["edges"]]
            )
            for each in (few, every)
        ]
        assert sums[0] == sums[1]


def _both(document: Any) -> tuple[Any, Any]:
    return document, document["compared"]


@pytest.mark.parametrize("text", ["", "dst.port = 80 or type = to-external"])
def test_what_is_left_of_many_groups_is_what_is_left_of_the_total(
    store: Store, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    parameters = {"by": "src.pod,dst.ip", "measure": "octets,connections,denied", "limit": "3"}
    of_all_groups = ask(store, TableQuestion, text, **parameters)
    assert of_all_groups["other"]
    with monkeypatch.context() as patch:
        patch.setattr(table, "GROUPS", 3)
        assert ask(store, TableQuestion, text, **parameters) == of_all_groups


@pytest.fixture
def named() -> Iterator[None]:
    networks.enforce(
        NetworkNames(
            [
                ("anything (rest)", [ip_network("0.0.0.0/0"), ip_network("::/0")]),
                ("partner", [ip_network("203.0.113.8/30"), ip_network("2001:db8::/127")]),
            ]
        )
    )
    yield
    networks.enforce(NetworkNames())


def _outside(row: Row) -> str:
    return "" if row["destinationPodName"] or row["destinationNodeName"] else "partner"


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("more", [{}, {"interval": "10m", "compare": "previous"}])
def test_groups_by_the_name_of_a_network(store: Store, more: dict[str, str]) -> None:
    by = "src.network,dst.network,dst.port"
    found = ask(store, TableQuestion, by=by, measure="octets,denied", **more)
    expected = _groups(NOW, lambda row: ("", _outside(row), row["destinationTransportPort"]))
    rows = {tuple(row[:3]): row[3:] for row in found["rows"]}
    assert len(rows) == 4
    assert rows == {
        key: [EXPECTED["octets"](rows), EXPECTED["denied"](rows)] for key, rows in expected.items()
    }
    chosen = ask(store, TableQuestion, "network = partner and src.network is empty", **more)
    assert chosen["total"] == [EXPECTED["octets"]([row for row in NOW if _outside(row)])]


@pytest.mark.usefixtures("named")
def test_the_graph_has_the_names_of_networks(store: Store) -> None:
    found = ask(store, GraphQuestion)
    (node,) = (node for node in found["nodes"] if node["kind"] == "external")
    assert (node["id"], list(node["names"])) == ("external:partner", ["partner"])
    rows = [row for row in NOW if _outside(row)]
    assert node["bothOctets"] == EXPECTED["bothOctets"](rows)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("src.ip,dst.ip", [["1::2", "3:4::5"], ["1::2:3", "4::5"]]),
        ("src.ip,src.port", [["1::2"], ["1::2:3"]]),
        ("src.ip,src.workload", [["1::2"], ["1::2:3"]]),
        ("src.ip", [["1::2"], ["1::2:3"]]),
    ],
)
def test_ends_that_differ_are_nodes_of_their_own(
    embedded: Store, by: str, names: list[list[str]]
) -> None:
    """Also where addresses would join to the same text, or the last name says nothing."""
    rows = [
        {
            "flowStartSeconds": END_S - 60,
            "flowEndSeconds": END_S - 50,
            "sourceIP": source,
            "destinationIP": destination,
            "protocolIdentifier": 58,  # has no ports
            "octetDeltaCount": 10,
            "flowType": 3,
        }
        for source, destination in (("1::2:3", "4::5"), ("1::2", "3:4::5"))
    ]
    embedded.insert(records(*rows, fields=STORED), BatchId("test", END_S))
    found = ask(embedded, GraphQuestion, source=by, target="dst.namespace")
    sources = {edge["source"] for edge in found["edges"]}
    nodes = {node["id"]: node for node in found["nodes"] if node["id"] in sources}
    assert sorted(list(node["names"]) for node in nodes.values()) == names
    assert [edge["octets"] for edge in found["edges"]] == [10, 10]
    assert not any(" " in name for name in nodes)


def test_graphs_of_two_ranges_have_the_same_edges(store: Store) -> None:
    found = ask(
        store, GraphQuestion, source="src.namespace", target="dst.namespace", limit="2",
        compare="previous",
    )  # fmt: skip
    before = found["compared"]
    assert [node["id"] for node in before["nodes"]] == [node["id"] for node in found["nodes"]]
    everything = [*before["edges"], *before["others"]["edges"]]
    assert sum(edge["octets"] for edge in everything) == EXPECTED["octets"](BEFORE)


def test_pages_have_every_record_once_newest_first(store: Store) -> None:
    seen: list[list[Any]] = []
    page = ask(store, PageQuestion, limit="37", columns="flowEndSeconds,sourceIP,octetDeltaCount")
    seen += page["rows"]
    while page["cursor"]:
        assert len(page["rows"]) == 37
        page = ask(
            store, PageQuestion, limit="37", columns="flowEndSeconds,sourceIP,octetDeltaCount",
            cursor=page["cursor"],
        )  # fmt: skip
        seen += page["rows"]
    assert [row[0] for row in seen] == sorted((row[0] for row in seen), reverse=True)
    expected = [[r["flowEndSeconds"] * 1000, r["sourceIP"], r["octetDeltaCount"]] for r in NOW]
    assert sorted(seen) == sorted(expected)


def test_pages_are_of_all_columns_unless_some_are_named(store: Store) -> None:
    page = ask(store, PageQuestion, "src.pod = cart-0", limit="1")
    names = [column["name"] for column in page["columns"]]
    row = dict(zip(names, page["rows"][0], strict=True))
    assert row["sourcePodName"] == "cart-0"
    assert row["flowEndSeconds"] % 1000 == 0
    assert row["octetTotalCount"] >= row["octetDeltaCount"]
    kinds = {column["name"]: column["type"] for column in page["columns"]}
    assert [kinds[n] for n in ("timeInserted", "sourceIP", "tcpState", "trusted")] == [
        "time", "address", "text", "number",
    ]  # fmt: skip


@pytest.fixture
def growing(settings: Any) -> Iterator[Store]:
    store = open_store(settings)
    store.migrate()
    yield store
    store.close()


def test_what_comes_meanwhile_moves_no_page(growing: Store) -> None:
    """Alike records, of one second and one commit, are pages of their own as well."""
    alike = [{"flowEndSeconds": END_S - 5, "sourceTransportPort": 7, "sourcePodName": "same"}] * 5
    others = [{"flowEndSeconds": END_S - 5, "sourceTransportPort": n} for n in range(20, 24)]
    growing.insert(records(*alike, *others, fields=STORED), BatchId("test", END_S, 0))
    seen: list[Any] = []
    page = ask(growing, PageQuestion, limit="2", columns="sourceTransportPort")
    for number in range(1, 10):
        seen += [port for (port,) in page["rows"]]
        if not page["cursor"]:
            break
        newer = {"flowEndSeconds": END_S - 1, "sourceTransportPort": 100 + number}
        growing.insert(records(newer, fields=STORED), BatchId("test", END_S, number))
        page = ask(
            growing, PageQuestion, limit="2", columns="sourceTransportPort", cursor=page["cursor"]
        )
    assert sorted(seen) == [7] * 5 + [20, 21, 22, 23]


def test_old_records_are_counted_as_new_ones_are(growing: Store) -> None:
    """Records of a time before there were flags of what is counted."""
    run: Callable[[str], object] = growing._execute  # type: ignore[attr-defined]
    database = growing._settings.database  # type: ignore[attr-defined]
    for flag in ("firstRecord", "unanswered"):
        run(f"ALTER TABLE {database}.flow_records DROP COLUMN {flag}")
    growing.insert(records(*ROWS, fields=STORED), BatchId("test", END_S, 0))
    growing.migrate()
    growing.insert(records(*ROWS, fields=STORED), BatchId("test", END_S, 1))
    found = ask(growing, TableQuestion, measure="connections,unanswered")
    assert found["total"] == [2 * EXPECTED[m](IN_RANGE) for m in ("connections", "unanswered")]


def _chooses(name: str, value: Any) -> str:
    """A filter of what a group has under a name."""
    if value == "" and Operator.EMPTY in lookup(name).operators:
        return f"{name} is empty"
    return f"{name} = {quote(str(value))}"


def test_every_name_groups_as_it_chooses(store: Store) -> None:
    """What a row has under each name is what a filter with its value finds, and all adds up."""
    names = [name.name for name in dimensions() if not name.column]
    assert {"src.workload", "dst.ip", "proto", "verdict", "dst.policy"} <= set(names)
    for name in [*names, "src.label.app", "clusterId", "tcpState", "proxySnatIP"]:
        found = ask(store, TableQuestion, by=name, measure="octets,records", limit="3")
        parts = [row[1:] for row in found["rows"]] + ([found["other"]] if found["other"] else [])
        assert [sum(column) for column in zip(*parts, strict=True)] == found["total"], name
        value, *numbers = found["rows"][-1]
        chosen = ask(store, TableQuestion, _chooses(name, value), measure="octets,records")
        assert chosen["total"] == numbers, (name, value)


def test_what_reads_too_many_records_is_refused_and_else_says_how_many(
    make_store: MakeStore,
) -> None:
    """Old servers count a granule of 8192 records as read when they open it."""
    limits = QueryLimits(rows_read=20_000)
    store = make_store(queries=QuerySettings(limits=limits))
    store.migrate()
    store.insert(flows(8000), BatchId("test", END_S, 0))
    query = store.ask("SELECT sum(octetDeltaCount) FROM flow_records")
    assert query.result().rows == [[800_000]]
    assert query.cost.rows == 8000
    assert query.cost.octets >= 8000 * 8
    store.insert(flows(30_000), BatchId("test", END_S, 1))
    with pytest.raises(StoreError) as error:
        store.ask("SELECT sum(octetDeltaCount) FROM flow_records").result()
    assert error.value.code == 158
