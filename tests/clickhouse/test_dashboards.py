"""Queries that existing dashboards and tools make of the documented schema, as they write them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from flowvis.batch import address_bytes
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.tables import DOCUMENTED, NARROW_VIEWS
from flowvis.clickhouse.store import Store, open_store

from .conftest import migrate, place
from .samples import flows

END = 1_790_000_000
EXCLUDED = "('kube-system', 'flow-visibility', 'flow-aggregator')"
IN_RANGE = (
    f"flowEndSeconds >= toDateTime({END - 1800}) AND flowEndSeconds <= toDateTime({END + 60})"
)
BUCKET = "toStartOfInterval(toDateTime(flowEndSeconds), INTERVAL 60 second)"


@pytest.fixture(scope="module", params=["server", "embedded", "cluster"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Six records: Pod to Pod twice, to a service, to outside, a denied one, a kube-system one."""
    batch = flows(6, end_s=END)
    texts = {
        "sourcePodName": ["a", "a", "b", "b", "c", "dns"],
        "sourcePodNamespace": ["red", "red", "red", "red", "blue", "kube-system"],
        "sourceNodeName": ["n1", "n1", "n2", "n2", "n1", "n1"],
        "destinationPodName": ["x", "x", "y", "", "x", "x"],
        "destinationPodNamespace": ["green", "green", "green", "", "green", "green"],
        "destinationNodeName": ["n2", "n2", "n2", "", "n2", "n2"],
        "destinationServicePortName": ["", "", "green/y:http", "", "", ""],
        "ingressNetworkPolicyName": ["allow-x", "allow-x", "", "", "deny-x", ""],
        "ingressNetworkPolicyNamespace": ["green", "green", "", "", "green", ""],
        "egressNetworkPolicyName": ["", "", "", "out", "", ""],
        "sourcePodLabels": ['{"app":"a"}'] * 6,
        "clusterId": ["c1"] * 6,
    }
    for name, values in texts.items():
        batch[name] = batch.strings.encode(values)
    numbers = {
        "flowType": (np.uint8, [2, 2, 2, 3, 2, 2]),
        "flowEndReason": (np.uint8, [2, 3, 2, 2, 3, 3]),
        "ingressNetworkPolicyRuleAction": (np.uint8, [1, 1, 0, 0, 2, 0]),
        "egressNetworkPolicyRuleAction": (np.uint8, [0, 0, 0, 1, 0, 0]),
        "destinationServicePort": (np.uint16, [0, 0, 80, 0, 0, 0]),
        "reverseOctetDeltaCount": (np.uint64, [10, 20, 30, 40, 50, 60]),
        "throughput": (np.uint64, [800, 1600, 2400, 3200, 4000, 4800]),
        "throughputFromSourceNode": (np.uint64, [800, 0, 2400, 3200, 4000, 4800]),
        "protocolIdentifier": (np.uint8, [6] * 6),
    }
    for name, (kind, given) in numbers.items():
        batch[name] = np.array(given, kind)
    for name, texts6 in (
        ("sourceIP", ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2", "2001:db8::3", "10.0.0.4"]),
        ("destinationIP", ["10.0.1.1"] * 3 + ["203.0.113.7", "2001:db8::4", "10.0.1.1"]),
        ("destinationClusterIP", ["", "", "10.96.0.9", "", "", ""]),
    ):
        batch[name] = np.array([list(address_bytes(text or "::")) for text in texts6], np.uint8)
    with closing(open_store(place(request, "dashboards"))) as store:
        migrate(store)
        store.insert(batch, BatchId("test", END + 8))
        if request.param == "cluster":
            request.getfixturevalue("cluster").sync("dashboards")
        yield store


def ask(store: Store, sql: str) -> list[list[object]]:
    return [list(row) for row in store.query(sql).rows]


@pytest.mark.clickhouse
def test_every_documented_column_of_the_insert_is_selectable(store: Store) -> None:
    for name in DOCUMENTED:
        assert len(ask(store, f"SELECT {name} FROM flows LIMIT 10")) == 6, name
    answer = store.query(f"SELECT {', '.join(DOCUMENTED)} FROM flows LIMIT 10")
    assert tuple(answer.names) == DOCUMENTED


@pytest.mark.clickhouse
@pytest.mark.parametrize("view", NARROW_VIEWS)
def test_narrow_views_have_their_documented_columns(store: Store, view: str) -> None:
    answer = store.query(f"SELECT * FROM {view}")
    assert tuple(answer.names) == NARROW_VIEWS[view]
    assert len(answer.rows) == 6
    assert len(answer.names) == {"pod": 21, "node": 17, "policy": 28}[view.split("_")[1]]


@pytest.mark.clickhouse
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("sourceIP = '10.0.0.1'", 2),
        ("sourceIP != ''", 6),
        ("destinationClusterIP = ''", 5),
        ("destinationClusterIP = '10.96.0.9'", 1),
        ("sourceIP = '2001:db8::3'", 1),
        ("sourceIP LIKE '10.0.0.%'", 5),
        ("sourcePodNamespace IN ('red', 'blue')", 5),
        ("ingressNetworkPolicyRuleAction IN (2, 3) OR egressNetworkPolicyRuleAction IN (2, 3)", 1),
        ("trusted = 1", 0),
        ("clusterUUID = 'c1'", 6),
        ("flowStartSeconds >= '2020-01-01 00:00:00'", 6),
        (f"timeInserted < toDateTime({END + 8})", 0),
        (f"timeInserted <= toDateTime({END + 8})", 6),
    ],
)
def test_conditions(store: Store, condition: str, expected: int) -> None:
    assert ask(store, f"SELECT COUNT() FROM flows WHERE {condition}") == [[expected]]


