"""Records on their way into the table: the flow that each is for, and which way round it goes in.

A row has the orientation of its first record, or of one that knows better before it is written; a
record of the other one is reversed before it is merged. That is decided only when the merge leaf
meets such a record, so where all agree it costs nothing.
"""

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.generations import Report
from flowvis.aggregator.correlation.key import reversed_sides, second_way
from flowvis.aggregator.correlation.layout import COLUMNS, COUNTED
from flowvis.aggregator.correlation.relayed import COUNTERS, by_node
from flowvis.aggregator.correlation.reversal import reverse, reverse_rows
from flowvis.aggregator.correlation.rows import LiveRows
from flowvis.aggregator.correlation.set_back import follow_set_back
from flowvis.aggregator.correlation.verdicts import end_relayed_verdicts
from flowvis.aggregator.exporters import Doubt
from flowvis.batch import Batch, Column
from flowvis.fields import EndReason
from flowvis.ipfix.buffer import DOMAIN
from flowvis.native import correlation_keys, sides
from flowvis.native.contract.merge import FlowState, Records, Sides

_REPLIES = tuple(name for name in COUNTERS if name.startswith("reverse"))
_COUNTED_BY = tuple(f"octetTotalCountFrom{side}Node" for side in ("Source", "Destination"))
_FORWARD, _END = ("octetTotalCount", "octetDeltaCount"), "flowEndMilliseconds"
_GROWN = tuple((name, name.replace("Total", "Delta")) for name in COUNTED)
_TRANSLATED = ("destinationServicePort", "proxySnatPort")
SEVERAL = 4
"""After so many records that go in the other way round all of the batch are looked at at once, also
those whose rows are still to be begun: a router's records come as pairs of either direction."""


