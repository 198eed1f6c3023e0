"""A batch as a file: what waits on disk until the store is back.

    magic | bytes of the head (u32) | head, JSON | body, deflated | BLAKE2b of all before

The body is a native block of all columns that the batch has, under their own names: not the block
that is inserted, as that depends on the server. Whoever reads it believes nothing: the checksum
first, then each length. Fields that a program before did not have are empty.
"""

import json
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct

import numpy as np

from flowvis import checkpoint
from flowvis.batch import Batch, Column
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.native_block import (
    TEXT_TYPE,
    Block,
    BlockReader,
    Codes,
    Numbers,
)
from flowvis.errors import FlowvisError
from flowvis.fields import BY_NAME, FIELDS, TEXT_FIELDS
from flowvis.native import StringTable

_MAGIC = b"FVSPOOL1"
_SIZE = Struct("<I")
_CHECK_BYTES = 16
_MAX_HEAD = 4096
MAX_BODY = 1 << 30
"""Bytes of a body before it is deflated: four times what a commit may have."""
_LEVEL = 1  # of zlib: 100 MB/s, and a fifth of the bytes

_TEXT = frozenset({*TEXT_FIELDS, checkpoint.BASES})
_CHECKPOINT = frozenset({*checkpoint.COLUMNS, checkpoint.BASES, "flowId"})


class CorruptFile(FlowvisError):
    """Not what was written."""


def spooled(batch: Batch, batch_id: BatchId) -> bytes:
    """Return the file of a batch that is known by this id in the store."""
    columns: list[Numbers | Codes] = []
    for name, column in batch.columns.items():
        if name in _TEXT:
            columns.append(Codes(name, np.ascontiguousarray(column)))
        else:
            columns.append(Numbers(name, _type_of(column), column))
    raw = b"".join(Block(columns, len(batch), batch.strings).parts())
    head = json.dumps(
        {
            "writer": batch_id.writer,
            "inserted": batch_id.inserted_s,
            "number": batch_id.number,
            "records": len(batch),
            "bytes": len(raw),
        }
    ).encode()
    data = b"".join((_MAGIC, _SIZE.pack(len(head)), head, zlib.compress(raw, _LEVEL)))
    return data + _check(data)


def restored(data: bytes) -> tuple[Batch, BatchId]:
    """Return the batch of a file, over a string table of its own, and its id; or CorruptFile."""
    start = len(_MAGIC) + _SIZE.size
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(body) < start or not body.startswith(_MAGIC):
        raise CorruptFile("no file of a batch")
    if _check(body) != check:
        raise CorruptFile("its checksum is of something else: it was cut short, or changed")
    (size,) = _SIZE.unpack_from(body, len(_MAGIC))
    if size > _MAX_HEAD:
        raise CorruptFile(f"a head of {size} bytes")
    try:
        head = json.loads(body[start : start + size])
        batch_id = BatchId(str(head["writer"]), int(head["inserted"]), int(head["number"]))
        raw = _inflated(body[start + size :], int(head["bytes"]))
        return _batch(raw, int(head["records"])), batch_id
    except (ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        raise CorruptFile(f"{type(error).__name__}: {error}") from error


def _inflated(data: bytes, size: int) -> bytes:
    if not 0 <= size <= MAX_BODY:
        raise ValueError(f"a body of {size} bytes")
    stream = zlib.decompressobj()
    raw = stream.decompress(data, size + 1)
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"not the {size} bytes that its head says")
    return raw


def _batch(raw: bytes, records: int) -> Batch:
    strings = StringTable()
    columns: dict[str, Column] = {}
    reader = BlockReader(raw)
    count, rows = reader.shape()
    if rows != records:
        raise ValueError(f"{rows} rows, {records} records")
    for _ in range(count):
        name, kind = reader.column()
        if kind == TEXT_TYPE:
            columns[name] = reader.codes(rows, strings)
        else:
            columns[name] = reader.numbers(kind, rows)
    return Batch(dict(_of_now(columns, rows)), strings)


def _of_now(columns: dict[str, Column], rows: int) -> Iterator[tuple[str, Column]]:
    """Yield the columns that a batch has now of those of a file."""
    whole = columns.keys() >= _CHECKPOINT  # else it is of no use
    for name, values in columns.items():
        if name not in BY_NAME and (whole or name not in _CHECKPOINT):
            yield name, values
    for field in FIELDS:
        kind, shape = field.kind, (rows, *field.kind.shape)
        if field.name not in columns:
            if field.stored:
                yield field.name, np.zeros(shape, kind.dtype)
            continue
        values = columns[field.name]
        if values.shape != shape:
            raise ValueError(f"{field.name}: values of another kind")
        yield field.name, values.astype(kind.dtype, copy=False)


def _type_of(column: Column) -> str:
    if column.ndim == 2:
        return f"FixedString({column.shape[1]})"
    return f"UInt{8 * column.dtype.itemsize}"


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=_CHECK_BYTES).digest()
