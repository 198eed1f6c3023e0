"""Who reports: numbers for exporters, by which the table of flows tells them apart.

An observation domain's number is unique within its exporter only (RFC 7011 section 3.1), and two
hosts of one name have the same: an exporter is the address that it connects from, the name in its
certificate, and the domain. Its port is not part of it, so it stays the same over a lost session.
Of what an aggregator relays it is the one that the record came from (`original`).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from flowvis.counts import count, gauge
from flowvis.transport.session import Peer

MAX_EXPORTERS = 1 << 16  # some 300 bytes each; a node is one, whatever it restarts

_LAST = (1 << 32) - 1

_Numbers = OrderedDict[tuple[Any, ...], int]


@dataclass(slots=True)
class Source:
    """What is known of the session that an exporter's records come in, the last of several."""

    address: str = ""
    """Where it comes from; "" where that is forgotten."""
    began_s: float = float("-inf")
    """When it began, by the monotonic clock."""
    may_repeat: bool = False
    """Whether the records that are handed on now may have been received before."""


UNKNOWN = Source()


@dataclass(slots=True)
class ExporterStats:
    """How many there are."""

    known: int = gauge("Exporters told apart: address, certificate and observation domain")
    forgotten: int = count("Exporters forgotten as there were too many: they are new ones later")


class Exporters:
    """Numbers of at most `capacity` exporters, from 1; those that came last are kept.

    Of those behind others there are as many more: who relays many costs nobody else a number.
    """

    def __init__(self, capacity: int = MAX_EXPORTERS) -> None:
        self.stats = ExporterStats()
        self._capacity = capacity
        self._own: _Numbers = OrderedDict()
        self._relayed: _Numbers = OrderedDict()
        self._sources: dict[int, Source] = {}
        self._last = 0

    def number(self, peer: Peer, domain: int) -> int:
        """Return the number of the exporter of an observation domain, new or known."""
        return self._number(self._own, (peer.address, peer.subject, domain))

    def begin(self, number: int, now_s: float) -> Source:
        """Note that a session of an exporter has begun; return what is known of it."""
        source = self._sources[number]
        source.began_s = now_s
        return source

    def source(self, number: int) -> Source:
        """Return what is known of an exporter's session; of one relayed, of who relays it."""
        return self._sources.get(number, UNKNOWN)

    def original(self, relay: int, address: bytes, domain: int) -> int:
        """Return the number of an exporter behind another one, whose number is `relay`."""
        return self._number(self._relayed, (relay, address, domain))

    def named(self, number: int) -> str:
        """Say who an exporter is, for people; a look through all of them."""
        for (address, subject, domain), known in self._own.items():
            if known == number:
                return f"{subject}@{address} domain {domain}"
        for (relay, _, domain), known in self._relayed.items():
            if known == number:
                return f"domain {domain} behind {self.named(relay)}"
        return f"exporter {number}"

    def address(self, number: int) -> str:
        """Return the address that an exporter's records come from; "" where it is forgotten."""
        return self.source(number).address

    def _number(self, numbers: _Numbers, exporter: tuple[Any, ...]) -> int:
        number = numbers.get(exporter)
        if number is not None:
            numbers.move_to_end(exporter)
            return number
        if len(numbers) >= self._capacity:
            self._sources.pop(numbers.popitem(last=False)[1], None)
            self.stats.forgotten += 1
        # Numbers begin again after 2^32 exporters: those of live flows are long gone then.
        self._last = self._last % _LAST + 1
        numbers[exporter] = self._last
        from_ = exporter[0]
        own = numbers is self._own
        self._sources[self._last] = Source(from_) if own else self.source(from_)
        self.stats.known = len(self._own) + len(self._relayed)
        return self._last
