"""Flows as they arrive, one line each, fitted to the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from flowvis.fields import FlowType

Record = Mapping[str, Any]
"""A record as the aggregator's API gives it."""

KINDS = {
    FlowType.INTRA_NODE: ("intra-node", "cyan"),
    FlowType.INTER_NODE: ("inter-node", "green"),
    FlowType.TO_EXTERNAL: ("to external", "yellow"),
    FlowType.FROM_EXTERNAL: ("from external", "magenta"),
}
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}

FIXED = (5, 13, 9, 12)  # protocol, type, bytes, throughput
GAP = 2
LEAST = 12
"""Narrowest that the columns for source, destination and service get."""


class Table:
    """A table without an end: its columns are fitted once to the width that there is."""

    def __init__(self, width: int) -> None:
        room = width - sum(FIXED) - GAP * (len(FIXED) + 2)
        service = max(LEAST, room * 2 // 7)
        source = max(LEAST, (room - service) * 3 // 7)
        self._widths = (source, max(LEAST, room - service - source), service, *FIXED)

    def heading(self) -> Text:
        """The titles."""
        titles = ("SOURCE", "DESTINATION", "SERVICE", "PROTO", "TYPE", "BYTES", "THROUGHPUT")
        return Text(self._line(titles), "bold")

    def line(self, record: Record) -> Text:
        """One record; bytes and throughput are those of both directions."""
        kind, style = KINDS.get(record["flowType"], ("", ""))
        octets = record["octetDeltaCount"] + record["reverseOctetDeltaCount"]
        rate = record["throughput"] + record["reverseThroughput"]
        protocol = record["protocolIdentifier"]
        cells = (
            _end(record, "source"),
            f"{_end(record, 'destination')}:{record['destinationTransportPort']}",
            record["destinationServicePortName"],
            PROTOCOLS.get(protocol, str(protocol)),
            kind,
            quantity(octets, "B"),
            quantity(rate, "bit/s"),
        )
        return Text(self._line(cells), style)

    def _line(self, cells: tuple[str, ...]) -> str:
        fitted = [_fit(cell, width) for cell, width in zip(cells[:5], self._widths, strict=False)]
        fitted += [cell.rjust(width) for cell, width in zip(cells[5:], FIXED[2:], strict=True)]
        return (" " * GAP).join(fitted)


def quantity(number: float, unit: str) -> str:
    """Write a number with a decimal prefix."""
    for prefix in ("", "k", "M"):
        if number < 999.5:  # what rounds to 1000 gets the next prefix
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:.3g} G{unit}"


def _end(record: Record, side: str) -> str:
    pod = record[f"{side}PodName"]
    if pod:
        return f"{record[f'{side}PodNamespace']}/{pod}"
    address = str(record[f"{side}IP"])
    return f"[{address}]" if ":" in address else address


def _fit(text: str, width: int) -> str:
    return (
        text.ljust(width) if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
