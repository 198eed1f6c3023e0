"""Waiting for what happens by itself: with one patience, which a busy machine does not use up."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 90.0
LONG_S = 290.0
"""The patience with what takes half a minute where nothing else runs."""
LOOK_S = 0.01

Found = TypeVar("Found")


async def until(
    condition: Callable[[], object],
    what: str = "it",
    *,
    state: Callable[[], object] = lambda: "",
) -> None:
    """Let the loop run until a condition is true.

    `state` tells how things are when it never is.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true: {state()}"
        await asyncio.sleep(LOOK_S)


def block_until(
    look: Callable[[], Found],
    state: Callable[[], object] = lambda: "",
    *,
    despite: tuple[type[Exception], ...] = (),
    patience_s: float = PATIENCE_S,
) -> Found:
    """Wait for other processes or threads; return the first thing that is found, if it is true.

    `state` tells how things are when nothing was; an error of `despite` is one more reason to wait.
    """
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(*despite):
            if found := look():
                return found
        assert time.monotonic() < deadline, f"it never came true: {state()}"
        time.sleep(LOOK_S)
