"""The compiled merge leaf: records into the rows of live flows.

Contract: `flowvis.native.contract.merge`; in plain Python: `flowvis.native.reference.merge`.
"""

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from itertools import groupby
from operator import attrgetter

import numpy as np

from flowvis.native.contract import merge as contract

cnp.import_array()

cdef extern from *:
    """
    #define flowvis_prefetch_row(address) __builtin_prefetch((address), 1)

    /* Totals stay at the largest number rather than start again from zero. */
    static inline uint64_t flowvis_add(uint64_t a, uint64_t b) {
        uint64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
    }

    static inline uint64_t flowvis_rate(uint64_t octets, uint64_t ms) {
        __uint128_t rate;
        if (octets <= UINT64_MAX / 8000)
            return octets * 8000 / ms;
        rate = (__uint128_t)octets * 8000 / ms;
        return rate > UINT64_MAX ? UINT64_MAX : (uint64_t)rate;
    }
    """
    void flowvis_prefetch_row(const void *address) noexcept nogil
    uint64_t flowvis_add(uint64_t a, uint64_t b) noexcept nogil
    uint64_t flowvis_rate(uint64_t octets, uint64_t ms) noexcept nogil

# The reference's constants once more, since C wants them when it compiles: compared below.
cdef enum:
    START = 0
    END = 16
    WRITTEN_AT = 32
    INTERVAL_START = 40
    EXPORTERS = 48
    WRITTEN_RECORDS = 56

    BOTH = 3
    CLIENT = 4
    CORRELATE = 8
    SERVER = 16
    HALF_LEANS = 5
    AGAIN = 128

    LIVE = 1
    SIDES = 1
    UNWRITTEN = 16
    WRITTEN = 32
    COMPLETE = 64
    PREVIOUS = 128
    ENDS = 8
    ONCE = 1024
    REVERSED = 2048
    SHARED = 4096
    STATE_LEANS = 13
    OVER = 32768

    HELD = 0
    MERGED = 1
    LATE = 2
    REPEATED = 3
    RESTARTED = 4
    UNCHANGED = 5
    FURTHER = 6

    KEY = 0
    EARLIEST = 1
    GREATEST = 2
    REASON = 3
    LATEST = 4
    FILL = 5
    FILL_ADDRESS = 6
    FLOW_TYPE = 7
    SOURCE_KEY = 8
    DESTINATION_KEY = 9

    END_OF_FLOW = 3
    IDLE = 1
    INTER_NODE = 2
    TO_EXTERNAL = 3
    FROM_EXTERNAL = 4

    ROWS_AHEAD = 4  # rows between the beginning of one's loading and its writing
    AHEAD = 3  # records between the beginning of a row's loading and its use
    LINE = 64  # bytes of a cache line

    OVERLAP_MS = 1000
    APART_MS = 10000

cdef int64_t NEVER = contract.NEVER

_CONSTANTS = {
    "Header": {
        "START": START, "END": END, "WRITTEN_AT": WRITTEN_AT, "INTERVAL_START": INTERVAL_START,
        "EXPORTERS": EXPORTERS, "WRITTEN": WRITTEN_RECORDS,
    },
    "Sides": {
        "BOTH": BOTH, "CLIENT": CLIENT, "CORRELATE": CORRELATE, "SERVER": SERVER,
        "LEANS": HALF_LEANS, "AGAIN": AGAIN,
    },
    "FlowState": {
        "LIVE": LIVE, "SIDES": SIDES, "CORRELATE": CORRELATE, "UNWRITTEN": UNWRITTEN,
        "WRITTEN": WRITTEN, "COMPLETE": COMPLETE, "PREVIOUS": PREVIOUS, "ENDS": ENDS,
        "ONCE": ONCE, "REVERSED": REVERSED, "SHARED": SHARED, "LEANS": STATE_LEANS, "OVER": OVER,
    },
    "Count": {
        "HELD": HELD, "MERGED": MERGED, "LATE": LATE, "REPEATED": REPEATED, "RESTARTED": RESTARTED,
        "UNCHANGED": UNCHANGED, "FURTHER": FURTHER,
    },
    "MergeOp": {
        "KEY": KEY, "EARLIEST": EARLIEST, "GREATEST": GREATEST, "REASON": REASON,
        "LATEST": LATEST, "FILL": FILL, "FILL_ADDRESS": FILL_ADDRESS, "FLOW_TYPE": FLOW_TYPE,
        "SOURCE_KEY": SOURCE_KEY, "DESTINATION_KEY": DESTINATION_KEY,
    },
}
for _owner, _names in _CONSTANTS.items():
    for _name, _value in _names.items():
        if getattr(getattr(contract, _owner), _name) != _value:
            raise ImportError(f"{_owner}.{_name} differs from the contract's")
