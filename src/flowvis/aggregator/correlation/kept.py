"""Checkpoints as bytes: what was written of flows, where no store keeps it.

A file of them is a head, which names the layout of its rows, and frames: what was written together.

    0  4  magic
    4  4  number of rows
    8  4  CRC-32 of the rows
   12  4  CRC-32 of the 12 bytes before
   16     rows, as KEPT has them

So what was damaged is known and left out: rows that are not what was written, or all that follows
where it is not known how many they are.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flowvis import checkpoint
from flowvis.aggregator.correlation.checkpoint import RESTORED, Flows, flows, stored_keys
from flowvis.batch import Batch, Column
from flowvis.fields import BY_NAME
from flowvis.native import pack_keys

HASH = "hash"
_BASES = (np.uint8, (checkpoint.BASES_BYTES,))
KEPT = np.dtype(
    [
        (HASH, np.uint64),
        *((name, BY_NAME[name].kind.dtype, BY_NAME[name].kind.shape) for name in RESTORED),
        *(
            (name, *(_BASES if name == checkpoint.BASES else (dtype,)))
            for name, dtype in checkpoint.COLUMNS.items()
        ),
    ]
)
"""A checkpoint; `hash` is `flowvis.checkpoint.tuple_hashes` of its key."""

HEAD = f"flowvis checkpoints 1 {zlib.crc32(str(KEPT.descr).encode()):08x}\n".encode()
"""What a file begins with."""
FRAME = struct.Struct("<4sIII")
MOST_ROWS = 1 << 13
"""In a frame: more is damage."""
MAGIC = b"fvcp"
_CONNECTION = (
    *("sourceIP", "destinationIP", "sourceTransportPort", "destinationTransportPort"),
    *("protocolIdentifier", "flowId", "flowStartSeconds"),
)


def kept(batch: Batch) -> NDArray[np.void]:
    """Return the rows of KEPT of those written records of a batch that are checkpoints."""
    if checkpoint.STATE not in batch:
        return np.zeros(0, dtype=KEPT)
    bits = batch[checkpoint.STATE]
    sound = bits != 0
    if not sound.all():
        batch = batch.take(sound)
        bits = batch[checkpoint.STATE]
    columns: dict[str, Column] = {
        **batch.columns,
        HASH: checkpoint.tuple_hashes(stored_keys(batch.columns, bits)),
        checkpoint.BASES: _bases(batch),
    }
    packed = pack_keys(*(columns[name] for name in KEPT.names or ()))
    return np.ascontiguousarray(packed).view(KEPT).reshape(len(bits))


def _bases(batch: Batch) -> NDArray[np.uint8]:
    codes, places = np.unique(batch[checkpoint.BASES], return_inverse=True)
    raw = [bytes.fromhex(text) for text in batch.strings.texts(codes)]
    whole = b"".join(one.ljust(checkpoint.BASES_BYTES, b"\0") for one in raw)
    made = np.frombuffer(whole, dtype=np.uint8).reshape(-1, checkpoint.BASES_BYTES)
    return made.take(places, axis=0)


def last_written(rows: NDArray[np.void]) -> Flows:
    """Make flows of rows."""
    return flows({name: rows[name] for name in KEPT.names or ()})


def connections(rows: NDArray[np.void], multipliers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a number for each row's connection `(n,)`, the same for all rows of it.

    `multipliers`: `WORDS` random numbers; who does not know them finds no two connections that
    have one number.
    """
    packed = pack_keys(*(np.ascontiguousarray(rows[name]) for name in _CONNECTION))
    wide = np.zeros((len(rows), 4 * WORDS), dtype=np.uint8)
    wide[:, : packed.shape[1]] = packed
    words = wide.view(np.uint32)
    found = np.zeros(len(rows), dtype=np.uint64)
    for word in range(WORDS):
        found += (words[:, word].astype(np.uint64) + np.uint64(1)) * multipliers[word]
    return found


def _width(name: str) -> int:
    return KEPT.fields[name][0].itemsize if KEPT.fields is not None else 0


WORDS = -(-sum(_width(name) for name in _CONNECTION) // 4)
"""Of 4 bytes, that name a connection."""


def frame(rows: NDArray[np.void]) -> bytes:
    """Return rows, at most MOST_ROWS, as they are in a file."""
    body = rows.tobytes()
    head = struct.pack("<4sII", MAGIC, len(rows), zlib.crc32(body))
    return head + struct.pack("<I", zlib.crc32(head)) + body


def rows_after(head: bytes) -> int:
    """Return how many rows a frame has, by its first FRAME.size bytes; -1 where they are damaged.

    0 rows are damage as well: nobody writes them.
    """
    if len(head) < FRAME.size:
        return -1
    magic, count, _, check = FRAME.unpack_from(head)
    sound = magic == MAGIC and zlib.crc32(head[: FRAME.size - 4]) == check
    return count if sound and 0 < count <= MOST_ROWS else -1


def rows_of(head: bytes, body: bytes) -> NDArray[np.void] | None:
    """Return a frame's rows; None where they are not what was written."""
    _, count, check, _ = FRAME.unpack_from(head)
    if len(body) != count * KEPT.itemsize or zlib.crc32(body) != check:
        return None
    return np.frombuffer(body, dtype=KEPT)


def parts(rows: NDArray[np.void], most: int = MOST_ROWS) -> Iterator[NDArray[np.void]]:
    """Yield rows in parts that a frame has room for."""
    for first in range(0, len(rows), most):
        yield rows[first : first + most]
