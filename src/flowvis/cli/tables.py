"""Tables for people: what a record looks like on a line, and numbers with units."""

import errno
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowvis.cli.amounts import clock, quantity
from flowvis.cli.layout import Column, Layout
from flowvis.fields import FLOW_TYPES, PROTOCOLS
from flowvis.runtime.visible import visible

Record = Mapping[str, Any]

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
TYPE_NAMES = {number: name for name, number in FLOW_TYPES.items()}
DIRECTIONS = ("ingress", "egress")
ACTIONS = {3: "rejected", 2: "dropped", 5: "unenforced", 4: "unenforced", 1: "allowed"}
"""Names of rule actions, the one that counts first."""
DENIALS = ("dropped", "rejected")
STYLES = {"dropped": "red", "rejected": "red", "unenforced": "yellow"}
PIPE_WIDTH = 10_000
FOLDED = 10  # cells that a column of texts may be folded to
GAP = 2  # cells between two columns of a grid
REASONS = {1: "idle", 2: "active", 3: "end", 4: "forced", 5: "no resources"}


class Terminal(Console):
    """Standard output."""

    def on_broken_pipe(self) -> None:
        """Leave it to `output.said`: rich would end the process, with 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console() -> Console:
    """The terminal; where there is none, lines as long as they need to be."""
    return Terminal(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def cells() -> int | None:
    """How many cells a line of the terminal has; None where there is none."""
    return console().width if sys.stdout.isatty() else None


def name(record: Record, side: str) -> str:
    """The Pod of one side, else its address."""
    pod = record[f"{side}PodName"]
    return f"{record[f'{side}PodNamespace']}/{pod}" if pod else str(record[f"{side}IP"])


def endpoint(record: Record, side: str) -> str:
    """The Pod of one side, else its address, with the port."""
    found = name(record, side)
    port = record[f"{side}TransportPort"]
    bare_v6 = ":" in found and not record[f"{side}PodName"]
    return f"[{found}]:{port}" if bare_v6 else f"{found}:{port}"


def protocol(record: Record) -> str:
    """The name of the protocol, else its number."""
    number = record["protocolIdentifier"]
    return PROTOCOL_NAMES.get(number, str(number))


def line(text: str) -> Text:
    """Return a text that may have anything in it, for the console."""
    return Text(visible(text))


def moment(time_ms: int) -> str:
    """A time of the epoch, in the time of this place."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S%z}"


def _time(record: Record) -> str:
    return clock(record["flowEndSeconds"] * 1000)


def _plain(name: str) -> Callable[[Record], str]:
    return lambda record: str(record[name])


def verdict(record: Record) -> str:
    """What policies decided about a connection: a denial in one direction is enough."""
    actions = {record[f"{direction}NetworkPolicyRuleAction"] for direction in DIRECTIONS}
    return next((name for action, name in ACTIONS.items() if action in actions), "")


def denied(record: Record) -> bool:
    """Whether a policy denied the connection."""
    return verdict(record) in DENIALS


def verdict_style(record: Record) -> str:
    """Return the colour of what policies decided."""
    return STYLES.get(verdict(record), "")


def _noteworthy(record: Record) -> str:
    found = verdict(record)
    return "" if found == "allowed" else found


def _both_ways(count: str) -> Callable[[Record], str]:
    return lambda record: quantity(record[f"octet{count}"] + record[f"reverseOctet{count}"], "B")


def _policy(direction: str) -> Callable[[Record], str]:
    def full_name(record: Record) -> str:
        namespace, name = (
            record[f"{direction}NetworkPolicy{part}"] for part in ("Namespace", "Name")
        )
        return f"{namespace}/{name}" if namespace else str(name)

    return full_name


def _amount(name: str, unit: str) -> Callable[[Record], str]:
    return lambda record: quantity(record[name], unit)


def _rate(name: str, octets: str) -> Callable[[Record], str]:
    """A rate; none where octets came in a time that nobody knows."""
    amount = _amount(name, "bit/s")
    return lambda record: "-" if record[octets] and not record[name] else amount(record)


