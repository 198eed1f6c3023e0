"""Rows of live flows into what the store keeps of them, and back."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis import checkpoint
from flowvis.aggregator.correlation.layout import COUNTED, HELD, ROW, SIDES, last
from flowvis.batch import Column
from flowvis.fields import ICMP, Kind, Merge, Source
from flowvis.native import FlowIndex, made_of, order_endpoints, pack_keys
from flowvis.native.contract.halves import ENDPOINT, ENDPOINTS, GENERATION, KEY_SIZE, NEITHER, WAY
from flowvis.native.contract.merge import FlowState, Sides
from flowvis.strings import Strings

_OF_INTERVAL = (Merge.DELTA, Merge.RATE)
_MILLISECONDS = ("flowStartMilliseconds", "flowEndMilliseconds")
RESTORED: tuple[str, ...] = tuple(
    field.name
    for field in HELD
    if field.kind is not Kind.TEXT
    and field.merge not in _OF_INTERVAL
    and field.source is not Source.VERDICT
    and field.name not in _MILLISECONDS
)
"""Fields that a row is restored with; names and verdicts come with the next record, or are found
anew when the flow is written."""
_COLUMNS = (*RESTORED, *checkpoint.COLUMNS)

_TOTALS = tuple(
    (f"{counter}From{side.value.capitalize()}Node", last(counter, side))
    for side in SIDES
    for counter in COUNTED
)
"""Each side's total of a counter, and that counter as the side reported it last."""

_SIDES = (
    (checkpoint.STARTS, "sideStart"),
    (checkpoint.ENDS, "sideEnd"),
    (checkpoint.EXPORTERS, "exporters"),
)
"""Columns of both sides, and their place in a row."""

