"""What a written record says beside its fields: what is needed to go on with its flow.

An aggregator that has no row of a connection, as it has just begun or as the exporter came to it
from another one, makes the row of the last record that was written. `COLUMNS` is what a record
must have for that and no field says; a batch that lacks them is no checkpoint.
"""

import numpy as np
from numpy.typing import NDArray

STARTS = ("sourceStartMilliseconds", "destinationStartMilliseconds")
"""When the connection began, as each side's node knows it."""
ENDS = ("sourceEndMilliseconds", "destinationEndMilliseconds")
"""The end of the last record that each side reported."""
AHEAD_S = 3600
"""An end that is ahead of the clock of whoever takes the record by more is of a wrong clock."""
EXPORTERS = ("sourceExporter", "destinationExporter")
"""The number of the exporter that gives each side."""
STATE = "flowState"
"""Bits of the flow's state as it was written, and of its key; 0: the record is no checkpoint."""
NUMBER = "recordNumber"
"""How many records of the flow were written with this one."""
BASES = "countersBefore"
"""Text, a hexadecimal number: what each side's totals were when its counters began anew, 8 bytes
each, little-endian; "" where they never did."""

COLUMNS: dict[str, np.dtype[np.generic]] = {
    **dict.fromkeys((*STARTS, *ENDS), np.dtype(np.uint64)),
    **dict.fromkeys(EXPORTERS, np.dtype(np.uint32)),
    STATE: np.dtype(np.uint32),
    NUMBER: np.dtype(np.uint32),
    BASES: np.dtype(np.uint32),
}
"""The columns by name, each `(n,)`."""

BASES_BYTES = 8 * 8

STATE_BITS = 0xFFFF
"""The bits that are the flow's state."""
CLIENT_TRANSLATED = 1 << 16
"""The nodes meet under the client's address and port as its proxy translates them."""
SERVER_TRANSLATED = 1 << 17
"""The nodes meet under the address and port of the Service."""
WAY = 18
"""Shift of the key's two bits for a direction of its own."""

MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD)


def tuple_hashes(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The hash of each correlation key's tuple `(n,)`, by which the store is asked for it.

    A sum of both endpoints, modulo 2^64, so that their order does not matter: the words of the
    address and the port, each times a number. It chooses, it does not identify.
    """
    high, low, port, protocol = (np.uint64(number) for number in MULTIPLIERS)
    hashes = keys[:, 36].astype(np.uint64) * protocol
    for first in (0, 18):
        words = np.ascontiguousarray(keys[:, first : first + 16]).view(np.uint64)
        ports = np.ascontiguousarray(keys[:, first + 16 : first + 18]).view(np.uint16)[:, 0]
        hashes += words[:, 0] * high + words[:, 1] * low + ports.astype(np.uint64) * port
    return hashes
