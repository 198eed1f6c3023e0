"""The headers of IP packets, whole columns at a time (RFC 791, RFC 8200).

The first bytes of packets are rows of `(n, HEAD_BYTES)`, zero beyond each packet's `size`. Nothing
is taken from beyond it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.fields import flow_ids

HEAD_BYTES = 128
"""IPv6 with 80 bytes of extension headers and the ports."""

MAX_EXTENSIONS = 8  # more than any stack sends; each costs a pass over the packets that have it

_V4_BYTES, _V6_BYTES = 20, 40
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = np.zeros(256, dtype=bool)
_EXTENSIONS[[0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140]] = True
_WITH_PORTS = np.zeros(256, dtype=bool)
_WITH_PORTS[[6, 17, 33, 132, 136]] = True
_REQUESTS = {1: (8, 13, 15, 17), 58: (128,)}
"""The types of ICMP and ICMPv6 that conntrack takes for the beginning of a connection."""
_ICMP = np.zeros(256, dtype=bool)
_ICMP[list(_REQUESTS)] = True

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Headers:
    """What the headers say; rows that are not `whole` say nothing."""

    whole: NDArray[np.bool_]
    """Whether the packet is IPv4 or IPv6 and its fixed header is there."""
    source: Bytes
    destination: Bytes
    source_port: NDArray[np.uint16]
    destination_port: NDArray[np.uint16]
    protocol: Bytes
    """The last header that could be read."""
    octets: NDArray[np.uint64]
    flow_id: NDArray[np.uint64]
    """Type, code and identifier of an ICMP or ICMPv6 request, as the field flowId has them."""


def read_headers(heads: Bytes, sizes: Ints) -> Headers:
    """Read the headers of packets."""
    count = len(heads)
    version = heads[:, 0] >> 4
    v4 = np.flatnonzero((version == 4) & (sizes >= _V4_BYTES) & (heads[:, 0] & 15 >= 5))
    v6 = np.flatnonzero((version == 6) & (sizes >= _V6_BYTES))
    whole = np.zeros(count, dtype=bool)
    whole[v4] = whole[v6] = True
    source, destination = (np.zeros((count, 16), dtype=np.uint8) for _ in range(2))
    source[v4, :12] = destination[v4, :12] = np.frombuffer(V4_MAPPED, dtype=np.uint8)
    source[v4, 12:], destination[v4, 12:] = heads[v4, 12:16], heads[v4, 16:20]
    source[v6], destination[v6] = heads[v6, 8:24], heads[v6, 24:40]
    protocol = np.zeros(count, dtype=np.uint8)
    octets = np.zeros(count, dtype=np.int64)
    ports_at = np.full(count, HEAD_BYTES, dtype=np.int64)
    every = np.arange(count)
    protocol[v4] = heads[v4, 9]
    octets[v4] = _word(heads, v4, 2)
    first = _word(heads, v4, 6) & 0x1FFF == 0
    ports_at[v4] = np.where(first, (heads[v4, 0] & 15).astype(np.int64) * 4, HEAD_BYTES)
    protocol[v6], ports_at[v6] = _walk(heads, sizes, v6)
    payload = _word(heads, v6, 4)
    octets[v6] = np.where(payload > 0, _V6_BYTES + payload, 0)
    octets = np.where(whole & (octets == 0), sizes, octets)  # joined segments beyond 64 KiB
    ported = _WITH_PORTS[protocol] & (ports_at + 4 <= np.minimum(sizes, HEAD_BYTES)) & whole
    at = np.where(ported, ports_at, 0)
    ports = [np.where(ported, _word(heads, every, at + place), 0) for place in (0, 2)]
    return Headers(
        whole,
        source,
        destination,
        ports[0].astype(np.uint16),
        ports[1].astype(np.uint16),
        protocol,
        octets.astype(np.uint64),
        _icmp(
            heads,
            np.flatnonzero(
                whole & _ICMP[protocol] & (ports_at + 8 <= np.minimum(sizes, HEAD_BYTES))
            ),
            ports_at,
            protocol,
        ),
    )


def _icmp(heads: Bytes, rows: Ints, at: Ints, protocol: Bytes) -> NDArray[np.uint64]:
    """Return the flowId of packets; `rows` are of ICMP, with the first 8 bytes of the message."""
    flow_id = np.zeros(len(heads), dtype=np.uint64)
    if not len(rows):
        return flow_id
    kind = heads[rows, at[rows]]
    asks = np.zeros(len(rows), dtype=bool)
    for number, types in _REQUESTS.items():
        asks |= (protocol[rows] == number) & np.isin(kind, types)
    rows = rows[asks]
    code, identifier = heads[rows, at[rows] + 1], _word(heads, rows, at[rows] + 4)
    flow_id[rows] = flow_ids(kind[asks], code, identifier)
    return flow_id


def _walk(heads: Bytes, sizes: Ints, rows: Ints) -> tuple[Bytes, Ints]:
    """Return the protocols of IPv6 packets and where these begin, HEAD_BYTES if out of reach."""
    protocol = heads[rows, 6]
    at = np.full(len(rows), _V6_BYTES, dtype=np.int64)
    limit = np.minimum(sizes[rows], HEAD_BYTES)
    later = np.zeros(len(rows), dtype=bool)
    for _ in range(MAX_EXTENSIONS):
        on = np.flatnonzero(_EXTENSIONS[protocol] & (at + 8 <= limit) & ~later)
        if not len(on):
            break
        row, place, kind = rows[on], at[on], protocol[on]
        units = heads[row, place + 1].astype(np.int64)
        later[on] = (kind == _FRAGMENT) & (_word(heads, row, place + 2) >> 3 > 0)
        size = np.where(kind == _AUTHENTICATION, (units + 2) * 4, (units + 1) * 8)
        protocol[on] = heads[row, place]
        at[on] = place + np.where(kind == _FRAGMENT, 8, size)
    return protocol, np.where(later | _EXTENSIONS[protocol], HEAD_BYTES, at)


def _word(heads: Bytes, rows: Ints, at: Ints | int) -> Ints:
    """Return 16 bits in network order at a place in each row."""
    places = rows * heads.shape[1] + at
    every = heads.reshape(-1)
    return np.asarray(every.take(places).astype(np.int64) << 8 | every.take(places + 1))
