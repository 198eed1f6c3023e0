"""The state file: what one exporter has told, for the one that follows it on this node.

It is written at the end of a graceful stop. It lies where a reboot clears it, as a reboot clears
the kernel's connections; if it is older than it should be, something is told twice, never lost.
"""

import logging
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np

from flowvis.exporter.told import Told

log = logging.getLogger(__name__)

_NAMES = [field.name for field in fields(Told)]


class Table(Protocol):
    """What has something to hand on."""

    def told(self) -> Told:
        """What was told of connections that may go on."""

    def take_over(self, told: Told) -> None:
        """Know what the predecessor told."""


class State:
    """Component: hands what a table has told on from one exporter to the next."""

    def __init__(self, directory: Path, node_name: str, table: Table, kind: str = "") -> None:
        self.name = f"state {kind}".strip()
        self.path = directory / f"{quote(node_name, safe='')}{kind and '.'}{kind}.npz"
        self._table = table

    async def start(self) -> None:
        """Take over what the predecessor told, if there is one."""
        told = load(self.path, like=self._table.told())
        if told is not None:
            self._table.take_over(told)
            log.info("%s: %d connections are known", self.path, len(told))

    async def stop(self) -> None:
        """Leave what was told to the successor."""
        save(self.path, self._table.told())


def load(path: Path, like: Told) -> Told | None:
    """Read columns of the form of `like`; None where that cannot be, with a log."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            told = Told(**{name: columns[name] for name in _NAMES})
        _check(told, like)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: not used, so flows may be told again: %s", path, error)
        return None
    return told


def save(path: Path, told: Told) -> bool:
    """Write what was told, whole or not at all; a log where that cannot be."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            np.savez(file, **{name: getattr(told, name) for name in _NAMES})
        fresh.replace(path)
    except OSError as error:
        log.warning("%s: not written, so flows will be told again: %s", path, error)
        return False
    return True


def _check(told: Told, like: Told) -> None:
    for name in _NAMES:
        column, form = getattr(told, name), getattr(like, name)
        if column.dtype != form.dtype or column.shape != (len(told), *form.shape[1:]):
            raise ValueError(f"{name} is {column.dtype}{column.shape}")
