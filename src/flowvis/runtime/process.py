"""A daemon's process: one uvloop event loop, and an end that always comes."""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import threading
from collections.abc import Sequence

import uvloop

from flowvis.runtime.component import Component, run
from flowvis.runtime.heap import KEPT_BYTES
from flowvis.runtime.signals import ignore

log = logging.getLogger(__name__)

# Of mallopt(3). The columns of a batch are some MB, and as many again within milliseconds: from the
# system each time, their pages are zeroed first, which takes as long as to fill them.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAPPED_BYTES = 32 << 20  # what is larger is the system's again at once; the most that glibc takes

EXIT_S = 5.0  # what worker threads get to return in after everything has stopped, and once more


def serve(components: Sequence[Component], *, grace_s: float) -> int:
    """Run components until a signal or a failure; return the exit code of the process.

    SIGHUP ends no daemon: a component may take it as a request to look at its files.
    """
    ignore(signal.SIGHUP)
    _keep_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run(components, grace_s=grace_s))
        last_resort = end_soon()
    last_resort.cancel()
    return code


def end_soon() -> threading.Timer:
    """Have the process end in a moment, whatever its threads do, unless that is cancelled.

    The interpreter waits for the threads of executors before it ends, for ever if they hang.
    """
    last_resort = threading.Timer(EXIT_S, _exit_now)
    last_resort.daemon = True
    last_resort.start()
    return last_resort


def _keep_memory() -> None:
    """Have what is allocated again and again cost less, where there is a mallopt."""
    gc.freeze()  # what was imported stays: it need not be searched for garbage
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def _exit_now() -> None:
    """Leave a process whose threads or tasks do not end: the loop would wait for them for ever."""
    threads = (thread for thread in threading.enumerate() if not thread.daemon)
    stuck = [thread.name for thread in threads if thread is not threading.main_thread()]
    log.error("exiting, although these do not end: %s", ", ".join(stuck) or "tasks")
    logging.shutdown()
    os._exit(1)
