"""From a batch of flow records to the block that is inserted: no Python object per record."""

from dataclasses import dataclass

import numpy as np

from flowvis import checkpoint
from flowvis.batch import Batch, Column
from flowvis.clickhouse.schema.checkpoints import residuals
from flowvis.clickhouse.schema.formulas import DERIVED, INSERTED, RATE_INTERVAL, Numeric, rates
from flowvis.clickhouse.schema.literals import literal
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
_OMITTED = frozenset({WRITER, BATCH_NUMBER, "trusted"})

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

    @property
    def sql(self) -> str:
        """The id as a tuple. Who can write into the store chooses what its writers are called."""
        return f"({literal(self.writer)}, {self.inserted_s}, {self.number})"


def encode(batch: Batch, batch_id: BatchId) -> Block:
    """Make the block that inserts the records of a batch, which must have every stored field."""
    rows = len(batch)
    derived = _derived(batch, batch_id.inserted_s)
    columns: list[Numbers | Codes | Constant] = [
        Constant(WRITER, batch_id.writer.encode(), rows),
        Numbers(BATCH_NUMBER, "UInt16", np.full(rows, batch_id.number, np.uint16)),
    ]
    if checkpoint.STATE in batch:
        columns += (Numbers(name, "UInt32", batch[name]) for name in PLAIN_CHECKPOINTS)
        columns.append(Numbers("flowId", "UInt64", batch["flowId"]))
        columns.append(Codes(checkpoint.BASES, batch[checkpoint.BASES]))
    for column in COLUMNS:
        if column.name in derived:
            columns.append(Numbers(column.name, column.type, derived[column.name]))
        elif column.name in _OMITTED or column.field is None:
            continue
        elif column.field.kind is Kind.TEXT:
            columns.append(Codes(column.name, batch[column.field.name]))
        else:
            columns.append(Numbers(column.name, column.type, batch[column.field.name]))
    return Block(columns, rows, batch.strings)


def _derived(batch: Batch, inserted_s: int) -> dict[str, Column]:
    """Return what is stored of all that follows from the rest, by the names of the columns."""
    operands = Numeric(batch.columns)
    found = rates(operands, _lasted(batch))
    operands[INSERTED] = np.full(len(batch), inserted_s, np.uint64)
    for name, rule in DERIVED.items():
        if rule.stored not in found:
            found[rule.stored] = rule.residual(operands[name], operands)
    if checkpoint.STATE in batch:
        known = {**batch.columns, RATE_INTERVAL: operands[RATE_INTERVAL]}
        found |= residuals(Batch(known, batch.strings))
    return found


def _lasted(batch: Batch) -> Column | None:
    """How long records lasted, in ms, as far as it is known so exactly."""
    if checkpoint.STATE not in batch:
        return None
    source, destination = (batch[name] for name in checkpoint.ENDS)
    return np.asarray(np.maximum(source, destination) - batch[_INTERVAL])


def rows_of(batch: Batch, batch_id: BatchId) -> str:
    """Return the condition of a batch's rows."""
    return (
        f"flowEndSeconds >= toDateTime({int(batch['flowEndSeconds'].min())})"
        f" AND {BATCH_NUMBER} = {batch_id.number}"
        f" AND {WRITER} = {literal(batch_id.writer)}"
        f" AND {INSERTED_SQL} = toDateTime({batch_id.inserted_s})"
    )
