"""Which of the kernel's connections are looked at at all."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import is_ipv4
from flowvis.conntrack.entries import Entries
from flowvis.exporter.tables.own_sessions import OwnSessions
from flowvis.fields import PROTOCOLS

ANTREA_ZONES = (65520, 65510)  # IPv4 and IPv6
ANTREA_SOURCE = np.uint32(0xF)
"""ct_mark bits that an Antrea datapath sets on a connection that its policies let pass."""

_LOOPBACK4 = 127  # the first byte of the address
_LOOPBACK6 = np.frombuffer(bytes(15) + b"\1", dtype=np.uint64)


class Scope:
    """The protocols that are wanted, and what is never of interest."""

    def __init__(
        self,
        protocols: Sequence[str] | None = None,
        *,
        loopback: bool = False,
        antrea: bool = False,
        own: OwnSessions | None = None,
    ) -> None:
        """Take these protocols or all; with `antrea`, zones other than 0 are Antrea's.

        Connections of `own` are left out.
        """
        self._protocols: NDArray[np.bool_] | None = None
        self._loopback = loopback
        self._antrea = antrea
        self._own = own
        self.choose(protocols)

    def choose(self, protocols: Sequence[str] | None) -> None:
        """Want these protocols from now on, or all."""
        self._protocols = None
        if protocols is not None:
            self._protocols = np.zeros(256, dtype=bool)
            self._protocols[[PROTOCOLS[name] for name in protocols]] = True

    def covers(self, entries: Entries) -> NDArray[np.bool_]:
        """Which entries are looked at."""
        covered = self.wants(entries.source, entries.protocol)
        if self._antrea:
            # Committed before the policies were asked, and denied: reported by other means.
            covered &= (entries.zone == 0) | (entries.mark & ANTREA_SOURCE != 0)
        if self._own is not None:
            covered &= ~self._own.among(entries)
        return covered

    def wants(self, source: NDArray[np.uint8], protocol: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which packets are looked at."""
        wanted = np.ones(len(protocol), dtype=bool)
        if self._protocols is not None:
            wanted &= self._protocols[protocol]
        if not self._loopback:
            wanted &= ~_loopback(source)
        return wanted


def _loopback(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    words = np.ascontiguousarray(addresses).view(np.uint64)
    four = is_ipv4(addresses) & (addresses[:, 12] == _LOOPBACK4)
    return np.asarray(four | ((words[:, 0] == _LOOPBACK6[0]) & (words[:, 1] == _LOOPBACK6[1])))
