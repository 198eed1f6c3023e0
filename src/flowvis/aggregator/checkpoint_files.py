"""A directory of checkpoints: appended to as records are delivered, bounded, read by the next one.

What this process appends goes into a file of its own; an index in memory knows where the rows of
a tuple are, 16 bytes a row. When many rows are superseded by later ones of their connections, the
files that are complete become one. What blocks for long may be called in a thread, one call at a
time (`open`, `look_up`, `merge`); the rest is its owner's.
"""

import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowvis.aggregator.correlation import kept
from flowvis.aggregator.correlation.kept import FRAME, HASH, HEAD, KEPT, MOST_ROWS, WORDS
from flowvis.runtime.directory import OwnDirectory, append_whole

log = logging.getLogger(__name__)

SPARE_ROWS = 65_536
"""So many, and as many as were left the last time, may be superseded."""
MOST_FILES = 64
WINDOW = 1 << 20  # in which the next frame is looked for behind damage
_SUFFIX = ".checkpoints"
_NAME = re.compile(rf"([0-9]{{16}}){re.escape(_SUFFIX)}")


class _Places:
    """Where the rows of a file are: growing arrays."""

    def __init__(self) -> None:
        self._count = 0
        self._hashes: NDArray[np.uint64] = np.zeros(1024, dtype=np.uint64)
        self._offsets: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        return self._hashes.nbytes + self._offsets.nbytes

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """What may be looked at while more is added."""
        return self._hashes[: self._count]

    @property
    def offsets(self) -> NDArray[np.int64]:
        return self._offsets[: self._count]

    def add(self, rows: NDArray[np.void], offset: int) -> None:
        """Note a frame whose rows begin at an offset."""
        count = self._count + len(rows)
        if count > len(self._hashes):
            room = max(2 * len(self._hashes), count)
            self._hashes = np.concatenate([self.hashes, np.zeros(room - self._count, np.uint64)])
            self._offsets = np.concatenate([self.offsets, np.zeros(room - self._count, np.int64)])
        self._hashes[self._count : count] = rows[HASH]
        self._offsets[self._count : count] = offset + np.arange(len(rows)) * KEPT.itemsize
        self._count = count


@dataclass(slots=True, eq=False)
class _File:
    path: Path
    descriptor: int
    size: int = 0
    places: _Places = field(default_factory=_Places)

    def append(self, rows: NDArray[np.void]) -> None:
        """Add a frame, whole or, with OSError, not at all."""
        data = kept.frame(rows)
        append_whole(self.descriptor, self.size, data)
        self.places.add(rows, self.size + FRAME.size)
        self.size += len(data)


@dataclass(frozen=True, slots=True)
class View:
    """A file's rows as they were at one moment."""

    file: _File
    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]

    def read(self, which: NDArray[np.int64] | slice) -> NDArray[np.void]:
        """Return rows by their positions, which ascend."""
        offsets = self.offsets[which]
        if not len(offsets):
            return np.zeros(0, dtype=KEPT)
        firsts = np.flatnonzero(np.diff(offsets, prepend=-1) != KEPT.itemsize)
        counts = np.diff(firsts, append=len(offsets))
        parts = []
        for offset, count in zip(offsets[firsts].tolist(), counts.tolist(), strict=True):
            data = os.pread(self.file.descriptor, count * KEPT.itemsize, offset)
            if len(data) < count * KEPT.itemsize:
                raise OSError(errno.EIO, f"{self.file.path} is shorter than it was")
            parts.append(data)
        return np.frombuffer(b"".join(parts), dtype=KEPT)

    def parts(self) -> Iterator[NDArray[np.void]]:
        """Go through all rows."""
        for first in range(0, len(self.offsets), MOST_ROWS):
            yield self.read(slice(first, first + MOST_ROWS))


