"""A file that lines are appended to, and that is put aside when it is large.

What was put aside is beside it, `flows-2026-11-28T16-01-02.345678.log` or, compressed, the same
with `.gz`. It is deleted when there are too many of them or they are too old.
"""

import contextlib
import errno
import gzip
import os
import select
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flowvis.runtime.directory import private

GZIP, PART = ".gz", ".part"
"""What is behind the names of compressed files, and of what becomes one."""
PRIVATE = 0o600
STAMP = "%Y-%m-%dT%H-%M-%S.%f"
DAY_S = 86_400
TIDY_S = 3600.0  # how often the age of what was put aside is looked at
STEP_S = 60.0  # by which clocks are set back while nobody notices
ROOM_MS = 1000
OUTPUTS = (1, 2)  # standard output, and error
TAIL = 1 << 20  # looked through at a time for the end of the last whole line
LONGEST = 16 << 20  # of a line: of the texts that an exporter may bring it has 2 MB


@dataclass(frozen=True)
class Rotation:
    """When a file is put aside, and what is kept of these."""

    max_bytes: int
    """0: it is never put aside."""
    max_backups: int
    """0: all are kept."""
    max_age_s: float
    """0: for ever."""
    compress: bool


def _at_once(work: Callable[[], None]) -> None:
    work()


class RotatedFile:
    """A log file. What is a terminal, a pipe, /dev/null or our own output is only written to.

    Methods do I/O, and raise OSError. `tidy` takes seconds, and may run beside all others: `beside`
    is given it to call, by default at once.
    """

    def __init__(
        self,
        path: Path,
        rotation: Rotation,
        clock: Callable[[], float] = time.time,
        beside: Callable[[Callable[[], None]], object] = _at_once,
    ) -> None:
        self.path = path
        self._rotation = rotation
        self._clock = clock
        self._beside = beside
        self._ended = False
        self._file: int | None = None
        self._known: tuple[int, int] | None = None
        """Device and number of the file that is open; None of what is no regular file."""
        self._tidied_s = 0.0
        self._part = b""  # that a pipe has of lines which did not go into it whole

    @property
    def begun(self) -> bytes:
        """What a pipe has of the lines that did not go into it whole."""
        return self._part

    def follow(self, before: "RotatedFile") -> None:
        """Go on behind the part of a line that another one, that is over, has left in a pipe."""
        if before.path == self.path:
            self._part = before.begun[before.begun.rfind(b"\n") + 1 :]

    def append(self, lines: bytes) -> None:
        """Write whole lines; after an error none of them is in the file.

        A pipe may have a part of them: given the same lines again it goes on, and others follow
        what it has of a line as a line of their own.
        """
        file = self._opened(len(lines))
        if not 0 <= self._clock() - self._tidied_s <= TIDY_S:
            self._tidied_s = self._clock()
            self._beside(self.try_to_tidy)
        before = os.fstat(file).st_size
        if not lines.startswith(self._part):
            self._end_line(file)
        left = memoryview(lines)[len(self._part) :]
        try:
            while left:
                if self._known is None:
                    _await_room(file)
                left = left[_write(file, left) :]
        except OSError:
            if self._known is None:
                self._part = lines[: len(lines) - len(left)]
            else:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, before)
            raise
        self._part = b""

    def _end_line(self, pipe: int) -> None:
        """End what a pipe has of lines that do not come again."""
        if not self._part.endswith(b"\n"):
            _await_room(pipe)
            _write(pipe, b"\n")
        self._part = b""

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        file, self._file, self._known = self._file, None, None
        if file is not None:
            os.close(file)  # also where that fails, as with a server's disk that is full

    def tidy(self) -> None:
        """Delete and compress what was put aside, as the rotation says.

        In this order: a disk without room to compress gets it by what is deleted.
        """
        self._tidied_s = self._clock()
        if self._known is None:
            return
        for _, part in self._beside_it(PART):
            part.unlink(missing_ok=True)  # whoever compressed it was killed, or is over
        kept: list[Path] = []
        oldest_s = self._clock() - self._rotation.max_age_s
        for place, (moment_s, path) in enumerate(self._backups()):
            too_many = 0 < self._rotation.max_backups <= place
            too_old = self._rotation.max_age_s and moment_s < oldest_s
            if too_many or too_old:
                path.unlink(missing_ok=True)
            else:
                kept.append(path)
        for path in kept:
            if self._rotation.compress and not path.name.endswith(GZIP):
                _compress(path, lambda: self._ended)

    def try_to_tidy(self) -> None:
        """Writing goes on where there is no room to compress; an hour later it is tried again."""
        with contextlib.suppress(OSError):
            self.tidy()

    def end(self) -> None:
        """Compress no more; what is being compressed is left as it is."""
        self._ended = True

    def _opened(self, coming: int) -> int:
        """The file to write so many bytes to."""
        if self._file is not None and self._was_moved(self._file):
            self._part = self._part[: self._part.rfind(b"\n") + 1]  # another pipe has no half line
            self.close()
        if self._file is None:
            self._open()
        limit = self._rotation.max_bytes
        if self._known is not None and limit and self._file is not None:
            size = os.fstat(self._file).st_size
            if size and size + coming > limit:
                self._put_aside(self._file)
        if self._file is None:
            raise OSError(f"{self.path} is closed")
        return self._file

    def _open(self, mode: int = PRIVATE) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        # A regular file is read as well, for its end; of a pipe the reader may be away or slow.
        flags |= os.O_RDWR if _is_regular(self.path) else os.O_WRONLY | os.O_NONBLOCK
        try:
            file = os.open(self.path, flags, PRIVATE)
        except OSError as error:
            if error.errno != errno.ENXIO or not self.path.is_socket():
                raise
            file = _own_socket(self.path)
        about = os.fstat(file)
        self._file = file
        if stat.S_ISREG(about.st_mode) and not _is_output(about):
            self._known = about.st_dev, about.st_ino
            if not about.st_size:
                _grant(file, mode)
            try:
                _end_at_a_line(file, about.st_size)
            except OSError:
                self.close()  # nothing is to follow half a line
                raise
            self._beside(self.try_to_tidy)

    def _was_moved(self, file: int) -> bool:
        """Whether somebody else put what is open aside, deleted it or made it anew."""
        about = os.fstat(file)
        if self._known is None and stat.S_ISREG(about.st_mode):
            return False  # our own output
        try:
            return not os.path.samestat(self.path.stat(), about)
        except FileNotFoundError:
            return self._known is not None  # a pipe's place is for who makes the next one

    def _put_aside(self, file: int) -> None:
        """Begin a new file, which those may read who could read this one."""
        mode = stat.S_IMODE(os.fstat(file).st_mode)
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime(STAMP)
        path = self.path.resolve()  # it may be a link, which stays
        try:
            path.rename(path.with_name(f"{path.stem}-{moment}{path.suffix}"))
        except OSError as error:
            why = f"it is of maxSize, and cannot be put aside: {error.strerror}"
            raise OSError(error.errno, why) from error
        self.close()
        self._open(mode)

    def _backups(self) -> list[tuple[float, Path]]:
        """What was put aside before, with when: the last one first.

        What seems to be put aside later than now is of a clock that was ahead, hence old.
        """
        known_s = self._clock() + STEP_S
        found = [*self._beside_it(""), *self._beside_it(GZIP)]
        return sorted(found, key=lambda one: (one[0] <= known_s, one), reverse=True)

    def _beside_it(self, ending: str) -> list[tuple[float, Path]]:
        """The files whose names are of what was put aside, with this behind, with when it was."""
        found, own = [], self.path.resolve()
        end = f"{own.suffix}{ending}"
        for path in own.parent.iterdir():
            if not path.name.startswith(f"{own.stem}-") or not path.name.endswith(end):
                continue
            moment = path.name[len(own.stem) + 1 : len(path.name) - len(end)]
            with contextlib.suppress(ValueError):
                at = datetime.strptime(moment, STAMP).replace(tzinfo=UTC)
                found.append((at.timestamp(), path))
        return found