_TRANSLATIONS = (
    ("source", "proxySnat", checkpoint.CLIENT_TRANSLATED),
    ("destination", "destinationService", checkpoint.SERVER_TRANSLATED),
)
_TRANSLATED = np.zeros(256, dtype=np.uint32)
_TRANSLATED[[Sides.CLIENT, Sides.SERVER, Sides.CLIENT | Sides.SERVER]] = (
    checkpoint.CLIENT_TRANSLATED,
    checkpoint.SERVER_TRANSLATED,
    checkpoint.CLIENT_TRANSLATED | checkpoint.SERVER_TRANSLATED,
)
_KEPT = checkpoint.STATE_BITS & ~(FlowState.UNWRITTEN | FlowState.PREVIOUS | FlowState.ONCE)
_WAY_AT = 2 * ENDPOINT + 5


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Flows as they were written, `(n,)` each, and their keys `(n, KEY_SIZE)`.

    Their rows are made when they are wanted, a few at a time: all at once they are three times what
    the store answered.
    """

    columns: Mapping[str, Column]
    """The fields in RESTORED, and the columns of `flowvis.checkpoint`; BASES has the bytes
    themselves, `(n, BASES_BYTES)`."""
    state: NDArray[np.uint64]
    keys: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.state)

    @property
    def numbers(self) -> NDArray[np.uint32]:
        """How many records of each were written, since the aggregator knows of it."""
        return np.asarray(self.columns[checkpoint.NUMBER])

    def starts(self, which: NDArray[np.int64]) -> NDArray[np.uint64]:
        """When those at some positions began, by side `(n, 2)`, in ms; 0 for one that is silent."""
        return np.stack([self.columns[name][which] for name in checkpoint.STARTS], axis=1)

    def take(self, which: NDArray[np.int64]) -> "Flows":
        """Those at some positions."""
        columns = {name: column[which] for name, column in self.columns.items()}
        return Flows(columns, self.state[which], self.keys[which])

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.void]:
        """The rows, of type ROW, of those at some positions."""
        rows = np.zeros(len(which), dtype=ROW)
        for name in RESTORED:
            rows[name] = self.columns[name].take(which, axis=0)
        for names, place in _SIDES:
            for side, name in enumerate(names):
                rows[place][:, side] = self.columns[name].take(which)
        bases = self.columns[checkpoint.BASES].take(which, axis=0).view(np.uint64)
        for at, (total, reported) in enumerate(_TOTALS):
            rows[reported] = rows[total] - bases[:, at]
        rows["flowStartMilliseconds"] = _began(rows["sideStart"])
        rows["flowEndMilliseconds"] = rows["sideEnd"].max(axis=1, initial=0)
        rows["intervalStart"] = rows["flowEndMilliseconds"]
        rows["written"] = self.columns[checkpoint.NUMBER][which]
        return rows


def checkpoints(
    rows: NDArray[np.void],
    anew: NDArray[np.bool_],
    state: NDArray[np.uint64],
    keys: NDArray[np.uint8],
    strings: Strings,
) -> dict[str, Column]:
    """Return the columns of `flowvis.checkpoint` of rows that are written, with their new state.

    `anew`: which of them have a side whose counters began anew.
    """
    bases = _bases(rows, np.flatnonzero(anew), strings)
    endpoints = {name: rows[name] for names in ENDPOINTS for name in names}
    made = made_of(endpoints, keys, (state & FlowState.REVERSED) != 0)
    bits = (state & np.uint64(_KEPT)).astype(np.uint32)
    bits |= keys[:, _WAY_AT].astype(np.uint32) << np.uint32(checkpoint.WAY)
    bits |= _TRANSLATED[made]
    bits[(bases < 0) | ((made & NEITHER) != 0)] = 0
    return {
        **{name: rows["sideStart"][:, side] for side, name in enumerate(checkpoint.STARTS)},
        **{name: rows["sideEnd"][:, side] for side, name in enumerate(checkpoint.ENDS)},
        **{name: rows["exporters"][:, side] for side, name in enumerate(checkpoint.EXPORTERS)},
        checkpoint.STATE: bits,
        checkpoint.NUMBER: rows["written"] + np.uint32(1),
        checkpoint.BASES: np.maximum(bases, 0).astype(np.uint32),
    }


def _names(side: str, between: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"{side}IP", f"{side}TransportPort"), (f"{between}IP", f"{between}Port")


def _bases(rows: NDArray[np.void], at: NDArray[np.int64], strings: Strings) -> NDArray[np.int64]:
    """Codes of what totals were when counters began anew, of the rows `at` which they did.

    -1 where there is no room for them.
    """
    codes = np.zeros(len(rows), dtype=np.int64)
    if len(at):
        bases = np.stack([rows[total][at] - rows[reported][at] for total, reported in _TOTALS], 1)
        texts = [base.tobytes().hex().encode() for base in bases]
        given = np.array([strings.intern(text) for text in texts], dtype=np.int64)
        codes[at] = np.where(given == 0, -1, given)
    return codes


def flows(columns: Mapping[str, Column]) -> Flows:
    """Make flows of the columns of `Flows`.

    Those whose key and state contradict each other are left out.
    """
    columns = {name: np.ascontiguousarray(columns[name]) for name in _COLUMNS}
    bits = columns[checkpoint.STATE]
    state = bits.astype(np.uint64) & np.uint64(_KEPT)
    state |= np.uint64(FlowState.LIVE | FlowState.WRITTEN)
    keys = stored_keys(columns, bits)
    turned = order_endpoints(keys)
    sound = (bits != 0) & (turned == ((state & FlowState.REVERSED) != 0))
    sound &= (state >> FlowState.SIDES & Sides.BOTH) != 0
    found = Flows(columns, state, keys)
    return found if sound.all() else found.take(np.flatnonzero(sound))


NONE = Flows(
    {name: np.zeros(0, dtype=(ROW[name].base, ROW[name].shape)) for name in RESTORED}
    | {name: np.zeros(0, dtype=kind) for name, kind in checkpoint.COLUMNS.items()}
    | {checkpoint.BASES: np.zeros((0, checkpoint.BASES_BYTES), dtype=np.uint8)},
    np.zeros(0, dtype=np.uint64),
    np.zeros((0, KEY_SIZE), dtype=np.uint8),
)
"""Nothing was written."""


def _began(starts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The earlier start of those of both sides that there are, 0 where there is none."""
    known = np.where(starts == 0, starts.max(axis=1, initial=0)[:, None], starts)
    return np.asarray(known.min(axis=1, initial=(1 << 64) - 1))


