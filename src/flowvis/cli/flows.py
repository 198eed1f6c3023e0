"""flowctl flows: records, of the past and as they come."""

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

from flowvis.cli import tables
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command, add_output, count
from flowvis.cli.conditions import filter_text
from flowvis.cli.feed import LOST, Feed, Record
from flowvis.cli.question import add_question, asked
from flowvis.cli.rows import CsvRows, JsonRows, Rows
from flowvis.errors import SettingsError

SINCE = "1d"
LAST = 100
AT_MOST = 10_000  # of a range, where nobody says how many
FOR_PROGRAMS: dict[str, Callable[[Sequence[str]], Rows]] = {"json": JsonRows, "csv": CsvRows}
FORMS = ("compact", "table", "wide", *FOR_PROGRAMS)


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "flows",
        "show records, of the past or as they come",
        "Show flow records, one per connection and interval, oldest first: those of the store, "
        "those that are on their way there, and with --follow what comes, without a gap.",
        "--follow                               # as they come",
        "'src.namespace = shop and bytes > 1MB' --since 1h",
        "--from-pod 'shop/cart-*' --not --verdict allowed --last 20",
        "--since 14:00 --until 14:05 -o csv --fields flowEndSeconds,sourceIP,destinationIP",
        "--live --pod orders-0                  # connections that are open now, with their totals",
    )
    add_question(parser, "")
    parser.add_argument(
        "--last",
        "--limit",
        type=count,
        metavar="N",
        help=f"the newest N ({LAST} of the last day; of a range {AT_MOST}); of --live any N",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "--live", action="store_true", help="flows that are open now, from the aggregator's table"
    )
    add_output(parser, *FORMS)
    parser.add_argument(
        "--fields", metavar="A,B,...", help="only these columns (names of docs/clickhouse.md)"
    )
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print flows until there are no more."""
    ranged = bool(options.since or options.until)
    last = options.last or (AT_MOST if ranged else LAST)
    if options.live:
        if ranged or options.follow:
            raise SettingsError(["--live: what is open now has no --since, --until or --follow"])
        query = {"limit": str(last + 1), "filter": filter_text(options)}
        found = list(client.lines("api/v1/live", query))
        _show(found[:last], options)
        if not found:
            _none("open connection", options)
        if len(found) > last and options.last is None:
            print(f"flowctl: only {last} of those that are open: see --last", file=sys.stderr)
        return 0
    if options.follow and options.until:
        raise SettingsError(["--follow and --until: what comes has no end"])
    feed = Feed(client, asked(options, SINCE), last, ranged=ranged)
    if options.follow:
        _stream(feed.follow(), options)
        return 0
    found = feed.past()
    _show(found, options, feed.names)
    if not found:
        _none("record of the range" if ranged else "record of the last day", options)
    if feed.cut and options.last is None and ranged:
        print(f"flowctl: only the newest {last} of the range: see --last", file=sys.stderr)
    return 0


def _none(what: str, options: argparse.Namespace) -> None:
    """Say that there is nothing: else nobody knows whether anything was asked."""
    chosen = " that the filter chooses" if filter_text(options) else ""
    print(f"flowctl: no {what}{chosen}", file=sys.stderr)


def _show(
    records: Sequence[Record], options: argparse.Namespace, columns: Sequence[str] = ()
) -> None:
    """Print records; `columns`: those that there are, where it is known without any record."""
    known = columns or (list(records[0]) if records else [])
    names = _fields(options, known)
    if options.output == "csv":
        names = names or list(known)  # also where there are no records
    if options.output in FOR_PROGRAMS:
        rows = FOR_PROGRAMS[options.output](names)
        for record in records:
            rows.write(record)
        return
    _Lines(options, records).print(records)


def _stream(records: Iterable[Record], options: argparse.Namespace) -> None:
    """Print records as they come; --fields are checked with the first one."""
    records = iter(records)
    lost: list[Record] = []
    for first in records:
        if LOST in first:
            lost.append(first)
            continue
        names = _fields(options, list(first))
        everything = chain(lost, [first], records)
        if options.output in FOR_PROGRAMS:
            rows = FOR_PROGRAMS[options.output](names)
            for record in everything:
                if LOST in record and options.output == "csv":
                    print(f"flowctl: {record[LOST]} records missed", file=sys.stderr)
                else:
                    (JsonRows() if LOST in record else rows).write(record)
                sys.stdout.flush()
        else:
            _Lines(options, None).print(everything)


def _chosen(text: str | None) -> list[str]:
    """Read --fields."""
    return [name.strip() for name in text.split(",")] if text else []


class _Lines:
    """Records on lines for people."""

    def __init__(self, options: argparse.Namespace, records: Sequence[Record] | None) -> None:
        """`records`: all that there are, where that is known."""
        cells = tables.cells()
        if options.fields:
            self._layout = tables.named_layout(_chosen(options.fields), cells, records)
        else:
            self._layout = tables.flow_layout(options.output, cells, records, totals=options.live)
        self._titled = options.output != "compact" or bool(options.fields)

    def print(self, records: Iterable[Record]) -> None:
        console = tables.console()
        if self._titled:
            console.print(self._layout.heading, soft_wrap=True)
        for record in records:
            if LOST in record:
                why = "this terminal was too slow, or not connected"
                print(f"... {record[LOST]} records missed: {why}", flush=True)
            else:
                console.print(self._layout.line(record), soft_wrap=True)
                sys.stdout.flush()


def _fields(options: argparse.Namespace, known: Collection[str]) -> list[str]:
    """Return the names that were chosen; none: all. SettingsError for one that is not known.

    `known`: none where there was nothing to know them by.
    """
    names = _chosen(options.fields)
    for name in names:
        if known and name not in known:
            raise SettingsError(
                [f"--fields {name!r}: no column of a record: see docs/clickhouse.md"]
            )
    return names
