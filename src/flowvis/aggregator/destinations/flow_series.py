"""Sums of flow records by who called whom, as many as there is room for.

A *combination* is what a record is summed under: namespace and workload of both ends, the called
Service, type and verdict. Names come from clusters, so there may be any number of them; a
combination gets one of a fixed number of places as long as there are any, and what comes later is
summed as "(other)", by type and verdict. So the sums over all combinations are those of all
records, whatever was refused a name, and those by type or verdict are exact as well.

A sum never decreases while its combination has its place. A place is given on when nothing came
for long, and only where nobody may have seen it a moment ago: a counter that begins anew under the
name of one that was just seen would hide what it had before.

Who reads counters goes by how much they grow, and knows nothing of what one had when it was seen
first. So whatever is new is read as 0 at first.

No object is made per record: combinations are told apart by the codes of their texts, and the texts
are looked at once for each. Sums are floats, as Prometheus has them: exact up to 2^53.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Batch, Column
from flowvis.clickhouse.schema.tables import began
from flowvis.counts import count, gauge
from flowvis.fields import FLOW_TYPES
from flowvis.filters.attributes import DENIED, VERDICTS
from flowvis.inventory.workloads import EXTERNAL, OTHER, THE_NODE
from flowvis.native import FlowIndex, pack_keys
from flowvis.strings import Strings

LABELS = (
    "source_namespace",
    "source_workload",
    "destination_namespace",
    "destination_workload",
    "destination_service",
    "type",
    "verdict",
)


class Measure(NamedTuple):
    """What is summed of records."""

    name: str
    help: str
    column: str
    """The field, or the name of what is counted."""
    of_denials: bool = False
    """Whether only what was denied can have any."""


_BEGAN, _DENIED = "began", "began and denied"
_ACTIONS = ("ingressNetworkPolicyRuleAction", "egressNetworkPolicyRuleAction")
MEASURES = (
    Measure("bytes", "Bytes of IP packets from source to destination", "octetDeltaCount"),
    Measure(
        "reverse_bytes", "Bytes of IP packets from destination to source", "reverseOctetDeltaCount"
    ),
    Measure("packets", "Packets from source to destination", "packetDeltaCount"),
    Measure("reverse_packets", "Packets from destination to source", "reversePacketDeltaCount"),
    Measure("connections", "Connections begun, denied ones too", _BEGAN),
    Measure("denied", "Connections begun that a policy denied", _DENIED, of_denials=True),
)

_TYPES = ("unknown", *sorted(FLOW_TYPES, key=FLOW_TYPES.__getitem__))
_VERDICTS = tuple(VERDICTS)
_VERDICT_OF = np.full(256, _VERDICTS.index("none"), dtype=np.uint8)
for _place, _actions in enumerate(VERDICTS.values()):
    _VERDICT_OF[list(_actions)] = _place
"""By action, the place of the verdict; what counts first has the lower one."""

_IS_DENIED = np.isin(_VERDICTS, DENIED)
OTHERS = len(_TYPES) * len(_VERDICTS)
"""Combinations without names: there is always a place for these."""

_UNNAMED = (OTHER,) * 5
"""The names of these, which those of records may be as well."""

TEXT_BYTES = 254
"""Most of a label's value; names of Kubernetes have 253."""
PLACE_BYTES = 6 * (TEXT_BYTES + 64) + 512
"""What a combination takes at most: its labels, its sums, and 8 ways to come to it."""
_WAYS = 8  # by what combinations of codes a combination is found: a few, as tables of texts change
_CLEARED_S = 60.0  # at least between two times that they are forgotten as they were too many
BEGINNING_S = 35.0
"""For how long what is new is read as 0, and once at least: who reads every 30 s has seen that."""
SEEN_S = 600.0
"""For how long after a scrape somebody may know a sum: Prometheus gives up after five minutes."""


@dataclass(slots=True)
class FlowSeriesStats:
    """How much has a name."""

    series: int = gauge("Time series that are exposed")
    series_limit: int = gauge("Time series that there may be")
    records: int = count("Records that were summed")
    other_records: int = count("Of these, such as were summed as (other)")
    other_bytes: int = count("Bytes of both directions that were summed as (other)")
    removed: int = count("Combinations removed as nothing came of them for long")


class Sample(NamedTuple):
    """The sums of one combination, in the order of `MEASURES`."""

    labels: tuple[str, ...]
    sums: NDArray[np.float64]
    denied: bool
    """Whether its verdict is a denial: others have no denied connections."""


