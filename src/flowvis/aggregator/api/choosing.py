"""Reads filters that people wrote, and chooses records of batches by them, off the event loop.

A filter may have patterns that take milliseconds to compile, or for a single text, and what is on
the event loop is everybody's: the exporters' as well. So filters are read in a thread of their own,
and evaluated in another, one after the other, and each has only so much of its time.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from flowvis.aggregator.api.problems import Problem
from flowvis.batch import Batch
from flowvis.filters import Filter
from flowvis.filters.mask import mask
from flowvis.filters.networks import in_force
from flowvis.filters.spending import Spend
from flowvis.filters.sql import Condition, condition

T = TypeVar("T")

LEAST_S = 0.25
PER_RECORD_S = 100e-6
"""Some ten times what a filter of a few patterns takes where no two texts are the same."""

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="filters")
_READING = ThreadPoolExecutor(1, thread_name_prefix="reading")


async def read(reader: Callable[[str, Spend], T], text: str) -> T:
    """Return what a reader makes of a filter's text; Problem where that takes too long."""

    def bounded() -> T:
        with _within(LEAST_S, "to be read") as spend:
            return reader(text, spend)

    return await asyncio.get_running_loop().run_in_executor(_READING, bounded)


async def conditioned(wanted: Filter) -> Condition:
    """Return the condition of a filter; Problem where it takes too long to make."""

    def bounded() -> Condition:
        names = len(in_force().names)
        left_s = LEAST_S + PER_RECORD_S * names
        with _within(left_s, f"for {names} names of networks") as spend:
            return condition(wanted, spend)

    return await asyncio.get_running_loop().run_in_executor(_READING, bounded)


async def chosen(wanted: Filter, batch: Batch) -> Batch:
    """Return the records of a batch that a filter chooses; Problem where that takes too long."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, _chosen, wanted, batch)


def _chosen(wanted: Filter, batch: Batch) -> Batch:
    left_s = LEAST_S + PER_RECORD_S * len(batch)
    with _within(left_s, f"for {len(batch)} records") as spend:
        return batch.take(mask(wanted, batch, spend))


@contextmanager
def _within(left_s: float, what: str) -> Iterator[Spend]:
    """Let this thread spend so much of its time in the body.

    A collection of garbage that falls into it is everybody's, and may take as long.
    """
    thread = threading.get_ident()
    ends_s = time.thread_time() + left_s
    began_s = 0.0

    def collect(phase: str, _: dict[str, int]) -> None:
        nonlocal began_s, ends_s
        if threading.get_ident() != thread:
            return
        if phase == "start":
            began_s = time.thread_time()
        else:
            ends_s += time.thread_time() - began_s

    def spend() -> None:
        if time.thread_time() > ends_s:
            raise Problem(
                "too-costly",
                f"the filter takes too long {what}: fewer or simpler regular expressions (~) and "
                "searches",
            )

    gc.callbacks.append(collect)
    try:
        yield spend
    finally:
        gc.callbacks.remove(collect)
