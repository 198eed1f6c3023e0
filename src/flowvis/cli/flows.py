"""flowctl flows: the records that the aggregator writes."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from flowvis.aggregator.api.conditions import CONDITIONS
from flowvis.cli import tables
from flowvis.cli.client import ControlClient
from flowvis.runtime.visible import visible_json


def add_arguments(commands: Any, connect: Callable[[argparse.Namespace], ControlClient]) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "flows",
        help="show records, the latest or as they come",
        description="Show the latest records that the aggregator wrote, one per connection and "
        "interval. All conditions must hold.",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("-n", "--limit", type=int, default=100, help="how many (100)")
    parser.add_argument("-o", "--output", choices=("table", "wide", "json"), default="table")
    parser.add_argument(
        "--live", action="store_true", help="the table's live flows instead, with their totals"
    )
    for name, text in CONDITIONS.items():
        parser.add_argument(f"--{name}", default="", metavar=name.upper(), help=text)
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: ControlClient) -> int:
    """Print flows until there are no more."""
    query = {name: getattr(options, name) for name in CONDITIONS}
    query = {name: text for name, text in query.items() if text}
    query["limit"] = str(options.limit)
    if options.live:
        records = client.lines("api/v1/live", query)
    else:
        records = client.lines("flows", query | {"follow": "1" if options.follow else "0"})
    if options.output == "json":
        for record in records:
            print(visible_json(record), flush=options.follow)
    elif options.follow and not options.live:
        _stream(records, wide=options.output == "wide")
    else:
        tables.console().print(tables.flow_table(records, wide=options.output == "wide"))
    return 0


def _stream(records: Iterable[Any], *, wide: bool) -> None:
    print(tables.flow_heading(wide=wide), flush=True)
    for record in records:
        if "lost" in record:
            print(f"... {record['lost']} records missed: this terminal is too slow", flush=True)
        else:
            print(tables.flow_line(record, wide=wide), flush=True)
