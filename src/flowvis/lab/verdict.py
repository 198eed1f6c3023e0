"""Whether the store says what really happened: each connection against its client's witness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Any

from flowvis.fields import BY_NAME, PROTOCOLS, Kind
from flowvis.lab import expectation, measured
from flowvis.lab.expectation import SIDES
from flowvis.lab.measured import COUNTERS, INTERVAL, MeasuredConnection, Row, Run
from flowvis.lab.rules import Tuple, WitnessCount
from flowvis.lab.scenarios import Scenario

Key = tuple[str, str, int]
"""Protocol, client address, client port: names a connection in the lab."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass
class Finding:
    """One scenario: what its clients counted and what the store holds."""

    name: str
    connections: int
    expected: WitnessCount = field(default_factory=WitnessCount)
    stored: WitnessCount = field(default_factory=WitnessCount)
    """The sum of all deltas, each byte once."""
    records: int = 0
    short: int = 0
    """Where sums are judged: connections of which something is missing, for which the books have to
    name a loss."""
    doubled: int = 0
    """Records that are there once more."""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every connection is there, whole, and with all it must say."""
        return (self.expected == self.stored or self.short > 0) and not self.problems

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
    witnesses: Mapping[str, Mapping[Tuple, WitnessCount]],
    rows: Sequence[Row],
    run: Run,
) -> list[Finding]:
    """Compare, scenario by scenario; `witnesses` are by the client's network namespace.

    `rows` have all `FLOWS_COLUMNS`.
    """
    stored: dict[Key, list[Row]] = {}
    for row in sorted(rows, key=_interval):
        stored.setdefault(connection(row), []).append(row)
    return [
        _judge(scenario, witnesses[scenario.client.host], stored, run) for scenario in scenarios
    ]


def _interval(row: Row) -> tuple[int, ...]:
    """Return what tells the intervals of a connection apart, in their order.

    Where exporters are restarted, several may begin and end in one second, which is as exactly as
    ends are known: these are told apart by what the connection has sent by then.
    """
    begin_ms, end_s = int(row[INTERVAL]), int(row["flowEndSeconds"])
    if begin_ms < 1000 * end_s:
        return end_s, begin_ms
    return end_s, begin_ms, *_counts(row, "TotalCount")


def connection(row: Row) -> Key:
    """Return which connection a record is of."""
    number = int(row["protocolIdentifier"])
    return (
        PROTOCOL_NAMES.get(number, str(number)),
        str(ip_address(row["sourceIP"])),
        int(row["sourceTransportPort"]),
    )


def _judge(
    scenario: Scenario,
    witness: Mapping[Tuple, WitnessCount],
    stored: Mapping[Key, list[Row]],
    run: Run,
) -> Finding:
    finding = Finding(scenario.name, scenario.connections)
    for port in scenario.client_ports:
        rows = stored.get((scenario.protocol, scenario.client_address, port), [])
        answering = expectation.backend(scenario, rows[0]["destinationIP"] if rows else "")
        key = Tuple(scenario.protocol, scenario.client_address, port, *scenario.server)
        counts = expectation.counts(scenario, answering, witness.get(key, WitnessCount()))
        expected = counts.pop("")
        must_say = expectation.exact(scenario, port, answering)
        whole, single = _by_halves(rows, must_say["originalFlowsPresent"], run)
        reported = _sum(_deltas(whole), max(_deltas(_of_side(single, side)) for side in SIDES))
        finding.expected = _sum(finding.expected, expected)
        finding.stored = _sum(finding.stored, reported)
        finding.records += len(rows)
        problems = [*_wrong_counts(rows, reported, expected), *_wrong_values(whole, must_say)]
        # What is denied at once begins and ends its first interval in one millisecond.
        if not run.split and len(set(map(_interval, rows))) != len(rows):
            problems.append(f"{len(rows)} records have the same intervals")
        if rows:
            tracked = expectation.tracked(scenario, answering)
            problems += measured.problems(MeasuredConnection(scenario, rows, tracked), run)
        if rows and not single:
            problems += _wrong_sides(rows, counts)
        finding.problems += [f"port {port}: {problem}" for problem in problems]
    return finding


def _by_halves(rows: list[Row], halves: int, run: Run) -> tuple[list[Row], list[Row]]:
    """Separate records with all halves from those that a restart has left with one of two."""
    if not run.split:
        return rows, []
    whole: list[Row] = []
    single: list[Row] = []
    for row in rows:
        (whole if row["originalFlowsPresent"] == halves else single).append(row)
    return whole, single


def _of_side(rows: Sequence[Row], side: str) -> list[Row]:
    """Return the records that a node of this side has counted."""
    return [row for row in rows if any(_counts(row, f"TotalCount{side}"))]


def _wrong_counts(
    rows: Sequence[Row], reported: WitnessCount, expected: WitnessCount
) -> Iterator[str]:
    if not expected.packets:
        yield "the client sent nothing"
    if not rows:
        yield "no record"
        return
    if reported != expected:
        yield f"deltas sum up to {tuple(reported)}, sent {tuple(expected)}"
    if (totals := _totals(rows, "")) != expected:
        yield f"totals are {tuple(totals)}, sent {tuple(expected)}"


def _wrong_values(rows: Sequence[Row], must_say: Mapping[str, Any]) -> Iterator[str]:
    for row in rows:
        for column, right in must_say.items():
            value = row[column]
            if column in ADDRESSES and value:
                value = str(ip_address(value))
            if value != right:
                yield f"{column} is {value!r}, not {right!r}"


ADDRESSES = {name for name, field in BY_NAME.items() if field.kind is Kind.ADDRESS}


def _wrong_sides(rows: Sequence[Row], seen_by: Mapping[str, WitnessCount]) -> Iterator[str]:
    """Yield what is wrong with the nodes' own counters."""
    for side, expected in seen_by.items():
        if (seen := _totals(rows, side)) != expected:
            yield f"totals {side} are {tuple(seen)}, sent {tuple(expected)}"


def _totals(rows: Sequence[Row], side: str) -> WitnessCount:
    """Return the final totals; a 5-tuple that was used again has one for each of its starts."""
    by_start: dict[Any, list[Row]] = {}
    for row in rows:
        by_start.setdefault(row["flowStartSeconds"], []).append(row)
    return _sum(
        *(max(_counts(row, f"TotalCount{side}") for row in same) for same in by_start.values())
    )


def _deltas(rows: Sequence[Row]) -> WitnessCount:
    return _sum(*(_counts(row, "DeltaCount") for row in rows))


def _counts(row: Row, suffix: str) -> WitnessCount:
    return WitnessCount(*(int(row[counter + suffix]) for counter in COUNTERS))


def _sum(*counts: WitnessCount) -> WitnessCount:
    return WitnessCount(*map(sum, zip(*counts, strict=True))) if counts else WitnessCount()
