"""Who reports: numbers for exporters, by which the table of flows tells them apart.

An observation domain's number is unique within its exporter only (RFC 7011 section 3.1), and two
hosts of one name have the same: an exporter is the address that it connects from, the name in its
certificate, and the domain. Its port is not part of it, so it stays the same over a lost session.
"""

from collections import OrderedDict
from dataclasses import dataclass

from flowvis.counts import count, gauge
from flowvis.transport.session import Peer

MAX_EXPORTERS = 1 << 16  # some 300 bytes each; a node is one, whatever it restarts

_LAST = (1 << 32) - 1


@dataclass(slots=True)
class ExporterStats:
    """How many there are."""

    known: int = gauge("Exporters told apart: address, certificate and observation domain")
    forgotten: int = count("Exporters forgotten as there were too many: they are new ones later")


class Exporters:
    """Numbers of at most `capacity` exporters, from 1; those that came last are kept."""

    def __init__(self, capacity: int = MAX_EXPORTERS) -> None:
        self.stats = ExporterStats()
        self._capacity = capacity
        self._numbers: OrderedDict[tuple[str, str, int], int] = OrderedDict()
        self._last = 0

    def number(self, peer: Peer, domain: int) -> int:
        """Return the number of the exporter of an observation domain, new or known."""
        exporter = (peer.address, peer.subject, domain)
        number = self._numbers.get(exporter)
        if number is not None:
            self._numbers.move_to_end(exporter)
            return number
        if len(self._numbers) >= self._capacity:
            self._numbers.popitem(last=False)
            self.stats.forgotten += 1
        # Numbers begin again after 2^32 exporters: those of live flows are long gone then.
        self._last = self._last % _LAST + 1
        self._numbers[exporter] = self._last
        self.stats.known = len(self._numbers)
        return self._last
