"""The contract of the halves leaf: which columns it reads, and what a correlation key is.

A key is the source's address and port, the destination's, the protocol, and a tail: the flow's
identifier where there are no ports, the way, the generation. The endpoint with the smaller bytes
comes first. Numbers are as they are in memory, addresses in network order.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]
"""An exporter's records, by the names of their fields."""

ENDPOINT = 16 + 2
"""Bytes of an address and a port."""

FLOW_ID = 2 * ENDPOINT + 1
"""Where the flow's identifier is: 4 bytes after the protocol, 0 of protocols with ports."""

WAY = 1
"""Bytes of a key, before its generation, that tell the two directions of a connection apart where
one exporter reports each by itself: 0 for the first, else 1 or 2."""

GENERATION = 4
"""Bytes at the end of a key that tell connections of one tuple apart; 0 for the current one."""

KEY_SIZE = FLOW_ID + 4 + WAY + GENERATION

WIDTHS = {
    "flowType": 1,
    "protocolIdentifier": 1,
    "egressNetworkPolicyRuleAction": 1,
    "sourcePodName": 4,
    "sourceNodeName": 4,
    "destinationPodName": 4,
    "destinationNodeName": 4,
    "sourceIP": 16,
    "sourceTransportPort": 2,
    "destinationIP": 16,
    "destinationTransportPort": 2,
    "proxySnatIP": 16,
    "proxySnatPort": 2,
    "destinationServiceIP": 16,
    "destinationServicePort": 2,
    "flowId": 8,
}
"""Bytes per value of the columns that are read."""

RELAYED = {"originalObservationDomainId": 4, "flowDirection": 1}
"""The same of columns that only records of other aggregators fill; they may be missing."""

ENDPOINTS = (
    ("sourceIP", "sourceTransportPort", "proxySnatIP", "proxySnatPort"),
    ("destinationIP", "destinationTransportPort", "destinationServiceIP", "destinationServicePort"),
)
"""Of the client and the server: address and port, and what they are translated to or from."""

NEITHER = 1
"""Bit of a key that was made of neither: the record has no longer what it was."""

EGRESS, INGRESS = 1, 0
"""Values of flowDirection (IANA element 61): the source's node reported it, the destination's."""


def check_columns(columns: Columns) -> int:
    """Return how many records there are; KeyError or ValueError for columns that do not fit."""
    widths = WIDTHS | (RELAYED if RELAYED.keys() <= columns.keys() else {})
    n = len(columns["flowType"])
    for name, width in widths.items():
        _check_column(name, columns[name], n, width)
    return n


def _check_column(name: str, column: NDArray[Any], n: int, width: int) -> None:
    shape = (n, width) if width > 8 else (n,)
    if column.shape != shape or column[:1].nbytes != (width if n else 0):
        raise ValueError(f"{name}: {column.dtype}{column.shape}, need {n} of {width} bytes")
    if not column[:1].flags.c_contiguous:
        raise ValueError(f"{name}: need the bytes of each address side by side")


def check_made(columns: Columns, keys: NDArray[np.uint8], turned: NDArray[np.bool_]) -> None:
    """Raise ValueError unless there is a key of each record, and whether it was turned."""
    n = len(keys)
    if keys.dtype != np.uint8 or keys.shape != (n, KEY_SIZE) or not keys.flags.c_contiguous:
        raise ValueError(f"keys {keys.dtype}{keys.shape}: need uint8 (n, {KEY_SIZE}), contiguous")
    if turned.dtype != np.bool_ or turned.shape != (n,):
        raise ValueError(f"turned {turned.dtype}{turned.shape}: need bool ({n},)")
    for name in (name for names in ENDPOINTS for name in names):
        _check_column(name, columns[name], n, WIDTHS[name])


def check_bits(bits: NDArray[np.uint8], n: int) -> None:
    """Raise ValueError unless there are bits of as many records."""
    if bits.dtype != np.uint8 or bits.shape != (n,):
        raise ValueError(f"bits {bits.dtype}{bits.shape}: need uint8 ({n},)")


def check_endpoints(keys: NDArray[Any]) -> None:
    """Raise ValueError unless `keys` is `(n, 36 or more)` uint8, contiguous and writeable."""
    if keys.ndim != 2 or keys.dtype != np.uint8 or keys.shape[1] < 2 * ENDPOINT:
        raise ValueError(f"keys {keys.dtype}{keys.shape}: need uint8 (n, {2 * ENDPOINT} or more)")
    if not keys.flags.c_contiguous or not keys.flags.writeable:
        raise ValueError("keys are not contiguous and writeable")