class FlowSeries:
    """The sums of all records that were added. Does no I/O; time is an argument."""

    def __init__(self, most: int, idle_s: float, stats: FlowSeriesStats | None = None) -> None:
        """Have at most so many time series, one for each measure of each combination."""
        self.stats = stats or FlowSeriesStats()
        self.stats.series, self.stats.series_limit = 0, most
        self.idle_s = idle_s
        self._named = max(most // len(MEASURES) - OTHERS, 0)
        places = self._named + OTHERS
        self._sums = np.zeros((len(MEASURES), places))
        self._last_s = np.full(places, -np.inf)
        self._first_s = np.full(places, -np.inf)
        self._was_read = np.zeros(places, bool)
        self._labels: list[tuple[str, ...]] = [()] * self._named
        self._labels += [(*_UNNAMED, kind, verdict) for kind in _TYPES for verdict in _VERDICTS]
        self._denied = np.array([bool(one) and one[-1] in DENIED for one in self._labels], bool)
        self._places: dict[tuple[str, ...], int] = {}
        self._free = list(range(self._named - 1, -1, -1))
        self._ways = _WAYS * self._named + OTHERS
        self._index = FlowIndex(_KEY_BYTES, self._ways)
        self._place_of = np.full(self._ways + 1, -1)  # the last: no way was kept
        self._strings: Strings | None = None
        self._cleared_s = -np.inf
        self._read_s = -np.inf

    def add(self, batch: Batch, now_s: float) -> None:
        """Add the records of a batch, which must have every stored field."""
        if not len(batch):
            return
        if not self._free and now_s - self._read_s > SEEN_S:
            self.expire(now_s)
        if batch.strings is not self._strings or self._is_crowded(now_s):
            self._forget_ways(now_s)
            self._strings = batch.strings
        key = _Key.of(batch)
        slots, new = self._index.upsert(key.packed())
        if new.any():
            self._find_places(key, np.flatnonzero(new), slots, batch.strings)
        places = self._place_of[slots]
        other = places < 0
        np.copyto(places, self._named + key.unnamed, where=other)
        columns = _columns(batch, key)
        for sums, values in zip(self._sums, columns, strict=True):
            np.add.at(sums, places, values)
        self._first_s[places[self._last_s[places] == -np.inf]] = now_s
        self._last_s[places] = now_s
        self.stats.records += len(batch)
        if other.any():
            self.stats.other_records += int(np.count_nonzero(other))
            self.stats.other_bytes += int(sum(values[other].sum() for values in columns[:2]))
        self._count_series()

    def read(self, now_s: float) -> Iterator[Sample]:
        """Go through the sums of all combinations, for somebody who will know them then.

        What is new is 0.
        """
        self.expire(now_s)
        self._read_s = now_s
        used = self._last_s > -np.inf
        shown = self._sums * (self._was_read & (now_s - self._first_s >= BEGINNING_S))
        self._was_read |= used
        for place in np.flatnonzero(used).tolist():
            labels = self._labels[place]
            yield Sample(labels, shown[:, place], labels[-1] in DENIED)

    def expire(self, now_s: float) -> None:
        """Give up combinations of which nothing came for long."""
        idle = np.flatnonzero(self._last_s[: self._named] < now_s - self.idle_s)
        idle = idle[self._last_s[idle] > -np.inf]
        if not len(idle):
            return
        for place in idle.tolist():
            del self._places[self._labels[place]]
            self._labels[place] = ()
            self._free.append(place)
        self._sums[:, idle] = 0
        self._last_s[idle] = -np.inf
        self._was_read[idle] = False
        self.stats.removed += len(idle)
        self._forget_ways(now_s)  # what was refused a place may have one now
        self._count_series()

    @property
    def memory_bytes(self) -> int:
        """About what it takes."""
        return PLACE_BYTES * len(self._labels)

    def _find_places(
        self,
        key: "_Key",
        rows: NDArray[np.int64],
        slots: NDArray[np.int64],
        strings: Strings,
    ) -> None:
        """Find the places of what has codes that were not seen before: by its texts."""
        self._place_of[slots[rows]] = -1  # should anything fail before they are known
        for row, labels in zip(rows.tolist(), key.labels(rows, strings), strict=True):
            place = self._places.get(labels)
            if place is None and self._free and labels[:5] != _UNNAMED:
                place = self._places[labels] = self._free.pop()
                self._labels[place] = labels
                self._denied[place] = labels[-1] in DENIED
            self._place_of[slots[row]] = -1 if place is None else place

    def _is_crowded(self, now_s: float) -> bool:
        """Whether the ways are used up, and it is time to begin anew."""
        return len(self._index) >= self._ways and now_s - self._cleared_s >= _CLEARED_S

    def _forget_ways(self, now_s: float) -> None:
        self._index.clear()
        self._cleared_s = now_s

    def _count_series(self) -> None:
        used = self._last_s > -np.inf
        denials = int(np.count_nonzero(self._denied & used))
        only = sum(each.of_denials for each in MEASURES)
        any_of = len(MEASURES) - only
        self.stats.series = int(np.count_nonzero(used)) * any_of + denials * only


@dataclass(frozen=True, slots=True, eq=False)
class _End:
    """One end of records: codes of its namespace and workload, and what it is without any."""

    namespace: Column
    workload: Column
    what: NDArray[np.uint8]
    """Place in `_WHAT`."""

    @classmethod
    def of(cls, batch: Batch, end: str) -> "_End":
        pod, workload = batch[f"{end}PodName"], batch[f"{end}WorkloadName"]
        name = np.where(workload != 0, workload, pod)
        what = np.where(name != 0, 0, np.where(batch[f"{end}NodeName"] != 0, 1, 2))
        return cls(batch[f"{end}PodNamespace"], name, what.astype(np.uint8))

    def labels(
        self, rows: NDArray[np.int64], strings: Strings
    ) -> tuple[Iterator[str], Iterator[str]]:
        """Return the namespaces and workloads of some records."""
        workloads = _texts(self.workload[rows], strings)
        named = (_WHAT[what] or text for what, text in zip(self.what[rows], workloads, strict=True))
        return _texts(self.namespace[rows], strings), named


_WHAT = ("", THE_NODE, EXTERNAL)


@dataclass(frozen=True, slots=True, eq=False)
class _Key:
    """What tells the combinations of a batch's records apart, as columns."""

    source: _End
    destination: _End
    service: Column
    type: NDArray[np.uint8]
    verdict: NDArray[np.uint8]
    """Places in `_TYPES` and `_VERDICTS`."""

    @classmethod
    def of(cls, batch: Batch) -> "_Key":
        kind = batch["flowType"]
        return cls(
            _End.of(batch, "source"),
            _End.of(batch, "destination"),
            batch["destinationServicePortName"],
            np.where(kind < len(_TYPES), kind, np.uint8(0)),
            np.minimum(*(_VERDICT_OF[batch[action]] for action in _ACTIONS)),
        )

    def packed(self) -> NDArray[np.uint8]:
        """Return a key of bytes for each record: (n, `_KEY_BYTES`)."""
        ends = (self.source, self.destination)
        codes = [column for end in ends for column in (end.namespace, end.workload)]
        small = [end.what for end in ends]
        keys: NDArray[np.uint8] = pack_keys(*codes, self.service, *small, self.type, self.verdict)
        return keys

    @property
    def unnamed(self) -> NDArray[np.int64]:
        """Which of the combinations without names each record is of."""
        return self.type.astype(np.int64) * len(_VERDICTS) + self.verdict

    def labels(self, rows: NDArray[np.int64], strings: Strings) -> Iterator[tuple[str, ...]]:
        """Go through the values of `LABELS` of some records."""
        return zip(
            *self.source.labels(rows, strings),
            *self.destination.labels(rows, strings),
            _texts(self.service[rows], strings),
            (_TYPES[place] for place in self.type[rows]),
            (_VERDICTS[place] for place in self.verdict[rows]),
            strict=True,
        )


_KEY_BYTES = 5 * 4 + 4


def _texts(codes: Column, strings: Strings) -> Iterator[str]:
    """Go through texts as labels can have them: of some length, and UTF-8."""
    for text in strings.texts(codes):
        value = text.encode(errors="replace")
        yield value[:TEXT_BYTES].decode(errors="ignore")


def _columns(batch: Batch, key: _Key) -> list[NDArray[np.float64]]:
    """Return what each of `MEASURES` adds, by record."""
    first = began(batch)
    counted = {_BEGAN: first, _DENIED: first & _IS_DENIED[key.verdict]}
    return [
        (counted[each.column] if each.column in counted else batch[each.column]).astype(np.float64)
        for each in MEASURES
    ]
