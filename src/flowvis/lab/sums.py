"""Whether the store's plain sums are the truth: what is missing of it, the books must name.

This is the verdict for runs in which daemons die and networks lie. Which records there are, and
what else they say, depends there on when which of them came; that each byte is counted once does
not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flowvis.lab import expectation
from flowvis.lab.books import Ledger
from flowvis.lab.measured import COUNTED, COUNTERS, INTERVAL, Row
from flowvis.lab.rules import Tuple, WitnessCount
from flowvis.lab.scenarios import Scenario
from flowvis.lab.verdict import Finding, Key, connection
from flowvis.runtime.dropped import reason_of

Witnesses = Mapping[str, Mapping[Tuple, WitnessCount]]
"""What clients counted, by their network namespaces."""

CONNECTION = "protocolIdentifier, sourceIP, sourceTransportPort"
ASKED = ", ".join(f"sum({counter}DeltaCount)" for counter in COUNTERS)
QUESTION = f"SELECT {CONNECTION}, any(destinationIP), {ASKED} FROM flows GROUP BY {CONNECTION}"  # noqa: S608  constants
"""The sums of all connections, for `flowctl sql`; `answered` reads what comes."""

IDENTITY = ("flowStartSeconds", "flowEndSeconds", INTERVAL, *COUNTED)
"""What two records of one connection never have in common."""


def judge(
    scenarios: Sequence[Scenario], witnesses: Witnesses, rows: Sequence[Row]
) -> list[Finding]:
    """Compare, scenario by scenario; `rows` have all columns."""
    by_connection: dict[Key, list[Row]] = {}
    for row in rows:
        by_connection.setdefault(connection(row), []).append(row)
    findings = []
    for scenario in scenarios:
        finding = Finding(scenario.name, scenario.connections)
        for port in scenario.client_ports:
            records = by_connection.get(_key(scenario, port), [])
            to = str(records[0]["destinationIP"]) if records else ""
            expected = _expected(scenario, port, to, witnesses)
            stored = _sum(
                WitnessCount(*(int(row[f"{counter}DeltaCount"]) for counter in COUNTERS))
                for row in records
            )
            finding.expected = _sum((finding.expected, expected))
            finding.stored = _sum((finding.stored, stored))
            finding.records += len(records)
            finding.short += _short(stored, expected)
            if any(more > right for more, right in zip(stored, expected, strict=True)):
                finding.problems.append(f"port {port}: {tuple(stored)}, sent {tuple(expected)}")
            same = Counter(tuple(row[name] for name in IDENTITY) for row in records)
            finding.doubled += sum(count - 1 for count in same.values())
        if finding.doubled:
            finding.problems.append(f"{finding.doubled} records are stored twice")
        findings.append(finding)
    return findings


def answered(rows: Sequence[Sequence[object]]) -> dict[Key, tuple[str, WitnessCount]]:
    """Read the answer to QUESTION: to where, and the sums, by connection."""
    found = {}
    for protocol, source, port, to, *sums in rows:
        row = {"protocolIdentifier": protocol, "sourceIP": source, "sourceTransportPort": port}
        found[connection(row)] = str(to), WitnessCount(*(int(str(one)) for one in sums))
    return found


def missing(
    scenarios: Sequence[Scenario],
    witnesses: Witnesses,
    stored: Mapping[Key, tuple[str, WitnessCount]],
) -> int:
    """Return how many connections' sums in the store are not yet the truth."""
    wrong = 0
    for scenario in scenarios:
        for port in scenario.client_ports:
            to, sums = stored.get(_key(scenario, port), ("", WitnessCount()))
            wrong += sums != _expected(scenario, port, to, witnesses)
    return wrong


def losses(ledgers: Mapping[str, Ledger]) -> dict[str, int]:
    """Return the losses that books name, as "daemon, stage: reason"."""
    found: dict[str, int] = {}
    for daemon, ledger in ledgers.items():
        for stage in ledger["stages"]:
            for word, count in stage["dropped"].items():
                reason = reason_of(stage["stage"], word)
                if count and (reason is None or reason.is_loss):
                    found[f"{daemon}, {stage['stage']}: {word}"] = count
    return found


def less_refused(witnesses: Witnesses, refused: Mapping[Tuple, WitnessCount]) -> Witnesses:
    """Return what clients counted without what no kernel did, as its table was full."""
    return {
        host: {
            key: WitnessCount(*(one - less for one, less in zip(count, none, strict=True)))
            for key, count in counts.items()
            for none in [refused.get(key, WitnessCount())]
        }
        for host, counts in witnesses.items()
    }


def _key(scenario: Scenario, port: int) -> Key:
    return scenario.protocol, scenario.client_address, port


def _expected(scenario: Scenario, port: int, to: str, witnesses: Witnesses) -> WitnessCount:
    """Return what the nodes' kernels count of what the client sent."""
    key = Tuple(scenario.protocol, scenario.client_address, port, *scenario.server)
    sent = witnesses[scenario.client.host].get(key, WitnessCount())
    return expectation.counts(scenario, expectation.backend(scenario, to), sent)[""]


def _short(stored: WitnessCount, expected: WitnessCount) -> bool:
    return any(less < right for less, right in zip(stored, expected, strict=True))


def _sum(counts: Iterable[WitnessCount]) -> WitnessCount:
    total = WitnessCount()
    for one in counts:
        total = WitnessCount(*(a + b for a, b in zip(total, one, strict=True)))
    return total
