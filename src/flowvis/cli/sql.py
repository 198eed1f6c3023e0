"""flowctl sql: read-only queries in the store that the aggregator writes to."""

import argparse
import sys

from flowvis.cli import tables
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command
from flowvis.cli.rows import field, write_table
from flowvis.errors import SettingsError


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "sql",
        "query the store, read-only",
        "Run a query in the aggregator's ClickHouse, embedded or a server, read-only. "
        "The table is `flows`; docs/clickhouse.md describes its columns.",
        '"SELECT destinationServicePortName, sum(octetDeltaCount) FROM flows GROUP BY 1"',
        "- -o csv < query.sql > answer.csv",
        positional="QUERY",
    )
    parser.add_argument("query", help="a SELECT; - reads it from standard input")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json", "csv"),
        default="table",
        help="csv and the table have an escape, as \\n, for what is not printable; json is exact",
    )
    parser.add_argument("--max-rows", type=int, default=10_000, help="stop after so many (10000)")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print a query's answer."""
    try:
        query = _read() if options.query == "-" else options.query
        query.encode()
    except UnicodeError as error:
        raise SettingsError([f"the query is not UTF-8: {error}"]) from error
    answer = client.post("sql", {"query": query, "maxRows": options.max_rows})
    columns, rows = answer["columns"], answer["rows"]
    if options.output == "table":
        tables.print_grid(columns, ([field(value) for value in row] for row in rows))
    else:
        write_table(options.output, columns, rows)
    if answer["truncated"]:
        print(f"flowctl: only the first {len(rows)} rows: see --max-rows", file=sys.stderr)
    return 0


def _read() -> str:
    if sys.stdin is None:
        raise SettingsError(["standard input is closed"])
    return sys.stdin.read()
