"""flowctl diff: who talks to whom now and did not before, or no more, or much more or less."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flowvis.cli import amounts, completeness, tables
from flowvis.cli.amounts import amount, change
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command, add_output
from flowvis.cli.graph import Edge, Graph, add_ends, ends
from flowvis.cli.layout import Column, Layout
from flowvis.cli.question import add_question, asked, compared
from flowvis.cli.rows import write_table

LIMIT = 1000
FACTOR = 2.0
NEW, GONE, CHANGED = "new", "gone", "changed"
_ORDER = (NEW, GONE, CHANGED)
_STYLES = {NEW: "green", GONE: "red", CHANGED: ""}


@dataclass(frozen=True)
class Difference:
    """An edge that is not as it was."""

    what: str
    """new, gone or changed."""
    source: str
    target: str
    before: Edge | None
    now: Edge | None

    @property
    def octets(self) -> tuple[float, float]:
        """Bytes before and now."""
        return self.before.octets if self.before else 0, self.now.octets if self.now else 0

    @property
    def denied(self) -> float:
        """Connections that are denied now."""
        return self.now.numbers["denied"] if self.now else 0


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "diff",
        "what changed since a range before",
        "Compare who talks to whom in two ranges of the same length: edges that are new, that are "
        f"gone, and whose bytes changed by a factor of {FACTOR:.0f} (--factor).",
        "--since 1h                          # with the hour before",
        "--since 1d --before -8d..-7d        # with the same day of last week",
        "'dst.namespace = shop' --by namespace --since 1h",
    )
    add_question(parser)
    parser.add_argument(
        "--before",
        type=_before,
        default="previous",
        metavar="RANGE",
        help="what to compare with: previous (the range just before), how much earlier as -1d, or "
        "FROM..TO as -2d..-1d",
    )
    add_ends(parser, LIMIT)
    parser.add_argument(
        "--factor", type=_factor, default=FACTOR, help=f"from which on bytes changed ({FACTOR:.0f})"
    )
    add_output(parser, "table", "json", "csv")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def _before(text: str) -> str:
    """Read what to compare with, which is the API's to know; but it may also have nothing."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: previous, -1d, or FROM..TO")
    return text


def run(options: argparse.Namespace, client: Client) -> int:
    """Print what differs."""
    query = asked(options) | ends(options) | {"compare": compared(options.before, "--before")}
    document = client.get("api/v1/graph", query)
    completeness.report(document)
    found = differences(document, options.factor)
    if options.output == "table":
        console = tables.console()
        for line in lines(document, found, tables.cells()):
            console.print(line, soft_wrap=True)
    else:
        write_table(
            options.output,
            ["what", "source", "target", "before", "now"],
            ([d.what, d.source, d.target, *d.octets] for d in found),
        )
        if hidden := _hidden(document):
            print(f"flowctl: {hidden}", file=sys.stderr)
    return 0


def differences(document: Mapping[str, Any], factor: float) -> list[Difference]:
    """Return the edges that differ, by what they are and then by how many bytes it makes."""
    now, before = Graph(document), Graph(document["compared"])
    names = before.names | now.names
    then = {(edge.source, edge.target): edge for edge in before.edges}
    found = []
    for edge in now.edges:
        old = then.pop((edge.source, edge.target), None)
        if old is None:
            what = NEW
        elif _differ(old.octets, edge.octets, factor):
            what = CHANGED
        else:
            continue
        found.append(Difference(what, names[edge.source], names[edge.target], old, edge))
    found += (
        Difference(GONE, names[edge.source], names[edge.target], edge, None)
        for edge in then.values()
    )

    def order(difference: Difference) -> tuple[int, float, str, str]:
        old, new = difference.octets
        size = -abs(new - old)
        return _ORDER.index(difference.what), size, difference.source, difference.target

    return sorted(found, key=order)


def lines(
    document: Mapping[str, Any], found: list[Difference], cells: int | None
) -> Iterator[Text]:
    """Go through the lines of a comparison."""
    before, answer = document["compared"], document["answer"]
    then, now = (amounts.span(each["from"], each["to"]) for each in (before, answer))
    yield Text(f"before {then}, now {now}", "dim")
    if found:
        layout = Layout(_COLUMNS, cells, found)
        yield from layout.lines(found)
    counts = [sum(each.what == what for each in found) for what in _ORDER]
    same = len({(e.source, e.target) for e in Graph(document).edges}) - counts[0] - counts[2]
    summary = ", ".join(f"{n} {what}" for n, what in zip(counts, _ORDER, strict=True))
    yield Text(f"{summary}, {same} as before", "dim")
    if hidden := _hidden(document):
        yield Text(hidden, "dim")


def _hidden(document: Mapping[str, Any]) -> str:
    """Say what was not compared; "" if all was."""
    hidden = max(Graph(document).hidden, Graph(document["compared"]).hidden)
    return f"{hidden} smaller edges were not compared: see --limit" if hidden else ""


_COLUMNS: tuple[Column[Difference], ...] = (
    Column("", lambda d: d.what, style=lambda d: _STYLES[d.what]),
    Column("SOURCE", lambda d: d.source, least=16),
    Column("DESTINATION", lambda d: d.target, least=16),
    Column("BEFORE", lambda d: amount(d.octets[0], "octets") if d.before else "", right=True),
    Column("NOW", lambda d: amount(d.octets[1], "octets") if d.now else "", right=True),
    Column(
        "CHANGE",
        lambda d: change(d.octets[1], d.octets[0]) if d.what == CHANGED else "",
        right=True,
        rank=1,
    ),
    Column(
        "DENIED", lambda d: amount(d.denied or None, ""), right=True, style=lambda _: "red", rank=2
    ),
)


def _differ(before: float, now: float, factor: float) -> bool:
    return max(before, now) >= factor * min(before, now) and before != now


def _factor(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 1, as 1.5")
    return found
