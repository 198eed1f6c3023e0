"""flowctl series: how measures went over a range, a line of blocks for each group."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flowvis.cli import completeness, tables
from flowvis.cli.amounts import amount, span, sparkline
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command, add_output
from flowvis.cli.layout import Column, Layout
from flowvis.cli.question import add_question, asked
from flowvis.cli.rows import write_table
from flowvis.cli.top import NOTHING, OTHERS, TOTAL, add_grouping, report_others
from flowvis.runtime.durations import format_duration
from flowvis.runtime.visible import visible_json

MEASURE = "throughput"
LIMIT = 10
SHORTEST, USUAL, LONGEST = 16, 60, 120  # cells of a series
NAMES = 30


@dataclass(frozen=True)
class _Series:
    name: str
    measure: str
    unit: str | None
    values: Sequence[float]


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "series",
        "how measures went over time",
        "Draw measures over a range, each line from 0 to its own highest interval.",
        "--since 6h",
        "--by src.namespace --measure octets --since 1d",
        "'verdict = denied' --measure denied --interval 1m",
    )
    add_question(parser)
    add_grouping(parser, "", MEASURE, LIMIT)
    parser.add_argument(
        "--interval",
        type=_interval,
        default="auto",
        metavar="LENGTH",
        help="of a point: 60s, 5m; (auto)",
    )
    add_output(parser, "table", "json", "csv")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def _interval(text: str) -> str:
    """Read the length of a point, which is the API's to know; but it has none as well."""
    if text.strip() in {"", "none"}:
        raise argparse.ArgumentTypeError(f"{text!r}: auto, or a length as 60s, 5m")
    return text


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the series."""
    query = asked(options) | {
        "by": options.by,
        "measure": options.measure,
        "limit": str(options.limit),
        "interval": options.interval,
    }
    document = client.get("api/v1/query", query)
    completeness.report(document)
    if options.output == "json":
        print(visible_json(document))
    elif options.output == "csv":
        _write(document)
        report_others(document)
    else:
        console = tables.console()
        for line in lines(document, tables.cells()):
            console.print(line, soft_wrap=True)
    return 0


def lines(document: Mapping[str, Any], cells: int | None) -> Iterator[Text]:
    """Go through the lines of an answer with series."""
    times = document["times"]
    step_s = (times[1] - times[0]) // 1000 if len(times) > 1 else 0
    every = f", a point every {format_duration(step_s)}" if step_s else ""
    yield Text(f"{span(times[0], times[-1] + step_s * 1000)}{every}", "dim")
    found = list(_series(document))
    several = len({each.measure for each in found}) > 1
    room = _room(found, cells, several=several)
    columns: list[Column[_Series]] = [
        Column("", lambda s: s.name, least=16),
        Column("", lambda s: s.measure if several else ""),
        Column("", lambda s: sparkline(list(s.values), room), width=room),
        Column("MEAN", lambda s: amount(sum(s.values) / len(s.values), s.unit), right=True),
        Column("PEAK", lambda s: amount(max(s.values), s.unit), right=True),
        Column("LAST", lambda s: amount(s.values[-1], s.unit), right=True, rank=1),
    ]
    layout = Layout([c for at, c in enumerate(columns) if at != 1 or several], cells, found)
    yield from layout.lines(found)


def _room(found: Sequence[_Series], cells: int | None, *, several: bool) -> int:
    """Return how many cells a series may take."""
    points = max((len(each.values) for each in found), default=1)
    if cells is None:
        return min(points, USUAL)
    names = min(max((len(each.name) for each in found), default=0), NAMES)
    measures = max(len(each.measure) for each in found) + 2 if several else 0
    left = cells - names - measures - 3 * 14 - 2
    return min(max(left, SHORTEST), points, LONGEST)


def _series(document: Mapping[str, Any]) -> Iterator[_Series]:
    columns = document["columns"]
    width = sum(column["kind"] == "dimension" for column in columns)
    named: list[tuple[str, Sequence[Sequence[float]]]] = []
    if width:
        for row, series in zip(document["rows"], document["series"], strict=True):
            named.append((" ".join(str(value) or NOTHING for value in row[:width]), series))
        if document["otherSeries"]:
            named.append((OTHERS, document["otherSeries"]))
    named.append((TOTAL, document["totalSeries"]))
    for name, series in named:
        for column, values in zip(columns[width:], series, strict=True):
            yield _Series(name, column["name"], column["unit"], values)


def _write(document: Mapping[str, Any]) -> None:
    """Write a row for each interval of each group."""
    columns = document["columns"]
    dimensions = [column["name"] for column in columns if column["kind"] == "dimension"]
    measures = [column["name"] for column in columns if column["kind"] != "dimension"]
    write_table(
        "csv",
        ["time", *dimensions, *measures],
        (
            [time, *row[: len(dimensions)], *(values[at] for values in series)]
            for row, series in zip(document["rows"], document["series"], strict=True)
            for at, time in enumerate(document["times"])
        ),
    )
