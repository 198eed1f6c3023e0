"""The contract of the IPFIX leaf: programs, and what of the wire format is needed beside them.

What a template says is compiled once into a program, an `(n, 3)` uint32 array of steps
`(DecodeOp, argument, column)`; decoding and encoding a record is running the program. Wire format:
RFC 7011 section 3.
"""

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    COPY = 10  # no bytes; the value in column [argument]
    ADD = 11  # no bytes; adds the value in column [argument]
    SUBTRACT = 12  # no bytes; takes itself from the value in column [argument], down to 0
    NTP = 13  # 8 bytes, seconds since 1900 and 2**-32 of them, to milliseconds since the epoch
    BEFORE_EXPORT = 14  # [1 to 8] bytes, microseconds before the export time, to milliseconds
    EXPORT_TIME = 15  # no bytes; the message's, in milliseconds
    BOOT = 16  # [1 to 8] bytes: when the domain's system began, in milliseconds; no column
    UPTIME = 17  # no bytes; milliseconds since the system began, to such since the epoch; column
    # [argument] has those at the end of the flow, which is near the export


_LAST_OP = max(DecodeOp)

NUMBERS = frozenset({DecodeOp.UNSIGNED, DecodeOp.BEFORE_EXPORT, DecodeOp.BOOT})
"""Operations whose argument is the length of an integer."""

FROM_COLUMN = frozenset(
    {
        DecodeOp.MILLISECONDS,
        DecodeOp.SECONDS,
        DecodeOp.COPY,
        DecodeOp.ADD,
        DecodeOp.SUBTRACT,
        DecodeOp.UPTIME,
    }
)
"""Operations whose argument is a column."""

NO_BYTES = frozenset({DecodeOp.CONSTANT, DecodeOp.EXPORT_TIME, *FROM_COLUMN})

WRITES_NOTHING = frozenset({DecodeOp.SKIP, DecodeOp.BOOT})
"""Operations without a column; records with no others are only walked over."""

NTP_EPOCH = 2_208_988_800  # 1970 in seconds since 1900, RFC 5905 section 6
UPTIME_BITS = 32  # of the counter of milliseconds, which starts again after 49.7 days
SAME_BOOT_MS = 3_600_000
"""By how much two beginnings of a system may differ that follow from an export time and the uptime
at a flow's end, less whole turns of the counter: flows are exported within an hour of their end. If
they differ by more, the system has begun anew; over UDP its session goes on."""

ENCODABLE = frozenset({DecodeOp.UNSIGNED, DecodeOp.ADDRESS4, DecodeOp.ADDRESS6, DecodeOp.TEXT})


class Stop(IntEnum):
    """Why a decoder came back, and what its `place` is then."""

    END = 0  # no complete message is left; `needed` bytes from there would be one
    FULL = 1  # the target is full: run again with a larger one
    SET = 2  # a set that is not data of a known template: from `place` to `set_end`
    GAP = 3  # the sequence number is off by `lost` records (negative: it went back)
    BAD_MESSAGE = 4  # not version 10, shorter than its header, or longer than max_message
    BAD_SET = 5  # the length of the set there is impossible; the message's rest is skipped
    BAD_RECORD = 6  # the record there ends outside its set; the set's rest is skipped, and what
    # of the record is in the row after the last one is nobody's: it may be all of it or nothing


_ANY_LENGTH = frozenset({DecodeOp.TEXT, DecodeOp.SKIP})
_LENGTHS: dict[int, int] = {
    **dict.fromkeys(map(int, NO_BYTES), 0),
    int(DecodeOp.ADDRESS4): 4,
    int(DecodeOp.SET_ADDRESS4): 4,
    int(DecodeOp.ADDRESS6): 16,
    int(DecodeOp.SET_ADDRESS6): 16,
    int(DecodeOp.NTP): 8,
}
"""Bytes on the wire of operations for which no argument says it."""


def field_length(op: int, argument: int) -> int:
    """Bytes on the wire, or VARIABLE."""
    return _LENGTHS.get(op, argument)


def minimum_length(program: Program) -> int:
    """Bytes of the shortest record: a variable-length value has at least its length byte."""
    return sum(_least(op, argument) for op, argument, _ in program.tolist())


def _least(op: int, argument: int) -> int:
    length = _LENGTHS.get(op, argument)
    return 1 if length == VARIABLE else length


def _rests(program: Program) -> list[int]:
    """For each step the least bytes that the steps after it take."""
    rests = [0]
    for op, argument, _ in reversed(program.tolist()):
        rests.append(rests[-1] + _least(op, argument))
    return rests[-2::-1]


def check_program(program: Program) -> None:
    """Raise ValueError unless the program is well formed and every record has at least a byte."""
    if program.ndim != 2 or program.shape[1] != 3 or program.dtype != np.uint32:
        raise ValueError(f"program {program.dtype}{program.shape}: need uint32 (n, 3)")
    for op, argument, _ in program.tolist():
        if op > _LAST_OP or (op in NUMBERS and not 1 <= argument <= 8):
            raise ValueError(f"step ({op}, {argument}): unknown")
        if op in _ANY_LENGTH and argument > VARIABLE:
            raise ValueError(f"a field of {argument} bytes: at most {VARIABLE}")
    if minimum_length(program) == 0:
        raise ValueError("records of no bytes")


def check_encoded(program: Program) -> None:
    """Raise ValueError unless each step can be encoded; texts bring their own length."""
    check_program(program)
    for op, argument, _ in program.tolist():
        if op not in ENCODABLE or (op == DecodeOp.TEXT and argument != VARIABLE):
            raise ValueError(f"step ({op}, {argument}): a step that cannot be encoded")


def check_target(columns: Sequence[NDArray[Any]]) -> None:
    """Raise ValueError unless the columns can be written to, are contiguous and of one length."""
    if len({len(column) for column in columns}) != 1 or not len(columns[0]):
        raise ValueError(f"{len(columns)} columns: need some, of one length, with room")
    if any(not column.flags.c_contiguous for column in columns):
        raise ValueError("columns must be contiguous")
    if any(not column.flags.writeable for column in columns):
        raise ValueError("columns must be writeable")


def check_decodable(program: list[list[int]], columns: Sequence[NDArray[Any]]) -> None:
    """Raise IndexError or ValueError unless every step has a column that suits it."""
    sizes: dict[int, int] = {}
    for op, argument, column in program:
        if op in WRITES_NOTHING:
            continue
        if column not in sizes:
            sizes[column] = item_size(columns, column)
        width = sizes[column]
        if op in FROM_COLUMN:
            suits = width <= 8 and item_size(columns, argument) <= 8
        elif op in {DecodeOp.NTP, DecodeOp.BEFORE_EXPORT, DecodeOp.EXPORT_TIME}:
            suits = width == 8
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
    if column.ndim != 1 or column.dtype.kind != "u" or not column.dtype.isnative:
        raise ValueError(f"column {place}: {column.dtype}{column.shape}, need unsigned numbers")
    return column.dtype.itemsize
