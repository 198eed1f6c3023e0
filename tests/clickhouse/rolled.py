"""Records that are rolled up as soon as they are stored, by the statements that the schema has."""

import numpy as np

from flowvis.batch import Batch
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.layout import TableLayout
from flowvis.clickhouse.schema.rollups import ROLLUPS, WHOLE_BLOCK, Roll, StoredBatch, roll_sql
from flowvis.clickhouse.store import Store

from .conftest import admin


def insert_rolled(store: Store, database: str, batch: Batch, batch_id: BatchId) -> None:
    """Store a batch, and roll it up."""
    store.insert(batch, batch_id)
    ends = batch["flowEndSeconds"]
    stored = StoredBatch(batch_id, len(batch), int(np.min(ends)), int(np.max(ends)))
    settings = ", ".join(f"{name} = {value}" for name, value in WHOLE_BLOCK.items())
    for rollup in ROLLUPS:
        roll = roll_sql(TableLayout(database), Roll(rollup, str(batch_id), (stored,)))
        admin(store)(f"{roll} SETTINGS {settings}")
