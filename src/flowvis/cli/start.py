"""What a process does first: signals can end it, also while all that it needs is imported."""

import os
import signal
from importlib import import_module
from types import FrameType


def flow_exporter() -> int:
    """Run the exporter; return the exit code."""
    return _main("exporter")


def flow_aggregator() -> int:
    """Run the aggregator; return the exit code."""
    return _main("aggregator")


def flowctl() -> int:
    """Run one command of flowctl; return the exit code."""
    return _main("flowctl")


def _main(name: str) -> int:
    end_by_signals()
    return int(import_module(f"flowvis.cli.{name}").main())


def end_by_signals() -> None:
    """Let SIGTERM and SIGINT end the process, without a traceback, until somebody takes them.

    The kernel spares the first process of a container what that has no handler for, so a kubelet
    would wait out the grace period of a Pod that it stops while it begins.
    """
    way = _leave if os.getpid() == 1 else signal.SIG_DFL
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, way)


def _leave(number: int, _: FrameType | None) -> None:
    """End at once: nothing has begun that would have to be put in order."""
    os._exit(128 + number)
