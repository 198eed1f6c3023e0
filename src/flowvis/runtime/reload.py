"""Follows the configuration file, and has what changed in it taken up.

kubelet replaces a mounted ConfigMap by swapping a symbolic link, hence contents are compared, not
dates. SIGHUP makes it look at once, and try again what was refused: the cause may have been mended
elsewhere, in a file that it names. A file that has nothing any more is refused: a disk that is full
leaves such a one to who writes it, and to be without destinations is not what that meant.
"""

import asyncio
import contextlib
import logging
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from flowvis.errors import SettingsError
from flowvis.runtime.component import end, spawn
from flowvis.runtime.configuration import Configuration
from flowvis.runtime.documents import MAX_DOCUMENT_BYTES
from flowvis.runtime.signals import handle, ignore

log = logging.getLogger(__name__)

S = TypeVar("S")

LOOK_EVERY_S = 2.0
SETTLE_S = 0.2  # a file that an editor writes in place is empty for a moment, which is valid


class Reload(Generic[S]):
    """Component: looks at the file while it runs; the last to start, as it changes the others."""

    name = "configuration file"

    def __init__(
        self,
        path: Path,
        data: bytes,
        load: Callable[[bytes], S],
        configuration: Configuration[S],
        announce: Callable[[S], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`data` is what the file had when the daemon was built.

        `load` raises SettingsError; `announce` logs what follows from changed settings.
        """
        self._path = path.absolute()  # while chdb is imported the working directory is another
        self._seen: bytes | str = data
        self._was_empty = not data.strip()
        """Of the last one that was valid."""
        self._load = load
        self._configuration = configuration
        self._announce = announce
        self._look_every_s = look_every_s
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look; what comes through a pipe cannot change."""
        handle(signal.SIGHUP, lambda *_: self._asked.set())
        if self._may_change():
            self._task = spawn(self.name, self._follow())
        else:
            log.info("%s is no file: changes need a restart", self._path)

    async def stop(self) -> None:
        """Look no more; SIGHUP stays harmless."""
        ignore(signal.SIGHUP)
        await end(self._task)

    async def _follow(self) -> None:
        while True:
            asked = self._asked.is_set()
            self._asked.clear()
            if not await self._look(again=asked) and asked:
                log.info("SIGHUP: %s has not changed", self._path)
            # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._asked.wait()

    async def _look(self, *, again: bool) -> bool:
        """Read the file, and take up what has changed; whether there was anything.

        `again`: also what has not, if it is not in force.
        """
        found, before = await asyncio.to_thread(self._read), self._seen
        while found != before:
            await asyncio.sleep(SETTLE_S)
            before, found = found, await asyncio.to_thread(self._read)
        changed = found != self._seen
        if not changed and not (again and self._configuration.problems):
            return False
        self._seen = found
        try:
            content = self._content(found)
            settings = await asyncio.to_thread(self._load, content)  # a large one takes seconds
            self._was_empty = not content.strip()
        except SettingsError as error:
            self._configuration.refuse(error.problems)
            return True
        except Exception as error:
            log.exception("%s: a defect of ours", self._path)
            name = type(error).__name__
            self._configuration.refuse([f"{self._path}: a defect of ours, in the log: {name}"])
            return True
        log.info("%s has changed" if changed else "SIGHUP: %s is tried again", self._path)
        if await self._configuration.take(settings):
            self._announce(self._configuration.in_force)
        return True

    def _may_change(self) -> bool:
        """Whether it is a file, or one that is away at the moment."""
        try:
            mode = self._path.stat().st_mode
        except OSError:
            return True
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def _read(self) -> bytes | str:
        """Return the file's content, or in words why there is none."""
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            return f"{self._path}: {error.strerror}"

    def _content(self, found: bytes | str) -> bytes:
        if isinstance(found, str):
            raise SettingsError([found])
        if not self._was_empty and not found.strip():
            hint = "it is empty, and was not: {} says that all options have their defaults"
            raise SettingsError([f"{self._path}: {hint}"])
        return found