def stored_keys(columns: Mapping[str, Column], bits: Column) -> NDArray[np.uint8]:
    """The keys of what is written, their source first; `bits` is the column STATE."""
    endpoints = []
    for side, between, bit in _TRANSLATIONS:
        (address, port), (other, other_port) = _names(side, between)
        translated = (bits & bit) != 0
        endpoints += [
            np.where(translated[:, None], columns[other], columns[address]),
            np.where(translated, columns[other_port], columns[port]),
        ]
    protocol = columns["protocolIdentifier"]
    flow_id = np.where(np.isin(protocol, ICMP), columns["flowId"], 0).astype(np.uint32)
    way = (bits >> np.uint32(checkpoint.WAY) & 3).astype(np.uint8)
    tail = np.zeros((len(bits), WAY + GENERATION), dtype=np.uint8)
    tail[:, 0] = way
    packed: NDArray[np.uint8] = pack_keys(*endpoints, protocol, flow_id, tail)
    return packed


def newest(
    stored: Flows, wanted: NDArray[np.uint8], most: int, *, limit_ms: int
) -> NDArray[np.int64]:
    """Return the rows of up to `most` connections of each of the keys that has any.

    One line for each such key, the newest connection first, -1 for what there is not; as wide as
    the longest, at least 1. Of rows of one connection, which are known by the start of a side, the
    one that was written last counts: the one with the latest end, then the number, which begins
    anew when a connection is forgotten. Where an end is beyond the limit, as of a clock that was
    wrong, numbers alone tell.
    """
    index = FlowIndex(KEY_SIZE, max(len(wanted), 1))
    index.upsert(wanted)
    places = index.find(stored.keys)
    asked = np.flatnonzero(places >= 0)
    rows_of = np.bincount(places[asked], minlength=1)
    longest = int(rows_of.max())
    if longest <= 1:  # as after any stop that was short
        return asked.reshape(-1, 1)
    began = _began(stored.starts(asked))
    order = asked[np.lexsort((stored.numbers[asked], began, places[asked]))]
    counts = rows_of[rows_of > 0]
    ends = np.cumsum(counts)
    found = np.full((len(counts), min(most, longest)), -1, dtype=np.int64)
    found[:, 0] = order[ends - 1]
    for at in np.flatnonzero(counts > 1).tolist():
        of_key = order[ends[at] - counts[at] : ends[at]]
        latest = _connections(stored, of_key, limit_ms)[: -most - 1 : -1]
        found[at, : len(latest)] = latest
    return found


def _connections(stored: Flows, of_key: NDArray[np.int64], limit_ms: int) -> list[int]:
    """The last row of each connection of one key, in the order of their starts.

    There may be thousands: a client can use one port again each second.
    """
    starts = stored.starts(of_key)
    turned = (stored.state[of_key] & FlowState.REVERSED) != 0
    starts[turned] = starts[turned, ::-1]  # by the key's endpoints
    ends = np.maximum(*(stored.columns[name][of_key] for name in checkpoint.ENDS))
    if ends.max() > np.uint64(limit_ms):
        ends[:] = 0
    written = zip(ends.tolist(), stored.numbers[of_key].tolist(), strict=True)
    found: list[int] = []
    last: list[tuple[int, int]] = []  # when the row that was found was written
    known: dict[tuple[int, int], int] = {}
    for row, began, when in zip(of_key.tolist(), starts.tolist(), written, strict=True):
        sides = [(side, start) for side, start in enumerate(began) if start]
        at = min((known[side] for side in sides if side in known), default=len(found))
        if at == len(found):
            found.append(row)
            last.append(when)
        elif when >= last[at]:
            found[at], last[at] = row, when
        known |= dict.fromkeys(sides, at)
    return found
