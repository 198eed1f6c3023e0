"""The state file: what one exporter has reported, for the one that follows it on this node.

It is written at the end of a graceful stop. It lies where a reboot clears it, as a reboot clears
the kernel's connections; if it is older than it should be, something is reported twice, never lost.
"""

import logging
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np

from flowvis.exporter.tables.reported import Reported

log = logging.getLogger(__name__)

_NAMES = [field.name for field in fields(Reported)]


class ReportingTable(Protocol):
    """What has something to hand on."""

    def reported(self) -> Reported:
        """What was reported of connections that may go on."""

    def take_over(self, reported: Reported) -> None:
        """Know what the predecessor reported."""


class StateFile:
    """Component: hands what a table has reported on from one exporter to the next."""

    def __init__(
        self, directory: Path, node_name: str, table: ReportingTable, kind: str = ""
    ) -> None:
        self.name = f"state {kind}".strip()
        self.path = directory / f"{quote(node_name, safe='')}{kind and '.'}{kind}.npz"
        self._table = table

    async def start(self) -> None:
        """Take over what the predecessor reported, if there is one."""
        reported = load(self.path, like=self._table.reported())
        if reported is not None:
            self._table.take_over(reported)
            log.info("%s: %d connections are known", self.path, len(reported))

    async def stop(self) -> None:
        """Leave what was reported to the successor."""
        save(self.path, self._table.reported())


def load(path: Path, like: Reported) -> Reported | None:
    """Read columns of the form of `like`; None where that cannot be, with a log."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            reported = Reported(**{name: columns[name] for name in _NAMES})
        _check(reported, like)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: not used, so flows may be reported again: %s", path, error)
        return None
    return reported


def save(path: Path, reported: Reported) -> bool:
    """Write what was reported, whole or not at all; a log where that cannot be."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            np.savez(file, **{name: getattr(reported, name) for name in _NAMES})
        fresh.replace(path)
    except OSError as error:
        log.warning("%s: not written, so flows will be reported again: %s", path, error)
        return False
    return True


def _check(reported: Reported, like: Reported) -> None:
    for name in _NAMES:
        column, form = getattr(reported, name), getattr(like, name)
        if column.dtype != form.dtype or column.shape != (len(reported), *form.shape[1:]):
            raise ValueError(f"{name} is {column.dtype}{column.shape}")
