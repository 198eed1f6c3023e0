"""The IPFIX leaf in plain Python: messages to columns and back. Contract, oracle, uncompiled form.

What a template says is compiled once into a program, an `(n, 3)` uint32 array of steps
`(Op, argument, column)`; decoding and encoding a record is running the program. Wire format:
RFC 7011 section 3.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED
from flowvis.errors import LimitExceeded
from flowvis.strings import Strings

VERSION = 10
VARIABLE = 65535  # as a field length: each value brings its own
HEADER = Struct(">HHIII")  # version, length, export time, sequence number, observation domain
SET = Struct(">HH")  # id, length
FIRST_DATA_SET = 256  # ids below are template sets or reserved
MAX_DOMAINS = 256  # a peer that names more loses its gap detection, not our memory

Program = NDArray[np.uint32]
Buffer = bytes | bytearray | memoryview
_Steps = list[tuple[list[int], int]]  # each with the least bytes that those after it take


class DecodeOp(IntEnum):
    """What a step does with the next bytes of a record; its argument in brackets."""

    UNSIGNED = 0  # big-endian integer of [1 to 8] bytes, no more than the column's items have
    ADDRESS4 = 1  # 4 bytes, to an IPv4-mapped address
    ADDRESS6 = 2  # 16 bytes
    SET_ADDRESS4 = 3  # as ADDRESS4, but 0.0.0.0 writes nothing
    SET_ADDRESS6 = 4  # as ADDRESS6, but :: writes nothing
    TEXT = 5  # [length or VARIABLE] bytes, to a code of the string table
    SKIP = 6  # [length or VARIABLE] bytes, for nobody
    CONSTANT = 7  # no bytes; writes [value], an address column is filled with it
    MILLISECONDS = 8  # no bytes; 1000 times the value in column [argument]
    SECONDS = 9  # no bytes; a thousandth of the value in column [argument]


ENCODABLE = frozenset({DecodeOp.UNSIGNED, DecodeOp.ADDRESS4, DecodeOp.ADDRESS6, DecodeOp.TEXT})


class Stop(IntEnum):
    """Why a decoder came back, and what its `place` is then."""

    END = 0  # no complete message is left; `needed` bytes from there would be one
    FULL = 1  # the target is full: run again with a larger one
    SET = 2  # a set that is not data of a known template: from `place` to `set_end`
    GAP = 3  # the sequence number is off by `lost` records (negative: it went back)
    BAD_MESSAGE = 4  # not version 10, shorter than its header, or longer than max_message
    BAD_SET = 5  # the length of the set there is impossible; the message's rest is skipped
    BAD_RECORD = 6  # the record there ends outside its set; the set's rest is skipped


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
        self._at = 0
        self._message_end = 0  # 0: between messages
        self._in_set = False
        self._sequence = 0
        self._certain = True  # whether all records of the message could be counted

    def learn(self, domain: int, template_id: int, program: Program) -> None:
        """Take a template's program; ValueError if its records could be empty."""
        check_program(program)
        writes = bool((program[:, 0] != DecodeOp.SKIP).any())
        self._programs[domain, template_id] = (
            list(zip(program.tolist(), _rests(program), strict=True)),
            minimum_length(program),
            writes,
        )
        self._bound = (None, set())

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
        version, length, _, sequence, domain = HEADER.unpack_from(data, self._at)
        if version != VERSION or not HEADER.size <= length <= self._max_message:
            return Stop.BAD_MESSAGE
        self.needed = length
        if left < length:
            return Stop.END
        self.messages += 1
        self._message_end = self._at + length
        self._at += HEADER.size
        self.domain = domain
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
            if op in {DecodeOp.CONSTANT, DecodeOp.MILLISECONDS, DecodeOp.SECONDS}:
                _derive(op, argument, target, column)
                continue
            length, at = self._extent(data, at, op, argument)
            if at + length + rest > self.set_end:
                return False
            value = bytes(data[at : at + length])
            at += length
            if op == DecodeOp.TEXT:
                target.columns[column][row] = self._code(value, target.strings, argument)
            elif op == DecodeOp.UNSIGNED:
                target.columns[column][row] = int.from_bytes(value)
            elif op in {DecodeOp.ADDRESS4, DecodeOp.ADDRESS6} or (
                op != DecodeOp.SKIP and any(value)
            ):
                address = value if length == 16 else V4_MAPPED + value
                target.columns[column][row] = np.frombuffer(address, np.uint8)
        self._at = at
        return True

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
        try:
            return strings.intern(value)
        except LimitExceeded:
            self.refused += 1
            return 0


class RecordEncoder:
    """Writes rows of columns as data sets of one template, one set in a message."""

    def __init__(self, domain: int, template_id: int, program: Program) -> None:
        check_program(program)
        if not set(program[:, 0].tolist()) <= ENCODABLE:
            raise ValueError("a step that cannot be encoded")
        self.oversize = 0  # records that do not fit into a message of their own
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
    ) -> tuple[list[bytes], int]:
        """Return messages with these rows, and how many records are in them.

        Columns may be strided; those of addresses must have their 16 bytes side by side.
        """
        check_encodable(self._program, columns, rows, max_message)
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
            if len(record) > room:
                self.oversize += 1
                continue
            if size + len(record) > room:
                flush()
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


