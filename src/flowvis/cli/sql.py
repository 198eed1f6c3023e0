"""flowctl sql: read-only queries in the store that the aggregator writes to."""

import argparse
import csv
import sys
from collections.abc import Callable
from typing import Any

from flowvis.cli import tables
from flowvis.cli.client import ControlClient
from flowvis.runtime.visible import visible, visible_json


def add_arguments(commands: Any, connect: Callable[[argparse.Namespace], ControlClient]) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "sql",
        help="query the store, read-only",
        description="Run a query in the aggregator's ClickHouse, embedded or a server, read-only. "
        "The table is `flows`; docs/clickhouse.md describes its columns.",
        epilog='example: flowctl sql "SELECT destinationServicePortName, sum(octetDeltaCount) '
        'FROM flows GROUP BY 1 ORDER BY 2 DESC"',
    )
    parser.add_argument("query", help="a SELECT; - reads it from standard input")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "csv"),
        default="table",
        help="csv and the table have an escape, as \\\\n, for what is not printable; json is exact",
    )
    parser.add_argument("--max-rows", type=int, default=10_000, help="stop after so many (10000)")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: ControlClient) -> int:
    """Print a query's answer."""
    query = sys.stdin.read() if options.query == "-" else options.query
    answer = client.post("sql", {"query": query, "maxRows": options.max_rows})
    columns, rows = answer["columns"], answer["rows"]
    if options.output == "json":
        for row in rows:
            print(visible_json(dict(zip(columns, row, strict=True))))
    elif options.output == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(map(_field, columns))
        writer.writerows(map(_field, row) for row in rows)
    else:
        tables.console().print(tables.grid(columns, rows))
    if answer["truncated"]:
        print(f"flowctl: only the first {len(rows)} rows: see --max-rows", file=sys.stderr)
    return 0


def _field(value: Any) -> Any:
    """Return a value as CSV shows it: a text on one line; lists and objects as JSON."""
    if isinstance(value, str):
        return visible(value)
    return visible_json(value) if isinstance(value, list | dict) else value
