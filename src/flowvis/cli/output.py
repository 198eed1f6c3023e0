"""Standard output as commands use it: it may be closed, full, or read by nobody any more."""

import os
import sys
from collections.abc import Callable

from flowvis.runtime.visible import visible


def said(name: str, run: Callable[[], int]) -> int:
    """Run a command; return its exit code, when all that it has to say is out.

    What the system refuses is a line on standard error and 1; but who reads no more has seen
    enough.
    """
    code = 0
    try:
        try:
            code = run()
        finally:
            if sys.stdout is not None:  # it was open as the process began
                sys.stdout.flush()  # here there is somebody who says what becomes of it
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        if not isinstance(error, BrokenPipeError):
            print(f"{name}: {visible(str(error))}", file=sys.stderr)
            code = code or 1
    return code
