"""Antrea's Egress objects: the address and node that Pods' connections leave the cluster by."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column, is_ipv4
from flowvis.beginnings import began_ms
from flowvis.counts import count
from flowvis.fields import FlowType
from flowvis.policies.endpoints import NONE, Selectable
from flowvis.policies.history import MAX_EPOCHS
from flowvis.policies.objects import (
    ANTREA,
    NAME_LABEL,
    Key,
    Labels,
    Parsers,
    created_ms,
    parse_namespace,
)
from flowvis.policies.selectors import Pair, Selector, parse_selector
from flowvis.policies.watched import WatchedObjects

MAX_CLASSES = 1 << 16  # of Pods alike in namespace and labels, of one epoch; then found anew


@dataclass(frozen=True, slots=True)
class Egress:
    """One Egress."""

    created_ms: int
    name: str
    address: str
    node: str
    """The node that has the address; "" while none does, and the Egress is without effect."""
    namespaces: Selector | None
    pods: Selector | None
    """None: not said. Without either it selects nothing."""

    @property
    def in_effect(self) -> bool:
        """Whether connections leave through it."""
        return bool(self.node) and not (self.namespaces is None and self.pods is None)


class Fields(NamedTuple):
    """What a record says of an Egress."""

    name: str = ""
    address: str = ""
    node: str = ""


NO_EGRESS = Fields()


@dataclass(slots=True)
class EgressStats:
    """What was found, and what could not be."""

    found: int = count("Records of connections that leave through an Egress")
    evaluated: int = count("Pods alike in namespace and labels that Egresses were looked at for")
    malformed: int = count("Objects that were not what their kind says")
    refused: int = count("Objects not kept since there were too many")


class Egresses(WatchedObjects):
    """All Egresses of a cluster, and the namespaces that they select."""

    def __init__(self) -> None:
        self.stats = EgressStats()
        super().__init__(_PARSERS, self.stats)
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._active: bool | None = None

    @property
    def active(self) -> bool:
        """Whether any Egress is kept."""
        if self._active is None:
            self._active = _KIND in self._history.kinds()
        return self._active

    def expire(self, now_ms: int) -> None:
        """Forget what changed too long ago; to be called now and then."""
        super().expire(now_ms)
        self._active = None

    def find(
        self,
        batch: Batch,
        pods: Sequence[Selectable | None],
        sources: NDArray[np.int64],
        *,
        counts: bool = True,
    ) -> dict[str, Column]:
        """Return the three Egress columns of a batch, what its records say already included.

        `sources` are handles, places in `pods` or -1: those of which connections may leave by an
        Egress. A record's own answer stays. Without `counts` what is found is in no statistics.
        """
        columns: dict[str, Column] = {name: batch[name].copy() for name in EGRESS_FIELDS}
        leaving = (batch["flowType"] == FlowType.TO_EXTERNAL) & (sources != NONE)
        rows = np.flatnonzero(leaving & (batch["egressName"] == 0))
        for number, at in self._history.split(began_ms(batch, rows).astype(np.int64)):
            those = rows[at]
            handles, places = np.unique(sources[those], return_inverse=True)
            epoch = self._epoch(number)
            before = epoch.evaluated
            found = [epoch.egress(pods[handle]) for handle in handles.tolist()]
            self.stats.evaluated += epoch.evaluated - before
            # An address is of one family, and so is what leaves by it.
            ipv6 = np.array([":" in fields.address for fields in found], dtype=bool)[places]
            fitting = ipv6 != is_ipv4(batch["sourceIP"][those])
            for name, texts in zip(EGRESS_FIELDS, zip(*found, strict=True), strict=True):
                codes = batch.strings.encode(texts)[places]
                columns[name][those[fitting]] = codes[fitting]
        if counts:
            self.stats.found += int(np.count_nonzero(columns["egressName"][rows]))
        return columns

    def _changed(self, since_ms: int) -> None:
        self._active = None
        for epoch in [epoch for epoch in self._epochs if epoch >= since_ms]:
            del self._epochs[epoch]

    def _epoch(self, number: int) -> "_Epoch":
        epoch = self._epochs.get(number)
        if epoch is None:
            epoch = self._epochs[number] = _Epoch(self._history.values(number))
            while len(self._epochs) > MAX_EPOCHS:
                self._epochs.popitem(last=False)
        self._epochs.move_to_end(number)
        return epoch


class _Epoch:
    """The Egresses of one epoch, in the order in which they keep a Pod that several select.

    In a cluster the one that was realised first keeps it, which no object tells; the oldest one
    most likely was.
    """

    def __init__(self, objects: Iterable[tuple[Key, Any]]) -> None:
        self.evaluated = 0
        """How often Egresses were looked at."""
        self._namespaces: dict[str, Labels] = {}
        egresses: list[Egress] = []
        for (_, kind, _, name), value in objects:
            if kind == _KIND:
                egresses.append(value)
            else:
                self._namespaces[name] = value
        in_effect = [egress for egress in egresses if egress.in_effect]
        self._egresses = sorted(in_effect, key=lambda egress: (egress.created_ms, egress.name))
        self._by_namespace: dict[str, dict[Pair | None, list[int]]] = {}
        self._found: dict[tuple[str, str], Fields] = {}

    def egress(self, pod: Selectable | None) -> Fields:
        """Return the Egress of a Pod."""
        if pod is None:
            return NO_EGRESS
        found = self._found.get((pod.namespace, pod.labels))
        if found is None:
            if len(self._found) >= MAX_CLASSES:
                self._found.clear()
            found = self._found[pod.namespace, pod.labels] = self._look(pod)
        return found

    def _look(self, pod: Selectable) -> Fields:
        self.evaluated += 1
        labels = {str(key): str(value) for key, value in json.loads(pod.labels).items()}
        anchored = self._of_namespace(pod.namespace)
        places = sorted(p for pair in (None, *labels.items()) for p in anchored.get(pair, ()))
        for egress in map(self._egresses.__getitem__, places):
            if egress.pods is None or egress.pods.matches(labels):
                return Fields(egress.name, egress.address, egress.node)
        return NO_EGRESS

    def _of_namespace(self, name: str) -> dict[Pair | None, list[int]]:
        """Return the places of Egresses that select a namespace, by a label that Pods must have."""
        if name not in self._by_namespace:
            labels = self._namespaces.get(name) or {NAME_LABEL: name}
            anchored: dict[Pair | None, list[int]] = {}
            for place, egress in enumerate(self._egresses):
                if egress.namespaces is None or egress.namespaces.matches(labels):
                    pair = None if egress.pods is None else egress.pods.pair
                    anchored.setdefault(pair, []).append(place)
            self._by_namespace[name] = anchored
        return self._by_namespace[name]


def _parse(item: Mapping[str, Any]) -> Egress:
    """Read an Egress."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    applied = spec["appliedTo"]
    selectors = [
        None if applied.get(key) is None else parse_selector(applied[key])
        for key in ("namespaceSelector", "podSelector")
    ]
    address = status.get("egressIP") or spec.get("egressIP") or ""
    name, node = item["metadata"]["name"], status.get("egressNode") or ""
    return Egress(created_ms(item) or 0, str(name), str(address), str(node), *selectors)


_KIND = "Egress"
EGRESS_FIELDS = ("egressName", "egressIP", "egressNodeName")
_PARSERS: Parsers = {(ANTREA, _KIND): _parse, ("", "Namespace"): parse_namespace}