for _name, _value in {
    "END_OF_FLOW": END_OF_FLOW, "IDLE": IDLE, "INTER_NODE": INTER_NODE,
    "TO_EXTERNAL": TO_EXTERNAL, "FROM_EXTERNAL": FROM_EXTERNAL,
    "OVERLAP_MS": OVERLAP_MS, "APART_MS": APART_MS,
}.items():
    if getattr(contract, _name) != _value:
        raise ImportError(f"{_name} differs from the contract's")


cdef struct Step:
    const uint8_t *data  # the column's first value, and how far it is to the next
    int64_t stride
    int32_t offset
    int32_t column


cdef struct Run:
    # Steps that follow each other and do the same with values of one size, for the same sides.
    int32_t op
    int32_t size
    int32_t sides
    int32_t first
    int32_t last


cdef struct Tally:
    int32_t total
    int32_t delta
    int32_t rate
    int32_t last


cdef struct Counter:
    int32_t total
    int32_t delta
    Tally common
    Tally sides[2]


cdef struct Column:
    const uint8_t *data
    int64_t stride
    int64_t width


cdef struct Record:
    int64_t at
    uint64_t start
    uint64_t end
    uint8_t reason
    uint8_t half
    bint adds      # it has deltas without totals, each of which is something new
    bint latest    # its end is not before any that the flow has seen
    uint8_t before  # sides that had reported before it
    uint32_t exporter
    bint reversed
    uint8_t given  # sides that its exporter gives
    uint8_t fresh  # the one of them that another one gave until now
    bint grown     # a counter of the flow has grown by it


