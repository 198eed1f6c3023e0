"""Denied packets as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import take
from flowvis.denials.prefixes import DenialVerdict


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """Columns of one length; a row is a packet, or several that were reported as one."""

    source: NDArray[np.uint8]
    """`(n, 16)`, IPv4 as ::ffff:a.b.c.d."""
    destination: NDArray[np.uint8]
    source_port: NDArray[np.uint16]
    """0 without ports, and in later fragments."""
    destination_port: NDArray[np.uint16]
    protocol: NDArray[np.uint8]
    packets: NDArray[np.uint64]
    octets: NDArray[np.uint64]
    """Bytes of the IP packets."""
    called: NDArray[np.uint8]
    """The destination before DNAT, where that is known."""
    called_port: NDArray[np.uint16]
    time_ms: NDArray[np.uint64]
    flow_id: NDArray[np.uint64]
    """What tells connections without ports apart, 0 where that is not known: the field flowId."""
    verdict: NDArray[np.int64]
    """Places in `verdicts`."""
    verdicts: Sequence[DenialVerdict | None]
    """None: it was not denied."""

    def __len__(self) -> int:
        return len(self.protocol)

    def take(self, which: NDArray[Any] | slice) -> Self:
        """Some of the rows: at positions, under a mask, in a slice."""
        names = [field.name for field in fields(self)[:-1]]
        columns = take((getattr(self, name) for name in names), which)
        return type(self)(**dict(zip(names, columns, strict=True)), verdicts=self.verdicts)