def _grant(file: int, mode: int) -> None:
    """Let those read a file of ours who may by this mode."""
    if mode != PRIVATE:
        with contextlib.suppress(OSError):  # some volumes have one mode for all
            os.fchmod(file, mode)


def _is_regular(path: Path) -> bool:
    """Whether a path is that of a regular file, or will be."""
    return not path.exists() or path.is_file()


def _own_socket(path: Path) -> int:
    """Return what writes to standard output or error where that is a socket, as systemd has it."""
    about = path.stat()
    for file in OUTPUTS:
        if os.path.samestat(about, os.fstat(file)):
            return os.dup(file)
    raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def _is_output(about: os.stat_result) -> bool:
    """Whether a file is our standard output or error: whoever made it so puts it aside."""
    for file in OUTPUTS:
        with contextlib.suppress(OSError):  # it may be closed
            if os.path.samestat(about, os.fstat(file)):
                return True
    return False


def _write(file: int, data: bytes | memoryview) -> int:
    """Write to a file what it takes; a socket that is not ours alone may be a blocking one."""
    if not stat.S_ISSOCK(os.fstat(file).st_mode):
        return os.write(file, data)
    connection = socket.socket(fileno=file)
    try:
        return connection.send(data, socket.MSG_DONTWAIT)
    finally:
        connection.detach()


def _await_room(file: int) -> None:
    """Wait until a pipe takes more, for a moment: who stops must not wait for its reader."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    if not poll.poll(ROOM_MS):
        raise TimeoutError("nobody reads it")


def _end_at_a_line(file: int, size: int) -> None:
    """Cut off what a process that was killed wrote of a line; what is longer is no line of ours."""
    end, least = size, max(size - LONGEST, 0)
    while end > least:
        begin = max(end - TAIL, least)
        last = os.pread(file, end - begin, begin).rfind(b"\n")
        if last >= 0:
            end = begin + last + 1
            break
        end = begin
    if end == least > 0:
        os.write(file, b"\n")
    elif end < size:
        os.ftruncate(file, end)


def _compress(path: Path, ended: Callable[[], bool]) -> None:
    """Have a file compressed in its place; one that was begun before a crash is made anew."""
    part = path.with_name(f"{path.name}{PART}")
    try:
        with path.open("rb") as source, open(part, "wb", opener=private) as raw:
            with gzip.GzipFile(path.name, "wb", 6, raw) as target:
                while piece := source.read(1 << 20):
                    _check_end(ended)
                    target.write(piece)
            _grant(raw.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))
            raw.flush()
            os.fsync(raw.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path.with_name(f"{path.name}{GZIP}"))
    path.unlink()


def _check_end(ended: Callable[[], bool]) -> None:
    if ended():
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