@pytest.mark.clickhouse
def test_homepage(store: Store) -> None:
    pods = f"""SELECT COUNT(*) FROM (
        SELECT DISTINCT sourcePodName AS podName, sourcePodNamespace AS podNamespace
        FROM flows WHERE {IN_RANGE} AND sourcePodName != ''
        UNION ALL SELECT DISTINCT destinationPodName AS podName,
            destinationPodNamespace AS podNamespace
        FROM flows WHERE {IN_RANGE} AND destinationPodName != '')"""
    assert ask(store, pods) == [[6]]
    assert ask(
        store,
        "SELECT COUNT(DISTINCT destinationServicePortName) FROM flows"
        f" WHERE destinationServicePortName != '' AND {IN_RANGE}",
    ) == [[1]]
    active = "SELECT COUNT(DISTINCT (sourceIP || destinationIP)) FROM flows WHERE flowEndReason = 2"
    assert ask(store, active) == [[3]]
    transmitted = (
        "SELECT SUM(octetDeltaCount) + SUM(reverseOctetDeltaCount) FROM flows_pod_view "
        f"WHERE {IN_RANGE}"
    )
    assert ask(store, transmitted) == [[810]]
    assert ask(store, f"{transmitted} AND flowType = 3") == [[140]]
    policies = """SELECT COUNT(DISTINCT ingressNetworkPolicyName)
        + COUNT(DISTINCT egressNetworkPolicyName) FROM flows_policy_view WHERE 1"""
    assert ask(store, policies) == [[5]]
    top = """SELECT SUM(octetDeltaCount) AS bytes,
        concat(sourcePodNamespace, '/', sourcePodName) AS source FROM flows_pod_view
        GROUP BY source HAVING source != '/' ORDER BY bytes DESC, source LIMIT 2"""
    assert ask(store, top) == [[200, "red/a"], [200, "red/b"]]


@pytest.mark.clickhouse
def test_flow_records(store: Store) -> None:
    table = f"SELECT * FROM flows WHERE {IN_RANGE} ORDER BY flowEndSeconds DESC LIMIT 10000"
    assert len(ask(store, table)) == 6
    buckets = "SELECT toStartOfMinute(flowEndSeconds) AS time, COUNT(*) FROM flows GROUP BY time"
    assert sum(int(str(row[1])) for row in ask(store, buckets)) == 6


@pytest.mark.clickhouse
def test_pod_to_pod(store: Store) -> None:
    sankey = f"""SELECT SUM(octetDeltaCount) AS bytes, SUM(reverseOctetDeltaCount) AS revBytes,
            concat(sourcePodNamespace, '/', sourcePodName, ':',
                toString(sourceTransportPort)) AS source,
            concat(destinationPodNamespace, '/', destinationPodName, ':',
                toString(destinationTransportPort)) AS destination
        FROM flows_pod_view WHERE flowType IN (1, 2)
            AND sourcePodNamespace NOT IN {EXCLUDED} AND destinationPodNamespace NOT IN {EXCLUDED}
            AND {IN_RANGE}
        GROUP BY source, destination HAVING bytes != 0 ORDER BY bytes DESC, source LIMIT 50"""
    rows = ask(store, sankey)
    assert [row[2] for row in rows] == ["blue/c:4", "red/a:0", "red/a:1", "red/b:2"]
    throughput = f"""SELECT toStartOfMinute(flowEndSeconds) AS time,
            concat(sourcePodName, ' -> ', destinationPodName) AS pair, AVG(throughput)
        FROM flows_pod_view WHERE flowType IN (1, 2) AND {IN_RANGE}
        GROUP BY time, pair HAVING AVG(throughput) > 0 ORDER BY time, pair"""
    assert ("a -> x", 1200) in [(row[1], row[2]) for row in ask(store, throughput)]


@pytest.mark.clickhouse
def test_pod_to_external_and_service(store: Store) -> None:
    external = f"""SELECT destinationIP AS destination, SUM(octetDeltaCount) AS bytes
        FROM flows_pod_view WHERE flowType = 3 AND sourcePodNamespace NOT IN {EXCLUDED}
        GROUP BY destination"""
    assert ask(store, external) == [["203.0.113.7", 100]]
    service = """SELECT concat(destinationServicePortName, ':',
            toString(destinationServicePort)) AS service, SUM(octetDeltaCount) AS bytes
        FROM flows_pod_view WHERE flowType IN (1, 2) AND destinationServicePortName != ''
        GROUP BY service"""
    assert ask(store, service) == [["green/y:http:80", 100]]


