"""Columns of the policies that decided over connections, as they were when those began."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column
from flowvis.counts import count
from flowvis.policies.ends import Ends, EndTable, Selectable
from flowvis.policies.generation import Generation
from flowvis.policies.history import MAX_EPOCHS, History
from flowvis.policies.model import Direction
from flowvis.policies.objects import KINDS, Key, created_ms, key_of, parse
from flowvis.policies.verdicts import MAX_VERDICTS, Codes, VerdictCache, VerdictTable

__all__ = ["KINDS", "Ends", "Policies", "PolicyStats", "Selectable"]

CHUNK = 1 << 16  # rows at once: their ends and pairs always have room in cleared tables
_UNKNOWN = 1


@dataclass(slots=True)
class PolicyStats:
    """What was done, and what could not be."""

    records: int = count("Records decided over")
    unknown: int = count("Verdicts that objects do not tell, as rules name domains and the like")
    evaluated: int = count("Pairs of classes looked at, rather than found in the cache")
    compiled: int = count("Generations of policies compiled")
    cleared: int = count("Times that the caches were full and began anew")
    malformed: int = count("Objects that were not what their kind says")
    refused: int = count("Objects not kept since there were too many")


class Policies:
    """All policies of a cluster, and what they depend on: tiers, groups, namespaces, nodes."""

    def __init__(self, ends: EndTable | None = None) -> None:
        self.stats = PolicyStats()
        self._history = History()
        self._ends = ends or EndTable()
        self._verdicts = VerdictTable()
        self._caches: OrderedDict[int, VerdictCache] = OrderedDict()

    def __len__(self) -> int:
        """How many objects are kept."""
        return len(self._history)

    def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Learn of an object, new or changed; other kinds are passed over.

        One that is new counts from its creation on. ValueError if it is not what its kind says;
        then its last good version stays.
        """
        try:
            key = key_of(item)
            if key is None:
                return
            value = parse(key, item)
        except ValueError:
            self.stats.malformed += 1
            raise
        created = None if key in self._history else created_ms(item)
        self._put(key, value, now_ms if created is None else min(created, now_ms), now_ms)

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:
        """Note that an object is gone; one that was not known is passed over."""
        key = key_of(item)
        if key is not None:
            self._put(key, None, now_ms, now_ms)

    def replace(self, items: Iterable[Mapping[str, Any]], now_ms: int) -> None:
        """Learn of all objects there are: what is not among them is gone.

        ValueError names the first object that is not what its kind says; the others count.
        """
        problem: ValueError | None = None
        listed: set[Key | None] = set()
        for item in items:
            try:
                listed.add(key_of(item))
                self.upsert(item, now_ms)
            except ValueError as error:
                problem = problem or error
        for key in self._history:
            if key not in listed:
                self._put(key, None, now_ms, now_ms)
        if problem is not None:
            raise problem

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago; to be called now and then."""
        self._history.expire(now_ms)

    def decide(self, batch: Batch, sources: Ends, destinations: Ends) -> dict[str, Column]:
        """Return the ten policy columns of a batch, what its records say already included.

        A record's own answer stays; its empty fields are filled where the rest agrees with ours.
        """
        codes = {d: np.zeros(len(batch), dtype=np.int32) for d in Direction}
        if len(self._history):
            if len(self._verdicts) > MAX_VERDICTS:
                self._clear()
                self._verdicts.clear()
            for first in range(0, len(batch), CHUNK):
                rows = slice(first, first + CHUNK)
                self._decide(batch, sources, destinations, rows, codes)
        self.stats.records += len(batch)
        self.stats.unknown += sum(int(np.count_nonzero(c == _UNKNOWN)) for c in codes.values())
        found: dict[str, Column] = {}
        for direction, numbers in codes.items():
            ours = self._verdicts.columns(numbers, direction, batch.strings)
            found |= _merged(batch, direction, ours)
        return found

    def _put(self, key: Key, value: Any, since_ms: int, now_ms: int) -> None:
        since = self._history.put(key, value, since_ms, now_ms)
        self.stats.refused = self._history.refused
        if since is not None:
            for epoch in [epoch for epoch in self._caches if epoch >= since]:
                del self._caches[epoch]

    def _decide(
        self, batch: Batch, sources: Ends, destinations: Ends, rows: slice, codes: Codes
    ) -> None:
        sides = [
            (Ends(ends.handles[rows], ends.objects), batch[f"{name}IP"][rows])
            for name, ends in (("source", sources), ("destination", destinations))
        ]
        froms, tos = self._numbered(sides)
        nodes = self._ends.nodes(sides[1][0])
        protocols = batch["protocolIdentifier"][rows]
        ports = batch["destinationTransportPort"][rows]
        epochs = self._history.epochs(_starts(batch, rows))
        same = (sides[0][1] == sides[1][1]).all(axis=1)
        for epoch in np.unique(epochs).tolist():
            some = np.flatnonzero(epochs == epoch)
            cache = self._cache(epoch)
            before = cache.evaluated
            found = cache.find(froms[some], tos[some], protocols[some], ports[some])
            self.stats.evaluated += cache.evaluated - before
            # A node may always reach its own Pods, and a Pod itself.
            own = cache.nodes(froms[some])
            found[Direction.INGRESS][(own >= 0) & (own == nodes[some])] = 0
            for direction, numbers in found.items():
                numbers[same[some]] = 0
                codes[direction][rows][some] = numbers

    def _numbered(
        self, sides: list[tuple[Ends, NDArray[np.uint8]]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        froms, tos = (self._ends.find(*side) for side in sides)
        if froms is None or tos is None:
            self._clear()
            froms, tos = (self._ends.find(*side) for side in sides)
        if froms is None or tos is None:
            raise ValueError(f"no room for the ends of {CHUNK} records: make the table larger")
        return froms, tos

    def _cache(self, epoch: int) -> VerdictCache:
        cache = self._caches.get(epoch)
        if cache is None:
            generation = Generation(self._history.snapshot(epoch))
            cache = self._caches[epoch] = VerdictCache(generation, self._ends, self._verdicts)
            self.stats.compiled += 1
            while len(self._caches) > MAX_EPOCHS:
                self._caches.popitem(last=False)
        self._caches.move_to_end(epoch)
        return cache

    def _clear(self) -> None:
        self._ends.clear()
        self._caches.clear()
        self.stats.cleared += 1


def _starts(batch: Batch, rows: slice) -> NDArray[np.int64]:
    if "flowStartMilliseconds" in batch.columns:
        return np.asarray(batch["flowStartMilliseconds"][rows].astype(np.int64))
    return np.asarray(batch["flowStartSeconds"][rows].astype(np.int64) * 1000)


def _merged(batch: Batch, direction: Direction, ours: dict[str, Column]) -> dict[str, Column]:
    """Our fields of one direction where a record's own are empty or say the same."""
    prefix = f"{direction.value}NetworkPolicy"
    agree = batch[f"{prefix}Name"] == 0
    for name in (f"{prefix}Type", f"{prefix}RuleAction"):
        agree &= (batch[name] == 0) | (batch[name] == ours[name])
    if agree.all():
        return ours
    return {name: np.where(agree, column, batch[name]) for name, column in ours.items()}
