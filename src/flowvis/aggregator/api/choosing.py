"""Chooses records of batches by filters that people wrote, off the event loop.

A filter may have patterns that take milliseconds for a single text, and what is on the event loop
is everybody's: the exporters' as well. So filters are evaluated in a thread of their own, one after
the other, and each has only so much of its time for a batch.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from flowvis.aggregator.api.problems import Problem
from flowvis.batch import Batch
from flowvis.filters import Filter
from flowvis.filters.mask import mask

LEAST_S = 0.25  # a collection of garbage may fall into it, and take a tenth of a second
PER_RECORD_S = 100e-6
"""Some ten times what a filter of a few patterns takes where no two texts are the same."""

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="filters")


async def chosen(wanted: Filter, batch: Batch) -> Batch:
    """Return the records of a batch that a filter chooses; Problem where that takes too long."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, _chosen, wanted, batch)


def _chosen(wanted: Filter, batch: Batch) -> Batch:
    ends_s = time.thread_time() + LEAST_S + PER_RECORD_S * len(batch)

    def spend() -> None:
        if time.thread_time() > ends_s:
            raise Problem(
                "too-costly",
                f"the filter takes too long for {len(batch)} records: fewer or simpler regular "
                "expressions (~) and searches",
            )

    return batch.take(mask(wanted, batch, spend))