cdef class Merger:
    """Merges records into rows, in order, until one may belong to another connection."""

    cdef object program
    cdef object flows
    cdef object records  # those that the columns were found of
    cdef list held       # the columns, which may be copies
    cdef Step *steps
    cdef Run *runs
    cdef Counter *counters
    cdef uint64_t *totals  # of the record at hand, by counter
    cdef uint64_t *deltas
    cdef Column *columns
    cdef int step_count
    cdef int run_count
    cdef int counter_count
    cdef int column_count
    cdef int64_t row_size
    cdef int64_t end, reason, interval, interval_size  # as the program has them
    cdef int64_t later  # the slot whose row is being loaded; -1: none
    cdef uint8_t *rows
    cdef uint64_t[:] state
    cdef int64_t[:] due
    cdef int64_t[:] seen
    cdef int64_t[:] cycle
    cdef int64_t current  # the cycle of the records at hand
    cdef int64_t[::1] counts
    cdef int64_t active_timeout_ms
    cdef int64_t correlation_wait_ms
    cdef int outcome           # `Count` of the record before
    cdef readonly int sides    # see the reference
    cdef readonly bint further

    def __cinit__(
        self, program, flows, counts, int64_t active_timeout_ms, int64_t correlation_wait_ms
    ):
        contract.check_flows(program, flows)
        self.program = program
        self.flows = flows
        self.state = flows.state
        self.due = flows.due
        self.seen = flows.seen
        self.cycle = flows.cycle
        self.counts = counts
        self.active_timeout_ms = active_timeout_ms
        self.correlation_wait_ms = correlation_wait_ms
        self.row_size = program.row_size
        self.end, self.reason, self.interval = program.end, program.reason, program.interval[0]
        self.interval_size = program.interval[1] - program.interval[0]
        self.rows = <uint8_t *>cnp.PyArray_DATA(flows.rows)
        self.step_count = len(program.steps)
        self.counter_count = len(program.counters)
        self.column_count = len(program.widths)
        self.steps = <Step *>calloc(self.step_count + 1, sizeof(Step))
        self.runs = <Run *>calloc(self.step_count + 1, sizeof(Run))
        self.counters = <Counter *>calloc(self.counter_count + 1, sizeof(Counter))
        self.totals = <uint64_t *>calloc(self.counter_count + 1, sizeof(uint64_t))
        self.deltas = <uint64_t *>calloc(self.counter_count + 1, sizeof(uint64_t))
        self.columns = <Column *>calloc(self.column_count + 1, sizeof(Column))
        if not (self.steps and self.runs and self.counters and self.columns):
            raise MemoryError
        if not (self.totals and self.deltas):
            raise MemoryError
        self.load(program)

    def __dealloc__(self):
        free(self.steps)
        free(self.runs)
        free(self.counters)
        free(self.totals)
        free(self.deltas)
        free(self.columns)

    cdef int load(self, program) except -1:
        cdef int at = 0, side
        cdef Run *run
        kind = attrgetter("op", "size", "sides")
        for (op, size, sides), steps in groupby(sorted(program.steps, key=kind), kind):
            run = &self.runs[self.run_count]
            run[0] = Run(op, size, sides, at, at)
            self.run_count += 1
            for step in steps:
                self.steps[at] = Step(NULL, 0, step.offset, step.column)
                at += 1
            run.last = at
        for at, width in enumerate(program.widths):
            self.columns[at].width = width
        for at, counter in enumerate(program.counters):
            self.counters[at].total = counter.total
            self.counters[at].delta = counter.delta
            self.counters[at].common = tally(counter.common)
            for side in range(2):
                self.counters[at].sides[side] = tally(counter.sides[side])
        return 0

    def merge(self, records, int64_t now_ms, int64_t first=0, int64_t resolved=-1):
        """Merge from `first`; return the first record that needs a decision, or their number."""
        if records is not self.records:
            if not self.fit(records):
                contract.check_records(self.program, self.flows, records)
            self.held = self.point_at(records.columns)
            self.records = records
            self.current = records.cycle
        cdef const uint64_t[::1] starts = np.ascontiguousarray(records.starts, dtype=np.uint64)
        cdef const uint64_t[::1] ends = np.ascontiguousarray(records.ends, dtype=np.uint64)
        cdef const uint8_t[::1] reasons = np.ascontiguousarray(records.reasons, dtype=np.uint8)
        cdef const uint8_t[::1] sides_of = np.ascontiguousarray(records.sides, dtype=np.uint8)
        cdef const int64_t[::1] slots = np.ascontiguousarray(records.slots, dtype=np.int64)
        cdef const uint32_t[::1] exporters = np.ascontiguousarray(
            records.exporters, dtype=np.uint32
        )
        cdef const uint8_t[::1] turned = np.ascontiguousarray(records.reversed).view(np.uint8)
        cdef int64_t at, n = slots.shape[0]
        cdef int sides
        cdef Record record
        for at in range(first, n):
            self.later = slots[at + AHEAD] if at + AHEAD < n else -1
            if slots[at] < 0:
                continue
            record.at = at
            record.start = starts[at]
            record.end = ends[at]
            record.reason = reasons[at]
            record.half = sides_of[at]
            record.exporter = exporters[at]
            record.reversed = turned[at]
            sides = self.sides_of(&record, slots[at], at == resolved or record.half & AGAIN)
            if sides < 0:
                self.sides = record.given & ~record.fresh
                self.further = not record.given
                return at
            self.book(&record, self.one(&record, slots[at], <uint8_t>sides, now_ms))
        self.records = self.held = None
        return n

    def write(self, slots, int64_t now_ms):
        """Begin the next interval of flows; return rows, states and what began anew: see there."""
        contract.check_slots(self.flows, slots)
        cdef const int64_t[::1] wanted = np.ascontiguousarray(slots, dtype=np.int64)
        cdef int64_t n = wanted.shape[0], at
        rows_array = np.empty((n, self.row_size), dtype=np.uint8)
        states_array = np.empty(n, dtype=np.uint64)
        cdef uint8_t *copies = <uint8_t *>cnp.PyArray_DATA(rows_array)
        anew_array = np.empty(n, dtype=bool)
        cdef uint64_t[::1] states = states_array
        cdef uint8_t[::1] anew = anew_array.view(np.uint8)
        cdef uint8_t *row
        for at in range(n):
            if at + ROWS_AHEAD < n:
                self.fetch_row(wanted[at + ROWS_AHEAD])
            row = self.rows + wanted[at] * self.row_size
            states[at] = self.state[wanted[at]]
            memcpy(copies + at * self.row_size, row, self.row_size)
            anew[at] = self.began_anew(row)
            memset(row + self.interval, 0, self.interval_size)
            store(row + WRITTEN_AT, <uint64_t>now_ms)
            store(row + INTERVAL_START, number(row + self.end))
            (<uint32_t *>(row + WRITTEN_RECORDS))[0] += 1
            self.state[wanted[at]] = written_state(states[at], row[self.reason])
            self.due[wanted[at]] = NEVER
        return rows_array, states_array, anew_array

    cdef inline bint began_anew(self, const uint8_t *row) noexcept nogil:
        cdef const Tally *tally
        cdef uint64_t differences = 0
        cdef int at, side
        for at in range(self.counter_count):
            for side in range(2):
                tally = &self.counters[at].sides[side]
                differences |= number(row + tally.total) ^ number(row + tally.last)
        return differences != 0

    cdef inline void fetch_row(self, int64_t slot) noexcept nogil:
        cdef int64_t at = 0
        flowvis_prefetch_row(&self.state[slot])
        while at < self.row_size:
            flowvis_prefetch_row(self.rows + slot * self.row_size + at)
            at += LINE

    cdef bint fit(self, records) except -1:
        """Whether `check_records`, which has the words for it, has nothing to say."""
        cdef cnp.ndarray slots = records.slots, column
        cdef int64_t n = len(slots)
        cdef int at
        if len(records.columns) != self.column_count:
            return False
        for at in range(self.column_count):
            column = records.columns[at]
            if cnp.PyArray_NDIM(column) == 0 or cnp.PyArray_DIM(column, 0) != n:
                return False
            if cnp.PyArray_NBYTES(column) != n * self.columns[at].width:
                return False
        for column in (
            records.starts, records.ends, records.reasons, records.sides, records.exporters,
            records.reversed,
        ):
            if len(column) != n:
                return False
        return n == 0 or slots.max() < len(self.flows.rows)

    cdef list point_at(self, columns):
        """Find where the columns' values are; values themselves must be contiguous."""
        cdef int at
        cdef Column *place
        cdef cnp.ndarray column
        held = []
        for at in range(self.column_count):
            column = columns[at]
            if cnp.PyArray_NDIM(column) > 1 and not column[:1].flags.c_contiguous:
                column = np.ascontiguousarray(column)
            held.append(column)
            place = &self.columns[at]
            place.data = <const uint8_t *>cnp.PyArray_DATA(column)
            place.stride = cnp.PyArray_STRIDE(column, 0)
        for at in range(self.step_count):
            self.steps[at].data = self.columns[self.steps[at].column].data
            self.steps[at].stride = self.columns[self.steps[at].column].stride
        return held

    cdef inline void fetch(self, int part) noexcept nogil:
        """Start to load a part of the row that comes later.

        A part only, between other work: of many prefetches in a row most are dropped, and the
        whole then costs twice as much.
        """
        cdef int64_t at = part * LINE
        if self.later < 0:
            return
        if part == 0:
            flowvis_prefetch_row(&self.state[self.later])
        while at < self.row_size:
            flowvis_prefetch_row(self.rows + self.later * self.row_size + at)
            at += self.counter_count * LINE

    cdef int sides_of(self, Record *record, int64_t slot, bint decided) noexcept nogil:
        """The sides that the record gives; -1 if it may be of another connection."""
        cdef const uint8_t *row = self.rows + slot * self.row_size
        cdef uint64_t state = self.state[slot]
        cdef int seen, known, same = 0, side
        record.given = record.half & BOTH
        record.fresh = 0
        if state & LIVE:
            if state & SHARED:
                side = side_of_another(record, row, state)
                if side:
                    record.given = record.fresh = <uint8_t>side
            elif record.given == BOTH:
                record.given = one_of_two(record, row, state)
        seen = state >> SIDES & BOTH & ~<int>record.fresh
        known = record.given & seen
        record.before = <uint8_t>seen
        for side in range(2):
            if known >> side & 1 and same_start(number(row + START + 8 * side), record.start):
                same |= 1 << side
        if not decided:
            if state & LIVE and (state & REVERSED != 0) != record.reversed:
                return -1
            if known and not same:
                return -1
            if not known and state & PREVIOUS:
                return -1
            if not record.given and exceeds(
                record.start, max(number(row + END), number(row + END + 8))
            ):
                return -1
        return record.given & (same | ~seen) or record.given

    cdef inline void book(self, const Record *record, int outcome) noexcept nogil:
        """Count what became of a record; of one that came as two, what became of both."""
        if record.half & AGAIN:
            if not taken(outcome) or taken(self.outcome):
                return
            self.counts[self.outcome] -= 1
        self.counts[outcome] += 1
        self.outcome = outcome

    cdef int one(self, Record *record, int64_t slot, uint8_t sides, int64_t now_ms) except -1 nogil:
        cdef uint8_t *row = self.rows + slot * self.row_size
        cdef uint64_t state = self.state[slot]
        cdef uint8_t news, anew, side
        cdef uint64_t end
        cdef bint late = False
        cdef int at
        self.seen[slot] = now_ms
        record.grown = False
        record.adds = self.read_counters(record.at)
        if not sides:
            self.counts[FURTHER] += 1
            for at in range(self.counter_count):
                self.raise_common(record, row, at)
            return self.schedule(row, slot, state, now_ms) if record.grown else REPEATED
        news = self.news_of(record, row, state & ~<uint64_t>(record.fresh << SIDES), sides, &late)
        if not news:
            return LATE if late else REPEATED
        record.latest = record.end >= number(row + END) and record.end >= number(row + END + 8)
        state = self.share(record, row, state, sides)
        anew = self.anew(record, row, news & state >> SIDES)
        for at in range(self.counter_count):
            self.fetch(at)
            self.count(record, row, state, news, anew, at)
        self.counts[RESTARTED] += anew != 0
        self.apply(record, row, news)
        for side in range(2):
            if news >> side & 1:
                end = record.end
                if not state >> SIDES >> side & 1:
                    store(row + START + 8 * side, record.start)
                else:  # deltas alone may come late
                    end = max(end, number(row + END + 8 * side))
                store(row + END + 8 * side, end)
                if record.reason == END_OF_FLOW:
                    state |= 1 << ENDS << side
        state |= <uint64_t>(news << SIDES)
        if not record.grown and adds_nothing(record, state):
            self.state[slot] = state
            return UNCHANGED
        return self.schedule(row, slot, state, now_ms)

    cdef uint64_t share(
        self, const Record *record, uint8_t *row, uint64_t state, uint8_t sides
    ) noexcept nogil:
        """Note who gives which side of the flow; return its state."""
        cdef int at, side
        cdef const Tally *tally
        cdef uint8_t other
        if not state & LIVE:
            if record.reversed:
                state |= REVERSED
            if sides == BOTH:
                state |= SHARED
        elif record.fresh:
            state &= ~<uint64_t>(record.fresh << SIDES | record.fresh << ENDS | SHARED)
            side = record.fresh - 1
            for at in range(self.counter_count):  # they were the other exporter's
                tally = &self.counters[at].sides[side]
                store(row + tally.total, 0)
                store(row + tally.delta, 0)
                store(row + tally.last, 0)
                if tally.rate >= 0:
                    store(row + tally.rate, 0)
            set_exporter(row, side, record.exporter)
        elif state & SHARED and sides != BOTH:
            # A half in a flow that seemed to have none: the other half is still to come.
            other = BOTH & ~sides
            state &= ~<uint64_t>(other << SIDES | other << ENDS | SHARED)
            set_exporter(row, other - 1, 0)
        if state & SHARED:
            state |= <uint64_t>(record.half >> HALF_LEANS & BOTH) << STATE_LEANS
        for side in range(2):
            if sides >> side & 1 and not exporter_of(row, side):
                set_exporter(row, side, record.exporter)
        if record.half & CORRELATE:
            state |= CORRELATE
        return state

    cdef void raise_common(self, Record *record, uint8_t *row, int at) noexcept nogil:
        """Add what a further exporter saw and the others did not, at most its own delta."""
        cdef const Counter *counter = &self.counters[at]
        cdef uint64_t total = self.totals[at], gain
        cdef uint64_t common = number(row + counter.common.total)
        if total <= common:
            return
        gain = min(total - common, self.deltas[at])
        store(row + counter.common.total, common + gain)
        store(
            row + counter.common.delta, flowvis_add(number(row + counter.common.delta), gain)
        )
        record.grown |= gain > 0

    cdef uint8_t news_of(
        self, const Record *record, const uint8_t *row, uint64_t state, uint8_t sides, bint *late
    ) noexcept nogil:
        """Those of the sides that the record tells anything new about."""
        cdef uint8_t news = 0, side
        cdef uint64_t known
        for side in range(2):
            if not sides >> side & 1:
                continue
            if not state >> SIDES >> side & 1:
                news |= 1 << side
                continue
            known = number(row + END + 8 * side)
            if record.adds:
                news |= 1 << side
            elif record.end < known:
                late[0] = True
            elif record.end > known or self.more(row, side):
                news |= 1 << side
            elif record.reason == END_OF_FLOW and not state >> ENDS >> side & 1:
                news |= 1 << side
        return news

    cdef bint read_counters(self, int64_t record) noexcept nogil:
        """Load a record's totals and deltas; return whether any has a delta and no total."""
        cdef bint adds = False
        cdef int at
        for at in range(self.counter_count):
            self.totals[at] = self.value(self.counters[at].total, record)
            self.deltas[at] = self.value(self.counters[at].delta, record)
            adds |= self.totals[at] == 0 and self.deltas[at] != 0
        return adds

    cdef bint more(self, const uint8_t *row, int side) noexcept nogil:
        """Whether any counter of the record is above what its side said last."""
        cdef int at
        for at in range(self.counter_count):
            if self.totals[at] > number(row + self.counters[at].sides[side].last):
                return True
        return False

    cdef uint8_t anew(self, const Record *record, const uint8_t *row, uint8_t sides) noexcept nogil:
        """Those of the sides whose counters began anew: a kernel zeroes all of them at once."""
        cdef uint8_t anew = 0
        cdef int at, side
        for side in range(2):
            if not sides >> side & 1 or record.end <= number(row + END + 8 * side):
                continue
            for at in range(self.counter_count):
                if 0 < self.totals[at] < number(row + self.counters[at].sides[side].last):
                    anew |= 1 << side
        return anew

    cdef inline const uint8_t *at_column(self, int column, int64_t record) noexcept nogil:
        return self.columns[column].data + self.columns[column].stride * record

    cdef inline uint64_t value(self, int column, int64_t record) noexcept nogil:
        return number(self.at_column(column, record))

    cdef void count(
        self,
        Record *record,
        uint8_t *row,
        uint64_t state,
        uint8_t news,
        uint8_t anew,
        int at,
    ) noexcept nogil:
        """Bring one counter up to date."""
        cdef const Counter *counter = &self.counters[at]
        cdef uint64_t given = self.totals[at], total
        cdef uint64_t own = self.deltas[at]
        cdef uint64_t before = number(row + counter.common.total), common = before
        cdef uint64_t since, last, gain, moved, side_total, rate = 0, delta, reported
        cdef bint rated = False, whole
        cdef int side
        cdef const Tally *tally
        if given:
            own = min(own, given)
        whole = (
            record.reason == END_OF_FLOW
            and (own == given or not given)
            and not record.before & news
            and not record.before & ~(state >> ENDS)
        )
        for side in range(2):
            if not news >> side & 1:
                continue
            total = given if given else own
            tally = &counter.sides[side]
            since = number(row + END + 8 * side)
            side_total = number(row + tally.total)
            if state >> SIDES >> side & 1:
                last = number(row + tally.last)
                if anew >> side & 1:
                    last = 0
                elif given == 0:
                    total = flowvis_add(last, own)
                else:
                    total = max(total, last)
                gain = moved = total - last
                store(row + tally.last, total)
                side_total = flowvis_add(side_total, gain)
            else:
                # Where an interval began that is not the first one, nobody has reported.
                since = record.end if 0 < own < total else record.start
                gain = own
                moved = total
                side_total = max(side_total, total)
                store(row + tally.last, total)
            store(row + tally.total, side_total)
            store(row + tally.delta, flowvis_add(number(row + tally.delta), gain))
            common = max(common, side_total)
            record.grown |= gain > 0
            if record.end > since and (tally.rate >= 0 or counter.common.rate >= 0):
                rate = flowvis_rate(moved, record.end - since)
                rated = True
                if tally.rate >= 0:
                    store(row + tally.rate, rate)
        if rated and counter.common.rate >= 0:
            if whole:
                store(row + counter.common.rate, max(rate, number(row + counter.common.rate)))
            elif record.latest:
                store(row + counter.common.rate, rate)
        delta = number(row + counter.common.delta)
        if not record.before:
            delta = own
        elif news & ~(state >> SIDES) and not state & WRITTEN:
            reported = max(before - min(delta, before), given - own if given else 0)
            delta = common - min(reported, common)
        else:
            delta = flowvis_add(delta, common - before)
        store(row + counter.common.delta, delta)
        store(row + counter.common.total, common)
        record.grown |= common > before

    cdef void apply(self, const Record *record, uint8_t *row, uint8_t news) noexcept nogil:
        cdef const Run *run
        cdef int at
        for at in range(self.run_count):
            run = &self.runs[at]
            if not run.sides & news:
                continue
            if record.before:
                if run.op == KEY:
                    continue
                if run.op == SOURCE_KEY and not record.half & CLIENT:
                    continue
                if run.op == DESTINATION_KEY and not record.half & SERVER:
                    continue
            if (run.op == LATEST or run.op == REASON) and not record.latest:
                continue
            self.apply_run(run, record.at, row)

    cdef inline void apply_run(self, const Run *run, int64_t record, uint8_t *row) noexcept nogil:
        """Do the steps of one run: with a size that the compiler knows each is a few moves."""
        cdef const Step *first = self.steps + run.first
        cdef const Step *last = self.steps + run.last
        if run.op == FILL and run.size == 4:  # texts, the most by far
            apply_steps(first, last, FILL, 4, record, row)
        elif run.size == 4:
            apply_steps(first, last, run.op, 4, record, row)
        elif run.size == 1:
            apply_steps(first, last, run.op, 1, record, row)
        elif run.size == 2:
            apply_steps(first, last, run.op, 2, record, row)
        elif run.size == 8:
            apply_steps(first, last, run.op, 8, record, row)
        else:
            apply_steps(first, last, run.op, 16, record, row)

    cdef int schedule(
        self, const uint8_t *row, int64_t slot, uint64_t state, int64_t now_ms
    ) noexcept nogil:
        """Say when the flow is to be written, now that it has something; return HELD or MERGED."""
        cdef bint complete = not state & CORRELATE or (state >> SIDES & BOTH) == BOTH
        cdef bint ended = (state >> ENDS & BOTH) == BOTH
        cdef int64_t due
        if state & ONCE or (complete and (ended or not state & COMPLETE)):
            due = now_ms
        elif state & WRITTEN:
            due = <int64_t>number(row + WRITTEN_AT) + self.active_timeout_ms
        else:
            due = now_ms + self.correlation_wait_ms
        self.due[slot] = min(self.due[slot], due)
        if not state & UNWRITTEN:
            self.cycle[slot] = self.current
        self.state[slot] = state | LIVE | UNWRITTEN
        return MERGED if state & UNWRITTEN else HELD


