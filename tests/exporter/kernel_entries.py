"""Entries of conntrack by hand."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowvis.batch import address_bytes
from flowvis.conntrack.entries import DUMP, NO_TCP_STATE, Entries
from flowvis.conntrack.names import TCP_STATES

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Connection:
    """One connection of the kernel, plain unless told otherwise."""

    source: str = "10.0.1.10"
    destination: str = "10.0.2.20"
    source_port: int = 40000
    destination_port: int = 80
    protocol: int = 6
    real: str = ""
    real_port: int = 0
    snat: str = ""
    snat_port: int = 0
    id: int = 1
    zone: int = 0
    mark: int = 0
    start_ns: int = 1_000 * SECOND
    stop_ns: int = 0
    status: int = 0
    timeout: int = 0
    uncounted: int = 0
    tcp_state: str | None = "ESTABLISHED"
    counters: tuple[int, int, int, int] = (0, 0, 0, 0)
    event: int = DUMP
    icmp: tuple[int, int, int] = (0, 0, 0)
    """Type, code and identifier."""

    def at(self, *counters: int, **changes: Any) -> "Connection":
        if counters:
            changes["counters"] = counters
        return replace(self, **changes)

    def row(self) -> dict[str, Any]:
        state = NO_TCP_STATE if self.tcp_state is None else TCP_STATES.index(self.tcp_state)
        return {
            "source": address_bytes(self.source),
            "destination": address_bytes(self.destination),
            "reply_source": address_bytes(self.real or self.destination),
            "reply_destination": address_bytes(self.snat or self.source),
            "source_port": self.source_port,
            "destination_port": self.destination_port,
            "reply_source_port": self.real_port or self.destination_port,
            "reply_destination_port": self.snat_port or self.source_port,
            "packets": self.counters[0],
            "octets": self.counters[1],
            "reverse_packets": self.counters[2],
            "reverse_octets": self.counters[3],
            "tcp_state": state,
            "icmp_type": self.icmp[0],
            "icmp_code": self.icmp[1],
            "icmp_id": self.icmp[2],
            "family": 10 if ":" in self.source else 2,
        } | {
            name: getattr(self, name)
            for name in (
                *("protocol", "id", "zone", "mark"),
                *("start_ns", "stop_ns", "status", "timeout", "event"),
                "uncounted",
            )
        }


def entries(*connections: Connection) -> Entries:
    rows = [connection.row() for connection in connections]
    columns = {}
    for name, empty in Entries.none().columns().items():
        column = np.zeros((len(rows), *empty.shape[1:]), empty.dtype)
        for at, row in enumerate(rows):
            value = row.get(name, 0)
            column[at] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        columns[name] = column
    return Entries.of(columns)
