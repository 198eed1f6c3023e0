"""The compiled IPFIX leaf: messages to columns and back, no Python object a record.

Contract: `flowvis.native.contract.ipfix`; in plain Python: `flowvis.native.reference.ipfix`.
"""

cimport numpy as cnp
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from flowvis.native.strings cimport StringTable

from sys import maxsize

from flowvis.native.contract import ipfix as contract

cnp.import_array()

cdef extern from "endian.h" nogil:
    uint16_t be16toh(uint16_t value)
    uint32_t be32toh(uint32_t value)
    uint64_t be64toh(uint64_t value)
    uint16_t htobe16(uint16_t value)
    uint32_t htobe32(uint32_t value)
    uint64_t htobe64(uint64_t value)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* memcpy of names: most have 8 to 32 bytes, for which a call costs more than the copy. The last
       word overlaps the one before where the length is no multiple. */
    static inline void flowvis_put(uint8_t *to, const uint8_t *from, uint32_t length) {
        if (length < 8) {
            while (length--) to[length] = from[length];
            return;
        }
        for (uint32_t at = 0; at < length - 8; at += 8) memcpy(to + at, from + at, 8);
        memcpy(to + length - 8, from + length - 8, 8);
    }
    """
    void flowvis_put(uint8_t *to, const uint8_t *source, uint32_t length) nogil

cdef enum:
    VERSION = 10
    VARIABLE = 65535
    HEADER_SIZE = 16
    SET_SIZE = 4
    FIRST_DATA_SET = 256
    LONG_TEXT = 255  # the length byte that says that two more follow
    RECENT = 1024  # codes that a session keeps at hand: a node has a hundred Pods or so

cdef uint32_t MAX_DOMAINS = contract.MAX_DOMAINS
cdef uint32_t NTP_EPOCH = contract.NTP_EPOCH
cdef uint32_t SAME_BOOT_MS = contract.SAME_BOOT_MS
cdef set FROM_COLUMN = {int(op) for op in contract.FROM_COLUMN}
cdef set WRITES_NOTHING = {int(op) for op in contract.WRITES_NOTHING}

cdef enum Op:
    # in the order of contract.DecodeOp
    UNSIGNED
    ADDRESS4
    ADDRESS6
    SET_ADDRESS4
    SET_ADDRESS6
    TEXT
    SKIP
    CONSTANT
    MILLISECONDS
    SECONDS
    COPY
    ADD
    SUBTRACT
    NTP
    BEFORE_EXPORT
    EXPORT_TIME
    BOOT
    UPTIME
    # SET_ADDRESS4 and SET_ADDRESS6 with the clearing that goes before them
    CLEARED_ADDRESS4
    CLEARED_ADDRESS6
    # what some become once the width of their column is known
    WHOLE8
    WHOLE16
    WHOLE32
    WHOLE64
    VARIABLE_TEXT
    VARIABLE_SKIP

cdef enum Stop:
    # in the order of contract.Stop
    END
    FULL
    SET
    GAP
    BAD_MESSAGE
    BAD_SET
    BAD_RECORD

cdef set COLUMNWISE = {CONSTANT, MILLISECONDS, SECONDS, COPY, ADD, SUBTRACT}
cdef dict CLEARED = {SET_ADDRESS4: CLEARED_ADDRESS4, SET_ADDRESS6: CLEARED_ADDRESS6}
cdef dict WHOLE = {1: WHOLE8, 2: WHOLE16, 4: WHOLE32, 8: WHOLE64}  # by the bytes of an item
cdef dict UNCLEARED = {cleared: op for op, cleared in CLEARED.items()}
cdef object STOPS = list(contract.Stop)
cdef uint8_t[12] V4_MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
cdef uint8_t[16] NOTHING = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

cdef uint64_t serial = 0  # of the last target


cdef struct Step:
    uint8_t *base      # decoding: the first item of the column
    uint8_t *origin    # of those of FROM_COLUMN: the column that the value comes from
    uint32_t rest      # least bytes that the steps after this one take
    uint32_t argument
    uint32_t code      # TEXT: the code of the record before, likely that of the next
    uint32_t column
    uint8_t op
    uint8_t width      # bytes of an item of the column
    uint8_t origin_width
    uint8_t unbound    # the operation, before it became one for the width of its column


cdef inline uint16_t load16(const uint8_t *at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return be16toh(value)


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return be32toh(value)


cdef inline uint64_t load64(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return be64toh(value)


cdef inline void store16(uint8_t *at, uint16_t value) noexcept nogil:
    value = htobe16(value)
    memcpy(at, &value, 2)


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    value = htobe32(value)
    memcpy(at, &value, 4)


cdef inline void store64(uint8_t *at, uint64_t value) noexcept nogil:
    value = htobe64(value)
    memcpy(at, &value, 8)


cdef inline uint64_t item(const uint8_t *base, int64_t row, uint8_t width) noexcept nogil:
    """An unsigned item of a contiguous column."""
    if width == 8:
        return (<const uint64_t *>base)[row]
    if width == 4:
        return (<const uint32_t *>base)[row]
    if width == 2:
        return (<const uint16_t *>base)[row]
    return base[row]


cdef inline void put(uint8_t *base, int64_t row, uint8_t width, uint64_t value) noexcept nogil:
    if width == 8:
        (<uint64_t *>base)[row] = value
    elif width == 4:
        (<uint32_t *>base)[row] = <uint32_t>value
    elif width == 2:
        (<uint16_t *>base)[row] = <uint16_t>value
    elif width == 1:
        base[row] = <uint8_t>value
    else:
        memset(base + row * width, <int>value, width)


cdef inline uint64_t derived(uint8_t op, uint64_t own, uint64_t other) noexcept nogil:
    """What a step makes of its own column's value and that of another one."""
    if op == MILLISECONDS:
        return other * 1000
    if op == SECONDS:
        return other // 1000
    if op == ADD:
        return own + other
    if op == SUBTRACT:
        return other - own if other > own else 0
    return other