def _flow_columns(count: str) -> tuple[Column[Record], ...]:
    return (
        Column("END", _time, 8, right=True),
        Column("SOURCE", lambda r: endpoint(r, "source"), 32, 16),
        Column("DESTINATION", lambda r: endpoint(r, "destination"), 32, 16),
        Column("SERVICE", _plain("destinationServicePortName"), 20, 12, rank=3),
        Column("PROTO", protocol, 6),
        Column("TYPE", lambda r: TYPE_NAMES.get(r["flowType"], ""), 13, rank=2),
        Column("VERDICT", verdict, 10, style=verdict_style),
        Column("SENT", _amount(f"octet{count}", "B"), 9, right=True),
        Column("RECEIVED", _amount(f"reverseOctet{count}", "B"), 9, right=True, rank=1),
        Column("RATE", _rate("throughput", "octetDeltaCount"), 12, right=True, rank=4),
    )


_MORE_COLUMNS: tuple[Column[Record], ...] = (
    Column("REVERSE", _rate("reverseThroughput", "reverseOctetDeltaCount"), 12, right=True),
    Column("FROM NODE", _plain("sourceNodeName"), 16),
    Column("TO NODE", _plain("destinationNodeName"), 16),
    Column("INGRESS POLICY", _policy("ingress"), 20),
    Column("EGRESS POLICY", _policy("egress"), 20),
    Column("STATE", _plain("tcpState"), 11),
    Column("REASON", lambda r: REASONS.get(r["flowEndReason"], ""), 8),
    Column("TOTAL", _amount("octetTotalCount", "B"), 9, right=True),
    Column("HALVES", _plain("originalFlowsPresent"), 6, right=True),
)
"""What the widest form has beside."""


def _compact_columns(count: str) -> tuple[Column[Record], ...]:
    """Who, with whom, how much; what policies decided where it was not to allow."""
    return (
        Column("END", _time, 8, right=True),
        Column("SOURCE", lambda r: name(r, "source"), 36, 12),
        Column("", lambda r: "-x" if denied(r) else "->", 2, style=verdict_style),
        Column("DESTINATION", lambda r: endpoint(r, "destination"), 36, 12),
        Column("PROTO", protocol, 4),
        Column("BYTES", _both_ways(count), 8, right=True),
        Column("VERDICT", _noteworthy, 8, style=verdict_style),
    )


def flow_layout(
    form: str, cells: int | None, records: Iterable[Record] | None = None, *, totals: bool = False
) -> Layout[Record]:
    """Return the layout of records in a form: compact, table or wide.

    Bytes are those of the record's interval, or all that the connection has had (`totals`).
    """
    count = "TotalCount" if totals else "DeltaCount"
    if form == "compact":
        return Layout(_compact_columns(count), cells, records, gap=" ", titles=False)
    columns = _flow_columns(count)
    if form == "wide":
        return Layout((*columns, *_MORE_COLUMNS), None, records)  # all of it, as long as it is
    return Layout(columns, cells, records)


def named_layout(
    names: Sequence[str], cells: int | None, records: Iterable[Record] | None = None
) -> Layout[Record]:
    """Return the layout of columns that were chosen by their names."""
    columns = [
        Column[Record](name, lambda r, name=name: str(r.get(name, "")), 12)  # type: ignore[misc]
        for name in names
    ]
    return Layout(columns, cells, records)


def print_grid(
    titles: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Collection[str] = ()
) -> None:
    """Print a table of any values; numbers to the right, and what is under the titles of `right`.

    Where there is no room texts are folded, but no number: a part of one is another. Where that is
    not enough nothing is, and lines are as long as they are.
    """
    found = [tuple(row) for row in rows]
    table = Table(box=None, pad_edge=False)
    least = whole = -GAP
    for at, title in enumerate(titles):
        values = [row[at] for row in found]
        number = title in right or any(isinstance(value, int | float) for value in values)
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(line(title), justify=justify, overflow="fold", no_wrap=number)
        widest = max(cell_len(visible(str(text))) for text in (title, *values))
        least += GAP + (widest if number else min(widest, FOLDED))
        whole += GAP + widest
    for row in found:
        table.add_row(*(line(str(value)) for value in row))
    room = console().width
    Terminal(width=room if least <= room else whole, highlight=False).print(table)
