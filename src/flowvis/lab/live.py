"""Flows as they arrive, one line each, fitted to the terminal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from flowvis.fields import PROTOCOLS, FlowType, RuleAction
from flowvis.runtime.visible import visible

Record = Mapping[str, Any]
"""A record as the aggregator's API gives it."""

KINDS = {
    FlowType.INTRA_NODE: ("intra-node", "cyan"),
    FlowType.INTER_NODE: ("inter-node", "green"),
    FlowType.TO_EXTERNAL: ("to external", "yellow"),
    FlowType.FROM_EXTERNAL: ("from external", "magenta"),
}
VERDICTS = {RuleAction.DROP: "dropped", RuleAction.REJECT: "rejected"}
"""What takes the place of the type: nothing of a denied connection got through."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

ROOMY = 120
"""Columns that namespaces and protocols need; a narrower terminal does without."""

LEAST = 12
GAP = "  "


@dataclass(frozen=True)
class LiveColumn:
    """A column: its title and width, or its share of what is left, and how it is filled."""

    title: str
    text: Callable[[Record, bool], str]
    width: int = 0
    shares: tuple[int, int] = (0, 0)
    """In a narrow terminal, in a roomy one."""
    right: bool = False


def _protocol(record: Record, _: bool) -> str:
    number = record["protocolIdentifier"]
    return PROTOCOL_NAMES.get(number, str(number))


def _destination(record: Record, roomy: bool) -> str:
    return f"{_end(record, 'destination', roomy)}:{record['destinationTransportPort']}"


def _service(record: Record, roomy: bool) -> str:
    name = str(record["destinationServicePortName"])
    return name if roomy else name.rpartition("/")[2]


def _octets(record: Record, _: bool) -> str:
    return quantity(record["octetDeltaCount"] + record["reverseOctetDeltaCount"], "B")


def _throughput(record: Record, _: bool) -> str:
    return quantity(record["throughput"] + record["reverseThroughput"], "bit/s")


COLUMNS = (
    LiveColumn("SOURCE", lambda record, roomy: _end(record, "source", roomy), shares=(13, 18)),
    LiveColumn("DESTINATION", _destination, shares=(14, 29)),
    LiveColumn("SERVICE", _service, shares=(12, 24)),
    LiveColumn("PROTO", _protocol, 5),
    LiveColumn("TYPE", lambda record, _: _kind(record)[0], 13),
    LiveColumn("BYTES", _octets, 7, right=True),
    LiveColumn("THROUGHPUT", _throughput, 11, right=True),
)
"""Bytes and throughput are those of both directions."""


class LiveTable:
    """A table without an end: its columns are fitted once to the width that there is."""

    def __init__(self, width: int) -> None:
        self._roomy = width >= ROOMY
        columns = [c for c in COLUMNS if self._roomy or c.text is not _protocol]
        room = width - sum(c.width for c in columns) - len(GAP) * (len(columns) - 1)
        shares = [c.shares[self._roomy] for c in columns]
        self._columns = [
            (column, column.width or max(LEAST, room * share // sum(shares)))
            for column, share in zip(columns, shares, strict=True)
        ]

    def heading(self) -> Text:
        """The titles."""
        return Text(self._line([column.title for column, _ in self._columns]), "bold")

    def line(self, record: Record) -> Text:
        """One record, coloured by its type."""
        cells = [column.text(record, self._roomy) for column, _ in self._columns]
        return Text(self._line(cells), _kind(record)[1])

    def _line(self, cells: list[str]) -> str:
        return GAP.join(
            _fit(cell, width, right=column.right)
            for cell, (column, width) in zip(cells, self._columns, strict=True)
        )


def quantity(number: float, unit: str) -> str:
    """Write a number with a decimal prefix."""
    for prefix in ("", "k", "M"):
        if number < 999.5:  # what rounds to 1000 gets the next prefix
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} G{unit}"


def _kind(record: Record) -> tuple[str, str]:
    """What kind of flow it is, and its colour."""
    for direction in ("ingress", "egress"):
        verdict = VERDICTS.get(record[f"{direction}NetworkPolicyRuleAction"])
        if verdict:
            return verdict, "red"
    return KINDS.get(record["flowType"], ("", ""))


def _end(record: Record, side: str, roomy: bool) -> str:
    pod = str(record[f"{side}PodName"])
    if pod:
        return f"{record[f'{side}PodNamespace']}/{pod}" if roomy else pod
    address = str(record[f"{side}IP"])
    return f"[{address}]" if ":" in address else address


def _fit(text: str, width: int, *, right: bool) -> str:
    """Write a text into so many cells: of a longer one the middle is left out, never its port."""
    text = visible(text)
    if cell_len(text) > width:
        tail = set_cell_size(text[::-1], width // 2)[::-1]
        head = set_cell_size(text, width - 1 - width // 2)
        return f"{head}\N{HORIZONTAL ELLIPSIS}{tail}"
    padding = " " * (width - cell_len(text))
    return padding + text if right else text + padding
