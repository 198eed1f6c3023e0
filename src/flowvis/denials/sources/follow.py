"""A log file followed as it grows, across its rotation."""

import errno
import os
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from flowvis.counts import count

READ_BYTES = 1 << 20  # taken at once: some 6000 lines
MAX_LINE_BYTES = 4096  # names of Kubernetes objects have up to 253 bytes, of rules and labels 63


@dataclass(slots=True)
class LogFileStats:
    """How the file fared."""

    rotations: int = count("Times that the audit log was replaced by a new one")
    truncations: int = count("Times that the audit log was cut off")
    failures: int = count("Times that the audit log could not be read")
    oversize: int = count("Lines of the audit log that were too long to be one")


class Follower:
    """The lines that a file gains.

    What is there when following begins is old. A file that comes later, or takes the other's place,
    is read from its start; of the other, which has been renamed or removed, what came last as well.
    Old files that were renamed or compressed are not looked at. A file cut off and filled again
    beyond where we were between two reads cannot be told from one that has grown.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stats = LogFileStats()
        self._file: FileIO | None = None
        self._begun = False
        self._tail = b""
        self._skipping = False

    def close(self) -> None:
        """Let go of the file; may be called again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def read(self) -> list[bytes]:
        """Return whole lines that are new, as many as READ_BYTES have; OSError why it cannot."""
        try:
            return self._read()
        except FileNotFoundError:
            self._begun = True
            return []
        except OSError:
            self.stats.failures += 1
            raise

    def _read(self) -> list[bytes]:
        if self._file is None:
            self._open()
        lines = self._take()
        if lines or self._file is None:
            return lines
        there = self.path.stat()
        ours = os.fstat(self._file.fileno())  # after the new one was there: it grows no more
        if (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            lines = self._take()  # what came before the new one did
            if not lines and self._file.tell() >= ours.st_size:
                self.stats.rotations += 1
                lines = self._rest()
                self.close()
                self._open()
        elif there.st_size < self._file.tell():
            self.stats.truncations += 1
            self._rest()
            self._file.seek(0)
        return lines or self._take()

    def _open(self) -> None:
        # What is none may have us wait for whoever writes it.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no regular file", str(self.path))
        self._file = FileIO(descriptor)
        if not self._begun:
            self._file.seek(0, os.SEEK_END)
        self._begun = True

    def _take(self) -> list[bytes]:
        """Return the whole lines of what comes next in the file."""
        data = self._file.read(READ_BYTES) if self._file is not None else b""
        if not data:
            return []
        *lines, self._tail = (self._tail + data).split(b"\n")
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        if len(self._tail) > MAX_LINE_BYTES:
            self.stats.oversize += not self._skipping
            self._skipping = True
            self._tail = b""
        short = [line for line in lines if len(line) <= MAX_LINE_BYTES]
        self.stats.oversize += len(lines) - len(short)
        return short

    def _rest(self) -> list[bytes]:
        """Return what the file ended with, if that was no whole line."""
        rest = [self._tail] if self._tail and not self._skipping else []
        self._tail, self._skipping = b"", False
        return rest
