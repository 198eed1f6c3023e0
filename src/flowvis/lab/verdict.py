"""Whether the store says what really happened: each connection against its client's witness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any

from flowvis.lab import expectation
from flowvis.lab.rules import Count, Tuple
from flowvis.lab.scenarios import Scenario

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
    "flowEndSeconds",
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
    """The sum of all deltas, each byte once."""
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
    *,
    split: bool = False,
) -> list[Finding]:
    """Compare, scenario by scenario; `witnesses` are by the client's network namespace.

    `split`: the aggregator was restarted, so that the halves of a connection may have gone to the
    one before and the one after, and be stored side by side.
    """
    stored: dict[Key, list[Row]] = {}
    for row in rows:
        stored.setdefault(connection(row), []).append(row)
    return [
        _judge(scenario, witnesses[scenario.client.host], stored, split=split)
        for scenario in scenarios
    ]


def connection(row: Row) -> Key:
    """Return which connection a record is of."""
    number = int(row["protocolIdentifier"])
    return (
        PROTOCOLS.get(number, str(number)),
        str(ip_address(row["sourceIP"])),
        int(row["sourceTransportPort"]),
    )


def _judge(
    scenario: Scenario,
    witness: Mapping[Tuple, Count],
    stored: Mapping[Key, list[Row]],
    *,
    split: bool,
) -> Finding:
    finding = Finding(scenario.name, scenario.connections)
    for port in scenario.client_ports:
        key = Tuple(scenario.protocol, scenario.client_address, port, *scenario.server)
        expected = witness.get(key, Count())
        rows = stored.get((scenario.protocol, scenario.client_address, port), [])
        whole, single = _by_halves(scenario, rows) if split else (rows, [])
        told = _sum(_deltas(whole), max(_deltas(_of_side(single, side)) for side in SIDES))
        finding.expected = _sum(finding.expected, expected)
        finding.stored = _sum(finding.stored, told)
        finding.records += len(rows)
        problems = (*_wrong_counts(rows, told, expected), *_wrong_records(scenario, whole))
        if not single:
            problems += (*_wrong_sides(scenario, whole, expected),)
        finding.problems += [f"port {port}: {problem}" for problem in problems]
    return finding


def _by_halves(scenario: Scenario, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Separate records with all halves from those with one of two."""
    whole: list[Row] = []
    single: list[Row] = []
    for row in rows:
        needed = expectation.halves(scenario, expectation.backend(scenario, row["destinationIP"]))
        (whole if row["originalFlowsPresent"] == needed else single).append(row)
    return whole, single


def _of_side(rows: Sequence[Row], side: str) -> list[Row]:
    """Return the records that a node of this side has counted."""
    return [row for row in rows if any(_counts(row, f"TotalCount{side}"))]


def _wrong_counts(rows: Sequence[Row], told: Count, expected: Count) -> Iterator[str]:
    if not expected.packets:
        yield "the client sent nothing"
    if not rows:
        yield "no record"
        return
    if told != expected:
        yield f"deltas sum up to {tuple(told)}, sent {tuple(expected)}"
    if (totals := _totals(rows, "")) != expected:
        yield f"totals are {tuple(totals)}, sent {tuple(expected)}"
    intervals = {(row["flowStartSeconds"], row[INTERVAL], row["flowEndSeconds"]) for row in rows}
    if len(intervals) != len(rows):
        yield f"{len(rows)} records of {len(intervals)} intervals"


def _wrong_records(scenario: Scenario, rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        answering = expectation.backend(scenario, row["destinationIP"])
        must_say = {
            "originalFlowsPresent": expectation.halves(scenario, answering),
            **expectation.names(scenario, answering),
        }
        for column, right in must_say.items():
            value = row[column]
            if column == "destinationIP":
                value = str(ip_address(value))
            if value != right:
                yield f"{column} is {value!r}, not {right!r}"


def _wrong_sides(scenario: Scenario, rows: Sequence[Row], expected: Count) -> Iterator[str]:
    """Yield what is wrong with the nodes' own counters, where two nodes have counted."""
    if not rows:
        return
    answering = expectation.backend(scenario, rows[0]["destinationIP"])
    for side in SIDES if expectation.halves(scenario, answering) == 2 else ():
        if (seen := _totals(rows, side)) != expected:
            yield f"totals {side} are {tuple(seen)}, sent {tuple(expected)}"


def _totals(rows: Sequence[Row], side: str) -> Count:
    """Return the final totals; a 5-tuple that was used again has one for each of its starts."""
    by_start: dict[Any, list[Row]] = {}
    for row in rows:
        by_start.setdefault(row["flowStartSeconds"], []).append(row)
    return _sum(
        *(max(_counts(row, f"TotalCount{side}") for row in same) for same in by_start.values())
    )


def _deltas(rows: Sequence[Row]) -> Count:
    return _sum(*(_counts(row, "DeltaCount") for row in rows))


def _counts(row: Row, suffix: str) -> Count:
    return Count(*(int(row[counter + suffix]) for counter in COUNTERS))


def _sum(*counts: Count) -> Count:
    return Count(*map(sum, zip(*counts, strict=True))) if counts else Count()