cdef inline void derive(const Step *step, int64_t row) noexcept nogil:
    put(
        step.base, row, step.width,
        derived(step.op, item(step.base, row, step.width), item(step.origin, row, step.origin_width)),
    )


cdef void fill(const Step *step, int64_t first, int64_t last) noexcept nogil:
    """Do a step of COLUMNWISE for some rows."""
    cdef int64_t row
    if step.op != CONSTANT:
        for row in range(first, last):
            derive(step, row)
    elif step.argument == 0:
        memset(step.base + first * step.width, 0, (last - first) * step.width)
    else:
        for row in range(first, last):
            put(step.base, row, step.width, step.argument)


def by_column(list steps):
    """Those of a program's steps to run for each record, and those for many records at once.

    The latter are constants of columns that nothing else fills before the last value was read, and
    what is derived after it: a column at a time they cost next to nothing.
    """
    cdef int64_t head = 0, tail = len(steps)
    while tail and steps[tail - 1][0] in COLUMNWISE:
        tail -= 1
    while head < tail and steps[head][0] == CONSTANT:
        head += 1
    each = [list(step) for step in steps[head:tail]]
    users = {}
    for step in each:
        op, argument, column = step
        for used in ([column] * (op not in WRITES_NOTHING)) + ([argument] * (op in FROM_COLUMN)):
            users.setdefault(used, []).append(step)
    kept, many = [], []
    for step in {step[2]: step for step in steps[:head]}.values():
        using = users.get(step[2], ())
        if not using:
            many.append(step)
        elif step[1] == 0 and len(using) == 1 and using[0][0] in CLEARED:
            using[0][0] = CLEARED[using[0][0]]
        else:
            kept.append(step)
    return kept + each, many + steps[tail:]


cdef inline bint holds(
    StringTable table, uint32_t code, const uint8_t *text, uint32_t length
) noexcept:
    """Whether a code, 0 for none, is that of a text."""
    cdef uint64_t start
    if code == 0:
        return False
    start = table.ends[code - 1]
    return table.ends[code] - start == length and memcmp(table.text + start, text, length) == 0


cdef inline uint32_t slot(const uint8_t *text, uint32_t length) noexcept:
    """A place among recent codes. Names differ at their ends; peers may make them collide."""
    cdef uint64_t word = 0
    if length >= 8:
        memcpy(&word, text + length - 8, 8)
        word ^= length
    else:
        while length:
            length -= 1
            word = word << 8 | text[length]
    return <uint32_t>(word * <uint64_t>0x9E3779B97F4A7C15 >> 54)


