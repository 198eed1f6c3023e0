"""Tables for people: what a record looks like on a line, and numbers with units."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowvis.fields import FLOW_TYPES, PROTOCOLS
from flowvis.runtime.visible import visible

Record = Mapping[str, Any]

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
TYPE_NAMES = {number: name for name, number in FLOW_TYPES.items()}
DIRECTIONS = ("ingress", "egress")
ACTIONS = {3: "rejected", 2: "dropped", 5: "unenforced", 4: "unenforced", 1: "allowed"}
"""Names of rule actions, the one that counts first."""
PIPE_WIDTH = 10_000
REASONS = {1: "idle", 2: "active", 3: "end", 4: "forced", 5: "no resources"}


@dataclass(frozen=True)
class TableColumn:
    """One column of the table of flows."""

    title: str
    value: Callable[[Record], str]
    width: int
    wide: bool = False
    """Shown only when there is room for everything."""
    right: bool = False


def console() -> Console:
    """The terminal; where there is none, lines as long as they need to be."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def quantity(number: float, unit: str) -> str:
    """A number with a decimal prefix: 1234567, "B" is "1.2 MB"."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 1000 or prefix == "T":
            break
        number /= 1000
    text = f"{number:.1f}" if prefix and number < 100 else f"{number:.0f}"
    return f"{text} {prefix}{unit}"


def endpoint(record: Record, side: str) -> str:
    """The Pod of one side, else its address, with the port."""
    port = record[f"{side}TransportPort"]
    pod = record[f"{side}PodName"]
    if pod:
        return f"{record[f'{side}PodNamespace']}/{pod}:{port}"
    address = record[f"{side}IP"]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def line(text: str) -> Text:
    """Return a text that may have anything in it, for the console."""
    return Text(visible(text))


def moment(time_ms: int) -> str:
    """A time of the epoch, in the time of this place."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC).astimezone():%Y-%m-%d %H:%M:%S%z}"


def _time(record: Record) -> str:
    moment = datetime.fromtimestamp(record["flowEndSeconds"], UTC).astimezone()
    return f"{moment:%H:%M:%S}"


def _plain(name: str) -> Callable[[Record], str]:
    return lambda record: str(record[name])


def verdict(record: Record) -> str:
    """What policies decided about a connection: a denial in one direction is enough."""
    actions = {record[f"{direction}NetworkPolicyRuleAction"] for direction in DIRECTIONS}
    return next((name for action, name in ACTIONS.items() if action in actions), "")


def _policy(direction: str) -> Callable[[Record], str]:
    def full_name(record: Record) -> str:
        namespace, name = (
            record[f"{direction}NetworkPolicy{part}"] for part in ("Namespace", "Name")
        )
        return f"{namespace}/{name}" if namespace else str(name)

    return full_name


def _amount(name: str, unit: str) -> Callable[[Record], str]:
    return lambda record: quantity(record[name], unit)


FLOW_COLUMNS = (
    TableColumn("END", _time, 8),
    TableColumn("SOURCE", lambda r: endpoint(r, "source"), 32),
    TableColumn("DESTINATION", lambda r: endpoint(r, "destination"), 32),
    TableColumn("SERVICE", _plain("destinationServicePortName"), 20),
    TableColumn("PROTO", lambda r: PROTOCOL_NAMES.get(r["protocolIdentifier"], "?"), 6),
    TableColumn("TYPE", lambda r: TYPE_NAMES.get(r["flowType"], ""), 13),
    TableColumn("VERDICT", verdict, 10),
    TableColumn("SENT", _amount("octetDeltaCount", "B"), 9, right=True),
    TableColumn("RECEIVED", _amount("reverseOctetDeltaCount", "B"), 9, right=True),
    TableColumn("RATE", _amount("throughput", "bit/s"), 12, right=True),
    TableColumn("REVERSE", _amount("reverseThroughput", "bit/s"), 12, wide=True, right=True),
    TableColumn("FROM NODE", _plain("sourceNodeName"), 16, wide=True),
    TableColumn("TO NODE", _plain("destinationNodeName"), 16, wide=True),
    TableColumn("INGRESS POLICY", _policy("ingress"), 20, wide=True),
    TableColumn("EGRESS POLICY", _policy("egress"), 20, wide=True),
    TableColumn("STATE", _plain("tcpState"), 11, wide=True),
    TableColumn("REASON", lambda r: REASONS.get(r["flowEndReason"], ""), 8, wide=True),
    TableColumn("TOTAL", _amount("octetTotalCount", "B"), 9, wide=True, right=True),
    TableColumn("HALVES", _plain("originalFlowsPresent"), 6, wide=True, right=True),
)


def flow_columns(*, wide: bool) -> list[TableColumn]:
    """Return the columns of the table of flows."""
    return [column for column in FLOW_COLUMNS if wide or not column.wide]


def flow_table(records: Iterable[Record], *, wide: bool) -> Table:
    """Make a table of records that are all there."""
    columns = flow_columns(wide=wide)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, overflow="fold")
    for record in records:
        table.add_row(*(line(column.value(record)) for column in columns))
    return table


def flow_heading(*, wide: bool) -> str:
    """The heading of `flow_line`s."""
    return "  ".join(_fit(column, column.title) for column in flow_columns(wide=wide)).rstrip()


def flow_line(record: Record, *, wide: bool) -> str:
    """Write one record on a line of columns whose widths are fixed, for a stream without an end."""
    columns = flow_columns(wide=wide)
    cells = (_fit(column, visible(column.value(record))) for column in columns)
    return "  ".join(cells).rstrip()


def grid(
    titles: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Collection[str] = ()
) -> Table:
    """Make a table of any values; numbers to the right, and what is under the titles of `right`."""
    rows = [tuple(row) for row in rows]
    table = Table(box=None, pad_edge=False)
    for at, title in enumerate(titles):
        number = title in right or (bool(rows) and isinstance(rows[0][at], int | float))
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(line(title), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(line(str(value)) for value in row))
    return table


def _fit(column: TableColumn, text: str) -> str:
    """Pad by the cells that it takes; what is too long stays whole, rather than half a name."""
    padding = " " * (column.width - cell_len(text))
    return padding + text if column.right else text + padding
