"""Where live flows are kept: one row each, found by key, with what is scanned in arrays beside."""

from collections import Counter
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation.checkpoint import Flows as Written
from flowvis.aggregator.correlation.key import OLDEST, earlier, generation, is_current
from flowvis.aggregator.correlation.layout import CACHE_LINE, ROW, WHOLE
from flowvis.batch import SETTLED
from flowvis.native import FlowIndex
from flowvis.native.contract.halves import KEY_SIZE
from flowvis.native.contract.merge import NEVER, Flows, FlowState

STATUS = np.dtype([("state", np.uint64), ("due", np.int64), ("seen", np.int64)])
"""What is scanned for all flows; side by side, since a record changes all three."""

ROW_BYTES = ROW.itemsize + STATUS.itemsize + KEY_SIZE + 4 + 8 + 32
"""What a flow takes: its row, what is scanned, its key, its exporter, its cycle, and two to four
places of the index."""

EVICTED_AT_ONCE = 64  # a full table makes room by this part of it: each search is a scan
HEADROOM = 8  # this part of a table is kept free, or free to be evicted, from tick to tick
RELIEVE_MS = 250  # between two looks what is to be written early: each is a scan
RESERVED = 32  # the last part of it is not for the exporters that fill it
NEVER_YET = -(1 << 62)
IN_CACHE = 512  # rows that are made at a time, one column after the other
SAMPLE = 2048  # rows by which it is judged who fills a table


