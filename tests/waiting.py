"""Waiting for what happens by itself: with one patience, which a busy machine does not use up."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 45.0
LOOK_S = 0.01


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Let the loop run until a condition is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        await asyncio.sleep(LOOK_S)


def block_until(condition: Callable[[], object], what: Callable[[], object] = str) -> None:
    """Wait for other processes or threads; `what` tells how things are when they did not."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"it never came true: {what()}"
        time.sleep(LOOK_S)