class CheckpointFiles:
    """At most `max_bytes` of files; the oldest goes when they do not shrink."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.damaged = 0
        """Frames that were not as they were written."""
        self.forgotten = 0
        """Rows that went for want of room."""
        self._own = OwnDirectory(path)
        self._found = False
        self._max_bytes = max_bytes
        self._files: list[_File] = []  # the oldest first
        self._writing: _File | None = None  # the newest, if it is ours
        self._sealed: _File | None = None  # the newest that is being merged: who has its name
        self._gone: list[_File] = []  # to be closed when nobody reads
        self._number = 0
        self._left_rows = 0  # after the last merging
        self._in_vain = False  # whether that failed
        seed = np.frombuffer(secrets.token_bytes(8 * WORDS), dtype=np.uint64)
        self._multipliers = seed | np.uint64(1)

    @property
    def is_open(self) -> bool:
        """Whether it can be used: it is ours, and what others left is found."""
        return self._own.is_taken and self._found

    @property
    def rows(self) -> int:
        """Rows of all files, those that others supersede included."""
        return sum(len(file.places) for file in self._files)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files)

    @property
    def memory_bytes(self) -> int:
        """What the index takes."""
        return sum(file.places.memory_bytes for file in self._files)

    @property
    def is_long(self) -> bool:
        """Whether most rows may be superseded, or the files are too many."""
        many = self.rows >= 2 * self._left_rows + SPARE_ROWS
        return many or 4 * self.bytes >= 3 * self._max_bytes or len(self._files) > MOST_FILES // 2

    def open(self) -> None:
        """Take the directory, and read what is in it. BlockingIOError: another process has it."""
        if self._own.is_taken:
            return
        self._own.take()
        try:
            self._find()
        except OSError:
            self.close()
            raise
        self._found = True

    def close(self) -> None:
        """Let go of the directory; what is in it stays."""
        for file in (*self._files, *self._gone):
            os.close(file.descriptor)
        self._files, self._gone, self._writing = [], [], None
        self._found = False
        self._own.leave()

    def append(self, rows: NDArray[np.void]) -> None:
        """Add rows; OSError where the last of them could not be."""
        for part in kept.parts(rows):
            file = self._writing
            if file is None or 4 * file.size > self._max_bytes:
                file = self._begin()
            file.append(part)
        self._bound()

    def clear(self) -> None:
        """Delete everything."""
        self._drop(self._files)
        self._files, self._writing, self._left_rows = [], None, 0

    def views(self) -> list[View]:
        """All rows that there are, to be looked at in a thread."""
        found = [(file, file.places) for file in self._files]
        return [View(file, places.hashes, places.offsets) for file, places in found]

    def sealed(self) -> list[View]:
        """What there is, to be merged: what is appended from now on is not among it.

        After a merging that failed the newest file is written on, else each would leave one more.
        """
        views = self.views()
        if self._in_vain and self._writing is not None and len(views) > 1:
            views.pop()
        else:
            self._writing = None
        self._sealed = views[-1].file if views else None
        return views

    def merge(self, views: Sequence[View], since_s: int) -> _File | None:
        """Write one file with the last row of each connection; None where there is none.

        Of those that end before a moment none, and of the others the latest as far as half of
        the room goes.
        """
        ids, ends = [], []
        for view in views:
            for rows in view.parts():
                ids.append(kept.connections(rows, self._multipliers))
                ends.append(rows["flowEndSeconds"].copy())
        if not ids:
            return None
        wanted = self._latest(np.concatenate(ids), np.concatenate(ends), since_s)
        if not wanted.any():
            return None
        merged = self._create(views[-1].file.path)
        try:
            at = 0
            for view in views:
                for rows in view.parts():
                    chosen = rows[wanted[at : at + len(rows)]]
                    at += len(rows)
                    if len(chosen):
                        merged.append(chosen)
            merged.path = merged.path.replace(views[-1].file.path)
        except OSError:
            _remove(merged)
            raise
        return merged

    def keep_unmerged(self) -> None:
        """Go on with the files as they are: they could not be merged."""
        self._sealed, self._in_vain = None, True

    def replace(self, views: Sequence[View], merged: _File | None) -> None:
        """Use what was merged, if there is anything, for what it was made of."""
        merging = [view.file for view in views]
        if merged is not None:
            merging[-1].path = merged.path.with_suffix(".gone")  # the name is the new one's
        # Some may have gone meanwhile, for want of room.
        self._drop([file for file in self._files if file in merging])
        self._files = [file for file in self._files if file not in merging]
        if merged is not None:
            self._files.insert(0, merged)
        self._sealed, self._in_vain = None, False
        self._left_rows = self.rows
        self._bound()

    def sweep(self) -> None:
        """Close what is gone; only while nobody reads."""
        for file in self._gone:
            os.close(file.descriptor)
        self._gone = []

    def _latest(
        self, ids: NDArray[np.uint64], ends: NDArray[np.uint32], since_s: int
    ) -> NDArray[np.bool_]:
        """Which rows are the last ones of their connections, as many as there is room for."""
        _, last = np.unique(ids[::-1], return_index=True)
        last = len(ids) - 1 - last
        last = last[ends[last] >= since_s]
        room = self._max_bytes // 2 // KEPT.itemsize
        if len(last) > room:
            self.forgotten += len(last) - room
            last = last[np.argpartition(ends[last], len(last) - room)[len(last) - room :]]
        wanted = np.zeros(len(ids), dtype=np.bool_)
        wanted[last] = True
        return wanted

    def _begin(self) -> _File:
        """Begin a file of our own."""
        self._number += 1
        path = self.path / f"{self._number:016}{_SUFFIX}"
        file = self._create(path)
        try:
            file.path = file.path.replace(path)
        except OSError:
            _remove(file)
            raise
        self._files.append(file)
        self._writing = file
        return file

    def _create(self, path: Path) -> _File:
        fresh = path.with_suffix(".new")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = _File(fresh, os.open(fresh, flags, 0o600))
        try:
            append_whole(file.descriptor, 0, HEAD)
        except OSError:
            _remove(file)
            raise
        file.size = len(HEAD)
        return file

    def _bound(self) -> None:
        """Keep within the bytes, but for a file whose name is about to be another one's."""
        while self.bytes > self._max_bytes and len(self._files) > 1:
            if self._files[0] is self._sealed:
                break
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._files.pop(0)
        self.forgotten += len(oldest.places)
        self._drop([oldest])

    def _drop(self, files: Sequence[_File]) -> None:
        """Delete files that somebody may be reading."""
        for file in files:
            with suppress(OSError):
                file.path.unlink()
        self._gone += files

    def _find(self) -> None:
        """Read what others have left."""
        found = []
        for path in self.path.iterdir():
            if match := _NAME.fullmatch(path.name):
                found.append(path)
                self._number = max(self._number, int(match[1]))
            elif path.suffix == ".new":
                path.unlink(missing_ok=True)
        found.sort()
        for path in found[:-MOST_FILES]:
            log.warning("%s: deleted: there are more than %d files", path, MOST_FILES)
            path.unlink(missing_ok=True)
        room = 2 * self._max_bytes
        for path in reversed(found[-MOST_FILES:]):
            file = _opened(path)
            if file is None:
                continue
            room -= file.size
            if room < 0:
                log.warning("%s: deleted: more than twice checkpoint.maxBytes is there", path)
                self._drop([file])
                continue
            self._files.insert(0, file)
            try:
                self._read(file)
            except OSError as error:
                self.damaged += 1
                log.warning("%s: not read to its end: %s", path, error.strerror)
        if self._files:
            log.info("%s: %d rows of an aggregator before", self.path, self.rows)

    def _read(self, file: _File) -> None:
        """Find the rows of a file that are what was written."""
        descriptor, before = file.descriptor, self.damaged
        if os.pread(descriptor, len(HEAD), 0) != HEAD:
            if file.size >= len(HEAD):
                log.warning("%s: not used: it is of another version", file.path)
            return
        at = len(HEAD)
        while at + FRAME.size <= file.size:
            head = os.pread(descriptor, FRAME.size, at)
            count = kept.rows_after(head)
            if count < 0:
                self.damaged += 1
                at = _next_frame(descriptor, at + 1, file.size)
                continue
            end = at + FRAME.size + count * KEPT.itemsize
            if end > file.size:  # whoever wrote it was killed
                break
            rows = kept.rows_of(head, os.pread(descriptor, count * KEPT.itemsize, at + FRAME.size))
            if rows is None:
                self.damaged += 1
            else:
                file.places.add(rows, at + FRAME.size)
            at = end
        if self.damaged > before:
            text = "%s: %d parts are damaged: connections of theirs may be told twice"
            log.warning(text, file.path, self.damaged - before)


def _opened(path: Path) -> _File | None:
    """Open a file that another one has left; None where it is none."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return _File(path, descriptor, status.st_size)
        os.close(descriptor)
    return None


def _remove(file: _File) -> None:
    """Delete a file that nobody reads; the disk has its room again at once."""
    with suppress(OSError):
        file.path.unlink()
    os.close(file.descriptor)


def _next_frame(descriptor: int, at: int, size: int) -> int:
    """Return where the next frame may begin, `size` if none does."""
    while at < size:
        window = os.pread(descriptor, WINDOW, at)
        place = window.find(kept.MAGIC)
        if place >= 0:
            return at + place
        at += max(len(window) - len(kept.MAGIC) + 1, 1)
    return size


def look_up(views: Sequence[View], hashes: NDArray[np.uint64]) -> NDArray[np.void]:
    """Return the rows of tuples, by the hashes of their keys."""
    found = [view.read(np.flatnonzero(np.isin(view.hashes, hashes))) for view in views]
    return np.concatenate(found) if found else np.zeros(0, dtype=KEPT)