@pytest.mark.clickhouse
def test_node_to_node(store: Store) -> None:
    sankey = f"""SELECT sourceNodeName AS source, destinationNodeName AS destination,
            SUM(octetDeltaCount) AS bytes
        FROM flows_node_view WHERE source != '' AND destination != ''
            AND sourcePodNamespace NOT IN {EXCLUDED}
        GROUP BY source, destination ORDER BY bytes DESC, source"""
    assert ask(store, sankey) == [["n1", "n2", 300], ["n2", "n2", 100]]
    rates = "SELECT SUM(throughputFromSourceNode) FROM flows_node_view WHERE flowEndReason = 2"
    assert ask(store, rates.replace("flowEndReason = 2", "sourceNodeName = 'n1'")) == [[9600]]


@pytest.mark.clickhouse
def test_network_policy(store: Store) -> None:
    chord = """SELECT SUM(octetDeltaCount) AS bytes, ingressNetworkPolicyName,
            ingressNetworkPolicyRuleAction, egressNetworkPolicyName, egressNetworkPolicyRuleAction,
            sourcePodName, destinationPodName, destinationIP
        FROM flows_policy_view WHERE ingressNetworkPolicyRuleAction IN (2, 3)
        GROUP BY ingressNetworkPolicyName, ingressNetworkPolicyRuleAction, egressNetworkPolicyName,
            egressNetworkPolicyRuleAction, sourcePodName, destinationPodName, destinationIP
        HAVING bytes > 0 ORDER BY bytes DESC"""
    assert ask(store, chord) == [[100, "deny-x", 2, "", 0, "c", "x", "2001:db8::4"]]
    donut = """SELECT CASE WHEN ingressNetworkPolicyNamespace != ''
            THEN concat(ingressNetworkPolicyNamespace, '/', ingressNetworkPolicyName)
            ELSE ingressNetworkPolicyName END AS policy, SUM(octetDeltaCount) AS bytes
        FROM flows_policy_view WHERE ingressNetworkPolicyName != ''
        GROUP BY policy ORDER BY bytes DESC"""
    assert ask(store, donut) == [["green/allow-x", 200], ["green/deny-x", 100]]


@pytest.mark.clickhouse
def test_topology(store: Store) -> None:
    rows = ask(
        store,
        "SELECT sourcePodName, sourcePodLabels, sourcePodNamespace, sourceNodeName,"
        " destinationPodName, destinationPodLabels, destinationNodeName,"
        " destinationServicePortName, octetDeltaCount FROM flows "
        "WHERE sourcePodName != '' AND destinationPodName != '' AND octetDeltaCount != 0"
        " ORDER BY flowEndSeconds DESC",
    )
    assert len(rows) == 5
    assert rows[0][0] == "dns"


@pytest.mark.clickhouse
def test_policy_recommendation_and_anomaly_inputs(store: Store) -> None:
    """What Theia's jobs read."""
    unprotected = """SELECT sourcePodNamespace, sourcePodLabels, destinationIP,
            destinationPodNamespace, destinationPodLabels, destinationServicePortName,
            destinationTransportPort, protocolIdentifier, flowType FROM flows
        WHERE ingressNetworkPolicyName = '' AND egressNetworkPolicyName = ''
        GROUP BY sourcePodNamespace, sourcePodLabels, destinationIP, destinationPodNamespace,
            destinationPodLabels, destinationServicePortName, destinationTransportPort,
            protocolIdentifier, flowType"""
    assert len(ask(store, unprotected)) == 2
    series = """SELECT sourceIP, sourceTransportPort, destinationIP, destinationTransportPort,
            protocolIdentifier, flowStartSeconds, flowEndSeconds, max(throughput) FROM flows
        GROUP BY sourceIP, sourceTransportPort, destinationIP, destinationTransportPort,
            protocolIdentifier, flowStartSeconds, flowEndSeconds"""
    assert len(ask(store, series)) == 6


def documented_queries() -> list[str]:
    """The queries that docs/clickhouse.md gives: its indented blocks, a blank line between two."""
    document = (Path(__file__).parents[2] / "docs" / "clickhouse.md").read_text()
    chapter = document.split("## Queries", 1)[1].split("\n## ", 1)[0]
    blocks = ["\n".join(lines) for lines in _indented(chapter)]
    return [text for block in blocks for text in block.split("\n\n")]


def _indented(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (block and not line):
            block.append(line.removeprefix("    "))
        elif block:
            yield block[:-1]
            block = []


@pytest.mark.clickhouse
@pytest.mark.parametrize("sql", documented_queries())
def test_queries_of_the_document(store: Store, sql: str) -> None:
    assert store.query(sql.strip()).names


def test_there_are_queries_in_the_document() -> None:
    assert len(documented_queries()) == 5
