"""Signals, as an impatient operator or a supervisor sends them."""

import os
import signal
from threading import Event

from benchmarks.attacks import Findings, Target, attack


@attack("two-signals", ends=True)
def two_signals(target: Target, over: Event) -> Findings:
    """SIGTERM and SIGINT within a millisecond: the daemon ends in good order, once."""
    over.wait(1)
    os.kill(target.pid, signal.SIGTERM)
    os.kill(target.pid, signal.SIGINT)
    return {}
