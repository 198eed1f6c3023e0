"""Denied packets, written out by hand."""

from collections.abc import Iterable

import numpy as np

from flowvis.batch import address_bytes
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import DenialVerdict

INGRESS = DenialVerdict(name="deny-all", namespace="shop", type=1, rule="0")
T0 = 1_700_000_000_000

Row = tuple[str, int, str, int, int, int, int, int, DenialVerdict | None, str, int, int]


def packet(
    port: int = 1000,
    *,
    source: str = "10.0.0.1",
    destination: str = "10.0.0.2",
    to: int = 80,
    protocol: int = 6,
    packets: int = 1,
    octets: int = 60,
    at: int = T0,
    verdict: DenialVerdict | None = INGRESS,
    called: tuple[str, int] | None = None,
    flow_id: int = 0,
) -> Row:
    before = called or (destination, to)
    return (source, port, destination, to, protocol, packets, octets, at, verdict, *before, flow_id)


def packets(rows: Iterable[Row]) -> Packets:
    rows = list(rows)
    verdicts: list[DenialVerdict | None] = []
    for row in rows:
        if row[8] not in verdicts:
            verdicts.append(row[8])

    def addresses(place: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        joined = b"".join(address_bytes(str(row[place])) for row in rows)
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 16)

    return Packets(
        addresses(0),
        addresses(2),
        np.array([row[1] for row in rows], dtype=np.uint16),
        np.array([row[3] for row in rows], dtype=np.uint16),
        np.array([row[4] for row in rows], dtype=np.uint8),
        np.array([row[5] for row in rows], dtype=np.uint64),
        np.array([row[6] for row in rows], dtype=np.uint64),
        addresses(9),
        np.array([row[10] for row in rows], dtype=np.uint16),
        np.array([row[7] for row in rows], dtype=np.uint64),
        np.array([row[11] for row in rows], dtype=np.uint64),
        np.array([verdicts.index(row[8]) for row in rows], dtype=np.int64),
        verdicts,
    )
