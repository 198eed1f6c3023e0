"""flowctl top: what records add up to, by whatever names; the largest first."""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from flowvis.cli import completeness, tables
from flowvis.cli.amounts import amount, change, share
from flowvis.cli.client import Client, passes
from flowvis.cli.command import Commands, Connect, add_command, add_output, count
from flowvis.cli.layout import Column, Layout
from flowvis.cli.question import add_question, asked, compared
from flowvis.cli.rows import write_table
from flowvis.errors import FlowvisError
from flowvis.runtime.durations import parse_duration
from flowvis.runtime.visible import visible, visible_json

BY = "src.workload,dst.workload"
MEASURES = "bothOctets,connections"
LIMIT = 20
WATCH_S = 2.0
NOTHING = "-"
"""A value that is empty: what is outside of the cluster has no workload."""
OTHERS, TOTAL = "others", "total"

Line = Sequence[str]


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "top",
        "who talks most, by any names and measures",
        "Show what records add up to in groups, the largest first, what is left, and the total.",
        "",
        "--by src.namespace --measure octets,packets,denied --since 6h",
        "'type = to-external' --by src.pod,dst.ip --limit 5",
        "--by service --compare -1d          # and what it was a day before",
        "--by dst.policy --watch             # again and again",
    )
    add_question(parser)
    add_grouping(parser, BY, MEASURES)
    parser.add_argument(
        "--compare",
        metavar="WHAT",
        default="",
        help="previous (range), how much earlier as -1d, or FROM..TO as -2d..-1d",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=interval,
        const=WATCH_S,
        metavar="EVERY",
        help=f"again and again ({WATCH_S:.0f}s), until Ctrl-C",
    )
    add_output(parser, "table", "json", "csv")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def add_grouping(
    parser: argparse.ArgumentParser, by: str, measure: str, limit: int = LIMIT
) -> None:
    """Add what records are grouped by, what is counted of them, and how many groups there are."""
    names = parser.add_argument(
        "--by",
        default=by,
        metavar="NAME,...",
        help="names of the filter language that have one value in a record"
        f"{f' ({by})' if by else ''}",
    )
    names.of = "dimension"  # type: ignore[attr-defined]  # what completes it: `completing`
    measures = parser.add_argument(
        "--measure",
        default=measure,
        metavar="NAME,...",
        help=f"what is counted, the first sorts: see flowctl fields ({measure})",
    )
    measures.of = "measure"  # type: ignore[attr-defined]
    parser.add_argument("--limit", type=count, default=limit, help=f"groups at most ({limit})")


def interval(text: str) -> float:
    """Read how often, in seconds."""
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: more than 0")
    return found


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the groups, once or again and again."""
    query = asked(options) | {
        "by": options.by,
        "measure": options.measure,
        "limit": str(options.limit),
    }
    if options.compare:
        query["compare"] = compared(options.compare, "--compare")
    if options.watch is None:
        show(client.get("api/v1/query", query), options.output)
        return 0
    while True:
        _again(client, query, options.output)
        time.sleep(options.watch)


def _again(client: Client, query: Mapping[str, str], form: str) -> None:
    """Show what is now; an aggregator, or its store, that is away may come back."""
    try:
        document = client.get("api/v1/query", query)
    except FlowvisError as error:
        if not passes(error):
            raise
        print(f"flowctl: {visible(str(error))}", file=sys.stderr)
        return
    if form == "table" and sys.stdout.isatty():
        tables.console().clear()
    show(document, form)
    sys.stdout.flush()


def show(document: Mapping[str, Any], form: str) -> None:
    """Print an answer; what it lacks goes to stderr."""
    completeness.report(document)
    if form == "json":
        print(visible_json(document))
    elif form == "csv":
        names = [column["name"] for column in document["columns"]]
        write_table(form, names, document["rows"])
        report_others(document)
    else:
        console = tables.console()
        for line in table(document, tables.cells()):
            console.print(line, soft_wrap=True)


def report_others(document: Mapping[str, Any]) -> None:
    """Say that there are more groups than CSV has, which has neither others nor a total."""
    if document["other"]:
        print(f"flowctl: only the first {len(document['rows'])}: see --limit", file=sys.stderr)


def table(document: Mapping[str, Any], cells: int | None) -> Iterator[Text]:
    """Go through the lines of an answer's table."""
    columns = document["columns"]
    dimensions = [column for column in columns if column["kind"] == "dimension"]
    measures = columns[len(dimensions) :]
    table = _Table(document, len(dimensions), measures)
    lines = list(table.lines())
    layout = Layout[Line](
        [
            *(_column(at, each["name"], least=14) for at, each in enumerate(dimensions)),
            *(
                _column(len(dimensions) + at, title, right=True, rank=rank)
                for at, (title, rank) in enumerate(table.titles())
            ),
        ],
        cells,
        lines,
    )
    yield layout.heading
    for at, line in enumerate(lines):
        text = layout.line(line)
        if at >= table.rows:
            text.stylize("dim")
        yield text


def title(name: str) -> str:
    """Return a measure's name as a title: bothOctets is BOTH OCTETS."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).upper()


class _Table:
    """The lines of a table of measures: of groups, of all others, and of all."""

    def __init__(
        self, document: Mapping[str, Any], width: int, measures: Sequence[Mapping[str, Any]]
    ) -> None:
        self._document, self._width, self._measures = document, width, measures
        self._compared = document.get("compared")
        self.rows = len(document["rows"])
        firsts = [row[width] for row in document["rows"]]
        other = document["other"]
        whole = document["total"][0] if document["total"] else 0
        self._whole = whole if abs(sum(firsts) + (other[0] if other else 0) - whole) < 1 else 0
        """Of what shares are shares; 0 where parts do not add up to a whole."""

    def titles(self) -> Iterator[tuple[str, int]]:
        """Go through the titles after the dimensions, with their ranks."""
        for at, measure in enumerate(self._measures):
            yield title(measure["name"]), at + 2 if at else 0
        if self._whole and self._width:
            yield "SHARE", 1
        if self._compared:
            yield "BEFORE", 1
            yield "CHANGE", 0

    def lines(self) -> Iterator[Line]:
        """Go through the lines."""
        before = self._compared["rows"] if self._compared else [None] * self.rows
        for row, then in zip(self._document["rows"], before, strict=True):
            names = [
                str(value) if value not in {"", None} else NOTHING for value in row[: self._width]
            ]
            yield self._line(names, row[self._width :], then)
        if not self._width:
            return
        if self._document["other"]:
            then = self._compared.get("other") if self._compared else None
            yield self._line(self._named(OTHERS), self._document["other"], then)
        then = self._compared["total"] if self._compared else None
        yield self._line(self._named(TOTAL), self._document["total"], then)

    def _named(self, name: str) -> list[str]:
        return [name, *[""] * (self._width - 1)]

    def _line(
        self, names: Sequence[str], numbers: Sequence[Any], then: Sequence[Any] | None
    ) -> Line:
        units = [measure["unit"] for measure in self._measures]
        cells = [*names, *map(amount, numbers, units)]
        if self._whole and self._width:
            cells.append(share(numbers[0], self._whole))
        if self._compared:
            before = then[0] if then else 0
            cells += [amount(before, units[0]), change(numbers[0], before)]
        return cells


def _column(
    at: int, title: str, *, least: int = 0, right: bool = False, rank: int = 0
) -> Column[Line]:
    return Column(title.upper(), lambda line: line[at], least=least, right=right, rank=rank)
