"""From a batch of flow records to the block that is inserted: no Python object per record."""

from dataclasses import dataclass

import numpy as np

from flowvis import checkpoint
from flowvis.batch import Batch, Column
from flowvis.clickhouse.schema.checkpoints import residuals
from flowvis.clickhouse.schema.formulas import (
    DERIVED,
    INSERTED,
    NODE_INTERVALS,
    RATE_INTERVAL,
    node_interval,
    rate_interval,
)
from flowvis.clickhouse.schema.native_block import Block, Codes, Constant, Numbers
from flowvis.clickhouse.schema.tables import (
    BATCH_NUMBER,
    COLUMNS,
    INSERTED_SQL,
    PLAIN_CHECKPOINTS,
    WRITER,
)
from flowvis.fields import Kind

_INTERVAL = "monitoringIntervalStartMilliSeconds"
_INTERVALS = (RATE_INTERVAL, *NODE_INTERVALS.values())
_OMITTED = frozenset({RATE_INTERVAL, DERIVED[INSERTED].stored, WRITER, BATCH_NUMBER, "trusted"})

MAX_BATCH_NUMBER = 0xFFFF


@dataclass(frozen=True, slots=True)
class BatchId:
    """What a batch is known by in the store, the same in every attempt to insert it."""

    writer: str
    inserted_s: int
    """timeInserted of its records."""
    number: int = 0
    """Tells a writer's batches of one second apart."""

    def __str__(self) -> str:
        return f"{self.writer}-{self.inserted_s}-{self.number}"


class _Operands(dict[str, Column]):
    """Columns of a batch as the formulas want them: UInt64, each converted once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __missing__(self, name: str) -> Column:
        values = self[name] = self._batch[name].astype(np.uint64, copy=False)
        return values


def encode(batch: Batch, batch_id: BatchId) -> Block:
    """Make the block that inserts the records of a batch, which must have every stored field."""
    rows = len(batch)
    operands = _Operands(batch)
    operands[RATE_INTERVAL] = rate_interval(operands, _lasted(batch))
    for side, name in NODE_INTERVALS.items():
        operands[name] = node_interval(operands, side)
    inserted = np.full(rows, batch_id.inserted_s, np.uint64)
    columns: list[Numbers | Codes | Constant] = [
        *(Numbers(name, "UInt64", operands[name]) for name in _INTERVALS),
        Numbers(DERIVED[INSERTED].stored, "UInt32", DERIVED[INSERTED].residual(inserted, operands)),
        Constant(WRITER, batch_id.writer.encode(), rows),
        Numbers(BATCH_NUMBER, "UInt16", np.full(rows, batch_id.number, np.uint16)),
    ]
    if checkpoint.STATE in batch:
        columns += _checkpoint(batch, operands[RATE_INTERVAL])
    for column in COLUMNS:
        if column.name in _OMITTED or column.field is None:
            continue
        name = column.field.name
        if name in DERIVED:
            residual = DERIVED[name].residual(operands[name], operands)
            columns.append(Numbers(column.name, column.type, residual))
        elif column.field.kind is Kind.TEXT:
            columns.append(Codes(column.name, batch[name]))
        else:
            columns.append(Numbers(column.name, column.type, batch[name]))
    return Block(columns, rows, batch.strings)


def _lasted(batch: Batch) -> Column | None:
    """How long records lasted, in ms, as far as it is known so exactly."""
    if checkpoint.STATE not in batch:
        return None
    source, destination = (batch[name] for name in checkpoint.ENDS)
    return np.asarray(np.maximum(source, destination) - batch[_INTERVAL])


def _checkpoint(batch: Batch, rate_intervals: Column) -> list[Numbers | Codes | Constant]:
    """The columns by which the records' flows can be gone on with."""
    known = Batch({**batch.columns, RATE_INTERVAL: rate_intervals}, batch.strings)
    types = {column.name: column.type for column in COLUMNS}
    times = [Numbers(name, types[name], values) for name, values in residuals(known).items()]
    plain = [Numbers(name, "UInt32", batch[name]) for name in PLAIN_CHECKPOINTS]
    times.append(Numbers("flowId", "UInt64", batch["flowId"]))
    return [*times, *plain, Codes(checkpoint.BASES, batch[checkpoint.BASES])]


def rows_of(batch: Batch, batch_id: BatchId) -> str:
    """Return the condition of a batch's rows."""
    return (
        f"flowEndSeconds >= toDateTime({int(batch['flowEndSeconds'].min())})"
        f" AND {BATCH_NUMBER} = {batch_id.number}"
        f" AND {WRITER} = '{batch_id.writer}'"
        f" AND {INSERTED_SQL} = toDateTime({batch_id.inserted_s})"
    )