cdef inline uint64_t written_state(uint64_t state, uint8_t reason) noexcept nogil:
    """The state of a flow once it is written."""
    cdef bint alone = not state & SHARED and (state >> SIDES & BOTH) != BOTH
    state &= ~<uint64_t>(UNWRITTEN | OVER)
    state |= WRITTEN
    if not alone:
        state |= COMPLETE
    if reason == END_OF_FLOW or reason == IDLE:
        state |= OVER
    return state


cdef Tally tally(found):
    return Tally(found.total, found.delta, found.rate, found.last)


cdef inline bint taken(int outcome) noexcept nogil:
    return outcome == HELD or outcome == MERGED


cdef inline bint adds_nothing(const Record *record, uint64_t state) noexcept nogil:
    """Whether what was written says all of a record that has not grown the flow."""
    cdef bint complete = not state & CORRELATE or (state >> SIDES & BOTH) == BOTH
    if state & UNWRITTEN or not state & WRITTEN or (complete and not state & COMPLETE):
        return False
    return state & OVER or not (record.reason == END_OF_FLOW or record.reason == IDLE)


cdef inline int side_of_another(const Record *record, const uint8_t *row, uint64_t state) noexcept nogil:
    """The side that the record's exporter gets from the one that has both; 0: it is that one."""
    cdef uint8_t mask = record.half & BOTH
    cdef uint32_t first = exporter_of(row, 0)
    cdef int leaning = state >> STATE_LEANS & BOTH, lean = record.half >> HALF_LEANS & BOTH
    cdef bint known = first and record.exporter, another
    if mask != BOTH:  # the other half of what leans the other way, or of another node
        another = leaning != mask and (first != record.exporter if known else leaning != 0)
        return mask if another else 0
    if known:
        another = first != record.exporter or overlaps(record, row, state, 0)
    else:
        another = lean and leaning and lean != leaning
    if not another:
        return 0
    if leaning:
        return leaning ^ BOTH
    return lean if lean else 2