class Arrivals:
    """A batch of records, with the slots that they go into; none before `place`."""

    def __init__(self, batch: Batch, live: LiveRows, cycle: int = 0) -> None:
        self._live = live
        self._cycle = cycle
        batch, self._bits = by_node(batch, sides(batch.columns))
        self._again = (self._bits & Sides.AGAIN) != 0
        self._columns = dict(batch.columns)
        self._copied = False
        self._oriented = 0  # how often `orient_from` had something to do
        self.keys, self._reported = correlation_keys(batch.columns, self._bits)
        self._reversed = self._reported.copy()
        self._wanted = self._reported
        """Which way round those go in whose rows are still to be begun."""
        self.starts: NDArray[np.uint64] = batch["flowStartMilliseconds"]
        self.slots = np.full(len(batch), -1, dtype=np.int64)
        self._given_up = np.zeros(len(batch), dtype=bool)
        self._later = np.zeros(len(batch), dtype=bool)
        self._exporters: NDArray[np.uint32] = (
            batch[DOMAIN] if DOMAIN in batch else np.zeros(len(batch), dtype=np.uint32)
        )
        self.records = self._made()

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def ends_s(self) -> NDArray[np.uint32]:
        """When the counters were read, in seconds."""
        return np.asarray(self._columns["flowEndSeconds"])

    def go_on(self) -> NDArray[np.bool_]:
        """Which records may be of a connection that something was written of before.

        One with a past, or a half, as the other may have been written.
        """
        past = (self._bits & Sides.CORRELATE) != 0
        for total, delta in _GROWN:
            past |= self._columns[total] > self._columns[delta]
        return np.asarray(past)

    def outlived(
        self, doubts: NDArray[np.uint8], until_ms: int, evicted_ms: int
    ) -> NDArray[np.int64]:
        """Which records another exporter may have told of so long ago that it is forgotten.

        Of connections that began before `until_ms`: the first record of each, and any of who is
        behind. Others tell of packets before that is so. But not where rows make room before their
        time: of connections from before `evicted_ms` any record. Not halves alone: two exporters
        may each report the whole of one connection.
        """
        columns = self._columns
        behind = (doubts & Doubt.BEHIND) != 0
        total, delta = (columns[name] for name in _GROWN[0])
        anyhow = behind | (self.starts < np.uint64(max(evicted_ms, 0)))
        which = (self.starts < np.uint64(max(until_ms, 0))) & (anyhow | (total <= delta))
        found = np.flatnonzero(which & ((doubts & Doubt.KEPT) != 0))
        first = ~anyhow[found]
        for name, other in _GROWN[1:]:
            first &= columns[name][found] <= columns[other][found]
        return np.asarray(found[first | anyhow[found]])

    def of_others(
        self, rows: NDArray[np.void], slots: NDArray[np.int64], which: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Of some records, those whose start no side of the flow in their slot has."""
        return np.asarray((self.starts[which, None] != rows["sideStart"][slots]).all(axis=1))

    def of_records(self, values: Column) -> Column:
        """What is known of records as they came, also of what the other nodes counted of them."""
        return values[np.cumsum(~self._again) - 1] if self._again.any() else values

    def of_batch(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same of the records as they came, without what the other nodes counted."""
        return np.asarray(which[~self._again])

    def place(self, now_ms: int) -> None:
        """Find or make the slots, with some free ones for connections that take over a tuple."""
        live = self._live
        self.slots[:] = live.place(self.keys, self._exporters, now_ms)
        end_relayed_verdicts(live, self._columns, self.slots, self._reversed)
        if live.free >= len(self):
            return
        rows = np.flatnonzero(self.slots >= 0)
        slots = self.slots[rows]
        taken_over = self.of_others(live.rows, slots, rows)
        taken_over &= (live.state[slots] & FlowState.LIVE) != 0
        several = len(slots) - len(np.unique(slots))
        live.have_free(int(np.count_nonzero(taken_over)) + several, slots, now_ms)

    def follow_set_back(self, limit_ms: int) -> None:
        """Let those go on that come after an end beyond the limit."""
        way = self._bits, self._reversed
        follow_set_back(self._live, self._columns, self.slots, *way, limit_ms=limit_ms)

    def give_up(self, at: int) -> int:
        """Leave a record out, with what the other node counted of it; return its place."""
        rows = slice(at, at + 1 + int(at + 1 < len(self) and self._again[at + 1]))
        self.slots[rows] = -1
        self._given_up[rows] = True
        return at - int(np.count_nonzero(self._again[:at]))

    def put_off(self, at: int) -> bool:
        """Leave out, for later, what comes after a record of its key and began before it.

        Return whether there is any.
        """
        rows = np.arange(at + 1, len(self))
        rows = rows[(self.slots[rows] == self.slots[at]) & (self.starts[rows] < self.starts[at])]
        self._later[rows] = True
        self.slots[rows] = -1
        return len(rows) > 0

    @property
    def later(self) -> NDArray[np.bool_]:
        """Which records, as they came, were put off."""
        return self.of_batch(self._later)

    def leave(self) -> None:
        """Free the slots that were made for records and have got none."""
        self._live.forget_empty(self._live.find_all(self.keys))

    @property
    def sides_of_keys(self) -> NDArray[np.uint8]:
        """Which of its key's endpoints, in their order, each record gives (`Sides`)."""
        bits = np.where(self._reversed, reversed_sides(self._bits), self._bits)
        return np.asarray(bits & Sides.BOTH)

    @property
    def refused(self) -> int:
        """How many records found no room."""
        missing = (self.slots < 0) & ~self._given_up & ~self._later
        return int(np.count_nonzero(missing & ~self._again))

    @property
    def given_up(self) -> int:
        """How many records were left out."""
        return int(np.count_nonzero(self._given_up & ~self._again))

    @property
    def turned(self) -> int:
        """How many records go in the other way round than they were reported."""
        if not self._copied:
            return 0
        turned = (self._reversed != self._reported) & ~self._later
        return int(np.count_nonzero(turned & ~self._again))

    def orient_from(self, first: int) -> bool:
        """Reverse those of the records from `first` on that need it; return if `first` did."""
        if not self._against(np.array([first]))[0]:  # else each decision would look at all
            return False
        rows = np.arange(first, len(self.slots))
        rows = rows[self._against(rows)]
        apart = self._one_way(rows)
        self._set_apart(rows[apart])
        rows = rows[~apart]
        self._turn_rows(rows[self._translated(rows)])
        self._turn(rows[self._against(rows)])
        self._oriented += 1
        if self._oriented == SEVERAL:
            self._orient_ahead(first)
        return True

    def _orient_ahead(self, first: int) -> None:
        """Do for those whose rows another record of the batch begins what `orient_from` would.

        As far as that is known before: where a silent one may be of another exporter's direction,
        or a record may know better than the row, it is decided when its turn has come.
        """
        rows = np.arange(first, len(self.slots))
        rows = rows[self.slots[rows] >= 0]
        rows = rows[(self._live.state[self.slots[rows]] & FlowState.LIVE) == 0]
        _, heads, places = np.unique(self.slots[rows], return_index=True, return_inverse=True)
        leads = rows[heads[places]]
        against = self._reversed[rows] != self._reversed[leads]
        rows, leads = rows[against], leads[against]
        silent = self._silent(rows)
        self._set_apart(rows[silent & self._begin_forward(leads, rows)])
        rows = rows[~silent & ~self._translated(rows)]
        self._wanted = self._wanted.copy()
        self._wanted[rows] ^= True
        self._turn(rows)

    def _begin_forward(
        self, leads: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which records, with which rows begin, are the other direction of some: see `_one_way`."""
        exporters = self._exporters[leads]
        found = self._whole(leads) & (exporters == self._exporters[rows]) & (exporters != 0)
        total, delta = (self._columns[name][leads] for name in _FORWARD)
        found &= (total | delta) != 0
        return np.asarray(found & (self.starts[rows] <= self._columns[_END][leads]))

    def report(self, at: int, given: int, *, further: bool) -> Report:
        """Return a record that needs a decision, with what the merge leaf found out about it."""
        whole = int(self._bits[at]) & (Sides.BOTH | Sides.CORRELATE) == Sides.BOTH
        return Report(
            self.keys[at],
            int(self.starts[at]),
            int(self._columns["flowEndMilliseconds"][at]),
            int(self._columns["flowEndReason"][at]) == EndReason.END,
            given,
            further,
            bool(self._reversed[at]),
            int(self._exporters[at]) if whole else 0,
        )

    def move(self, at: int, slot: int) -> None:
        """Let a record go into another slot than its key's, the way round that this one has.

        What the other node counted of it goes with it.
        """
        rows = np.arange(at, at + 1 + int(at + 1 < len(self) and self._again[at + 1]))
        self.slots[rows] = slot
        if self._oriented >= SEVERAL:
            self._wanted[rows] = self._reported[rows]
        self._turn(rows[self._against(rows)])

    def _against(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which records are not the way round that their rows are; in new ones, as reported."""
        state = self._live.state[self.slots[rows]]
        row_is = (state & FlowState.REVERSED) != 0
        wanted = np.where((state & FlowState.LIVE) != 0, row_is, self._wanted[rows])
        return np.asarray((self.slots[rows] >= 0) & (self._reversed[rows] != wanted))

    def _one_way(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which records are the other direction of what their own exporter reports already.

        A router's records have one direction each: they have no replies, and both directions are
        open at once. Where one router has set a direction apart, others' records of it go there.
        """
        live, slots = self._live, self.slots[rows]
        exporters = self._exporters[rows]
        own = (live.rows["exporters"][slots] == exporters[:, None]) & (exporters[:, None] != 0)
        counted = np.stack([live.rows[name][slots] for name in _COUNTED_BY], axis=1)
        forward = (own & (counted != 0)).any(axis=1)
        apart = live.find_all(second_way(self.keys[rows], self._reported[rows])) >= 0
        open_then = self.starts[rows] <= live.rows["sideEnd"][slots].max(axis=1)
        return np.asarray(self._silent(rows) & (forward | apart) & open_then)

    def _silent(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which records are of a whole connection and have no replies."""
        silent = self._whole(rows)
        for name in _REPLIES:
            silent &= self._columns[name][rows] == 0
        return silent

    def _whole(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(self._bits[rows] & (Sides.BOTH | Sides.CORRELATE) == Sides.BOTH)

    def _translated(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which records know who opened the connection, as the client's packets were translated."""
        service, snat = (self._columns[name][rows] != 0 for name in _TRANSLATED)
        return np.asarray(service | snat)

    def _turn_rows(self, rows: NDArray[np.int64]) -> None:
        """Reverse the flows that records are for, if nothing is written of them or known better."""
        if not len(rows):
            return
        slots = np.unique(self.slots[rows])
        known = np.zeros(len(slots), dtype=bool)
        for name in _TRANSLATED:
            known |= self._live.rows[name][slots] != 0
        written = (self._live.state[slots] & FlowState.WRITTEN) != 0
        reverse_rows(self._live, slots[~known & ~written])

    def _set_apart(self, rows: NDArray[np.int64]) -> None:
        """Give records rows of their own, as the second direction of a connection."""
        if len(rows):
            self.keys[rows] = second_way(self.keys[rows], self._reported[rows])
            self.slots[rows] = self._live.place_in_free(self.keys[rows])

    def _turn(self, rows: NDArray[np.int64]) -> None:
        """Reverse records, in columns of our own."""
        if not len(rows):
            return
        if not self._copied:
            self._columns = {name: column.copy() for name, column in self._columns.items()}
            self._copied = True
            self.records = self._made()
        reverse(self._columns, rows)
        self._bits[rows] = reversed_sides(self._bits[rows])
        self._reversed[rows] ^= True

    def _made(self) -> Records:
        columns = self._columns
        return Records(
            [columns[field.name] for field in COLUMNS],
            self.starts,
            columns["flowEndMilliseconds"],
            columns["flowEndReason"],
            self._bits,
            self.slots,
            self._exporters,
            self._reversed,
            self._cycle,
        )
