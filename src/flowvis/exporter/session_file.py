"""The session file: an exporter's own sessions, for the one that follows it on this node.

The kernel lists a session for two minutes after its end. Whoever comes then would take its
predecessor's for a flow, with all that it ever sent.
"""

import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from flowvis.exporter.tables.own_sessions import TCP, Endpoint, OwnSessions
from flowvis.runtime.directory import append_whole, private

log = logging.getLogger(__name__)

KEPT = 256
"""Of the latest attempts: more than two minutes have."""

MOST_BYTES = 4 * KEPT * 128  # that are read: a line has less than 128


class SessionFile:
    """Component: knows the sessions of exporters before, and keeps its own for who follows.

    A line is local address and port, remote address and port, and the protocol.
    """

    name = "own sessions"

    def __init__(self, directory: Path, node_name: str, own: OwnSessions) -> None:
        self.path = directory / f"{quote(node_name, safe='')}.sessions"
        self._own = own
        self._latest: deque[str] = deque(maxlen=KEPT)
        self._lines = 0
        self._failing = False

    async def start(self) -> None:
        """Leave out the sessions of exporters before."""
        try:
            with self.path.open("rb") as file:
                text = file.read(MOST_BYTES).decode("ascii", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: not read, so the sessions in it are exported: %s", self.path, error)
            return
        lines = text.splitlines()
        self._lines = len(lines)
        for line in lines[-KEPT:]:
            with suppress(ValueError):  # its writer may have been killed
                self._own.add(*_session(line))
                self._latest.append(line)
        if not text.endswith("\n"):
            self._lines = 2 * KEPT  # written anew with the next: nothing goes on in half a line

    async def stop(self) -> None:
        """Leave the file to the next one."""

    def add(self, local: Endpoint, remote: Endpoint, protocol: int = TCP) -> None:
        """Note an attempt to connect."""
        self._own.add(local, remote, protocol)
        line = f"{local[0]} {local[1]} {remote[0]} {remote[1]} {protocol}"
        self._latest.append(line)
        self._lines += 1
        try:
            if self._lines > 2 * KEPT:
                self._rewrite()
            else:
                self._append(line)
        except OSError as error:
            if not self._failing:
                text = "%s: not written, so the next exporter exports our session: %s"
                log.warning(text, self.path, error)
            self._failing = True
        else:
            self._failing = False

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            append_whole(descriptor, os.fstat(descriptor).st_size, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def _rewrite(self) -> None:
        """Write the latest alone."""
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with open(fresh, "w", opener=private) as file:
                file.write("".join(f"{line}\n" for line in self._latest))
            fresh.replace(self.path)
        except OSError:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)  # it may have what was left of the disk
            raise
        self._lines = len(self._latest)


def _session(line: str) -> tuple[Endpoint, Endpoint, int]:
    """Return what a line says; ValueError where it says nothing."""
    local, local_port, remote, remote_port, protocol = line.split()
    numbers = int(local_port), int(remote_port), int(protocol)
    if not all(0 <= number <= 0xFFFF for number in numbers):
        raise ValueError(line)
    return (local, numbers[0]), (remote, numbers[1]), numbers[2]