cdef inline uint8_t one_of_two(const Record *record, const uint8_t *row, uint64_t state) noexcept nogil:
    """The sides that the exporter of a whole record gives where two exporters have one each."""
    cdef int lean = record.half >> HALF_LEANS & BOTH, own = 0, known = 0, side
    if not record.exporter:
        return <uint8_t>lean if lean else BOTH
    for side in range(2):
        if exporter_of(row, side) == record.exporter:
            own |= 1 << side
        if same_start(number(row + START + 8 * side), record.start):
            known |= 1 << side
    if own == BOTH:  # two hosts that nothing but the start tells apart
        if known == 1 or known == 2:
            return <uint8_t>known
        return 0 if overlaps(record, row, state, 0) or overlaps(record, row, state, 1) else BOTH
    if own:
        return <uint8_t>own
    return <uint8_t>lean if lean and not exporter_of(row, lean - 1) else 0


cdef inline bint overlaps(
    const Record *record, const uint8_t *row, uint64_t state, int side
) noexcept nogil:
    """Whether the record's connection cannot be another one of the kernel that has a side's."""
    cdef uint64_t start = number(row + START + 8 * side), end = number(row + END + 8 * side)
    cdef uint64_t apart = start - record.start if start > record.start else record.start - start
    if state >> ENDS >> side & 1 or record.reason == END_OF_FLOW:
        return False
    if same_start(start, record.start) or apart > APART_MS:
        return False
    return exceeds(min(end, record.end), max(start, record.start))


