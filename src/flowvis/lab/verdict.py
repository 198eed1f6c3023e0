"""Whether the store says what really happened: each connection against its client's witness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any

from flowvis.fields import FlowType
from flowvis.lab.plan import PODS, Node, Pod
from flowvis.lab.rules import Count, Tuple
from flowvis.lab.scenarios import NodePort, Scenario

Row = Mapping[str, Any]
"""A stored record: the columns of `COLUMNS` by name."""

Key = tuple[str, str, int]
"""Protocol, client address, client port: names a connection in the lab."""

COUNTERS = ("packet", "octet", "reversePacket", "reverseOctet")
SIDES = ("FromSourceNode", "FromDestinationNode")

INTERVAL = "monitoringIntervalStartMilliSeconds"

COLUMNS = (
    "protocolIdentifier",
    "sourceIP",
    "sourceTransportPort",
    "destinationIP",
    "flowStartSeconds",
    "flowType",
    "sourcePodName",
    "sourcePodNamespace",
    "sourceNodeName",
    "destinationPodName",
    "destinationPodNamespace",
    "destinationNodeName",
    "destinationServicePortName",
    "originalFlowsPresent",
    INTERVAL,
    *(f"{counter}DeltaCount" for counter in COUNTERS),
    *(f"{counter}TotalCount" for counter in COUNTERS),
    *(f"{counter}TotalCount{side}" for counter in COUNTERS for side in SIDES),
)

PROTOCOLS = {6: "tcp", 17: "udp"}


@dataclass
class Finding:
    """One scenario: what its clients counted and what the store holds."""

    name: str
    connections: int
    expected: Count = field(default_factory=Count)
    stored: Count = field(default_factory=Count)
    """The sum of all deltas."""
    records: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every connection is there, whole, and with all it must say."""
        return self.expected == self.stored and not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON has it."""
        return {
            **asdict(self),
            "expected": self.expected._asdict(),
            "stored": self.stored._asdict(),
            "ok": self.ok,
        }


def judge(
    scenarios: Sequence[Scenario],
    witnesses: Mapping[str, Mapping[Tuple, Count]],
    rows: Sequence[Row],
) -> list[Finding]:
    """Compare, scenario by scenario; `witnesses` are by the client's network namespace."""
    stored: dict[Key, list[Row]] = {}
    for row in rows:
        stored.setdefault(connection(row), []).append(row)
    return [_judge(scenario, witnesses[scenario.client.host], stored) for scenario in scenarios]


def connection(row: Row) -> Key:
    """Return which connection a record is of."""
    number = int(row["protocolIdentifier"])
    return (
        PROTOCOLS.get(number, str(number)),
        str(ip_address(row["sourceIP"])),
        int(row["sourceTransportPort"]),
    )


def _judge(
    scenario: Scenario, witness: Mapping[Tuple, Count], stored: Mapping[Key, list[Row]]
) -> Finding:
    finding = Finding(scenario.name, scenario.connections)
    for port in scenario.client_ports:
        key = Tuple(scenario.protocol, scenario.client_address, port, *scenario.server)
        expected = witness.get(key, Count())
        rows = stored.get((scenario.protocol, scenario.client_address, port), [])
        finding.expected = _sum(finding.expected, expected)
        finding.stored = _sum(finding.stored, *(_counts(row, "DeltaCount") for row in rows))
        finding.records += len(rows)
        finding.problems += [
            f"port {port}: {problem}" for problem in _problems(scenario, expected, rows)
        ]
    return finding


def _problems(scenario: Scenario, expected: Count, rows: list[Row]) -> Iterator[str]:
    """Yield all that is wrong with one connection's records."""
    if not expected.packets:
        yield "the client sent nothing"
    if not rows:
        yield "no record"
        return
    deltas = _sum(*(_counts(row, "DeltaCount") for row in rows))
    if deltas != expected:
        yield f"deltas sum up to {tuple(deltas)}, sent {tuple(expected)}"
    totals = _totals(rows, "")
    if totals != expected:
        yield f"totals are {tuple(totals)}, sent {tuple(expected)}"
    backend = _backend(scenario, rows[0])
    halves = 2 if _nodes_differ(scenario, backend) else 1
    for row in rows:
        yield from _differences(row, _must_say(scenario, backend, halves))
    for side in SIDES if halves == 2 else ():
        seen = _totals(rows, side)
        if seen != expected:
            yield f"totals {side} are {tuple(seen)}, sent {tuple(expected)}"
    intervals = {(row["flowStartSeconds"], row[INTERVAL]) for row in rows}
    if len(intervals) != len(rows):
        yield f"{len(rows)} records of {len(intervals)} intervals"


def _totals(rows: Sequence[Row], side: str) -> Count:
    """Return the final totals; a 5-tuple that was used again has one for each of its starts."""
    by_start: dict[Any, list[Row]] = {}
    for row in rows:
        by_start.setdefault(row["flowStartSeconds"], []).append(row)
    return _sum(
        *(max(_counts(row, f"TotalCount{side}") for row in same) for same in by_start.values())
    )


def _must_say(scenario: Scenario, backend: Pod | None, halves: int) -> dict[str, Any]:
    """Return what all records of a connection must say, by column."""
    client = scenario.client if isinstance(scenario.client, Pod) else None
    service = scenario.service
    return {
        "flowType": _flow_type(client, backend),
        "destinationIP": (backend or scenario.target).addresses[scenario.family == 6],
        "originalFlowsPresent": halves,
        "destinationServicePortName": service.full_name if service else "",
        **_pod_columns("source", client),
        **_pod_columns("destination", backend),
    }


def _pod_columns(end: str, pod: Pod | None) -> dict[str, str]:
    return {
        f"{end}PodName": pod.name if pod else "",
        f"{end}PodNamespace": pod.namespace if pod else "",
        f"{end}NodeName": pod.node.name if pod else "",
    }


def _flow_type(client: Pod | None, backend: Pod | None) -> int:
    if client is None:
        return FlowType.FROM_EXTERNAL
    if backend is None:
        return FlowType.TO_EXTERNAL
    return FlowType.INTRA_NODE if client.node == backend.node else FlowType.INTER_NODE


def _nodes_differ(scenario: Scenario, backend: Pod | None) -> bool:
    """Whether two nodes saw the connection."""
    first: Node | None = None
    if isinstance(scenario.client, Pod):
        first = scenario.client.node
    elif isinstance(scenario.target, NodePort):
        first = scenario.target.node
    return backend is not None and first != backend.node


def _backend(scenario: Scenario, row: Row) -> Pod | None:
    """Return the Pod that answered; it is one of those that may, or the first of them."""
    answered = str(ip_address(row["destinationIP"]))
    for pod in PODS:
        if answered in pod.addresses and pod in scenario.backends:
            return pod
    return scenario.backends[0] if scenario.backends else None


def _differences(row: Row, must_say: Mapping[str, Any]) -> Iterator[str]:
    for column, right in must_say.items():
        value = row[column]
        if column == "destinationIP":
            value = str(ip_address(value))
        if value != right:
            yield f"{column} is {value!r}, not {right!r}"


def _counts(row: Row, suffix: str) -> Count:
    return Count(*(int(row[counter + suffix]) for counter in COUNTERS))


def _sum(*counts: Count) -> Count:
    return Count(*map(sum, zip(*counts, strict=True))) if counts else Count()
