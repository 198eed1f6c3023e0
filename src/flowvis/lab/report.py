"""What a run of the lab found: for machines as JSON, for people as tables."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flowvis.lab.books import Ledger
from flowvis.lab.prometheus import Found
from flowvis.lab.verdict import Finding

WIDEST = 10_000  # cells


@dataclass
class Report:
    """A run of the lab."""

    findings: list[Finding] = field(default_factory=list)
    flows: int = 0
    """Connections that the store has records of."""
    correlated: int = 0
    """Those of them whose records have the halves of both nodes."""
    records: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    """By daemon."""
    named: dict[str, int] = field(default_factory=dict)
    """Losses that the books name, by daemon, stage and reason."""
    deaths: int = 0
    """How often daemons were ended by a fault."""
    recovered_s: float | None = None
    """From the end of the traffic until the store's sums were the truth; None: never, or not
    asked."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Records that were on the way to the store when the run waited no longer, by daemon and stage:
    where they are, when something is missing."""
    prometheus: Found | None = None
    """Which alerts fired and which metrics there were, where a Prometheus scraped."""
    notes: list[str] = field(default_factory=list)
    """What faults have shown."""
    problems: list[str] = field(default_factory=list)
    """What went wrong outside of the scenarios."""

    @property
    def lost_unnamed(self) -> int:
        """Connections of which something is missing, beyond the losses that the books name and the
        records that are still somewhere."""
        known = sum(self.named.values()) + sum(self.waiting.values())
        return max(0, self.short - known)

    @property
    def short(self) -> int:
        """Connections of which something is missing."""
        return sum(finding.short for finding in self.findings)

    @property
    def settled(self) -> bool:
        """Whether what is missing is not still on its way."""
        return not (self.short and self.waiting)

    @property
    def doubled(self) -> int:
        """Records that are stored twice."""
        return sum(finding.doubled for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether every scenario agrees, all books balance, and nothing else went wrong."""
        balanced = all(ledger["balanced"] for ledger in self.ledgers.values())
        right = all(finding.ok for finding in self.findings) and not self.lost_unnamed
        return balanced and right and self.settled and not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "ok": self.ok,
            "flows": self.flows,
            "correlated": self.correlated,
            "records": self.records,
            "scenarios": [finding.as_dict() for finding in self.findings],
            "deaths": self.deaths,
            "lost_unnamed": self.lost_unnamed,
            "doubled": self.doubled,
            "named": self.named,
            "recovered_s": self.recovered_s,
            "waiting": self.waiting,
            "ledger": self.ledgers,
            "prometheus": asdict(self.prometheus) if self.prometheus else None,
            "notes": self.notes,
            "problems": self.problems,
        }

    def _fired(self) -> list[Text]:
        if self.prometheus is None:
            return []
        alerts = self.prometheus.alerts
        return [
            Text(f"Alerts that fired: {'' if alerts else 'none'}"),
            *(
                Text(f"  {name}: " + "; ".join(" ".join(one.values()) for one in found))
                for name, found in alerts.items()
            ),
        ]

    def render(self) -> RenderableType:
        """The report as a terminal shows it; what is wider is for the terminal to wrap."""
        verdict = "every byte is accounted for" if self.ok else "NOT everything is accounted for"
        total = (
            f"{self.flows} connections, {self.correlated} seen from two nodes, "
            f"{self.records} records: {verdict}"
        )
        problems = [*self.problems]
        if self.lost_unnamed:
            problems.append(f"{self.lost_unnamed} connections are short, and no book says why")
        if not self.settled:
            where = ", ".join(f"{count} ({what})" for what, count in self.waiting.items())
            problems.append(
                f"{self.short} connections were short when the run waited no longer; still on the "
                f"way to the store: {where}"
            )
        for finding in self.findings:
            problems += [f"{finding.name}: {problem}" for problem in finding.problems]
        return Group(
            _Whole(_scenario_table(self.findings)),
            "",
            _Whole(_ledger_table(self.ledgers)),
            "",
            *(Text(problem, style="red") for problem in problems),
            *map(Text, self.notes),
            *self._fired(),
            Text(total, style="bold green" if self.ok else "bold red"),
        )


class _Whole:
    """A table as wide as it is: where there is no room rich leaves out digits, and columns."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=WIDEST)
        needed = Measurement.get(console, wide, self._table).maximum
        room = options.update(max_width=max(needed, options.max_width))
        yield from console.render(self._table, room)


def _scenario_table(findings: list[Finding]) -> Table:
    table = _table("SCENARIO")
    for title in ("CONNECTIONS", "RECORDS", "BYTES SENT", "BYTES BACK"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("STORED", no_wrap=True)
    for finding in findings:
        sent, stored = finding.expected, finding.stored
        wrong = f"{stored.octets:,} and {stored.reverse_octets:,}" if sent != stored else "WRONG"
        table.add_row(
            finding.name,
            f"{finding.connections:,}",
            f"{finding.records:,}",
            f"{sent.octets:,}",
            f"{sent.reverse_octets:,}",
            Text("exact", "green") if finding.ok else Text(wrong, "red"),
        )
    return table


def _ledger_table(ledgers: dict[str, Ledger]) -> Table:
    table = _table("LEDGER", "STAGE")
    table.collapse_padding = True  # else it is wider than 80 columns
    for title in ("RECEIVED", "=SENT", "+MERGED", "+DROPPED", "+HELD", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for daemon, ledger in ledgers.items():
        for stage in ledger["stages"]:
            numbers = (
                stage["received"],
                stage["sent"],
                stage["merged"],
                sum(stage["dropped"].values()),
                stage["held"],
            )
            wrong = stage["imbalance"] or stage["missing"]
            table.add_row(
                daemon.removeprefix("flow-"),
                stage["stage"],
                *(f"{number:,}" for number in numbers),
                Text(f"{wrong:+,}", "red") if wrong else Text("ok", "green"),
            )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table
