"""Records that are rolled up as soon as they are stored."""

import numpy as np

from flowvis.batch import Batch
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rolls import Roll, StoredBatch
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.store import Store


def insert_rolled(store: Store, batch: Batch, batch_id: BatchId) -> None:
    """Store a batch, and roll it up."""
    assert isinstance(store, EmbeddedStore)
    assert store.rollups is not None
    store.insert(batch, batch_id)
    ends = batch["flowEndSeconds"]
    stored = StoredBatch(batch_id, len(batch), int(np.min(ends)), int(np.max(ends)))
    for rollup in ROLLUPS:
        store.rollups.roll(Roll(rollup, str(batch_id), (stored,)))
