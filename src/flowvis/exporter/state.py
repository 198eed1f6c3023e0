"""The state file: what one exporter has exported, for the one that follows it on this node.

It is kept as records are made, and whole at the end of a graceful stop: of what an exporter that
was killed has sent, nothing is sent again. It lies where a reboot clears it, as a reboot clears the
kernel's connections; where one did not, those that were open then are counted as missed.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from flowvis.batch import Batch
from flowvis.exporter.journal import Journal, OfAnotherBoot
from flowvis.exporter.tables.reported import Reported

log = logging.getLogger(__name__)

AGAIN_S = 10.0  # after the file could not be written: all of its rows are then


class HandingOnTable(Protocol):
    """What has something to hand on."""

    max_connections: int

    def reported(self) -> Reported:
        """What was exported of connections that may go on."""

    def take_over(self, reported: Reported) -> None:
        """Know what the predecessor exported."""

    def miss(self, reported: Reported) -> None:
        """Count what ended unobserved, of what the predecessor exported: all of it is over."""

    def keep_to(self, keep: Callable[[Batch, Reported], None]) -> None:
        """Let records be kept from now on as they are taken, before anybody can send them."""


class StateFile:
    """Component: hands what a table has exported on from one exporter to the next."""

    def __init__(
        self,
        directory: Path,
        node_name: str,
        table: HandingOnTable,
        kind: str = "",
        *,
        keep: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        """`keep` has records written before what is reported with them is."""
        self.name = f"state {kind}".strip()
        path = directory / f"{quote(node_name, safe='')}{kind and '.'}{kind}.state"
        self.journal = Journal(path, table.reported(), max_connections=table.max_connections)
        self._table = table
        self._keep = keep
        self._failing = False
        self._again_at_s = 0.0  # to be written anew where it lacks rows, by the monotonic clock
        self._handed_on = False

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.journal.path

    async def start(self) -> None:
        """Take over what the predecessor exported, if there is one; go on with its file."""
        try:
            reported = self.journal.read()
        except OfAnotherBoot as before:
            self._table.miss(before.reported)
            log.info("%s: the connections in it ended as the machine was started anew", self.path)
            reported = None
        except (OSError, ValueError) as error:
            log.warning("%s: not used, so flows may be exported again: %s", self.path, error)
            reported = None
        if reported is not None:
            self._table.take_over(reported)
            log.info("%s: %d connections are known", self.path, len(reported))
        self._rewrite()
        self._table.keep_to(self._note)

    async def stop(self) -> None:
        """Leave what was exported to the successor, unless it has begun already."""
        self._rewrite()
        self.journal.close()

    def _note(self, records: Batch, reported: Reported) -> None:
        self._keep(records)
        if self._handed_on or not len(reported):
            return
        whole = False
        try:
            whole = self.journal.append(reported)
        except OSError as error:
            self._warn(error)
        if self.journal.is_long or (not whole and time.monotonic() >= self._again_at_s):
            self._rewrite()

    def _rewrite(self) -> None:
        if self._handed_on or self.journal.is_anothers:
            if not self._handed_on:
                log.warning("%s: another exporter has taken it over: one to a node", self.path)
            self._handed_on = True
            self.journal.close()
            return
        try:
            self.journal.rewrite(self._table.reported())
        except OSError as error:
            self._warn(error)
        else:
            self._failing = False

    def _warn(self, error: OSError) -> None:
        self._again_at_s = time.monotonic() + AGAIN_S
        if not self._failing:
            log.warning(
                "%s: not written, so a restart may export flows again: %s", self.path, error
            )
        self._failing = True