cdef inline bint exceeds(uint64_t later, uint64_t earlier) noexcept nogil:
    return later > earlier and later - earlier > OVERLAP_MS


cdef inline uint32_t exporter_of(const uint8_t *row, int side) noexcept nogil:
    cdef uint32_t exporter
    memcpy(&exporter, row + EXPORTERS + 4 * side, 4)
    return exporter


cdef inline void set_exporter(uint8_t *row, int side, uint32_t exporter) noexcept nogil:
    memcpy(row + EXPORTERS + 4 * side, &exporter, 4)


cdef inline uint64_t number(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline void store(uint8_t *at, uint64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef inline uint64_t sized(const uint8_t *at, int size) noexcept nogil:
    """A number of 1, 2, 4 or 8 bytes."""
    cdef uint32_t word
    cdef uint16_t half
    if size == 4:
        memcpy(&word, at, 4)
        return word
    if size == 8:
        return number(at)
    if size == 2:
        memcpy(&half, at, 2)
        return half
    return at[0]


cdef inline bint differ(const uint8_t *new, const uint8_t *old, int size) noexcept nogil:
    if size == 16:
        return number(new) != number(old) or number(new + 8) != number(old + 8)
    return sized(new, size) != sized(old, size)


cdef inline bint takes(int op, int size, const uint8_t *new, const uint8_t *old) noexcept nogil:
    """Whether a value replaces the row's, for a record that the operation listens to."""
    if op == FILL or op == LATEST:
        return sized(new, size) != 0
    if op == GREATEST:
        return sized(new, size) > sized(old, size)
    if op == EARLIEST:
        return sized(new, size) and (
            not sized(old, size) or sized(new, size) < sized(old, size)
        )
    if op == FILL_ADDRESS:
        return is_set(new)
    if op == REASON:
        return old[0] != END_OF_FLOW
    if op == FLOW_TYPE:
        if old[0] == INTER_NODE and new[0] == TO_EXTERNAL:
            return False
        return new[0] and old[0] != FROM_EXTERNAL
    return True


cdef inline void apply_steps(
    const Step *step, const Step *last, int op, int size, int64_t record, uint8_t *row
) noexcept nogil:
    """Have values of the row replaced by those of a record.

    What a flow's records say is mostly what they said before: not writing it again keeps those
    cache lines clean.
    """
    cdef const uint8_t *new
    cdef uint8_t *old
    while step < last:
        new = step.data + step.stride * record
        old = row + step.offset
        if differ(new, old, size) and takes(op, size, new, old):
            copy(old, new, size)
        step += 1


cdef inline void copy(uint8_t *target, const uint8_t *source, int size) noexcept nogil:
    """memcpy of a size that the compiler knows, which is one or two moves."""
    if size == 4:
        memcpy(target, source, 4)
    elif size == 8:
        memcpy(target, source, 8)
    elif size == 16:
        memcpy(target, source, 16)
    elif size == 2:
        memcpy(target, source, 2)
    else:
        target[0] = source[0]


cdef inline bint is_set(const uint8_t *address) noexcept nogil:
    """Whether 16 bytes are neither :: nor ::ffff:0.0.0.0."""
    cdef uint32_t tail, marker
    cdef uint16_t lead
    memcpy(&tail, address + 12, 4)
    memcpy(&marker, address + 8, 4)
    memcpy(&lead, address + 8, 2)
    if tail or number(address) or lead:
        return True
    return marker != 0 and not (address[10] == 0xFF and address[11] == 0xFF)


cdef inline bint same_start(uint64_t known, uint64_t start) noexcept nogil:
    cdef uint64_t apart = known - start if known > start else start - known
    if apart == 0 or not known or not start:
        return True
    return apart < 1000 and (known % 1000 == 0 or start % 1000 == 0)
