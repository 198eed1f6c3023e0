"""A daemon's process: one uvloop event loop, and an end that always comes."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence

import uvloop

from flowvis.runtime.component import Component, run

log = logging.getLogger(__name__)

EXIT_S = 5.0  # what worker threads get to return in after everything has stopped


def serve(components: Sequence[Component], *, grace_s: float) -> int:
    """Run components until a signal or a failure; return the exit code of the process.

    SIGHUP ends no daemon: a component may take it as a request to look at its files.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(run(components, grace_s=grace_s))
        last_resort = threading.Timer(EXIT_S, _exit_now)
        last_resort.daemon = True
        last_resort.start()
    last_resort.cancel()
    return code


def _exit_now() -> None:
    """Leave a process whose threads or tasks do not end: the loop would wait for them for ever."""
    threads = (thread for thread in threading.enumerate() if not thread.daemon)
    stuck = [thread.name for thread in threads if thread is not threading.main_thread()]
    log.error("exiting, although these do not end: %s", ", ".join(stuck) or "tasks")
    logging.shutdown()
    os._exit(1)
