"""Signals that a daemon takes as requests.

The handlers are the process's own and not the event loop's: a loop that ends resets those to what
kills.
"""

import asyncio
import ctypes
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

SYSTEM = ctypes.CDLL(None)


def handle(number: signal.Signals, function: Callable[[int, Any], object]) -> None:
    """Have the running loop call a function, with the number and a frame, at each such signal.

    The handler itself is compiled: one in Python may be interrupted by the next signal, this one by
    the one after, and so on until the interpreter has no room to call anything.
    """
    call: Callable[..., object] = asyncio.get_running_loop().call_soon_threadsafe  # uvloop's, in C
    signal.signal(number, partial(call, function))


def ignore(number: signal.Signals) -> None:
    """Ignore a signal from now on, until the process has ended: other handlers Python resets."""
    # First at the system alone: of one that comes while Python changes hands it would complain.
    SYSTEM.signal(int(number), ctypes.c_void_p(int(signal.SIG_IGN)))
    signal.signal(number, signal.SIG_IGN)
