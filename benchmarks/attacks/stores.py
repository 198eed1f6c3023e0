"""Stores and collectors that do not do their part."""

import os
import signal
import time
from threading import Event

from benchmarks.attacks import Findings, Store, Target, attack
from flowvis.cli.client import ControlClient

REPORTED_S = 10.0


@attack("store-frozen", store=Store.SERVER)
def store_frozen(target: Target, over: Event) -> Findings:
    """A ClickHouse that neither answers nor hangs up: a problem in /status within seconds."""
    os.kill(target.store_pid, signal.SIGSTOP)
    began, reported = time.monotonic(), float("inf")
    client = ControlClient(target.control)
    try:
        while not over.wait(0.2):
            problems = [each["problem"] for each in client.get("status")["destinations"]]
            if any(problems):
                reported = min(reported, time.monotonic() - began)
    finally:
        os.kill(target.store_pid, signal.SIGCONT)
    return {"reported_s": round(min(reported, 999), 1), "held": reported <= REPORTED_S}
