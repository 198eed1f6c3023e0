"""A process that grew takes less again when its peak is over."""

import subprocess
import sys

import pytest

from waiting import PATIENCE_S

PEAK = """
import asyncio, os, signal, sys
import numpy as np
from flowvis.runtime.heap import Heap
from flowvis.runtime.memory import resident
from flowvis.runtime.process import serve
from flowvis.runtime.component import spawn

class Peak:
    name = "peak"
    async def start(self):
        arrays = [np.ones(SIZE, dtype=np.uint8) for _ in range((400 << 20) // SIZE)]
        self.stays = arrays[-1]
        self.peak = resident()
        del arrays
        self.task = spawn("peak", self.watch())
    async def watch(self):
        for _ in range(TRIES):
            await asyncio.sleep(0.01)
            if self.peak - resident() > 250 << 20:
                break
        print((self.peak - resident()) >> 20)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
    async def stop(self):
        pass

sys.exit(serve([*OTHERS, Peak()], grace_s=1))
"""


TWO_PEAKS = """
import asyncio
import numpy as np
from flowvis.runtime.heap import Heap
from flowvis.runtime.memory import resident

def arrays(mebibytes):
    return [np.ones(100_000, dtype=np.uint8) for _ in range((mebibytes << 20) // 100_000)]

async def fallen(before):
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if before - resident() > 200 << 20:
            break
    return (before - resident()) >> 20

async def main():
    heap = Heap(look_s=0.02)
    await heap.start()
    long, short = arrays(300), arrays(300)
    stay = long[-1], short[-1]
    peak = resident()
    del short
    first = await fallen(peak)
    del long
    print(first, await fallen(peak - (first << 20)))
    await heap.stop()

asyncio.run(main())
"""


def test_what_was_in_use_as_memory_was_given_back_is_given_back_later() -> None:
    """Half of a peak lasts longer: it falls as well, though the process never grew again."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_PEAKS],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert min(map(int, done.stdout.split())) > 200


def given_back(size: int, others: str, tries: int) -> int:
    """Return the MiB of 400 that a process gives back, of arrays of `size` that it let go of."""
    script = PEAK.replace("SIZE", str(size)).replace("OTHERS", others).replace("TRIES", str(tries))
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_what_a_peak_took_is_given_back(size: int) -> None:
    assert given_back(size, "[Heap(look_s=0.02)]", 3000) > 250


def test_the_allocator_alone_keeps_it() -> None:
    assert given_back(100_000, "[]", 5) < 100
