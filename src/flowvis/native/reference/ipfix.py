"""The IPFIX leaf in plain Python: messages to columns and back."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.native.contract.ipfix import (
    FIRST_DATA_SET,
    FROM_COLUMN,
    HEADER,
    MAX_DOMAINS,
    NO_BYTES,
    NTP_EPOCH,
    SAME_BOOT_MS,
    SET,
    UPTIME_BITS,
    VARIABLE,
    VERSION,
    WRITES_NOTHING,
    Buffer,
    DecodeOp,
    Program,
    Stop,
    _rests,
    _Steps,
    check_decodable,
    check_encodable,
    check_encoded,
    check_program,
    check_target,
    field_length,
    minimum_length,
)
from flowvis.strings import Strings


class RecordTarget:
    """Where decoded records go: contiguous arrays of one length, and the table of their text.

    Integer columns are unsigned of 1, 2, 4 or 8 bytes, address columns `(n, 16)` uint8; `rows`
    counts what is filled.
    """

    def __init__(self, columns: Sequence[NDArray[Any]], strings: Strings) -> None:
        check_target(columns)
        self.columns = list(columns)
        self.strings = strings
        self.rows = 0
        self.capacity = len(columns[0])


_U64 = (1 << 64) - 1


def _put(target: RecordTarget, column: int, value: int) -> None:
    """Write a number into the next row, cut to the width of its column."""
    items = target.columns[column]
    items[target.rows] = value & ((1 << 8 * items.dtype.itemsize) - 1)


class RecordDecoder:
    """Walks the messages of one session; knows its templates and its sequence numbers.

    `run` goes on where the last run stopped; after `Stop.END`, `rewind` tells how much of the data
    is done with, and the next run starts at the front of new data.
    """

    def __init__(self, max_message: int, max_text: int) -> None:
        self.messages = 0
        self.records = 0  # written to a target
        self.ignored = 0  # of templates that have nothing for the target, options among them
        self.truncated = 0  # texts longer than max_text
        self.refused = 0  # texts that the string table had no room for
        self.place = 0
        self.needed = HEADER.size
        self.message_start = 0
        self.domain = 0
        self.set_id = 0
        self.set_end = 0
        self.lost = 0
        self._max_message = max_message
        self._max_text = max_text
        self._programs: dict[tuple[int, int], tuple[_Steps, int, bool]] = {}
        self._bound: tuple[RecordTarget | None, set[tuple[int, int]]] = (None, set())
        self._expected: dict[int, int] = {}  # by domain: the next sequence number
        self._boots: dict[int, int] = {}  # by domain: when its system began, in ms, as it says
        self._inferred: dict[int, int] = {}  # the same where it does not say
        self.export_ms = 0
        self._at = 0
        self._message_end = 0  # 0: between messages
        self._in_set = False
        self._sequence = 0
        self._certain = True  # whether all records of the message could be counted

    def learn(self, domain: int, template_id: int, program: Program) -> None:
        """Take a template's program; ValueError if its records could be empty."""
        check_program(program)
        writes = not set(program[:, 0].tolist()) <= WRITES_NOTHING
        self._programs[domain, template_id] = (
            list(zip(program.tolist(), _rests(program), strict=True)),
            minimum_length(program),
            writes,
        )
        self._bound = (None, set())

    @property
    def domains(self) -> int:
        """How much is remembered of observation domains: up to three things of each."""
        return len(self._expected) + len(self._boots) + len(self._inferred)

    def forget(self, domain: int, template_id: int) -> None:
        """Drop a template; KeyError if it is not known."""
        del self._programs[domain, template_id]
        self._bound = (None, set())

    def rewind(self) -> int:
        """Return how many bytes are done with."""
        done, self._at = self._at, 0
        return done

    def run(self, data: Buffer, target: RecordTarget) -> Stop:
        """Decode until there is something for the caller to do.

        IndexError or ValueError where a program does not suit the target's columns.
        """
        if self._bound[0] is not target:
            self._bound = (target, set())
        while True:
            stop = None if self._message_end else self._enter_message(data)
            while stop is None and self._at < self._message_end:
                stop = None if self._in_set else self._enter_set(data)
                if stop is None:
                    stop = self._read_records(data, target)
            if stop is not None:
                return stop
            self._leave_message()

    def _enter_message(self, data: Buffer) -> Stop | None:
        self.place = self.message_start = self._at
        self.needed = HEADER.size
        left = len(data) - self._at
        if left < HEADER.size:
            return Stop.END
        version, length, exported, sequence, domain = HEADER.unpack_from(data, self._at)
        if version != VERSION or not HEADER.size <= length <= self._max_message:
            return Stop.BAD_MESSAGE
        self.needed = length
        if left < length:
            return Stop.END
        self.messages += 1
        self._message_end = self._at + length
        self._at += HEADER.size
        self.domain = domain
        self.export_ms = exported * 1000
        self._certain = True
        self._sequence = sequence
        ahead = (sequence - self._expected.get(domain, sequence)) & 0xFFFFFFFF
        if ahead:
            self.lost = ahead - (1 << 32) if ahead >> 31 else ahead
            return Stop.GAP
        return None

    def _leave_message(self) -> None:
        self._message_end = 0
        if not self._certain:
            self._expected.pop(self.domain, None)
        elif self.domain in self._expected or len(self._expected) < MAX_DOMAINS:
            self._expected[self.domain] = self._sequence & 0xFFFFFFFF

    def _enter_set(self, data: Buffer) -> Stop | None:
        self.place = self._at
        left = self._message_end - self._at
        self.set_id, length = SET.unpack_from(data, self._at) if left >= SET.size else (0, 0)
        if not SET.size <= length <= left:
            self._certain = False
            self._at = self._message_end
            return Stop.BAD_SET
        self.set_end = self._at + length
        if (self.domain, self.set_id) not in self._programs:
            if self.set_id >= FIRST_DATA_SET:
                self._certain = False
            self._at = self.set_end
            return Stop.SET
        self._at += SET.size
        self._in_set = True
        return None

    def _read_records(self, data: Buffer, target: RecordTarget) -> Stop | None:
        key = (self.domain, self.set_id)
        program, minimum, writes = self._programs[key]
        if key not in self._bound[1]:
            check_decodable([step for step, _ in program], target.columns)
            self._bound[1].add(key)
        while self.set_end - self._at >= minimum:
            if writes and target.rows == target.capacity:
                return Stop.FULL
            self.place = self._at
            if not self._read_record(data, program, target):
                self._certain = False
                self._at = self.set_end
                self._in_set = False
                return Stop.BAD_RECORD
            self._sequence += 1
            if writes:
                target.rows += 1
                self.records += 1
            else:
                self.ignored += 1
        self._at = self.set_end  # what is left is padding
        self._in_set = False
        return None

    def _read_record(self, data: Buffer, program: _Steps, target: RecordTarget) -> bool:
        """Fill the target's next row; False if the record does not end in its set."""
        at, row = self._at, target.rows
        for (op, argument, column), rest in program:
            if op in NO_BYTES:
                self._derive(op, argument, target, column)
                continue
            length, at = self._extent(data, at, op, argument)
            if at + length + rest > self.set_end:
                return False
            value = bytes(data[at : at + length])
            at += length
            if op == DecodeOp.TEXT:
                target.columns[column][row] = self._code(value, target.strings, argument)
            elif op in {DecodeOp.UNSIGNED, DecodeOp.NTP, DecodeOp.BEFORE_EXPORT}:
                _put(target, column, self._number(op, int.from_bytes(value)))
            elif op == DecodeOp.BOOT:
                self._note_boot(int.from_bytes(value))
            elif op in {DecodeOp.ADDRESS4, DecodeOp.ADDRESS6} or (
                op != DecodeOp.SKIP and any(value)
            ):
                address = value if length == 16 else V4_MAPPED + value
                target.columns[column][row] = np.frombuffer(address, np.uint8)
        self._at = at
        return True

    def _number(self, op: int, value: int) -> int:
        """What is written of an integer."""
        if op == DecodeOp.NTP:
            seconds = ((value >> 32) - NTP_EPOCH) & 0xFFFFFFFF
            return seconds * 1000 + ((value & 0xFFFFFFFF) * 1000 + (1 << 31) >> 32)
        if op == DecodeOp.BEFORE_EXPORT:
            return max(self.export_ms - value // 1000, 0)
        return value

    def _note_boot(self, began_ms: int) -> None:
        if began_ms and (self.domain in self._boots or len(self._boots) < MAX_DOMAINS):
            self._boots[self.domain] = began_ms

    def _derive(self, op: int, argument: int, target: RecordTarget, column: int) -> None:
        """Do a step that takes no bytes."""
        row = target.rows
        if op == DecodeOp.CONSTANT:
            target.columns[column][row] = argument
            return
        own = int(target.columns[column][row])
        other = int(target.columns[argument][row]) if op in FROM_COLUMN else 0
        match op:
            case DecodeOp.MILLISECONDS:
                value = other * 1000
            case DecodeOp.SECONDS:
                value = other // 1000
            case DecodeOp.COPY:
                value = other
            case DecodeOp.ADD:
                value = own + other
            case DecodeOp.SUBTRACT:
                value = max(other - own, 0)
            case DecodeOp.EXPORT_TIME:
                value = self.export_ms
            case _:
                value = self._since_boot(own, other, at_end=argument != column)
        _put(target, column, value)

    def _since_boot(self, uptime_ms: int, at_export_ms: int, *, at_end: bool) -> int:
        boot = self._boots.get(self.domain)
        if boot is None:
            boot = self._infer_boot((self.export_ms - at_export_ms) & _U64, at_end=at_end)
        moment = (boot + uptime_ms) & _U64
        behind = self.export_ms - moment
        if behind > 1 << UPTIME_BITS - 1:
            moment += (behind + (1 << UPTIME_BITS - 1) >> UPTIME_BITS) << UPTIME_BITS
        return moment

    def _infer_boot(self, boot: int, *, at_end: bool) -> int:
        """The beginning that was inferred first, unless this is another one."""
        known = self._inferred.get(self.domain)
        if known is None:
            if len(self._inferred) >= MAX_DOMAINS:
                return boot
        elif not at_end or (boot - known + SAME_BOOT_MS) % (1 << UPTIME_BITS) <= 2 * SAME_BOOT_MS:
            return known
        self._inferred[self.domain] = boot
        return boot

    def _extent(self, data: Buffer, at: int, op: int, argument: int) -> tuple[int, int]:
        """How long the value at or after `at` is and where it starts (RFC 7011 section 7)."""
        length = field_length(op, argument)
        if length != VARIABLE:
            return length, at
        if at >= self.set_end or (data[at] == 255 and at + 3 > self.set_end):
            return VARIABLE, at  # longer than any set
        if data[at] < 255:
            return data[at], at + 1
        return int.from_bytes(data[at + 1 : at + 3]), at + 3

    def _code(self, value: bytes, strings: Strings, argument: int) -> int:
        if argument != VARIABLE:
            value = value.rstrip(b"\0")
        if len(value) > self._max_text:
            self.truncated += 1
            end = self._max_text
            while end and value[end] & 0xC0 == 0x80:  # do not cut a UTF-8 sequence
                end -= 1
            value = value[:end]
        refused = strings.refused
        code = strings.intern(value)
        self.refused += strings.refused - refused
        return code


class RecordEncoder:
    """Writes rows of columns as data sets of one template, one set in a message."""

    def __init__(self, domain: int, template_id: int, program: Program) -> None:
        check_encoded(program)
        self.oversize = 0  # records that do not fit into a message of their own
        self.oversized: list[int] = []  # the rows of those of the last call
        self._domain = domain
        self._template_id = template_id
        self._program = program.tolist()

    def encode(
        self,
        columns: Sequence[NDArray[Any]],
        strings: Strings,
        rows: NDArray[np.int64],
        *,
        export_time: int,
        sequence: int,
        max_message: int,
        max_bytes: int = sys.maxsize,
    ) -> tuple[list[bytes], int]:
        """Return messages with these rows, and how many records are in them.

        The last message is the one with which they have `max_bytes`: the first rows are in them, or
        `oversized`.

        Columns may be strided; those of addresses must have their 16 bytes side by side.
        """
        check_encodable(self._program, columns, rows, max_message)
        self.oversized = []
        messages: list[bytes] = []
        body: list[bytes] = []
        room = max_message - HEADER.size - SET.size
        size = written = 0

        def flush() -> None:
            nonlocal size, written
            if body:
                start = sequence + written & 0xFFFFFFFF
                length = HEADER.size + SET.size + size
                header = HEADER.pack(VERSION, length, export_time, start, self._domain)
                set_header = SET.pack(self._template_id, SET.size + size)
                messages.append(header + set_header + b"".join(body))
                written += len(body)
                body.clear()
                size = 0

        for row in rows.tolist():
            record = self._write_record(columns, strings, row)
            if size + len(record) > room:
                flush()
                if sum(map(len, messages)) >= max_bytes:
                    break
            if len(record) > room:
                self.oversize += 1
                self.oversized.append(row)
                continue
            body.append(record)
            size += len(record)
        flush()
        return messages, written

    def _write_record(self, columns: Sequence[NDArray[Any]], strings: Strings, row: int) -> bytes:
        parts = []
        for op, argument, column in self._program:
            value = columns[column][row]
            match op:
                case DecodeOp.UNSIGNED:
                    parts.append(int(value).to_bytes(8)[8 - argument :])
                case DecodeOp.ADDRESS4:
                    parts.append(value.tobytes()[12:])
                case DecodeOp.ADDRESS6:
                    parts.append(value.tobytes())
                case _:
                    text = strings.value(int(value))
                    long = b"\xff" + len(text).to_bytes(2)
                    parts += [bytes([len(text)]) if len(text) < 255 else long, text]
        return b"".join(parts)