cdef class RecordTarget:
    cdef readonly list columns
    cdef readonly StringTable strings
    cdef readonly int64_t capacity
    cdef public int64_t rows
    cdef uint64_t serial

    def __init__(self, columns, StringTable strings not None):
        global serial
        contract.check_target(columns)
        self.columns = list(columns)
        self.strings = strings
        self.rows = 0
        self.capacity = len(columns[0])
        serial += 1
        self.serial = serial


cdef class Program:
    """The steps of one template; bound to a target before they run.

    A peer has as many as it has templates, so nothing is held beside them.
    """

    cdef Step *steps
    cdef uint32_t count  # of those to run for each record
    cdef uint32_t total  # with those after them, to run for many at once
    cdef uint32_t minimum
    cdef bint writes
    cdef uint64_t serial  # of the target that the steps are bound to

    def __cinit__(self, program):
        cdef uint32_t place, rest = 0
        contract.check_program(program)
        each, many = by_column(program.tolist())
        ordered = each + many
        self.count = len(each)
        self.total = len(ordered)
        self.minimum = contract.minimum_length(program)
        self.steps = <Step *>calloc(max(self.total, 1), sizeof(Step))
        if self.steps == NULL:
            raise MemoryError
        for place in reversed(range(self.total)):
            op, argument, column = ordered[place]
            self.steps[place].op = self.steps[place].unbound = op
            self.steps[place].argument = argument
            self.steps[place].column = column
            self.steps[place].rest = rest
            length = contract.field_length(UNCLEARED.get(op, op), argument)
            rest += 1 if length == VARIABLE else length
            self.writes = self.writes or op not in WRITES_NOTHING

    def __dealloc__(self):
        free(self.steps)

    cdef int bind(self, RecordTarget target) except -1:
        """Resolve columns to addresses."""
        cdef uint32_t place
        cdef Step *step
        contract.check_decodable(as_given(self), target.columns)
        for place in range(self.total):
            step = &self.steps[place]
            step.op = step.unbound
            step.code = 0
            if step.op not in WRITES_NOTHING:
                step.base = address(target, step.column, &step.width)
            if step.op in FROM_COLUMN:
                step.origin = address(target, step.argument, &step.origin_width)
            if step.op == UNSIGNED and step.argument == step.width:
                step.op = WHOLE[step.width]
            elif step.op == TEXT and step.argument == VARIABLE:
                step.op = VARIABLE_TEXT
            elif step.op == SKIP and step.argument == VARIABLE:
                step.op = VARIABLE_SKIP
        self.serial = target.serial
        return 0


