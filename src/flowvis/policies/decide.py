"""Columns of the policies that decided over connections, as they were when those began."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column, same_addresses
from flowvis.beginnings import began_ms
from flowvis.counts import count, gauge
from flowvis.policies.archive import ObjectArchive
from flowvis.policies.costs import PolicyKey
from flowvis.policies.costs import key_of as policy_key
from flowvis.policies.endpoints import EndpointTable, Selectable
from flowvis.policies.enforced import unenforced
from flowvis.policies.generation import Generation
from flowvis.policies.history import MAX_EPOCHS
from flowvis.policies.model import Direction, Policy, ServicePods, unrecognized_parts
from flowvis.policies.objects import GROUPS, KINDS, PARSERS, SELECTED_BY, Key, Snapshot
from flowvis.policies.reach import Population
from flowvis.policies.rulebook import Rulebook
from flowvis.policies.verdicts import (
    MAX_VERDICTS,
    NOT_KNOWN,
    NOT_SUBJECT,
    Codes,
    Side,
    VerdictCache,
    VerdictTable,
)
from flowvis.policies.watched import WatchedObjects

__all__ = ["KINDS", "Policies", "PolicyStats", "Selectable"]

CHUNK = 1 << 16  # rows at once: their endpoints and pairs always have room in cleared tables
_FIELDS = ("Name", "Namespace", "Type", "RuleName", "RuleAction")
RECHECK_MS = 30_000
"""How often it is looked at anew which Groups have Pods of other namespaces."""
SHOWN = 8  # parts of an object that are named, of those that are not understood


@dataclass(slots=True)
class PolicyStats:
    """What was done, and what could not be."""

    records: int = count("Records decided over")
    unknown: int = count("Verdicts that objects do not tell, as rules name domains and the like")
    exempt: int = count("Verdicts that no policy may give: a Pod to itself, a Pod and its node")
    evaluated: int = count("Pairs of classes looked at, rather than found in the cache")
    compiled: int = count("Generations of policies compiled")
    cleared: int = count("Times that the caches were full and began anew")
    malformed: int = count("Objects that were not what their kind says")
    unenforced: int = count("Verdicts evaluated as denied although the traffic went on")
    refused: int = count("Objects not kept since there were too many")
    unrecognized: int = gauge("Objects with parts that are not understood, as of a newer API")


class Policies(WatchedObjects):
    """All policies of a cluster, and what they depend on: tiers, groups, namespaces, nodes."""

    def __init__(
        self,
        endpoints: EndpointTable | None = None,
        report: Callable[[str], None] | None = None,
        *,
        known_from_ms: int = 0,
    ) -> None:
        """Keep them; `report` is called for each object with parts that are not understood.

        What was before `known_from_ms` nobody saw; it matters for explanations only.
        """
        self.stats = PolicyStats()
        self.unrecognized: dict[str, str] = {}
        """What is not understood, by object."""
        self._report = report
        super().__init__(PARSERS, self.stats)
        self._archive = ObjectArchive(known_from_ms)
        self._latest: tuple[int, Snapshot] | None = None
        """The last objects that were asked for, and how often there had been changes then."""
        self._endpoints = EndpointTable() if endpoints is None else endpoints
        self._verdicts = VerdictTable()
        self._caches: OrderedDict[int, VerdictCache] = OrderedDict()
        self._newest: VerdictCache | None = None
        self._active: bool | None = None
        self._referred: set[tuple[str, str]] | None = None
        self._looked_ms = 0
        self._look = False
        """Whether to look at the Pods that there are: some decide whom a policy applies to."""

    @property
    def known_from_ms(self) -> int:
        """From when on `as_of` knows everything."""
        return self._archive.known_from_ms

    @property
    def active(self) -> bool:
        """Whether any policy is kept: without, `decide` returns what records say."""
        if self._active is None:
            self._active = not self._history.kinds() <= SELECTED_BY
        return self._active

    def as_of(self, time_ms: int) -> Snapshot:
        """Return the objects as they were at a time, but for which Groups reach elsewhere."""
        if time_ms < self._archive.changed_ms:
            return Snapshot.of(self._archive.at(time_ms))
        if self._latest is None or self._latest[0] != self._archive.changes:
            self._latest = self._archive.changes, Snapshot.of(self._archive.at(time_ms))
        return replace(self._latest[1])

    def since(self) -> dict[PolicyKey, int]:
        """Return since when each policy says what it says, by type, namespace and name.

        Of one that was not changed since it was first seen: its creation.
        """
        found = self._archive.latest()
        return {policy_key(value): since for value, since in found if isinstance(value, Policy)}

    def as_dict(self) -> dict[str, Any]:
        """What somebody should look at."""
        return {
            "unenforced": self.stats.unenforced,
            "unknown": self.stats.unknown,
            "unrecognized": dict(islice(self.unrecognized.items(), SHOWN)),
        }

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago; to be called now and then."""
        super().expire(now_ms)
        self._archive.expire(now_ms)
        self._active = None
        if now_ms - self._looked_ms >= RECHECK_MS:
            self._looked_ms, self._look = now_ms, True

    def decide(
        self,
        batch: Batch,
        pods: Sequence[Selectable | None],
        sources: NDArray[np.int64],
        destinations: NDArray[np.int64],
        *,
        living: Callable[[], Iterable[Selectable]] | None = None,
        to_own_node: NDArray[np.bool_] | None = None,
        counts: bool = True,
    ) -> dict[str, Column]:
        """Return the ten policy columns of a batch, what its records say already included.

        `sources` and `destinations` are handles, places in `pods`, or `endpoints.NONE`, or `GONE`
        for a Pod that is not among them, about which it is left open what a policy makes of it. A
        record's own answer stays. `living` gives the Pods that there are now, where `pods` has
        others as well. `to_own_node` says which go to the node that their source's Pod runs on,
        at whatever address, beside those that the node's object tells. Without `counts` somebody
        only looks, and what is found is in no statistics.
        """
        stats = self.stats if counts else PolicyStats()
        population = Population(living or (lambda: pods))
        if len(self._verdicts) > MAX_VERDICTS:
            self._clear()
            self._verdicts.clear()
        self._recheck(population)
        codes = {direction: np.zeros(len(batch), dtype=np.int64) for direction in Direction}
        for first in range(0, len(batch) if self.active else 0, CHUNK):
            rows = slice(first, first + CHUNK)
            some = batch if len(batch) <= CHUNK else batch.take(rows)
            near = np.zeros(len(some), dtype=bool) if to_own_node is None else to_own_node[rows]
            ends = sources[rows], destinations[rows]
            part = self._decide(some, pods, population, *ends, to_own_node=near)
            for direction, numbers in part.items():
                codes[direction][rows] = numbers
        stats.records += len(batch)
        for numbers in codes.values():
            stats.unknown += int(np.count_nonzero(numbers == NOT_KNOWN))
            stats.exempt += int(np.count_nonzero(numbers == NOT_SUBJECT))
        found: dict[str, Column] = {}
        for direction, numbers in codes.items():
            ours = self._verdicts.columns(numbers, direction, batch.strings)
            found |= self._merged(batch, ours, stats)
        return found

    @staticmethod
    def _merged(batch: Batch, ours: dict[str, Column], stats: PolicyStats) -> dict[str, Column]:
        """Return the fields of one direction: a record's own, else ours.

        A record that reports a kind of policy comes from who knows them: its answer is whole, and
        what it leaves empty, as the name of a rule, has none. Another one's empty fields are filled
        where the rest says the same.
        """
        names = dict(zip(_FIELDS, ours, strict=True))
        action = names["RuleAction"]
        found, evaluated = dict(ours), np.ones(len(batch), dtype=bool)
        if any(batch[name].any() for name in ours):
            agree = batch[names["Type"]] == 0
            for name, column in ours.items():
                agree &= (batch[name] == 0) | (batch[name] == column)
            found = {name: np.where(agree, mine, batch[name]) for name, mine in ours.items()}
            evaluated = agree & (batch[action] == 0)
        before = found[action]
        found[action] = unenforced(batch, before, evaluated)
        stats.unenforced += int(np.count_nonzero(found[action] != before))
        return found

    def _put(self, key: Key, value: Any, since_ms: int, now_ms: int) -> None:
        if key[1] in GROUPS:
            self._referred = None
        super()._put(key, value, since_ms, now_ms)
        if value is None or key in self._history:  # else there was no room for it
            self._archive.put(key, value, since_ms, counts=self._counts(key))
        self._note(key, value if key in self._history else None)

    def _note(self, key: Key, value: Any) -> None:
        """Report once what is not understood of a policy or a group."""
        kind, name = key[1], "/".join(part for part in key[2:] if part)
        which = f"{kind} {name}"
        understood = value is None or not (isinstance(value, Policy) or kind in GROUPS)
        parts = () if understood else unrecognized_parts(value)
        if not parts:
            self.unrecognized.pop(which, None)
        else:
            self._doubt(which, _listed(parts))
        self.stats.unrecognized = len(self.unrecognized)

    def _note_costs(self, snapshot: Snapshot, rules: Rulebook) -> None:
        """Report once which policies are too much to be worked out."""
        for policy in snapshot.policies if rules.too_costly else ():
            problem = rules.too_costly.get(policy_key(policy))
            if problem is not None:
                name = "/".join(part for part in (policy.namespace, policy.name) if part)
                self._doubt(f"{policy.kind} {name}", problem)

    def _doubt(self, which: str, text: str) -> None:
        """Report, once, of what a policy has that no verdict is made of."""
        if self.unrecognized.get(which) != text:
            self.unrecognized[which] = text
            if self._report is not None:
                self._report(
                    f"{which}: not understood: {text}: verdicts that it may give are unknown"
                )
        self.stats.unrecognized = len(self.unrecognized)

    def _counts(self, key: Key) -> bool:
        """Whether anything depends on an object: of Services only on those that groups name."""
        if key[1] != "Service":
            return True
        if self._referred is None:
            self._referred = {
                (peer.namespace, peer.name)
                for members in self._history.kept(*GROUPS)
                for peer in members
                if isinstance(peer, ServicePods)
            }
        return key[2:] in self._referred

    def _changed(self, since_ms: int) -> None:
        self._active = None
        for epoch in [epoch for epoch in self._caches if epoch >= since_ms]:
            del self._caches[epoch]

    def _decide(
        self,
        batch: Batch,
        pods: Sequence[Selectable | None],
        population: Population,
        sources: NDArray[np.int64],
        destinations: NDArray[np.int64],
        *,
        to_own_node: NDArray[np.bool_],
    ) -> Codes:
        froms, tos = self._numbered(batch, pods, sources, destinations)
        source = Side(froms, self._endpoints.nodes(sources))
        destination = Side(tos, self._endpoints.nodes(destinations))
        services = batch["protocolIdentifier"], batch["destinationTransportPort"]
        codes = {direction: np.zeros(len(batch), dtype=np.int64) for direction in Direction}
        for epoch, rows in self._history.split(began_ms(batch).astype(np.int64)):
            cache = self._cache(epoch, population)
            before = cache.evaluated
            protocols, ports = (column[rows] for column in services)
            sides = source.take(rows), destination.take(rows)
            found = cache.find(*sides, protocols, ports, to_own_node[rows])
            self.stats.evaluated += cache.evaluated - before
            for direction, numbers in found.items():
                codes[direction][rows] = numbers
        to_itself = same_addresses(batch["sourceIP"], batch["destinationIP"])
        for numbers in codes.values():
            numbers[to_itself] = NOT_SUBJECT
        return codes

    def _numbered(
        self,
        batch: Batch,
        pods: Sequence[Selectable | None],
        sources: NDArray[np.int64],
        destinations: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the endpoints of all records."""
        for _ in range(2):
            self._endpoints.learn(pods, sources, destinations)
            froms = self._endpoints.find(sources, batch["sourceIP"])
            tos = self._endpoints.find(destinations, batch["destinationIP"])
            if froms is not None and tos is not None:
                return froms, tos
            self._make_room()
        raise ValueError(f"the table of endpoints is too small for {CHUNK} records")

    def _cache(self, epoch: int, population: Population) -> VerdictCache:
        cache = self._caches.get(epoch)
        if cache is None:
            snapshot = Snapshot.of(self._history.values(epoch))
            snapshot.reaching = population.reaching(snapshot)
            before = self._alike(snapshot)
            if before is None:
                self.stats.compiled += 1
            rules = Rulebook(snapshot) if before is None else before.generation.rules
            if epoch == self._history.latest:  # else it may be another by now, or gone
                self._note_costs(snapshot, rules)
            generation = Generation(snapshot, rules)
            classes = None if before is None else before.classes
            cache = VerdictCache(generation, self._endpoints, self._verdicts, classes)
            self._caches[epoch] = self._newest = cache
            while len(self._caches) > MAX_EPOCHS:
                self._caches.popitem(last=False)
        self._caches.move_to_end(epoch)
        return cache

    def _recheck(self, population: Population) -> None:
        """Now and then, forget what Pods that have come or gone make wrong."""
        if not self._look:
            return
        self._look = False
        for epoch, cache in list(self._caches.items()):
            snapshot = cache.generation.snapshot
            if population.reaching(snapshot) != snapshot.reaching:
                del self._caches[epoch]

    def _alike(self, snapshot: Snapshot) -> VerdictCache | None:
        """Return a cache with the same policies: namespaces and nodes come and go more often."""
        caches = [*self._caches.values(), *([self._newest] if self._newest else [])]
        return next((c for c in caches if c.generation.rules.says(snapshot)), None)

    def _make_room(self) -> None:
        """Number endpoints anew; what was decided for classes of them stays."""
        caches = [*self._caches.values(), *([self._newest] if self._newest else [])]
        if any(cache.crowded for cache in caches):
            self._clear()
            return
        if self._endpoints.crowded:
            self._endpoints.clear()
        else:
            self._endpoints.forget()
        for cache in caches:
            cache.forget()
        self.stats.cleared += 1

    def _clear(self) -> None:
        self._endpoints.clear()
        self._caches.clear()
        self._newest = None
        self.stats.cleared += 1


def _listed(parts: Sequence[str]) -> str:
    """Return a bounded, printable text of parts of an object, which may be anything."""
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    text = "; ".join(part[:64] for part in parts[:SHOWN])
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text) + more
