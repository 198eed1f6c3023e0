"""Batches on disk while the store is away: a directory with a file for each, bounded in bytes.

    spool = Spool(directory, max_bytes)
    spool.open()                                 # and what a process before has left is there
    entry = spool.write(batch, batch_id)         # on disk when this returns
    spool.add(entry)
    batch, batch_id = spool.read(spool.oldest)   # CorruptFile: put it aside
    spool.forget(entry); spool.delete(entry)     # the store has it

A file is written under another name, flushed, and then named by its number and its records, so that
what is found is whole, in order, and counted without reading it. What touches files blocks, and may
be called in a thread, one call that writes and one that reads at a time; the rest is its owner's.
There is a file a second at least while a store is away: sums over all are kept, not made anew.
"""

import contextlib
import errno
import logging
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flowvis.batch import Batch
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.spooled import MAX_BODY, CorruptFile, restored, spooled
from flowvis.errors import FlowvisError
from flowvis.runtime.directory import OwnDirectory, private

log = logging.getLogger(__name__)

KEPT_ASIDE = 8
"""Corrupt files that stay, the newest, for whoever wants to know why; as many rejected ones."""
CORRUPT, REJECTED = ".corrupt", ".rejected"
"""The suffixes of files that are put aside: damaged, or refused by the store for ever."""
_FOR_GOOD = frozenset({errno.ENOENT, errno.EIO, errno.EISDIR, errno.ELOOP})
"""What keeps a file from being read another time as well."""
_NUMBER = re.compile(r"[0-9]{12,18}(?![0-9])")
_NAME = re.compile(rf"({_NUMBER.pattern})-([0-9]{{1,9}})\.batch")


class SpoolError(FlowvisError):
    """The directory cannot be used at the moment; the text says why."""


class SpoolFull(SpoolError):
    """What was to be written, of so many bytes, does not fit in."""

    def __init__(self, text: str, size: int) -> None:
        super().__init__(text)
        self.size = size


class SpoolTaken(SpoolError):
    """Another process has the directory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch on disk."""

    number: int
    records: int
    size: int
    """Bytes of the file."""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.number:012}-{self.records}.batch"


class Spool:
    """One process's spool: whoever else comes to the directory is refused."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.records = 0
        """Records of all batches."""
        self.bytes = 0
        """Bytes of all files."""
        self._entries: deque[Entry] = deque()
        self._largest = 0  # of the files, or more
        self._next = 0
        self._own = OwnDirectory(directory)

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._entries)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._own.is_taken

    def __iter__(self) -> Iterator[Entry]:
        """Go through the batches, the oldest first."""
        return iter(self._entries)

    def has_room(self, size: int = 0) -> bool:
        """Whether a batch of so many bytes, or the largest that there is, fits in."""
        left = self.max_bytes - self.bytes
        if self._largest > left:  # it may be gone
            self._largest = max((entry.size for entry in self._entries), default=0)
        return max(self._largest, size) <= left

    @property
    def oldest(self) -> Entry | None:
        """The batch that is delivered next."""
        return self._entries[0] if self._entries else None

    def open(self) -> None:
        """Take the directory, and find what is in it; SpoolTaken, SpoolError if that cannot be."""
        if self._own.is_taken:
            return
        try:
            self._own.take()
            self._find()
        except BlockingIOError:
            raise SpoolTaken(f"{self.directory}: another process has it") from None
        except OSError as error:
            self._own.leave()
            raise SpoolError(f"{self.directory}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the directory; what is in it stays."""
        self._own.leave()

    def write(self, batch: Batch, batch_id: BatchId) -> Entry:
        """Write a batch, which survives whatever happens once this returns; `add` it then.

        SpoolFull where it does not fit in, SpoolError where the disk does not take it.
        """
        data = spooled(batch, batch_id)
        if self.bytes + len(data) > self.max_bytes:
            text = f"{self.directory}: full, with {self.bytes} of {self.max_bytes} bytes"
            raise SpoolFull(text, len(data))
        entry = Entry(self._next, len(batch), len(data))
        self._next += 1  # at once: the next one may begin when this one is still on its way
        path = self.directory / entry.name
        partial = path.with_suffix(".partial")
        try:
            with open(partial, "wb", opener=private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            self._own.flush_names()
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            if self._next == entry.number + 1:
                self._next = entry.number
            # Without the file's name, which is another one at each attempt: that is said once.
            raise SpoolError(f"{self.directory}: {error.strerror}") from error
        return entry

    def add(self, entry: Entry) -> None:
        """Put what was written behind all others."""
        self._entries.append(entry)
        self.records += entry.records
        self.bytes += entry.size
        self._largest = max(self._largest, entry.size)

    def forget(self, entry: Entry) -> None:
        """Take a batch out that is delivered, or given up; its file is still to be deleted."""
        with contextlib.suppress(ValueError):
            self._entries.remove(entry)
            self.records -= entry.records
            self.bytes -= entry.size

    def read(self, entry: Entry) -> tuple[Batch, BatchId]:
        """Return a batch and its id; CorruptFile where these are not what was written.

        SpoolError where that cannot be said now, as for want of descriptors.
        """
        path = self.directory / entry.name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BODY)
        except OSError as error:
            if error.errno in _FOR_GOOD:
                raise CorruptFile(f"{error.strerror}") from error
            raise SpoolError(f"{path}: {error.strerror}") from error
        batch, batch_id = restored(data)
        if len(batch) != entry.records:
            raise CorruptFile(f"{len(batch)} records, and its name says {entry.records}")
        return batch, batch_id

    def delete(self, entry: Entry) -> None:
        """Delete the file of a batch that was forgotten."""
        with contextlib.suppress(OSError):
            (self.directory / entry.name).unlink(missing_ok=True)

    def put_aside(self, entry: Entry, suffix: str) -> None:
        """Keep the file of a forgotten batch for whoever wants to know why, out of the way."""
        path = self.directory / entry.name
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(suffix))
            aside = sorted(self.directory.glob(f"*{suffix}"))
            for old in aside[:-KEPT_ASIDE]:
                old.unlink(missing_ok=True)

    def _find(self) -> None:
        """Read the names of the directory; what was not whole when somebody died goes."""
        found, last = [], -1
        for path in self.directory.iterdir():
            if path.suffix == ".partial":
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            elif match := _NAME.fullmatch(path.name):
                found.append(Entry(int(match[1]), int(match[2]), _size(path)))
            if number := _NUMBER.match(path.name):
                last = max(last, int(number[0]))
        self._entries.clear()
        self.records = self.bytes = self._largest = 0
        for entry in sorted(found, key=lambda entry: entry.number):
            self.add(entry)
        self._next = last + 1
        if found:
            log.info("%s: %d records of a process before", self.directory, self.records)


def _size(path: Path) -> int:
    """Return the size of a file; of one that a bad disk does not tell, which is corrupt, 0."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
