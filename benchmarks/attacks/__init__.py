"""What hostile neighbours do to a daemon: a module for each kind, a function for each attack.

An attack runs in a process of its own (`python -m benchmarks.attacks NAME TARGET`) until it is
asked to end, and says what it found. `benchmarks.hostile` starts the daemon, and watches what a
good exporter notices meanwhile.
"""

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Event
from types import ModuleType
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
    datagrams: bool = False
    """Whether the daemon takes IPFIX over UDP, from everybody."""
    endless: bool = False
    """Whether it was not made for this registry: a function that goes on until it is killed."""


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
    datagrams: bool = False,
) -> Callable[[Run], Run]:
    """Enter a function as an attack."""

    def enter(run: Run) -> Run:
        _found[name] = Attack(name, run, prepare, store, ends, sink, datagrams)
        return run

    return enter


def attacks() -> dict[str, Attack]:
    """All of them, by name."""
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            endless = [work for work in vars(module).values() if _is_endless(work, module)]
            for work in endless:
                name = work.__name__.replace("_", "-")
                run = _until_over(work)
                _found.setdefault(
                    name,
                    Attack(name, run, _nothing, Store.NONE, ends=False, sink=True, endless=True),
                )
    return dict(_found)


def _is_endless(work: object, module: ModuleType) -> bool:
    """Whether it is an attack on a port, with certificates, that goes on until it is killed."""
    if not inspect.isfunction(work) or work.__module__ != module.__name__:
        return False
    parameters = list(inspect.signature(work).parameters)
    public = not work.__name__.startswith("_") and not hasattr(module, "OF_ANOTHER_PORT")
    return public and parameters[:1] == ["port"] and len(parameters) == 2


def _until_over(work: Callable[[int, Path], None]) -> Run:
    """An attack that has no end of its own."""

    def run(target: Target, over: Event) -> Findings:
        arguments = (target.port, target.directory)
        threading.Thread(target=work, args=arguments, daemon=True).start()
        over.wait()
        return {}

    run.__doc__ = work.__doc__
    return run
