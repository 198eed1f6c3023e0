"""What the allocator keeps: free memory that a peak has left, and the system gets back.

glibc gives back by itself only what is free at the end of its heap, and a peak's arrays lie below
what came later and stayed. `malloc_trim(3)` gives back whole free pages wherever they are.
"""

import asyncio
import contextlib
import ctypes
import logging
import time

from flowvis.runtime.component import end, spawn
from flowvis.runtime.memory import resident

log = logging.getLogger(__name__)

LOOK_S = 60.0
KEPT_BYTES = 64 << 20
"""Free memory that the process keeps, as it is used again within moments."""


class _Mallinfo2(ctypes.Structure):
    """See mallinfo(3); what is free includes pages that were given back."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class Allocator:
    """glibc's, of this process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """AttributeError of a library that is another one, or older than 2.33."""
        self._info, self._trim = library.mallinfo2, library.malloc_trim
        self._info.restype = _Mallinfo2

    def free(self) -> int:
        """Return the bytes that are free, given back or not."""
        return int(self._info().fordblks)

    def used(self) -> int:
        """Return the bytes that are in use, touched or not."""
        info = self._info()
        return int(info.uordblks + info.hblkhd)

    def trim(self) -> None:
        """Give back what is free, but for some of what lies at the end."""
        self._trim(ctypes.c_size_t(KEPT_BYTES))


class Heap:
    """Component: gives back what is free, when that is much and was not given back already.

    Free memory that the process still has is what it has beside what is in use. That includes code
    and other allocators' memory, and not what nobody has touched yet: so only its growth counts.
    """

    name = "heap"

    def __init__(self, *, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._least = 0
        """The least that it had beside what was in use, since memory was given back last."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look, where there is an allocator that can be asked."""
        with contextlib.suppress(AttributeError):
            self._task = spawn(self.name, self._run(Allocator(ctypes.CDLL(None))))

    async def stop(self) -> None:
        """End."""
        await end(self._task)
        self._task = None

    async def _run(self, allocator: Allocator) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            await asyncio.to_thread(self._look, allocator)

    def _look(self, allocator: Allocator) -> None:
        """Without the GIL: only who allocates waits, for the heap that is being looked through."""
        beside = resident() - allocator.used()
        self._least = min(self._least, beside)
        if beside > self._least + 2 * KEPT_BYTES and allocator.free() > 2 * KEPT_BYTES:
            self._give_back(allocator)

    def _give_back(self, allocator: Allocator) -> None:
        before, used, began_s = resident(), allocator.used(), time.monotonic()
        allocator.trim()
        after = resident()
        self._least = after - max(used, allocator.used())  # others may have let go of some
        took_ms = 1000 * (time.monotonic() - began_s)
        log.debug("gave back %d MiB in %.1f ms", (before - after) >> 20, took_ms)