cdef uint8_t *address(RecordTarget target, uint32_t column, uint8_t *width) except NULL:
    """Where a column starts, and the width of its items."""
    cdef cnp.ndarray array = target.columns[column]
    width[0] = <uint8_t>(cnp.PyArray_NBYTES(array) // target.capacity)
    return <uint8_t *>cnp.PyArray_DATA(array)


cdef class RecordDecoder:
    cdef public int64_t messages, records, ignored, truncated, refused
    cdef public int64_t place, needed, message_start, domain, set_id, set_end, lost
    cdef int64_t max_message, at, message_end
    cdef uint32_t max_text
    cdef uint32_t sequence
    cdef bint in_set, certain
    cdef dict programs, expected
    cdef dict boots  # by domain: when its system began, in ms, as it says
    cdef dict inferred  # the same where it does not say
    cdef readonly uint64_t export_ms
    cdef Program program  # of the last set
    cdef int64_t program_key
    cdef Program unfinished  # whose steps for many records are still to do
    cdef int64_t unfinished_from  # the first of them; all rows since are of this program
    cdef uint32_t[RECENT] recent_codes  # by a cheap hash of the text
    cdef uint64_t serial  # of the target whose strings they are of
    cdef int64_t recent  # the domain of the last message, -1 where its next number is not known
    cdef uint32_t upcoming  # that number: the one in `expected` is stale

    def __init__(self, max_message, max_text):
        self.needed = HEADER_SIZE
        self.max_message = max_message
        self.max_text = max_text
        self.certain = True
        self.programs = {}
        self.expected = {}
        self.boots = {}
        self.inferred = {}
        self.program_key = -1
        self.recent = -1

    def learn(self, int64_t domain, int64_t template_id, program):
        self.programs[domain << 16 | template_id] = Program(program)
        self.program_key = -1

    def forget(self, int64_t domain, int64_t template_id):
        del self.programs[domain << 16 | template_id]
        self.program_key = -1

    def rewind(self):
        done, self.at = self.at, 0
        return done

    @property
    def domains(self):
        return len(self.expected) + len(self.boots) + len(self.inferred)

    def run(self, const uint8_t[::1] data not None, RecordTarget target not None):
        cdef const uint8_t *start = &data[0] if len(data) else NOTHING
        try:
            return STOPS[self.walk(start, len(data), target)]
        finally:
            self.finish(target)

    cdef Stop walk(self, const uint8_t *data, int64_t size, RecordTarget target) except *:
        cdef Stop stop
        if self.message_end > size:
            raise ValueError("run goes on with the data of the last run")
        if self.serial != target.serial:
            memset(self.recent_codes, 0, sizeof(self.recent_codes))
            self.serial = target.serial
        while True:
            if not self.message_end:
                stop = self.enter_message(data, size)
                if stop != FULL:
                    return stop
            while self.at < self.message_end:
                if not self.in_set:
                    stop = self.enter_set(data)
                    if stop != FULL:
                        return stop
                if self.program.serial != target.serial:
                    self.program.bind(target)
                stop = self.read_records(data, target)
                if stop != END:
                    return stop
            self.leave_message()

    cdef Stop enter_message(self, const uint8_t *data, int64_t size) except *:
        """FULL stands for going on."""
        cdef const uint8_t *header = data + self.at
        cdef int64_t left = size - self.at, length
        cdef uint32_t ahead
        self.place = self.message_start = self.at
        self.needed = HEADER_SIZE
        if left < HEADER_SIZE:
            return END
        length = load16(header + 2)
        if load16(header) != VERSION or length < HEADER_SIZE or length > self.max_message:
            return BAD_MESSAGE
        self.needed = length
        if left < length:
            return END
        self.messages += 1
        self.message_end = self.at + length
        self.at += HEADER_SIZE
        self.domain = load32(header + 12)
        self.export_ms = <uint64_t>load32(header + 4) * 1000
        self.certain = True
        self.sequence = load32(header + 8)
        ahead = self.sequence - self.next_number()
        if ahead:
            self.lost = <int64_t>ahead - (<int64_t>1 << 32) if ahead >> 31 else ahead
            return GAP
        return FULL

    cdef uint32_t next_number(self) except? 0:
        """The sequence number that is due in the domain; any where nothing is known of it."""
        if self.recent != self.domain:
            if self.recent >= 0:
                self.expected[self.recent] = self.upcoming
            self.upcoming = self.expected.get(self.domain, self.sequence)
            self.recent = self.domain if self.domain in self.expected else -1
        return self.upcoming if self.recent >= 0 else self.sequence

    cdef int leave_message(self) except -1:
        self.message_end = 0
        if not self.certain:
            self.expected.pop(self.domain, None)
            self.recent = -1
        elif self.recent >= 0:
            self.upcoming = self.sequence
        elif len(self.expected) < MAX_DOMAINS:
            self.expected[self.domain] = self.sequence
            self.recent = self.domain
            self.upcoming = self.sequence
        return 0

    cdef Stop enter_set(self, const uint8_t *data) except *:
        """FULL stands for going on."""
        cdef int64_t left = self.message_end - self.at, length = 0, key
        self.place = self.at
        self.set_id = 0
        if left >= SET_SIZE:
            self.set_id = load16(data + self.at)
            length = load16(data + self.at + 2)
        if length < SET_SIZE or length > left:
            self.certain = False
            self.at = self.message_end
            return BAD_SET
        self.set_end = self.at + length
        key = self.domain << 16 | self.set_id
        if key != self.program_key:
            program = self.programs.get(key)
            if program is None:
                if self.set_id >= FIRST_DATA_SET:
                    self.certain = False
                self.at = self.set_end
                return SET
            self.program = program
            self.program_key = key
        self.at += SET_SIZE
        self.in_set = True
        return FULL

    cdef Stop read_records(self, const uint8_t *data, RecordTarget target) except *:
        cdef Program program = self.program
        cdef int64_t end
        cdef Stop stop = END
        if self.unfinished is not program and program.writes:
            self.finish(target)
            self.unfinished = program
            self.unfinished_from = target.rows
        while self.set_end - self.at >= program.minimum:
            if program.writes and target.rows == target.capacity:
                return FULL
            self.place = self.at
            end = self.read_record(program, data, target)
            if end < 0:
                self.certain = False
                stop = BAD_RECORD
                break
            self.at = end
            self.sequence += 1
            if program.writes:
                target.rows += 1
                self.records += 1
            else:
                self.ignored += 1
        self.at = self.set_end
        self.in_set = False
        return stop

    cdef int finish(self, RecordTarget target) except -1:
        """Do what is done for many records at once."""
        cdef Program program = self.unfinished
        cdef uint32_t place
        if program is not None:
            for place in range(program.count, program.total):
                fill(&program.steps[place], self.unfinished_from, target.rows)
            self.unfinished = None
        return 0

    cdef int64_t read_record(
        self, Program program, const uint8_t *data, RecordTarget target
    ) except -2:
        """Fill the target's next row; where the record ends, or -1 if that is not in its set.

        At every step the bytes that it and the steps after it need at least are there.
        """
        cdef Step *step = program.steps
        cdef Step *last = step + program.count
        cdef StringTable table = target.strings
        cdef const uint8_t *at = data + self.at
        cdef const uint8_t *end = data + self.set_end
        cdef int64_t row = target.rows
        cdef uint32_t length, place
        cdef uint64_t value
        while step < last:
            if step.op == WHOLE64:
                (<uint64_t *>step.base)[row] = load64(at)
                at += 8
            elif step.op == VARIABLE_TEXT or step.op == VARIABLE_SKIP:
                length = at[0]
                at += 1
                if length == LONG_TEXT:
                    if end - at < 2 + <int64_t>step.rest:
                        return -1
                    length = load16(at)
                    at += 2
                if end - at < <int64_t>length + step.rest:
                    return -1
                if step.op == VARIABLE_TEXT:
                    (<uint32_t *>step.base)[row] = self.code(step, table, at, length)
                at += length
            elif step.op == WHOLE32:
                (<uint32_t *>step.base)[row] = load32(at)
                at += 4
            elif step.op == WHOLE16:
                (<uint16_t *>step.base)[row] = load16(at)
                at += 2
            elif step.op == WHOLE8:
                step.base[row] = at[0]
                at += 1
            elif step.op == CONSTANT:
                put(step.base, row, step.width, step.argument)
            elif step.op == ADDRESS4 or step.op == SET_ADDRESS4:
                if step.op == ADDRESS4 or memcmp(at, NOTHING, 4):
                    memcpy(step.base + 16 * row, V4_MAPPED, 12)
                    memcpy(step.base + 16 * row + 12, at, 4)
                at += 4
            elif step.op == ADDRESS6 or step.op == SET_ADDRESS6:
                if step.op == ADDRESS6 or memcmp(at, NOTHING, 16):
                    memcpy(step.base + 16 * row, at, 16)
                at += 16
            elif step.op == CLEARED_ADDRESS4:
                memset(step.base + 16 * row, 0, 16)
                if memcmp(at, NOTHING, 4):
                    memcpy(step.base + 16 * row, V4_MAPPED, 12)
                    memcpy(step.base + 16 * row + 12, at, 4)
                at += 4
            elif step.op == CLEARED_ADDRESS6:
                memcpy(step.base + 16 * row, at, 16)
                at += 16
            elif step.op == UNSIGNED:
                value = 0
                for place in range(step.argument):
                    value = value << 8 | at[place]
                put(step.base, row, step.width, value)
                at += step.argument
            elif step.op == TEXT:
                length = step.argument
                while length and at[length - 1] == 0:
                    length -= 1
                (<uint32_t *>step.base)[row] = self.code(step, table, at, length)
                at += step.argument
            elif step.op == SKIP:
                at += step.argument
            else:
                at += self.rarer(step, at, row)
            step += 1
        return at - data

    cdef int64_t rarer(self, Step *step, const uint8_t *at, int64_t row) except -1:
        """Do a step of what other exporters than ours send; how many bytes it takes."""
        cdef uint64_t value = 0
        cdef int64_t length = 8 if step.op == NTP else 0
        cdef int64_t place
        if step.op == BEFORE_EXPORT or step.op == BOOT:
            length = step.argument
        for place in range(length):
            value = value << 8 | at[place]
        if step.op == BOOT:
            self.note_boot(value)
            return length
        if step.op == NTP:
            value = (
                <uint64_t><uint32_t>((value >> 32) - NTP_EPOCH) * 1000
                + ((value & 0xFFFFFFFF) * 1000 + (<uint64_t>1 << 31) >> 32)
            )
        elif step.op == BEFORE_EXPORT:
            value //= 1000
            value = self.export_ms - value if self.export_ms > value else 0
        elif step.op == EXPORT_TIME:
            value = self.export_ms
        elif step.op == UPTIME:
            value = item(step.base, row, step.width)
            value = self.since_boot(
                value, item(step.origin, row, step.origin_width), step.base != step.origin
            )
        else:
            derive(step, row)
            return 0
        put(step.base, row, step.width, value)
        return length

    cdef int note_boot(self, uint64_t began_ms) except -1:
        if began_ms and (self.domain in self.boots or len(self.boots) < MAX_DOMAINS):
            self.boots[self.domain] = began_ms
        return 0

    cdef uint64_t infer_boot(self, uint64_t boot, bint at_end) except? 0:
        """The beginning that was inferred first, unless this is another one."""
        cdef uint64_t known
        if self.domain not in self.inferred:
            if len(self.inferred) >= MAX_DOMAINS:
                return boot
        else:
            known = self.inferred[self.domain]
            if not at_end or <uint32_t>(boot - known + SAME_BOOT_MS) <= 2 * SAME_BOOT_MS:
                return known
        self.inferred[self.domain] = boot
        return boot

    cdef uint64_t since_boot(
        self, uint64_t uptime_ms, uint64_t at_export_ms, bint at_end
    ) except? 0:
        cdef uint64_t moment, behind
        said = self.boots.get(self.domain)
        if said is None:
            moment = self.infer_boot(self.export_ms - at_export_ms, at_end)
        else:
            moment = said
        moment += uptime_ms
        if moment < self.export_ms and self.export_ms - moment > <uint64_t>1 << 31:
            behind = self.export_ms - moment
            moment += (behind + (<uint64_t>1 << 31) >> 32) << 32
        return moment

    cdef inline uint32_t code(
        self, Step *step, StringTable table, const uint8_t *text, uint32_t length
    ) noexcept:
        cdef uint32_t *recent
        if length == 0:
            return 0
        if not holds(table, step.code, text, length):
            recent = &self.recent_codes[slot(text, length)]
            if not holds(table, recent[0], text, length):
                recent[0] = self.intern(table, text, length)
            step.code = recent[0]
        return step.code

    cdef uint32_t intern(
        self, StringTable table, const uint8_t *text, uint32_t length
    ) noexcept:
        cdef int64_t code
        if length > self.max_text:
            self.truncated += 1
            length = self.max_text
            while length and text[length] & 0xC0 == 0x80:  # do not cut a UTF-8 sequence
                length -= 1
        code = table.intern_raw(text, length)
        if code < 0:
            self.refused += 1
            return 0
        return <uint32_t>code


cdef struct Source:
    const uint8_t *base
    int64_t stride
    uint8_t width
    uint8_t op  # of the step, or what it becomes once the width is known


cdef class RecordEncoder:
    cdef public int64_t oversize
    cdef readonly list oversized
    cdef Program program
    cdef Source *sources
    cdef uint8_t *message
    cdef uint32_t domain, export_time, sequence
    cdef uint16_t template_id

    def __cinit__(self, domain, template_id, program):
        contract.check_encoded(program)
        self.program = Program(program)
        self.domain = domain
        self.oversized = []
        self.template_id = template_id
        self.sources = <Source *>malloc(max(self.program.count, 1) * sizeof(Source))
        self.message = <uint8_t *>malloc(65535 + 8)
        if self.sources == NULL or self.message == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.sources)
        free(self.message)

    def encode(
        self,
        columns,
        StringTable strings not None,
        cnp.ndarray rows not None,
        *,
        export_time,
        sequence,
        max_message,
        max_bytes=maxsize,
    ):
        cdef int64_t place
        contract.check_encodable(as_given(self.program), columns, rows, max_message)
        self.export_time = export_time
        self.sequence = sequence
        for place in range(self.program.count):
            self.open_column(columns[self.program.steps[place].column], place)
        whole = rows.astype("int64", order="C")
        return self.write_messages(strings, whole, max_message, max_bytes)

    cdef int open_column(self, cnp.ndarray column, int64_t place) except -1:
        cdef Source *source = &self.sources[place]
        cdef const Step *step = &self.program.steps[place]
        source.base = <const uint8_t *>cnp.PyArray_DATA(column)
        source.stride = cnp.PyArray_STRIDES(column)[0]
        source.width = <uint8_t>cnp.PyArray_ITEMSIZE(column)
        source.op = step.op
        if step.op == UNSIGNED and step.argument == source.width:
            source.op = WHOLE[source.width]
        elif step.op == TEXT and source.width == 4:
            source.op = VARIABLE_TEXT
        return 0

    cdef tuple write_messages(
        self, StringTable strings, const int64_t[::1] rows, int64_t limit, int64_t most
    ):
        cdef int64_t at = HEADER_SIZE + SET_SIZE, end, place = 0, written = 0, size = 0
        cdef uint32_t held = 0
        messages = []
        self.oversized = []
        while place < rows.shape[0]:
            end = self.write_record(strings, rows[place], at, limit)
            if end >= 0:
                at = end
                held += 1
                place += 1
            elif held:  # no room beside the others: try again in a message of its own
                messages.append(self.finish(at, held))
                written += held
                held = 0
                size += at
                at = HEADER_SIZE + SET_SIZE
                if size >= most:
                    break
            else:
                self.oversize += 1
                self.oversized.append(rows[place])
                place += 1
        if held:
            messages.append(self.finish(at, held))
            written += held
        return messages, written

    cdef bytes finish(self, int64_t size, uint32_t records):
        cdef uint8_t *header = self.message
        store16(header, VERSION)
        store16(header + 2, <uint16_t>size)
        store32(header + 4, self.export_time)
        store32(header + 8, self.sequence)
        store32(header + 12, self.domain)
        store16(header + 16, self.template_id)
        store16(header + 18, <uint16_t>(size - HEADER_SIZE))
        self.sequence += records
        return PyBytes_FromStringAndSize(<const char *>self.message, size)

    cdef int64_t write_record(
        self, StringTable strings, int64_t row, int64_t start, int64_t limit
    ) except -2:
        """Where the record ends in the message, or -1 if it goes over the limit."""
        cdef Step *step = self.program.steps
        cdef Step *last = step + self.program.count
        cdef Source *source = self.sources
        cdef uint8_t *at = self.message + start
        cdef uint8_t *end = self.message + limit
        cdef const uint8_t *value
        cdef uint64_t number, text
        cdef uint32_t length, code
        if limit - start < self.program.minimum:
            return -1
        while step < last:
            value = source.base + row * source.stride
            if source.op == WHOLE64:
                store64(at, (<const uint64_t *>value)[0])
                at += 8
            elif source.op == VARIABLE_TEXT or source.op == TEXT:
                if source.op == VARIABLE_TEXT:
                    code = (<const uint32_t *>value)[0]
                else:
                    code = <uint32_t>item(value, 0, source.width)
                if code == 0:  # empty: there is room for its length byte
                    at[0] = 0
                    at += 1
                    step += 1
                    source += 1
                    continue
                if code >= strings.count:
                    raise IndexError(code)
                text = strings.ends[code - 1]
                length = <uint32_t>(strings.ends[code] - text)
                if end - at < 3 + <int64_t>length + step.rest:
                    if end - at < 1 + <int64_t>length + step.rest or length >= LONG_TEXT:
                        return -1
                if length < LONG_TEXT:
                    at[0] = <uint8_t>length
                    at += 1
                else:
                    at[0] = LONG_TEXT
                    store16(at + 1, <uint16_t>length)
                    at += 3
                flowvis_put(at, strings.text + text, length)
                at += length
            elif source.op == WHOLE32:
                store32(at, (<const uint32_t *>value)[0])
                at += 4
            elif source.op == WHOLE16:
                store16(at, (<const uint16_t *>value)[0])
                at += 2
            elif source.op == WHOLE8:
                at[0] = value[0]
                at += 1
            elif source.op == ADDRESS4:
                memcpy(at, value + 12, 4)
                at += 4
            elif source.op == ADDRESS6:
                memcpy(at, value, 16)
                at += 16
            else:
                number = item(value, 0, source.width)
                number = htobe64(number << 8 * (8 - step.argument))
                memcpy(at, &number, 8)  # what is too much is overwritten by what follows
                at += step.argument
            step += 1
            source += 1
        return at - self.message


cdef list as_given(Program program):
    """The steps as they came, in the order in which they run."""
    cdef const Step *step
    cdef uint32_t place
    given = []
    for place in range(program.total):
        step = &program.steps[place]
        given.append([UNCLEARED.get(step.unbound, step.unbound), step.argument, step.column])
    return given
