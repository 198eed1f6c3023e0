"""Entries of the kernel's connection table, as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import take
from flowvis.native.contract.conntrack import DESTROY, DUMP, NEW, NO_TCP_STATE, RECORD, UPDATE

__all__ = ["DESTROY", "DUMP", "NEW", "NO_TCP_STATE", "UPDATE", "Entries"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entries:
    """Columns of one length, one row a connection as the kernel reported it at one moment.

    The original direction is that of the first packet; the reply tuple is what answers look like,
    so `reply_source` is where the connection really went after DNAT. Addresses are `(n, 16)` as in
    `flowvis.batch`. What the kernel did not tell is 0.
    """

    source: NDArray[np.uint8]
    destination: NDArray[np.uint8]
    reply_source: NDArray[np.uint8]
    reply_destination: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    """(n, 16) in the order of the kernel's memory: bit b is `labels[b // 8] >> b % 8 & 1` on a
    little-endian host."""
    packets: NDArray[np.uint64]
    octets: NDArray[np.uint64]
    """IP bytes, headers included, of the original direction; 0 without nf_conntrack_acct."""
    reverse_packets: NDArray[np.uint64]
    reverse_octets: NDArray[np.uint64]
    start_ns: NDArray[np.uint64]
    """Since the epoch; 0 without nf_conntrack_timestamp."""
    stop_ns: NDArray[np.uint64]
    """Since the epoch; 0 while the connection lives."""
    mark: NDArray[np.uint32]
    status: NDArray[np.uint32]
    """Bits of `flowvis.conntrack.names.Status`."""
    id: NDArray[np.uint32]
    """Tells connections of one tuple apart; the kernel may give it again when memory is reused."""
    timeout: NDArray[np.uint32]
    """Seconds until the kernel forgets the connection if nothing more comes."""
    source_port: NDArray[np.uint16]
    """TCP, UDP, SCTP, DCCP, UDP-Lite: the port. GRE: its key. Else 0."""
    destination_port: NDArray[np.uint16]
    reply_source_port: NDArray[np.uint16]
    reply_destination_port: NDArray[np.uint16]
    icmp_id: NDArray[np.uint16]
    """ICMP and ICMPv6, as the two that follow: of the original direction."""
    zone: NDArray[np.uint16]
    icmp_type: NDArray[np.uint8]
    icmp_code: NDArray[np.uint8]
    protocol: NDArray[np.uint8]
    family: NDArray[np.uint8]
    """2 (AF_INET) or 10 (AF_INET6)."""
    tcp_state: NDArray[np.uint8]
    """Place in `flowvis.conntrack.names.TCP_STATES`; NO_TCP_STATE for other protocols."""
    event: NDArray[np.uint8]
    """What reported it: DUMP, or an event: NEW, UPDATE, DESTROY."""
    uncounted: NDArray[np.uint8]
    """1 where the kernel reports no counters: it has none of what began without nf_conntrack_acct,
    and never will. It reports none with NEW in any case."""

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> Self:
        """Entries over the columns that a decoder handed over."""
        return cls(**columns)

    @classmethod
    def none(cls) -> Self:
        """No entries."""
        return cls.of({name: np.empty(0, RECORD[name]) for name in RECORD.names or ()})

    def __len__(self) -> int:
        return len(self.source)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, which: NDArray[Any] | slice) -> Self:
        """Copy the rows at integer positions, under a boolean mask, or in a slice (a view)."""
        columns = self.columns()
        return self.of(dict(zip(columns, take(columns.values(), which), strict=True)))

    @classmethod
    def concat(cls, parts: Sequence["Entries"]) -> Self:
        """The rows of all parts in their order; a single part's columns are shared, not copied."""
        if not parts:
            return cls.none()
        if len(parts) == 1:
            return cls.of(parts[0].columns())
        return cls.of(
            {
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )
