"""The process of a daemon, as `serve` sets it up."""

import subprocess
import sys

from waiting import PATIENCE_S

CHURN = """
import asyncio, gc, resource, sys
import numpy as np
from flowvis.runtime.process import serve

class Churn:
    name = "churn"
    async def start(self):
        for _ in range(3):
            np.ones(12 << 20, dtype=np.uint8)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(12 << 20, dtype=np.uint8)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(faults, gc.get_freeze_count())
        asyncio.get_running_loop().call_soon(signal_itself)
    async def stop(self):
        pass

def signal_itself():
    import os, signal
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(serve([Churn()], grace_s=1))
"""


def test_memory_is_used_again_without_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHURN],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        env={"NUMPY_MADVISE_HUGEPAGE": "0"},  # else a fault is of any size
    )
    faults, frozen = map(int, done.stdout.split())
    assert faults < 100  # 3,072 pages each time otherwise
    assert frozen > 10_000