class LiveRows:
    """At most `capacity` rows; a free one is all zero. `used`: the slots from there on are free.

    Memory is the system's until a slot is used, and the lowest free slot is used first, so what is
    resident follows the number of live flows.
    """

    def __init__(self, capacity: int) -> None:
        spacious = np.zeros(capacity * ROW.itemsize + CACHE_LINE, dtype=np.uint8)
        aligned = -spacious.ctypes.data % CACHE_LINE
        self.bytes = spacious[aligned:][: capacity * ROW.itemsize].reshape(capacity, ROW.itemsize)
        self.rows = self.bytes.view(ROW).reshape(capacity)
        status = np.zeros(capacity, dtype=STATUS)
        self.state, self.due, self.seen = (status[name] for name in STATUS.names or ())
        self._reporters = np.zeros(capacity, dtype=np.uint32)  # the exporter of the first record
        self.cycle = np.zeros(capacity, dtype=np.int64)
        """Of the oldest record of a flow that is not written; says nothing where there is none."""
        self.forgotten_ms = 0
        """Until when something may have come, by steady time, of which there is no row any more."""
        self.evicted_ms = NEVER_YET
        """The same of rows that were forgotten early, to make room."""
        self.forgets = False
        """Whether any row that is written was forgotten, or made that of another connection."""
        self._begun = False
        self.used = 0
        self._touched = 0  # slots that were ever used; the others are the system's zeros
        self.evicted = 0
        self._capacity = capacity
        self._index = FlowIndex(KEY_SIZE, capacity)
        self.owner: Callable[[int], Hashable] = int
        """Who is behind the number of an exporter."""
        self.forgot: Callable[[NDArray[np.uint8]], None] = _nobody_listens
        """Gets the keys, of whichever connection of theirs, of flows that were written, which only
        the store knows of from now on."""
        self.settle()
        self._relieved_at = -RELIEVE_MS
        self._filler: Hashable = None  # who has more than half of the flows
        self._heavy: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)  # exporters of that one

    def __len__(self) -> int:
        return len(self._index)

    @property
    def memory_bytes(self) -> int:
        """About what the slots that were ever used take."""
        return self._touched * ROW_BYTES

    def flows(self) -> Flows:
        """The arrays as the merge leaf takes them."""
        return Flows(self.bytes, self.state, self.due, self.seen, self.cycle)

    def find(self, key: NDArray[np.uint8]) -> int:
        """Return the slot of one key, -1 if it has none."""
        return int(self.find_all(key.reshape(1, -1))[0])

    def find_all(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the slots of keys, -1 where there is none."""
        return np.asarray(self._index.find(keys))

    def place_in_free(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Find or make the slots of keys without making room for them; -1 when full."""
        slots: NDArray[np.int64] = self._index.upsert(keys)[0]
        self._use(slots)
        return slots

    def restore(
        self,
        keys: NDArray[np.uint8],
        stored: Written,
        which: NDArray[np.int64],
        now_ms: int,
    ) -> int:
        """Make rows of what was written before, as far as room can be made; return how many.

        Of the flows at some positions, each under its key of `keys`. Keys that have a row keep it.
        New ones are not forgotten before `settle`.
        """
        lacking = len(keys) - self.free
        if lacking > 0:
            self._make_room(lacking, self.find_all(keys), now_ms)
        slots, new = self._index.upsert(keys)
        self._use(slots)
        new &= slots >= 0
        made, which = np.asarray(slots[new]), which[new]
        whole = self.rows.view(WHOLE)
        for first in range(0, len(made), IN_CACHE):
            part = slice(first, first + IN_CACHE)
            rows = stored.rows(which[part])
            rows["writtenAt"] = now_ms
            whole[made[part]] = rows.view(WHOLE)
            self._reporters[made[part]] = rows["exporters"].max(axis=1, initial=0)
        self.state[made] = stored.state[which]
        self.due[made] = NEVER
        self.seen[made] = now_ms
        self._restored.append(made)
        self._without_room.append(keys[slots < 0])
        return len(made)

    @property
    def free(self) -> int:
        """How many rows are free."""
        return self._capacity - len(self._index)

    @property
    def room(self) -> int:
        """How many rows are free, or can be made so at once."""
        return self.free + int(np.count_nonzero(is_written(self.state[: self.used])))

    def refuse(self, keys: NDArray[np.uint8]) -> None:
        """Note keys, of the current connections, for which `restore` has no room."""
        self._without_room.append(keys)

    def keep(self, slots: NDArray[np.int64]) -> None:
        """Forget rows not before `settle`, which what is restored belongs to."""
        self._restored.append(slots)

    def without_room(self) -> NDArray[np.uint8]:
        """The keys, of whichever connection of theirs, that `restore` found no room for."""
        return generation(np.concatenate(self._without_room), 0)

    def settle(self) -> None:
        """What was restored has got its records: it is as any other from now on."""
        self._restored = [np.empty(0, dtype=np.int64)]
        self._without_room = [np.empty((0, KEY_SIZE), dtype=np.uint8)]

    def place_one(self, key: NDArray[np.uint8]) -> int:
        """`place_in_free` for one key."""
        return int(self.place_in_free(key.reshape(1, -1))[0])

    def place(
        self, keys: NDArray[np.uint8], exporters: NDArray[np.uint32], now_ms: int
    ) -> NDArray[np.int64]:
        """Find or make the slots of keys, making room; -1 where there is none.

        What is left of a table that one peer fills is for the others.
        """
        if self.free < len(keys) + self._capacity // RESERVED:
            self._judge()
            if len(self._heavy):
                return self._place_fairly(keys, exporters, now_ms)
        slots = self._upsert(keys, exporters)
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            self._make_room(len(missing), slots, now_ms)
            slots[missing] = self._upsert(keys[missing], exporters[missing])
        return slots

    def _upsert(self, keys: NDArray[np.uint8], exporters: NDArray[np.uint32]) -> NDArray[np.int64]:
        slots: NDArray[np.int64]
        slots, new = self._index.upsert(keys)
        self._reporters[slots[new]] = exporters[new]
        self._use(slots)
        return slots

    def _place_fairly(
        self, keys: NDArray[np.uint8], exporters: NDArray[np.uint32], now_ms: int
    ) -> NDArray[np.int64]:
        """Place what others report first; what is left but for the reserve is for who fills it."""
        slots = self.find_all(keys)
        fresh = slots < 0
        numbers = np.unique(exporters)
        theirs = [number for number in numbers.tolist() if self.owner(number) == self._filler]
        heavy = fresh & np.isin(exporters, theirs)
        reserve = self._capacity // RESERVED
        if self.free < int(np.count_nonzero(fresh)) + reserve:
            self._make_room(int(np.count_nonzero(fresh)), slots, now_ms)
        for which, kept in ((fresh & ~heavy, 0), (heavy, reserve)):
            rows = np.flatnonzero(which)[: max(self.free - kept, 0)]
            slots[rows] = self._upsert(keys[rows], exporters[rows])
        return slots

    def have_free(self, wanted: int, needed: NDArray[np.int64], now_ms: int) -> None:
        """Make room beside the rows that are `needed`, as far as that may be."""
        if self.free < wanted:
            self._make_room(wanted - self.free, needed, now_ms)

    def begin(self, now_ms: int) -> None:
        """Note at the first records that of what came before there are no rows."""
        if not self._begun:
            self._begun, self.forgotten_ms = True, now_ms

    def outlive(self, slots: NDArray[np.int64], may_go: NDArray[np.bool_] | None = None) -> int:
        """Forget flows that are written, and until when there were records of them.

        Return how many. A current connection takes those before it along, which are found by way
        of it; it stays where one of these may not go. `may_go` is a mask of all slots in use,
        where not all may that are written.
        """
        slots = self._with_earlier(slots, may_go)
        if len(slots):
            self.note_forgotten(slots, early=may_go is not None)
            self.forget(slots)
        return len(slots)

    def note_forgotten(self, slots: NDArray[np.int64], *, early: bool = False) -> None:
        """Note that of flows that are written only the store knows from now on."""
        self.forgets = True
        seen_ms = int(self.seen[slots].max())
        self.forgotten_ms = max(self.forgotten_ms, seen_ms)
        if early:
            self.evicted_ms = max(self.evicted_ms, seen_ms)
        self.forgot(generation(self.keys(slots), 0))

    def relieve(self, now_ms: int) -> None:
        """Have flows written early that would be in the way of those of the next moment."""
        if self.free >= self._capacity // HEADROOM:
            self._heavy = self._heavy[:0]
            return
        if 0 <= now_ms - self._relieved_at < RELIEVE_MS:
            return
        self._relieved_at = now_ms
        self._judge()
        state = self.state[: self.used]
        unwritten = np.flatnonzero(state & FlowState.UNWRITTEN)
        lacking = self._capacity // HEADROOM - (self._capacity - len(unwritten))
        if lacking > 0:
            self.due[self._longest_idle(unwritten, lacking)] = now_ms

    def oldest(self) -> int:
        """The oldest cycle of which something is to be written; SETTLED without any."""
        unwritten = (self.state[: self.used] & FlowState.UNWRITTEN) != 0
        return int(self.cycle[: self.used].min(initial=SETTLED, where=unwritten))

    def _judge(self) -> None:
        """Find out whose flows are more than half of all."""
        sample = self._reporters[: self.used : max(self.used // SAMPLE, 1)]
        numbers, counts = np.unique(sample, return_counts=True)
        owners: dict[Hashable, list[int]] = {}
        shares: Counter[Hashable] = Counter()
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            if number:
                owner = self.owner(number)
                owners.setdefault(owner, []).append(number)
                shares[owner] += count
        most, share = next(iter(shares.most_common(1)), (None, 0))
        found = owners[most] if 2 * share > len(sample) else []
        self._filler = most
        self._heavy = np.array(found, dtype=np.uint32)

    def _use(self, slots: NDArray[np.int64]) -> None:
        self.used = max(self.used, int(slots.max(initial=-1)) + 1)
        if self.used > self._touched:
            self.due[self._touched : self.used] = NEVER
            self.seen[self._touched : self.used] = NEVER
            self._touched = self.used

    def move(self, source: int, target: int) -> None:
        """Give what is in one slot to the key of another; the first is as if new."""
        self.bytes[target] = self.bytes[source]
        self.state[target] = self.state[source]
        self.due[target] = self.due[source]
        self.seen[target] = self.seen[source]
        self._reporters[target] = self._reporters[source]
        self.cycle[target] = self.cycle[source]
        self.blank(source)

    def forget(self, slots: NDArray[np.int64]) -> None:
        """Free slots and their keys."""
        if not len(slots):
            return
        self._index.remove(slots)
        self._reporters[slots] = 0
        self.blank(slots)

    def trim(self) -> None:
        """Look at no more slots than there are flows in; no record may be on its way into one."""
        if self.used and not self.state[self.used - 1]:
            live = np.flatnonzero(self.state[: self.used])
            self.used = int(live[-1]) + 1 if len(live) else 0

    def forget_empty(self, slots: NDArray[np.int64]) -> None:
        """Free those of the slots, -1 for none, that no record ever came to."""
        slots = np.unique(slots[slots >= 0])
        self.forget(slots[(self.state[slots] & FlowState.LIVE) == 0])

    def keys(self, slots: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the keys of slots that are in use."""
        return np.asarray(self._index.keys(slots))

    def blank(self, slots: NDArray[np.int64] | int) -> None:
        """Make rows as if new; their keys stay."""
        self.bytes[slots] = 0
        self.state[slots] = 0
        self.due[slots] = NEVER
        self.seen[slots] = NEVER

    def _make_room(self, wanted: int, needed: NDArray[np.int64], now_ms: int) -> None:
        """Forget what is idle longest of what is written; have as much of the rest written now.

        Nothing is lost: a flow that comes back brings its own deltas since its last record.
        """
        wanted = max(wanted, self._capacity // EVICTED_AT_ONCE)
        state = self.state[: self.used]
        free = is_written(state)
        needed = needed[needed >= 0]
        before = self._earlier(needed)[1]
        for kept in (needed, before[before >= 0], *self._restored):
            free[kept] = False
        unwritten = np.flatnonzero(state & FlowState.UNWRITTEN)
        gone = self.outlive(self._longest_idle(np.flatnonzero(free), wanted), free)
        self.evicted += gone
        if gone < wanted:
            self.due[self._longest_idle(unwritten, wanted - gone)] = now_ms

    def _earlier(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of some slots that are of current connections and have others before them.

        And the slots of these, a line for each; -1 where there is none.
        """
        slots = slots[(self.state[slots] & FlowState.PREVIOUS) != 0]
        if not len(slots):
            return slots, slots.reshape(0, OLDEST)
        keys = self.keys(slots)
        current = is_current(keys)
        slots, keys = slots[current], earlier(keys[current])
        return slots, self.find_all(keys.reshape(-1, KEY_SIZE)).reshape(len(slots), OLDEST)

    def _with_earlier(
        self, slots: NDArray[np.int64], may_go: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        current, before = self._earlier(slots)
        if not len(current):
            return slots
        free = is_written(self.state[before]) if may_go is None else may_go[before]
        stays = ((before >= 0) & ~free).any(axis=1)
        before = before[~stays]
        return np.union1d(np.setdiff1d(slots, current[stays]), before[before >= 0])

    def _longest_idle(self, slots: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Choose `n` flows, of who fills the table as far as there are any."""
        if len(self._heavy) and n < len(slots):
            heavy = np.isin(self._reporters[slots], self._heavy)
            if n <= np.count_nonzero(heavy):
                slots = slots[heavy]
        if n >= len(slots):
            return slots
        return slots[np.argpartition(self.seen[slots], n)[:n]]


def is_written(state: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which flows have nothing to be written."""
    return np.asarray((state & (FlowState.LIVE | FlowState.UNWRITTEN)) == FlowState.LIVE)


def _nobody_listens(_keys: NDArray[np.uint8]) -> None:
    return
