"""The journal file: what an exporter has exported of each connection, as it exports it.

Rows are appended before their records are sent, so an exporter that is killed leaves to the next
one all that may have arrived; the last row of a key counts. A write is the kernel's at once: only
the end of the machine loses it, and that ends the kernel's connections as well. The file names the
boot that it is of, and the layout of its rows.
"""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowvis.counts import count, gauge
from flowvis.exporter.tables.reported import Reported
from flowvis.native import FlowIndex, pack_keys
from flowvis.runtime.directory import private

BOOT = Path("/proc/sys/kernel/random/boot_id")

_BEGINNING = b"flowvis state "
_BOOT_BYTES = 64  # a UUID is 36

SPARE_ROWS = 16_384  # 2.3 MB; so many and as many again as there are connections may be superseded
ROWS_EACH = 10  # for each connection that a table may have: more is not read; 370 MB by default


@dataclass(slots=True)
class JournalStats:
    """How the file fares."""

    rows: int = gauge("Rows in the state file, those that others supersede included")
    rewrites: int = count("Times that the state file was written anew, without superseded rows")
    failures: int = count("Times that the state file could not be written")


class OfAnotherBoot(Exception):
    """A file from before the machine was started anew; what it has ended with that."""

    def __init__(self, reported: Reported) -> None:
        super().__init__("it is of another boot")
        self.reported = reported


class Journal:
    """One file of rows, like a batch of none that is given."""

    def __init__(
        self, path: Path, like: Reported, boot: Path = BOOT, *, max_connections: int = 65_536
    ) -> None:
        """`like` says how wide the columns are."""
        self.path = path
        self.stats = JournalStats()
        self._max_rows = ROWS_EACH * max_connections + 4 * SPARE_ROWS
        self._row = np.dtype(
            [
                (field.name, column.dtype, column.shape[1:])
                for field in fields(Reported)
                for column in [getattr(like, field.name)]
            ]
        )
        self._layout = f" {self._row.descr}\n".encode()
        self._head = _BEGINNING + _boot_id(boot).encode() + self._layout
        self._file: int | None = None
        self._rewrite_at = 0

    def read(self) -> Reported | None:
        """Return the last row of each key; None without a file.

        ValueError, OSError: not usable. OfAnotherBoot has what nobody can go on from.
        """
        try:
            with self.path.open("rb") as file:
                head = file.readline(len(self._head) + _BOOT_BYTES)
                if not (head.startswith(_BEGINNING) and head.endswith(self._layout)):
                    raise ValueError("it is of another version")
                size = os.fstat(file.fileno()).st_size - len(head)
                if size > self._max_rows * self._row.itemsize:
                    raise ValueError(f"it has more than {self._max_rows} rows")
                content = file.read(size)
        except FileNotFoundError:
            return None
        whole = len(content) - len(content) % self._row.itemsize  # its writer may have been killed
        reported = self._last_of_each(np.frombuffer(content[:whole], dtype=self._row))
        if head != self._head:
            raise OfAnotherBoot(reported)
        return reported

    def append(self, reported: Reported) -> bool:
        """Add rows; whether that could be, as after a failure only `rewrite` may do better."""
        self.stats.rows += len(reported)
        if self._file is None:
            return False
        data = self._rows(reported)
        try:
            written = os.write(self._file, data)
        except OSError:
            self._fail()
            raise
        if written < len(data):
            self._fail()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    @property
    def is_long(self) -> bool:
        """Whether most of the rows may be superseded."""
        return self.stats.rows >= self._rewrite_at

    def rewrite(self, reported: Reported) -> None:
        """Write these rows alone, whole or not at all; what follows is appended to them."""
        self.stats.rows = len(reported)
        self._rewrite_at = 2 * len(reported) + SPARE_ROWS
        fresh = self.path.with_name(self.path.name + ".new")
        opened: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(fresh, "wb", opener=private) as file:
                file.write(self._head)
                file.write(self._rows(reported))
            opened = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            fresh.replace(self.path)
        except OSError:
            self.stats.failures += 1
            if opened is not None:
                os.close(opened)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)  # it may have what was left of the disk
            raise
        self.close()
        self._file = opened
        self.stats.rewrites += 1

    @property
    def is_anothers(self) -> bool:
        """Whether the file at the path is not the one that is written to: a successor's."""
        if self._file is None:
            return False
        with suppress(OSError):
            return not os.path.samestat(self.path.stat(), os.fstat(self._file))
        return False

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _fail(self) -> None:
        """Add no more to what may end with a part of a row."""
        self.close()
        self.stats.failures += 1

    def _rows(self, reported: Reported) -> memoryview:
        """Return rows as they are in the file: their columns' bytes, side by side."""
        return pack_keys(*(getattr(reported, name) for name in self._row.names or ())).data

    def _last_of_each(self, rows: NDArray[Any]) -> Reported:
        columns = {name: np.ascontiguousarray(rows[name]) for name in self._row.names or ()}
        index = FlowIndex(columns["keys"].shape[1], max(len(rows), 1))
        slots, _ = index.upsert(columns["keys"])
        last = np.full(len(index), -1, dtype=np.int64)
        np.maximum.at(last, slots, np.arange(len(rows)))
        last = last[columns["reasons"][last] != 0]
        return Reported(**{name: column[last] for name, column in columns.items()})


def _boot_id(path: Path) -> str:
    """What names this run of the kernel; "" where it has no name."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
