"""A directory that one process has for itself, and files that grow by what is whole."""

import errno
import fcntl
import math
import os
import time
from contextlib import suppress
from pathlib import Path

HANDOVER_S = 30.0  # for a process before this one to let go of a directory


class OwnDirectory:
    """A directory with a lock in it, which ends with the process that has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def is_taken(self) -> bool:
        """Whether it is ours."""
        return self._lock is not None

    def take(self) -> None:
        """Make it ours; BlockingIOError where another process has it, OSError else."""
        if self._lock is not None:
            return
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def leave(self) -> None:
        """Let go of it; may be called again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def flush_names(self) -> None:
        """Have the directory itself on disk: a file's own flush does not bring its name there."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Handover:
    """A wait for the process that has a directory to leave it; it begins when it is first asked."""

    def __init__(self, wait_s: float = HANDOVER_S) -> None:
        self._wait_s = wait_s
        self._until_s: float | None = None

    def goes_on(self) -> bool:
        """Whether there is time left."""
        if self._until_s is None:
            self._until_s = time.monotonic() + self._wait_s
        return time.monotonic() < self._until_s

    def give_up(self) -> None:
        """Wait no more: there is nobody to wait for."""
        self._until_s = -math.inf


def private(path: str, flags: int) -> int:
    """Open a file, as `open` has its opener do, that nobody else may read where it is new."""
    return os.open(path, flags, 0o600)


def append_whole(descriptor: int, size: int, data: bytes | memoryview) -> None:
    """Append to a file of `size` bytes all of the data or, with OSError, nothing.

    A write is the kernel's at once: only the end of the machine loses it.
    """
    written = 0
    try:
        written = os.write(descriptor, data)
    finally:
        if written < len(data):
            with suppress(OSError):
                os.ftruncate(descriptor, size)
    if written < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
