"""What a denied packet called: the kernel logs with it the connection that it would have become.

Policies are asked after DNAT, so the packet itself has the address of the Pod that stands behind a
Service. The connection's original tuple (linux/netfilter/nfnetlink_conntrack.h) has the Service's.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED, is_zero, same_addresses, whole_rows
from flowvis.denials.attributes import Bytes, Ints, attributes, gather, number
from flowvis.denials.headers import Headers

_ORIGINAL = 1  # CTA_TUPLE_ORIG
_IP, _PROTOCOL = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_V4 = (1, 2)  # CTA_IP_V4_SRC, CTA_IP_V4_DST
_V6 = (3, 4)
_PORT = 3  # CTA_PROTO_DST_PORT


def called_by(
    raw: Bytes, at: Ints, size: Ints, headers: Headers
) -> tuple[Bytes, NDArray[np.uint16]]:
    """Return the addresses and ports that were called, given where the connections are logged.

    They are the packets' own where no connection is, or one that somebody else opened.
    """
    if not size.any():
        return headers.destination, headers.destination_port
    original_at, original = attributes(raw, at, at + size, (_ORIGINAL,))
    begin, length = original_at[_ORIGINAL], original[_ORIGINAL]
    parts_at, parts = attributes(raw, begin, begin + length, (_IP, _PROTOCOL))
    begin, length = parts_at[_IP], parts[_IP]
    ends_at, ends = attributes(raw, begin, begin + length, (*_V4, *_V6))
    source, destination = (
        _address(raw, (ends_at[four], ends[four]), (ends_at[six], ends[six]))
        for four, six in zip(_V4, _V6, strict=True)
    )
    begin, length = parts_at[_PROTOCOL], parts[_PROTOCOL]
    ports_at, ports = attributes(raw, begin, begin + length, (_PORT,))
    port = number(raw, ports_at[_PORT], ports[_PORT], 2)
    ours = same_addresses(source, headers.source) & ~is_zero(destination)
    rows = np.flatnonzero(ours)
    called = headers.destination.copy()
    whole_rows(called)[rows] = whole_rows(destination)[rows]
    with_port = ours & (port >= 0) & (headers.destination_port > 0)
    return (
        called,
        np.where(with_port, port, headers.destination_port).astype(np.uint16),
    )


def _address(raw: Bytes, four: tuple[Ints, Ints], six: tuple[Ints, Ints]) -> Bytes:
    """Return addresses of 16 bytes from values of 4 or of 16; 0 where there is neither."""
    addresses = gather(raw, six[0], np.where(six[1] == 16, 16, 0), 16)
    rows = np.flatnonzero(four[1] == 4)
    addresses[rows, :12] = np.frombuffer(V4_MAPPED, dtype=np.uint8)
    addresses[rows, 12:] = gather(raw, four[0][rows], four[1][rows], 4)
    return addresses
