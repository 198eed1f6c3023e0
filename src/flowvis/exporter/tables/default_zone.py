"""Connections that the kernel tracks twice, in its default zone and in Antrea's.

What comes from outside for a Pod is translated in the default zone (kube-proxy's DNAT and SNAT, the
way to AntreaProxy), and enters Antrea's zone as if the node had sent it; what a Pod sends outside
leaves Antrea's zone as it is and is masqueraded in the default zone. In between, both zones see one
tuple. By it a connection of Antrea's zone gets what only the default zone knows.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column, is_zero
from flowvis.conntrack.entries import Entries
from flowvis.counts import count, gauge
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.native import FlowIndex, pack_keys

DEFAULT_ZONE = 0
MAX_TRANSLATIONS = 1 << 18  # as many as a node of 8 cores tracks; 40 MB when full

COMPLETED = ("sourceIP", "sourceTransportPort", "proxySnatIP", "proxySnatPort")
"""Fields of a record, beside those of the Service, that the default zone may know better."""

_KEY_SIZE = 38
_ENTERING, _LEAVING = 1, 2


@dataclass(slots=True)
class DefaultZoneStats:
    """What the default zone reported."""

    held: int = gauge("Translated connections of the default zone that are known")
    completed: int = count("Looks at connections of Antrea's zone that it completed")
    refused: int = count("Connections of the default zone not kept since there were too many")


class DefaultZone:
    """What the default zone knows of connections, by the tuple that Antrea's zone sees."""

    def __init__(self, capacity: int = MAX_TRANSLATIONS) -> None:
        self.stats = DefaultZoneStats()
        self._index = FlowIndex(_KEY_SIZE, capacity)
        rows = capacity + 1  # the last, at -1, is that of what is not known
        self._seen = np.zeros(rows, dtype=np.int64)  # the poll, from 1; 0 where free
        self._source = np.zeros((rows, 16), dtype=np.uint8)
        self._original = np.zeros((rows, 16), dtype=np.uint8)
        self._snat = np.zeros((rows, 16), dtype=np.uint8)
        self._ports = np.zeros((rows, 3), dtype=np.uint16)  # of these three

    def __len__(self) -> int:
        return len(self._index)

    def split(self, entries: Entries, poll: int) -> Entries:
        """Learn from the entries of the default zone; return the others."""
        outer = entries.zone == DEFAULT_ZONE
        if not outer.any():
            return entries
        self._learn(entries.take(outer), poll)
        return entries.take(~outer)

    def forget_before(self, poll: int) -> None:
        """Forget what the kernel has not reported since a poll."""
        gone = np.flatnonzero((self._seen > 0) & (self._seen < poll))
        self._index.remove(gone)
        self._seen[gone] = 0
        self.stats.held = len(self._index)

    def complete(
        self, tuples: ConnectionTuples, entries: Entries, open_to: NDArray[np.bool_] | None = None
    ) -> tuple[ConnectionTuples, NDArray[np.bool_]]:
        """Return connections of Antrea's zone with what is known of them; and which those are.

        Only those of `open_to` are completed, by default all.
        """
        entering = self._index.find(_before(entries, _ENTERING))
        leaving = self._index.find(_after(entries, _LEAVING))
        if open_to is not None:
            entering[~open_to] = leaving[~open_to] = -1
        came = entering >= 0
        known = came | (leaving >= 0)
        if not known.any():
            return tuples, known
        self.stats.completed += int(np.count_nonzero(known))
        slots = np.where(came, entering, leaving)
        ports = self._ports[slots]
        snat = self._snat.take(slots, axis=0)
        moved = known & ~is_zero(snat)
        return (
            replace(
                tuples,
                source=_chosen(came, self._source.take(slots, axis=0), tuples.source),
                source_port=_chosen(came, ports[:, 0], tuples.source_port),
                original_destination=_chosen(
                    came, self._original.take(slots, axis=0), tuples.original_destination
                ),
                original_port=_chosen(came, ports[:, 1], tuples.original_port),
                snat=_chosen(moved, snat, tuples.snat),
                snat_port=_chosen(moved, ports[:, 2], tuples.snat_port),
            ),
            known,
        )

    def _learn(self, entries: Entries, poll: int) -> None:
        tuples = ConnectionTuples.of(entries, 0)
        snat = ~is_zero(tuples.snat)
        entering = np.flatnonzero(tuples.translated | snat)
        self._keep(_after(entries, _ENTERING)[entering], tuples, entering, poll)
        leaving = np.flatnonzero(snat & ~tuples.translated)
        self._keep(_before(entries, _LEAVING)[leaving], tuples, leaving, poll)
        self.stats.held = len(self._index)

    def _keep(
        self, keys: NDArray[np.uint8], tuples: ConnectionTuples, rows: NDArray[np.int64], poll: int
    ) -> None:
        slots, _ = self._index.upsert(keys)
        room = slots >= 0
        self.stats.refused += int(np.count_nonzero(~room))
        slots, rows = slots[room], rows[room]
        self._seen[slots] = poll
        self._source[slots] = tuples.source[rows]
        self._original[slots] = tuples.original_destination[rows]
        self._snat[slots] = tuples.snat[rows]
        for place, ports in enumerate((tuples.source_port, tuples.original_port, tuples.snat_port)):
            self._ports[slots, place] = ports[rows]


def _before(entries: Entries, way: int) -> NDArray[np.uint8]:
    """Keys of what comes into a zone, and of the way connections cross: (n, 38)."""
    ways = np.full(len(entries), way, dtype=np.uint8)
    keys: NDArray[np.uint8] = pack_keys(
        entries.source,
        entries.destination,
        entries.source_port,
        entries.destination_port,
        entries.protocol,
        ways,
    )
    return keys


def _after(entries: Entries, way: int) -> NDArray[np.uint8]:
    """Keys of what goes out of a zone, translated there."""
    ways = np.full(len(entries), way, dtype=np.uint8)
    keys: NDArray[np.uint8] = pack_keys(
        entries.reply_destination,
        entries.reply_source,
        entries.reply_destination_port,
        entries.reply_source_port,
        entries.protocol,
        ways,
    )
    return keys


def _chosen(which: NDArray[np.bool_], one: Column, other: Column) -> Column:
    return np.where(which.reshape(-1, *[1] * (one.ndim - 1)), one, other)
