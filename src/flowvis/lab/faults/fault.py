"""What a fault is: what happens, when, and what it may change of the verdict."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from flowvis.errors import SystemRefused
from flowvis.lab.measured import Row
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

Settings = Mapping[str, Any]
"""A part of a daemon's configuration file."""

Action = Callable[["Lab"], Awaitable[None]]
"""What happens, from its begin to its end."""

SOON: Settings = {"correlationTimeout": "5s"}
"""Of an aggregator: halves whose other half nobody saw are stored before the run is over."""

AWAY = 0.25  # of the run: back before Pods come and go
LOOK_S = 0.2
DAMAGE_BYTES = 64


@dataclass(frozen=True)
class Fault:
    """A fault; `begin` says when, as a part of the run."""

    about: str
    run: Action | None = None
    """None: it is the traffic of the scenarios that name it, or the settings below."""
    begin: float = 0.5
    splits: bool = False
    """The aggregator is replaced: the halves of a connection may be stored side by side."""
    deafens: bool = False
    """An exporter is away: what only events and logs tell is not observed meanwhile."""
    by_sums: bool = False
    """The plain sums of the store are judged, against the witness and the losses in the books: what
    else records say depends on when which of them came."""
    links: bool = False
    """There are relays between exporters and aggregator, and between aggregator and store."""
    server: bool = False
    """The store is a ClickHouse server, and not the embedded engine."""
    prepare: Callable[["Lab"], None] | None = None
    """What must be in place before the daemons start."""
    judge: "Callable[[Lab, Sequence[Row]], list[str]] | None" = None
    """What is wrong with all that is stored, beside what every run is judged by."""
    aggregator: Settings = field(default_factory=dict)
    """Settings of the aggregator in the runs with it."""
    exporter: Settings = field(default_factory=dict)


async def pass_while_away(lab: "Lab", share: float = AWAY) -> None:
    """Let the part of the run pass in which something is away."""
    await asyncio.sleep(share * lab.duration_s)


async def again_and_again(
    lab: "Lab", during: tuple[float, float], pause_s: tuple[float, float]
) -> AsyncIterator[None]:
    """Go on for a part of the run, with pauses of random lengths in between."""
    loop = asyncio.get_running_loop()
    begin, end = during
    over = loop.time() + (end - begin) * lab.duration_s
    while loop.time() < over:
        yield
        await asyncio.sleep(lab.random.uniform(*pause_s))


def damage(path: Path, random: Random) -> bool:
    """Write over a part of a file; return whether it is large enough for that."""
    size = path.stat().st_size
    if size <= DAMAGE_BYTES:
        return False
    with path.open("r+b") as file:
        file.seek(random.randrange(size - DAMAGE_BYTES))
        file.write(random.randbytes(DAMAGE_BYTES))
    return True


async def until(
    condition: Callable[[], Awaitable[bool]], within_s: float, daemon: DaemonProcess, what: str
) -> None:
    """Wait for a condition; SystemRefused, with the daemon's log, where it does not come true.

    Where nobody can tell, as another fault has ended who is asked (OSError), it is not true yet.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        with contextlib.suppress(OSError):
            if await condition():
                return
        if loop.time() > deadline:
            raise SystemRefused(daemon.complain(f"{what} in {within_s:g} s"))
        await asyncio.sleep(LOOK_S)
