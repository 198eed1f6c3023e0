"""Faults of what an aggregator keeps on disk while its store is away: a full disk, and damage."""

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowvis.errors import SystemRefused
from flowvis.lab.configuration import ROOM
from flowvis.lab.faults.fault import Fault, damage, pass_while_away, until

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

SPOOL = ROOM / "spool"
DISK_KB = 16
"""Of a file system for it alone: room for some batches, each of which takes a page at least."""
AGGREGATOR: Mapping[str, Any] = {
    "clickHouse": {"spool": {"directory": str(SPOOL / "batches"), "after": "0s"}}
}
FILLED_S = 30.0
FULL_S = 10.0
FULL = "No space left on device"


def make(_: "Lab") -> None:
    """Have a small disk for it."""
    SPOOL.mkdir()
    options = f"size={DISK_KB}k,mode=0700"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "flowvis-lab", str(SPOOL)],
        check=True,
    )


async def fill(lab: "Lab") -> None:
    """Let the store be away until the spool's disk has been full for a while.

    Somebody else's file takes what is left of it. Where all that comes waits for what the store
    knows, nothing is spooled however long the store is away; so that is no reason to wait.
    """

    async def full() -> bool:
        return await asyncio.to_thread(lab.aggregator.has_logged, FULL)

    await lab.store.stop()
    await pass_while_away(lab)
    with contextlib.suppress(OSError), (SPOOL / "others").open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass  # until there is no room
    try:
        await until(full, FULL_S, lab.aggregator, "has not found it full")
    except SystemRefused:
        lab.note("nothing was to be spooled while the spool's disk was full")
    (SPOOL / "others").unlink()
    await lab.store.start()


async def corrupt(lab: "Lab") -> None:
    """Kill the aggregator with a spool of several files, and damage one of them.

    One that was killed before, while the store was away, has nothing to spool: all that comes waits
    for what the store knows.
    """

    async def filled() -> bool:
        return len(_batches()) > 1

    await lab.store.stop()
    try:
        await until(filled, FILLED_S, lab.aggregator, "has not spooled")
    except SystemRefused:
        lab.note("nothing was to be spooled while ClickHouse was away")
        await lab.store.start()
        return
    await lab.kill(lab.aggregator)
    if not damage(lab.random.choice(_batches()), lab.random):
        raise SystemRefused("no file of the spool is large enough to be damaged")
    lab.aggregator.spawn()
    await lab.store.start()
    await lab.aggregator.ready()


def _batches() -> list[Any]:
    return sorted((SPOOL / "batches").glob("*.batch"))


# A table reads best as one.
# fmt: off
FAULTS = {
    "spool-full": Fault("ClickHouse is away until the disk under the spool is full", fill, 0.3,
                        by_sums=True, server=True, prepare=make, aggregator=AGGREGATOR),
    "spool-corrupt": Fault("the aggregator is killed, and a file of its spool is damaged", corrupt,
                           0.3, by_sums=True, splits=True, server=True, prepare=make,
                           aggregator=AGGREGATOR),
}
# fmt: on
