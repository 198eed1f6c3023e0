"""A connection's tuples, put in order: who called whom, whatever translated addresses."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column, only, same_addresses
from flowvis.conntrack.entries import Entries
from flowvis.fields import Source, flow_ids, provides
from flowvis.native import pack_keys

KEY_SIZE = 83
"""Bytes of a connection's identity."""


@dataclass(frozen=True, slots=True, eq=False)
class ConnectionTuples:
    """The tuples of connections, as columns.

    The source is who opened the connection, before SNAT; the destination is who answers, after
    DNAT; `original_*` is what was called; `snat*` is whom the answer goes to, 0 where that is the
    source itself.
    """

    source: NDArray[np.uint8]
    destination: NDArray[np.uint8]
    source_port: Column
    destination_port: Column
    protocol: Column
    snat: NDArray[np.uint8]
    snat_port: Column
    original_destination: NDArray[np.uint8]
    original_port: Column
    start_ms: NDArray[np.uint64]
    flow_id: NDArray[np.uint64]
    """What tells connections without ports apart: see the field flowId."""

    @classmethod
    def of(cls, entries: Entries, now_ms: int) -> Self:
        """Bring entries into the order of tuples; what has no start time begins now."""
        same = same_addresses(entries.reply_destination, entries.source)
        same &= entries.reply_destination_port == entries.source_port
        started = entries.start_ns // 1_000_000
        return cls(
            entries.source,
            entries.reply_source,
            entries.source_port,
            entries.reply_source_port,
            entries.protocol,
            only(entries.reply_destination, ~same),
            np.where(same, np.uint16(0), entries.reply_destination_port),
            entries.destination,
            entries.destination_port,
            np.where(started > 0, started, np.uint64(now_ms)),
            flow_ids(entries.icmp_type, entries.icmp_code, entries.icmp_id),
        )

    def __len__(self) -> int:
        return len(self.start_ms)

    def take(self, which: slice) -> Self:
        """Those of some connections, as views."""
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))

    def fields(self) -> dict[str, Column]:
        """The fields of a flow record that the tuples give."""
        return {name: give(self) for name, give in _FIELDS.items()}

    @property
    def translated(self) -> NDArray[np.bool_]:
        """Which destinations are not what was called."""
        same = same_addresses(self.original_destination, self.destination)
        return np.asarray(~same | (self.original_port != self.destination_port))


_FIELDS: dict[str, Callable[[ConnectionTuples], Column]] = {
    "sourceIP": lambda tuples: tuples.source,
    "destinationIP": lambda tuples: tuples.destination,
    "sourceTransportPort": lambda tuples: tuples.source_port,
    "destinationTransportPort": lambda tuples: tuples.destination_port,
    "protocolIdentifier": lambda tuples: tuples.protocol,
    "proxySnatIP": lambda tuples: tuples.snat,
    "proxySnatPort": lambda tuples: tuples.snat_port,
    "flowStartMilliseconds": lambda tuples: tuples.start_ms,
    "flowId": lambda tuples: tuples.flow_id,
    "icmpTypeCode": lambda tuples: (tuples.flow_id >> 16).astype(np.uint16),
}
provides(Source.TUPLES, _FIELDS)


def identity(entries: Entries) -> NDArray[np.uint8]:
    """The keys of connections: zone, both tuples and the kernel's id, `(n, KEY_SIZE)`.

    The start is not in it as events of new connections do not tell it.
    """
    keys: NDArray[np.uint8] = pack_keys(
        entries.source,
        entries.destination,
        entries.reply_source,
        entries.reply_destination,
        entries.source_port,
        entries.destination_port,
        entries.reply_source_port,
        entries.reply_destination_port,
        entries.zone,
        entries.icmp_id,
        entries.id,
        entries.icmp_type,
        entries.icmp_code,
        entries.protocol,
    )
    return keys


def zones_of(keys: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the zones of identities."""
    at = 4 * 16 + 4 * 2  # behind addresses and ports
    return np.ascontiguousarray(keys[:, at : at + 2]).view(np.uint16)[:, 0]


def source_and_protocol(keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the sources and protocols of identities."""
    return keys[:, :16], keys[:, -1]