def _derive(op: int, argument: int, target: RecordTarget, column: int) -> None:
    row = target.rows
    if op == DecodeOp.CONSTANT:
        target.columns[column][row] = argument
    elif op == DecodeOp.MILLISECONDS:
        target.columns[column][row] = int(target.columns[argument][row]) * 1000
    else:
        target.columns[column][row] = int(target.columns[argument][row]) // 1000


def field_length(op: int, argument: int) -> int:
    """Bytes on the wire, or VARIABLE."""
    match op:
        case DecodeOp.ADDRESS4 | DecodeOp.SET_ADDRESS4:
            return 4
        case DecodeOp.ADDRESS6 | DecodeOp.SET_ADDRESS6:
            return 16
        case DecodeOp.UNSIGNED | DecodeOp.TEXT | DecodeOp.SKIP:
            return argument
        case _:
            return 0


def minimum_length(program: Program) -> int:
    """Bytes of the shortest record: a variable-length value has at least its length byte."""
    return sum(_least(op, argument) for op, argument, _ in program.tolist())


def _least(op: int, argument: int) -> int:
    length = field_length(op, argument)
    return 1 if length == VARIABLE else length


def _rests(program: Program) -> list[int]:
    """For each step the least bytes that the steps after it take."""
    least = [_least(op, argument) for op, argument, _ in program.tolist()]
    return [sum(least[place + 1 :]) for place in range(len(least))]


def check_program(program: Program) -> None:
    """Raise ValueError unless the program is well formed and every record has at least a byte."""
    if program.ndim != 2 or program.shape[1] != 3 or program.dtype != np.uint32:
        raise ValueError(f"program {program.dtype}{program.shape}: need uint32 (n, 3)")
    for op, argument, _ in program.tolist():
        if op > max(DecodeOp) or (op == DecodeOp.UNSIGNED and not 1 <= argument <= 8):
            raise ValueError(f"step ({op}, {argument}): unknown")
        if op in {DecodeOp.TEXT, DecodeOp.SKIP} and argument > VARIABLE:
            raise ValueError(f"a field of {argument} bytes: at most {VARIABLE}")
    if minimum_length(program) == 0:
        raise ValueError("records of no bytes")


def check_target(columns: Sequence[NDArray[Any]]) -> None:
    """Raise ValueError unless the columns are contiguous and of one length."""
    if len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise ValueError(f"{len(columns)} columns: need some, of one length, with room")
    if any(not column.flags.c_contiguous for column in columns):
        raise ValueError("columns must be contiguous")


def check_decodable(program: list[list[int]], columns: Sequence[NDArray[Any]]) -> None:
    """Raise IndexError or ValueError unless every step has a column that suits it."""
    for op, argument, column in program:
        if op == DecodeOp.SKIP:
            continue
        width = item_size(columns, column)
        if op in {DecodeOp.MILLISECONDS, DecodeOp.SECONDS}:
            suits = width <= 8 and item_size(columns, argument) <= 8
        elif op == DecodeOp.UNSIGNED:
            suits = argument <= width <= 8
        elif op == DecodeOp.TEXT:
            suits = width == 4
        else:
            suits = width == 16 or op == DecodeOp.CONSTANT
        if not suits:
            raise ValueError(
                f"step {DecodeOp(op).name} {argument}: column {column} has {width} bytes"
            )


def check_encodable(
    program: list[list[int]],
    columns: Sequence[NDArray[Any]],
    rows: NDArray[np.int64],
    max_message: int,
) -> None:
    """Raise unless every step has a column, all rows exist, and a message can hold something."""
    for op, _, column in program:
        wide = op in {DecodeOp.ADDRESS4, DecodeOp.ADDRESS6}
        if (item_size(columns, column) == 16) != wide:
            raise ValueError(
                f"step {DecodeOp(op).name}: column {column} is {columns[column].dtype}"
            )
        if wide and columns[column].strides[1] != 1:
            raise ValueError(f"column {column}: the bytes of an address must be side by side")
    if not HEADER.size + SET.size < max_message <= 65535:
        raise ValueError(f"messages of {max_message} bytes: 21 to 65535")
    shortest = min((len(column) for column in columns), default=0)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < shortest:
        raise ValueError(f"rows {rows.min()} to {rows.max()} of {shortest}")


def item_size(columns: Sequence[NDArray[Any]], place: int) -> int:
    """Bytes of a column's items: 16 for addresses; IndexError if there is no such column."""
    if place >= len(columns):
        raise IndexError(f"column {place} of {len(columns)}")
    column = columns[place]
    if column.ndim == 2 and column.shape[1] == 16 and column.dtype == np.uint8:
        return 16
    if column.ndim != 1 or column.dtype.kind != "u":
        raise ValueError(f"column {place}: {column.dtype}{column.shape}, need unsigned numbers")
    return column.dtype.itemsize
