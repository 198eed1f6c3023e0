"""Batches of every field, ordinary and extreme."""

import numpy as np

from flowvis.batch import Batch, address_bytes
from flowvis.fields import FIELDS, Field, Kind
from flowvis.native import StringTable
from flowvis.strings import Strings

STORED = [field for field in FIELDS if field.stored]

TEXTS = ["", "web-0", "Ünïcode-ñame-日本語", "quote'\\\"\n\ttab", "x" * 300]
ADDRESSES = ["::", "0.0.0.0", "10.0.0.1", "255.255.255.255", "2001:db8::1", "fe80::ffff:1:2"]


def random_batch(rows: int, seed: int = 0, strings: Strings | None = None) -> Batch:
    """Values of every kind without any sense: what peers may send."""
    rng = np.random.default_rng(seed)
    strings = StringTable() if strings is None else strings
    return Batch({field.name: _column(field, rows, rng, strings) for field in STORED}, strings)


def _column(
    field: Field, rows: int, rng: np.random.Generator, strings: Strings
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if field.kind is Kind.TEXT:
        return strings.encode(TEXTS)[rng.integers(0, len(TEXTS), rows)]
    if field.kind is Kind.ADDRESS:
        table = np.array([list(address_bytes(text)) for text in ADDRESSES], np.uint8)
        return table[rng.integers(0, len(ADDRESSES), rows)]
    top = np.iinfo(field.kind.dtype.name).max
    values = rng.integers(0, top, rows, dtype=field.kind.dtype, endpoint=True)
    extreme = rng.integers(0, 4, rows)
    if field.name == "flowEndSeconds":
        # The sort key has its hour, which must be a time that DateTime can show.
        return np.uint32(1_790_000_000) + values % np.uint32(7200)
    values[extreme == 0], values[extreme == 1] = 0, top
    return values


def flows(rows: int, *, end_s: int = 1_790_000_000, strings: Strings | None = None) -> Batch:
    """Plain records: one per second, `octetDeltaCount` 100 each, all else nearly empty."""
    strings = StringTable() if strings is None else strings
    columns = {
        field.name: np.zeros((rows, *field.kind.shape), field.kind.dtype) for field in STORED
    }
    batch = Batch(columns, strings)
    batch["flowEndSeconds"] = (end_s + np.arange(rows) % 3600).astype(np.uint32)
    batch["flowStartSeconds"] = batch["flowEndSeconds"] - 10
    batch["sourceTransportPort"] = (np.arange(rows) % 60_000).astype(np.uint16)
    for name in ("octetDeltaCount", "octetTotalCount"):
        batch[name] = np.full(rows, 100, np.uint64)
    batch["sourcePodName"] = strings.encode([f"pod-{n}" for n in range(50)])[np.arange(rows) % 50]
    return batch
