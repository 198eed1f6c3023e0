"""What hostile neighbours do to a daemon: a module for each kind, a function for each attack.

An attack runs in a process of its own (`python -m benchmarks.attacks NAME TARGET`) until it is
asked to end, and says what it found. `benchmarks.hostile` starts the daemon, and watches what a
good exporter notices meanwhile.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Event
from typing import Any

ATTACKER = "127.0.0.2"
"""Whom attacks come from; good exporters are at 127.0.0.1."""

Findings = dict[str, Any]
"""What an attack saw; `held` is False where what must not be was. JSON."""


@dataclass(frozen=True)
class Target:
    """The daemon under attack."""

    port: int
    status_port: int
    pid: int
    store_pid: int
    """Of the ClickHouse server; 0 without one."""
    directory: Path
    """Certificates (ca, client: PEM), the control socket `control.sock`, the daemon's `log`."""

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def log(self) -> Path:
        return self.directory / "log"


class Store(Enum):
    """The store that an attack needs behind the aggregator."""

    NONE = "none"
    EMBEDDED = "embedded"
    SERVER = "server"


Run = Callable[[Target, Event], Findings]
Prepare = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Attack:
    """One of them; its description is the function's docstring."""

    name: str
    run: Run
    prepare: Prepare
    """Writes what the daemon is to find into a directory; returns settings of the daemon."""
    store: Store
    ends: bool
    """Whether the daemon is to end by it, in good order."""
    sink: bool
    """Whether the good records are looked for at the IPFIX sink; else in the API's stream."""


_found: dict[str, Attack] = {}


def _nothing(_: Path) -> dict[str, Any]:
    return {}


def attack(
    name: str,
    *,
    prepare: Prepare = _nothing,
    store: Store = Store.NONE,
    ends: bool = False,
    sink: bool = True,
) -> Callable[[Run], Run]:
    """Enter a function as an attack."""

    def enter(run: Run) -> Run:
        _found[name] = Attack(name, run, prepare, store, ends, sink)
        return run

    return enter


def attacks() -> dict[str, Attack]:
    """All of them, by name."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(_found)
