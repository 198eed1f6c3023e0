"""Standard output as commands use it: it may be closed, full, or read by nobody any more."""

import io
import os
import sys
from collections.abc import Callable

from flowvis.runtime.visible import visible


def said(name: str, run: Callable[[], int]) -> int:
    """Run a command; return its exit code, when all that it has to say is out.

    What the system refuses is a line on standard error and 1; but who reads no more has seen
    enough, and where there is none nobody ever would.
    """
    code = 0
    _prepare()
    try:
        try:
            code = run()
        finally:
            sys.stdout.flush()  # here there is somebody who says what becomes of it
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        if not isinstance(error, BrokenPipeError):
            print(f"{name}: {visible(str(error))}", file=sys.stderr)
            code = code or 1
    return code


def _prepare() -> None:
    """Have a standard output that takes any text."""
    if sys.stdout is None:  # it was closed as the process began
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  to the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the locale has no letter for
